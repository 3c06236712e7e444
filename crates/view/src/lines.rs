//! Files of JSON objects, one a line, read so that a bad line costs itself alone.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ViewError;

/// The lines of a file that could be read.
#[derive(Debug, Default)]
pub(crate) struct ReadLines {
    /// Each with its place in the file, from 0.
    pub(crate) rows: Vec<(usize, Map<String, Value>)>,
    pub(crate) bad: BadLines,
}

/// The lines that could not be.
#[derive(Debug, Default)]
pub(crate) struct BadLines {
    pub(crate) count: usize,
    /// Where the first is and what is wrong with it.
    pub(crate) first: Option<String>,
}

impl BadLines {
    /// Counts one; `line` from 0.
    pub(crate) fn add(&mut self, line: usize, reason: &impl std::fmt::Display) {
        self.count += 1;
        self.first.get_or_insert_with(|| format!("line {}: {reason}", line + 1));
    }

    /// As the page takes it.
    pub(crate) fn json(&self) -> Value {
        serde_json::json!({"count": self.count, "first": self.first})
    }
}

/// The lines of a file. A last line without a line break is at work and left out.
///
/// # Errors
/// A file that is not there or is too large.
pub(crate) fn read(path: &Path) -> Result<ReadLines, ViewError> {
    let bytes = guard::file::read(path, guard::limits().record_bytes).map_err(ViewError::at(path))?;
    let mut found = ReadLines::default();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        match line.strip_suffix(b"\n") {
            None | Some(b"") => {}
            Some(line) => match serde_json::from_slice(line) {
                Ok(row) => found.rows.push((index, row)),
                Err(reason) => found.bad.add(index, &reason),
            },
        }
    }
    Ok(found)
}

/// `text` cut to `most` characters.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
