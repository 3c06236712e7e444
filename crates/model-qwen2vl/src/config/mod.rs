//! `config.json` of all families, in both of its forms: flat (the hub's older files) and nested under
//! `text_config`.

use std::path::Path;

use burn::tensor::DType;
use policy::ModelError;
use serde_json::{Value, json};

pub(crate) mod family;
mod reader;
mod text;
mod vision;

pub use family::{FAMILIES, Family};
pub use kernels::rope::MRope;
use reader::ConfigReader;
pub use text::TextConfig;
pub use vision::{MlpKind, NormKind, TowerAttention, TowerNames, VisionConfig};

/// The whole model.
#[derive(Debug, Clone, PartialEq)]
pub struct QwenVlConfig {
    /// What the file's `model_type` says.
    pub family: &'static Family,
    /// Decoder.
    pub text: TextConfig,
    /// Vision tower.
    pub vision: VisionConfig,
    /// Token put before an image.
    pub vision_start_token_id: u32,
    /// Token put after an image.
    pub vision_end_token_id: u32,
    /// Placeholder of one merged image token.
    pub image_token_id: u32,
    /// Placeholder of one merged video token (refused).
    pub video_token_id: u32,
    /// Tokens that end a response, from `eos_token_id` at the top and in `text_config` (generation_config.json may
    /// widen it).
    pub eos_token_ids: Vec<u32>,
    /// The file as it was read: written back unchanged, so that nothing a newer transformers added is lost.
    pub raw: Value,
}

impl QwenVlConfig {
    /// Reads `DIR/config.json`.
    ///
    /// # Errors
    /// A missing or malformed file, another architecture, a key of the wrong type or a contradiction: the key is named.
    pub fn from_folder(dir: &Path) -> Result<Self, ModelError> {
        if !dir.is_dir() {
            return Err(ModelError::Missing {
                path: dir.into(),
                what: "no such model folder; give a folder with config.json, tokenizer.json and *.safetensors".into(),
            });
        }
        let path = dir.join("config.json");
        let text = match guard::file::read_model_text(dir, "config.json") {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(ModelError::Missing { path, what: "missing; is this a Hugging Face model folder?".into() });
            }
            Err(source) => return Err(ModelError::Io { path, source }),
        };
        let raw = serde_json::from_str(&text)
            .map_err(|e| ModelError::Config { path: path.clone(), reason: format!("not valid JSON ({e})") })?;
        Self::from_json(raw, &path)
    }

    /// Understands one parsed `config.json`; `path` is for messages.
    ///
    /// # Errors
    /// As [`from_folder`](Self::from_folder).
    pub(crate) fn from_json(raw: Value, path: &Path) -> Result<Self, ModelError> {
        let config_error = |reason: String| ModelError::Config { path: path.into(), reason };
        let Value::Object(map) = &raw else {
            return Err(config_error("expected a JSON object".into()));
        };
        let model_type = map.get("model_type").and_then(Value::as_str);
        let family = model_type.and_then(Family::of).ok_or_else(|| config_error(unknown_family(model_type)))?;
        let top = ConfigReader { path, map, prefix: "", family: family.name };
        if top.map.get("quantization_config").is_some_and(|v| !v.is_null()) {
            return Err(top.fail("quantization_config", "quantised checkpoints cannot be trained"));
        }
        let text = match top.object("text_config")? {
            Some(map) => ConfigReader { map, prefix: "text_config.", ..top },
            None => top,
        };
        let vision = top
            .object("vision_config")?
            .ok_or_else(|| config_error(format!("vision_config: missing; a {} config needs it", family.name)))?;
        let vision = ConfigReader { map: vision, prefix: "vision_config.", ..top };

        // Where the id keys live differs between versions: look at the top first, then in text_config; else as
        // transformers.
        let id = |key: &str, default: usize| -> Result<u32, ModelError> {
            match map.get(key) {
                Some(v) if !v.is_null() => top.id(key, None),
                _ => text.id(key, Some(default)),
            }
        };
        let text_config = TextConfig::read(&top, &text, family)?;
        let vision_config = (family.tower)(&vision, &text_config)?;
        // A response ends at any of them; the two places may name different ones.
        let mut eos: Vec<u32> = Vec::new();
        for value in [map.get("eos_token_id"), text.map.get("eos_token_id")].into_iter().flatten() {
            let ids = token_ids(value).map_err(|reason| config_error(format!("eos_token_id: {reason}")))?;
            let new: Vec<u32> = ids.into_iter().filter(|id| !eos.contains(id)).collect();
            eos.extend(new);
        }
        // These are read from the file where they are needed.
        for key in ["bos_token_id", "pad_token_id", "vision_token_id"] {
            for reader in [&top, &text] {
                if reader.map.get(key).is_some_and(Value::is_u64) {
                    reader.id(key, None)?;
                }
            }
        }
        let config = Self {
            family,
            vision_start_token_id: id("vision_start_token_id", 151652)?,
            vision_end_token_id: id("vision_end_token_id", 151653)?,
            image_token_id: id("image_token_id", 151655)?,
            video_token_id: id("video_token_id", 151656)?,
            eos_token_ids: eos,
            text: text_config,
            vision: vision_config,
            raw,
        };
        for (key, id) in [
            ("vision_start_token_id", config.vision_start_token_id),
            ("vision_end_token_id", config.vision_end_token_id),
            ("image_token_id", config.image_token_id),
            ("video_token_id", config.video_token_id),
        ] {
            if id as usize >= config.text.vocab_size {
                return Err(config_error(format!(
                    "{key} is {id} but vocab_size is {}; the id must be below it",
                    config.text.vocab_size
                )));
            }
        }
        Ok(config)
    }

    /// The built-in sizes of all families, see [`Family::presets`]: the published ones, and small ones for tests,
    /// measurements and the toy world.
    pub fn preset(name: &str) -> Option<Self> {
        let raw = FAMILIES.into_iter().find_map(|family| (family.preset)(name))?;
        Self::from_json(raw, Path::new(name)).ok()
    }

    /// Whether the model can be computed in `dtype`.
    ///
    /// # Errors
    /// f16 where the family's activations exceed its range.
    pub(crate) fn check_dtype(&self, dtype: DType) -> Result<(), ModelError> {
        if dtype == DType::F16 && !self.family.fits_f16 {
            return Err(ModelError::Input(format!(
                "{} cannot be computed in f16: activations of its vision tower (linear_fc1) exceed 65504; take bf16 or f32",
                self.family.name
            )));
        }
        Ok(())
    }

    /// The same architecture with another vocabulary and other special ids (the toy tokenizer's).
    pub fn with_vocabulary(mut self, vocab_size: usize, ids: [(&str, u32); 6]) -> Result<Self, ModelError> {
        let mut set = |key: &str, value: Value| {
            let nested =
                self.raw.get_mut("text_config").and_then(|t| t.as_object_mut()).filter(|t| t.contains_key(key));
            if let Some(map) = nested {
                map.insert(key.into(), value);
            } else if let Value::Object(map) = &mut self.raw {
                map.insert(key.into(), value);
            }
        };
        set("vocab_size", json!(vocab_size));
        for (key, id) in ids {
            set(key, json!(id));
        }
        Self::from_json(self.raw, Path::new("config.json"))
    }

    /// Token ids that may never be sampled: an image or video placeholder without its picture would break the sequence.
    pub fn vision_token_ids(&self) -> Vec<u32> {
        let mut ids =
            vec![self.vision_start_token_id, self.vision_end_token_id, self.image_token_id, self.video_token_id];
        // It was checked when the file was read.
        ids.extend(self.raw.get("vision_token_id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()));
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// `eos_token_id` may be one id or a list of ids; what is no whole number is left out.
///
/// # Errors
/// An id that 32 bits do not hold.
pub(crate) fn token_ids(value: &Value) -> Result<Vec<u32>, String> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let id = |id: u64| u32::try_from(id).map_err(|_| format!("{id} is no token id; the largest is {}", u32::MAX));
    items.iter().filter_map(Value::as_u64).map(id).collect()
}

/// What is said of a `model_type` that is no family's.
fn unknown_family(found: Option<&str>) -> String {
    let known: Vec<String> = FAMILIES.iter().map(|f| format!("{:?} ({})", f.model_type, f.name)).collect();
    let known = known.join(", ");
    match found {
        None => format!("model_type: missing; expected one of {known}"),
        Some(moe) if moe.ends_with("_moe") => {
            let moe = guard::echo(moe);
            format!("model_type: \"{moe}\" is a mixture of experts, which is not supported; expected one of {known}")
        }
        Some(other) => {
            format!("model_type: \"{}\" is not supported; expected one of {known}", guard::echo(other))
        }
    }
}

#[cfg(test)]
mod tests;
