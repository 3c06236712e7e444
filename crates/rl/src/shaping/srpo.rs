//! SRPO (arXiv 2605.07274): a response says first what it sees, then what follows from it. Tokens of the perception span are weighed
//! by their dependency on the picture, tokens of the reasoning by their dependency on that span.
//!
//! Known from its abstract only; **the formula is ours**. What the abstract fixes: two roles, original against corrupted image for
//! perception, with against without the generated perception for reasoning, one baseline a trajectory, positive weights that keep
//! the sign of the advantage. Our reading, in two replaceable pieces:
//!
//! 1. [`role_scores`]: the dependency of each token on what its role should rest on, min-maxed within its role so
//!    that neither role drowns the other. The dependency is k3 of the two log-probs, or their signed difference
//!    ([`DependencyKind`]): the abstract calls perception tokens "dependent" on the picture and reasoning tokens
//!    "consistent" with the perception, and gives a formula for neither. k3 also weighs a token up that the picture,
//!    or the description, speaks against; the log-ratio only one that it speaks for;
//! 2. [`token_weights`]: `exp(lambda (score_t - b))` with the trajectory's mean score `b` as the baseline, clamped to
//!    `[1/bound, bound]`.

use super::{
    AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream,
    dependency::{DependencyKind, is_finite, mean, min_max},
    stream, within,
};
use crate::perturb::{PerturbationConfig, Published};
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Settings of SRPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SrpoConfig {
    /// Strength of the weights, above 0.
    pub lambda: f64,
    /// Largest weight, above 1; the smallest is its inverse.
    pub bound: f64,
    /// How the dependency of a token is read from its two log-probs, for both roles.
    pub dependency: DependencyKind,
    /// Probability that a 14x14 block of the image is blacked out, in (0, 1].
    pub mask_probability: f64,
    /// How the image is perturbed.
    pub perturbation: PerturbationConfig,
}

impl Default for SrpoConfig {
    fn default() -> Self {
        Self {
            lambda: 1.0,
            bound: 2.0,
            dependency: DependencyKind::K3,
            mask_probability: 0.5,
            perturbation: PerturbationConfig::default(),
        }
    }
}

impl SrpoConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ShapingError::Config`].
    pub fn validate(&self) -> Result<(), ShapingError> {
        within("srpo.lambda", self.lambda, 0.0, f64::MAX, "must be above 0: without weights write shaping = \"none\"")?;
        within("srpo.bound", self.bound, 1.0, f64::MAX, "must be above 1: it is the largest weight")?;
        within(
            "srpo.mask_probability",
            self.mask_probability,
            0.0,
            1.0,
            "must lie in (0, 1]: with nothing hidden no token depends on the picture",
        )
    }
}

/// Score of each token of a response in `[0, 1]`, from its dependency on what its role rests on.
///
/// - `on_image`: `[T]` dependency on the picture, read within `span`.
/// - `on_perception`: `[T]` dependency on the span, read after it.
///
/// Tokens before the span (the opening tag) have no role and get the mean score of the others.
pub fn role_scores(on_image: &[f64], on_perception: &[f64], span: &Range<usize>) -> Vec<f64> {
    let perception = min_max(&on_image[span.clone()], 1e-8);
    let reasoning = min_max(&on_perception[span.end..], 1e-8);
    let neutral = mean(&[perception.as_slice(), reasoning.as_slice()].concat());
    let mut scores = vec![neutral; span.start];
    scores.extend(perception);
    scores.extend(reasoning);
    scores
}

/// Positive weights around the trajectory's baseline.
pub fn token_weights(scores: &[f64], config: &SrpoConfig) -> Vec<f64> {
    let baseline = mean(scores);
    scores
        .iter()
        .map(|score| (config.lambda * (score - baseline)).exp().clamp(1.0 / config.bound, config.bound))
        .collect()
}

/// A weight for each role. A response without a perception span, or with one that is empty or reaches outside, keeps its plain
/// advantage.
#[derive(Debug, Clone, Default)]
pub struct Srpo(pub SrpoConfig);

impl<B: Backend> AdvantageShaping<B> for Srpo {
    fn name(&self) -> &'static str {
        "srpo"
    }

    fn streams(&self) -> Vec<Stream> {
        vec![
            Stream::OldLogProbs,
            self.0.perturbation.stream(Published::VPPO, self.0.mask_probability),
            Stream::PerceptionSpans,
            Stream::UnperceivedLogProbs,
        ]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        self.0.validate()?;
        batch.check()?;
        let (streams, lengths) = (batch.streams, batch.lengths);
        let own = stream::need("old_log_probs", &streams.old_log_probs, lengths)?;
        let perturbed = stream::need("perturbed_log_probs", &streams.perturbed_log_probs, lengths)?;
        let unperceived = stream::need("unperceived_log_probs", &streams.unperceived_log_probs, lengths)?;
        let spans = streams.perception_spans.as_ref().ok_or(ShapingError::Missing { stream: "perception_spans" })?;
        if spans.len() != lengths.len() {
            return Err(ShapingError::Responses {
                what: "perception_spans",
                found: spans.len(),
                expected: lengths.len(),
            });
        }
        let mut advantages = batch.plain();
        let mut shaped = 0;
        for (i, row) in advantages.iter_mut().enumerate() {
            let span = spans[i].as_ref().filter(|span| !span.is_empty() && span.end <= lengths[i]);
            let Some(span) = span.filter(|_| batch.has_image[i]) else {
                continue;
            };
            if !is_finite(&[&own[i], &perturbed[i], &unperceived[i][span.end..]]) {
                continue;
            }
            let on_image = self.0.dependency.of(&own[i], &perturbed[i]);
            let on_perception = self.0.dependency.of(&own[i], &unperceived[i]);
            let scores = role_scores(&on_image, &on_perception, span);
            for (advantage, weight) in row.iter_mut().zip(token_weights(&scores, &self.0)) {
                *advantage = (f64::from(*advantage) * weight) as f32;
            }
            shaped += 1;
        }
        Ok(Shaped {
            advantages,
            policy_mask: None,
            metrics: vec![("srpo/shaped_responses", f64::from(shaped) / lengths.len().max(1) as f64)],
        })
    }
}
