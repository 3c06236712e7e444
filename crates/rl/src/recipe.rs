//! The settings of an algorithm, built once per stage: the one place that asks the configuration for them.

use ::vgpo::PrototypeMode;
use burn::tensor::backend::Backend;
use kernels::Kernels;
use reward::{Reward, RewardError};

use crate::advantage::AdvantageEstimator;
use crate::config::{Config, OldLogProbs};
use crate::error::TrainError;
use crate::loss::LossConfig;
use crate::shaping::{AdvantageShaping, Stream};
use crate::streams::{ScoringPasses, Wanted};

/// What turns graded responses into a loss.
pub struct Recipe<B: Backend> {
    /// The estimator of advantages.
    pub advantage: Box<dyn AdvantageEstimator>,
    /// The value of `algorithm.shaping`.
    pub shaping_name: String,
    /// The shaping of advantages.
    pub shaping: Box<dyn AdvantageShaping<B>>,
    /// The loss; its KL coefficient is the one in force, which may adapt from step to step.
    pub loss: LossConfig,
}

impl<B: Kernels> Recipe<B> {
    /// Forward passes that log-probs and streams take, at most: what the sampler has measured is not computed again,
    /// and embeddings of pictures are taken to be kept.
    pub fn scoring_passes(&self, config: &Config) -> ScoringPasses {
        Wanted::of(self).passes(config)
    }
}

impl<B: Backend> Recipe<B> {
    /// As a configuration says.
    ///
    /// # Errors
    /// A name that no algorithm has: only where the configuration was made without its reader.
    pub fn new(config: &Config) -> Result<Self, TrainError> {
        Ok(Self {
            advantage: config.algorithm.build_estimator()?,
            shaping_name: config.algorithm.shaping.clone(),
            shaping: config.algorithm.build_shaping::<B>()?,
            loss: config.to_loss_config(),
        })
    }

    /// The prototype of visual focus, where the shaping declares that stream.
    pub fn focus(&self) -> Option<PrototypeMode> {
        self.shaping.streams().iter().find_map(|stream| match stream {
            Stream::VisualFocus { prototype } => Some(*prototype),
            _ => None,
        })
    }

    /// What compares with a perturbed picture, or with none, and so needs pictures; none where nothing does.
    pub(crate) fn picture_reader(&self) -> Option<String> {
        let compares = |streams: &[Stream]| streams.iter().any(Stream::compares_pictures);
        if compares(&self.shaping.streams()) {
            return Some(format!("algorithm.shaping = \"{}\"", self.shaping_name));
        }
        compares(&self.loss.streams()).then(|| "the loss".to_string())
    }

    /// Whether anything after the first rollout asks for image embeddings of this policy, of whose tower something
    /// learns if so.
    pub fn reads_images(&self, config: &Config, trains_vision: bool) -> bool {
        !trains_vision
            || config.model.freeze_vision_tower
            || config.actor.old_log_probs == OldLogProbs::Recompute
            || config.algorithm.needs_greedy()
            || self.shaping.streams().iter().any(|stream| !matches!(stream, Stream::VisualFocus { .. }))
    }

    /// Whether a KL term compares with the policy that the stage began with.
    pub fn wants_reference(&self) -> bool {
        self.loss.kl.in_loss() || self.loss.kl.in_reward()
    }
}

/// What grades responses, as a configuration says.
///
/// # Errors
/// Settings that do not fit each other, a reward command that is not there.
pub fn reward(config: &Config) -> Result<Reward, RewardError> {
    Reward::new(&config.to_reward_config())
}
