//! PEPO (arXiv 2603.22847): a perception prior (similarity of a token's hidden state to the picture) and the token's
//! entropy, joined by a smooth gate.
//!
//! ```text
//! v^, H^  = min-max over the response of the similarity v and of the entropy H
//! m_t     = v^_t + H^_t
//! g_t     = 1 + alpha tanh(m_t - mean m)
//! w_t     = T softmax_t(v_t g_t / temperature)
//! weight  = 1 + lambda (w_t - 1),  lambda = min(1, step / max_steps)
//! ```
//!
//! The weights fade in over the training steps of the stage: the first step, with 0 steps behind it, is the base
//! algorithm (GRPO with sequence averaging and a KL term of .001), and from then on the share of `w_t` grows evenly.
//!
//! As in the authors' released code, except for `v`: they average the cosine over all layers and all image tokens, here
//! it is the last layer's cosine to the image prototype, which is the visual focus stream (`v = 2 rho - 1`). The
//! weights of a response sum to its number of tokens, faded or not.

use super::{
    AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream,
    dependency::{is_finite, mean, min_max},
    stream, usable,
};
use crate::config::Algorithm;
use crate::config::checks::Checks;
use crate::config::section::{AnySettings, Settings, section};
use crate::registry::{self, Declared};
use burn::tensor::backend::Backend;

section! {
    /// PEPO (arXiv 2603.22847), read when `algorithm.shaping = "pepo"`: token weights from the similarity to the
    /// image and the entropy, which fade in over the training steps of the stage (weight 1 + step / max_steps (w -
    /// 1)). The paper's base is GRPO with `actor.loss_avg_mode = "seq"` and a KL term of 0.001.
    pub struct PepoConfig {
        /// Strength of the entropy gate.
        gate_alpha: f64 = 0.05 => ..=1.0,
        /// Temperature of the softmax over the tokens of a response; the released 3B runs use 1.8.
        gate_temperature: f64 = 1.0 => ..=1e6,
    }
}

impl Settings for PepoConfig {
    fn validate(&self, checks: &mut Checks) {
        checks.positive_share(self.gate_alpha, "gate_alpha");
        checks.positive(self.gate_temperature, "gate_temperature");
    }
}

/// Keeps the min-max of equal values defined.
const EPS: f64 = 1e-6;

/// Token weights of one response, positive, with mean 1.
///
/// - `focus`: `[T]` visual focus in `[0, 1]`; `entropy`: `[T]` entropy of the full vocabulary.
pub(crate) fn token_weights(focus: &[f32], entropy: &[f32], config: &PepoConfig) -> Vec<f64> {
    let similarity: Vec<f64> = focus.iter().map(|&rho| 2.0 * f64::from(rho) - 1.0).collect();
    let entropy: Vec<f64> = entropy.iter().map(|&h| f64::from(h)).collect();
    let mixed: Vec<f64> =
        std::iter::zip(min_max(&similarity, EPS), min_max(&entropy, EPS)).map(|(v, h)| v + h).collect();
    let centre = mean(&mixed);
    let logits: Vec<f64> = std::iter::zip(&similarity, &mixed)
        .map(|(v, m)| {
            let gate = 1.0 + config.gate_alpha * (m - centre).tanh();
            v * gate / config.gate_temperature
        })
        .collect();
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = logits.iter().map(|l| (l - largest).exp()).collect();
    let scale = mean(&exponentials);
    exponentials.iter().map(|e| e / scale).collect()
}

/// A weight at this share of the fade-in: 1 at 0, the weight itself at 1.
pub(crate) fn fade(weight: f64, lambda: f64) -> f64 {
    1.0 + lambda * (weight - 1.0)
}

/// Perception prior and entropy gate.
#[derive(Debug, Clone, Default)]
pub struct Pepo(pub PepoConfig);

impl Declared for Pepo {
    const NAME: &'static str = "pepo";

    fn settings() -> Option<Box<dyn AnySettings>> {
        registry::settings::<PepoConfig>()
    }

    fn new(algorithm: &Algorithm) -> Self {
        Self(algorithm.section::<PepoConfig>().clone())
    }
}

impl<B: Backend> AdvantageShaping<B> for Pepo {
    fn streams(&self) -> Vec<Stream> {
        vec![Stream::VisualFocus { prototype: ::vgpo::PrototypeMode::Mean }, Stream::Entropy]
    }

    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        usable("pepo", &self.0)?;
        batch.check()?;
        let focus = stream::visual_focus(batch)?;
        let entropy = stream::need("entropy", &batch.streams.entropy, batch.lengths)?;
        let mut advantages = batch.plain();
        let lambda = batch.training.share();
        let (mut smallest, mut largest) = (1.0_f64, 1.0_f64);
        for (i, row) in advantages.iter_mut().enumerate() {
            if !batch.has_image[i] || !is_finite(&[&focus[i], &entropy[i]]) {
                continue;
            }
            let weights = token_weights(&focus[i], &entropy[i], &self.0);
            for (advantage, weight) in row.iter_mut().zip(weights) {
                let weight = fade(weight, lambda);
                *advantage = (f64::from(*advantage) * weight) as f32;
                smallest = smallest.min(weight);
                largest = largest.max(weight);
            }
        }
        Ok(Shaped {
            advantages,
            policy_mask: None,
            metrics: vec![
                ("pepo/lambda", lambda),
                ("pepo/token_weight_min", smallest),
                ("pepo/token_weight_max", largest),
            ],
        })
    }
}
