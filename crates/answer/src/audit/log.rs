//! The file and the table of an audit: where the graders disagree (docs/grading.md). `grade`, `data check` and `eval`
//! share it.

use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::{Path, PathBuf};

use super::{Audit, Disagreement, compare};
use crate::math;
use serde_json::json;

/// An answer that has been compared; made on any thread.
pub struct Compared {
    /// Whose answer it is.
    pub id: String,
    given: String,
    truth: String,
    found: Option<Disagreement>,
    agreed: bool,
}

impl Compared {
    /// Asks the graders.
    pub fn new(id: String, given: String, truth: String) -> Self {
        let found = compare(&given, &truth);
        let agreed = found.is_none() && math::equal(&given, &truth);
        Self { id, given, truth, found, agreed }
    }
}

/// Counts answers and writes a JSON line for each on which the graders disagree. The file appears when all is done.
pub struct AuditLog {
    audit: Audit,
    path: PathBuf,
    temporary: PathBuf,
    writer: BufWriter<File>,
}

impl AuditLog {
    /// Opens the file under a temporary name.
    pub fn create(path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| std::io::Error::other("it names no file"))?;
        if path.is_dir() {
            return Err(std::io::Error::other("it is a folder; name a file"));
        }
        let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let writer = BufWriter::new(File::create(&temporary)?);
        Ok(Self { audit: Audit::default(), path: path.to_path_buf(), temporary, writer })
    }

    /// Counts an answer, and writes it when the graders disagree.
    pub fn add(&mut self, compared: &Compared) -> Result<()> {
        let Compared { id, given, truth, found, agreed } = compared;
        self.audit.count(given, truth, *found, *agreed);
        let Some(found) = found else { return Ok(()) };
        let line = json!({
            "id": id,
            "kind": found.kind,
            "mathruler": found.mathruler,
            "math": found.math,
            "choice": found.choice,
            "given": given,
            "ground_truth": truth,
        });
        writeln!(self.writer, "{line}")
    }

    /// Gives the file its name; the table.
    pub fn finish(mut self) -> Result<String> {
        self.writer.flush()?;
        std::fs::rename(&self.temporary, &self.path)?;
        Ok(format!("{}{} written: one JSON line a disagreement\n", self.audit, self.path.display()))
    }
}

impl Drop for AuditLog {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.temporary); // gone already when all went well
    }
}
