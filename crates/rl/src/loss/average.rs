//! Averages over an optimizer step that do not depend on how it is cut into micro-batches.

use super::{LossAvgMode, LossConfig, LossError, ratio::row_mean};
use burn::tensor::{Tensor, backend::Backend};

/// What the whole optimizer step holds: all micro-batches of all devices, without responses that are left out of the
/// loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Denominators {
    /// Response tokens.
    pub tokens: f64,
    /// Responses.
    pub responses: f64,
}

impl Denominators {
    /// Of the responses with these lengths.
    pub fn of(lengths: &[usize]) -> Self {
        Self { tokens: lengths.iter().sum::<usize>() as f64, responses: lengths.len() as f64 }
    }

    /// Whether there is nothing to average: no response, or only empty ones.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0.0
    }

    pub(super) fn check(&self, mode: LossAvgMode) -> Result<(), LossError> {
        let (what, found) = match mode {
            LossAvgMode::Token => ("tokens", self.tokens),
            LossAvgMode::Seq | LossAvgMode::Constant => ("responses", self.responses),
        };
        match found.is_finite() && found > 0.0 {
            true => Ok(()),
            false => Err(LossError::Denominators { what, found }),
        }
    }
}

/// `[R, T] -> [1]`: this micro-batch's share of the average over the optimizer step.
///
/// `token`: sum over tokens / all tokens. `seq`: sum over responses of the mean over tokens / all responses.
/// `constant`: sum over tokens / (all responses x the longest that a response may be). Rows are never split between
/// micro-batches, so the shares add up to the same number whatever the split.
pub(crate) fn average<B: Backend>(
    x: Tensor<B, 2>,
    mask: &Tensor<B, 2>,
    config: &LossConfig,
    denominators: Denominators,
) -> Tensor<B, 1> {
    let x = x * mask.clone();
    match config.loss_avg_mode {
        LossAvgMode::Token => x.sum().div_scalar(denominators.tokens),
        LossAvgMode::Seq => row_mean(x, mask).sum().div_scalar(denominators.responses),
        LossAvgMode::Constant => x.sum().div_scalar(denominators.responses * config.max_response_length as f64),
    }
}
