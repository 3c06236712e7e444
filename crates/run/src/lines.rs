//! Files of JSON objects, one a line: how they are written, read, and cut back to a step.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::folder::{RunFolderError, at};

/// A file of JSON objects, one a line. Each line is written at once, so that a reader sees whole lines.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    /// None in a process that writes nothing: a run on many devices has one writer.
    file: Option<File>,
}

impl JsonLines {
    pub(crate) fn open(path: &Path, empty: bool) -> Result<Self, RunFolderError> {
        if empty {
            File::create(path).map_err(at(path))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(at(path))?;
        Ok(Self { path: path.to_path_buf(), file: Some(file) })
    }

    /// Takes what is appended and writes none of it.
    pub(crate) fn sink(path: &Path) -> Self {
        Self { path: path.to_path_buf(), file: None }
    }

    /// Appends one object.
    ///
    /// # Errors
    /// [`RunFolderError::DiskFull`] and other failures; no part of the line is left behind then.
    pub fn append(&mut self, record: &Map<String, Value>) -> Result<(), RunFolderError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(record).map_err(|error| at(&self.path)(error.into()))?;
        line.push(b'\n');
        append_whole(file, &self.path, &line)
    }

    /// Makes the lines survive a loss of power; done before a checkpoint is written.
    ///
    /// # Errors
    /// When the system cannot write them.
    pub fn sync(&self) -> Result<(), RunFolderError> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync_data().map_err(at(&self.path)))
    }
}

/// Appends `bytes` to the open file at `path`.
///
/// # Errors
/// [`RunFolderError::DiskFull`] and other failures; no part of the bytes is left behind then.
pub(crate) fn append_whole(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), RunFolderError> {
    let before = file.metadata().map_err(at(path))?.len();
    file.write_all(bytes).map_err(|error| {
        // A failed attempt to undo leaves a half line, which resuming drops.
        let _ = file.set_len(before);
        at(path)(error)
    })
}

/// Drops the lines after `step`, and a last line that was only half written.
pub(crate) fn truncate_after(path: &Path, step: u64) -> Result<(), RunFolderError> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(path)(error)),
    };
    let mut bytes = Vec::new();
    (&file).read_to_end(&mut bytes).map_err(at(path))?;
    let mut keep = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let last = keep + line.len() == bytes.len();
        let record = match line.strip_suffix(b"\n") {
            None => break, // killed while writing it
            Some(line) => parse_line(line),
        };
        match record.and_then(|record| step_of(&record)) {
            Ok(logged) if logged > step => break,
            Ok(_) => keep += line.len(),
            // A machine that stopped can leave a last block of zeros.
            Err(_) if last => break,
            Err(reason) => {
                return Err(RunFolderError::BadLine { path: path.to_path_buf(), line: index + 1, reason });
            }
        }
    }
    if keep < bytes.len() {
        file.set_len(keep as u64).map_err(at(path))?;
        file.sync_all().map_err(at(path))?;
    }
    Ok(())
}

pub(crate) fn parse_line(line: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

fn step_of(record: &Map<String, Value>) -> Result<u64, String> {
    record.get("step").and_then(Value::as_u64).ok_or_else(|| "it has no \"step\"".to_string())
}
