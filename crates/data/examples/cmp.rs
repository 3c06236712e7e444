fn main(){ let mut names:Vec<_>=std::fs::read_dir("/tmp/data-work/jpg").unwrap().map(|e|e.unwrap().path()).filter(|p|p.extension().unwrap()!="raw").collect(); names.sort();
 for p in names { let b=std::fs::read(&p).unwrap(); let raw=std::fs::read(format!("{}.raw",p.display())).unwrap();
  let n=p.file_name().unwrap().to_string_lossy().into_owned();
  match data::image::decode(&b){ Err(e)=>println!("{n}: ERR {e}"), Ok(im)=>{ let want=&raw[8..]; let got=im.as_raw(); if want.len()!=got.len(){println!("{n}: size differs {:?}", im.dimensions()); continue;}
   let diff=want.iter().zip(got).filter(|(a,b)|a!=b).count(); let max=want.iter().zip(got).map(|(a,b)|a.abs_diff(*b)).max().unwrap();
   println!("{n}: {:.2}% differ, max {max}", 100.0*diff as f64/want.len() as f64);}}}}
