//! Qwen2-VL: LayerNorm and an MLP without a gate in the tower, every block of which attends over the whole image; the decoder of
//! Qwen2.5-VL.

use kernels::Activation;
use kernels::rope::MRope;
use policy::ModelError;
use serde_json::{Value, json};

use super::{Family, TextRules};
use crate::config::reader::Reader;
use crate::config::text::TextConfig;
use crate::config::vision::{
    MlpKind, NormKind, QWEN2_NAMES, TowerAttention, VisionConfig, activation, heads, out_width, rope_theta,
};

pub(super) static FAMILY: Family = Family {
    model_type: "qwen2_vl",
    name: "Qwen2-VL",
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
    presets: &["qwen2vl-toy", "qwen2vl-2b", "qwen2vl-7b", "qwen2vl-72b"],
};

/// The tower's width is `embed_dim`; `hidden_size` is the decoder's.
fn tower(r: &Reader, text: &TextConfig) -> Result<VisionConfig, ModelError> {
    let width = r.positive(&["embed_dim"], Some(1280))?;
    let wide = r.f64_of("mlp_ratio", 4.0)? * width as f64;
    if wide < 1.0 || wide.fract() != 0.0 || wide > 1e9 {
        return Err(r.fail("mlp_ratio", format!("{wide} is not a whole width of the MLP (mlp_ratio x embed_dim)")));
    }
    Ok(VisionConfig {
        rope_theta: rope_theta(r)?,
        depth: r.layers("depth", Some(32))?,
        hidden_size: width,
        intermediate_size: wide as usize,
        num_heads: heads(r, width, Some(16))?,
        in_channels: r.within(&["in_channels", "in_chans"], Some(3), 64)?,
        out_hidden_size: out_width(r, "hidden_size", Some(3584), text)?,
        patch_size: r.within(&["patch_size", "spatial_patch_size"], Some(14), 1024)?,
        spatial_merge_size: r.within(&["spatial_merge_size"], Some(2), 64)?,
        temporal_patch_size: r.within(&["temporal_patch_size"], Some(2), 64)?,
        norm: NormKind::Layer,
        mlp: MlpKind::Plain(activation(r, Activation::QuickGelu)?),
        attention: TowerAttention::Full,
        patch_bias: false,
        position_side: None,
        deepstack: Vec::new(),
        names: &QWEN2_NAMES,
    })
}

/// The published sizes, and `qwen2vl-toy` (about 1 M parameters).
fn preset(name: &str) -> Option<Value> {
    // text hidden, layers, heads, kv heads, mlp; vision depth, hidden, heads; vocab
    let (h, l, a, kv, m, vd, vh, va, vocab) = match name {
        "qwen2vl-toy" => (128, 4, 4, 2, 352, 2, 64, 4, 64),
        "qwen2vl-2b" => (1536, 28, 12, 2, 8960, 32, 1280, 16, 151936),
        "qwen2vl-7b" => (3584, 28, 28, 4, 18944, 32, 1280, 16, 152064),
        "qwen2vl-72b" => (8192, 80, 64, 8, 29568, 32, 1280, 16, 152064),
        _ => return None,
    };
    let real = name != "qwen2vl-toy";
    let ids: [u32; 6] = if real { [151643, 151645, 151652, 151653, 151655, 151656] } else { [0, 1, 2, 3, 4, 5] };
    let section = if real { [16, 24, 24] } else { [4, 6, 6] };
    Some(json!({
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "bos_token_id": ids[0], "eos_token_id": ids[1],
        "vision_start_token_id": ids[2], "vision_end_token_id": ids[3],
        "image_token_id": ids[4], "video_token_id": ids[5],
        "hidden_act": "silu", "hidden_size": h, "num_hidden_layers": l, "num_attention_heads": a,
        "num_key_value_heads": kv, "intermediate_size": m, "vocab_size": vocab,
        "max_position_embeddings": 32768, "initializer_range": 0.02, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_scaling": { "type": "mrope", "mrope_section": section },
        "tie_word_embeddings": vocab != 152064, "use_sliding_window": false,
        "vision_config": {
            "model_type": "qwen2_vl", "depth": vd, "hidden_act": "quick_gelu", "embed_dim": vh, "mlp_ratio": 4,
            "num_heads": va, "in_chans": 3, "in_channels": 3, "hidden_size": h, "patch_size": 14, "spatial_merge_size": 2,
            "spatial_patch_size": 14, "temporal_patch_size": 2
        }
    }))
}
