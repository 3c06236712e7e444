//! What a checkpoint holds (design decision 8): weights, the optimizer's state and where the run stands. Its layout is
//! that of [`run::checkpoint`].
//!
//! Nothing is written that cannot be read again: weights and optimizer state pass the reader's check of numbers on
//! their way to the disk, and `trainer.json` is read back before it counts. What is refused replaces and removes no
//! earlier checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::policy::Companions;
use ::policy::ModelError;
use data::Cursor;
use kernels::Kernels;
use reward::Score;
use serde::{Deserialize, Serialize};

pub use run::checkpoint::{candidates, list, recover, recovered, supersede};

use crate::error::TrainError;
use crate::learn::optimizer::AdamW;
use crate::policy::Policy;
use crate::prompts::{DataFile, SetAside};
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
    #[serde(with = "nullable")]
    pub validation: BTreeMap<String, f64>,
    /// Validation before the first RL step, for the final table.
    #[serde(with = "nullable")]
    pub before: BTreeMap<String, f64>,
    /// Rows set aside so far, so that a resumed run counts them once, as one that was never stopped does.
    #[serde(default)]
    pub set_aside: SetAside,
    /// What was measured in step `step`, where an interrupt fell into its validation: the resumed run validates first
    /// and then logs the step. `None` is a number that is not finite.
    #[serde(default)]
    pub unvalidated: Option<BTreeMap<String, Option<f64>>>,
    /// What the numbers above refer to, so that a resumed run can tell whether it is still there.
    #[serde(default)]
    pub origin: Origin,
}

/// The configuration and the data that a checkpoint is from. An older checkpoint has none of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Every key of the configuration with its value, stages by their names.
    pub settings: BTreeMap<String, String>,
    /// All stages in their order.
    pub stages: Vec<StageName>,
    /// The files of the stage's data.
    pub data: Vec<DataFile>,
    /// Rows drawn in an epoch of it.
    pub epoch_len: usize,
    /// The last rows that were trained on: their numbers and contents.
    pub rows: Vec<KnownRow>,
    /// Folder in `reference/` of the policy that the stage began with.
    pub reference: Option<String>,
}

/// A stage as a person knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StageName {
    /// `sft` or `rl`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How many stages of this kind and name stand before it: the default names may come more than once.
    pub twin: usize,
}

/// A row by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRow {
    /// Row in the stage's data.
    pub row: usize,
    /// [`crate::prompts::Item::content`].
    pub content: u64,
}

impl TrainerState {
    /// What no run can go on from, whether it is about to be written or was read.
    ///
    /// # Errors
    /// Names the number and where it is.
    pub fn check(&self) -> Result<(), String> {
        if !self.kl_coef.is_finite() {
            return Err(format!("the KL coefficient is {}", self.kl_coef));
        }
        if self.stage_step > self.step {
            return Err(format!("stage step {} lies after step {}", self.stage_step, self.step));
        }
        for group in &self.carried {
            let row = group.row;
            if group.scores.len() != group.responses.len() {
                return Err(format!(
                    "{} scores of {} carried responses to row {row}",
                    group.scores.len(),
                    group.responses.len()
                ));
            }
            for response in &group.responses {
                if response.ids.is_empty() || response.log_probs.len() != response.ids.len() {
                    return Err(format!("a carried response to row {row} has no log-prob for each token"));
                }
                let focus = response.visual_focus.iter().flatten();
                if !response.log_probs.iter().chain(focus).all(|v| v.is_finite()) {
                    return Err(format!("log-probs of a carried response to row {row} are not finite"));
                }
            }
            let numbers = group
                .scores
                .iter()
                .flat_map(|s| [s.overall, s.accuracy, s.format].into_iter().chain(s.extra.values().copied()));
            if !numbers.chain(group.greedy).all(f64::is_finite) {
                return Err(format!("a reward of a carried response to row {row} is not finite"));
            }
        }
        Ok(())
    }
}

/// Metrics may be NaN, which JSON has not: written as `null`, and read as NaN again.
mod nullable {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(map: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
        let map: BTreeMap<&String, Option<f64>> = map.iter().map(|(k, v)| (k, v.is_finite().then_some(*v))).collect();
        map.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
        let map = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(k, v)| (k, v.unwrap_or(f64::NAN))).collect())
    }
}

/// A kept group: its row and everything that was sampled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Carried {
    /// Row in the stage's data.
    pub row: usize,
    /// `crate::prompts::Item::whole_content` of that row: its number alone may name another row after a resume.
    #[serde(default)]
    pub content: u64,
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
    extra: BTreeMap<String, f64>,
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

/// What a checkpoint holds.
pub struct Contents<'a, B: Kernels, P> {
    /// Where the run stands.
    pub state: &'a TrainerState,
    /// The weights.
    pub policy: &'a P,
    /// Moments and master weights.
    pub optimizer: &'a AdamW<B>,
    /// Tokenizer and processor files.
    pub companions: &'a Companions,
}

/// Writes a checkpoint and then removes all but the newest `limit` (0: none is removed). `proof` is asked when the
/// weights are written and nothing is replaced yet: whether the policy still computes numbers.
///
/// # Errors
/// [`TrainError::Diverged`] for what `read_state` or the loaders would refuse, the error of `proof`, and anything the
/// file system refuses, a full disk above all: the half-written folder is removed, earlier checkpoints stay.
pub fn save<B: Kernels, P: Policy<B>>(
    dir: &Path,
    Contents { state, policy, optimizer, companions }: Contents<B, P>,
    limit: usize,
    proof: impl FnOnce() -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    let diverged = |what: String| TrainError::Diverged { what, way: String::new() };
    let numbers = |error: ModelError| match error {
        ModelError::NotFinite { .. } => diverged(error.to_string()),
        other => other.into(),
    };
    let written = run::checkpoint::write(dir, state.step, state, |folder| {
        policy.save(&folder.join("hf"), Some(companions)).map_err(numbers)?;
        optimizer.save(&folder.join("optimizer.safetensors")).map_err(numbers)?;
        proof()?;
        let json = serde_json::to_vec(state).map_err(|error| diverged(error.to_string()))?;
        parse_state(&json).map(|_| ()).map_err(diverged)
    });
    match written {
        Ok(path) => {
            run::checkpoint::keep_newest(dir, limit);
            Ok(path)
        }
        Err(
            error @ (TrainError::Diverged { .. } | TrainError::Device(_) | TrainError::Model(ModelError::Device(_))),
        ) => Err(error),
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

/// Compares the files of a checkpoint with the checksums in its `trainer.json`, where it has some.
///
/// # Errors
/// [`TrainError::Damaged`], with the file that is not what was written.
pub(crate) fn verify(path: &Path) -> Result<(), TrainError> {
    run::checkpoint::verify(path).map_err(|reason| TrainError::Damaged { path: path.into(), reason })
}

/// Reads `trainer.json` of a checkpoint.
///
/// # Errors
/// A folder that is no checkpoint, or a damaged file.
pub(crate) fn read_state(path: &Path) -> Result<TrainerState, TrainError> {
    let bad = |reason: String| TrainError::Damaged { path: path.into(), reason };
    let text = run::checkpoint::read_state(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => TrainError::Input(format!(
            "{}: is not a checkpoint (it has no trainer.json); trainer.resume takes \"auto\", \"none\" or a folder checkpoints/global_step_N",
            path.display()
        )),
        _ => bad(format!("trainer.json cannot be read: {e}")),
    })?;
    parse_state(text.as_bytes())
        .map_err(|e| bad(format!("trainer.json cannot be read: {e}; resume from an earlier checkpoint")))
}

/// What the reader takes, asked by the writer, too.
fn parse_state(json: &[u8]) -> Result<TrainerState, String> {
    let state: TrainerState = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    state.check()?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            stage: 1,
            stage_step: 3,
            optimizer_steps: 3,
            cursor: Cursor::new(1),
            kl_coef: 0.1,
            carried: vec![Carried {
                row: 4,
                content: 9,
                responses: vec![Response {
                    ids: vec![1, 2],
                    log_probs: vec![-0.5, -0.25],
                    finish: crate::rollout::FinishReason::Stop,
                    visual_focus: None,
                }],
                scores: vec![CarriedScore {
                    overall: 1.0,
                    accuracy: 1.0,
                    format: 0.0,
                    extracted: None,
                    extra: BTreeMap::new(),
                }],
                greedy: None,
            }],
            stage_over: false,
            seconds: 1.5,
            validation: BTreeMap::from([("val/accuracy".into(), 0.5), ("val/odd".into(), f64::NAN)]),
            before: BTreeMap::new(),
            set_aside: SetAside::default(),
            unvalidated: None,
            origin: Origin::default(),
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
            |s| s.carried[0].scores[0].overall = f64::NAN,
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
