//! PGPO (arXiv 2604.01840, its equations 4 to 8): tokens that depend on the picture are amplified, the others
//! suppressed, and the weights of a response keep their sum, so what the others lose is what these gain.
//!
//! ```text
//! S_t  = KL(pi(.|s_t, I) || pi(.|s_t))                      full vocabulary; without I the prompt is its text
//! S~_t = log(1 + S_t)
//! I_t  = (S~_t - min S~) / (max S~ - min S~ + eps)          within the response
//! w_t  = I_t / (tau + eps)                                  where I_t < tau
//!        1 + beta (I_t - tau) / (1 - tau + eps)             elsewhere
//! w^_t = w_t T / sum w,   A_t = A w^_t
//! ```
//!
//! `tau` .4, `beta` 2; the base is DAPO. The paper's ablation gives the suppression the largest share. Where all
//! tokens of a response depend alike (one token does) all `w_t` are 0 and nothing is left to tell them apart: they
//! keep the plain advantage.

use super::{
    AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream,
    dependency::{is_finite, mean, min_max},
    refuse, stream, within,
};
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

/// The `eps` of the formulas.
const EPS: f64 = 1e-8;

/// Settings of PGPO; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PgpoConfig {
    /// Normalised dependency below which a token is suppressed and from which on it is amplified, in [0, 1).
    pub tau: f64,
    /// Strength of the amplification, above 0.
    pub beta: f64,
}

impl Default for PgpoConfig {
    fn default() -> Self {
        Self { tau: 0.4, beta: 2.0 }
    }
}

impl PgpoConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ShapingError::Config`].
    pub fn validate(&self) -> Result<(), ShapingError> {
        if !(0.0..1.0).contains(&self.tau) {
            return refuse(
                "pgpo.tau",
                self.tau,
                "must lie in [0, 1): it is compared with a dependency normalised to [0, 1]",
            );
        }
        within("pgpo.beta", self.beta, 0.0, f64::MAX, "must be above 0: without amplification write shaping = \"none\"")
    }
}

/// Token weights of one response; they sum to its number of tokens.
///
/// `dependency`: `[T]` divergences `S_t` in nats. Equal ones give ones.
pub fn token_weights(dependency: &[f64], config: &PgpoConfig) -> Vec<f64> {
    let (tau, beta) = (config.tau, config.beta);
    let logs: Vec<f64> = dependency.iter().map(|s| s.max(0.0).ln_1p()).collect();
    let raw: Vec<f64> = min_max(&logs, EPS)
        .into_iter()
        .map(|i| match i < tau {
            true => i / (tau + EPS),
            false => 1.0 + beta * (i - tau) / (1.0 - tau + EPS),
        })
        .collect();
    let scale = mean(&raw);
    match scale > 0.0 {
        true => raw.iter().map(|w| w / scale).collect(),
        false => vec![1.0; raw.len()],
    }
}

/// Sum-preserving token weights.
#[derive(Debug, Clone, Default)]
pub struct Pgpo(pub PgpoConfig);

impl<B: Backend> AdvantageShaping<B> for Pgpo {
    fn name(&self) -> &'static str {
        "pgpo"
    }

    fn streams(&self) -> Vec<Stream> {
        vec![Stream::TokenVisualDependency]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        self.0.validate()?;
        batch.check()?;
        let rows = stream::need("token_visual_dependency", &batch.streams.token_visual_dependency, batch.lengths)?;
        let mut advantages = batch.plain();
        let (mut largest, mut total, mut tokens, mut suppressed, mut plain) = (1.0_f64, 0.0, 0, 0, 0);
        for (i, row) in advantages.iter_mut().enumerate().filter(|(i, _)| batch.has_image[*i]) {
            if !is_finite(&[&rows[i]]) {
                plain += 1;
                continue;
            }
            let dependency: Vec<f64> = rows[i].iter().map(|&s| f64::from(s)).collect();
            total += dependency.iter().sum::<f64>();
            tokens += dependency.len();
            for (advantage, weight) in row.iter_mut().zip(token_weights(&dependency, &self.0)) {
                *advantage = (f64::from(*advantage) * weight) as f32;
                largest = largest.max(weight);
                suppressed += usize::from(weight < 1.0);
            }
        }
        let share = |sum: f64| sum / tokens.max(1) as f64;
        Ok(Shaped {
            advantages,
            policy_mask: None,
            metrics: vec![
                ("pgpo/dependency_mean", share(total)),
                ("pgpo/token_weight_max", largest),
                ("pgpo/weakened_tokens", share(suppressed as f64)),
                ("pgpo/non_finite_responses", f64::from(plain)),
            ],
        })
    }
}
