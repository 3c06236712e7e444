//! The families of models. A family is a description: what its `config.json` means, in terms of the choices that the layers
//! know, and what its tensors are called in files. Each has a file here and an entry in [`FAMILIES`]; nothing else in the crate
//! asks for the family.

mod qwen2_5_vl;
mod qwen2_vl;
mod qwen3_vl;

use kernels::rope::MRope;
use policy::ModelError;
use serde_json::Value;

use super::reader::Reader;
use super::text::TextConfig;
use super::vision::VisionConfig;

/// All families.
pub static FAMILIES: [&Family; 3] = [&qwen2_vl::FAMILY, &qwen2_5_vl::FAMILY, &qwen3_vl::FAMILY];

/// One family of models.
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Its name in print.
    pub name: &'static str,
    pub(super) text: TextRules,
    /// Reads `vision_config` for a decoder of the given width.
    pub(super) tower: fn(&Reader, &TextConfig) -> Result<VisionConfig, ModelError>,
    /// Prefixes of tensor names in this crate, and in the files that transformers and vLLM read.
    pub(crate) prefixes: &'static [(&'static str, &'static str)],
    /// Whether activations of the published weights stay within f16.
    pub(crate) fits_f16: bool,
    /// `config.json` of the built-in sizes, by name.
    pub(super) preset: fn(&str) -> Option<Value>,
    /// Names of the built-in sizes, that of the toy world first.
    pub presets: &'static [&'static str],
}

/// What is the family's in `text_config`: defaults as in transformers, and choices that no key makes.
pub(super) struct TextRules {
    /// Default of `rope_theta`.
    pub rope_theta: f64,
    /// Default of `mrope_section`.
    pub mrope_section: [usize; 3],
    /// How the sections lie.
    pub mrope: fn([usize; 3]) -> MRope,
    /// Default of `rms_norm_eps`.
    pub rms_norm_eps: f64,
    /// Default of `head_dim` where that is free; none where it is `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether queries and keys are normed a head at a time.
    pub qk_norm: bool,
    /// Whether `text_config.tie_word_embeddings` counts beside the outer key.
    pub inner_tying: bool,
}

impl Family {
    /// The family of a `model_type`.
    pub fn of(model_type: &str) -> Option<&'static Self> {
        FAMILIES.into_iter().find(|family| family.model_type == model_type)
    }

    /// The name in files of the tensor that this crate calls `name`.
    pub fn file_name(&self, name: &str) -> String {
        let renamed = self.prefixes.iter().find_map(|(own, file)| Some(format!("{file}{}", name.strip_prefix(own)?)));
        renamed.unwrap_or_else(|| name.to_string())
    }
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}
