//! The clipped surrogate of PPO (arXiv 1707.06347) with DAPO's asymmetric clip (arXiv 2503.14476) and the dual clip
//! (arXiv 1912.09729): `L = max(-A r, -A clip(r, 1 - eps_low, 1 + eps_high))`, and where `A < 0`, `L = min(L, -A c)`.

use super::{LossConfig, PolicyInputs, PolicyLoss, ratio};
use crate::config::Algorithm;
use crate::registry::Declared;
use burn::tensor::{Bool, Tensor, backend::Backend};

/// The clipped surrogate of each token's own ratio.
#[derive(Debug, Clone, PartialEq)]
pub struct Ppo;

impl Declared for Ppo {
    const NAME: &'static str = "ppo";

    fn new(_: &Algorithm) -> Self {
        Self
    }
}

impl<B: Backend> PolicyLoss<B> for Ppo {
    fn terms(&self, inputs: PolicyInputs<B>) -> Terms<B> {
        terms(ratio::ratio(inputs.log_ratio), inputs.advantages, inputs.config)
    }
}

/// Tokens on which a clip acted, `[R, T]`; they have no gradient (in CISPO, a bounded weight).
pub struct Clips<B: Backend> {
    /// The ratio fell below `1 - eps_low`.
    pub low: Tensor<B, 2, Bool>,
    /// The ratio rose above `1 + eps_high`.
    pub high: Tensor<B, 2, Bool>,
    /// The dual clip; absent where the loss has none.
    pub dual: Option<Tensor<B, 2, Bool>>,
}

/// A policy term before averaging.
pub struct Terms<B: Backend> {
    /// `[R, T]` loss of each token.
    pub loss: Tensor<B, 2>,
    /// Where it was clipped; absent for a loss without clips.
    pub clips: Option<Clips<B>>,
}

/// The surrogate of each token. `ratio` and `advantages` are `[R, T]`; the ratio carries the gradient.
///
/// Written as `-A bound(r)`, which is the same as the max and min above: where `A > 0` only the upper clip can bind,
/// where `A < 0` the lower one and `c`. A bounded ratio is a constant, so the token has no gradient, with no tie
/// between two equal branches.
pub(crate) fn terms<B: Backend>(ratio: Tensor<B, 2>, advantages: Tensor<B, 2>, config: &LossConfig) -> Terms<B> {
    let gains = advantages.clone().greater_elem(0.0);
    let losses = advantages.clone().lower_elem(0.0);
    let (low, high, dual) = (1.0 - config.clip_ratio_low, 1.0 + config.clip_ratio_high, config.clip_ratio_dual);
    let clips = Clips {
        low: ratio.clone().lower_elem(low).bool_and(losses.clone()),
        high: ratio.clone().greater_elem(high).bool_and(gains),
        dual: Some(ratio.clone().greater_elem(dual).bool_and(losses)),
    };
    let bounded = ratio.mask_fill(clips.low.clone(), low).mask_fill(clips.high.clone(), high);
    let bounded = match &clips.dual {
        Some(over) => bounded.mask_fill(over.clone(), dual),
        None => bounded,
    };
    Terms { loss: (bounded * advantages).neg(), clips: Some(clips) }
}
