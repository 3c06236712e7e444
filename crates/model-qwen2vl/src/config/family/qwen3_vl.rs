//! Qwen3-VL (dense): a tower with learned positions whose inner states feed the first layers of the decoder, too (DeepStack); a
//! decoder with normed queries and keys, a head size of its own and interleaved M-RoPE.

use kernels::Activation;
use kernels::rope::MRope;
use policy::ModelError;
use serde_json::{Value, json};

use super::{Family, TextRules};
use crate::config::reader::Reader;
use crate::config::text::TextConfig;
use crate::config::vision::{
    MlpKind, NormKind, QWEN3_NAMES, TowerAttention, VisionConfig, activation, heads, indexes, out_width, rope_theta,
};

pub(super) static FAMILY: Family = Family {
    model_type: "qwen3_vl",
    name: "Qwen3-VL",
    text: TextRules {
        rope_theta: 5e5,
        mrope_section: [24, 20, 20],
        mrope: MRope::Interleaved,
        rms_norm_eps: 1e-6,
        head_dim: Some(128),
        qkv_bias: false,
        qk_norm: true,
        inner_tying: false,
    },
    tower,
    prefixes: &[("visual.", "model.visual."), ("model.", "model.language_model.")],
    // `linear_fc1` of the published weights exceeds 65504 (unsloth-zoo #720, #787).
    fits_f16: false,
    preset,
    presets: &["qwen3vl-toy", "qwen3vl-2b", "qwen3vl-4b", "qwen3vl-8b", "qwen3vl-32b"],
};

fn tower(r: &Reader, text: &TextConfig) -> Result<VisionConfig, ModelError> {
    let depth = r.layers("depth", Some(27))?;
    let hidden_size = r.positive(&["hidden_size"], Some(1152))?;
    let positions = r.positive(&["num_position_embeddings"], Some(2304))?;
    let side = positions.isqrt();
    if side * side != positions {
        return Err(r.fail("num_position_embeddings", format!("{positions} is not the square of a whole number")));
    }
    let key = "deepstack_visual_indexes";
    let deepstack = indexes(r, key, &[8, 16, 24])?;
    if !deepstack.is_sorted_by(|a, b| a < b) {
        return Err(r.fail(key, format!("{deepstack:?} must increase: the k-th entry feeds decoder layer k")));
    }
    if let Some(block) = deepstack.iter().find(|&&block| block >= depth) {
        return Err(r.fail(key, format!("there is no block {block} in a tower of depth {depth}")));
    }
    if deepstack.len() > text.num_hidden_layers {
        let (entries, layers) = (deepstack.len(), text.num_hidden_layers);
        return Err(r.fail(key, format!("{entries} entries, but the decoder has {layers} layers to take them")));
    }
    Ok(VisionConfig {
        rope_theta: rope_theta(r)?,
        depth,
        hidden_size,
        intermediate_size: r.positive(&["intermediate_size"], Some(4304))?,
        num_heads: heads(r, hidden_size, Some(16))?,
        in_channels: r.within(&["in_channels", "in_chans"], Some(3), 64)?,
        out_hidden_size: out_width(r, "out_hidden_size", Some(3584), text)?,
        patch_size: r.within(&["patch_size"], Some(16), 1024)?,
        spatial_merge_size: r.within(&["spatial_merge_size"], Some(2), 64)?,
        temporal_patch_size: r.within(&["temporal_patch_size"], Some(2), 64)?,
        norm: NormKind::Layer,
        mlp: MlpKind::Plain(activation(r, Activation::GeluTanh)?),
        attention: TowerAttention::Full,
        patch_bias: true,
        position_side: Some(side),
        deepstack,
        names: &QWEN3_NAMES,
    })
}

/// The published dense sizes, and `qwen3vl-toy` (about 1 M parameters).
fn preset(name: &str) -> Option<Value> {
    // text hidden, layers, heads, kv heads, head, mlp, tied; vision depth, hidden, heads, mlp
    let (h, l, a, kv, hd, m, tied, vd, vh, va, vm) = match name {
        "qwen3vl-toy" => (128, 4, 4, 2, 32, 352, true, 3, 64, 4, 192),
        "qwen3vl-2b" => (2048, 28, 16, 8, 128, 6144, true, 24, 1024, 16, 4096),
        "qwen3vl-4b" => (2560, 36, 32, 8, 128, 9728, true, 24, 1024, 16, 4096),
        "qwen3vl-8b" => (4096, 36, 32, 8, 128, 12288, false, 27, 1152, 16, 4304),
        "qwen3vl-32b" => (5120, 64, 64, 8, 128, 25600, false, 27, 1152, 16, 4304),
        _ => return None,
    };
    let real = name != "qwen3vl-toy";
    let ids: [u32; 6] = if real { [151643, 151645, 151652, 151653, 151655, 151656] } else { [0, 1, 2, 3, 4, 5] };
    // The toy world's pictures are made of tokens of 28 pixels, at most a few dozen of them.
    let (patch, side, vocab, section) =
        if real { (16, 48usize, 151936, [24, 20, 20]) } else { (14, 12, 64, [6, 5, 5]) };
    let deepstack = match vd {
        3 => vec![0, 1],
        24 => vec![5, 11, 17],
        _ => vec![8, 16, 24],
    };
    Some(json!({
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "vision_start_token_id": ids[2], "vision_end_token_id": ids[3],
        "image_token_id": ids[4], "video_token_id": ids[5],
        "tie_word_embeddings": tied,
        "text_config": {
            "model_type": "qwen3_vl_text", "attention_bias": false, "bos_token_id": ids[0], "eos_token_id": ids[1],
            "head_dim": hd, "hidden_act": "silu", "hidden_size": h, "initializer_range": 0.02, "intermediate_size": m,
            "max_position_embeddings": if real { 262144 } else { 32768 },
            "num_attention_heads": a, "num_hidden_layers": l, "num_key_value_heads": kv, "rms_norm_eps": 1e-6,
            "rope_scaling": { "mrope_interleaved": true, "mrope_section": section, "rope_type": "default" },
            "rope_theta": 5e6, "tie_word_embeddings": tied, "vocab_size": vocab
        },
        "vision_config": {
            "model_type": "qwen3_vl", "depth": vd, "hidden_act": "gelu_pytorch_tanh", "hidden_size": vh,
            "intermediate_size": vm, "num_heads": va, "in_channels": 3, "out_hidden_size": h, "patch_size": patch,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": side * side,
            "deepstack_visual_indexes": deepstack
        }
    }))
}
