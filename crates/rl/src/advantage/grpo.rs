//! GRPO (DeepSeekMath, arXiv 2402.03300): `A_i = (r_i - mean) / (std + eps)` with the unbiased standard deviation of the group.

/// Advantages of one group. Equal rewards, or a group of one, give zeros.
pub fn advantages(rewards: &[f64], eps: f64) -> Vec<f64> {
    let (mean, std) = (super::mean(rewards), super::std(rewards));
    rewards.iter().map(|r| (r - mean) / (std + eps)).collect()
}
