//! The pass@k form of GRPO: only the best response of a group is reinforced, by how far it is ahead of the second:
//! `(r_max - r_second) / (std + eps)`; all others get 0.

use super::{AdvantageError, AdvantageEstimator, AdvantageInputs, Advantages, EPS, within_groups};
use crate::config::Algorithm;
use crate::registry::Declared;

/// The pass@k form: only the best response of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpoPassk;

impl Declared for GrpoPassk {
    const NAME: &'static str = "grpo_passk";

    fn new(_: &Algorithm) -> Self {
        Self
    }
}

impl AdvantageEstimator for GrpoPassk {
    fn needs_group(&self) -> bool {
        true
    }

    fn advantages(&self, inputs: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        Ok(within_groups(inputs, |group| advantages(group, EPS)))
    }
}

/// Advantages of one group. Two best responses, or a group of one, give zeros.
pub(crate) fn advantages(rewards: &[f64], eps: f64) -> Vec<f64> {
    let mut advantages = vec![0.0; rewards.len()];
    let mut order: Vec<usize> = (0..rewards.len()).collect();
    order.sort_by(|&a, &b| rewards[b].total_cmp(&rewards[a]));
    if let [best, second, ..] = order[..] {
        advantages[best] = (rewards[best] - rewards[second]) / (super::std(rewards) + eps);
    }
    advantages
}
