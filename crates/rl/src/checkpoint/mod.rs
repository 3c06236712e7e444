//! What a checkpoint holds (design decision 8): weights, the optimizer's state and where the run stands. Its layout is
//! that of [`run::checkpoint`].
//!
//! All ranks write it: [`stage`] fixes what each of them has to write, and [`Writing`] writes that, in a thread of its
//! own while training goes on, or at once.
//!
//! Nothing is written that cannot be read again: weights and optimizer state pass the reader's check of numbers on
//! their way to the disk, and `trainer.json` is read back before it counts. What is refused replaces and removes no
//! earlier checkpoint.

mod carried;
mod companions;
mod origin;
mod state;
mod writing;

use std::path::{Path, PathBuf};

use ::policy::{Companions, Hold, Staged};
use comm::Ranks;
use kernels::Kernels;
use run::layout::{ADAPTER, MODEL, OPTIMIZER, STATE};

pub(crate) use carried::restore;
pub use carried::{Carried, CarriedScore};
pub(crate) use companions::compare_companions;
pub use origin::{KnownRow, Origin};
pub use run::checkpoint::{list, newest, recover, recovered, supersede};
pub use state::TrainerState;
pub(crate) use writing::{Writing, WritingPlan};

use crate::config::SaveFormat;
use crate::error::TrainError;
use crate::learn::optimizer::AdamW;
use crate::policy::Policy;
use crate::trainer::RankGroups;

/// What a checkpoint holds.
pub(crate) struct Contents<'a, B: Kernels, P> {
    /// The weights, or adapters.
    pub policy: &'a P,
    /// What is written of them.
    pub save: SaveFormat,
    /// Moments and master weights.
    pub optimizer: &'a AdamW<B>,
    /// Tokenizer and processor files.
    pub companions: &'a Companions,
    /// The ranks of the run, all of which take part.
    pub ranks: &'a RankGroups,
}

/// What this rank has to write of a checkpoint beside its `trainer.json`, which nothing changes any more. All ranks
/// call this.
///
/// # Errors
/// A device that cannot be read; ranks that are gone.
pub(crate) fn stage<B: Kernels, P: Policy<B>>(contents: &Contents<B, P>, hold: Hold) -> Result<Staged, TrainError> {
    let Contents { policy, save, optimizer, companions, ranks } = contents;
    let (companions, copy) = (*companions, ranks.copy());
    let mut staged = match save {
        SaveFormat::Auto | SaveFormat::Adapter => policy.stage(Some(companions), copy, hold)?.below(MODEL),
        SaveFormat::Merged | SaveFormat::Both => {
            let mut staged = policy.stage_merged(Some(companions), copy, hold)?.below(MODEL);
            let companions = (*save == SaveFormat::Both).then_some(companions);
            staged.and(policy.stage(companions, copy, hold)?.below(ADAPTER));
            staged
        }
    };
    staged.and(optimizer.stage(OPTIMIZER, hold)?);
    Ok(staged)
}

/// The folder of a checkpoint that has what was learned, from which a run goes on: the adapter where it stands beside
/// merged weights, else the model's own folder.
pub fn learned(path: &Path) -> PathBuf {
    let adapter = path.join(ADAPTER);
    if adapter.is_dir() { adapter } else { path.join(MODEL) }
}

/// Compares the files of a checkpoint with the checksums in its `trainer.json`, where it has some: each of `ranks` a
/// share of the files.
///
/// # Errors
/// [`TrainError::Damaged`], with the file that is not what was written.
pub fn verify(path: &Path, ranks: &Ranks) -> Result<(), TrainError> {
    run::checkpoint::verify(path, ranks.rank(), ranks.size())
        .map_err(|reason| TrainError::Damaged { path: path.into(), reason })
}

/// Reads `trainer.json` of a checkpoint.
///
/// # Errors
/// A folder that is no checkpoint, or a damaged file.
pub fn read_state(path: &Path) -> Result<TrainerState, TrainError> {
    let bad = |reason: String| TrainError::Damaged { path: path.into(), reason };
    let text = run::checkpoint::read_state(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => TrainError::Input(format!(
            "{}: is not a checkpoint (it has no {STATE}); trainer.resume takes \"auto\", \"none\" or a folder checkpoints/global_step_N",
            path.display()
        )),
        _ => bad(format!("{STATE} cannot be read: {e}")),
    })?;
    parse_state(text.as_bytes())
        .map_err(|e| bad(format!("{STATE} cannot be read: {e}; resume from an earlier checkpoint")))
}

/// Whether [`read_state`] would take `state` as it will be written.
///
/// # Errors
/// What it would refuse.
pub(crate) fn check_state(state: &TrainerState) -> Result<(), String> {
    let json = serde_json::to_vec(state).map_err(|error| error.to_string())?;
    parse_state(&json).map(|_| ())
}

/// What the reader takes, asked by the writer, too.
fn parse_state(json: &[u8]) -> Result<TrainerState, String> {
    let state: TrainerState = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    state.check()?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use reward::Score;

    use super::*;
    use crate::config::Config;
    use crate::rollout::Response;

    /// Regression: a pipe in the place of a checkpoint's file was waited for.
    #[cfg(unix)]
    #[test]
    fn a_pipe_is_no_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("trainer.json")).status().unwrap();
        assert!(made.success());
        let error = read_state(dir.path()).unwrap_err().to_string();
        assert!(error.contains("a pipe"), "{error}");
    }

    fn state() -> TrainerState {
        TrainerState {
            step: 7,
            stage_step: 3,
            carried: vec![Carried {
                row: 4,
                content: 9,
                responses: vec![Response {
                    ids: vec![1, 2],
                    log_probs: vec![-0.5, -0.25],
                    finish: crate::rollout::FinishReason::Stop,
                    visual_focus: None,
                    top_log_probs: vec![],
                }],
                scores: vec![(&Score { overall: 1.0, ..Score::default() }).into()],
                greedy: None,
            }],
            validation: BTreeMap::from([("val/accuracy".into(), 0.5), ("val/odd".into(), f64::NAN)]),
            ..TrainerState::beginning(&Config::default())
        }
    }

    /// Whatever is written is read again, and what would not be read is not written.
    #[test]
    fn the_writer_of_the_state_accepts_what_its_reader_does() {
        let json = |state: &TrainerState| serde_json::to_vec(state).unwrap();
        let again = parse_state(&json(&state())).unwrap();
        assert_eq!(again.validation["val/accuracy"], 0.5);
        assert!(again.validation["val/odd"].is_nan(), "a metric that is no number ends no run");
        type Breaking = fn(&mut TrainerState);
        let broken: [Breaking; 7] = [
            |s| s.kl_coef = f64::NAN,
            |s| s.kl_coef = f64::INFINITY,
            |s| s.carried[0].responses[0].log_probs[1] = f32::NEG_INFINITY,
            |s| s.carried[0].responses[0].visual_focus = Some(vec![f32::NAN, 0.0]),
            |s| s.carried[0].scores[0] = (&Score { overall: f64::NAN, ..Score::default() }).into(),
            |s| s.carried[0].scores.clear(),
            |s| s.stage_step = 8,
        ];
        for (index, change) in broken.into_iter().enumerate() {
            let mut state = state();
            change(&mut state);
            assert!(state.check().is_err(), "{index}");
            assert!(parse_state(&json(&state)).is_err(), "{index}");
        }
    }
}
