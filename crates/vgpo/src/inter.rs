//! Inter-trajectory weights (equations 9 to 11): responses against the mean of their own group.

use crate::{
    InterScore, VgpoConfig,
    layout::{Groups, Layout, column, min_max},
};
use burn::tensor::{Tensor, backend::Backend};

/// Equation 9: `s_i = sum_t w_{i,t}`, or the mean. `[R, T] -> [R]`; the padding of `weights` must hold 0.
pub(crate) fn score<B: Backend>(weights: Tensor<B, 2>, layout: &Layout<B>, config: &VgpoConfig) -> Tensor<B, 1> {
    match config.inter_score {
        InterScore::Sum => weights.sum_dim(1), // (9)
        InterScore::Mean => layout.row_mean(weights),
    }
    .squeeze_dim(1)
}

/// The lengths of the responses in place of equation 9, `[R]` ([`Control::Length`](crate::Control::Length)).
pub(crate) fn lengths<B: Backend>(layout: &Layout<B>) -> Tensor<B, 1> {
    column(layout.lengths.iter().map(|&t| t as f32), &layout.device).squeeze_dim(1)
}

/// Equations 10 and 11: `s^_i = (s_i - min s) / (max s - min s + eps)` over the group, `phi_i = s^_i - mean s^`. `[R]
/// -> [R]`
///
/// A group of one, or of equal scores, gets 0; so does a response that takes no part (no image, no tokens).
pub(crate) fn phi<B: Backend>(score: Tensor<B, 1>, groups: &Groups<B>, config: &VgpoConfig) -> Tensor<B, 1> {
    let [number, rows] = groups.outside.dims();
    let spread = score.unsqueeze_dim::<2>(0).expand([number, rows]); // [G, R]
    let normalised = min_max(spread, groups.outside.clone(), config.eps); // (10)
    let mean = normalised.clone().sum_dim(1) / groups.counts.clone(); // [G, 1]
    (normalised - mean)
        .mask_fill(groups.outside.clone(), 0.0) // (11)
        .sum_dim(0) // [1, R]: each row is a member of at most one group
        .squeeze_dim(0)
}
