//! The layout of checkpoints: `checkpoints/global_step_N/{hf/, optimizer.safetensors, trainer.json}`, written under a
//! temporary name, synced, then renamed, so that a folder with its final name is always whole.
//!
//! What is in the weights, the optimizer's file and the trainer's state is the caller's, who fills the folder that
//! [`begin`] makes, from as many threads and processes as there are, and says [`complete`] when all is on the disk.
//! `trainer.json` then also keeps the [`checksums`] (CRC-32) of the `.safetensors` files, which [`verify`] compares: a
//! flipped byte would otherwise be one wrong weight. Other files of `hf/` are text that a person may edit, and are
//! parsed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::folder::{RunFolderError, at, make_new};
use crate::layout::{ADAPTER, MODEL, STATE};

const PREFIX: &str = "global_step_";
/// A checkpoint that is being replaced by one of the same step.
const OLD: &str = ".old_";
/// A checkpoint that is being removed.
const REMOVED: &str = ".removed_";
/// Behind the name of one that is being written, which begins with a dot.
const PARTIAL: &str = ".partial";

/// Checkpoints of a folder by step, oldest first. Folders without a `trainer.json` are not checkpoints.
pub fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    let mut found = named(dir, PREFIX);
    found.retain(|(_, path)| path.join(STATE).is_file());
    found
}

/// Everything that a run may try to go on from, by step, oldest first: folders with a checkpoint's name, damaged or
/// not, and one that a killed process was replacing, where the new one is not there.
pub fn candidates(dir: &Path) -> Vec<(u64, PathBuf)> {
    let mut found = named(dir, PREFIX);
    for (step, path) in named(dir, OLD) {
        if found.iter().all(|(other, _)| *other != step) {
            found.push((step, path));
        }
    }
    found.sort();
    found
}

/// The name that a candidate has once [`recover`] has put right what a killed process left.
pub fn recovered(path: &Path) -> PathBuf {
    let step = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(OLD));
    step.map_or_else(|| path.to_path_buf(), |step| path.with_file_name(format!("{PREFIX}{step}")))
}

/// What [`newest`] found.
#[derive(Debug)]
pub struct Newest<T, E> {
    /// The newest that could be read; none where there is none.
    pub loaded: Option<T>,
    /// Newer ones that could not, each with the reason, the newest first.
    pub damaged: Vec<(PathBuf, E)>,
}

/// The newest of the [`candidates`] in `dir` that `load` reads. Nothing on the disk changes.
///
/// # Errors
/// An error of `load` that is no fault of the checkpoint, as `ends` says: a device that fails.
pub fn newest<T, E>(
    dir: &Path,
    mut load: impl FnMut(&Path) -> Result<T, E>,
    ends: impl Fn(&E) -> bool,
) -> Result<Newest<T, E>, E> {
    let mut damaged = Vec::new();
    for (_, path) in candidates(dir).into_iter().rev() {
        match load(&path) {
            Ok(loaded) => return Ok(Newest { loaded: Some(loaded), damaged }),
            Err(error) if ends(&error) => return Err(error),
            Err(error) => damaged.push((path, error)),
        }
    }
    Ok(Newest { loaded: None, damaged })
}

/// Folders called `prefix` and a step, by step.
fn named(dir: &Path, prefix: &str) -> Vec<(u64, PathBuf)> {
    let step = |entry: &fs::DirEntry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries.filter_map(|e| Some((step(&e)?, e.path()))).collect();
    found.sort();
    found
}

/// Puts right what a process left that was killed while it wrote, replaced or removed a checkpoint.
pub fn recover(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(step) = name.strip_prefix(OLD) {
            let target = dir.join(format!("{PREFIX}{step}"));
            if !target.exists() {
                let _ = fs::rename(entry.path(), target);
                continue;
            }
        }
        let half_written = name.strip_suffix(PARTIAL).is_some_and(|name| name.starts_with('.'));
        if name.starts_with(OLD) || name.starts_with(REMOVED) || half_written {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Renames checkpoints after `step` to `superseded_...`: a run that goes on from an earlier one must not be resumed
/// from them later, and they may still be wanted.
///
/// # Errors
/// A folder that cannot be renamed, with its path.
pub fn supersede(dir: &Path, step: u64) -> Result<(), RunFolderError> {
    for (_, path) in named(dir, PREFIX).into_iter().filter(|(s, _)| *s > step) {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let target = (0..).map(|i| dir.join(format!("superseded_{i}_{name}"))).find(|p| !p.exists());
        if let Some(target) = target {
            fs::rename(&path, &target).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// The trainer's state with what this module adds to it.
#[derive(Serialize)]
struct Sealed<'a, S> {
    #[serde(flatten)]
    state: &'a S,
    /// CRC-32 of each `.safetensors` file by its path in the checkpoint, eight hexadecimal digits.
    checksums: BTreeMap<String, String>,
}

/// The part of `trainer.json` that [`verify`] reads; a checkpoint of an earlier version has none of it.
#[derive(Deserialize)]
struct Seal {
    #[serde(default)]
    checksums: BTreeMap<String, String>,
}

/// Where a checkpoint of `step` stands in `dir`.
pub fn path_of(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{step}"))
}

/// The folder that is filled for `step` until it is [complete](fn@complete).
pub fn partial_of(dir: &Path, step: u64) -> PathBuf {
    dir.join(format!(".{PREFIX}{step}{PARTIAL}"))
}

/// Makes the folder for the checkpoint of `step`, empty. One of the same step stays whole until this is
/// [complete](fn@complete).
///
/// # Errors
/// Anything the file system refuses, with the path.
pub fn begin(dir: &Path, step: u64) -> Result<PathBuf, RunFolderError> {
    let partial = partial_of(dir, step);
    make_new(&partial)?;
    Ok(partial)
}

/// Removes what was written for `step`, which will not be complete.
pub fn discard(dir: &Path, step: u64) {
    let _ = fs::remove_dir_all(partial_of(dir, step)); // there is an error already, which is the one that matters
}

/// The checksums of these files of a checkpoint that is being written, by their paths in it.
///
/// # Errors
/// A file that cannot be read, with its path.
pub fn checksums<'a>(
    partial: &Path,
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<BTreeMap<String, String>, RunFolderError> {
    let of = |file: &Path| {
        let path = partial.join(file);
        Ok((file.to_string_lossy().into_owned(), checksum(&path).map_err(at(&path))?))
    };
    files.into_iter().map(of).collect()
}

/// Adds `state` and the [`checksums`] of all files of tensors as `trainer.json` to the folder of `step`, in which
/// everything else is on the disk, and gives it its name.
///
/// # Errors
/// Anything the file system refuses, with the path; the folder has its name or has not.
pub fn complete<S: Serialize>(
    dir: &Path,
    step: u64,
    state: &S,
    checksums: BTreeMap<String, String>,
) -> Result<PathBuf, RunFolderError> {
    let temporary = &partial_of(dir, step);
    let path = temporary.join(STATE);
    let json = serde_json::to_vec(&Sealed { state, checksums }).map_err(|error| at(&path)(error.into()))?;
    guard::file::replace(&path, &json).map_err(at(&path))?;
    for weights in [MODEL, ADAPTER].map(|name| temporary.join(name)) {
        if weights.is_dir() {
            guard::file::sync_folder(&weights).map_err(at(&weights))?;
        }
    }
    // The same step again, with a newer validation: the old folder stays whole until the new one stands in its place.
    let (target, old) = (path_of(dir, step), dir.join(format!("{OLD}{step}")));
    if target.exists() {
        fs::rename(&target, &old).map_err(at(&target))?;
    }
    if let Err(error) = fs::rename(temporary, &target) {
        let _ = fs::rename(&old, &target);
        return Err(at(&target)(error));
    }
    guard::file::sync_folder(dir).map_err(at(dir))?;
    let _ = fs::remove_dir_all(&old);
    Ok(target)
}

/// Removes all but the newest `limit` checkpoints (0: none is removed). One that cannot be removed costs room, not the
/// run.
pub fn keep_newest(dir: &Path, limit: usize) {
    let all = list(dir);
    if limit == 0 || all.len() <= limit {
        return;
    }
    for (_, old) in &all[..all.len() - limit] {
        // One that is half removed must not be found.
        let removed = old.file_name().map(|name| dir.join(format!("{REMOVED}{}", name.display())));
        if let Some(removed) = removed.filter(|removed| fs::rename(old, removed).is_ok()) {
            let _ = fs::remove_dir_all(removed);
        }
    }
}

/// The text of a checkpoint's `trainer.json`.
///
/// # Errors
/// A file that is not there ([`io::ErrorKind::NotFound`]: the folder is no checkpoint) or cannot be read.
pub fn read_state(path: &Path) -> io::Result<String> {
    guard::file::read_text(&path.join(STATE), guard::limits().record_bytes)
}

/// Compares the files of a checkpoint with the checksums in its `trainer.json`; a checkpoint of an earlier version has
/// none, and passes. Of `of` processes that share the work the `nth` reads every `of`-th file.
///
/// # Errors
/// Names the file that is missing, cannot be read or is not what was written.
pub fn verify(path: &Path, nth: usize, of: usize) -> Result<(), String> {
    let text = read_state(path).map_err(|error| format!("{STATE} cannot be read: {error}"))?;
    let seal: Seal = serde_json::from_str(&text).map_err(|error| format!("{STATE} cannot be read: {error}"))?;
    for (file, written) in seal.checksums.into_iter().skip(nth).step_by(of.max(1)) {
        let found = checksum(&path.join(&file)).map_err(|error| format!("{file} cannot be read: {error}"))?;
        if found != written {
            return Err(format!(
                "{file} is damaged: its checksum is {found}, and {written} was written; resume from an earlier checkpoint"
            ));
        }
    }
    Ok(())
}

/// CRC-32 of a file, read in pieces: weights may be larger than memory.
fn checksum(path: &Path) -> io::Result<String> {
    let mut file = guard::file::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(format!("{:08x}", hasher.finalize())),
            read => hasher.update(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 2] = ["hf/model.safetensors", "optimizer.safetensors"];

    /// Writes a checkpoint with two files of tensors.
    fn written(dir: &Path, step: u64) -> PathBuf {
        let folder = begin(dir, step).unwrap();
        fs::create_dir(folder.join("hf")).unwrap();
        for name in FILES.into_iter().chain(["hf/config.json"]) {
            fs::write(folder.join(name), name.repeat(1000)).unwrap();
        }
        let sums = checksums(&folder, FILES.map(Path::new)).unwrap();
        complete(dir, step, &BTreeMap::from([("step", step)]), sums).unwrap()
    }

    /// Regression: a flipped byte in the weights or in the optimizer's state went unseen.
    #[test]
    fn a_flipped_byte_is_named_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        for name in FILES {
            let path = written(dir.path(), 4);
            verify(&path, 0, 1).unwrap();
            let mut bytes = fs::read(path.join(name)).unwrap();
            bytes[700] ^= 1;
            fs::write(path.join(name), bytes).unwrap();
            let error = verify(&path, 0, 1).unwrap_err();
            assert!(error.starts_with(&format!("{name} is damaged: its checksum is")), "{error}");
            fs::remove_file(path.join(name)).unwrap();
            assert!(verify(&path, 0, 1).unwrap_err().starts_with(&format!("{name} cannot be read")));
        }
    }

    #[test]
    fn a_checkpoint_of_an_earlier_version_has_no_checksums() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), 4);
        fs::write(path.join(STATE), "{\"step\": 4}").unwrap();
        fs::write(path.join("optimizer.safetensors"), "another").unwrap();
        assert_eq!(verify(&path, 0, 1), Ok(()));
    }

    #[test]
    fn one_that_is_given_up_leaves_the_earlier_checkpoint_of_the_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), 4);
        // What was left of an earlier one is not in a new one.
        let half = begin(dir.path(), 4).unwrap().join("half");
        fs::write(&half, "x").unwrap();
        assert!(begin(dir.path(), 4).is_ok() && !half.exists());
        assert_eq!(list(dir.path()), [(4, path.clone())]);
        discard(dir.path(), 4);
        assert_eq!(verify(&path, 0, 1), Ok(()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_newest_are_kept_and_later_ones_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        for step in [1, 2, 10] {
            written(dir.path(), step);
        }
        let steps = || list(dir.path()).into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        keep_newest(dir.path(), 0);
        assert_eq!(steps(), [1, 2, 10]);
        keep_newest(dir.path(), 2);
        assert_eq!(steps(), [2, 10]);
        supersede(dir.path(), 2).unwrap();
        assert_eq!(steps(), [2]);
        assert!(dir.path().join("superseded_0_global_step_10").is_dir());
    }

    fn checkpoint(dir: &Path, name: &str, text: &str) {
        fs::create_dir_all(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("trainer.json"), text).unwrap();
    }

    #[test]
    fn what_a_killed_process_left_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        // Set aside, the new one not yet in place; the new one in place; half removed; half written.
        checkpoint(dir, ".old_3", "three");
        checkpoint(dir, ".old_5", "earlier");
        checkpoint(dir, "global_step_5", "newer");
        checkpoint(dir, ".removed_global_step_1", "one");
        begin(dir, 7).unwrap();
        recover(dir);
        let names: Vec<_> = list(dir).into_iter().map(|(step, _)| step).collect();
        assert_eq!(names, [3, 5]);
        let text = |name: &str| fs::read_to_string(dir.join(name).join("trainer.json")).unwrap();
        assert_eq!((text("global_step_3"), text("global_step_5")), ("three".into(), "newer".into()));
        assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
    }

    #[test]
    fn the_newest_that_can_be_read_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for (step, text) in [(1, "good"), (2, "good"), (3, "damaged"), (10, "damaged")] {
            checkpoint(dir, &format!("global_step_{step}"), text);
        }
        let load = |path: &Path| match read_state(path).unwrap().as_str() {
            "good" => Ok(path.to_path_buf()),
            other => Err(other.to_string()),
        };
        let found = newest(dir, load, |_| false).unwrap();
        assert_eq!(found.loaded, Some(path_of(dir, 2)));
        assert_eq!(found.damaged, [10, 3].map(|step| (path_of(dir, step), "damaged".to_string())));
        assert_eq!(newest(dir, load, |error| error == "damaged").unwrap_err(), "damaged", "no fault of the checkpoint");
        let none = newest(&dir.join("global_step_1"), load, |_| false).unwrap();
        assert!(none.loaded.is_none() && none.damaged.is_empty());
    }

    /// A process that was killed between two renames: what it left is found without a change on the disk.
    #[test]
    fn candidates_are_found_before_anything_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        checkpoint(dir, ".old_3", "three");
        checkpoint(dir, ".old_5", "earlier");
        checkpoint(dir, "global_step_5", "newer");
        fs::create_dir(dir.join("global_step_6")).unwrap();
        checkpoint(dir, "superseded_0_global_step_9", "nine");
        let names: Vec<_> = candidates(dir).iter().map(|(s, p)| (*s, p.file_name().unwrap().to_owned())).collect();
        assert_eq!(names, [(3, ".old_3".into()), (5, "global_step_5".into()), (6, "global_step_6".into())]);
        assert_eq!(recovered(&dir.join(".old_3")), dir.join("global_step_3"));
        assert_eq!(recovered(&dir.join("global_step_5")), dir.join("global_step_5"));
    }
}
