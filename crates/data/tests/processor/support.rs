//! The toy folder, edited folders, samples.

use std::path::Path;
use std::sync::LazyLock;

use data::{ImageSource, Processor, Sample, toy};
use serde_json::Value;

pub(crate) static TOY: LazyLock<(tempfile::TempDir, Processor)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    toy::write_processor_files(dir.path()).unwrap();
    let processor = Processor::from_folder(dir.path()).unwrap();
    (dir, processor)
});

/// A toy folder with one file edited; `None` removes it.
pub(crate) fn edited(name: &str, edit: impl Fn(Value) -> Option<Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    toy::write_processor_files(dir.path()).unwrap();
    let path = dir.path().join(name);
    let old = std::fs::read(&path).ok().map(|b| serde_json::from_slice(&b).unwrap()).unwrap_or(Value::Null);
    match edit(old) {
        Some(new) => std::fs::write(path, new.to_string()).unwrap(),
        None => std::fs::remove_file(path).unwrap(),
    }
    dir
}

pub(crate) fn refusal(dir: &Path) -> String {
    let error = Processor::from_folder(dir).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

pub(crate) fn png(w: u32, h: u32) -> ImageSource {
    let mut bytes = Vec::new();
    let picture = ::image::RgbImage::from_fn(w, h, |x, y| ::image::Rgb([x as u8, y as u8, 9]));
    picture.write_to(&mut std::io::Cursor::new(&mut bytes), ::image::ImageFormat::Png).unwrap();
    bytes.into()
}

pub(crate) fn sample(problem: &str, images: Vec<ImageSource>) -> Sample {
    Sample {
        id: "a".into(),
        index: 3,
        problem: problem.into(),
        answer: "1".into(),
        images,
        task: None,
        solution: None,
        extra: Default::default(),
    }
}
