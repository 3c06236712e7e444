//! What a checkpoint holds (design decision 8): weights, the optimizer's state and where the run stands. Its layout is
//! that of [`run::checkpoint`].
//!
//! Nothing is written that cannot be read again: weights and optimizer state pass the reader's check of numbers on
//! their way to the disk, and `trainer.json` is read back before it counts. What is refused replaces and removes no
//! earlier checkpoint.

mod carried;
mod companions;
mod origin;
mod state;

use std::path::{Path, PathBuf};

use ::policy::Companions;
use ::policy::ModelError;
use comm::Ranks;
use kernels::Kernels;
use run::layout::{ADAPTER, MODEL, OPTIMIZER, STATE};

pub(crate) use carried::restore;
pub use carried::{Carried, CarriedScore};
pub(crate) use companions::compare_companions;
pub use origin::{KnownRow, Origin};
pub use run::checkpoint::{list, newest, recover, recovered, supersede};
pub use state::TrainerState;

use crate::config::SaveFormat;
use crate::error::TrainError;
use crate::learn::optimizer::AdamW;
use crate::policy::Policy;
use crate::trainer::RankGroups;

/// What a checkpoint holds.
pub struct Contents<'a, B: Kernels, P> {
    /// Where the run stands.
    pub state: &'a TrainerState,
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

/// Writes a checkpoint and then removes all but the newest `limit` (0: none is removed). `proof` is asked when the
/// weights are written and nothing is replaced yet: whether the policy still computes numbers.
///
/// # Errors
/// [`TrainError::Diverged`] for what [`read_state`] or the loaders would refuse, the error of `proof`, and anything the
/// file system refuses, a full disk above all: the half-written folder is removed, earlier checkpoints stay.
pub fn save<B: Kernels, P: Policy<B>>(
    dir: &Path,
    Contents { state, policy, save, optimizer, companions, ranks }: Contents<B, P>,
    limit: usize,
    proof: impl FnOnce() -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    let diverged = |what: String| TrainError::Diverged { what, way: String::new() };
    let numbers = |error: ModelError| match error {
        ModelError::NotFinite { .. } => diverged(error.to_string()),
        other => other.into(),
    };
    let fill = |folder: &Path| -> Result<(), TrainError> {
        ranks.world.barrier("a checkpoint is begun")?;
        if ranks.writes_weights() {
            let (model, adapter) = (folder.join(MODEL), folder.join(ADAPTER));
            match save {
                SaveFormat::Auto | SaveFormat::Adapter => policy.save(&model, Some(companions)).map_err(numbers)?,
                SaveFormat::Merged | SaveFormat::Both => {
                    policy.save_merged(&model, Some(companions)).map_err(numbers)?;
                    let companions = (save == SaveFormat::Both).then_some(companions);
                    policy.save(&adapter, companions).map_err(numbers)?;
                }
            }
        }
        optimizer.save(&folder.join(OPTIMIZER)).map_err(numbers)?;
        proof()?;
        let json = serde_json::to_vec(state).map_err(|error| diverged(error.to_string()))?;
        parse_state(&json).map(|_| ()).map_err(diverged)?;
        Ok(ranks.world.barrier("a checkpoint is filled")?)
    };
    let written: Result<PathBuf, TrainError> = match ranks.world.is_first() {
        true => run::checkpoint::write(dir, state.step, state, fill),
        // Rank 0 makes the folder and gives it its name.
        false => {
            fill(&run::checkpoint::partial_of(dir, state.step)).map(|()| run::checkpoint::path_of(dir, state.step))
        }
    };
    match written.and_then(|path| Ok(ranks.world.barrier("a checkpoint is there").map(|()| path)?)) {
        Ok(path) if !ranks.world.is_first() => Ok(path),
        Ok(path) => {
            run::checkpoint::keep_newest(dir, limit);
            Ok(path)
        }
        Err(error) if error.is_of_device() || matches!(error, TrainError::Diverged { .. }) => Err(error),
        Err(error) => {
            let kept = list(dir).last().map_or("no earlier checkpoint exists".to_string(), |(_, p)| {
                format!("the newest checkpoint is {}", p.display())
            });
            Err(TrainError::Checkpoint {
                path: run::checkpoint::path_of(dir, state.step),
                reason: format!("cannot be written: {error}; {kept}; make room and give the same command again"),
            })
        }
    }
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
