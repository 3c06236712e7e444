//! The decoder's sizes and choices.

use kernels::rope::{MRope, Rope};
use policy::ModelError;
use serde_json::{Map, Value};

use super::family::Family;
use super::reader::{ConfigReader, shown};

/// The decoder. Names as in Hugging Face's `text_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Entries of the embedding table, `V`.
    pub vocab_size: usize,
    /// Width of the residual stream, `d`.
    pub hidden_size: usize,
    /// Width of the SwiGLU.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads, `H`.
    pub num_attention_heads: usize,
    /// Key/value heads, `Hkv`.
    pub num_key_value_heads: usize,
    /// Size of one head, `hd`. `H hd` need not be `d`.
    pub head_dim: usize,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Whether queries and keys go through an RMSNorm a head before they are rotated.
    pub qk_norm: bool,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Which axis turns which rotary pair.
    pub mrope: MRope,
    /// Whether `lm_head` is the embedding table.
    pub tie_word_embeddings: bool,
    /// Standard deviation of a random initialisation.
    pub initializer_range: f64,
    /// Longest sequence the model was made for.
    pub max_position_embeddings: usize,
}

impl TextConfig {
    /// Width of all queries together, `H hd`.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }
    /// How heads turn with a token's positions.
    pub(crate) fn rope(&self) -> Rope {
        Rope { head_dim: self.head_dim, theta: self.rope_theta, mrope: self.mrope }
    }
    /// Width of all keys together, `Hkv hd`.
    pub fn kv_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    pub(super) fn read(top: &ConfigReader, text: &ConfigReader, family: &Family) -> Result<Self, ModelError> {
        refuse(text, family)?;
        text.silu()?;
        let hidden_size = text.positive(&["hidden_size"], None)?;
        let heads = text.positive(&["num_attention_heads"], None)?;
        let kv_heads = text.positive(&["num_key_value_heads"], Some(heads))?;
        let head_dim = head_dim(text, family, hidden_size, heads)?;
        if heads % kv_heads != 0 {
            return Err(
                text.fail("num_key_value_heads", format!("{kv_heads} does not divide num_attention_heads {heads}"))
            );
        }
        let (rope_theta, sections) = rope(text, family, head_dim / 2)?;
        // In older families, nested files may say it in either place.
        let inner = text.bool_of("tie_word_embeddings")?.unwrap_or(false) && family.text.inner_tying;
        Ok(Self {
            vocab_size: text.positive(&["vocab_size"], None)?,
            hidden_size,
            intermediate_size: text.positive(&["intermediate_size"], None)?,
            num_hidden_layers: text.layers("num_hidden_layers", None)?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            qkv_bias: family.text.qkv_bias,
            qk_norm: family.text.qk_norm,
            rms_norm_eps: text.positive_f64("rms_norm_eps", family.text.rms_norm_eps)?,
            rope_theta,
            mrope: (family.text.mrope)(sections),
            tie_word_embeddings: top.bool_of("tie_word_embeddings")?.unwrap_or(false) || inner,
            initializer_range: text.f64_of("initializer_range", 0.02)?,
            max_position_embeddings: text.within(&["max_position_embeddings"], Some(32768), 1 << 30)?,
        })
    }
}

/// A larger width of all queries together than any model has.
const MOST_WIDTH: usize = 1 << 24;

/// What no family here has: a model that has it would compute something else.
fn refuse(text: &ConfigReader, family: &Family) -> Result<(), ModelError> {
    if text.bool_of("use_sliding_window")? == Some(true) {
        return Err(text.fail("use_sliding_window", "sliding-window attention is not supported; set it to false"));
    }
    // A key of Qwen3-VL only; older families have these biases without saying so.
    if !family.text.qkv_bias && text.bool_of("attention_bias")? == Some(true) {
        return Err(
            text.fail("attention_bias", "biases of the attention's projections are not supported; set it to false")
        );
    }
    for key in ["num_experts", "num_local_experts", "n_routed_experts"] {
        if text.usize_of(&[key], Some(0))? > 0 {
            return Err(text.fail(key, "mixtures of experts are not supported; take a dense model"));
        }
    }
    Ok(())
}

fn head_dim(text: &ConfigReader, family: &Family, hidden_size: usize, heads: usize) -> Result<usize, ModelError> {
    let Some(default) = family.text.head_dim else {
        if !hidden_size.is_multiple_of(heads.saturating_mul(2)) {
            return Err(text.fail(
                "num_attention_heads",
                format!("{heads} heads do not divide hidden_size {hidden_size} into even-sized heads"),
            ));
        }
        let own = hidden_size / heads;
        return match text.positive(&["head_dim"], Some(own))? {
            hd if hd == own => Ok(hd),
            hd => Err(text.fail("head_dim", format!("{hd} differs from hidden_size / num_attention_heads = {own}"))),
        };
    };
    match text.positive(&["head_dim"], Some(default))? {
        hd if heads.checked_mul(hd).is_none_or(|width| width > MOST_WIDTH) => {
            Err(text.fail("head_dim", format!("{heads} heads of {hd}; a width of at most {MOST_WIDTH} is believed")))
        }
        hd if hd % 2 == 0 => Ok(hd),
        hd => Err(text.fail("head_dim", format!("{hd} is odd; rotary positions turn pairs"))),
    }
}

/// Base and sections of the rotary positions. The hub's files have `rope_theta` and `rope_scaling`, transformers 5
/// writes `rope_parameters`; of both it takes the former.
fn rope(text: &ConfigReader, family: &Family, half: usize) -> Result<(f64, [usize; 3]), ModelError> {
    let own = match text.object("rope_scaling")?.filter(|m| !m.is_empty()) {
        Some(m) => Some((m, "rope_scaling.")),
        None => text.object("rope_parameters")?.map(|m| (m, "rope_parameters.")),
    };
    let none = Map::new();
    let (map, prefix) = own.unwrap_or((&none, "rope_parameters."));
    let rope = ConfigReader { map, prefix, ..*text };
    for key in ["type", "rope_type"] {
        match rope.map.get(key).and_then(Value::as_str) {
            None | Some("default" | "mrope") => {}
            Some(other) => {
                return Err(
                    rope.fail(key, format!("\"{}\" is not supported; expected \"default\" or \"mrope\"", shown(other)))
                );
            }
        }
    }
    let theta = match rope.map.get("rope_theta") {
        Some(_) => rope.positive_f64("rope_theta", family.text.rope_theta)?,
        None => text.positive_f64("rope_theta", family.text.rope_theta)?,
    };
    let sections: [usize; 3] = match rope.map.get("mrope_section") {
        // As transformers: the sections of the published models.
        None | Some(Value::Null) => family.text.mrope_section,
        Some(value) => value
            .as_array()
            .and_then(|a| a.iter().map(|v| v.as_u64().map(|v| v as usize)).collect::<Option<Vec<_>>>())
            .and_then(|s| s.try_into().ok())
            .ok_or_else(|| rope.fail("mrope_section", "expected three whole numbers"))?,
    };
    let sum = sections.iter().try_fold(0usize, |sum, part| sum.checked_add(*part));
    if sum != Some(half) {
        let sum = sum.map_or("more than 64 bits hold".to_owned(), |sum| sum.to_string());
        return Err(rope.fail("mrope_section", format!("{sections:?} sums to {sum}, half of the head size is {half}")));
    }
    let interleaved = matches!((family.text.mrope)(sections), MRope::Interleaved(_));
    if interleaved && rope.bool_of("mrope_interleaved")? == Some(false) {
        // transformers ignores the key and interleaves: whether these weights were trained so is not known.
        let why = format!("false is not supported; {} always interleaves the axes", family.name);
        return Err(rope.fail("mrope_interleaved", why));
    }
    Ok((theta, sections))
}
