//! Rollout correction: when the sampler's log-probs differ from the trainer's, each token (or response) is weighed by
//! the ratio between the two, truncated or masked at a cap (truncated importance sampling, as TRL and ms-swift offer).

use super::{
    LossError,
    config::{positive, refuse},
};
use burn::tensor::{Tensor, backend::Backend};

/// What is done with the ratio `exp(l_old - l_rollout)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CorrectionMode {
    /// Nothing.
    #[default]
    None,
    /// Weigh each token by its ratio, at most the cap.
    TokenTruncate,
    /// Weigh each token by its ratio; drop it above the cap.
    TokenMask,
    /// Weigh each response by the product of its ratios, at most the cap.
    SequenceTruncate,
    /// Weigh each response by the product of its ratios; drop it above the cap.
    SequenceMask,
}

impl CorrectionMode {
    /// Whether tokens or responses above the cap are dropped.
    pub(crate) fn drops(self) -> bool {
        matches!(self, Self::TokenMask | Self::SequenceMask)
    }
}

/// Why a cap of 1 or less is refused where what exceeds it is dropped.
pub(crate) const TOO_LOW: &str =
    "must be above 1: ratios are near 1, and a mask that drops those drops nearly every token";

/// Settings of the correction.
#[derive(Debug, Clone, PartialEq)]
pub struct CorrectionConfig {
    /// What is done.
    pub mode: CorrectionMode,
    /// The largest weight, above 0; above 1 where what exceeds it is dropped.
    pub cap: f64,
}

impl Default for CorrectionConfig {
    fn default() -> Self {
        Self { mode: CorrectionMode::None, cap: 2.0 }
    }
}

impl CorrectionConfig {
    /// Checks the range of the cap.
    ///
    /// # Errors
    /// [`LossError::Config`].
    pub fn validate(&self) -> Result<(), LossError> {
        positive("rollout_correction.cap", self.cap, false)?;
        match self.mode.drops() && self.cap <= 1.0 {
            true => refuse("rollout_correction.cap", self.cap, TOO_LOW),
            false => Ok(()),
        }
    }
}

/// The weights, `[R, T]`; 1 everywhere for [`CorrectionMode::None`].
///
/// - `gap`: `[R, T]` `l_old - l_rollout` without a gradient, 0 in the padding.
pub(crate) fn weights<B: Backend>(gap: Tensor<B, 2>, config: &CorrectionConfig) -> Tensor<B, 2> {
    let dims = gap.dims();
    let gap = match config.mode {
        CorrectionMode::None => return gap.ones_like(),
        CorrectionMode::TokenTruncate | CorrectionMode::TokenMask => gap,
        CorrectionMode::SequenceTruncate | CorrectionMode::SequenceMask => gap.sum_dim(1).expand(dims),
    };
    let ratio = gap.clamp(-20.0, 20.0).exp();
    match config.mode {
        CorrectionMode::TokenMask | CorrectionMode::SequenceMask => {
            let over = ratio.clone().greater_elem(config.cap);
            ratio.mask_fill(over, 0.0)
        }
        _ => ratio.clamp_max(config.cap),
    }
}
