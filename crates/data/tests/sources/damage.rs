//! Files that cannot be used, and what must not be read: damage, pipes, pointers, links, sizes.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray};
use data::{DataSpec, Dataset, ImageSource, Keys};

use crate::support::{Pictures, folder, open, picture_lists, refusal, structs, texts, virl, write};

/// A pipe has nobody who writes into it, and a device has no end: both are named instead of read.
#[cfg(unix)]
#[test]
fn pictures_that_are_no_files_cost_their_rows() {
    let (_tmp, dir) = folder();
    let pipe = dir.join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::create_dir(dir.join("folder.png")).unwrap();
    let row = |picture: &str| format!(r#"{{"problem": "q", "answer": "1", "images": ["{picture}"]}}"#);
    let rows = ["pipe.png", "folder.png"];
    let path = dir.join("x.jsonl");
    std::fs::write(&path, rows.map(row).join("\n")).unwrap();
    let dataset = open(&path);
    for (i, name) in rows.into_iter().enumerate() {
        let picture = dataset.get(i).unwrap().images.remove(0);
        for error in [picture.load().unwrap_err().to_string(), picture.header_size().unwrap_err().to_string()] {
            assert!(error.contains(name) && error.contains("not a file"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
    // Where a row may name a device at all.
    let device = ImageSource::Path("/dev/zero".into());
    assert!(device.load().unwrap_err().to_string().contains("not a file but a device"));
    let found = data::inspect::inspect(&Arc::new(dataset), 3, None, |_| {}).to_string();
    assert!(rows.iter().all(|name| found.contains(name)), "{found}");
}

#[test]
fn parquet_files_that_cannot_be_used() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    virl(&path, 20, 10, 5, false);
    let whole = std::fs::read(&path).unwrap();
    let name = path.display().to_string();
    for cut in [whole.len() - 1, whole.len() / 2, 3] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = refusal(&name);
        assert!(error.starts_with(&name) && error.contains("truncated"), "{error}");
    }
    std::fs::write(&path, b"").unwrap();
    assert!(refusal(&name).contains(&name));
    write(&path, vec![("prompt", texts(["a"])), ("answer", texts(["b"]))], 10, false);
    let error = refusal(&name);
    assert!(
        error.contains("no column \"problem\"") && error.contains("prompt, answer") && error.contains("prompt_key"),
        "{error}"
    );
    write(&path, vec![("problem", Arc::new(structs(&[(None, None)]))), ("answer", texts(["b"]))], 10, false);
    assert!(refusal(&name).contains("not text"));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    write(&path, vec![("problem", texts(["a"])), ("answer", texts(["b"])), ("images", numbers)], 10, false);
    assert!(refusal(&name).contains("not pictures"));
    write(&path, vec![("problem", texts(Vec::<&str>::new())), ("answer", texts(Vec::<&str>::new()))], 10, false);
    assert!(refusal(&name).contains("no rows"));
    let text = dir.join("x.txt");
    std::fs::write(&text, "hello").unwrap();
    assert!(refusal(&text.display().to_string()).contains("unknown file type"));
}

/// Every byte of a small file, changed: an error or a counted row, never a panic.
#[test]
fn damaged_parquet_is_an_error_or_costs_its_rows() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    virl(&path, 8, 4, 5, true);
    let whole = std::fs::read(&path).unwrap();
    let (mut refused, mut lost) = (0, 0);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        // Sizes, counts and signs live in the low and the high bits.
        damaged[at] ^= [0xFF, 0x01, 0x40][at % 3];
        std::fs::write(&path, &damaged).unwrap();
        match Dataset::open(&[path.display().to_string().into()], &Keys::default(), None) {
            Err(_) => refused += 1,
            // One row of each group; a footer can state any number of them.
            Ok(dataset) => lost += [0, 7].iter().filter(|i| dataset.get(**i).is_err()).count(),
        }
    }
    assert!(refused > 100 && lost > 100, "{refused} {lost}");
}

#[test]
fn pointers_of_git_lfs_are_called_by_their_name() {
    let (_tmp, dir) = folder();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123456\n";
    for name in ["x.parquet", "x.jsonl", "x.json"] {
        let path = dir.join(name);
        std::fs::write(&path, pointer).unwrap();
        let error = refusal(&path.display().to_string());
        assert!(error.contains(name) && error.contains("Git LFS pointer") && error.contains("git lfs pull"), "{error}");
    }
    std::fs::write(dir.join("p.png"), pointer).unwrap();
    for picture in [ImageSource::Path(dir.join("p.png")), pointer.as_bytes().to_vec().into()] {
        let decoded = data::image::decode(&picture.load().unwrap()).unwrap_err();
        assert_eq!(decoded, picture.header_size().unwrap_err());
        assert!(decoded.to_string().contains("git lfs pull"), "{decoded}");
    }
}

#[cfg(unix)]
#[test]
fn pictures_of_rows_stay_in_their_folder() {
    use std::os::unix::fs::symlink;
    let tmp = tempfile::tempdir().unwrap();
    let data = tmp.path().join("data");
    std::fs::create_dir_all(data.join("images")).unwrap();
    std::fs::write(data.join("images/a.png"), "png").unwrap();
    std::fs::write(tmp.path().join("secret.png"), "secret").unwrap();
    symlink("../secret.png", data.join("link.png")).unwrap();
    symlink("..", data.join("up")).unwrap();
    let outside = tmp.path().join("secret.png").display().to_string();
    let inside = data.join("images/a.png").display().to_string();
    let paths = [
        "images/a.png",
        &inside,
        "images/../images/a.png",
        "../secret.png",
        &outside,
        "link.png",
        "up/secret.png",
        "file:///etc/passwd",
    ];
    let row = |p: &&str| serde_json::json!({"problem": "<image>", "answer": "1", "images": [p]}).to_string();
    std::fs::write(data.join("rows.jsonl"), paths.iter().map(row).collect::<Vec<_>>().join("\n")).unwrap();
    let structs: Pictures = vec![Some(vec![(None, Some("../secret.png"))]), Some(vec![(None, Some("images/a.png"))])];
    let text = |t: &str| Arc::new(StringArray::from(vec![t; 2])) as ArrayRef;
    let columns = vec![
        ("problem", text("<image>")),
        ("answer", text("1")),
        ("images", Arc::new(picture_lists(&structs)) as ArrayRef),
    ];
    write(&data.join("rows.parquet"), columns, 10, false);
    let open = |file: &str, dir: Option<&Path>| {
        Dataset::open(&[data.join(file).to_str().unwrap().into()], &Keys::default(), dir).unwrap()
    };
    let rows = open("rows.jsonl", None);
    for (k, path) in paths.iter().enumerate() {
        match rows.get(k) {
            Ok(_) => assert!(k < 3, "{path}"),
            Err(bad) => assert!(k >= 3 && bad.to_string().contains("lies outside the folder"), "{path}: {bad}"),
        }
    }
    // A folder above both holds the absolute paths.
    let rows = open("rows.jsonl", Some(tmp.path()));
    assert!(rows.get(1).is_ok() && rows.get(4).is_ok() && rows.get(7).is_err());
    let rows = open("rows.parquet", None);
    assert!(rows.get(0).is_err() && rows.get(1).is_ok());
}

#[cfg(unix)]
#[test]
fn data_that_is_no_file_is_refused_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    for name in ["rows.jsonl", "rows.parquet"] {
        let path = tmp.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(Dataset::open(&[path.to_str().unwrap().into()], &Keys::default(), None).is_err());
    }
    std::fs::create_dir(tmp.path().join("folder.jsonl")).unwrap();
    assert!(
        Dataset::open(&[tmp.path().join("folder.jsonl").to_str().unwrap().into()], &Keys::default(), None).is_err()
    );
}

#[test]
fn sizes_have_upper_bounds() {
    let open = |spec: DataSpec| Dataset::open(&[spec], &Keys::default(), None).map(drop).map_err(|e| e.to_string());
    for (size, good) in
        [("1000000000", true), ("1000000001", false), ("1000000000000", false), ("18446744073709551615", false)]
    {
        let done = open(format!("toy:sum?size={size}").as_str().into());
        assert_eq!(done.is_ok(), good, "{size}");
        if let Err(error) = done {
            assert!(
                error.contains("size must be at least 1 and at most 1000000000") && error.contains(size),
                "{error}"
            );
        }
    }
    let long = open(format!("toy:sum?size={}", "9".repeat(100_000)).as_str().into()).unwrap_err();
    assert!(guard::printable(&long).len() < 5_000);
    for weight in [2e6, f64::INFINITY, f64::NAN, -1.0] {
        let spec = DataSpec::Weighted(data::dataset::WeightedSpec { path: "toy:sum?size=10".into(), weight });
        assert!(open(spec).unwrap_err().contains("weight"), "{weight}");
    }
    let spec = DataSpec::Weighted(data::dataset::WeightedSpec { path: "toy:sum?size=1000000000".into(), weight: 1e4 });
    assert!(open(spec).unwrap_err().contains("an epoch"));
}
