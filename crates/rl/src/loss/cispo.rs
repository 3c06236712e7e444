//! CISPO (MiniMax-M1, arXiv 2506.13585): `L = -A l sg(clip(r, 1 - eps_low, 1 + eps_high))`. Every token keeps a
//! gradient; only its importance weight is bounded.

use super::{
    LossConfig, PolicyInputs, PolicyLoss,
    ppo::{Clips, Terms},
    ratio,
};
use crate::config::Algorithm;
use crate::registry::Declared;
use burn::tensor::{Tensor, backend::Backend};

/// Clipped importance weights on the log-prob.
#[derive(Debug, Clone, PartialEq)]
pub struct Cispo;

impl Declared for Cispo {
    const NAME: &'static str = "cispo";

    fn new(_: &Algorithm) -> Self {
        Self
    }
}

impl<B: Backend> PolicyLoss<B> for Cispo {
    fn terms(&self, inputs: PolicyInputs<B>) -> Terms<B> {
        terms(ratio::ratio(inputs.log_ratio), inputs.log_probs, inputs.advantages, inputs.config)
    }
}

/// The loss of each token, all `[R, T]`; the gradient flows through `log_probs` only.
pub(crate) fn terms<B: Backend>(
    ratio: Tensor<B, 2>,
    log_probs: Tensor<B, 2>,
    advantages: Tensor<B, 2>,
    config: &LossConfig,
) -> Terms<B> {
    let ratio = ratio.detach();
    let (low, high) = (1.0 - config.clip_ratio_low, 1.0 + config.clip_ratio_high);
    let clips = Clips { low: ratio.clone().lower_elem(low), high: ratio.clone().greater_elem(high), dual: None };
    Terms { loss: (log_probs * advantages * ratio.clamp(low, high)).neg(), clips: Some(clips) }
}
