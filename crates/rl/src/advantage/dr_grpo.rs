//! Dr. GRPO (arXiv 2503.20783): `A_i = r_i - mean`. Without the division, prompts that are nearly solved or nearly
//! hopeless do not weigh more than the others.

use super::{AdvantageError, AdvantageEstimator, AdvantageInputs, Advantages, within_groups};
use crate::config::Algorithm;
use crate::registry::Declared;

/// Group-relative, not divided.
#[derive(Debug, Clone, PartialEq)]
pub struct DrGrpo;

impl Declared for DrGrpo {
    const NAME: &'static str = "dr_grpo";

    fn new(_: &Algorithm) -> Self {
        Self
    }
}

impl AdvantageEstimator for DrGrpo {
    fn needs_group(&self) -> bool {
        true
    }

    fn advantages(&self, inputs: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        Ok(within_groups(inputs, advantages))
    }
}

/// Advantages of one group. Equal rewards, or a group of one, give zeros.
pub(crate) fn advantages(rewards: &[f64]) -> Vec<f64> {
    let mean = super::mean(rewards);
    rewards.iter().map(|r| r - mean).collect()
}
