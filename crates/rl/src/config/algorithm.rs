//! `[algorithm]`: advantages, their shaping, the KL term and the selection of prompts.

use burn::tensor::backend::Backend;

use super::field::choices;
use super::section::{Settings, section};
use crate::advantage::{AdvantageError, AdvantageEstimator};
use crate::loss::{KlPenalty, KlType, PapoConfig};
use crate::perturb::PerturbationConfig;
use crate::registry::Methods;
use crate::shaping::{AdvantageShaping, ShapingError};

choices!(KlPenalty { Kl = "kl", Abs = "abs", Mse = "mse", LowVarKl = "low_var_kl", });
choices!(KlType { Fixed = "fixed", Adaptive = "adaptive", });

section! {
    /// From rewards to advantages. What belongs to one algorithm stands in a section of its name below.
    pub struct Algorithm {
        /// A published algorithm whole: estimator, shaping, loss, averaging, clipping, KL, filtering and the settings
        /// of its published run (docs/algorithms.md), each of which any file or override changes. Empty: none.
        name: String = String::new(),
        /// How the rewards of a group become advantages.
        adv_estimator: String = String::from("grpo"),
        /// How an advantage is spread over the tokens of its response.
        shaping: String = String::from("none"),
        /// No reference policy: no KL term, and no second copy of the weights in memory.
        disable_kl: bool = true,
        /// Put the KL term into the loss; otherwise it is subtracted from the reward.
        use_kl_loss: bool = false,
        /// Estimator of the KL divergence.
        kl_penalty: KlPenalty = KlPenalty::LowVarKl,
        /// Weight of the KL term.
        kl_coef: f64 = 1e-2 => ..=1e6,
        /// Fixed or adaptive weight.
        kl_type: KlType = KlType::Fixed,
        /// Adaptive: the KL divergence to steer to.
        kl_target: f64 = 0.1 => ..=1e6,
        /// Adaptive: responses over which the weight adapts; more is slower.
        kl_horizon: f64 = 10_000.0 => ..=1e12,
        /// Keep only prompts whose group is neither all right nor all wrong (DAPO's dynamic sampling).
        online_filtering: bool = false,
        /// The part of the reward whose group mean is looked at: "overall", "accuracy", "format", "overlong", or a
        /// metric of the reward command.
        filter_key: String = String::from("accuracy"),
        /// Keep a group whose mean lies above this.
        filter_low: f64 = 0.01 => ..=1e9,
        /// Keep a group whose mean lies below this.
        filter_high: f64 = 0.99 => ..=1e9,
        /// Of those, drop groups whose responses all earned the same reward: compared with one another they have no
        /// advantage.
        filter_zero_variance: bool = false,
    }
    sections {
        /// PAPO's own keys.
        papo: PapoConfig,
        /// How pictures are perturbed.
        perturbation: PerturbationConfig,
    }
    open {
        /// The algorithms there are, each with its own keys.
        methods: Methods,
    }
}

impl Algorithm {
    /// The settings of one algorithm, by their type.
    ///
    /// # Panics
    /// When no registered algorithm has settings of that type, which is a mistake of the program.
    pub fn section<S: Settings>(&self) -> &S {
        self.methods.get().unwrap_or_else(|| panic!("no algorithm has settings of type {}", std::any::type_name::<S>()))
    }

    /// As [`section`](Self::section), to be changed.
    ///
    /// # Panics
    /// As there.
    #[cfg(test)]
    pub(crate) fn section_mut<S: Settings>(&mut self) -> &mut S {
        let name = std::any::type_name::<S>();
        self.methods.get_mut().unwrap_or_else(|| panic!("no algorithm has settings of type {name}"))
    }

    /// The estimator that `adv_estimator` names.
    ///
    /// # Errors
    /// [`AdvantageError::Config`] for a name that no estimator has; a resolved configuration has none such.
    pub fn build_estimator(&self) -> Result<Box<dyn AdvantageEstimator>, AdvantageError> {
        let name = self.adv_estimator.as_str();
        self.methods.estimator(name, self).ok_or_else(|| AdvantageError::Config {
            key: "adv_estimator",
            value: name.to_string(),
            reason: "no estimator has that name",
        })
    }

    /// The shaping that `shaping` names, on the backend `B`.
    ///
    /// # Errors
    /// [`ShapingError::Config`] for a name that no shaping for this backend has.
    pub fn build_shaping<B: Backend>(&self) -> Result<Box<dyn AdvantageShaping<B>>, ShapingError> {
        let name = self.shaping.as_str();
        self.methods.shaping::<B>(name, self).ok_or_else(|| ShapingError::Config {
            key: "shaping",
            value: name.to_string(),
            reason: "no shaping for the backend that trains has that name",
        })
    }

    /// Whether the estimator needs the reward of a greedy response to each prompt.
    pub fn needs_greedy(&self) -> bool {
        self.methods.estimator(&self.adv_estimator, self).is_some_and(|estimator| estimator.needs_greedy())
    }

    /// Whether the estimator compares the responses of a group, so that a group of one, or of equal rewards, teaches
    /// nothing.
    pub(crate) fn needs_group(&self) -> bool {
        self.methods.estimator(&self.adv_estimator, self).is_some_and(|estimator| estimator.needs_group())
    }
}
