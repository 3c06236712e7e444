//! Qwen2.5-VL: RMSNorm and SwiGLU in the tower, which attends in windows but for a few blocks; M-RoPE in sections.

use kernels::rope::MRope;
use policy::ModelError;
use serde_json::{Value, json};

use super::{Family, TextRules};
use crate::config::reader::Reader;
use crate::config::text::TextConfig;
use crate::config::vision::{
    self, MlpKind, NormKind, QWEN2_NAMES, TowerAttention, VisionConfig, heads, merged_side, out_width, rope_theta,
};

pub(super) static FAMILY: Family = Family {
    model_type: "qwen2_5_vl",
    name: "Qwen2.5-VL",
    text: TextRules {
        rope_theta: 1e6,
        mrope_section: [16, 24, 24],
        mrope: MRope::Sections,
        rms_norm_eps: 1e-5,
        head_dim: None,
        qkv_bias: true,
        qk_norm: false,
        inner_tying: true,
    },
    tower,
    prefixes: &[],
    fits_f16: true,
    preset,
    presets: &["toy", "small", "3b", "7b", "32b"],
};

fn tower(r: &Reader, text: &TextConfig) -> Result<VisionConfig, ModelError> {
    r.silu()?;
    let depth = r.layers("depth", None)?;
    let hidden_size = r.positive(&["hidden_size"], None)?;
    let num_heads = heads(r, hidden_size, None)?;
    let patch_size = r.within(&["patch_size", "spatial_patch_size"], Some(14), 1024)?;
    let spatial_merge_size = r.within(&["spatial_merge_size"], Some(2), 64)?;
    let window = r.positive(&["window_size"], Some(112))?;
    Ok(VisionConfig {
        rope_theta: rope_theta(r)?,
        depth,
        hidden_size,
        intermediate_size: r.positive(&["intermediate_size"], None)?,
        num_heads,
        in_channels: r.within(&["in_channels", "in_chans"], Some(3), 64)?,
        out_hidden_size: out_width(r, "out_hidden_size", None, text)?,
        patch_size,
        spatial_merge_size,
        temporal_patch_size: r.within(&["temporal_patch_size"], Some(2), 64)?,
        norm: NormKind::Rms,
        mlp: MlpKind::Gated,
        attention: TowerAttention::Windows {
            side: merged_side(r, window, patch_size * spatial_merge_size)?,
            full: vision::indexes(r, "fullatt_block_indexes", &[7, 15, 23, 31])?,
        },
        patch_bias: false,
        position_side: None,
        deepstack: Vec::new(),
        names: &QWEN2_NAMES,
    })
}

/// `toy` (about 1 M parameters), `small` (about 13 M), and the published sizes. `small`, `3b` and `7b` have the sizes of the
/// PyTorch peer benchmark.
fn preset(name: &str) -> Option<Value> {
    // text hidden, layers, heads, kv heads, mlp; vision depth, hidden, heads, mlp; vocab
    let (h, l, a, kv, m, vd, vh, va, vm, vocab) = match name {
        "toy" => (128, 4, 4, 2, 352, 2, 64, 4, 172, 64),
        "small" => (384, 6, 6, 2, 1024, 4, 192, 6, 512, 8192),
        "3b" => (2048, 36, 16, 2, 11008, 32, 1280, 16, 3420, 151936),
        "7b" => (3584, 28, 28, 4, 18944, 32, 1280, 16, 3420, 152064),
        "32b" => (5120, 64, 40, 8, 27648, 32, 1280, 16, 3456, 152064),
        _ => return None,
    };
    let real = matches!(name, "3b" | "7b" | "32b");
    let hd: usize = h / a;
    let s = 3 * hd / 16;
    let section = [hd / 2 - 2 * s, s, s];
    let tie = !matches!(name, "7b" | "32b");
    let full: Vec<usize> = if vd > 7 { (7..vd).step_by(8).collect() } else { vec![vd - 1] };
    let ids: [u32; 6] = if real { [151643, 151645, 151652, 151653, 151655, 151656] } else { [0, 1, 2, 3, 4, 5] };
    Some(json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "bos_token_id": ids[0], "eos_token_id": ids[1],
        "vision_start_token_id": ids[2], "vision_end_token_id": ids[3],
        "image_token_id": ids[4], "video_token_id": ids[5],
        "hidden_act": "silu", "hidden_size": h, "num_hidden_layers": l, "num_attention_heads": a,
        "num_key_value_heads": kv, "intermediate_size": m, "vocab_size": vocab,
        "max_position_embeddings": if real { 128000 } else { 32768 },
        "initializer_range": 0.02, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_scaling": { "type": "mrope", "mrope_section": section },
        "tie_word_embeddings": tie, "use_sliding_window": false,
        "vision_config": {
            "model_type": "qwen2_5_vl", "depth": vd, "hidden_act": "silu", "hidden_size": vh, "intermediate_size": vm,
            "num_heads": va, "in_chans": 3, "in_channels": 3, "out_hidden_size": h, "patch_size": 14, "spatial_merge_size": 2,
            "spatial_patch_size": 14, "window_size": 112, "fullatt_block_indexes": full,
            "tokens_per_second": 2, "temporal_patch_size": 2
        }
    }))
}
