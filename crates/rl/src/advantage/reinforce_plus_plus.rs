//! REINFORCE++ (arXiv 2501.03262): the discounted return of each token, whitened over all tokens of the batch. No
//! groups.

use super::{AdvantageError, AdvantageEstimator, AdvantageInputs, Advantages};
use crate::config::Algorithm;
use crate::config::checks::Checks;
use crate::config::section::{AnySettings, Settings, section};
use crate::registry::{self, Declared};

section! {
    /// REINFORCE++ (arXiv 2501.03262), read when `algorithm.adv_estimator = "reinforce_plus_plus"`.
    pub struct ReinforcePlusPlusConfig {
        /// Discount of the return, per token.
        discount: f64 = 1.0 => ..=1.0,
    }
}

impl Settings for ReinforcePlusPlusConfig {
    fn validate(&self, checks: &mut Checks) {
        checks.positive_share(self.discount, "discount");
    }
}

/// Discounted token returns, whitened over the batch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReinforcePlusPlus(pub ReinforcePlusPlusConfig);

impl Declared for ReinforcePlusPlus {
    const NAME: &'static str = "reinforce_plus_plus";

    fn settings() -> Option<Box<dyn AnySettings>> {
        registry::settings::<ReinforcePlusPlusConfig>()
    }

    fn new(algorithm: &Algorithm) -> Self {
        Self(algorithm.section::<ReinforcePlusPlusConfig>().clone())
    }
}

impl AdvantageEstimator for ReinforcePlusPlus {
    fn needs_group(&self) -> bool {
        false
    }

    fn advantages(&self, inputs: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
        Ok(Advantages::PerToken(advantages(inputs, self.0.discount)))
    }
}

/// Added to the variance before the square root.
const WHITEN_EPS: f64 = 1e-8;

/// Token advantages, ragged `[T_i]`. The response's reward arrives at its last token; token rewards at theirs.
///
/// Returns that are all equal give zeros.
pub(crate) fn advantages(inputs: &AdvantageInputs, discount: f64) -> Vec<Vec<f32>> {
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
