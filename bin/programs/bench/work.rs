//! How much work a step of `bench` is: tokens, operations, bytes.

use model_qwen2vl::QwenVlConfig;
use model_qwen2vl::model::Prompt;
use plan::{GroupSize, MeasuredWork, WorkKind, decoder_flops, tower_flops};

use super::workload::Sizes;

/// A prompt of the step with its responses.
fn group(prompt: &Prompt, sizes: &Sizes) -> GroupSize {
    GroupSize { prompt: prompt.len() as f64, responses: sizes.rollouts as f64, response: sizes.response_tokens as f64 }
}

/// What decoding has to read at least ([`plan::decode_bytes`]): all rows are decoded together.
pub(super) fn decode_bytes(config: &QwenVlConfig, prompts: &[Prompt], sizes: &Sizes, width: usize) -> f64 {
    // All prompts have the same length.
    plan::decode_bytes(config, &group(&prompts[0], sizes), [prompts.len() as f64, 1.0], width)
}

/// Packed tokens of a step.
pub(super) fn packed(prompts: &[Prompt], sizes: &Sizes) -> usize {
    prompts.iter().map(|p| p.len() + sizes.rollouts * sizes.response_tokens).sum()
}

/// Operations of decoder and tower in one forward pass over all prompts, each computed once, and responses. An update
/// takes three times as many; recomputed layers do not count.
pub(super) fn flops(config: &QwenVlConfig, prompts: &[Prompt], sizes: &Sizes) -> [f64; 2] {
    let decoder = prompts.iter().map(|prompt| decoder_flops(config, &group(prompt, sizes))).sum();
    let grids = prompts.iter().flat_map(|prompt| &prompt.image_grid_thw);
    [decoder, grids.map(|grid| tower_flops(config, grid.iter().product::<usize>() as f64)).sum()]
}

/// A step as it was done.
pub(super) struct StepDone<'a> {
    /// The prompts.
    pub prompts: &'a [Prompt],
    /// The sizes.
    pub sizes: &'a Sizes,
    /// `[generate, old log-probs, update, vision, prefill, focus and factors, optimizer, total]` in seconds.
    pub seconds: [f64; 8],
    /// Whether layers were computed again.
    pub recompute: bool,
    /// Bytes of an element of weights and activations.
    pub width: usize,
    /// Bytes that the optimizer reads and writes.
    pub optimizer_bytes: f64,
}

/// The work of the step by kind, with its seconds; what took none was not done.
pub(super) fn measured(config: &QwenVlConfig, done: &StepDone) -> Vec<MeasuredWork> {
    let StepDone { prompts, sizes, width, optimizer_bytes, .. } = *done;
    let [generate, old, update, vision, prefill, _, optimizer, _] = done.seconds;
    let [decoder, tower] = flops(config, prompts, sizes);
    let prompt = |prompt| decoder_flops(config, &GroupSize { responses: 0.0, ..group(prompt, sizes) });
    let prompts_flops: f64 = prompts.iter().map(prompt).sum();
    let again = f64::from(u8::from(done.recompute));
    let bytes = decode_bytes(config, prompts, sizes, width);
    let all = [
        (WorkKind::Vision, tower, 0.0, vision),
        (WorkKind::Prefill, prompts_flops, 0.0, prefill),
        (WorkKind::Decode, decoder - prompts_flops, bytes, generate - vision - prefill),
        (WorkKind::Score, decoder, 0.0, old),
        (WorkKind::Update, (3.0 + again) * (decoder + tower), 0.0, update - optimizer),
        (WorkKind::Optimizer, 0.0, optimizer_bytes, optimizer),
    ];
    // The sampler's own log-probs take a moment for nothing.
    let done = all.into_iter().filter(|(_, flops, bytes, seconds)| flops + bytes > 0.0 && *seconds > 1e-5);
    done.map(|(kind, flops, bytes, seconds)| MeasuredWork { kind, flops, bytes, seconds }).collect()
}
