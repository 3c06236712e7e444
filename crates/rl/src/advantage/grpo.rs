//! GRPO (DeepSeekMath, arXiv 2402.03300): `A_i = (r_i - mean) / (std + eps)` with the unbiased standard deviation of
//! the group.

use super::{AdvantageError, AdvantageEstimator, AdvantageInputs, Advantages, EPS, within_groups};
use crate::config::Algorithm;
use crate::registry::Declared;

/// Group-relative, divided by the standard deviation of the group.
#[derive(Debug, Clone, PartialEq)]
pub struct Grpo;

impl Declared for Grpo {
    const NAME: &'static str = "grpo";

    fn new(_: &Algorithm) -> Self {
        Self
    }
}

impl AdvantageEstimator for Grpo {
    fn needs_group(&self) -> bool {
        true
    }

    fn advantages(&self, inputs: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        Ok(within_groups(inputs, |group| advantages(group, EPS)))
    }
}

/// Advantages of one group. Equal rewards, or a group of one, give zeros.
pub(crate) fn advantages(rewards: &[f64], eps: f64) -> Vec<f64> {
    let (mean, std) = (super::mean(rewards), super::std(rewards));
    rewards.iter().map(|r| (r - mean) / (std + eps)).collect()
}
