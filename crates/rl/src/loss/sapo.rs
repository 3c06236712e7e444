//! SAPO (arXiv 2511.20347): a soft gate in place of the clip, `L = -A (4 / tau) sigmoid(tau (r - 1))`, with one temperature for
//! positive and one for negative advantages. At `r = 1` its slope is that of the plain surrogate.

use super::{LossConfig, ppo::Terms};
use burn::tensor::{Tensor, activation::sigmoid, backend::Backend};

/// The loss of each token, all `[R, T]`; the ratio carries the gradient.
pub fn terms<B: Backend>(
    ratio: Tensor<B, 2>,
    advantages: Tensor<B, 2>,
    config: &LossConfig,
) -> Terms<B> {
    let gains = advantages.clone().greater_elem(0.0);
    let tau = advantages
        .full_like(config.tau_negative)
        .mask_fill(gains, config.tau_positive);
    let gate = sigmoid(ratio.sub_scalar(1.0) * tau.clone()) / tau.div_scalar(4.0);
    Terms {
        loss: (gate * advantages).neg(),
        clips: None,
    }
}
