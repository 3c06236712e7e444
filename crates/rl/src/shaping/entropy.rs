//! Entropy-based advantage shaping (Cheng et al., arXiv 2506.14758), the "DAPO + entropy" of VGPO's Table 4:
//!
//! ```text
//! A_t + min(alpha H_t, |A_t| / kappa)
//! ```
//!
//! with `H_t` the entropy of the full vocabulary at token `t`, without a gradient. It is no entropy bonus: the
//! entropy itself is not optimised; uncertain tokens of a good response get more of the advantage, those of a bad one
//! less of the blame. With `kappa` above 1 no advantage changes its sign, and what has none (a group of equal
//! rewards) gets none.
//!
//! `H_t` is that of the policy before the update, as all streams are; the paper's comes from the policy in each
//! optimizer step, which is the same in the first one after a rollout.

use super::{AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream, dependency::is_finite, stream, usable};
use crate::config::Algorithm;
use crate::config::checks::Checks;
use crate::config::section::{AnySettings, Settings, section};
use crate::registry::{self, Declared};
use burn::tensor::backend::Backend;

section! {
    /// Entropy-based advantage (arXiv 2506.14758), read when `algorithm.shaping = "entropy"`: min(alpha H, |A| /
    /// kappa) is added to the advantage of each token, H being its entropy over the full vocabulary, without a
    /// gradient. Not an entropy bonus, which is `actor.entropy_coef`.
    pub struct EntropyConfig {
        /// Weight of the entropy.
        alpha: f64 = 0.4 => ..=1e6,
        /// The term is at most this part of the advantage's size; above 1, so that no advantage changes its sign.
        kappa: f64 = 2.0 => ..=1e6,
    }
}

impl Settings for EntropyConfig {
    fn validate(&self, checks: &mut Checks) {
        checks.positive(self.alpha, "alpha");
        checks.need(
            self.kappa > 1.0,
            &["kappa"],
            format!("must be above 1, is {}; otherwise the term could change the sign of an advantage", self.kappa),
        );
    }
}

/// What is added to an advantage at a token of this entropy.
pub(crate) fn term(advantage: f64, entropy: f64, config: &EntropyConfig) -> f64 {
    (config.alpha * entropy.max(0.0)).min(advantage.abs() / config.kappa)
}

/// The entropy term on every token, with and without a picture.
#[derive(Debug, Clone, Default)]
pub struct EntropyAdvantage(pub EntropyConfig);

impl Declared for EntropyAdvantage {
    const NAME: &'static str = "entropy";

    fn settings() -> Option<Box<dyn AnySettings>> {
        registry::settings::<EntropyConfig>()
    }

    fn new(algorithm: &Algorithm) -> Self {
        Self(algorithm.section::<EntropyConfig>().clone())
    }
}

impl<B: Backend> AdvantageShaping<B> for EntropyAdvantage {
    fn streams(&self) -> Vec<Stream> {
        vec![Stream::Entropy]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        usable("entropy", &self.0)?;
        batch.check()?;
        let rows = stream::need("entropy", &batch.streams.entropy, batch.lengths)?;
        let mut advantages = batch.plain();
        let (mut total, mut capped, mut tokens) = (0.0, 0, 0);
        for (row, entropy) in std::iter::zip(&mut advantages, rows).filter(|(_, entropy)| is_finite(&[entropy])) {
            for (advantage, &entropy) in row.iter_mut().zip(entropy) {
                let (plain, entropy) = (f64::from(*advantage), f64::from(entropy));
                let term = term(plain, entropy, &self.0);
                *advantage = (plain + term) as f32;
                total += term;
                capped += usize::from(term < self.0.alpha * entropy);
                tokens += 1;
            }
        }
        let share = |sum: f64| sum / f64::from(tokens.max(1));
        Ok(Shaped {
            advantages,
            policy_mask: None,
            metrics: vec![("entropy/term_mean", share(total)), ("entropy/capped_tokens", share(capped as f64))],
        })
    }
}
