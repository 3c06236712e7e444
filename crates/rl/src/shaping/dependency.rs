//! Visual dependency of a token: how much its probability changes when the picture is hidden.

use crate::config::field::choices;

/// What is read from the log-prob of a sampled token with (`l`) and without (`l_masked`) what it may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DependencyKind {
    /// `token_dependency`: a divergence, 0 or more, which grows whether the token becomes likelier or less likely.
    #[default]
    K3,
    /// `log_ratio`: signed, so that a token counts as dependent only where it becomes likelier ("consistency").
    LogRatio,
}

choices!(DependencyKind { K3 = "k3", LogRatio = "log_ratio", });

impl DependencyKind {
    /// Dependency of each token of a response.
    pub fn of(self, log_probs: &[f32], perturbed_log_probs: &[f32]) -> Vec<f64> {
        let one = match self {
            Self::K3 => token_dependency,
            Self::LogRatio => log_ratio,
        };
        std::iter::zip(log_probs, perturbed_log_probs).map(|(&l, &masked)| one(l, masked)).collect()
    }
}

/// `clamp(l - l_masked, -20, 20)`: how much likelier the token is with what was hidden than without.
pub(crate) fn log_ratio(log_prob: f32, perturbed_log_prob: f32) -> f64 {
    (f64::from(log_prob) - f64::from(perturbed_log_prob)).clamp(-20.0, 20.0)
}

/// `S_t = clamp(exp(d) - d - 1, 0, 10)` with `d = clamp(l_masked - l, -20, 20)`: k3's estimate, from the sampled token
/// alone, of the divergence between the two predictions (the VPPO paper writes the divergence over the full vocabulary;
/// its code takes this).
pub(crate) fn token_dependency(log_prob: f32, perturbed_log_prob: f32) -> f64 {
    let d = (f64::from(perturbed_log_prob) - f64::from(log_prob)).clamp(-20.0, 20.0);
    (d.exp() - d - 1.0).clamp(0.0, 10.0)
}

/// [`token_dependency`] of each token of a response.
pub(crate) fn dependencies(log_probs: &[f32], perturbed_log_probs: &[f32]) -> Vec<f64> {
    DependencyKind::K3.of(log_probs, perturbed_log_probs)
}

/// Mean; 0 of nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// `(x - min) / (max - min + eps)`; zeros when all are equal.
pub(crate) fn min_max(values: &[f64], eps: f64) -> Vec<f64> {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    values.iter().map(|v| (v - low) / (high - low + eps)).collect()
}

/// Whether all of a response's stream values are numbers. A NaN would spread over the batch, so such a response keeps
/// its plain advantage and is counted.
pub(crate) fn is_finite(rows: &[&[f32]]) -> bool {
    rows.iter().all(|row| row.iter().all(|v| v.is_finite()))
}
