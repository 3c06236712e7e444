//! Whether the folders that a run writes to have room, and may be written to.

use std::path::{Path, PathBuf};

use doctor::{Finding, Verdict};
use rl::config::Config;

use super::{RunNeeds, gib, in_time};

/// Below this even small files do not fit.
const LITTLE: u64 = 1 << 30;

pub(super) fn examine(asked: &RunNeeds, add: &mut impl FnMut(Finding)) {
    if let Some(run) = asked.run {
        add(run_folder(run, asked.checkpoint.unwrap_or(0) as u64));
    }
    let cache = hub::Hub::from_env().ok().map(|hub| hub.cache);
    if let Some(cache) = cache {
        add(folder("hub-cache", &cache, "set HF_HUB_CACHE to a folder with room for models and data"));
    }
    add(folder("temporary-files", &std::env::temp_dir(), "set TMPDIR to a folder that can be written to"));
}

/// The folder, or the nearest one above it that is there: it will be made in it.
fn standing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_path_buf()
}

/// Bytes that are free where a folder lies or will lie; the error says why nothing can be written there.
fn room(path: &Path) -> Result<Option<u64>, String> {
    let folder = standing(path);
    let look = move || {
        let probe = folder.join(format!(".writable_{}", std::process::id()));
        std::fs::write(&probe, "x").map_err(|error| format!("{}: {error}", folder.display()))?;
        // What stays is a byte, and says itself whose it was.
        let _ = std::fs::remove_file(&probe);
        Ok(free(&folder))
    };
    // A network's file system may not answer.
    in_time(look).unwrap_or_else(|| Err(format!("{} does not answer", path.display())))
}

/// Bytes that are free on the file system of a folder.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail * found.f_frsize)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

/// A folder that anything may be written to.
fn folder(name: &'static str, path: &Path, to_do: &str) -> Finding {
    match room(path) {
        Err(why) => Finding::around(name, Verdict::Warning, format!("cannot be written to: {why}"), to_do),
        Ok(None) => Finding::around(name, Verdict::Right, format!("{} can be written to", path.display()), ""),
        Ok(Some(free)) => {
            let found = format!("{} has {} free", path.display(), gib(free));
            match free < LITTLE {
                true => Finding::around(name, Verdict::Warning, found, to_do),
                false => Finding::around(name, Verdict::Right, found, ""),
            }
        }
    }
}

/// The run folder: one checkpoint has to fit, and those that are kept should, with the one that is being written.
fn run_folder(run: &Config, checkpoint: u64) -> Finding {
    const NAME: &str = "run-folder";
    let path = run.trainer.run_dir();
    let to_do = "set trainer.output_dir to a folder with room, or lower trainer.save_limit";
    let free = match room(&path) {
        Err(why) => return Finding::around(NAME, Verdict::Error, format!("cannot be written to: {why}"), to_do),
        Ok(None) => {
            return Finding::around(NAME, Verdict::Right, format!("{} can be written to", path.display()), "");
        }
        Ok(Some(free)) => free,
    };
    // 0 keeps all: how many that is, is not known here.
    let kept = 1 + run.trainer.save_limit.max(1) as u64;
    let all =
        if run.trainer.save_limit == 0 { "all are kept".into() } else { format!("{kept} with the one being written") };
    let found = format!("{} has {} free; a checkpoint takes {}, {all}", path.display(), gib(free), gib(checkpoint));
    let verdict = match () {
        () if free < checkpoint => Verdict::Error,
        () if free < kept.saturating_mul(checkpoint) => Verdict::Warning,
        () => Verdict::Right,
    };
    Finding::around(NAME, verdict, found, if verdict == Verdict::Right { "" } else { to_do })
}
