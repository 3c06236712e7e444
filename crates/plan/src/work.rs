//! How much a pass computes and what decoding reads: operations and bytes, from the sizes of the model. An operation is
//! a multiplication or an addition; norms, softmax and activation functions are left out.

use model_qwen2vl::QwenVlConfig;
use model_qwen2vl::config::{MlpKind, TowerAttention};
use rl::config::{GradsDtype, MomentsDtype, Optim};

/// A prompt and its responses, in tokens; means may be fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupSize {
    /// Tokens of the prompt, those of its pictures included.
    pub prompt: f64,
    /// Responses.
    pub responses: f64,
    /// Tokens of each of them.
    pub response: f64,
}

/// Weights of a decoder's layers together, and of the head: elements.
fn weights(config: &QwenVlConfig) -> [f64; 2] {
    let t = &config.text;
    let layer = t.hidden_size * (2 * t.query_width() + 2 * t.kv_width() + 3 * t.intermediate_size);
    [(t.num_hidden_layers * layer) as f64, (t.vocab_size * t.hidden_size) as f64]
}

/// Operations of the decoder in one forward pass over a group whose prompt is computed once, the head at its responses
/// included.
pub fn decoder_flops(config: &QwenVlConfig, group: &GroupSize) -> f64 {
    let GroupSize { prompt: p, responses: n, response: r } = *group;
    let [layers, head] = weights(config);
    let pairs = p * (p + 1.0) / 2.0 + n * (r * p + r * (r + 1.0) / 2.0);
    let attention = 4.0 * pairs * (config.text.num_hidden_layers * config.text.query_width()) as f64;
    2.0 * (p + n * r) * layers + attention + 2.0 * n * r * head
}

/// Operations of the tower in one forward pass over a picture of so many patches.
pub fn tower_flops(config: &QwenVlConfig, patches: f64) -> f64 {
    let v = &config.vision;
    let (full, window) = match &v.attention {
        TowerAttention::Full => (v.depth as f64, 0.0),
        TowerAttention::Windows { side, full } => (full.len() as f64, (side * v.spatial_merge_size).pow(2) as f64),
    };
    let matrices = if v.mlp == MlpKind::Gated { 3 } else { 2 };
    let block = v.hidden_size * (4 * v.hidden_size + matrices * v.intermediate_size);
    let merged = v.hidden_size * v.merge_unit();
    let mergers = (1 + v.deepstack.len()) as f64;
    let blocks = 2.0 * patches * (v.depth * block + v.patch_dim() * v.hidden_size) as f64;
    let merging =
        2.0 * mergers * patches / v.merge_unit() as f64 * (merged * (merged + config.text.hidden_size)) as f64;
    let keys = full * patches + (v.depth as f64 - full) * window.min(patches);
    blocks + merging + 4.0 * patches * v.hidden_size as f64 * keys
}

/// What decoding `groups` groups has to read at least, where all their rows are decoded together in each of `rounds`
/// rounds, with elements of `width` bytes: for each new token of a round the decoder's weights and the head once, the
/// keys and values of each prompt once per group, and each row's own. The first token needs the head alone.
pub fn decode_bytes(config: &QwenVlConfig, group: &GroupSize, [groups, rounds]: [f64; 2], width: usize) -> f64 {
    let GroupSize { prompt: p, responses: n, response: r } = *group;
    let [layers, head] = weights(config);
    let later = (r - 1.0).max(0.0);
    let kv = 2.0 * (config.text.num_hidden_layers * config.text.kv_width()) as f64;
    let cached = groups * (later * p + n * r * later / 2.0);
    width as f64 * (rounds * (later * layers + r * head) + kv * cached)
}

/// Bytes that the optimizer reads and writes of each parameter whose weight has `width` bytes: its gradient once, its
/// moments, its f32 copy and itself twice.
pub fn optimizer_bytes(optim: &Optim, width: usize) -> f64 {
    let moments = if optim.moments_dtype == MomentsDtype::Bf16 { 4 } else { 8 };
    let master = if optim.master_weights && width < 4 { 4 } else { 0 };
    let gradient = if optim.grads_dtype == GradsDtype::Bf16 { 2 } else { 4 };
    (gradient + 2 * (moments + master + width)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 7b, one prompt of 1,500 tokens and 8 responses of 700: 2 x 6.5e9 operations a token of 28 layers, attention 3%.
    #[test]
    fn a_group_of_7b() {
        let config = QwenVlConfig::preset("7b").unwrap();
        let layer = 3584.0 * (2.0 * 3584.0 + 2.0 * 512.0 + 3.0 * 18_944.0);
        let group = GroupSize { prompt: 1500.0, responses: 8.0, response: 700.0 };
        let linear = 2.0 * 7100.0 * 28.0 * layer + 2.0 * 5600.0 * 152_064.0 * 3584.0;
        let pairs = 1500.0 * 1501.0 / 2.0 + 8.0 * (700.0 * 1500.0 + 700.0 * 701.0 / 2.0);
        let flops = decoder_flops(&config, &group);
        assert!((flops - (linear + 4.0 * pairs * 28.0 * 3584.0)).abs() < 1e-6 * flops);
        assert!((flops / linear - 1.0) > 0.03 && (flops / linear - 1.0) < 0.06, "{}", flops / linear);
        // A prompt alone has no head.
        let prompt = decoder_flops(&config, &GroupSize { responses: 0.0, ..group });
        assert!((prompt - (3000.0 * 28.0 * layer + 4.0 * 1500.0 * 1501.0 / 2.0 * 28.0 * 3584.0)).abs() < 1e-6 * prompt);
        // All 64 rows together: 13 GB of layers and 1.1 GB of head a token; keys and values of 56 KiB a token.
        let weights = 699.0 * 2.0 * 28.0 * layer + 700.0 * 2.0 * 152_064.0 * 3584.0;
        let cached = 57_344.0 * 8.0 * (699.0 * 1500.0 + 8.0 * 700.0 * 699.0 / 2.0);
        let bytes = decode_bytes(&config, &group, [8.0, 1.0], 2);
        assert!((bytes - weights - cached).abs() < 1e-6 * bytes, "{bytes}");
    }
}
