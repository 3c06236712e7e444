//! Where a response describes the picture, and what its later tokens are worth without that description (SRPO).
//!
//! Needs the tokenizer for the spans, and one forward over the responses that have one, with the span taken out.

use std::ops::Range;

use data::{DataError, Processor};
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
///
/// # Errors
/// A token that the tokenizer cannot decode: nothing is known of where the tags are.
pub fn perception_span(processor: &Processor, ids: &[u32]) -> Result<Option<Range<usize>>, DataError> {
    let mut stream = processor.stream();
    span_of(|id| stream.push(id), ids)
}

/// The same of any decoder: `push` gives the text that a token adds.
fn span_of<E>(mut push: impl FnMut(u32) -> Result<String, E>, ids: &[u32]) -> Result<Option<Range<usize>>, E> {
    let mut text = String::new();
    // Length of the text after each token.
    let mut ends = Vec::with_capacity(ids.len());
    for &id in ids {
        text.push_str(&push(id)?);
        ends.push(text.len());
    }
    let Some(open) = text.find(OPEN) else { return Ok(None) };
    let Some(close) = text[open..].find(CLOSE).map(|at| open + at + CLOSE.len()) else { return Ok(None) };
    let first = ends.iter().position(|&end| end > open);
    let last = ends.iter().position(|&end| end >= close);
    Ok(first.zip(last).map(|(first, last)| first..last + 1))
}

/// The spans, and how many responses have none because they do not decode.
fn counted<E>(spans: impl Iterator<Item = Result<Option<Range<usize>>, E>>) -> (Vec<Option<Range<usize>>>, usize) {
    let mut undecoded = 0;
    let spans = spans
        .map(|span| {
            span.unwrap_or_else(|_| {
                undecoded += 1;
                None
            })
        })
        .collect();
    (spans, undecoded)
}

/// Sets `perception_span` and `unperceived_log_probs` of every response, from `current_log_probs`. A response that does
/// not decode has no span; how many those are is returned.
///
/// # Errors
/// A device that cannot be read.
pub(super) fn compute<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &mut [ScoredGroup],
    processor: &Processor,
    request: &ScoreRequest,
) -> Result<usize, TrainError> {
    let mut all_undecoded = 0;
    for group in groups {
        let (spans, undecoded) = counted(group.trajectories.iter().map(|t| perception_span(processor, &t.ids)));
        all_undecoded += undecoded;
        let current = |t: &Trajectory| t.streams.current_log_probs.clone().unwrap_or_else(|| t.old_log_probs.clone());
        let current: Vec<Vec<f32>> = group.trajectories.iter().map(current).collect();
        let rows = unperceived_log_probs(policy, images, &group.refs(), &spans, current, request)?;
        for (trajectory, (span, row)) in std::iter::zip(&mut group.trajectories, std::iter::zip(spans, rows)) {
            trajectory.streams.perception_span = span;
            trajectory.streams.unperceived_log_probs = Some(row);
        }
    }
    Ok(all_undecoded)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// One character per token; ids above ASCII do not decode.
    fn push(id: u32) -> Result<String, u32> {
        char::from_u32(id).filter(char::is_ascii).map(String::from).ok_or(id)
    }

    #[test]
    fn a_response_that_does_not_decode_is_counted() {
        let ids = |text: &str| -> Vec<u32> { text.chars().map(u32::from).collect() };
        let described = ids("<perception>3</perception>4");
        let broken = [vec![1000], described.clone()].concat();
        assert_eq!(span_of(push, &described), Ok(Some(0..26)));
        assert_eq!(span_of(push, &ids("</perception><perception>")), Ok(None));
        assert_eq!(span_of(push, &broken), Err(1000), "no text in its place");
        let spans = [&described, &broken, &ids("4"), &broken].map(|ids| span_of(push, ids));
        assert_eq!(counted(spans.into_iter()), (vec![Some(0..26), None, None, None], 2));
    }
}
