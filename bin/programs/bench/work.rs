//! How much work a step is: tokens, operations, bytes, from the sizes of the model.

use model_qwen2vl::QwenVlConfig;
use model_qwen2vl::config::{MlpKind, TowerAttention};
use model_qwen2vl::model::Prompt;

use super::workload::Sizes;

/// What decoding has to read at least: for each new token of the batch the decoder's weights and the head once, the
/// keys and values of each prompt once per group, and each row's own. The first token needs the head alone.
pub(super) fn decode_bytes(config: &QwenVlConfig, prompts: &[Prompt], sizes: &Sizes, width: usize) -> f64 {
    let t = &config.text;
    let (q, kv) = (t.query_width(), t.kv_width());
    let layer = t.hidden_size * (2 * q + 2 * kv + 3 * t.intermediate_size);
    let (layers, head) = ((t.num_hidden_layers * layer) as f64, (t.vocab_size * t.hidden_size) as f64);
    let (n, r) = (sizes.rollouts as f64, sizes.response_tokens as f64);
    let cached: f64 = prompts.iter().map(|p| (r - 1.0) * p.len() as f64 + n * r * (r - 1.0) / 2.0).sum();
    width as f64 * ((r - 1.0) * layers + r * head + 2.0 * (t.num_hidden_layers * kv) as f64 * cached)
}

/// Packed tokens of a step.
pub(super) fn packed(prompts: &[Prompt], sizes: &Sizes) -> usize {
    prompts.iter().map(|p| p.len() + sizes.rollouts * sizes.response_tokens).sum()
}

/// Multiplications and additions of decoder and tower in one forward pass over all prompts, each computed once, and
/// responses. An update takes three times as many; recomputed layers do not count.
pub(super) fn flops(config: &QwenVlConfig, prompts: &[Prompt], sizes: &Sizes) -> [f64; 2] {
    let (t, v) = (&config.text, &config.vision);
    let (q, kv) = (t.query_width(), t.kv_width());
    let layer = t.hidden_size * (2 * q + 2 * kv + 3 * t.intermediate_size);
    let (n, r) = (sizes.rollouts as f64, sizes.response_tokens as f64);
    let (mut decoder, mut tower) = (0.0, 0.0);
    for prompt in prompts {
        let p = prompt.len() as f64;
        let tokens = p + n * r;
        let pairs = p * (p + 1.0) / 2.0 + n * (r * p + r * (r + 1.0) / 2.0);
        decoder += t.num_hidden_layers as f64 * (2.0 * tokens * layer as f64 + 4.0 * pairs * q as f64);
        decoder += 2.0 * n * r * (t.vocab_size * t.hidden_size) as f64;
        for grid in &prompt.image_grid_thw {
            let patches = grid.iter().product::<usize>() as f64;
            let (full, window) = match &v.attention {
                TowerAttention::Full => (v.depth as f64, 0.0),
                TowerAttention::Windows { side, full } => {
                    (full.len() as f64, (side * v.spatial_merge_size).pow(2) as f64)
                }
            };
            let matrices = if v.mlp == MlpKind::Gated { 3 } else { 2 };
            let block = v.hidden_size * (4 * v.hidden_size + matrices * v.intermediate_size);
            let merged = v.hidden_size * v.merge_unit();
            let mergers = (1 + v.deepstack.len()) as f64;
            tower += 2.0 * patches * (v.depth * block + v.patch_dim() * v.hidden_size) as f64;
            tower += 2.0 * mergers * patches / v.merge_unit() as f64 * (merged * (merged + t.hidden_size)) as f64;
            tower +=
                4.0 * patches * v.hidden_size as f64 * (full * patches + (v.depth as f64 - full) * window.min(patches));
        }
    }
    [decoder, tower]
}
