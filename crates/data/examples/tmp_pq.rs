use std::sync::Arc; use std::time::Instant;
fn main(){ 
 let t=Instant::now(); let d=Arc::new(data::Dataset::open(&["/tmp/data-work/big.parquet".into()],&data::Keys::default(),None).unwrap()); eprintln!("open {:?}",t.elapsed());
 let t=Instant::now(); d.get(5).unwrap(); eprintln!("first {:?}",t.elapsed());
 let t=Instant::now(); for i in 0..300 { d.get(i*617%2000).unwrap(); } eprintln!("random x300 {:?}",t.elapsed());
 for i in 0..2000 { let b=d.get(i*7%2000).unwrap(); let b=b.images[0].load().unwrap().into_owned(); assert!(b.ends_with(format!("{}",i*7%2000).as_bytes())); } let t=Instant::now(); for i in 0..2000 { assert_eq!(d.get(i).unwrap().images.len(),1); } eprintln!("sequential x2000 {:?}",t.elapsed());
 let t=Instant::now(); let v:Vec<usize>=(0..512).map(|i|i*617%2000).collect(); assert!(d.get_many(&v).iter().all(|r|r.is_ok())); eprintln!("many 512 {:?}",t.elapsed());
 let t=Instant::now(); data::inspect::inspect(&d,2000,None,|_|()); eprintln!("inspect {:?}",t.elapsed());
 let s=std::fs::read_to_string("/proc/self/status").unwrap(); eprintln!("{}", s.lines().find(|l|l.starts_with("VmHWM")).unwrap());
 let t=Instant::now(); let src=data::Dataset::open(&["/tmp/data-work/toy.parquet".into()],&data::Keys::default(),None).unwrap(); let mut w=data::write::SampleWriter::create(std::path::Path::new("/tmp/data-work/toy2.parquet"),src.keys(),data::write::JsonImages::Files).unwrap(); for i in 0..20 { w.write(&src.get(i).unwrap()).unwrap(); } w.finish().unwrap(); eprintln!("{:?}",t.elapsed());
}
