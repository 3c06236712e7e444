//! RLOO (arXiv 2402.14740): `A_i = r_i - mean of the other n - 1`.

use super::{AdvantageError, AdvantageEstimator, AdvantageInputs, Advantages, within_groups};
use crate::config::Algorithm;
use crate::registry::Declared;

/// Leave-one-out baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Rloo;

impl Declared for Rloo {
    const NAME: &'static str = "rloo";

    fn new(_: &Algorithm) -> Self {
        Self
    }
}

impl AdvantageEstimator for Rloo {
    fn needs_group(&self) -> bool {
        true
    }

    fn advantages(&self, inputs: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        Ok(within_groups(inputs, advantages))
    }
}

/// Advantages of one group. A group of one has no others and gives 0.
pub(crate) fn advantages(rewards: &[f64]) -> Vec<f64> {
    let n = rewards.len() as f64;
    if rewards.len() < 2 {
        return vec![0.0; rewards.len()];
    }
    // r_i - (n mean - r_i) / (n - 1) = (r_i - mean) n / (n - 1)
    let mean = super::mean(rewards);
    rewards.iter().map(|r| (r - mean) * n / (n - 1.0)).collect()
}
