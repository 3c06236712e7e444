//! The log-probs that the ratio is taken against, and the one scoring pass that other streams come with.
//!
//! Needs nothing where `actor.old_log_probs = "rollout"` and the sampler has measured what is asked for; else one
//! forward over all groups under this policy, which gives entropy, visual focus and dependency as well.

use kernels::Kernels;
use serde::{Deserialize, Serialize};

use super::{Wanted, dependency, entropy, visual_focus};
use crate::config::{Config, OldLogProbs};
use crate::error::TrainError;
use crate::experience::Metrics;
use crate::image_cache::ImageCache;
use crate::learn::{GroupRef, ResponseScores, score};
use crate::policy::Policy;
use crate::trajectory::ScoredGroup;

/// Takes the sampler's log-probs for `old_log_probs`.
pub(super) fn from_sampler(groups: &mut [ScoredGroup]) {
    let trajectories = groups.iter_mut().flat_map(|g| &mut g.trajectories);
    trajectories.for_each(|t| t.old_log_probs.clone_from(&t.rollout_log_probs));
}

/// Sets `old_log_probs` of every response, and the streams that the scoring pass measures. `scored`: whether there is
/// one; without it the sampler's log-probs were taken.
///
/// # Errors
/// A device that cannot be read.
pub(super) fn compute<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &mut [ScoredGroup],
    (wanted, scored): (&Wanted, bool),
    config: &Config,
    gap: &mut SamplerGap,
) -> Result<(), TrainError> {
    let from_sampler = config.actor.old_log_probs == OldLogProbs::Rollout;
    if !scored {
        if wanted.current_log_probs {
            current_log_probs(policy, images, groups, wanted, config)?;
        }
        return Ok(());
    }
    let refs: Vec<GroupRef> = groups.iter().map(ScoredGroup::refs).collect();
    let scores = score(policy, images, &refs, &wanted.request(config))?;
    gap.add(groups, &scores);
    // One entry per group and one per response: `score` answers what it was given.
    for (group, scores) in std::iter::zip(groups, scores) {
        for (trajectory, mut scores) in std::iter::zip(&mut group.trajectories, scores) {
            if wanted.focus.is_some() {
                visual_focus::store(trajectory, &mut scores);
            }
            if wanted.entropy {
                entropy::store(trajectory, &mut scores);
            }
            if wanted.current_log_probs {
                trajectory.streams.current_log_probs = Some(scores.log_probs.clone());
            }
            if wanted.dependency {
                dependency::store(trajectory, &mut scores);
            }
            // The ratio is taken against what a response was drawn from: of a carried group that is an earlier policy.
            trajectory.old_log_probs = match from_sampler || group.carried {
                true => trajectory.rollout_log_probs.clone(),
                false => scores.log_probs,
            };
        }
    }
    Ok(())
}

/// What this policy says, where it is compared with itself under another picture or text: the sampler's log-probs where
/// this policy was the sampler, recomputed ones in groups that were carried over. Between the two the policy has moved.
fn current_log_probs<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &mut [ScoredGroup],
    wanted: &Wanted,
    config: &Config,
) -> Result<(), TrainError> {
    for group in groups {
        let rows: Vec<Vec<f32>> = match group.carried {
            true => score(policy, images, &[group.refs()], &wanted.plain(config))?
                .into_iter()
                .flatten()
                .map(|scores| scores.log_probs)
                .collect(),
            false => group.trajectories.iter().map(|t| t.rollout_log_probs.clone()).collect(),
        };
        for (trajectory, row) in std::iter::zip(&mut group.trajectories, rows) {
            trajectory.streams.current_log_probs = Some(row);
        }
    }
    Ok(())
}

/// The gap between trainer and sampler, token by token, of what this policy sampled.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct SamplerGap {
    count: usize,
    sum: f64,
    largest: f64,
    kl: f64,
}

impl SamplerGap {
    fn add(&mut self, groups: &[ScoredGroup], scores: &[Vec<ResponseScores>]) {
        let fresh = std::iter::zip(groups, scores).filter(|(group, _)| !group.carried);
        let responses = fresh.flat_map(|(group, scores)| std::iter::zip(&group.trajectories, scores));
        for (a, b) in responses.flat_map(|(t, scores)| std::iter::zip(&scores.log_probs, &t.rollout_log_probs)) {
            let d = f64::from(a - b);
            self.count += 1;
            self.sum += d.abs();
            self.largest = self.largest.max(d.abs());
            self.kl += d.exp() - d - 1.0;
        }
    }

    /// The two together.
    pub(super) fn with(self, other: &Self) -> Self {
        Self {
            count: self.count + other.count,
            sum: self.sum + other.sum,
            largest: self.largest.max(other.largest),
            kl: self.kl + other.kl,
        }
    }

    pub(super) fn metrics(&self) -> Metrics {
        if self.count == 0 {
            return Metrics::new();
        }
        let count = self.count as f64;
        let metrics = [
            ("mismatch/log_prob_abs_mean", self.sum / count),
            ("mismatch/log_prob_abs_max", self.largest),
            ("mismatch/kl", self.kl / count),
        ];
        metrics.map(|(key, value)| (key.to_string(), value)).into()
    }
}
