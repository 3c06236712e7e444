//! SAPO (arXiv 2511.20347): a soft gate in place of the clip, `L = -A (4 / tau) sigmoid(tau (r - 1))`, with one
//! temperature for positive and one for negative advantages. At `r = 1` its slope is that of the plain surrogate.
//! Published with averaging by response (`seq`).

use super::{LossAvgMode, PolicyInputs, PolicyLoss, ppo::Terms, ratio};
use crate::config::checks::Checks;
use crate::config::field::Choice as _;
use crate::config::section::{AnySettings, Settings, section};
use crate::config::{Algorithm, Config};
use crate::registry::{self, Declared};
use burn::tensor::{Tensor, backend::Backend};

section! {
    /// SAPO (arXiv 2511.20347), read when `actor.loss_type = "sapo"`.
    pub struct SapoConfig {
        /// Temperature of the gate for positive advantages.
        tau_positive: f64 = 1.0 => ..=1e6,
        /// Temperature of the gate for negative advantages.
        tau_negative: f64 = 1.05 => ..=1e6,
    }
}

impl Settings for SapoConfig {
    fn validate(&self, checks: &mut Checks) {
        checks.positive(self.tau_positive, "tau_positive");
        checks.positive(self.tau_negative, "tau_negative");
    }
}

/// A soft gate in place of the clip.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sapo(pub SapoConfig);

impl Declared for Sapo {
    const NAME: &'static str = "sapo";

    fn settings() -> Option<Box<dyn AnySettings>> {
        registry::settings::<SapoConfig>()
    }

    fn new(algorithm: &Algorithm) -> Self {
        Self(algorithm.section::<SapoConfig>().clone())
    }

    fn warn(config: &Config, checks: &mut Checks) {
        let mode = config.actor.loss_avg_mode;
        checks.need(
            mode == LossAvgMode::Seq,
            &["actor.loss_avg_mode", "actor.loss_type"],
            format!("is \"{}\"; SAPO was published with averaging by response (\"seq\")", mode.as_str()),
        );
    }
}

impl<B: Backend> PolicyLoss<B> for Sapo {
    fn terms(&self, inputs: PolicyInputs<B>) -> Terms<B> {
        terms(ratio::ratio(inputs.log_ratio), inputs.advantages, &self.0)
    }
}

/// The loss of each token, all `[R, T]`; the ratio carries the gradient.
pub(crate) fn terms<B: Backend>(ratio: Tensor<B, 2>, advantages: Tensor<B, 2>, config: &SapoConfig) -> Terms<B> {
    let gains = advantages.clone().greater_elem(0.0);
    let tau = advantages.full_like(config.tau_negative).mask_fill(gains, config.tau_positive);
    // The argument is above -tau, so the plain form cannot overflow; Burn's own sigmoid would round to f32.
    let x = ratio.sub_scalar(1.0) * tau.clone();
    let sigmoid = x.neg().exp().add_scalar(1.0).recip();
    let gate = sigmoid / tau.div_scalar(4.0);
    Terms { loss: (gate * advantages).neg(), clips: None }
}
