//! VPPO (arXiv 2510.09285): the dependency of each token on the picture decides which tokens learn (token gradient filtering, TGF)
//! and how much a response counts (trajectory advantage shaping, TAS).

use super::{
    AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream,
    dependency::{dependencies, is_finite, mean, min_max},
    refuse, stream, within,
};
use crate::perturb::{PerturbationConfig, Published};
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

/// Settings of VPPO; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VppoConfig {
    /// Let only the most dependent tokens of a response learn.
    pub token_filtering: bool,
    /// Share of a response's tokens that learn, in (0, 1].
    pub keep_share: f64,
    /// Weigh responses by their mean dependency.
    pub trajectory_shaping: bool,
    /// Weight of the least dependent response of the batch, in [0, 1]; the mean weight is 1.
    pub beta_min: f64,
    /// Probability that a 14x14 block of the image is blacked out, in (0, 1].
    pub mask_probability: f64,
    /// How the image is perturbed.
    pub perturbation: PerturbationConfig,
}

impl Default for VppoConfig {
    fn default() -> Self {
        Self {
            token_filtering: true,
            keep_share: 0.4,
            trajectory_shaping: true,
            beta_min: 0.9,
            mask_probability: 0.5,
            perturbation: PerturbationConfig::default(),
        }
    }
}

impl VppoConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ShapingError::Config`].
    pub fn validate(&self) -> Result<(), ShapingError> {
        within(
            "vppo.keep_share",
            self.keep_share,
            0.0,
            1.0,
            "must lie in (0, 1]: it is the share of tokens that learn",
        )?;
        within(
            "vppo.mask_probability",
            self.mask_probability,
            0.0,
            1.0,
            "must lie in (0, 1]: with nothing hidden no token depends on the picture",
        )?;
        if !(0.0..=1.0).contains(&self.beta_min) {
            return refuse(
                "vppo.beta_min",
                self.beta_min,
                "must lie in [0, 1]: it is the smallest weight where the mean weight is 1",
            );
        }
        if !self.token_filtering && !self.trajectory_shaping {
            return refuse(
                "vppo.token_filtering",
                false,
                "leaves nothing of VPPO when trajectory_shaping is false too; write shaping = \"none\"",
            );
        }
        Ok(())
    }
}

/// Token gradient filtering: true on the `ceil(share T)` tokens with the largest dependency, the earlier of two equals first.
pub fn keep_tokens(dependency: &[f64], share: f64) -> Vec<bool> {
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
/// `s` is the min-max over the batch, `alpha = beta_min + s (beta_max - beta_min)` and
/// `beta_max = beta_min + (1 - beta_min) / (mean s + 1e-8)`, which makes the mean weight 1. Equal dependencies leave nothing to tell
/// the responses apart: all weights are 1.
pub fn trajectory_weights(dependency: &[f64], beta_min: f64) -> Vec<f64> {
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
pub struct Vppo(pub VppoConfig);

impl<B: Backend> AdvantageShaping<B> for Vppo {
    fn name(&self) -> &'static str {
        "vppo"
    }

    fn streams(&self) -> Vec<Stream> {
        vec![Stream::OldLogProbs, self.0.perturbation.stream(Published::VPPO, self.0.mask_probability)]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        self.0.validate()?;
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
        if self.0.trajectory_shaping {
            let weights = trajectory_weights(&responses, self.0.beta_min);
            let largest = weights.iter().copied().fold(1.0, f64::max);
            metrics.push(("vppo/trajectory_weight_max", largest));
            for (&i, weight) in judged.iter().zip(weights) {
                for advantage in &mut advantages[i] {
                    *advantage = (f64::from(*advantage) * weight) as f32;
                }
            }
        }
        let policy_mask = self.0.token_filtering.then(|| {
            let mut mask: Vec<Vec<bool>> = batch.lengths.iter().map(|&t| vec![true; t]).collect();
            for (&i, dependency) in judged.iter().zip(&tokens) {
                mask[i] = keep_tokens(dependency, self.0.keep_share);
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
