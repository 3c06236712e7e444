//! GSPO (arXiv 2507.18071): the ratio of a response is `exp(mean_t d_t)`, clipped as PPO clips a token's.

use super::{LossConfig, ppo, ratio};
use burn::tensor::{Tensor, backend::Backend};

/// One ratio a response, the same on each of its tokens. `[R, T]`; `log_ratio` must hold 0 in the padding.
pub fn sequence_terms<B: Backend>(
    log_ratio: Tensor<B, 2>,
    mask: &Tensor<B, 2>,
    advantages: Tensor<B, 2>,
    config: &LossConfig,
) -> ppo::Terms<B> {
    let dims = log_ratio.dims();
    let sequence = ratio::row_mean(log_ratio, mask).expand(dims);
    ppo::terms(ratio::ratio(sequence), advantages, config)
}

/// The token form: `exp(sg(mean d) + l - sg(l))`, whose value is the sequence's ratio and whose gradient is the token's own.
pub fn token_terms<B: Backend>(
    log_ratio: Tensor<B, 2>,
    log_probs: Tensor<B, 2>,
    mask: &Tensor<B, 2>,
    advantages: Tensor<B, 2>,
    config: &LossConfig,
) -> ppo::Terms<B> {
    let sequence = ratio::row_mean(log_ratio, mask).detach();
    let own = log_probs.clone() - log_probs.detach();
    ppo::terms(ratio::ratio(own + sequence), advantages, config)
}
