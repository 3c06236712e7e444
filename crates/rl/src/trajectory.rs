//! One record per response, from sampling to the update, and the groups that hold them.

use std::ops::Range;

use reward::Score;
use serde::{Deserialize, Serialize};

use crate::learn::GroupRef;
use crate::prompts::Item;
use crate::rollout::{FinishReason, Response};

/// What was measured of each token of a response, `[T]` each. What no algorithm asked for is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenStreams {
    /// Cosine of each token's hidden state to the image prototype, as `(S + 1) / 2`; none without an image.
    pub visual_focus: Option<Vec<f32>>,
    /// Entropy of the full vocabulary, in nats.
    pub entropy: Option<Vec<f32>>,
    /// `KL(pi(.|s_t, I) || pi(.|s_t))` in nats; NaN where there is nothing to compare.
    pub token_visual_dependency: Option<Vec<f32>>,
    /// Log-probs under the policy that is about to be updated, which may not be the one that sampled.
    pub current_log_probs: Option<Vec<f32>>,
    /// Log-probs under the reference policy.
    pub ref_log_probs: Option<Vec<f32>>,
    /// Log-probs with the picture perturbed as the shaping asks; zeros without an image.
    pub perturbed_log_probs: Option<Vec<f32>>,
    /// Log-probs with the picture perturbed as the loss asks (PAPO); zeros without an image.
    pub masked_log_probs: Option<Vec<f32>>,
    /// Tokens in which the response describes the picture; none without the tags.
    pub perception_span: Option<Range<usize>>,
    /// Log-probs with the perception span taken out; only those after the span are read.
    pub unperceived_log_probs: Option<Vec<f32>>,
}

/// A response: what was sampled, what it earned, and what the update is to make of it. `T` tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    /// Token ids `[T]`, the end token included.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Its text, special tokens left out.
    pub text: String,
    /// Its score.
    pub score: Score,
    /// Log-probs that the sampler reported, `[T]`.
    pub rollout_log_probs: Vec<f32>,
    /// Log-probs that the ratio is taken against, `[T]`; empty until experience is made.
    pub old_log_probs: Vec<f32>,
    /// What was measured of its tokens.
    pub streams: TokenStreams,
    /// Advantage of each token before shaping, `[T]`; empty until experience is made.
    pub unshaped: Vec<f32>,
    /// Advantage of each token after shaping, `[T]`; empty until experience is made.
    pub advantages: Vec<f32>,
    /// Whether each token contributes to the policy loss, `[T]`; none if all do.
    pub policy_mask: Option<Vec<bool>>,
}

impl Trajectory {
    /// Of a sampled response with its text and its score.
    pub fn new(response: Response, text: String, score: Score) -> Self {
        let streams = TokenStreams { visual_focus: response.visual_focus, ..TokenStreams::default() };
        Self {
            ids: response.ids,
            finish: response.finish,
            text,
            score,
            rollout_log_probs: response.log_probs,
            old_log_probs: vec![],
            streams,
            unshaped: vec![],
            advantages: vec![],
            policy_mask: None,
        }
    }

    /// What was sampled.
    pub fn response(&self) -> Response {
        Response {
            ids: self.ids.clone(),
            log_probs: self.rollout_log_probs.clone(),
            finish: self.finish,
            visual_focus: self.streams.visual_focus.clone(),
            top_log_probs: vec![],
        }
    }
}

/// A prompt with its sampled and graded responses: the unit of work.
#[derive(Debug, Clone)]
pub struct ScoredGroup {
    /// The row.
    pub item: Item,
    /// Its responses.
    pub trajectories: Vec<Trajectory>,
    /// Reward of the greedy response, for estimators that need it.
    pub greedy: Option<f64>,
    /// Whether dynamic sampling kept it from an earlier step: an older policy sampled it.
    pub carried: bool,
}

impl ScoredGroup {
    /// Mean reward.
    pub fn reward(&self) -> f64 {
        self.mean("overall").unwrap_or(0.0)
    }

    /// Mean accuracy.
    pub fn accuracy(&self) -> f64 {
        self.mean("accuracy").unwrap_or(0.0)
    }

    /// Mean of `key` over the responses that have it: `overall`, `accuracy`, `format` or a further metric of the
    /// reward.
    pub fn mean(&self, key: &str) -> Option<f64> {
        let value = |t: &Trajectory| match key {
            "overall" => Some(t.score.overall),
            "accuracy" => Some(t.score.accuracy),
            "format" => Some(t.score.format),
            other => t.score.extra.get(other).copied(),
        };
        let values: Vec<f64> = self.trajectories.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Whether all rewards are equal: such a group teaches nothing.
    pub(crate) fn is_flat(&self) -> bool {
        self.trajectories.windows(2).all(|w| w[0].score.overall == w[1].score.overall)
    }

    /// Whether the prompt has an image.
    pub fn has_image(&self) -> bool {
        !self.item.prompt.image_grid_thw.is_empty()
    }

    /// Prompt and responses as the passes take them.
    pub fn refs(&self) -> GroupRef<'_> {
        GroupRef { prompt: &self.item.prompt, responses: self.trajectories.iter().map(|t| &t.ids[..]).collect() }
    }
}
