//! REINFORCE++ (arXiv 2501.03262): the discounted return of each token, whitened over all tokens of the batch. No groups.

use super::AdvantageInputs;

/// Added to the variance before the square root.
const WHITEN_EPS: f64 = 1e-8;

/// Token advantages, ragged `[T_i]`. The response's reward arrives at its last token; token rewards at theirs.
///
/// Returns that are all equal give zeros.
pub fn advantages(inputs: &AdvantageInputs, discount: f64) -> Vec<Vec<f32>> {
    let returns: Vec<Vec<f64>> = (0..inputs.rewards.len())
        .map(|i| {
            let mut returns = vec![0.0; inputs.lengths[i]];
            let mut running = f64::from(inputs.rewards[i]);
            for t in (0..inputs.lengths[i]).rev() {
                let token = inputs.token_rewards.map_or(0.0, |r| f64::from(r[i][t]));
                running += token;
                returns[t] = running;
                running *= discount;
            }
            returns
        })
        .collect();
    let all: Vec<f64> = returns.iter().flatten().copied().collect();
    let (mean, std) = (super::mean(&all), super::std(&all));
    let scale = (std * std + WHITEN_EPS).sqrt();
    returns.iter().map(|r| r.iter().map(|g| ((g - mean) / scale) as f32).collect()).collect()
}
