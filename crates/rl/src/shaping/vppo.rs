//! VPPO (arXiv 2510.09285): the dependency of each token on the picture decides which tokens learn (token gradient
//! filtering, TGF) and how much a response counts (trajectory advantage shaping, TAS).

use super::{
    AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream,
    dependency::{dependencies, is_finite, mean, min_max},
    stream, usable,
};
use crate::config::checks::Checks;
use crate::config::section::{AnySettings, Settings, section};
use crate::config::{Algorithm, Config};
use crate::perturb::{PerturbationConfig, Published};
use crate::registry::{self, Declared};
use burn::tensor::backend::Backend;

section! {
    /// VPPO (arXiv 2510.09285), read when `algorithm.shaping = "vppo"`. It needs one more forward pass over
    /// each response, with a perturbed image.
    pub struct VppoConfig {
        /// Probability that a 14x14 pixel block of the perturbed image is blacked out.
        mask_probability: f64 = 0.5 => ..=1.0,
        /// Learn only from the tokens that depend most on the image.
        token_filtering: bool = true,
        /// Share of the tokens of a response that is kept.
        keep_share: f64 = 0.4 => ..=1.0,
        /// Weigh responses by their mean visual dependency.
        trajectory_shaping: bool = true,
        /// Weight of the least dependent response; the greatest follows from a mean weight of 1.
        beta_min: f64 = 0.9 => ..=1.0,
    }
}

impl Settings for VppoConfig {
    fn validate(&self, checks: &mut Checks) {
        checks.positive_share(self.mask_probability, "mask_probability");
        checks.positive_share(self.keep_share, "keep_share");
        checks.share(self.beta_min, "beta_min");
    }
}

/// Token gradient filtering: true on the `ceil(share T)` tokens with the largest dependency, the earlier of two equals
/// first.
pub(crate) fn keep_tokens(dependency: &[f64], share: f64) -> Vec<bool> {
    // The slack keeps 0.4 * 5 at 2 tokens, which binary floats put a hair above.
    let k = ((share * dependency.len() as f64 - 1e-9).ceil() as usize).max(1);
    let mut order: Vec<usize> = (0..dependency.len()).collect();
    order.sort_by(|&a, &b| dependency[b].total_cmp(&dependency[a]));
    let mut kept = vec![false; dependency.len()];
    for &t in order.iter().take(k) {
        kept[t] = true;
    }
    kept
}

/// Trajectory advantage shaping: weights of the responses from their mean dependencies.
///
/// `s` is the min-max over the batch, `alpha = beta_min + s (beta_max - beta_min)` and `beta_max = beta_min + (1 -
/// beta_min) / (mean s + 1e-8)`, which makes the mean weight 1. Equal dependencies leave nothing to tell the responses
/// apart: all weights are 1.
pub(crate) fn trajectory_weights(dependency: &[f64], beta_min: f64) -> Vec<f64> {
    let s = min_max(dependency, 1e-8);
    let mean_s = mean(&s);
    if mean_s <= 0.0 {
        return vec![1.0; dependency.len()];
    }
    let beta_max = beta_min + (1.0 - beta_min) / (mean_s + 1e-8);
    s.iter().map(|s| beta_min + s * (beta_max - beta_min)).collect()
}

/// Both mechanisms, each with its switch.
#[derive(Debug, Clone, Default)]
pub struct Vppo {
    /// Its settings.
    pub settings: VppoConfig,
    /// How the image is perturbed.
    pub perturbation: PerturbationConfig,
}

impl Declared for Vppo {
    const NAME: &'static str = "vppo";

    fn settings() -> Option<Box<dyn AnySettings>> {
        registry::settings::<VppoConfig>()
    }

    fn new(algorithm: &Algorithm) -> Self {
        Self { settings: algorithm.section::<VppoConfig>().clone(), perturbation: algorithm.perturbation.clone() }
    }

    fn check(config: &Config, checks: &mut Checks) {
        let vppo = config.algorithm.section::<VppoConfig>();
        let neither = !vppo.token_filtering && !vppo.trajectory_shaping;
        checks.need(
            !neither,
            &["algorithm.vppo.token_filtering", "algorithm.vppo.trajectory_shaping"],
            "with both off VPPO changes nothing; write algorithm.shaping = \"none\"",
        );
        checks.need(
            neither
                || vppo.token_filtering && vppo.keep_share < 1.0
                || vppo.trajectory_shaping && vppo.beta_min < 1.0,
            &["algorithm.vppo.keep_share", "algorithm.vppo.beta_min"],
            "with these VPPO keeps every token and gives every response the weight 1; write algorithm.shaping = \"none\"",
        );
    }
}

impl<B: Backend> AdvantageShaping<B> for Vppo {
    fn streams(&self) -> Vec<Stream> {
        vec![Stream::OldLogProbs, self.perturbation.stream(Published::VPPO, self.settings.mask_probability)]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        usable("vppo", &self.settings)?;
        batch.check()?;
        let own = stream::need("old_log_probs", &batch.streams.old_log_probs, batch.lengths)?;
        let perturbed = stream::need("perturbed_log_probs", &batch.streams.perturbed_log_probs, batch.lengths)?;
        // Responses that can be judged: with an image to hide, at least one token, and numbers.
        let judged: Vec<usize> = (0..batch.lengths.len())
            .filter(|&i| batch.has_image[i] && batch.lengths[i] > 0 && is_finite(&[&own[i], &perturbed[i]]))
            .collect();
        let tokens: Vec<Vec<f64>> = judged.iter().map(|&i| dependencies(&own[i], &perturbed[i])).collect();
        let responses: Vec<f64> = tokens.iter().map(|s| mean(s)).collect();

        let mut advantages = batch.plain();
        let mut metrics = vec![("vppo/dependency_mean", mean(&responses))];
        if self.settings.trajectory_shaping {
            let weights = trajectory_weights(&responses, self.settings.beta_min);
            let largest = weights.iter().copied().fold(1.0, f64::max);
            metrics.push(("vppo/trajectory_weight_max", largest));
            for (&i, weight) in judged.iter().zip(weights) {
                for advantage in &mut advantages[i] {
                    *advantage = (f64::from(*advantage) * weight) as f32;
                }
            }
        }
        let policy_mask = self.settings.token_filtering.then(|| {
            let mut mask: Vec<Vec<bool>> = batch.lengths.iter().map(|&t| vec![true; t]).collect();
            for (&i, dependency) in judged.iter().zip(&tokens) {
                mask[i] = keep_tokens(dependency, self.settings.keep_share);
            }
            mask
        });
        if let Some(mask) = &policy_mask {
            let all: usize = batch.lengths.iter().sum();
            let kept = mask.iter().flatten().filter(|kept| **kept).count();
            metrics.push(("vppo/kept_tokens", kept as f64 / all.max(1) as f64));
        }
        Ok(Shaped { advantages, policy_mask, metrics })
    }
}
