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

use super::{
    AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream, dependency::is_finite, refuse, stream, within,
};
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

/// Settings of the entropy term; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EntropyConfig {
    /// `alpha`: weight of the entropy in nats, above 0.
    pub alpha: f64,
    /// `kappa`: the term is at most this part of the advantage's size, above 1.
    pub kappa: f64,
}

impl Default for EntropyConfig {
    fn default() -> Self {
        Self { alpha: 0.4, kappa: 2.0 }
    }
}

impl EntropyConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ShapingError::Config`].
    pub fn validate(&self) -> Result<(), ShapingError> {
        within(
            "entropy.alpha",
            self.alpha,
            0.0,
            f64::MAX,
            "must be above 0: without the term write shaping = \"none\"",
        )?;
        match self.kappa > 1.0 {
            true => Ok(()),
            false => refuse("entropy.kappa", self.kappa, "must be above 1, so that no advantage changes its sign"),
        }
    }
}

/// What is added to an advantage at a token of this entropy.
pub fn term(advantage: f64, entropy: f64, config: &EntropyConfig) -> f64 {
    (config.alpha * entropy.max(0.0)).min(advantage.abs() / config.kappa)
}

/// The entropy term on every token, with and without a picture.
#[derive(Debug, Clone, Default)]
pub struct EntropyAdvantage(pub EntropyConfig);

impl<B: Backend> AdvantageShaping<B> for EntropyAdvantage {
    fn name(&self) -> &'static str {
        "entropy"
    }

    fn streams(&self) -> Vec<Stream> {
        vec![Stream::Entropy]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        self.0.validate()?;
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
