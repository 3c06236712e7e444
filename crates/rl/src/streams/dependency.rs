//! What the policy predicts when the pictures are taken out of the prompt, and how far that is from what it predicts
//! with them: PGPO's token visual dependency, `KL(pi(.|s_t, I) || pi(.|s_t))` over the full vocabulary.
//!
//! The prompt without its pictures is the text that is left
//! ([`Scoring::without_images`](::policy::Scoring::without_images)): no image tokens, no vision start and end, and the
//! response follows at the positions that text alone gives it. Nothing is blacked out, and the vision tower does not
//! run.

use ::policy::{PackedBatch, Prompt};
use burn::tensor::Tensor;
use kernels::host::int_tensor;
use kernels::{DeviceError, Kernels, head, host};

use crate::learn::{GroupRef, MicroBatch, ResponseScores, ScoreRequest};
use crate::policy::{PackGroup, Policy};
use crate::trajectory::Trajectory;

/// Needs a forward of its own over the text, beside the scoring pass that [`super::old_log_probs`] makes.
///
/// A response whose prompt is nothing but its picture has no text-only prediction to compare with: NaN, as for a prompt
/// without a picture, whose stream is not read.
pub(super) fn store(trajectory: &mut Trajectory, scores: &mut ResponseScores) {
    let none = || vec![f32::NAN; scores.log_probs.len()];
    trajectory.streams.token_visual_dependency = Some(scores.token_visual_dependency.take().unwrap_or_else(none));
}

/// A prompt without its pictures, computed once for responses that come in parts.
pub(crate) struct SharedText<B: Kernels, P: Policy<B>> {
    prompt: Prompt,
    shared: P::Shared,
}

/// The text of a prompt; none without a picture, or without anything beside it.
fn text<B: Kernels, P: Policy<B>>(policy: &P, prompt: &Prompt) -> Option<Prompt> {
    if prompt.image_grid_thw.is_empty() { None } else { policy.without_images(prompt) }
}

/// The text of a prompt whose group comes in parts.
pub(crate) fn share<B: Kernels, P: Policy<B>>(policy: &P, prompt: &Prompt) -> Option<SharedText<B, P>> {
    let prompt = text(policy, prompt)?;
    Some(SharedText { shared: policy.share(&prompt, None), prompt })
}

/// Dependencies of the responses of a micro-batch whose batch `seeing` is, with its hidden states `[N, d]`.
pub(crate) fn together<B: Kernels, P: Policy<B>>(
    policy: &P,
    groups: &[GroupRef],
    request: &ScoreRequest,
    micro: &MicroBatch,
    seeing: (&PackedBatch<B>, Tensor<B, 2>),
    out: &mut [Vec<ResponseScores>],
) -> Result<(), DeviceError> {
    let texts: Vec<Option<Prompt>> = micro.iter().map(|(g, _)| text(policy, groups[*g].prompt)).collect();
    let packed: Vec<PackGroup> = std::iter::zip(micro, &texts)
        .filter_map(|((g, responses), text)| Some((text.as_ref()?, groups[*g].some(responses))))
        .collect();
    if packed.is_empty() {
        return Ok(());
    }
    let batch = policy.pack(&packed);
    let hidden = policy.hidden(&batch, None);
    let with_text: Vec<bool> = texts.iter().map(Option::is_some).collect();
    read(policy, groups, request, micro, &with_text, [seeing, (&batch, hidden)], out)
}

/// The same of one part of a group.
pub(crate) fn part<B: Kernels, P: Policy<B>>(
    policy: &P,
    groups: &[GroupRef],
    request: &ScoreRequest,
    micro: &MicroBatch,
    seeing: (&PackedBatch<B>, Tensor<B, 2>),
    text: &SharedText<B, P>,
    out: &mut [Vec<ResponseScores>],
) -> Result<(), DeviceError> {
    let responses: Vec<&[u32]> = micro.iter().flat_map(|(g, responses)| groups[*g].some(responses)).collect();
    let batch = policy.pack_part(&text.prompt, &responses);
    let hidden = policy.hidden_part(&text.shared, &batch);
    read(policy, groups, request, micro, &[true], [seeing, (&batch, hidden)], out)
}

/// Divergences of the rows that predict the responses of those groups of `micro` that have a text. The second batch
/// holds those groups only.
fn read<B: Kernels, P: Policy<B>>(
    policy: &P,
    groups: &[GroupRef],
    request: &ScoreRequest,
    micro: &MicroBatch,
    with_text: &[bool],
    [(seeing, seen), (blind, unseen)]: [(&PackedBatch<B>, Tensor<B, 2>); 2],
    out: &mut [Vec<ResponseScores>],
) -> Result<(), DeviceError> {
    let device = policy.device();
    let all = seeing.predicting_rows();
    let (mut rows, mut places) = (Vec::new(), Vec::new());
    let mut at = 0;
    for ((g, responses), with_text) in micro.iter().zip(with_text) {
        for &r in responses {
            let len = groups[*g].responses[r].len();
            if *with_text {
                rows.extend_from_slice(&all[at..at + len]);
                places.push((*g, r, len));
            }
            at += len;
        }
    }
    let divergence = head::kl_divergence(
        seen.select(0, int_tensor(rows, &device)),
        unseen.select(0, int_tensor(blind.predicting_rows(), &device)),
        policy.head().0,
        request.temperature,
    );
    let divergence = host::floats(divergence)?;
    let mut from = 0;
    for (g, r, len) in places {
        out[g][r].token_visual_dependency = Some(divergence[from..from + len].to_vec());
        from += len;
    }
    Ok(())
}
