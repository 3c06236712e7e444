//! From graded groups to the metrics of everything that a step sampled, and of a validation.

use std::collections::BTreeMap;

use ::vgpo::FocusMetrics;

use crate::experience::Metrics;
use crate::trajectory::ScoredGroup;

/// Sums over the groups that a step sampled, whether dynamic sampling kept them or not. The reward of what it kept says
/// little about the policy: that was chosen for being solved sometimes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sampled {
    /// How many.
    pub groups: usize,
    /// Sum of their mean rewards.
    pub reward: f64,
    accuracy: f64,
    flat: usize,
}

impl Sampled {
    /// Adds the groups of a round.
    pub(crate) fn add(&mut self, groups: &[ScoredGroup]) {
        self.groups += groups.len();
        self.reward += groups.iter().map(ScoredGroup::reward).sum::<f64>();
        self.accuracy += groups.iter().map(ScoredGroup::accuracy).sum::<f64>();
        self.flat += groups.iter().filter(|group| group.is_flat()).count();
    }

    /// Means, where anything was sampled: a batch may be full of groups that were carried over.
    pub(crate) fn metrics(&self) -> Metrics {
        let mean = |sum: f64| sum / self.groups as f64;
        let all = [
            ("sampled/reward", mean(self.reward)),
            ("sampled/accuracy", mean(self.accuracy)),
            ("sampled/zero_variance_share", mean(self.flat as f64)),
        ];
        all.into_iter().filter(|_| self.groups > 0).map(|(key, value)| (key.to_string(), value)).collect()
    }
}

/// What the responses of a validation sum up to.
#[derive(Default)]
pub(crate) struct Tally {
    /// Accuracy and reward of each row.
    greedy: Vec<(f64, f64)>,
    by_task: BTreeMap<String, Vec<f64>>,
    lengths: Vec<f64>,
    focus: Vec<Vec<f32>>,
    sampled: Vec<f64>,
    best: Vec<f64>,
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1) as f64;
    values.sum::<f64>() / n
}

impl Tally {
    /// Adds the greedy response to a row.
    pub(crate) fn greedy(&mut self, group: &ScoredGroup) {
        let accuracy = group.accuracy();
        self.greedy.push((accuracy, group.reward()));
        if let Some(task) = &group.item.task {
            self.by_task.entry(task.clone()).or_default().push(accuracy);
        }
        self.lengths.extend(group.trajectories.iter().map(|t| t.ids.len() as f64));
        self.focus.extend(group.trajectories.iter().filter_map(|t| t.streams.visual_focus.clone()));
    }

    /// Adds the sampled responses to a row.
    pub(crate) fn sampled(&mut self, group: &ScoredGroup) {
        self.sampled.push(group.accuracy());
        self.best.push(group.trajectories.iter().map(|t| t.score.accuracy).fold(f64::NEG_INFINITY, f64::max));
    }

    /// Whether no row was answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.greedy.is_empty()
    }

    /// The metrics `val/...`.
    pub(crate) fn metrics(self) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.insert("val/accuracy".into(), mean(self.greedy.iter().map(|v| v.0)));
        metrics.insert("val/reward".into(), mean(self.greedy.iter().map(|v| v.1)));
        metrics.insert("val/samples".into(), self.greedy.len() as f64);
        metrics.insert("val/response_length".into(), mean(self.lengths.iter().copied()));
        for (task, values) in &self.by_task {
            metrics.insert(format!("val/accuracy/{task}"), mean(values.iter().copied()));
        }
        if !self.sampled.is_empty() {
            metrics.insert("val/sampled_accuracy".into(), mean(self.sampled.iter().copied()));
            metrics.insert("val/pass_at_n".into(), mean(self.best.iter().copied()));
        }
        let focus: Vec<&Vec<f32>> = self.focus.iter().collect();
        let focus = FocusMetrics::new(&focus);
        for (name, value) in [
            ("val/focus_mean", focus.focus_mean),
            ("val/late_early_halves", focus.late_early_halves),
            ("val/late_early_cosine_halves", focus.late_early_cosine_halves),
        ] {
            if value.is_finite() {
                metrics.insert(name.into(), value);
            }
        }
        metrics
    }
}
