//! ReMax (arXiv 2310.10505): `A_i = r_i - r(greedy response)`.

use super::{AdvantageError, AdvantageEstimator, AdvantageInputs, Advantages, total_rewards};
use crate::config::Algorithm;
use crate::registry::Declared;

/// Baseline of the greedy response.
#[derive(Debug, Clone, PartialEq)]
pub struct Remax;

impl Declared for Remax {
    const NAME: &'static str = "remax";

    fn new(_: &Algorithm) -> Self {
        Self
    }
}

impl AdvantageEstimator for Remax {
    fn needs_greedy(&self) -> bool {
        true
    }

    fn needs_group(&self) -> bool {
        false
    }

    fn advantages(&self, inputs: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        let greedy = inputs.greedy_rewards.ok_or(AdvantageError::NoGreedyRewards)?;
        Ok(Advantages::PerResponse(advantages(&total_rewards(inputs), greedy)))
    }
}

/// Advantages of a batch; `greedy` holds the reward of the greedy response to each response's prompt.
pub(crate) fn advantages(rewards: &[f64], greedy: &[f32]) -> Vec<f32> {
    std::iter::zip(rewards, greedy).map(|(reward, &greedy)| (reward - f64::from(greedy)) as f32).collect()
}
