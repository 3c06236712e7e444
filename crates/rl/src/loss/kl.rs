//! KL divergence to a reference policy, estimated from the sampled tokens: in the loss, or as a penalty in the reward.

use super::KlConfig;
use burn::tensor::{Tensor, backend::Backend};

/// Bounds of `l_ref - l` before the exponential of `low_var_kl`.
const LOG_BOUND: f64 = 20.0;
/// Bounds of `low_var_kl` itself.
const KL_BOUND: f64 = 10.0;

/// Which estimate of the divergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KlPenalty {
    /// k1: `l - l_ref`, unbiased, noisy, of either sign.
    Kl,
    /// `|l - l_ref|`.
    Abs,
    /// k2: `(l - l_ref)^2 / 2`.
    Mse,
    /// k3: `exp(k) - k - 1` with `k = l_ref - l`, never negative.
    #[default]
    LowVarKl,
}

/// Whether the coefficient moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KlType {
    /// It stays.
    #[default]
    Fixed,
    /// It follows the measured divergence towards a target (arXiv 1909.08593).
    Adaptive,
}

/// The divergence at each token, `[R, T]`.
pub(crate) fn divergence<B: Backend>(
    log_probs: Tensor<B, 2>,
    ref_log_probs: Tensor<B, 2>,
    penalty: KlPenalty,
) -> Tensor<B, 2> {
    match penalty {
        KlPenalty::Kl => log_probs - ref_log_probs,
        KlPenalty::Abs => (log_probs - ref_log_probs).abs(),
        KlPenalty::Mse => (log_probs - ref_log_probs).square().mul_scalar(0.5),
        KlPenalty::LowVarKl => k3(ref_log_probs - log_probs),
    }
}

/// k3 of the log-ratio `k`: `clamp(exp(k) - k - 1, -10, 10)` with `k` clamped to `[-20, 20]`. `[R, T]`
pub(super) fn k3<B: Backend>(k: Tensor<B, 2>) -> Tensor<B, 2> {
    let k = k.clamp(-LOG_BOUND, LOG_BOUND);
    (k.clone().exp() - k).sub_scalar(1.0).clamp(-KL_BOUND, KL_BOUND)
}

/// The divergence of one token, on the host.
pub(crate) fn divergence_of(log_prob: f64, ref_log_prob: f64, penalty: KlPenalty) -> f64 {
    let d = log_prob - ref_log_prob;
    match penalty {
        KlPenalty::Kl => d,
        KlPenalty::Abs => d.abs(),
        KlPenalty::Mse => 0.5 * d * d,
        KlPenalty::LowVarKl => {
            let k = (-d).clamp(-LOG_BOUND, LOG_BOUND);
            (k.exp() - k - 1.0).clamp(-KL_BOUND, KL_BOUND)
        }
    }
}

/// KL in the reward: the reward of each token, `-coef KL_t`, ragged `[T_i]`, and the mean divergence of a response
/// (mean over its tokens, then over responses), which moves an adaptive coefficient.
pub(crate) fn reward_penalty(
    log_probs: &[Vec<f32>],
    ref_log_probs: &[Vec<f32>],
    penalty: KlPenalty,
    coef: f64,
) -> (Vec<Vec<f32>>, f64) {
    let mut means = 0.0;
    let rewards = std::iter::zip(log_probs, ref_log_probs)
        .map(|(own, reference)| {
            let kl: Vec<f64> = std::iter::zip(own, reference)
                .map(|(&l, &r)| divergence_of(f64::from(l), f64::from(r), penalty))
                .collect();
            means += kl.iter().sum::<f64>() / kl.len().max(1) as f64;
            kl.iter().map(|kl| (-coef * kl) as f32).collect()
        })
        .collect();
    (rewards, means / log_probs.len().max(1) as f64)
}

/// The coefficient of the KL, fixed or adaptive. Its state is one number, so a checkpoint can hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct KlController {
    /// The coefficient in force.
    pub coef: f64,
    kind: KlType,
    target: f64,
    horizon: f64,
}

impl KlController {
    /// Starts at `kl_coef`.
    pub fn new(config: &KlConfig) -> Self {
        Self { coef: config.kl_coef, kind: config.kl_type, target: config.kl_target, horizon: config.kl_horizon }
    }

    /// After a batch of `responses` with mean divergence `kl`: `coef *= 1 + clip(kl / target - 1, -.2, .2) responses /
    /// horizon`. A fixed coefficient stays; so does any when `kl` is not a number.
    pub fn update(&mut self, kl: f64, responses: usize) {
        if self.kind == KlType::Adaptive && kl.is_finite() {
            let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
            self.coef *= 1.0 + error * responses as f64 / self.horizon;
        }
    }
}
