//! `run.json`: what a run is and how it stands.
//!
//! It is written when the run starts, with each checkpoint, and when it ends, in whatever way: finished, interrupted,
//! failed with the reason. A process that is killed cannot say so: its record keeps `"state": "running"`, and nobody
//! holds the folder's `.lock` ([`is_running`] asks both).

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::folder::{RunFolderError, at};
use crate::layout::{LOCK, RUN};

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// A process is at work, or was killed.
    #[default]
    Running,
    /// All stages are done.
    Finished,
    /// It was asked to stop, and wrote a checkpoint.
    Interrupted,
    /// An error, or a fault of the program.
    Failed,
}

/// What a run says of itself. A reader tolerates what is missing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// Version of the program.
    pub version: String,
    /// Commit that the program was built from, where the build was told.
    pub commit: Option<String>,
    /// When the run first started, UTC (RFC 3339).
    pub started: String,
    /// When it ended; none while it is running.
    pub ended: Option<String>,
    /// How it stands.
    pub state: RunStatus,
    /// Why it failed.
    pub reason: Option<String>,
    /// Seconds of training in all starts, up to the last checkpoint or the end.
    pub wall_clock_s: f64,
    /// Complete steps, up to the last checkpoint or the end.
    pub steps: u64,
    /// How often it was started.
    pub starts: u64,
    /// The device library.
    pub backend: String,
    /// The device of the first rank, as that library names it.
    pub device: String,
    /// Number format of weights and activations.
    pub dtype: String,
    /// Name of the first rank's machine.
    pub host: String,
    /// Process of the first rank.
    pub pid: u32,
    /// The command of the last start, word by word.
    pub command: Vec<String>,
    /// Seed of sampling.
    pub seed: u64,
    /// Seed of random weights, and of adapters.
    pub init_seed: u64,
    /// Seed of the order of rows.
    pub data_seed: u64,
    /// Ranks.
    pub ranks: usize,
    /// Algorithm, or what it is put together from.
    pub algorithm: String,
    /// The model that the run started from.
    pub model: String,
}

static COMMIT: OnceLock<Option<&'static str>> = OnceLock::new();

/// Says which commit the program was built from; the first call counts.
pub fn built_from(commit: Option<&'static str>) {
    let _ = COMMIT.set(commit.filter(|commit| !commit.is_empty()));
}

/// The name of this machine; `localhost` where it has none.
pub fn host() -> String {
    let read = |path: &str| guard::file::read_text(Path::new(path), guard::limits().record_bytes).ok();
    let name = read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname"));
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    let name = name.map(|name| name.trim().replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.', "_"));
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".into())
}

/// Seconds since 1970 as a date and time of UTC (RFC 3339).
fn date(seconds: u64) -> String {
    // Days since 1 March of the year 0, in eras of 400 years: a leap day ends a year there.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn now() -> String {
    date(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// The record of the run in `root`; none where there is none, or none that can be read.
pub fn read(root: &Path) -> Option<RunRecord> {
    let text = guard::file::read_text(&root.join(RUN), guard::limits().record_bytes).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether a process of the run in `root` is at work: its record says so, and its lock is held.
pub fn is_running(root: &Path) -> bool {
    let held = || {
        let file = File::open(root.join(LOCK));
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    };
    read(root).is_some_and(|record| record.state == RunStatus::Running) && held()
}

/// Keeps the record of a run true until the run ends.
#[derive(Debug)]
pub struct Keeper {
    root: PathBuf,
    record: RunRecord,
    ended: bool,
}

impl Keeper {
    /// Of a run that starts now; one that goes on keeps its beginning and counts its starts.
    pub(crate) fn start(root: &Path, mut record: RunRecord, goes_on: bool) -> Result<Self, RunFolderError> {
        let earlier = if goes_on { read(root) } else { None };
        record.started = earlier.as_ref().map(|earlier| earlier.started.clone()).unwrap_or_else(now);
        record.starts = earlier.map_or(0, |earlier| earlier.starts) + 1;
        record.version = env!("CARGO_PKG_VERSION").to_string();
        record.commit = COMMIT.get().copied().flatten().map(str::to_string);
        record.host = host();
        record.pid = std::process::id();
        record.command = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        (record.state, record.ended, record.reason) = (RunStatus::Running, None, None);
        let keeper = Self { root: root.to_path_buf(), record, ended: false };
        keeper.write()?;
        Ok(keeper)
    }

    /// The run has come so far.
    ///
    /// # Errors
    /// A record that cannot be written.
    pub fn reached(&mut self, steps: u64, wall_clock_s: f64) -> Result<(), RunFolderError> {
        (self.record.steps, self.record.wall_clock_s) = (steps, wall_clock_s);
        self.write()
    }

    /// The run has ended.
    ///
    /// # Errors
    /// A record that cannot be written.
    pub fn end(&mut self, state: RunStatus, reason: Option<String>) -> Result<(), RunFolderError> {
        self.ended = true;
        (self.record.state, self.record.reason, self.record.ended) = (state, reason, Some(now()));
        self.write()
    }

    fn write(&self) -> Result<(), RunFolderError> {
        let path = self.root.join(RUN);
        let mut json = serde_json::to_vec_pretty(&self.record).map_err(|error| at(&path)(error.into()))?;
        json.push(b'\n');
        guard::file::replace(&path, &json).map_err(at(&path))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if !self.ended {
            // There is nobody to tell where this cannot be written.
            let _ = self.end(RunStatus::Failed, Some("the program ended by a fault of its own".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::folder::RunFolder;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_740_787_199, "2025-02-28T23:59:59Z"),
            (1_740_787_200, "2025-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ];
        for (seconds, text) in known {
            assert_eq!(date(seconds), text);
        }
    }

    fn start(folder: &RunFolder, goes_on: bool) -> Keeper {
        folder.record(RunRecord { seed: 7, ..RunRecord::default() }, goes_on).unwrap().unwrap()
    }

    #[test]
    fn a_run_says_how_it_stands() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(root.path(), "").unwrap();
        let mut keeper = start(&folder, false);
        let first = read(root.path()).unwrap();
        assert_eq!((first.state, first.starts, first.seed, first.ended.clone()), (RunStatus::Running, 1, 7, None));
        assert!(is_running(root.path()));
        keeper.reached(3, 1.5).unwrap();
        keeper.end(RunStatus::Interrupted, None).unwrap();
        drop((keeper, folder));
        let ended = read(root.path()).unwrap();
        assert_eq!((ended.state, ended.steps, ended.wall_clock_s), (RunStatus::Interrupted, 3, 1.5));
        assert!(ended.ended.is_some() && !is_running(root.path()));
        // It goes on, and is left without a word.
        let folder = RunFolder::open(root.path()).unwrap();
        drop(start(&folder, true));
        let left = read(root.path()).unwrap();
        assert_eq!((left.state, left.starts, left.started), (RunStatus::Failed, 2, first.started));
        assert!(left.reason.unwrap().contains("fault"));
    }

    #[test]
    fn a_run_that_was_killed_is_not_running() {
        let root = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(root.path(), "").unwrap();
        std::mem::forget(start(&folder, false));
        assert!(is_running(root.path()));
        drop(folder);
        assert_eq!(read(root.path()).unwrap().state, RunStatus::Running);
        assert!(!is_running(root.path()), "its lock is free");
    }

    #[test]
    fn a_record_of_another_version_is_read() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(RUN), "{\"version\": \"9\", \"moon\": 1}").unwrap();
        assert_eq!(read(root.path()).unwrap().version, "9");
        std::fs::write(root.path().join(RUN), "{\"version\": ").unwrap();
        assert_eq!(read(root.path()), None);
    }
}
