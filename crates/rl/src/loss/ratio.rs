//! Probability ratios between the policy being trained and the one that the update started from.

use burn::tensor::{Tensor, backend::Backend};

/// Beyond this the exponential is of no use to a gradient.
const LOG_RATIO_BOUND: f64 = 20.0;

/// `d = clamp(l - l_old, -20, 20)`, `[R, T]`.
pub(crate) fn log_ratio<B: Backend>(log_probs: Tensor<B, 2>, old_log_probs: Tensor<B, 2>) -> Tensor<B, 2> {
    (log_probs - old_log_probs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
}

/// `r = exp(d)`, `[R, T]`.
pub(crate) fn ratio<B: Backend>(log_ratio: Tensor<B, 2>) -> Tensor<B, 2> {
    log_ratio.exp()
}

/// Mean over each response's tokens, `[R, T] -> [R, 1]`. `x` must hold 0 in the padding.
pub(crate) fn row_mean<B: Backend>(x: Tensor<B, 2>, mask: &Tensor<B, 2>) -> Tensor<B, 2> {
    x.sum_dim(1) / mask.clone().sum_dim(1).clamp_min(1.0)
}
