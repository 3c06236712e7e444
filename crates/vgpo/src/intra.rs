//! Intra-trajectory weights (equations 7 and 8): tokens against the mean of their own response.

use crate::{VgpoConfig, layout::Layout};
use burn::tensor::{Tensor, backend::Backend};

/// Equation 7: `w^_t = (w_t - min w) / (max w - min w + eps)` over a response's tokens. `[R, T] -> [R, T]`, 0 in the
/// padding.
pub(crate) fn normalised<B: Backend>(w: Tensor<B, 2>, layout: &Layout<B>, config: &VgpoConfig) -> Tensor<B, 2> {
    layout.row_min_max(w, config.eps) // (7)
}

/// Equation 8: `psi_t = w^_t - mean w^`. `[R, T] -> [R, T]`, 0 in the padding; a response of one token, or of equal
/// weights, gets 0.
pub(crate) fn psi<B: Backend>(normalised: Tensor<B, 2>, layout: &Layout<B>) -> Tensor<B, 2> {
    let mean = layout.row_mean(normalised.clone()); // [R, 1]
    (normalised - mean).mask_fill(layout.padding.clone(), 0.0) // (8)
}
