//! Where a run stands.

use std::collections::BTreeMap;

use data::Cursor;
use serde::{Deserialize, Serialize};

use super::carried::Carried;
use super::origin::Origin;
use crate::config::Config;
use crate::experience::Metrics;
use crate::prompts::SetAside;

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

impl TrainerState {
    /// Where a run begins.
    pub fn beginning(config: &Config) -> Self {
        let mut state = Self {
            step: 0,
            stage: 0,
            stage_step: 0,
            optimizer_steps: 0,
            cursor: Cursor::new(0),
            kl_coef: 0.0,
            carried: vec![],
            stage_over: false,
            seconds: 0.0,
            validation: BTreeMap::new(),
            before: BTreeMap::new(),
            set_aside: SetAside::default(),
            unvalidated: None,
            origin: Origin::default(),
        };
        state.enter_stage(0, config);
        state
    }

    /// Where a stage begins in its data. Stages draw in different orders.
    pub fn first_cursor(stage: usize, config: &Config) -> Cursor {
        let seed = crate::random_keys::stage_seed(config.data.seed, stage);
        Cursor { shuffle: config.data.shuffle, ..Cursor::new(seed) }
    }

    /// Stands before the first step of a stage. What counts over all stages goes on.
    pub(crate) fn enter_stage(&mut self, stage: usize, config: &Config) {
        self.stage = stage;
        self.stage_step = 0;
        self.optimizer_steps = 0;
        self.stage_over = false;
        self.cursor = Self::first_cursor(stage, config);
        self.kl_coef = config.algorithm.kl_coef;
        self.origin.rows.clear();
        self.origin.reference = None;
    }

    /// A step is complete.
    pub(crate) fn count_step(&mut self) {
        self.step += 1;
        self.stage_step += 1;
    }

    /// A step is complete up to its validation, which was interrupted: the update cannot be repeated, the validation
    /// can.
    pub(crate) fn leave_unvalidated(&mut self, metrics: &Metrics) {
        self.count_step();
        self.unvalidated = Some(metrics.iter().map(|(k, v)| (k.clone(), v.is_finite().then_some(*v))).collect());
    }

    /// The metrics of a step that [was left unvalidated](Self::leave_unvalidated); the step is not complete again.
    pub(crate) fn take_unvalidated(&mut self) -> Option<Metrics> {
        let metrics = self.unvalidated.take()?;
        self.step -= 1;
        self.stage_step -= 1;
        Some(metrics.into_iter().map(|(k, v)| (k, v.unwrap_or(f64::NAN))).collect())
    }

    /// Whether a checkpoint of `other` says all that one of this would.
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (self.step, self.stage) == (other.step, other.stage)
            && (&self.validation, &self.before) == (&other.validation, &other.before)
            && self.unvalidated == other.unvalidated
    }

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
        self.carried.iter().try_for_each(Carried::check)
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
