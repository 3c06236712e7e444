//! Dr. GRPO (arXiv 2503.20783): `A_i = r_i - mean`. Without the division, prompts that are nearly solved or nearly hopeless do
//! not weigh more than the others.

/// Advantages of one group. Equal rewards, or a group of one, give zeros.
pub fn advantages(rewards: &[f64]) -> Vec<f64> {
    let mean = super::mean(rewards);
    rewards.iter().map(|r| r - mean).collect()
}
