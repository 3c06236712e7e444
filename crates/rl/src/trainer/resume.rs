//! From a checkpoint to a run that can go on. What cannot be right is refused with the way out, or dropped with a note;
//! every changed key is printed. Nothing on the disk changes here.

use std::path::{Path, PathBuf};

use comm::Ranks;
use kernels::Kernels;
use kernels::zero::ZeroLayout;
use run::layout::{MODEL, OPTIMIZER};

use super::{Setup, reference};
use crate::checkpoint::{self, TrainerState};
use crate::config::flat::changes;
use crate::config::{Stage, StageName};
use crate::error::TrainError;
use crate::learn::optimizer::AdamW;
use crate::policy::Policy;
use crate::prompts::Prompts;
use crate::recipe::Recipe;
use crate::run_folder::RunFolder;

/// A checkpoint in memory.
pub(super) struct Loaded<B: Kernels, P> {
    /// Where it lies; in the place that [`checkpoint::recover`] gives it.
    pub path: PathBuf,
    pub state: TrainerState,
    pub policy: P,
    pub optimizer: AdamW<B>,
}

/// Reads a whole checkpoint; what one rank cannot read none has read.
pub(super) fn load<B: Kernels, P: Policy<B>>(
    path: &Path,
    setup: &Setup<P>,
    layout: &ZeroLayout,
) -> Result<Loaded<B, P>, TrainError> {
    let world = &setup.ranks.world;
    let checked = || -> Result<TrainerState, TrainError> {
        let state = checkpoint::read_state(path)?;
        checkpoint::verify(path, world)?;
        Ok(state)
    };
    let state = agreed(path, checked(), world)?;
    let weights = || -> Result<(P, AdamW<B>), TrainError> {
        let mut policy = (setup.load)(&checkpoint::learned(path))?;
        let optimizer = AdamW::new(&setup.config.actor.optim).check_device(setup.config.trainer.check_device);
        let mut optimizer = optimizer.over(layout);
        optimizer.load(&path.join(OPTIMIZER), &mut policy)?;
        Ok((policy, optimizer))
    };
    let (policy, optimizer) = agreed(path, weights(), world)?;
    Ok(Loaded { path: checkpoint::recovered(path), state, policy, optimizer })
}

/// What this rank has read of a checkpoint, if all ranks could read theirs; else an error on all of them.
fn agreed<T>(path: &Path, own: Result<T, TrainError>, world: &Ranks) -> Result<T, TrainError> {
    let told = own.as_ref().err().map(ToString::to_string);
    let told = world.gather("what was read", &told)?;
    match (own, told.into_iter().flatten().next()) {
        (Ok(_), Some(reason)) => Err(TrainError::Damaged { path: path.into(), reason }),
        (own, _) => own,
    }
}

/// The newest checkpoint in `dir` that can be read; each one that cannot is a warning in `notes`.
///
/// # Errors
/// Where there are some and none can be read; a device that fails.
pub(super) fn newest<B: Kernels, P: Policy<B>>(
    dir: &Path,
    setup: &Setup<P>,
    layout: &ZeroLayout,
    notes: &mut Vec<String>,
) -> Result<Option<Loaded<B, P>>, TrainError> {
    let found = checkpoint::newest(dir, |path| load(path, setup, layout), TrainError::is_of_device)?;
    for (path, reason) in &found.damaged {
        notes.push(format!("warning: checkpoint {} is damaged and left out: {reason}", path.display()));
    }
    match (found.loaded, found.damaged.into_iter().next()) {
        (None, Some((path, reason))) => Err(TrainError::Damaged {
            path,
            reason: format!(
                "cannot be read: {reason}; nor can any checkpoint before it. Copy one back from elsewhere, or start \
                 anew in another trainer.output_dir"
            ),
        }),
        (loaded, _) => Ok(loaded),
    }
}

/// Everything about a loaded checkpoint that the configuration may contradict; `state.stage` becomes the stage's place
/// of now.
///
/// # Errors
/// What cannot be right, with the way out.
pub(super) fn reconcile<P>(
    path: &Path,
    state: &mut TrainerState,
    setup: &Setup<P>,
    notes: &mut Vec<String>,
) -> Result<(), TrainError> {
    let config = &setup.config;
    let stages = StageName::of(&config.stages());
    let origin = &state.origin;
    state.stage = origin.place(state.stage, state.stage_step, &stages).map_err(|reason| refusal(path, &reason))?;
    let settings = config.flat();
    if origin.settings.is_empty() {
        notes
            .push("the checkpoint is of an earlier version: whether the configuration has changed is not known".into());
    } else {
        let lines = changes(&origin.settings, &settings, [&origin.stages, &stages]);
        notes.extend(lines.into_iter().map(|line| format!("changed since the checkpoint: {line}")));
        if origin.settings.get("algorithm.kl_coef") != settings.get("algorithm.kl_coef") {
            state.kl_coef = config.algorithm.kl_coef;
        }
    }
    checkpoint::compare_companions(path, &setup.companions, notes)
}

/// What to do where a checkpoint does not fit the configuration.
fn refusal(path: &Path, reason: &str) -> TrainError {
    TrainError::Input(format!(
        "{}: {reason}. Give the run what it had, or start a new run from these weights: model.path={} \
         trainer.resume=none and another trainer.output_dir",
        path.display(),
        path.join(MODEL).display()
    ))
}

/// Compares the stage's data with the rows that were trained on.
///
/// # Errors
/// Other data in the middle of an epoch: the rows behind the cursor are not those that were trained on.
pub(super) fn check_data(
    path: &Path,
    state: &TrainerState,
    prompts: &Prompts,
    notes: &mut Vec<String>,
) -> Result<(), TrainError> {
    let cursor = &state.cursor;
    state.origin.compare_data(cursor.position > 0, prompts, notes).map_err(|reason| {
        let place =
            format!("it stands after row {} of epoch {} of its stage's data", cursor.position, cursor.epoch + 1);
        refusal(path, &format!("{place}, and the data is not the same: {reason}"))
    })
}

/// The reference policy of the stage, where it has begun with one.
///
/// # Errors
/// It is nowhere, or cannot be read.
pub(super) fn reference<B: Kernels, P: Policy<B>>(
    checkpoint: &Path,
    state: &TrainerState,
    folder: &RunFolder,
    setup: &Setup<P>,
) -> Result<Option<P>, TrainError> {
    let config = &setup.config;
    let begun = state.stage_step > 0 && matches!(config.stages()[state.stage], Stage::Rl(_));
    if !begun || !Recipe::<B>::new(config)?.wants_reference() {
        return Ok(None);
    }
    let source = reference::find(folder, &reference::name(state), checkpoint)?;
    Ok(Some((setup.load)(&source)?))
}
