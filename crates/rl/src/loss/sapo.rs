//! SAPO (arXiv 2511.20347): a soft gate in place of the clip, `L = -A (4 / tau) sigmoid(tau (r - 1))`, with one
//! temperature for positive and one for negative advantages. At `r = 1` its slope is that of the plain surrogate.
//! Published with averaging by response (`seq`): [`LossConfig::published`].

use super::{LossConfig, ppo::Terms};
use burn::tensor::{Tensor, backend::Backend};

/// The loss of each token, all `[R, T]`; the ratio carries the gradient.
pub fn terms<B: Backend>(ratio: Tensor<B, 2>, advantages: Tensor<B, 2>, config: &LossConfig) -> Terms<B> {
    let gains = advantages.clone().greater_elem(0.0);
    let tau = advantages.full_like(config.tau_negative).mask_fill(gains, config.tau_positive);
    // The argument is above -tau, so the plain form cannot overflow; Burn's own sigmoid would round to f32.
    let x = ratio.sub_scalar(1.0) * tau.clone();
    let sigmoid = x.neg().exp().add_scalar(1.0).recip();
    let gate = sigmoid / tau.div_scalar(4.0);
    Terms { loss: (gate * advantages).neg(), clips: None }
}
