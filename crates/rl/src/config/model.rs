//! `[model]`: which weights are trained.

use ::policy::lora::{LoraConfig, ModuleNames};
use toml::Value;

use super::field::{Field, mismatch, quote};
use super::section::section;

section! {
    /// The model that is trained.
    pub struct Model {
        /// A Hugging Face model folder (config.json, tokenizer.json, preprocessor_config.json,
        /// *.safetensors); or a model on the Hugging Face hub, `owner/name` or `owner/name@revision`, which is fetched
        /// into the shared cache (HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HUB_OFFLINE); or "toy" for the model that is
        /// built into the program.
        path: String = String::from("toy"),
        /// Family of the model that is built in, by its `model_type`; a folder's is in its config.json. Empty: the
        /// first that the program knows. A name that is none gets the list.
        family: String = String::new(),
        /// Empty: start from the folder's weights. Otherwise start from random weights of this architecture; the
        /// tokenizer and the image processor still come from `path`. A name that is none gets the list.
        init: String = String::new(),
        /// Seed of the random weights, where there are any.
        init_seed: u64 = 1 => 0..=i64::MAX as u64,
        /// Keep the vision tower as it is and train only the decoder.
        freeze_vision_tower: bool = false,
        /// A folder with an adapter, PEFT's or one that was trained here, for the weights of `path`: the run goes on
        /// with it (`lora.enable`), or from weights that it is merged into. Empty: none, unless `path` is such a folder
        /// itself.
        adapter: String = String::new(),
    }
    sections {
        /// Adapters.
        lora: LoraSection,
    }
}

section! {
    /// Low-rank adapters in the place of the weights themselves (LoRA, docs/lora.md). Keys as in PEFT's `LoraConfig`.
    pub struct LoraSection {
        /// Train adapters: the weights stay, and have no gradients, no moments and no f32 copy.
        enable: bool = false,
        /// Width between an adapter's two matrices, PEFT's `r`.
        rank: usize = 16 => 1..=4096,
        /// An adapter's outputs are multiplied by `alpha / rank`.
        alpha: f64 = 32.0 => ..=1e6,
        /// Probability that an input of an adapter is dropped in training; not while sampling and scoring.
        dropout: f64 = 0.0 => ..=0.99,
        /// Multiply by `alpha / sqrt(rank)` in the place of `alpha / rank`.
        rslora: bool = false,
        /// The linear layers that have an adapter: a list of ends of their names in transformers, a regular expression
        /// for whole names, or "all-linear" for all but the head.
        target_modules: ModuleNames = decoder_modules(),
        /// Layers that have none all the same, as in `target_modules`. As it stands it leaves out the vision tower,
        /// some of whose layers have names that the decoder's have, too. Empty: none.
        exclude_modules: ModuleNames = ModuleNames::Pattern(String::from(".*visual.*")),
    }
}

/// The linear layers of a decoder.
fn decoder_modules() -> ModuleNames {
    let names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    ModuleNames::Ends(names.map(String::from).to_vec())
}

impl Model {
    /// The adapters that learn; none where the weights do.
    pub fn lora(&self) -> Option<LoraConfig> {
        let LoraSection { enable, rank, alpha, dropout, rslora, target_modules, exclude_modules } = self.lora.clone();
        enable.then_some(LoraConfig { rank, alpha, dropout, rslora, target_modules, exclude_modules })
    }
}

impl Field for ModuleNames {
    fn kind() -> String {
        "list of strings or a regular expression".into()
    }
    fn schema() -> serde_json::Value {
        super::schema::list(String::schema())
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(pattern) => Ok(Self::Pattern(pattern.clone())),
            Value::Array(_) => Vec::<String>::from_value(value).map(Self::Ends),
            other => Err(mismatch("a list of strings or a string", other)),
        }
    }
    fn to_text(&self) -> String {
        match self {
            Self::Ends(ends) => ends.to_text(),
            Self::Pattern(pattern) => quote(pattern),
        }
    }
    fn from_text(text: &str) -> Result<Self, String> {
        let (text, is_list) = (text.trim(), text.trim_start().starts_with('['));
        // An expression may begin as a list does, `[qk]_proj`.
        match is_list && text.ends_with(']') {
            true => Vec::<String>::from_text(text).map(Self::Ends),
            false => String::from_text(text).map(Self::Pattern),
        }
    }
}
