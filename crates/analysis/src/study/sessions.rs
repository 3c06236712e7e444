//! The calls of the program that made a study.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::plan::Study;
use super::{StudyError, report, result};

/// File of the calls of the program, in the study's folder.
pub(super) const SESSIONS: &str = "sessions.jsonl";

/// One call of the program, in `sessions.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The command as it was typed.
    pub command: String,
    /// Runs at a time.
    pub jobs: usize,
    /// CPU cores of the machine.
    pub cores: usize,
    /// Runs that it finished.
    pub finished: usize,
    /// Seconds from start to end.
    pub seconds: f64,
}

impl Session {
    /// Adds a line to the file, and writes the report anew.
    ///
    /// # Errors
    /// Anything the file system refuses.
    pub fn append(&self, study: &Study, out: &Path) -> Result<(), StudyError> {
        let path = out.join(SESSIONS);
        let mut text = guard::file::read_text(&path, guard::limits().record_bytes).unwrap_or_default();
        let _ = writeln!(text, "{}", serde_json::to_string(self).unwrap_or_default());
        result::write(&path, &text)?;
        report::write(study, out)
    }

    pub(super) fn read(out: &Path) -> Vec<Self> {
        let text = guard::file::read_text(&out.join(SESSIONS), guard::limits().record_bytes).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}
