//! Where a response describes the picture, and what its later tokens are worth without that description (SRPO).

use std::ops::Range;

use data::Processor;
use model_qwen2vl::{DeviceError, Kernels};

use crate::engine::{GroupRef, ScoreRequest, score};
use crate::image_cache::ImageCache;
use crate::policy::Policy;

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

/// Log-probs of each response's tokens when its perception span is taken out of it; tokens up to the span's end keep `old`.
/// Responses without a span keep `old` altogether. One list a response, in the order of the groups.
///
/// # Errors
/// A device that cannot be read.
pub fn unperceived_log_probs<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &[GroupRef],
    spans: &[Option<Range<usize>>],
    old: &[Vec<f32>],
    request: &ScoreRequest,
) -> Result<Vec<Vec<f32>>, DeviceError> {
    let mut out = old.to_vec();
    let mut index = 0;
    for group in groups {
        let mut cut: Vec<(usize, Range<usize>, Vec<u32>)> = Vec::new();
        for response in &group.responses {
            if let Some(span) = spans[index].clone()
                && span.end < response.len()
            {
                let rest = [&response[..span.start], &response[span.end..]].concat();
                cut.push((index, span, rest));
            }
            index += 1;
        }
        if cut.is_empty() {
            continue;
        }
        let group = GroupRef { prompt: group.prompt, responses: cut.iter().map(|(_, _, ids)| &ids[..]).collect() };
        let scores = score(policy, images, &[group], request)?;
        for ((i, span, _), scores) in cut.iter().zip(scores.into_iter().flatten()) {
            out[*i][span.end..].copy_from_slice(&scores.log_probs[span.start..]);
        }
    }
    Ok(out)
}
