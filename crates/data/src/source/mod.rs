//! Where rows come from. [`open`] turns a spec string into sources; each source knows how to read one row.

mod annotations;
mod cell;
mod hub;
mod json;
mod numbered;
mod pages;
mod parquet;
mod resolve;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::DataError;
use crate::sample::{ImageSource, Keys};
use crate::toy::ToySource;

/// A column of a source, for `data inspect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as the file states it.
    pub kind: String,
    /// Whether it is read (named by [`Keys`]).
    pub used: bool,
}

/// One row as a source delivers it, before a sample is made of it.
#[derive(Debug)]
pub(crate) struct RawRow {
    pub id: Option<String>,
    pub problem: Option<String>,
    pub answer: Option<String>,
    pub images: RowImages,
    pub task: Option<String>,
    pub solution: Option<String>,
    /// The columns of `Keys::extra` that are there.
    pub extra: BTreeMap<String, String>,
}

/// The pictures of a row by their number, from 1; a null has a number and is no picture. Or why the image cell makes no
/// sense.
pub(crate) type RowImages = Result<Vec<Option<ImageSource>>, String>;

/// Rows that are read one by one.
pub(crate) trait RowSource: Send + Sync {
    /// For messages: the file, or the toy spec.
    fn name(&self) -> String;
    /// Rows; at least one.
    fn len(&self) -> usize;
    /// Row `i < len`; the error is the reason for setting it aside.
    fn row(&self, i: usize) -> Result<RawRow, String>;
    /// Several rows in ascending order.
    fn rows(&self, rows: &[usize]) -> Vec<Result<RawRow, String>> {
        rows.iter().map(|&i| self.row(i)).collect()
    }
    /// The ids of all rows, when ids of this source can repeat. Empty when there is no id column.
    fn ids(&self) -> Vec<Option<String>>;
    /// What the source holds.
    fn columns(&self) -> Vec<Column>;
    /// The line of a file of lines, from 1, that row `i < len` begins on.
    fn line(&self, i: usize) -> Option<usize> {
        let _ = i;
        None
    }
}

/// Opens all sources that a spec string names.
pub(crate) fn open(spec: &str, keys: &Keys, image_dir: Option<&Path>) -> Result<Vec<Arc<dyn RowSource>>, DataError> {
    if let Some(toy) = spec.strip_prefix("toy:") {
        return Ok(vec![Arc::new(ToySource::parse(toy).map_err(|reason| DataError::spec(spec, reason))?)]);
    }
    let files = match resolve::resolve(spec)? {
        resolve::Resolved::Files(files) => files,
        resolve::Resolved::Annotations { info, name } => {
            return Ok(vec![Arc::new(annotations::open(&info, name.as_deref(), keys, image_dir)?)]);
        }
    };
    files.iter().map(|file| open_file(file, keys, image_dir)).collect()
}

fn open_file(path: &PathBuf, keys: &Keys, image_dir: Option<&Path>) -> Result<Arc<dyn RowSource>, DataError> {
    let root = match image_dir {
        Some(dir) => dir.to_path_buf(),
        None => path.parent().map(Path::to_path_buf).unwrap_or_default(),
    };
    Ok(match resolve::kind(path) {
        Some(resolve::FileKind::Parquet) => Arc::new(parquet::ParquetSource::open(path, keys, root)?),
        Some(resolve::FileKind::Json) => Arc::new(json::JsonSource::open(path, keys, root)?),
        None => {
            return Err(DataError::file(path, "unknown file type; use .parquet, .jsonl or .json"));
        }
    })
}

/// The picture at `path`, relative to `root`, which it must not leave: what a row names may have been written by a
/// stranger.
pub(crate) fn picture(root: &Path, path: &str) -> Result<ImageSource, String> {
    let full = root.join(path);
    // A picture that is not there is told when it is loaded.
    if guard::limits().outside_pictures.value == 0 && guard::file::lies_in(&full, root).is_ok_and(|inside| !inside) {
        return Err(format!(
            "the picture {} lies outside the folder {}; name a folder that holds all pictures (image_dir), or {}",
            guard::echo(path),
            guard::echo(&root.to_string_lossy()),
            "set VISUAL_RL_LIMITS=outside_pictures=1 for data that you trust"
        ));
    }
    Ok(ImageSource::Path(full))
}
