//! The tokens of some responses of each step, and the pictures that they are about.
//!
//! ```text
//! tokens/step_N.jsonl   a line a response
//! pictures/HASH.png     each picture once, named by a hash of its content
//! ```
//!
//! Both together stay within a number of bytes. Where a step makes them more, every second step of the older half is
//! removed, and again until they fit: what is left is dense where the run stands and sparse where it began, and the
//! first step stays longest. A picture goes with the last step that names it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::folder::{RunFolderError, at};
use crate::layout::{PICTURES, TOKENS};

/// The ending of a file that is being written.
const PARTIAL: &str = "partial";

/// What of a line says which pictures it is about.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    pictures: Vec<String>,
}

/// A step that is kept.
#[derive(Debug, Default)]
struct KeptStep {
    bytes: u64,
    pictures: BTreeSet<String>,
}

/// `tokens/` and `pictures/` of a run. See the [module](self).
#[derive(Debug)]
pub struct TokenStore {
    root: PathBuf,
    /// Of both folders together.
    limit: u64,
    steps: BTreeMap<u64, KeptStep>,
    /// Bytes of each picture, by its path in the run folder.
    pictures: BTreeMap<String, u64>,
    /// No for a process that [follows](crate::folder::RunFolder::follow).
    writes: bool,
}

/// The path of a step's tokens in the run folder `root`.
pub fn tokens_file(root: &Path, step: u64) -> PathBuf {
    root.join(TOKENS).join(format!("step_{step}.jsonl"))
}

/// The step of a file of tokens.
fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step_")?.strip_suffix(".jsonl")?.parse().ok()
}

/// The files of a folder; none where it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes the tokens of steps after `step`.
///
/// # Errors
/// A file that cannot be removed, with its path.
pub(crate) fn truncate_after(root: &Path, step: u64) -> Result<(), RunFolderError> {
    for path in files(&root.join(TOKENS)) {
        if step_of(&path).is_some_and(|logged| logged > step) {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    // What nothing names any more goes with them.
    TokenStore::open(root, u64::MAX, true).map(|_| ())
}

impl TokenStore {
    /// Of the run folder `root`, with what a run has left there; pictures that no step names are removed.
    pub(crate) fn open(root: &Path, limit: u64, writes: bool) -> Result<Self, RunFolderError> {
        let (steps, pictures) = (BTreeMap::new(), BTreeMap::new());
        let mut store = Self { root: root.to_path_buf(), limit, steps, pictures, writes };
        if !writes {
            return Ok(store);
        }
        for path in files(&root.join(TOKENS)) {
            let Some(step) = step_of(&path) else {
                // Of a run that was killed while it wrote: the limit would not know of it.
                if path.extension().is_some_and(|ending| ending == PARTIAL) {
                    fs::remove_file(&path).map_err(at(&path))?;
                }
                continue;
            };
            let bytes = guard::file::read(&path, guard::limits().record_bytes).map_err(at(&path))?;
            let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let named = lines.filter_map(|line| serde_json::from_slice::<Named>(line).ok());
            let pictures = named.flat_map(|named| named.pictures).collect();
            store.steps.insert(step, KeptStep { bytes: bytes.len() as u64, pictures });
        }
        let named: BTreeSet<&String> = store.steps.values().flat_map(|kept| &kept.pictures).collect();
        for path in files(&root.join(PICTURES)) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let name = format!("{PICTURES}/{name}");
            match named.contains(&name) {
                true => {
                    let bytes = fs::metadata(&path).map_err(at(&path))?.len();
                    store.pictures.insert(name, bytes);
                }
                false => fs::remove_file(&path).map_err(at(&path))?,
            }
        }
        Ok(store)
    }

    /// Keeps a picture, whose content has this hash, and returns its path in the run folder. `png` makes the file's
    /// bytes, and is asked only where the picture is not there.
    ///
    /// # Errors
    /// Those of `png`, and anything the file system refuses.
    pub fn picture<E: From<RunFolderError>>(
        &mut self,
        hash: &str,
        png: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<String, E> {
        let name = format!("{PICTURES}/{hash}.png");
        if self.writes && !self.pictures.contains_key(&name) {
            let (path, bytes) = (self.root.join(&name), png()?);
            write(&path, &bytes)?;
            self.pictures.insert(name.clone(), bytes.len() as u64);
        }
        Ok(name)
    }

    /// Writes the lines of a step, each of which names these pictures, and thins out what is older. Returns whether the
    /// step was kept: one that alone is more than the limit is not.
    ///
    /// # Errors
    /// Anything the file system refuses, with the path; no part of the file is left behind then.
    pub fn write<L: Serialize>(
        &mut self,
        step: u64,
        lines: &[L],
        pictures: BTreeSet<String>,
    ) -> Result<bool, RunFolderError> {
        if !self.writes {
            return Ok(true);
        }
        let path = tokens_file(&self.root, step);
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line).map_err(|error| at(&path)(error.into()))?;
            bytes.push(b'\n');
        }
        self.steps.insert(step, KeptStep { bytes: bytes.len() as u64, pictures });
        // Before it is written: the limit holds at every moment.
        self.thin()?;
        match self.steps.contains_key(&step) {
            true => write(&path, &bytes).map(|()| true),
            false => Ok(false),
        }
    }

    /// Bytes of both folders.
    pub fn bytes(&self) -> u64 {
        self.steps.values().map(|kept| kept.bytes).sum::<u64>() + self.pictures.values().sum::<u64>()
    }

    /// Removes steps until all fit.
    fn thin(&mut self) -> Result<(), RunFolderError> {
        self.sweep()?;
        while self.bytes() > self.limit && !self.steps.is_empty() {
            let steps: Vec<u64> = self.steps.keys().copied().collect();
            let older = &steps[..steps.len().div_ceil(2)];
            let gone: Vec<u64> = match older.len() {
                // Two are left: the newer one is the one that a person looks at. One is left: it is too large.
                1 => older.to_vec(),
                _ => older.iter().copied().skip(1).step_by(2).collect(),
            };
            for step in gone {
                self.steps.remove(&step);
                let path = tokens_file(&self.root, step);
                match fs::remove_file(&path) {
                    // The newest is not written yet.
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(&path)(error)),
                    _ => {}
                }
            }
            self.sweep()?;
        }
        Ok(())
    }

    /// Removes pictures that no step names.
    fn sweep(&mut self) -> Result<(), RunFolderError> {
        let named: BTreeSet<&String> = self.steps.values().flat_map(|kept| &kept.pictures).collect();
        let gone: Vec<String> = self.pictures.keys().filter(|name| !named.contains(name)).cloned().collect();
        for name in gone {
            let path = self.root.join(&name);
            fs::remove_file(&path).map_err(at(&path))?;
            self.pictures.remove(&name);
        }
        Ok(())
    }
}

/// Writes a whole file under another name first: a reader never sees half of one. It is not synced, as a step that a
/// loss of power takes is one that the next start drops.
fn write(path: &Path, bytes: &[u8]) -> Result<(), RunFolderError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(at(folder))?;
    }
    let partial = path.with_extension(PARTIAL);
    fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path)).map_err(|error| {
        let _ = fs::remove_file(&partial); // the error is the one that matters
        at(path)(error)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A line of about a kilobyte.
    fn line(pictures: &[String]) -> serde_json::Value {
        json!({"pictures": pictures, "ids": vec![1; 500]})
    }

    /// Steps `from..=to`, each about a picture of its own and one that all share, of 1,000 bytes each.
    fn run(store: &mut TokenStore, from: u64, to: u64) {
        for step in from..=to {
            let png = || Ok::<_, RunFolderError>(vec![0; 1000]);
            let pictures = [store.picture("shared", png).unwrap(), store.picture(&format!("own{step}"), png).unwrap()];
            assert!(store.write(step, &[line(&pictures)], pictures.into()).unwrap());
        }
    }

    fn on_disk(root: &Path) -> (Vec<u64>, Vec<String>, u64) {
        let mut steps: Vec<u64> = files(&root.join(TOKENS)).iter().filter_map(|path| step_of(path)).collect();
        steps.sort_unstable();
        let all = || files(&root.join(TOKENS)).into_iter().chain(files(&root.join(PICTURES)));
        let mut pictures: Vec<String> = files(&root.join(PICTURES))
            .iter()
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        pictures.sort();
        (steps, pictures, all().map(|path| fs::metadata(path).unwrap().len()).sum())
    }

    #[test]
    fn a_run_of_any_length_stays_within_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let mut store = TokenStore::open(root.path(), 25_000, true).unwrap();
        for step in 1..=300 {
            run(&mut store, step, step);
            let (steps, pictures, bytes) = on_disk(root.path());
            assert!(bytes <= 25_000 && bytes == store.bytes(), "step {step}: {bytes}");
            assert_eq!(steps.first(), Some(&1), "the first step stays");
            assert_eq!(steps.last(), Some(&step), "and the newest");
            // A picture of its own for each step that is left, and the one that all share, once.
            assert_eq!(pictures.len(), steps.len() + 1, "{pictures:?}");
        }
        let (steps, _, bytes) = on_disk(root.path());
        assert!(steps.len() > 5 && bytes > 12_000, "not more is removed than must be: {steps:?}, {bytes}");
        let gaps: Vec<u64> = steps.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.first() > gaps.last(), "older steps are sparser: {steps:?}");
    }

    #[test]
    fn a_step_that_alone_is_too_large_is_not_kept() {
        let root = tempfile::tempdir().unwrap();
        let mut store = TokenStore::open(root.path(), 500, true).unwrap();
        assert!(!store.write(1, &[line(&[])], BTreeSet::new()).unwrap());
        assert_eq!(on_disk(root.path()), (vec![], vec![], 0));
        assert!(store.write(2, &[json!({"ids": [1]})], BTreeSet::new()).unwrap());
        assert_eq!(on_disk(root.path()).0, [2]);
    }

    #[test]
    fn what_lies_after_a_checkpoint_is_dropped_with_its_pictures() {
        let root = tempfile::tempdir().unwrap();
        run(&mut TokenStore::open(root.path(), 1 << 20, true).unwrap(), 1, 5);
        truncate_after(root.path(), 3).unwrap();
        let names = ["own1", "own2", "own3", "shared"].map(String::from).to_vec();
        let (steps, pictures, bytes) = on_disk(root.path());
        assert_eq!((steps, pictures), (vec![1, 2, 3], names));
        // It goes on with what is there, and counts it; what a kill left half written goes.
        fs::write(root.path().join("tokens/step_9.partial"), "half").unwrap();
        let mut store = TokenStore::open(root.path(), 1 << 20, true).unwrap();
        assert!(!root.path().join("tokens/step_9.partial").exists());
        assert_eq!(store.bytes(), bytes);
        run(&mut store, 4, 5);
        assert_eq!(on_disk(root.path()).2, store.bytes());
    }

    #[test]
    fn a_process_that_follows_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        run(&mut TokenStore::open(root.path(), 1 << 20, false).unwrap(), 1, 2);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
