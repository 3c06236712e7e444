//! `metrics.jsonl`: the log, its reader, and what its keys mean.

pub(crate) mod declared;
pub mod registry;

use std::path::Path;

use serde_json::{Map, Value};

use crate::events::EventLog;
use crate::folder::{RunFolderError, at};
use crate::layout::METRICS;
use crate::lines::{JsonLines, parse_line};
use crate::table::MetricsTable;

/// Keys that are neither declared nor under a prefix of their own.
pub(crate) fn undeclared<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    keys.map(String::as_str).filter(|key| registry::declared(key).is_none() && !registry::is_foreign(key)).collect()
}

/// What was measured in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMetrics(pub Map<String, Value>);

impl StepMetrics {
    /// Number of the step over all stages, from 1; `None` for a line that this program did not write.
    pub fn step(&self) -> Option<u64> {
        self.0.get("step")?.as_u64()
    }

    /// A metric; `None` where it is absent or is not finite.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.0.get(key)?.as_f64()
    }

    /// Without what the clock decides (`time/`, `perf/`): equal in two runs of one configuration and seed on the CPU.
    #[must_use]
    pub fn without_clock(mut self) -> Self {
        self.0.retain(|key, _| !key.starts_with("time/") && !key.starts_with("perf/"));
        self
    }
}

/// A metrics log in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsReader {
    /// In the order of the file.
    pub steps: Vec<StepMetrics>,
    /// Why the last line is left out, where it was only half written: the run was killed, or is at work.
    pub torn: Option<String>,
}

impl MetricsReader {
    /// Reads a `metrics.jsonl`.
    ///
    /// # Errors
    /// [`RunFolderError::BadLine`] for any line but the last that is no JSON object; an unreadable file.
    pub fn read(path: &Path) -> Result<Self, RunFolderError> {
        let bytes = guard::file::read(path, guard::limits().record_bytes).map_err(at(path))?;
        let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let mut found = Self { steps: Vec::with_capacity(lines.len()), torn: None };
        for (index, line) in lines.iter().enumerate() {
            match parse_line(line) {
                Ok(record) => found.steps.push(StepMetrics(record)),
                Err(reason) if index + 1 == lines.len() => found.torn = Some(reason),
                Err(reason) => {
                    return Err(RunFolderError::BadLine { path: path.to_path_buf(), line: index + 1, reason });
                }
            }
        }
        Ok(found)
    }
}

/// The lines of a metrics log as JSON objects, e.g. to plot it. A half-written last line is left out.
///
/// # Errors
/// As [`MetricsReader::read`].
pub fn read_metrics(path: &Path) -> Result<Vec<Map<String, Value>>, RunFolderError> {
    Ok(MetricsReader::read(path)?.steps.into_iter().map(|step| step.0).collect())
}

/// What was measured in each step: `metrics.jsonl`, and the same as a table and as event files.
#[derive(Debug)]
pub struct MetricsLog {
    lines: JsonLines,
    /// None in a process that writes nothing.
    table: Option<MetricsTable>,
    events: EventLog,
}

impl MetricsLog {
    /// Opens the logs of the run folder `root` to append to them.
    pub(crate) fn open(root: &Path) -> Result<Self, RunFolderError> {
        let lines = JsonLines::open(&root.join(METRICS), false)?;
        Ok(Self { lines, table: Some(MetricsTable::open(root)?), events: EventLog::new(root, true) })
    }

    /// Takes what is appended and writes none of it.
    pub(crate) fn sink(root: &Path) -> Self {
        Self { lines: JsonLines::sink(&root.join(METRICS)), table: None, events: EventLog::new(root, false) }
    }

    /// The event files, for what is no number of a whole step.
    pub fn events(&mut self) -> &mut EventLog {
        &mut self.events
    }

    /// Appends the metrics of a step as one line with `"step"` in front. A number that is not finite
    /// becomes `null`, as JSON has none.
    ///
    /// A key that is not declared and stands under a prefix of ours is a mistake of this project: debug builds, and so
    /// all tests, refuse it. Released programs write it, as a number too many ends no run.
    ///
    /// # Errors
    /// [`RunFolderError::DiskFull`] and other failures; [`RunFolderError::Undeclared`] in debug builds.
    pub fn append(&mut self, step: u64, metrics: &Map<String, Value>) -> Result<(), RunFolderError> {
        if cfg!(debug_assertions)
            && let Some(key) = undeclared(metrics.keys()).first()
        {
            return Err(RunFolderError::Undeclared(key.to_string()));
        }
        let mut record = Map::with_capacity(metrics.len() + 1);
        record.insert("step".to_string(), step.into());
        record.extend(metrics.iter().filter(|(key, _)| *key != "step").map(|(k, v)| (k.clone(), v.clone())));
        self.lines.append(&record)?;
        if let Some(table) = &mut self.table {
            table.append(&record)?;
        }
        self.events.scalars(step, &record)
    }

    /// Makes the lines survive a loss of power; done before a checkpoint is written.
    ///
    /// # Errors
    /// When the system cannot write them.
    pub fn sync(&self) -> Result<(), RunFolderError> {
        self.lines.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(key: &str) -> Result<(), RunFolderError> {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(folder.path()).unwrap();
        log.append(1, &Map::from_iter([(key.to_string(), Value::from(1.0))]))
    }

    #[test]
    fn an_outside_shaping_brings_its_own() {
        append("mine/weight_max").unwrap();
    }

    #[test]
    #[cfg(debug_assertions)]
    fn an_undeclared_metric_of_ours_is_seen() {
        assert!(append("actor/new").unwrap_err().to_string().contains("actor/new"));
    }
}
