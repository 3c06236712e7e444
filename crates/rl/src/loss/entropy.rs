//! Entropy of the policy at each token.

use burn::tensor::{Tensor, backend::Backend};

/// Minus the log-prob of the sampled token, `[R, T]`: its mean over samples is the entropy. The released VPPO and PAPO
/// code uses it.
///
/// Its gradient is not the entropy's: it moves the probability of what was sampled. The full-vocabulary entropy comes
/// from the engine as a stream of its own.
pub(crate) fn sampled<B: Backend>(log_probs: Tensor<B, 2>) -> Tensor<B, 2> {
    log_probs.neg()
}
