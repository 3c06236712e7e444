//! The vision tower's sizes and choices, and what reading them has in common between families.

use kernels::Activation;
use policy::ModelError;
use serde_json::Value;

use super::reader::{ConfigReader, shown};
use super::text::TextConfig;

/// Which norm the tower's blocks and mergers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// RMSNorm.
    Rms,
    /// LayerNorm with weight and bias.
    Layer,
}

/// Which MLP a block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlpKind {
    /// SwiGLU: `down(silu(gate(x)) * up(x))`.
    Gated,
    /// `fc2(act(fc1(x)))`.
    Plain(Activation),
}

/// How far the tower's blocks attend.
#[derive(Debug, Clone, PartialEq)]
pub enum TowerAttention {
    /// Over the whole image, in every block.
    Full,
    /// Inside of windows of `side x side` merged tokens, but over the whole image in the blocks `full`.
    Windows {
        /// Merged tokens a window side.
        side: usize,
        /// Blocks that attend over the whole image.
        full: Vec<usize>,
    },
}

/// Parts of tensor names that differ between towers.
#[derive(Debug, PartialEq)]
pub struct TowerNames {
    /// First and second layer of a plain MLP, behind `mlp.`.
    pub mlp: [&'static str; 2],
    /// Norm of a merger.
    pub merger_norm: &'static str,
    /// First and second layer of a merger.
    pub merger: [&'static str; 2],
}

pub(super) static QWEN2_NAMES: TowerNames =
    TowerNames { mlp: ["fc1", "fc2"], merger_norm: "ln_q", merger: ["mlp.0", "mlp.2"] };
pub(super) static QWEN3_NAMES: TowerNames =
    TowerNames { mlp: ["linear_fc1", "linear_fc2"], merger_norm: "norm", merger: ["linear_fc1", "linear_fc2"] };

/// The vision tower. Names as in Hugging Face's `vision_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width, `w` (`embed_dim` in Qwen2-VL's file).
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Colour channels (3).
    pub in_channels: usize,
    /// Width of the decoder that the mergers feed, `d`.
    pub out_hidden_size: usize,
    /// Pixels a patch side (14 or 16).
    pub patch_size: usize,
    /// Patches a merged token side (2).
    pub spatial_merge_size: usize,
    /// Frames a patch (2).
    pub temporal_patch_size: usize,
    /// Base of the rotary frequencies (1e4).
    pub rope_theta: f64,
    /// Norm of blocks and mergers.
    pub norm: NormKind,
    /// MLP of the blocks.
    pub mlp: MlpKind,
    /// How far blocks attend.
    pub attention: TowerAttention,
    /// Whether the patch embedding has a bias.
    pub patch_bias: bool,
    /// Side `S` of the table of `S x S` learned positions, if there is one.
    pub position_side: Option<usize>,
    /// Blocks whose output is merged, too, for the decoder's layers 0, 1, 2 ... (DeepStack).
    pub deepstack: Vec<usize>,
    /// Names of its tensors.
    pub names: &'static TowerNames,
}

impl VisionConfig {
    /// Values of one flattened patch: channels x frames x patch x patch (1176 or 1536 for the published models).
    pub fn patch_dim(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }
    /// Patches that a merger joins to one image token.
    pub fn merge_unit(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }
    /// Size of one head.
    pub(crate) fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }
    /// Image tokens that a grid of patches becomes.
    pub fn image_tokens(&self, grid: [usize; 3]) -> usize {
        grid.iter().product::<usize>() / self.merge_unit()
    }
    /// Values that the decoder gets of an image token, `(1 + K) d`: its embedding, and `d` for each DeepStack block.
    pub fn features_width(&self) -> usize {
        (1 + self.deepstack.len()) * self.out_hidden_size
    }
}

/// `num_heads` of a tower of `width`, which 2-D rotary positions must be able to turn.
pub(super) fn heads(r: &ConfigReader, width: usize, default: Option<usize>) -> Result<usize, ModelError> {
    let heads = r.positive(&["num_heads"], default)?;
    if !width.is_multiple_of(heads.saturating_mul(4)) {
        return Err(r.fail(
            "num_heads",
            format!(
                "{heads} heads do not divide the width {width} into heads of a multiple of 4 (2-D rotary positions)"
            ),
        ));
    }
    Ok(heads)
}

/// The width under `key` that the mergers give, which must be the decoder's.
pub(super) fn out_width(
    r: &ConfigReader,
    key: &'static str,
    default: Option<usize>,
    text: &TextConfig,
) -> Result<usize, ModelError> {
    let (out, d) = (r.positive(&[key], default)?, text.hidden_size);
    if out == d {
        return Ok(out);
    }
    let reason = format!("{}{key} is {out} but hidden_size is {d}; they must be equal", r.prefix);
    Err(ModelError::Config { path: r.path.into(), reason })
}

/// Merged tokens a side of a window of `window` pixels.
pub(super) fn merged_side(r: &ConfigReader, window: usize, token: usize) -> Result<usize, ModelError> {
    match window / token {
        0 => Err(r.fail("window_size", format!("{window} is smaller than one merged token of {token}"))),
        side => Ok(side),
    }
}

/// A list of block numbers.
pub(super) fn indexes(r: &ConfigReader, key: &str, default: &[usize]) -> Result<Vec<usize>, ModelError> {
    let index = |v: &Value| {
        v.as_u64().map(|v| v as usize).ok_or_else(|| r.fail(key, format!("expected whole numbers, found {}", shown(v))))
    };
    match r.map.get(key) {
        None | Some(Value::Null) => Ok(default.to_vec()),
        Some(Value::Array(a)) => a.iter().map(index).collect(),
        Some(v) => Err(r.fail(key, format!("expected a list, found {}", shown(v)))),
    }
}

/// The base of the rotary frequencies. transformers 5 writes it; the hub's files do not.
pub(super) fn rope_theta(r: &ConfigReader) -> Result<f64, ModelError> {
    let Some(map) = r.object("rope_parameters")? else { return Ok(1e4) };
    let rope = ConfigReader { map, prefix: "vision_config.rope_parameters.", ..*r };
    match rope.map.get("rope_type").and_then(Value::as_str) {
        None | Some("axial" | "default") => rope.positive_f64("rope_theta", 1e4),
        Some(other) => {
            Err(rope.fail("rope_type", format!("\"{}\" is not supported; expected \"axial\"", shown(other))))
        }
    }
}

/// `hidden_act` of a plain MLP.
pub(super) fn activation(r: &ConfigReader, default: Activation) -> Result<Activation, ModelError> {
    match r.map.get("hidden_act").and_then(Value::as_str) {
        None => Ok(default),
        Some("quick_gelu") => Ok(Activation::QuickGelu),
        Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("gelu") => Ok(Activation::Gelu),
        Some(other) => Err(r.fail(
            "hidden_act",
            format!(
                "\"{}\" is not supported; expected \"quick_gelu\", \"gelu_pytorch_tanh\" or \"gelu\"",
                shown(other)
            ),
        )),
    }
}
