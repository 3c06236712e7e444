//! Checkpoints (design decision 8): `checkpoints/global_step_N/{hf/, optimizer.safetensors, trainer.json}`, written under a
//! temporary name, synced, then renamed, so that a folder with its final name is always whole.

use std::fs;
use std::path::{Path, PathBuf};

use data::processor::serving;
use data::{Cursor, ImageLimits};
use model_qwen2vl::Kernels;
use reward::Score;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::optimizer::AdamW;
use crate::policy::Policy;
use crate::prompts::SetAside;
use crate::rollout::Response;

/// Where a run stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainerState {
    /// Steps of all stages together.
    pub step: u64,
    /// Index of the stage.
    pub stage: usize,
    /// Steps done in it.
    pub stage_step: u64,
    /// Optimizer steps done in it.
    pub optimizer_steps: usize,
    /// Where the stage stands in its data.
    pub cursor: Cursor,
    /// KL coefficient, where it adapts.
    pub kl_coef: f64,
    /// Prompts that dynamic sampling kept for the next batch.
    pub carried: Vec<Carried>,
    /// Whether the stage has ended before its last step (`until_accuracy`).
    pub stage_over: bool,
    /// Seconds of training behind.
    pub seconds: f64,
    /// The last validation's metrics.
    pub validation: std::collections::BTreeMap<String, f64>,
    /// Validation before the first RL step, for the final table.
    pub before: std::collections::BTreeMap<String, f64>,
    /// Rows set aside so far, so that a resumed run counts them once, as one that was never stopped does.
    #[serde(default)]
    pub set_aside: SetAside,
    /// What was measured in step `step`, where an interrupt fell into its validation: the resumed run validates first and
    /// then logs the step. `None` is a number that is not finite.
    #[serde(default)]
    pub unvalidated: Option<std::collections::BTreeMap<String, Option<f64>>>,
}

/// A kept group: its row and everything that was sampled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Carried {
    /// Row in the stage's data.
    pub row: usize,
    /// Its responses.
    pub responses: Vec<Response>,
    /// Overall, accuracy and format of each, then the extra metrics.
    pub scores: Vec<CarriedScore>,
    /// Score of the greedy response.
    pub greedy: Option<f64>,
}

/// A score in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CarriedScore {
    overall: f64,
    accuracy: f64,
    format: f64,
    extracted: Option<String>,
    extra: std::collections::BTreeMap<String, f64>,
}

impl From<&Score> for CarriedScore {
    fn from(s: &Score) -> Self {
        Self {
            overall: s.overall,
            accuracy: s.accuracy,
            format: s.format,
            extracted: s.extracted.clone(),
            extra: s.extra.clone(),
        }
    }
}

impl From<CarriedScore> for Score {
    fn from(s: CarriedScore) -> Self {
        Self { overall: s.overall, accuracy: s.accuracy, format: s.format, extracted: s.extracted, extra: s.extra }
    }
}

const PREFIX: &str = "global_step_";
/// A checkpoint that is being replaced by one of the same step.
const OLD: &str = ".old_";
/// A checkpoint that is being removed.
const REMOVED: &str = ".removed_";

/// Checkpoints of a folder by step, oldest first. Folders without a readable `trainer.json` are not checkpoints.
pub fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return vec![];
    };
    let mut found: Vec<(u64, PathBuf)> = entries
        .flatten()
        .filter_map(|e| {
            let step = e.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            e.path().join("trainer.json").is_file().then(|| (step, e.path()))
        })
        .collect();
    found.sort();
    found
}

/// Puts right what a process left that was killed while it replaced or removed a checkpoint.
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
        if name.starts_with(OLD) || name.starts_with(REMOVED) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Renames checkpoints after `step` to `superseded_...`: a run that goes on from an earlier one must not be resumed from them
/// later, and they may still be wanted.
///
/// # Errors
/// A folder that cannot be renamed.
pub fn supersede(dir: &Path, step: u64) -> Result<(), TrainError> {
    for (_, path) in list(dir).into_iter().filter(|(s, _)| *s > step) {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let target = (0..).map(|i| dir.join(format!("superseded_{i}_{name}"))).find(|p| !p.exists());
        if let Some(target) = target {
            fs::rename(&path, &target)
                .map_err(|e| TrainError::Checkpoint { path, reason: format!("cannot be set aside: {e}") })?;
        }
    }
    Ok(())
}

fn sync_dir(path: &Path) -> std::io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Writes a checkpoint, its model folder with the pixels of the run (`pixels`) for servers, and then removes all but the newest `limit` (0: none is removed).
///
/// # Errors
/// Anything the file system refuses, a full disk above all: the half-written folder is removed, earlier checkpoints stay.
pub fn save<B: Kernels, P: Policy<B>>(
    dir: &Path,
    state: &TrainerState,
    policy: &P,
    optimizer: &AdamW<B>,
    source: &Path,
    pixels: &ImageLimits,
    limit: usize,
) -> Result<PathBuf, TrainError> {
    let target = dir.join(format!("{PREFIX}{}", state.step));
    let temporary = dir.join(format!(".{PREFIX}{}.partial", state.step));
    let write = || -> Result<(), TrainError> {
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TrainError::Model(model_qwen2vl::ModelError::Io { path, source })
        };
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(io(&temporary))?;
        }
        fs::create_dir_all(&temporary).map_err(io(&temporary))?;
        policy.save(&temporary.join("hf"), Some(source))?;
        serving::write(&temporary.join("hf"), pixels)?;
        optimizer.save(&temporary.join("optimizer.safetensors"))?;
        let path = temporary.join("trainer.json");
        let json = serde_json::to_vec(state).map_err(|e| io(&path)(e.into()))?;
        fs::write(&path, json).and_then(|()| sync_dir(&path)).map_err(io(&path))?;
        for folder in [temporary.join("hf"), temporary.clone()] {
            sync_dir(&folder).map_err(io(&folder))?;
        }
        // The same step again, with a newer validation: the old folder stays whole until the new one stands in its place.
        let old = dir.join(format!("{OLD}{}", state.step));
        if target.exists() {
            fs::rename(&target, &old).map_err(io(&target))?;
        }
        if let Err(error) = fs::rename(&temporary, &target) {
            let _ = fs::rename(&old, &target);
            return Err(io(&target)(error));
        }
        sync_dir(dir).map_err(io(dir))?;
        let _ = fs::remove_dir_all(&old);
        Ok(())
    };
    if let Err(error) = write() {
        let _ = fs::remove_dir_all(&temporary);
        let kept = list(dir).last().map_or("no earlier checkpoint exists".to_string(), |(_, p)| {
            format!("the newest checkpoint is {}", p.display())
        });
        return Err(TrainError::Checkpoint {
            path: target,
            reason: format!("cannot be written: {error}; {kept}; make room and give the same command again"),
        });
    }
    let all = list(dir);
    if limit > 0 && all.len() > limit {
        for (_, old) in &all[..all.len() - limit] {
            // A checkpoint that cannot be removed costs room, not the run. One that is half removed must not be found.
            let removed = old.file_name().map(|name| dir.join(format!("{REMOVED}{}", name.display())));
            if let Some(removed) = removed.filter(|removed| fs::rename(old, removed).is_ok()) {
                let _ = fs::remove_dir_all(removed);
            }
        }
    }
    Ok(target)
}

/// Reads `trainer.json` of a checkpoint.
///
/// # Errors
/// A folder that is no checkpoint, or a damaged file.
pub fn read_state(path: &Path) -> Result<TrainerState, TrainError> {
    let bad = |reason: String| TrainError::Checkpoint { path: path.into(), reason };
    let text = fs::read_to_string(path.join("trainer.json")).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => TrainError::Input(format!(
            "{}: is not a checkpoint (it has no trainer.json); trainer.resume takes \"auto\", \"none\" or a folder checkpoints/global_step_N",
            path.display()
        )),
        _ => bad(format!("trainer.json cannot be read: {e}")),
    })?;
    serde_json::from_str(&text)
        .map_err(|e| bad(format!("trainer.json cannot be read: {e}; resume from an earlier checkpoint")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(dir: &Path, name: &str, text: &str) {
        fs::create_dir_all(dir.join(name)).unwrap();
        fs::write(dir.join(name).join("trainer.json"), text).unwrap();
    }

    /// What is there after a kill in the middle of replacing or removing a checkpoint.
    #[test]
    fn what_a_killed_process_left_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        // Set aside, the new one not yet in place; the new one in place; half removed.
        checkpoint(dir, ".old_3", "three");
        checkpoint(dir, ".old_5", "earlier");
        checkpoint(dir, "global_step_5", "newer");
        checkpoint(dir, ".removed_global_step_1", "one");
        recover(dir);
        let names: Vec<_> = list(dir).into_iter().map(|(step, _)| step).collect();
        assert_eq!(names, [3, 5]);
        let text = |name: &str| fs::read_to_string(dir.join(name).join("trainer.json")).unwrap();
        assert_eq!((text("global_step_3"), text("global_step_5")), ("three".into(), "newer".into()));
        assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
    }
}
