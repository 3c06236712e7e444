//! SRPO (arXiv 2605.07274): a response says first what it sees, then what follows from it. Tokens of the perception
//! span are weighed by their dependency on the picture, tokens of the reasoning by their dependency on that span.
//!
//! Known from its abstract only; **the formula is ours**. What the abstract fixes: two roles, original against
//! corrupted image for perception, with against without the generated perception for reasoning, one baseline a
//! trajectory, positive weights that keep the sign of the advantage. Our reading, in two replaceable pieces:
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
    stream, usable,
};
use crate::config::checks::Checks;
use crate::config::section::{AnySettings, Settings, section};
use crate::config::{Algorithm, Config};
use crate::perturb::{PerturbationConfig, Published};
use crate::registry::{self, Declared};
use burn::tensor::backend::Backend;
use std::ops::Range;

section! {
    /// SRPO (arXiv 2605.07274, our reading of its abstract), read when `algorithm.shaping = "srpo"`: perception tokens
    /// are weighted by how they depend on the picture, reasoning tokens by how they depend on the description before
    /// them. It needs two more forward passes over each response.
    pub struct SrpoConfig {
        /// Strength of the weights.
        lambda: f64 = 1.0 => ..=1e6,
        /// The largest weight; the smallest is its inverse.
        bound: f64 = 2.0 => ..=1e6,
        /// How a token's dependency is read from its log-probability with and without what it should rest on: "k3", a
        /// divergence, or "log_ratio", the signed difference, which is high only where that makes the token likelier
        /// ("consistency"). Both are readings of the abstract.
        dependency: DependencyKind = DependencyKind::K3,
        /// Probability that a 14x14 pixel block of the perturbed image is blacked out.
        mask_probability: f64 = 0.5 => ..=1.0,
    }
}

impl Settings for SrpoConfig {
    fn validate(&self, checks: &mut Checks) {
        checks.positive(self.lambda, "lambda");
        checks.need(
            self.bound > 1.0,
            &["bound"],
            format!("must be above 1, is {}; the smallest weight is its inverse", self.bound),
        );
        checks.positive_share(self.mask_probability, "mask_probability");
    }
}

/// Score of each token of a response in `[0, 1]`, from its dependency on what its role rests on.
///
/// - `on_image`: `[T]` dependency on the picture, read within `span`.
/// - `on_perception`: `[T]` dependency on the span, read after it.
///
/// Tokens before the span (the opening tag) have no role and get the mean score of the others.
pub(crate) fn role_scores(on_image: &[f64], on_perception: &[f64], span: &Range<usize>) -> Vec<f64> {
    let perception = min_max(&on_image[span.clone()], 1e-8);
    let reasoning = min_max(&on_perception[span.end..], 1e-8);
    let neutral = mean(&[perception.as_slice(), reasoning.as_slice()].concat());
    let mut scores = vec![neutral; span.start];
    scores.extend(perception);
    scores.extend(reasoning);
    scores
}

/// Positive weights around the trajectory's baseline.
pub(crate) fn token_weights(scores: &[f64], config: &SrpoConfig) -> Vec<f64> {
    let baseline = mean(scores);
    scores
        .iter()
        .map(|score| (config.lambda * (score - baseline)).exp().clamp(1.0 / config.bound, config.bound))
        .collect()
}

/// A weight for each role. A response without a perception span, or with one that is empty or reaches outside, keeps
/// its plain advantage.
#[derive(Debug, Clone, Default)]
pub struct Srpo {
    /// Its settings.
    pub settings: SrpoConfig,
    /// How the image is perturbed.
    pub perturbation: PerturbationConfig,
}

impl Declared for Srpo {
    const NAME: &'static str = "srpo";

    fn settings() -> Option<Box<dyn AnySettings>> {
        registry::settings::<SrpoConfig>()
    }

    fn new(algorithm: &Algorithm) -> Self {
        Self { settings: algorithm.section::<SrpoConfig>().clone(), perturbation: algorithm.perturbation.clone() }
    }

    fn check(config: &Config, checks: &mut Checks) {
        let prompt = config.data.format_prompt.as_str();
        checks.need(
            config.reward.is_own() || prompt == "srpo" || config.data.asked_form().is_none(),
            &["data.format_prompt", "algorithm.shaping"],
            format!(
                "\"{prompt}\" does not ask for the <perception> span that SRPO weighs; write format_prompt = \"srpo\""
            ),
        );
    }
}

impl<B: Backend> AdvantageShaping<B> for Srpo {
    fn streams(&self) -> Vec<Stream> {
        vec![
            Stream::OldLogProbs,
            self.perturbation.stream(Published::VPPO, self.settings.mask_probability),
            Stream::PerceptionSpans,
            Stream::UnperceivedLogProbs,
        ]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        usable("srpo", &self.settings)?;
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
            let on_image = self.settings.dependency.of(&own[i], &perturbed[i]);
            let on_perception = self.settings.dependency.of(&own[i], &unperceived[i]);
            let scores = role_scores(&on_image, &on_perception, span);
            for (advantage, weight) in row.iter_mut().zip(token_weights(&scores, &self.settings)) {
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
