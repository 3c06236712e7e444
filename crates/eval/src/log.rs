//! The folder of an evaluation, and how it goes on where it was.
//!
//! ```text
//! NAME.jsonl           one line per answer, appended as questions are finished; by row and sample when all are
//! NAME.settings.json   what the answers depend on; a run with other settings is refused
//! results.{md,json,csv}
//! .lock                held while a process evaluates here
//! ```
//!
//! All answers to a row are written at once. What a kill leaves of a line, or of a row, is dropped and made again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::EvalError;
use crate::record::Record;

/// The output folder, held by this process.
#[derive(Debug)]
pub struct OutputFolder {
    root: PathBuf,
    _lock: File,
}

impl OutputFolder {
    /// Makes the folder if it does not exist, and holds it.
    ///
    /// # Errors
    /// A folder that cannot be written, or that another process holds.
    pub(crate) fn open(root: &Path) -> Result<Self, EvalError> {
        let refuse = |reason: String| EvalError::Input(format!("--out {}: {reason}", root.display()));
        fs::create_dir_all(root).map_err(|e| refuse(format!("the folder cannot be made: {e}")))?;
        let lock = root.join(".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let file = file.map_err(|e| refuse(format!("the folder cannot be written: {e}")))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { root: root.to_path_buf(), _lock: file }),
            Err(TryLockError::WouldBlock) => {
                Err(refuse("another process evaluates into this folder; wait for it, or choose another".into()))
            }
            // A file system without locks: nothing can be held, and nothing is lost.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {
                Ok(Self { root: root.to_path_buf(), _lock: file })
            }
            Err(TryLockError::Error(e)) => Err(EvalError::io(&lock)(e)),
        }
    }

    /// A file of the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a file whole or not at all.
    ///
    /// # Errors
    /// Anything the file system refuses.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, EvalError> {
        let path = self.path(name);
        guard::file::replace(&path, text.as_bytes()).map_err(EvalError::io(&path))?;
        Ok(path)
    }
}

/// The answers to one benchmark, on disk and in memory.
#[derive(Debug)]
pub struct AnswerLog {
    name: String,
    path: PathBuf,
    file: File,
    records: BTreeMap<(usize, usize), Record>,
}

impl AnswerLog {
    /// Opens `NAME.jsonl`. Answers that are there count as done where every row has `samples` of them.
    ///
    /// # Errors
    /// Answers made with other settings, lines that are no answers, a file that cannot be written.
    pub(crate) fn open(
        folder: &OutputFolder,
        name: &str,
        settings: &Map<String, Value>,
        samples: usize,
    ) -> Result<Self, EvalError> {
        let path = folder.path(&format!("{name}.jsonl"));
        let about = format!("{name}.settings.json");
        let kept = match guard::file::read(&path, guard::limits().record_bytes) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(EvalError::io(&path)(e)),
        };
        match guard::file::read_text(&folder.path(&about), guard::limits().settings_bytes) {
            Ok(text) => same_settings(&folder.path(&about), &text, settings)?,
            Err(e) if e.kind() == ErrorKind::NotFound && kept.is_empty() => {
                let text = serde_json::to_string_pretty(settings).unwrap_or_default();
                folder.write(&about, &(text + "\n"))?;
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(EvalError::Input(format!(
                    "{}: its settings file {about} is missing, so nobody knows how these answers were made; \
                     choose another --out, or grade them with --from",
                    path.display()
                )));
            }
            Err(e) => return Err(EvalError::io(&folder.path(&about))(e)),
        }
        let (mut records, mut dropped) = read_lines(&path, &kept)?;
        let mut of_row: BTreeMap<usize, usize> = BTreeMap::new();
        records.keys().for_each(|(row, _)| *of_row.entry(*row).or_default() += 1);
        records.retain(|(row, _), _| of_row[row] == samples);
        dropped |= records.len() < of_row.values().sum();
        if dropped {
            folder.write(&format!("{name}.jsonl"), &lines(records.values()))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(EvalError::io(&path))?;
        Ok(Self { name: name.to_owned(), path, file, records })
    }

    /// Whether every answer to `row` is there.
    pub(crate) fn has(&self, row: usize) -> bool {
        self.records.contains_key(&(row, 0))
    }

    /// Adds all answers to one row.
    ///
    /// # Errors
    /// Anything the file system refuses.
    pub(crate) fn append(&mut self, records: Vec<Record>) -> Result<(), EvalError> {
        self.file.write_all(lines(&records).as_bytes()).map_err(EvalError::io(&self.path))?;
        self.records.extend(records.into_iter().map(|r| ((r.row, r.sample), r)));
        Ok(())
    }

    /// Puts the file in the order of rows and samples: the same for any batch size and any number of interruptions.
    ///
    /// # Errors
    /// Anything the file system refuses.
    pub(crate) fn finish(self, folder: &OutputFolder) -> Result<Vec<Record>, EvalError> {
        folder.write(&format!("{}.jsonl", self.name), &lines(self.records.values()))?;
        Ok(self.records.into_values().collect())
    }
}

fn lines<'a>(records: impl IntoIterator<Item = &'a Record>) -> String {
    let mut out = String::new();
    for record in records {
        out += &serde_json::to_string(record).unwrap_or_default();
        out.push('\n');
    }
    out
}

type Records = BTreeMap<(usize, usize), Record>;

/// The answers of a file, and whether something of it is to be dropped: a last line without its end.
fn read_lines(path: &Path, bytes: &[u8]) -> Result<(Records, bool), EvalError> {
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let mut records = Records::new();
    for (k, line) in bytes[..whole].split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_slice::<Record>(line) {
            Ok(record) => records.insert((record.row, record.sample), record),
            Err(e) => {
                return Err(EvalError::Input(format!(
                    "{}:{}: not an answer of this program ({e}); remove the line, or choose another --out",
                    path.display(),
                    k + 1
                )));
            }
        };
    }
    Ok((records, whole < bytes.len()))
}

/// Whether the answers in a folder were made with the settings of this run.
fn same_settings(path: &Path, text: &str, now: &Map<String, Value>) -> Result<(), EvalError> {
    let then: Map<String, Value> = serde_json::from_str(text).map_err(|e| {
        EvalError::Input(format!("{}: not a settings file ({e}); choose another --out", path.display()))
    })?;
    let keys: std::collections::BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let show = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
    let differences: Vec<String> = keys
        .into_iter()
        .filter(|key| then.get(*key) != now.get(*key))
        .map(|key| format!("{key} was {} and is {}", show(then.get(key)), show(now.get(key))))
        .collect();
    if differences.is_empty() {
        return Ok(());
    }
    Err(EvalError::Input(format!(
        "{}: the answers there were made with other settings: {}; use the same ones to go on, or choose another --out",
        path.display(),
        differences.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(row: usize, sample: usize) -> Record {
        Record { row, sample, id: row.to_string(), ..Record::default() }
    }

    fn settings(seed: u64) -> Map<String, Value> {
        [("seed".to_owned(), seed.into())].into_iter().collect()
    }

    #[test]
    fn what_a_kill_leaves_is_made_again() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = OutputFolder::open(tmp.path()).unwrap();
        let mut log = AnswerLog::open(&folder, "a", &settings(1), 2).unwrap();
        log.append(vec![record(3, 0), record(3, 1)]).unwrap();
        log.append(vec![record(1, 0), record(1, 1)]).unwrap();
        drop(log);
        let path = folder.path("a.jsonl");
        let whole = fs::read(&path).unwrap();
        // Lengths that a kill can leave.
        for cut in (0..=whole.len()).step_by(7).chain([whole.len() - 1, whole.len()]) {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut log = AnswerLog::open(&folder, "a", &settings(1), 2).unwrap();
            for row in [1, 3] {
                if !log.has(row) {
                    log.append(vec![record(row, 0), record(row, 1)]).unwrap();
                }
            }
            let records = log.finish(&folder).unwrap();
            assert_eq!(records.iter().map(|r| (r.row, r.sample)).collect::<Vec<_>>(), [(1, 0), (1, 1), (3, 0), (3, 1)]);
        }
    }

    #[test]
    fn other_settings_and_other_files_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let folder = OutputFolder::open(tmp.path()).unwrap();
        AnswerLog::open(&folder, "a", &settings(1), 1).unwrap().append(vec![record(0, 0)]).unwrap();
        let error = AnswerLog::open(&folder, "a", &settings(2), 1).unwrap_err().to_string();
        assert!(error.contains("seed was 1 and is 2"), "{error}");
        fs::write(folder.path("b.jsonl"), "{}\n").unwrap();
        let error = AnswerLog::open(&folder, "b", &settings(1), 1).unwrap_err().to_string();
        assert!(error.contains("b.settings.json is missing"), "{error}");
        fs::write(folder.path("a.jsonl"), "garbage\n").unwrap();
        let error = AnswerLog::open(&folder, "a", &settings(1), 1).unwrap_err().to_string();
        assert!(error.contains("a.jsonl:1: not an answer"), "{error}");
        let error = OutputFolder::open(tmp.path()).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
    }
}
