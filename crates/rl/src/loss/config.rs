//! Settings of the losses, by EasyR1's key names.

use super::{CorrectionConfig, KlPenalty, KlType, PapoConfig};
use crate::config::Config;
use crate::perturb::{PerturbationConfig, Published};
use crate::registry::SelectedLoss;
use crate::shaping::Stream;

/// What a loss is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LossAvgMode {
    /// Every token of the optimizer step weighs the same.
    #[default]
    Token,
    /// Every response of the optimizer step weighs the same: mean over responses of the mean over tokens.
    Seq,
    /// Dr. GRPO (arXiv 2503.20783): sum over tokens / (responses x longest that a response may be). A token weighs the
    /// same however long its response, and however long the others are. TRL calls it `dr_grpo`, verl
    /// `seq-mean-token-sum-norm`.
    Constant,
}

/// Which entropy is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntropyType {
    /// Minus the log-prob of the sampled token, as the released VPPO and PAPO code.
    #[default]
    Sampled,
    /// Over the full vocabulary; needs the `entropy` stream.
    Full,
}

/// The KL divergence to the reference policy.
#[derive(Debug, Clone, PartialEq)]
pub struct KlConfig {
    /// No reference policy at all: neither in the loss nor in the reward.
    pub disable_kl: bool,
    /// KL as a term of the loss; otherwise as a penalty in the reward.
    pub use_kl_loss: bool,
    /// Which estimate.
    pub kl_penalty: KlPenalty,
    /// Coefficient, 0 or more; the first one when `kl_type` is `adaptive`.
    pub kl_coef: f64,
    /// `fixed`, or `adaptive` towards `kl_target` (in the reward only).
    pub kl_type: KlType,
    /// Divergence that the adaptive coefficient aims at, above 0.
    pub kl_target: f64,
    /// Responses over which the adaptive coefficient moves, above 0.
    pub kl_horizon: f64,
}

impl Default for KlConfig {
    fn default() -> Self {
        Self {
            disable_kl: true,
            use_kl_loss: false,
            kl_penalty: KlPenalty::LowVarKl,
            kl_coef: 0.01,
            kl_type: KlType::Fixed,
            kl_target: 0.1,
            kl_horizon: 10_000.0,
        }
    }
}

impl KlConfig {
    /// Whether the KL is a term of the loss.
    pub(crate) fn in_loss(&self) -> bool {
        !self.disable_kl && self.use_kl_loss
    }

    /// Whether the KL is a penalty in the reward.
    pub(crate) fn in_reward(&self) -> bool {
        !self.disable_kl && !self.use_kl_loss
    }

    /// Checks the numbers, and that no key contradicts another.
    ///
    /// # Errors
    /// [`LossError::Config`].
    pub fn validate(&self) -> Result<(), LossError> {
        positive("kl_coef", self.kl_coef, true)?;
        positive("kl_target", self.kl_target, false)?;
        positive("kl_horizon", self.kl_horizon, false)?;
        if self.disable_kl && self.use_kl_loss {
            return refuse("use_kl_loss", "true", "contradicts disable_kl = true; set one of the two to false");
        }
        if self.in_loss() && self.kl_type == KlType::Adaptive {
            return refuse(
                "kl_type",
                "adaptive",
                "moves the coefficient of the KL in the reward; with use_kl_loss = true write kl_type = \"fixed\"",
            );
        }
        Ok(())
    }
}

/// Settings of `super::policy_loss`. Defaults are EasyR1's, without a KL.
#[derive(Debug, Clone, PartialEq)]
pub struct LossConfig {
    /// Which policy loss.
    pub loss_type: SelectedLoss,
    /// What the sum over tokens is divided by.
    pub loss_avg_mode: LossAvgMode,
    /// Tokens that a response may have at most, above 0: the constant of [`LossAvgMode::Constant`].
    pub max_response_length: usize,
    /// How far below 1 the ratio may fall where the advantage is negative, in [0, 1).
    pub clip_ratio_low: f64,
    /// How far above 1 the ratio may rise where the advantage is positive, at least 0 (DAPO's clip-higher: larger than
    /// low).
    pub clip_ratio_high: f64,
    /// Bound of the ratio where the advantage is negative (dual clip), above `1 + clip_ratio_high`.
    pub clip_ratio_dual: f64,
    /// Added to the loss times the entropy: positive punishes entropy (VPPO .06), negative rewards it, 0 leaves it out.
    pub entropy_coef: f64,
    /// Which entropy.
    pub entropy_type: EntropyType,
    /// KL to the reference policy.
    pub kl: KlConfig,
    /// PAPO's perception terms.
    pub papo: Option<PapoConfig>,
    /// How pictures are perturbed where PAPO compares with a perturbed one.
    pub perturbation: PerturbationConfig,
    /// Importance weights for a sampler whose log-probs differ from the trainer's.
    pub rollout_correction: CorrectionConfig,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            loss_type: SelectedLoss::default(),
            loss_avg_mode: LossAvgMode::Token,
            max_response_length: 2048,
            clip_ratio_low: 0.2,
            clip_ratio_high: 0.3,
            clip_ratio_dual: 3.0,
            entropy_coef: 0.0,
            entropy_type: EntropyType::Sampled,
            kl: KlConfig::default(),
            papo: None,
            perturbation: PerturbationConfig::default(),
            rollout_correction: CorrectionConfig::default(),
        }
    }
}

impl LossConfig {
    /// Streams beyond the old log-probs that this loss needs.
    pub fn streams(&self) -> Vec<Stream> {
        let mut streams = Vec::new();
        if self.kl.in_loss() {
            streams.push(Stream::RefLogProbs);
        }
        if let Some(papo) = self.papo.as_ref().filter(|papo| papo.needs_masked()) {
            streams.push(self.perturbation.stream(Published::PAPO, papo.mask_probability));
        }
        streams
    }

    /// Whether the training pass must also compute the entropy of the full vocabulary, with its gradient. A coefficient
    /// of 0 only measures it.
    pub fn needs_full_entropy(&self) -> bool {
        self.entropy_type == EntropyType::Full
    }

    /// Checks every number against the range in which it means something, and keys against each other.
    ///
    /// # Errors
    /// [`LossError::Config`] names the key, its value and the fix.
    pub fn validate(&self) -> Result<(), LossError> {
        if !(0.0..1.0).contains(&self.clip_ratio_low) {
            return refuse(
                "clip_ratio_low",
                self.clip_ratio_low,
                "must lie in [0, 1): the ratio may fall to 1 - clip_ratio_low",
            );
        }
        positive("clip_ratio_high", self.clip_ratio_high, true)?;
        let floor = 1.0 + self.clip_ratio_high;
        if !(self.clip_ratio_dual.is_finite() && self.clip_ratio_dual >= floor) {
            return refuse(
                "clip_ratio_dual",
                self.clip_ratio_dual,
                "must be at least 1 + clip_ratio_high: it bounds what the first clip leaves unbounded",
            );
        }
        if self.max_response_length == 0 {
            return refuse("max_response_length", 0, "must be at least 1: it divides the loss");
        }
        if !self.entropy_coef.is_finite() {
            return refuse("entropy_coef", self.entropy_coef, "must be a finite number; 0 leaves the entropy out");
        }
        self.kl.validate()?;
        self.rollout_correction.validate()
    }
}

impl Config {
    /// KL, entropy and policy loss, with PAPO's terms where one of them is on. A loss that does not exist, which
    /// [`resolve`](crate::config::resolve) refuses, is PPO's.
    pub fn to_loss_config(&self) -> LossConfig {
        let (algorithm, actor) = (&self.algorithm, &self.actor);
        LossConfig {
            loss_type: algorithm.methods.loss(&actor.loss_type, algorithm).unwrap_or_default(),
            loss_avg_mode: actor.loss_avg_mode,
            max_response_length: self.data.max_response_length,
            clip_ratio_low: actor.clip_ratio_low,
            clip_ratio_high: actor.clip_ratio_high,
            clip_ratio_dual: actor.clip_ratio_dual,
            entropy_coef: actor.entropy_coef,
            entropy_type: actor.entropy_type,
            kl: KlConfig {
                disable_kl: algorithm.disable_kl,
                use_kl_loss: algorithm.use_kl_loss,
                kl_penalty: algorithm.kl_penalty,
                kl_coef: algorithm.kl_coef,
                kl_type: algorithm.kl_type,
                kl_target: algorithm.kl_target,
                kl_horizon: algorithm.kl_horizon,
            },
            papo: algorithm.papo.is_on().then(|| algorithm.papo.clone()),
            perturbation: algorithm.perturbation.clone(),
            rollout_correction: CorrectionConfig { mode: actor.rollout_correction, cap: actor.rollout_correction_cap },
        }
    }
}

/// What can be wrong with a loss.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LossError {
    /// A setting is outside its range or contradicts another.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// Name of the setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why it is refused and what to write instead.
        reason: &'static str,
    },
    /// A stream that a setting needs was not computed.
    #[error("loss: {by} needs {stream}, which this batch does not carry; declare the stream or switch {by} off")]
    Missing {
        /// The missing stream.
        stream: &'static str,
        /// The setting that needs it.
        by: &'static str,
    },
    /// A denominator is zero or not a number.
    #[error("loss: the optimizer step holds {found} {what}; averaging needs at least one")]
    Denominators {
        /// `tokens` or `responses`.
        what: &'static str,
        /// The number given.
        found: f64,
    },
}

pub(crate) fn refuse<T>(key: &'static str, value: impl ToString, reason: &'static str) -> Result<T, LossError> {
    Err(LossError::Config { key, value: value.to_string(), reason })
}

/// Refuses what is not finite, negative, or (unless `or_zero`) zero.
pub(crate) fn positive(key: &'static str, value: f64, or_zero: bool) -> Result<(), LossError> {
    match (value.is_finite() && value >= 0.0, or_zero) {
        (true, true) => Ok(()),
        (true, false) if value > 0.0 => Ok(()),
        (_, true) => refuse(key, value, "must be 0 or more"),
        (_, false) => refuse(key, value, "must be above 0"),
    }
}
