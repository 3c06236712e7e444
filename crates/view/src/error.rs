//! Why a run cannot be shown.

use std::io;
use std::path::{Path, PathBuf};

/// Why a run, or a part of one, cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// A path at which no run is.
    #[error("{}: {reason}", guard::echo(&path.to_string_lossy()))]
    NoRun {
        /// What was named.
        path: PathBuf,
        /// What is missing there, and what to name in its place.
        reason: String,
    },
    /// A run that was named twice.
    #[error("{}: the run is named twice; name each run once", guard::echo(&.0.to_string_lossy()))]
    Twice(PathBuf),
    /// No run was named.
    #[error("no run is named; name the folder of one (trainer.output_dir)")]
    NoneNamed,
    /// Something that this run does not have: a step, a group, a picture.
    #[error("{0}")]
    Absent(String),
    /// A file that cannot be read or written.
    #[error("{}: {source}", guard::echo(&path.to_string_lossy()))]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl ViewError {
    /// Adds the path to an error of the file system.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Absent(format!("{}: there is no such file", name_of(path))),
            _ => Self::Io { path: path.to_path_buf(), source },
        }
    }
}

/// A file by its last name, as an answer to a browser tells nothing of the folders above it.
fn name_of(path: &Path) -> String {
    guard::echo(&path.file_name().unwrap_or_default().to_string_lossy())
}
