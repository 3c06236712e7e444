//! ReMax (arXiv 2310.10505): `A_i = r_i - r(greedy response)`.

/// Advantages of a batch; `greedy` holds the reward of the greedy response to each response's prompt.
pub fn advantages(rewards: &[f64], greedy: &[f32]) -> Vec<f32> {
    std::iter::zip(rewards, greedy).map(|(reward, &greedy)| (reward - f64::from(greedy)) as f32).collect()
}
