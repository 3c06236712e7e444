//! The folder of a run: its configuration, its logs, its checkpoints.
//!
//! ```text
//! config.toml                        the resolved configuration
//! metrics.jsonl                      one JSON object per line, "step" first
//! metrics.csv                        the same as a table
//! tensorboard/                       the same as event files, with histograms and pictures
//! run.json                           what the run is, and how it stands
//! set_aside.jsonl                    rows that could not be used, each with its reason
//! tokens/step_N.jsonl                every token of some responses of step N
//! pictures/HASH.png                  their pictures
//! rollouts/step_N.jsonl              every response sampled in step N
//! rollouts/validation_step_N.jsonl   validation responses after step N
//! checkpoints/                       written by the checkpoint module
//! reference/NAME/                    policies that a KL term compares with
//! .lock                              held while a process trains here
//! ```
//!
//! A run that was killed and resumed leaves the same logs as one that was not: what was logged after the
//! checkpoint is dropped before training goes on. For that, all lines of step N are written before its checkpoint.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::events;
use crate::layout::{CHECKPOINTS, CONFIG, LOCK, METRICS, REFERENCE, ROLLOUTS, SET_ASIDE};
use crate::lines::{JsonLines, truncate_after};
use crate::metrics::MetricsLog;
use crate::record::{Keeper, RunRecord};
use crate::tokens::{self, TokenStore};

/// What can go wrong with a run folder.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// A fresh run was asked for where another has left its logs.
    #[error(
        "{0}: already holds a run; set trainer.resume = \"auto\" to go on with it, or choose another trainer.output_dir"
    )]
    Occupied(PathBuf),
    /// Another process trains in the folder.
    #[error("{0}: another process is training in this folder; wait for it, or choose another trainer.output_dir")]
    Locked(PathBuf),
    /// No space is left.
    #[error("{0}: the disk is full; free some space and start again with trainer.resume = \"auto\"")]
    DiskFull(PathBuf),
    /// A log holds a line that this program did not write.
    #[error("{path}:{line}: not a log line ({reason}); remove or repair it, then resume")]
    BadLine {
        /// The log.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A metric that no entry of the registry matches.
    #[error(
        "the metric {0:?} is not declared; add it to crates/run/src/metrics/declared.rs, or give it a prefix of its own"
    )]
    Undeclared(String),
    /// Any other failure of the file system.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Adds the path to an error of the file system.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> RunFolderError + '_ {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RunFolderError::DiskFull(path.to_path_buf()),
        _ => RunFolderError::Io { path: path.to_path_buf(), source },
    }
}

/// The folder of one run; no other run can open it as long as this lives.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    /// Dropping the file releases the lock, also when the process is killed. None in a process that
    /// [follows](Self::follow).
    lock: Option<File>,
}

impl RunFolder {
    /// True where a run has left its metrics.
    pub fn has_run(root: &Path) -> bool {
        fs::metadata(root.join(METRICS)).is_ok_and(|file| file.len() > 0)
    }

    /// A folder for a new run. `config` is the resolved configuration, kept as `config.toml`.
    ///
    /// # Errors
    /// [`RunFolderError::Occupied`] where a run has left its metrics; [`RunFolderError::Locked`] where one is
    /// at work.
    pub fn create(root: &Path, config: &str) -> Result<Self, RunFolderError> {
        let folder = Self::open(root)?;
        folder.begin(config)?;
        Ok(folder)
    }

    /// Refuses a folder in which a run has left its metrics.
    ///
    /// # Errors
    /// [`RunFolderError::Occupied`].
    pub fn vacant(&self) -> Result<(), RunFolderError> {
        if Self::has_run(&self.root) { Err(RunFolderError::Occupied(self.root.clone())) } else { Ok(()) }
    }

    /// Starts a new run in an open folder.
    ///
    /// # Errors
    /// [`RunFolderError::Occupied`].
    pub fn begin(&self, config: &str) -> Result<(), RunFolderError> {
        if !self.is_writer() {
            return Ok(());
        }
        self.vacant()?;
        replace(&self.root.join(CONFIG), config)
    }

    /// Goes on after `step` (0: from the beginning) in an open folder: the first thing of a resumed run that changes
    /// anything on the disk. What was logged after that step is dropped. Where the configuration has changed, the
    /// earlier one is kept as `config_until_step_N.toml`.
    ///
    /// # Errors
    /// [`RunFolderError::BadLine`] where a metrics line up to `step` is none: nothing was changed then.
    pub fn go_on(&self, config: &str, step: u64) -> Result<(), RunFolderError> {
        if !self.is_writer() {
            return Ok(());
        }
        truncate_after(&self.metrics_file(), step)?;
        for (path, logged) in self.response_logs()? {
            if logged > step {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        truncate_after(&self.root.join(SET_ASIDE), step)?;
        tokens::truncate_after(&self.root, step)?;
        events::truncate_after(&self.root, step)?;
        let path = self.root.join(CONFIG);
        match guard::file::read_text(&path, guard::limits().record_bytes) {
            Ok(earlier) if earlier == config => return Ok(()),
            Ok(earlier) => replace(&self.root.join(format!("config_until_step_{step}.toml")), &earlier)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(&path)(error)),
        }
        replace(&path, config)
    }

    /// Opens a folder, made where it is not there, and locks it; of a run that is in it nothing changes.
    ///
    /// # Errors
    /// [`RunFolderError::Locked`] where a process is at work; a folder that cannot be made or written to.
    pub fn open(root: &Path) -> Result<Self, RunFolderError> {
        for folder in [root, &root.join(ROLLOUTS), &root.join(CHECKPOINTS)] {
            fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let path = root.join(LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(RunFolderError::Locked(root.to_path_buf()));
            }
            // Some network file systems have no locks; a run there is as safe as it was before.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        Ok(Self { root: root.to_path_buf(), lock: Some(file) })
    }

    /// The folder in which another process of the same run, which has [opened](Self::open) it, writes: nothing is
    /// written or changed through this one, and its logs are empty.
    pub fn follow(root: &Path) -> Self {
        Self { root: root.to_path_buf(), lock: None }
    }

    /// Whether this process writes here.
    pub fn is_writer(&self) -> bool {
        self.lock.is_some()
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join(CHECKPOINTS)
    }

    /// `reference/NAME`.
    pub fn reference(&self, name: &str) -> PathBuf {
        self.root.join(REFERENCE).join(name)
    }

    /// `metrics.jsonl`.
    pub fn metrics_file(&self) -> PathBuf {
        self.root.join(METRICS)
    }

    /// Opens `metrics.jsonl` to append to it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn metrics(&self) -> Result<MetricsLog, RunFolderError> {
        if !self.is_writer() {
            return Ok(MetricsLog::sink(&self.root));
        }
        MetricsLog::open(&self.root)
    }

    /// Opens `rollouts/step_N.jsonl`, empty.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn rollout_log(&self, step: u64) -> Result<JsonLines, RunFolderError> {
        self.lines(&format!("step_{step}.jsonl"))
    }

    /// Opens `rollouts/validation_step_N.jsonl`, empty.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn validation_log(&self, step: u64) -> Result<JsonLines, RunFolderError> {
        self.lines(&format!("validation_step_{step}.jsonl"))
    }

    /// Opens `set_aside.jsonl` to append to it.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn set_aside(&self) -> Result<JsonLines, RunFolderError> {
        let path = self.root.join(SET_ASIDE);
        if self.is_writer() { JsonLines::open(&path, false) } else { Ok(JsonLines::sink(&path)) }
    }

    /// Writes the record of a run that starts here, or goes on; none in a process that follows.
    ///
    /// # Errors
    /// A record that cannot be written.
    pub fn record(&self, record: RunRecord, goes_on: bool) -> Result<Option<Keeper>, RunFolderError> {
        self.is_writer().then(|| Keeper::start(&self.root, record, goes_on)).transpose()
    }

    /// Opens `tokens/` and `pictures/`, which together stay within `limit` bytes.
    ///
    /// # Errors
    /// A file of theirs that cannot be read or, where it is left over, removed.
    pub fn tokens(&self, limit: u64) -> Result<TokenStore, RunFolderError> {
        TokenStore::open(&self.root, limit, self.is_writer())
    }

    fn lines(&self, name: &str) -> Result<JsonLines, RunFolderError> {
        let path = self.root.join(ROLLOUTS).join(name);
        if self.is_writer() { JsonLines::open(&path, true) } else { Ok(JsonLines::sink(&path)) }
    }

    /// The logs of responses with their steps.
    fn response_logs(&self) -> Result<Vec<(PathBuf, u64)>, RunFolderError> {
        let folder = self.root.join(ROLLOUTS);
        let mut logs = Vec::new();
        for entry in fs::read_dir(&folder).map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            let step = path.file_name().and_then(|name| name.to_str()).and_then(|name| {
                name.strip_prefix("validation_")
                    .unwrap_or(name)
                    .strip_prefix("step_")?
                    .strip_suffix(".jsonl")?
                    .parse()
                    .ok()
            });
            if let Some(step) = step {
                logs.push((path, step));
            }
        }
        Ok(logs)
    }
}

/// The resolved configuration of a run, as `config.toml` holds it.
///
/// # Errors
/// A file that is not there or cannot be read.
pub fn read_config(root: &Path) -> Result<String, RunFolderError> {
    let path = root.join(CONFIG);
    guard::file::read_text(&path, guard::limits().record_bytes).map_err(at(&path))
}

/// The folder `reference/NAME` of the run that `checkpoint` is from; none where it is not there.
pub fn reference_beside(checkpoint: &Path, name: &str) -> Option<PathBuf> {
    let run = checkpoint.parent().and_then(Path::parent)?;
    Some(run.join(REFERENCE).join(name)).filter(|folder| folder.is_dir())
}

/// The folder that [`replace_folder`] fills for `path`.
pub fn partial_of(path: &Path) -> PathBuf {
    path.with_extension("partial")
}

/// Makes the folder `path` anew: `fill` writes into a folder with another name, which takes the place of `path` when it
/// is whole.
///
/// # Errors
/// Those of `fill`, and anything the file system refuses; what stood at `path` stays then.
pub fn replace_folder<E: From<RunFolderError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let partial = partial_of(path);
    make_new(&partial)?;
    fill(&partial)?;
    if path.exists() {
        fs::remove_dir_all(path).map_err(at(path))?;
    }
    Ok(fs::rename(&partial, path).map_err(at(path))?)
}

/// Copies the files of a folder, not the folders in it.
///
/// # Errors
/// Anything the file system refuses, with the path.
pub fn copy_files(from: &Path, to: &Path) -> Result<(), RunFolderError> {
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        fs::copy(entry.path(), to.join(entry.file_name())).map_err(at(&entry.path()))?;
    }
    Ok(())
}

/// Makes a folder that was not there, or was left behind half-filled.
pub(crate) fn make_new(folder: &Path) -> Result<(), RunFolderError> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(at(folder))?;
    }
    fs::create_dir_all(folder).map_err(at(folder))
}

fn replace(path: &Path, text: &str) -> Result<(), RunFolderError> {
    guard::file::replace(path, text.as_bytes()).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::{Map, Value};

    use super::*;
    use crate::metrics::read_metrics;

    fn resume(root: &Path, config: &str, step: u64) -> Result<RunFolder, RunFolderError> {
        let folder = RunFolder::open(root)?;
        folder.go_on(config, step)?;
        Ok(folder)
    }

    fn metrics(reward: f64) -> Map<String, Value> {
        Map::from_iter([("reward".to_string(), reward.into())])
    }

    /// Steps `from..=to`, as the trainer writes them.
    fn train(folder: &RunFolder, from: u64, to: u64) {
        let mut log = folder.metrics().unwrap();
        for step in from..=to {
            log.append(step, &metrics(step as f64 / 10.0)).unwrap();
            folder.rollout_log(step).unwrap().append(&metrics(0.0)).unwrap();
            folder.validation_log(step).unwrap().append(&metrics(1.0)).unwrap();
        }
        log.sync().unwrap();
    }

    fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(folder.join("rollouts"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .chain([folder.join("metrics.jsonl")])
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn a_resumed_run_leaves_the_logs_of_one_never_killed() {
        let temporary = tempfile::tempdir().unwrap();
        let (whole, killed) = (temporary.path().join("whole"), temporary.path().join("killed"));
        train(&RunFolder::create(&whole, "a = 1\n").unwrap(), 1, 12);
        // Killed in step 11, after a checkpoint at step 9.
        train(&RunFolder::create(&killed, "a = 1\n").unwrap(), 1, 11);
        let folder = resume(&killed, "a = 1\n", 9).unwrap();
        assert!(!killed.join("rollouts/step_10.jsonl").exists());
        train(&folder, 10, 12);
        assert_eq!(files(&whole), files(&killed));
        assert_eq!(fs::read_to_string(killed.join("config.toml")).unwrap(), "a = 1\n");
    }

    #[test]
    fn resuming_at_step_0_starts_the_logs_anew() {
        let temporary = tempfile::tempdir().unwrap();
        train(&RunFolder::create(temporary.path(), "").unwrap(), 1, 3);
        resume(temporary.path(), "", 0).unwrap();
        assert_eq!(files(temporary.path()), [("metrics.jsonl".to_string(), Vec::new())]);
    }

    #[test]
    fn a_half_written_last_line_is_dropped() {
        let temporary = tempfile::tempdir().unwrap();
        for garbage in [&b"{\"step\":3,\"rew"[..], b"{\"step\":3}", b"\0\0\0\0\n"] {
            let root = temporary.path().join(garbage.len().to_string());
            let folder = RunFolder::create(&root, "").unwrap();
            train(&folder, 1, 2);
            drop(folder);
            let mut file = OpenOptions::new().append(true).open(root.join("metrics.jsonl")).unwrap();
            file.write_all(garbage).unwrap();
            let readable = read_metrics(&root.join("metrics.jsonl")).unwrap();
            assert!(readable.len() >= 2);
            resume(&root, "", 7).unwrap();
            let kept = fs::read_to_string(root.join("metrics.jsonl")).unwrap();
            assert_eq!(kept, "{\"step\":1,\"reward\":0.1}\n{\"step\":2,\"reward\":0.2}\n");
        }
    }

    #[test]
    fn a_bad_line_in_the_middle_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":1}\n{\"stop\":2}\n{\"step\":3}\n").unwrap();
        let error = resume(temporary.path(), "", 3).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{}:2: not a log line (it has no \"step\"); remove or repair it, then resume", path.display())
        );
    }

    #[test]
    fn a_new_run_does_not_overwrite_an_old_one() {
        let temporary = tempfile::tempdir().unwrap();
        train(&RunFolder::create(temporary.path(), "").unwrap(), 1, 1);
        let error = RunFolder::create(temporary.path(), "").unwrap_err();
        assert!(matches!(error, RunFolderError::Occupied(_)), "{error}");
        assert!(error.to_string().contains("trainer.resume = \"auto\""));
    }

    #[test]
    fn a_folder_is_replaced_when_its_heir_is_whole() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("reference/stage_0");
        let fill = |text: &'static str| move |folder: &Path| fs::write(folder.join("a"), text).map_err(at(folder));
        replace_folder(&path, fill("first")).unwrap();
        let failed = replace_folder(&path, |folder| {
            fs::write(folder.join("half"), "x").map_err(at(folder))?;
            Err(RunFolderError::DiskFull(folder.to_path_buf()))
        });
        assert!(matches!(failed, Err(RunFolderError::DiskFull(_))));
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "first");
        replace_folder(&path, fill("second")).unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "second");
        assert!(!path.join("half").exists(), "what a failed attempt left is not taken over");
        let checkpoint = temporary.path().join("checkpoints/global_step_1");
        assert_eq!(reference_beside(&checkpoint, "stage_0"), Some(path.clone()));
        assert_eq!(reference_beside(&checkpoint, "stage_1"), None);
    }

    #[test]
    fn two_processes_cannot_share_a_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let first = RunFolder::create(temporary.path(), "").unwrap();
        let error = RunFolder::create(temporary.path(), "").unwrap_err();
        assert!(matches!(error, RunFolderError::Locked(_)), "{error}");
        drop(first);
        RunFolder::create(temporary.path(), "").unwrap();
    }

    #[test]
    fn a_changed_configuration_keeps_the_earlier_one() {
        let temporary = tempfile::tempdir().unwrap();
        train(&RunFolder::create(temporary.path(), "a = 1\n").unwrap(), 1, 4);
        resume(temporary.path(), "a = 2\n", 4).unwrap();
        assert_eq!(fs::read_to_string(temporary.path().join("config.toml")).unwrap(), "a = 2\n");
        assert_eq!(fs::read_to_string(temporary.path().join("config_until_step_4.toml")).unwrap(), "a = 1\n");
    }

    #[test]
    fn a_number_that_is_not_finite_is_null() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(temporary.path(), "").unwrap();
        folder.metrics().unwrap().append(1, &metrics(f64::NAN)).unwrap();
        assert_eq!(fs::read_to_string(folder.metrics_file()).unwrap(), "{\"step\":1,\"reward\":null}\n");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named() {
        let mut log = JsonLines::open(Path::new("/dev/full"), false).unwrap();
        let error = log.append(&metrics(1.0)).unwrap_err().to_string();
        assert_eq!(
            error,
            "/dev/full: the disk is full; free some space and start again with trainer.resume = \"auto\""
        );
    }
}
