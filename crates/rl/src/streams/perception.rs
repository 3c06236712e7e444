//! Where a response describes the picture, and what its later tokens are worth without that description (SRPO).
//!
//! Needs the tokenizer for the spans, and one forward over the responses that have one, with the span taken out.

use std::ops::Range;

use data::Processor;
use kernels::Kernels;

use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::learn::{GroupRef, ScoreRequest, score};
use crate::policy::Policy;
use crate::trajectory::{ScoredGroup, Trajectory};

/// Tags around the description; the format prompt has to ask for them.
const OPEN: &str = "<perception>";
const CLOSE: &str = "</perception>";

/// Tokens between the first perception tags of a response, tags included; none without both.
pub fn perception_span(processor: &Processor, ids: &[u32]) -> Option<Range<usize>> {
    let mut stream = processor.stream();
    let mut text = String::new();
    // Length of the text after each token.
    let ends: Vec<usize> = ids
        .iter()
        .map(|&id| {
            text.push_str(&stream.push(id).unwrap_or_default());
            text.len()
        })
        .collect();
    let open = text.find(OPEN)?;
    let close = open + text[open..].find(CLOSE)? + CLOSE.len();
    let first = ends.iter().position(|&end| end > open)?;
    let last = ends.iter().position(|&end| end >= close)?;
    Some(first..last + 1)
}

/// Sets `perception_span` and `unperceived_log_probs` of every response, from `current_log_probs`.
///
/// # Errors
/// A device that cannot be read.
pub(super) fn compute<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &mut [ScoredGroup],
    processor: &Processor,
    request: &ScoreRequest,
) -> Result<(), TrainError> {
    for group in groups {
        let spans: Vec<_> = group.trajectories.iter().map(|t| perception_span(processor, &t.ids)).collect();
        let current = |t: &Trajectory| t.streams.current_log_probs.clone().unwrap_or_else(|| t.old_log_probs.clone());
        let current: Vec<Vec<f32>> = group.trajectories.iter().map(current).collect();
        let rows = unperceived_log_probs(policy, images, &group.refs(), &spans, current, request)?;
        for (trajectory, (span, row)) in std::iter::zip(&mut group.trajectories, std::iter::zip(spans, rows)) {
            trajectory.streams.perception_span = span;
            trajectory.streams.unperceived_log_probs = Some(row);
        }
    }
    Ok(())
}

/// Log-probs of the tokens of each response of a group when its perception span is taken out of it; tokens up to the
/// span's end keep `current`, as responses without a span do altogether. `spans` and `current` have one entry per
/// response.
///
/// # Errors
/// A device that cannot be read.
pub fn unperceived_log_probs<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &mut ImageCache<B>,
    group: &GroupRef,
    spans: &[Option<Range<usize>>],
    current: Vec<Vec<f32>>,
    request: &ScoreRequest,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let mut out = current;
    let mut cut: Vec<(usize, Range<usize>, Vec<u32>)> = Vec::new();
    for (index, response) in group.responses.iter().enumerate() {
        if let Some(span) = spans[index].clone().filter(|span| span.end < response.len()) {
            let rest = [&response[..span.start], &response[span.end..]].concat();
            cut.push((index, span, rest));
        }
    }
    if cut.is_empty() {
        return Ok(out);
    }
    let shortened = GroupRef { prompt: group.prompt, responses: cut.iter().map(|(_, _, ids)| &ids[..]).collect() };
    let scores = score(policy, images, &[shortened], request)?;
    for ((index, span, _), scores) in std::iter::zip(&cut, scores.into_iter().flatten()) {
        out[*index][span.end..].copy_from_slice(&scores.log_probs[span.start..]);
    }
    Ok(out)
}
