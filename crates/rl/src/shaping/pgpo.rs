//! PGPO (arXiv 2604.01840): a threshold on the visual dependency of tokens decides which are amplified; the weights of a response
//! keep their sum, so what the others lose is what these gain.
//!
//! The paper is known here by its summary (threshold-gated, sum-preserving, `tau` .4, `beta` 2, dependency of the prediction on the
//! image). The formula is our reading: `S^` is the min-max of the dependency over the response,
//! `u_t = 1 + beta S^_t [S^_t >= tau]`, and the weight is `T u_t / sum u`.

use super::{
    AdvantageShaping, Draw, Shaped, ShapingBatch, ShapingError, Stream,
    dependency::{dependencies, is_finite, mean, min_max},
    refuse, stream, within,
};
use crate::perturb::PerturbationConfig;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

/// Settings of PGPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PgpoConfig {
    /// Normalised dependency from which a token is amplified, in [0, 1].
    pub tau: f64,
    /// Strength of the amplification, above 0.
    pub beta: f64,
    /// Probability that a 14x14 block of the image is blacked out, in (0, 1]; 1 hides the whole image.
    pub mask_probability: f64,
    /// How the image is perturbed.
    pub perturbation: PerturbationConfig,
}

impl Default for PgpoConfig {
    fn default() -> Self {
        Self { tau: 0.4, beta: 2.0, mask_probability: 1.0, perturbation: PerturbationConfig::default() }
    }
}

impl PgpoConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ShapingError::Config`].
    pub fn validate(&self) -> Result<(), ShapingError> {
        if !(0.0..=1.0).contains(&self.tau) {
            return refuse(
                "pgpo.tau",
                self.tau,
                "must lie in [0, 1]: it is compared with a dependency normalised to that range",
            );
        }
        within(
            "pgpo.beta",
            self.beta,
            0.0,
            f64::MAX,
            "must be above 0: without amplification write shaping = \"none\"",
        )?;
        within(
            "pgpo.mask_probability",
            self.mask_probability,
            0.0,
            1.0,
            "must lie in (0, 1]: with nothing hidden no token depends on the picture",
        )
    }
}

/// Token weights of one response; they sum to its number of tokens. Equal dependencies give ones.
pub fn token_weights(dependency: &[f64], config: &PgpoConfig) -> Vec<f64> {
    let raw: Vec<f64> = min_max(dependency, 1e-8)
        .into_iter()
        .map(|s| match s >= config.tau {
            true => 1.0 + config.beta * s,
            false => 1.0,
        })
        .collect();
    let scale = mean(&raw);
    raw.iter().map(|u| u / scale).collect()
}

/// Sum-preserving token weights.
#[derive(Debug, Clone, Default)]
pub struct Pgpo(pub PgpoConfig);

impl<B: Backend> AdvantageShaping<B> for Pgpo {
    fn name(&self) -> &'static str {
        "pgpo"
    }

    fn streams(&self) -> Vec<Stream> {
        vec![Stream::OldLogProbs, self.0.perturbation.stream(Draw::Response, self.0.mask_probability)]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        self.0.validate()?;
        batch.check()?;
        let own = stream::need("old_log_probs", &batch.streams.old_log_probs, batch.lengths)?;
        let perturbed = stream::need("perturbed_log_probs", &batch.streams.perturbed_log_probs, batch.lengths)?;
        let mut advantages = batch.plain();
        let (mut largest, mut total, mut tokens) = (1.0_f64, 0.0, 0);
        for (i, row) in advantages.iter_mut().enumerate() {
            if !batch.has_image[i] || !is_finite(&[&own[i], &perturbed[i]]) {
                continue;
            }
            let dependency = dependencies(&own[i], &perturbed[i]);
            total += dependency.iter().sum::<f64>();
            tokens += dependency.len();
            for (advantage, weight) in row.iter_mut().zip(token_weights(&dependency, &self.0)) {
                *advantage = (f64::from(*advantage) * weight) as f32;
                largest = largest.max(weight);
            }
        }
        Ok(Shaped {
            advantages,
            policy_mask: None,
            metrics: vec![("pgpo/dependency_mean", total / tokens.max(1) as f64), ("pgpo/token_weight_max", largest)],
        })
    }
}
