//! `metrics.csv`: the metrics as a table, for programs that read no JSON. `metrics.jsonl` is what counts; the table is
//! made from it whenever a step brings a column that the table has not.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::folder::{RunFolderError, at};
use crate::layout::{CSV, METRICS};
use crate::lines::append_whole;
use crate::metrics::read_metrics;

/// The table of a run.
#[derive(Debug)]
pub(crate) struct MetricsTable {
    root: PathBuf,
    columns: Vec<String>,
}

impl MetricsTable {
    /// Of the run folder `root`, made from the metrics that are there.
    ///
    /// # Errors
    /// Metrics that cannot be read, a table that cannot be written.
    pub(crate) fn open(root: &Path) -> Result<Self, RunFolderError> {
        let mut table = Self { root: root.to_path_buf(), columns: vec![] };
        let path = root.join(CSV);
        match std::fs::metadata(root.join(METRICS)).is_ok_and(|file| file.len() > 0) {
            true => table.rebuild()?,
            // Of a run that was killed before its first step.
            false if path.exists() => std::fs::remove_file(&path).map_err(at(&path))?,
            false => {}
        }
        Ok(table)
    }

    /// Adds a line, which the metrics have already.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn append(&mut self, record: &Map<String, Value>) -> Result<(), RunFolderError> {
        if record.keys().any(|key| !self.columns.contains(key)) {
            return self.rebuild();
        }
        let path = self.root.join(CSV);
        let mut file = OpenOptions::new().append(true).create(true).open(&path).map_err(at(&path))?;
        append_whole(&mut file, &path, self.line(record).as_bytes())
    }

    /// Writes the whole table.
    fn rebuild(&mut self) -> Result<(), RunFolderError> {
        let lines = read_metrics(&self.root.join(METRICS))?;
        for key in lines.iter().flat_map(Map::keys) {
            if !self.columns.contains(key) {
                self.columns.push(key.clone());
            }
        }
        let mut text = self.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(",");
        text.push('\n');
        lines.iter().for_each(|line| text.push_str(&self.line(line)));
        let path = self.root.join(CSV);
        guard::file::replace(&path, text.as_bytes()).map_err(at(&path))
    }

    fn line(&self, record: &Map<String, Value>) -> String {
        let mut line = String::new();
        for (index, column) in self.columns.iter().enumerate() {
            line.push_str(if index == 0 { "" } else { "," });
            match record.get(column) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => line.push_str(&quoted(text)),
                Some(value) => line.push_str(&value.to_string()),
            }
        }
        line.push('\n');
        line
    }
}

/// A text as a field (RFC 4180).
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::folder::RunFolder;

    use super::*;

    fn record(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_table_has_a_column_for_each_metric_that_ever_was() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(root.path(), "").unwrap();
        let read = || std::fs::read_to_string(root.path().join(CSV)).unwrap();
        let mut log = folder.metrics().unwrap();
        log.append(1, &record(json!({"stage": "a, \"b\"", "reward": 0.5}))).unwrap();
        log.append(2, &record(json!({"stage": "c", "reward": null}))).unwrap();
        assert_eq!(read(), "step,stage,reward\n1,\"a, \"\"b\"\"\",0.5\n2,c,\n");
        log.append(3, &record(json!({"stage": "c", "val/accuracy": 1.0}))).unwrap();
        log.append(4, &record(json!({"reward": 2.0}))).unwrap();
        let whole = "step,stage,reward,val/accuracy\n1,\"a, \"\"b\"\"\",0.5,\n2,c,,\n3,c,,1.0\n4,,2.0,\n";
        assert_eq!(read(), whole);
        // Killed after step 4 and gone on after step 2: the table is that of the metrics.
        drop((log, folder));
        let folder = RunFolder::open(root.path()).unwrap();
        folder.go_on("", 2).unwrap();
        let _log = folder.metrics().unwrap();
        assert_eq!(read(), "step,stage,reward\n1,\"a, \"\"b\"\"\",0.5\n2,c,\n");
    }
}
