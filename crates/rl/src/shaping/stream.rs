//! Streams: what an algorithm wants to know of every response token beyond its old log-prob.

use super::{ShapingBatch, ShapingError};
use crate::perturb::Perturbation;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How often the perturbed image is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// A new one for each response (VPPO).
    Response,
    /// One for all responses to a prompt (PAPO).
    Prompt,
}

/// A stream that an algorithm declares and the trainer computes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Cosine of each token's hidden state to the image prototype, as `(S + 1) / 2` ([`::vgpo::visual_focus`]).
    VisualFocus {
        /// One prototype over all images, or one per image.
        prototype: ::vgpo::PrototypeMode,
    },
    /// Log-probs of the same tokens when the image is perturbed. Responses without an image are not scored.
    PerturbedLogProbs {
        /// How often it is drawn.
        draw: Draw,
        /// What is done to the image.
        perturbation: Perturbation,
    },
    /// Log-probs under the policy before the update.
    OldLogProbs,
    /// Log-probs under the reference policy.
    RefLogProbs,
    /// Entropy of the full vocabulary at each token, without a gradient.
    Entropy,
    /// PGPO's token visual dependency, `KL(pi(.|s_t, I) || pi(.|s_t))` over the full vocabulary: with the picture in
    /// the prompt, and taken out of it. Responses without an image are not scored.
    TokenVisualDependency,
    /// Where each response describes the picture: the token range between its perception tags.
    PerceptionSpans,
    /// Log-probs of the tokens when the perception span is hidden from them.
    UnperceivedLogProbs,
}

impl Stream {
    /// Whether it compares with a prompt whose picture is perturbed or gone, and so means nothing on data without
    /// pictures.
    pub(crate) fn compares_pictures(&self) -> bool {
        matches!(self, Self::PerturbedLogProbs { .. } | Self::TokenVisualDependency)
    }
}

/// The streams of a batch: ragged, one list per response, `[T_i]`. What nobody declared is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Streams {
    /// [`Stream::VisualFocus`]. Responses without an image have an empty or any list.
    pub visual_focus: Option<Vec<Vec<f32>>>,
    /// [`Stream::OldLogProbs`].
    pub old_log_probs: Option<Vec<Vec<f32>>>,
    /// [`Stream::PerturbedLogProbs`]; the lists of responses without an image are not read.
    pub perturbed_log_probs: Option<Vec<Vec<f32>>>,
    /// [`Stream::RefLogProbs`].
    pub ref_log_probs: Option<Vec<Vec<f32>>>,
    /// [`Stream::Entropy`].
    pub entropy: Option<Vec<Vec<f32>>>,
    /// [`Stream::TokenVisualDependency`] in nats; the lists of responses without an image are not read, and a prompt
    /// that is nothing but its picture has NaN.
    pub token_visual_dependency: Option<Vec<Vec<f32>>>,
    /// [`Stream::PerceptionSpans`]; `None` for a response without the tags.
    pub perception_spans: Option<Vec<Option<Range<usize>>>>,
    /// [`Stream::UnperceivedLogProbs`]; only the entries after the span are read.
    pub unperceived_log_probs: Option<Vec<Vec<f32>>>,
}

/// A stream that must be there, with one entry per token.
pub(crate) fn need<'a>(
    what: &'static str,
    rows: &'a Option<Vec<Vec<f32>>>,
    lengths: &[usize],
) -> Result<&'a [Vec<f32>], ShapingError> {
    let rows = rows.as_ref().ok_or(ShapingError::Missing { stream: what })?;
    check(what, rows, lengths)?;
    Ok(rows)
}

/// One list per response, one entry per token.
pub(crate) fn check(what: &'static str, rows: &[Vec<f32>], lengths: &[usize]) -> Result<(), ShapingError> {
    if rows.len() != lengths.len() {
        return Err(ShapingError::Responses { what, found: rows.len(), expected: lengths.len() });
    }
    let wrong = std::iter::zip(rows, lengths).position(|(row, &length)| row.len() != length);
    match wrong {
        Some(response) => {
            Err(ShapingError::Tokens { what, response, found: rows[response].len(), expected: lengths[response] })
        }
        None => Ok(()),
    }
}

/// The visual focus of each token. A response without an image has none, whatever its list holds: it gets zeros.
pub(crate) fn visual_focus(batch: &ShapingBatch) -> Result<Vec<Vec<f32>>, ShapingError> {
    let what = "visual_focus";
    let rows = batch.streams.visual_focus.as_ref().ok_or(ShapingError::Missing { stream: what })?;
    if rows.len() != batch.lengths.len() {
        return Err(ShapingError::Responses { what, found: rows.len(), expected: batch.lengths.len() });
    }
    let focus: Vec<Vec<f32>> = rows
        .iter()
        .enumerate()
        .map(|(response, row)| match batch.has_image[response] {
            true => row.clone(),
            false => vec![0.0; batch.lengths[response]],
        })
        .collect();
    check(what, &focus, batch.lengths)?;
    Ok(focus)
}
