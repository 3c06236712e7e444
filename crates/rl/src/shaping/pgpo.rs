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
    stream, usable,
};
use crate::config::checks::Checks;
use crate::config::section::{AnySettings, Settings, section};
use crate::config::{Algorithm, Config};
use crate::perturb::PerturbationConfig;
use crate::registry::{self, Declared};
use burn::tensor::backend::Backend;

/// The `eps` of the formulas.
const EPS: f64 = 1e-8;

section! {
    /// PGPO (arXiv 2604.01840, its equations 4 to 8), read when `algorithm.shaping = "pgpo"`: token weights that keep
    /// their sum, from the divergence over the full vocabulary between the predictions with the image and without it.
    /// It needs one more forward pass over each response, with the image taken out of the prompt.
    pub struct PgpoConfig {
        /// Dependency on the image, normalised to 0..=1, below which a token is suppressed and from which on it is
        /// amplified.
        tau: f64 = 0.4 => ..=1.0,
        /// Strength of the amplification.
        beta: f64 = 2.0 => ..=1e6,
    }
}

impl Settings for PgpoConfig {
    fn validate(&self, checks: &mut Checks) {
        checks.need(
            (0.0..1.0).contains(&self.tau),
            &["tau"],
            format!("must lie in [0, 1), is {}; no normalised dependency lies above 1", self.tau),
        );
        checks.positive(self.beta, "beta");
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

impl Declared for Pgpo {
    const NAME: &'static str = "pgpo";

    fn settings() -> Option<Box<dyn AnySettings>> {
        registry::settings::<PgpoConfig>()
    }

    fn new(algorithm: &Algorithm) -> Self {
        Self(algorithm.section::<PgpoConfig>().clone())
    }

    fn check(config: &Config, checks: &mut Checks) {
        let algorithm = &config.algorithm;
        checks.need(
            algorithm.papo.kl_prcp_coef > 0.0 || algorithm.perturbation == PerturbationConfig::default(),
            &["algorithm.perturbation", "algorithm.shaping"],
            "PGPO takes the picture out of the prompt and perturbs nothing; leave these keys out",
        );
    }
}

impl<B: Backend> AdvantageShaping<B> for Pgpo {
    fn streams(&self) -> Vec<Stream> {
        vec![Stream::TokenVisualDependency]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        usable("pgpo", &self.0)?;
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
