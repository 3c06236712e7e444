//! Honest curves under dynamic sampling: what it kept was chosen for being solved sometimes, so the reward of what was
//! kept says little about the policy. This is of everything.

use super::Metrics;
use crate::trajectory::ScoredGroup;

/// Sums over the groups that a step sampled, whether dynamic sampling kept them or not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sampled {
    /// How many.
    pub groups: usize,
    /// Sum of their mean rewards.
    pub reward: f64,
    accuracy: f64,
    flat: usize,
}

impl Sampled {
    pub(super) fn add(&mut self, groups: &[ScoredGroup]) {
        self.groups += groups.len();
        self.reward += groups.iter().map(ScoredGroup::reward).sum::<f64>();
        self.accuracy += groups.iter().map(ScoredGroup::accuracy).sum::<f64>();
        self.flat += groups.iter().filter(|group| group.is_flat()).count();
    }

    /// Means, where anything was sampled: a batch may be full of groups that were carried over.
    pub(super) fn metrics(&self) -> Metrics {
        let mean = |sum: f64| sum / self.groups as f64;
        let all = [
            ("sampled/reward", mean(self.reward)),
            ("sampled/accuracy", mean(self.accuracy)),
            ("sampled/zero_variance_share", mean(self.flat as f64)),
        ];
        all.into_iter().filter(|_| self.groups > 0).map(|(key, value)| (key.to_string(), value)).collect()
    }
}
