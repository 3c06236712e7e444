//! The view of all records that estimators and shapings read: one list per quantity, one entry per response.

use crate::advantage::Advantages;
use crate::random_keys;
use crate::shaping::{ShapingBatch, Stream, Streams, Training};
use crate::trajectory::{ScoredGroup, TokenStreams, Trajectory};

/// Columns over the responses of some groups, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns {
    /// Tokens of each response.
    pub lengths: Vec<usize>,
    /// Index of each response's group.
    pub groups: Vec<usize>,
    /// Whether the prompt of each response has an image.
    pub has_image: Vec<bool>,
    /// What each response is known by, whatever batch it is in: its row and its number in the group.
    pub names: Vec<u64>,
    /// Reward of each response.
    pub rewards: Vec<f32>,
    /// Reward of the greedy response to the same prompt, where every group has one.
    pub greedy_rewards: Option<Vec<f32>>,
    /// The streams that were declared and computed.
    pub streams: Streams,
}

fn all(groups: &[ScoredGroup]) -> impl Iterator<Item = &Trajectory> {
    groups.iter().flat_map(|g| &g.trajectories)
}

/// One list per response of a value that each record has; none where a record lacks it.
pub(crate) fn column<T>(groups: &[ScoredGroup], of: impl Fn(&TokenStreams) -> Option<T>) -> Option<Vec<T>> {
    all(groups).map(|t| of(&t.streams)).collect()
}

impl Columns {
    /// Of these groups, with the streams that `declared` names.
    pub fn of(groups: &[ScoredGroup], declared: &[Stream]) -> Self {
        fn per_response<T: Clone>(groups: &[ScoredGroup], of: impl Fn(&ScoredGroup) -> T) -> Vec<T> {
            groups.iter().flat_map(|g| vec![of(g); g.trajectories.len()]).collect()
        }
        let ids = groups.iter().enumerate().flat_map(|(i, g)| std::iter::repeat_n(i, g.trajectories.len()));
        Self {
            lengths: all(groups).map(|t| t.ids.len()).collect(),
            groups: ids.collect(),
            has_image: per_response(groups, ScoredGroup::has_image),
            names: groups.iter().flat_map(names).collect(),
            rewards: all(groups).map(|t| t.score.overall as f32).collect(),
            greedy_rewards: per_response(groups, |g| g.greedy.map(|v| v as f32)).into_iter().collect(),
            streams: streams(groups, declared),
        }
    }

    /// What a shaping reads.
    pub fn batch<'a>(&'a self, advantages: &'a Advantages, training: Training) -> ShapingBatch<'a> {
        ShapingBatch {
            advantages,
            lengths: &self.lengths,
            groups: &self.groups,
            has_image: &self.has_image,
            names: &self.names,
            streams: &self.streams,
            training,
        }
    }
}

fn names(group: &ScoredGroup) -> impl Iterator<Item = u64> {
    (0..group.trajectories.len() as u64).map(|k| random_keys::response(group.item.row as u64, k))
}

fn streams(groups: &[ScoredGroup], declared: &[Stream]) -> Streams {
    let mut streams = Streams::default();
    for stream in declared {
        match stream {
            // A response without an image has none, and its list is not read.
            Stream::VisualFocus { .. } => {
                streams.visual_focus = column(groups, |s| Some(s.visual_focus.clone().unwrap_or_default()));
            }
            Stream::PerturbedLogProbs { .. } => {
                streams.perturbed_log_probs = column(groups, |s| s.perturbed_log_probs.clone());
            }
            Stream::OldLogProbs => streams.old_log_probs = column(groups, |s| s.current_log_probs.clone()),
            Stream::RefLogProbs => streams.ref_log_probs = column(groups, |s| s.ref_log_probs.clone()),
            Stream::Entropy => streams.entropy = column(groups, |s| s.entropy.clone()),
            Stream::TokenVisualDependency => {
                streams.token_visual_dependency = column(groups, |s| s.token_visual_dependency.clone());
            }
            Stream::PerceptionSpans | Stream::UnperceivedLogProbs => {
                streams.perception_spans = column(groups, |s| Some(s.perception_span.clone()));
                streams.unperceived_log_probs = column(groups, |s| s.unperceived_log_probs.clone());
            }
        }
    }
    streams
}
