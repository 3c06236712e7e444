//! `config.json` of Qwen2.5-VL, in both of its forms: flat (the hub's files) and nested under `text_config` (transformers 5).

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::ModelError;

mod reader;

use reader::Reader;

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
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Rotary pairs turned by the temporal, height and width position; sums to `hd / 2`.
    pub mrope_section: [usize; 3],
    /// Whether `lm_head` is the embedding table.
    pub tie_word_embeddings: bool,
    /// Standard deviation of a random initialisation.
    pub initializer_range: f64,
    /// Longest sequence the model was made for.
    pub max_position_embeddings: usize,
}

impl TextConfig {
    /// Size of one head, `hd`.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// The vision tower. Names as in Hugging Face's `vision_config`.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width of the SwiGLU.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Colour channels (3).
    pub in_channels: usize,
    /// Width of the decoder that the merger feeds.
    pub out_hidden_size: usize,
    /// Pixels a patch side (14).
    pub patch_size: usize,
    /// Patches a merged token side (2).
    pub spatial_merge_size: usize,
    /// Frames a patch (2).
    pub temporal_patch_size: usize,
    /// Pixels a window side (112).
    pub window_size: usize,
    /// Blocks that attend over the whole image.
    pub fullatt_block_indexes: Vec<usize>,
    /// Base of the rotary frequencies (1e4).
    pub rope_theta: f64,
}

impl VisionConfig {
    /// Values of one flattened patch: channels x frames x patch x patch (1176 for the published models).
    pub fn patch_dim(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }
    /// Patches that the merger joins to one image token.
    pub fn merge_unit(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }
    /// Size of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }
    /// Image tokens that a grid of patches becomes.
    pub fn image_tokens(&self, grid: [usize; 3]) -> usize {
        grid.iter().product::<usize>() / self.merge_unit()
    }
}

/// The whole model.
#[derive(Debug, Clone, PartialEq)]
#[allow(non_camel_case_types)] // the name in Hugging Face
pub struct Qwen2_5_VLConfig {
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
    /// Tokens that end a response, from `eos_token_id` at the top and in `text_config` (generation_config.json may widen it).
    pub eos_token_ids: Vec<u32>,
    /// The file as it was read: written back unchanged, so that nothing a newer transformers added is lost.
    pub raw: Value,
}

impl Qwen2_5_VLConfig {
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
    pub fn from_json(raw: Value, path: &Path) -> Result<Self, ModelError> {
        let config_error = |reason: String| ModelError::Config { path: path.into(), reason };
        let Value::Object(top_map) = &raw else {
            return Err(config_error("expected a JSON object".into()));
        };
        match top_map.get("model_type").and_then(Value::as_str) {
            Some("qwen2_5_vl") => {}
            other => {
                return Err(config_error(format!(
                    "model_type: expected \"qwen2_5_vl\", found {}; only Qwen2.5-VL folders can be loaded",
                    other.map_or("nothing".into(), |o| format!("\"{}\"", guard::echo(o)))
                )));
            }
        }
        let top = Reader { path, map: top_map, prefix: "" };
        let nested = top.object("text_config")?;
        let text =
            Reader { path, map: nested.unwrap_or(top_map), prefix: if nested.is_some() { "text_config." } else { "" } };
        let vision_map = top
            .object("vision_config")?
            .ok_or_else(|| config_error("vision_config: missing; a Qwen2.5-VL config needs it".into()))?;
        let vision = Reader { path, map: vision_map, prefix: "vision_config." };

        // Where the id keys live differs between versions: look at the top first, then in text_config.
        let id = |key: &str| -> Result<u32, ModelError> {
            match top_map.get(key) {
                Some(v) if !v.is_null() => top.id(key),
                _ => text.id(key),
            }
        };
        let text_config = Self::text_config(&top, &text)?;
        let vision_config = Self::vision_config(&vision)?;
        if vision_config.out_hidden_size != text_config.hidden_size {
            return Err(config_error(format!(
                "vision_config.out_hidden_size is {} but hidden_size is {}; they must be equal",
                vision_config.out_hidden_size, text_config.hidden_size
            )));
        }
        // A response ends at any of them; the two places may name different ones.
        let mut eos: Vec<u32> = Vec::new();
        for value in [top_map.get("eos_token_id"), text.map.get("eos_token_id")].into_iter().flatten() {
            let ids = if value.is_null() {
                Vec::new()
            } else {
                token_ids(value).map_err(|reason| config_error(format!("eos_token_id: {reason}")))?
            };
            for id in ids {
                if !eos.contains(&id) {
                    eos.push(id);
                }
            }
        }
        // These are read from the file where they are needed.
        for key in ["bos_token_id", "pad_token_id", "vision_token_id"] {
            for reader in [&top, &text] {
                if reader.map.get(key).is_some_and(Value::is_u64) {
                    reader.id(key)?;
                }
            }
        }
        let config = Self {
            vision_start_token_id: id("vision_start_token_id")?,
            vision_end_token_id: id("vision_end_token_id")?,
            image_token_id: id("image_token_id")?,
            video_token_id: id("video_token_id")?,
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

    fn text_config(top: &Reader, text: &Reader) -> Result<TextConfig, ModelError> {
        text.silu()?;
        let hidden_size = text.positive(&["hidden_size"], None)?;
        let heads = text.positive(&["num_attention_heads"], None)?;
        let kv_heads = text.positive(&["num_key_value_heads"], Some(heads))?;
        if hidden_size % heads != 0 || (hidden_size / heads) % 2 != 0 {
            return Err(text.fail(
                "num_attention_heads",
                format!("{heads} heads do not divide hidden_size {hidden_size} into even-sized heads"),
            ));
        }
        if heads % kv_heads != 0 {
            return Err(
                text.fail("num_key_value_heads", format!("{kv_heads} does not divide num_attention_heads {heads}"))
            );
        }
        if let Some(hd) = text.map.get("head_dim").and_then(Value::as_u64)
            && hd as usize != hidden_size / heads
        {
            return Err(text.fail(
                "head_dim",
                format!("{hd} differs from hidden_size / num_attention_heads = {}", hidden_size / heads),
            ));
        }
        if text.bool_of("use_sliding_window")? == Some(true) {
            return Err(text.fail("use_sliding_window", "sliding-window attention is not supported; set it to false"));
        }
        // The hub's files have rope_theta and rope_scaling, transformers 5 writes rope_parameters; of both it takes the former.
        let rope = match text.object("rope_scaling")?.filter(|m| !m.is_empty()) {
            Some(m) => Some((m, "rope_scaling.")),
            None => text.object("rope_parameters")?.map(|m| (m, "rope_parameters.")),
        };
        let none = Map::new();
        let (rope, prefix) = rope.unwrap_or((&none, "rope_parameters."));
        let rope = Reader { path: text.path, map: rope, prefix };
        for key in ["type", "rope_type"] {
            match rope.map.get(key).and_then(Value::as_str) {
                None | Some("default" | "mrope") => {}
                Some(other) => {
                    return Err(
                        rope.fail(key, format!("{other:?} is not supported; expected \"default\" or \"mrope\""))
                    );
                }
            }
        }
        let theta = match rope.map.get("rope_theta") {
            Some(_) => rope.positive_f64("rope_theta", 1e6)?,
            None => text.positive_f64("rope_theta", 1e6)?,
        };
        let half = hidden_size / heads / 2;
        let section: [usize; 3] = match rope.map.get("mrope_section") {
            // As transformers: the sections of the published models.
            None | Some(Value::Null) => [16, 24, 24],
            Some(value) => value
                .as_array()
                .and_then(|a| a.iter().map(|v| v.as_u64().map(|v| v as usize)).collect::<Option<Vec<_>>>())
                .and_then(|s| s.try_into().ok())
                .ok_or_else(|| rope.fail("mrope_section", "expected three whole numbers"))?,
        };
        let sum = section.iter().try_fold(0usize, |sum, part| sum.checked_add(*part));
        if sum != Some(half) {
            let sum = sum.map_or("more than 64 bits hold".to_owned(), |sum| sum.to_string());
            return Err(
                rope.fail("mrope_section", format!("{section:?} sums to {sum}, half of the head size is {half}"))
            );
        }
        Ok(TextConfig {
            vocab_size: text.positive(&["vocab_size"], None)?,
            hidden_size,
            intermediate_size: text.positive(&["intermediate_size"], None)?,
            num_hidden_layers: text.layers("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            rms_norm_eps: text.positive_f64("rms_norm_eps", 1e-5)?,
            rope_theta: theta,
            mrope_section: section,
            // Nested files may say it in either place.
            tie_word_embeddings: top.bool_of("tie_word_embeddings")?.unwrap_or(false)
                || text.bool_of("tie_word_embeddings")?.unwrap_or(false),
            initializer_range: text.f64_of("initializer_range", 0.02)?,
            max_position_embeddings: text.within(&["max_position_embeddings"], Some(32768), 1 << 30)?,
        })
    }

    fn vision_config(vision: &Reader) -> Result<VisionConfig, ModelError> {
        vision.silu()?;
        let depth = vision.layers("depth")?;
        let hidden_size = vision.positive(&["hidden_size"], None)?;
        let num_heads = vision.positive(&["num_heads"], None)?;
        if hidden_size % num_heads != 0 || (hidden_size / num_heads) % 4 != 0 {
            return Err(vision.fail(
                "num_heads",
                format!("{num_heads} heads do not divide hidden_size {hidden_size} into heads of a multiple of 4 (2-D rotary positions)"),
            ));
        }
        let patch_size = vision.within(&["patch_size", "spatial_patch_size"], Some(14), 1024)?;
        let merge = vision.within(&["spatial_merge_size"], Some(2), 64)?;
        let window_size = vision.positive(&["window_size"], Some(112))?;
        if window_size < patch_size * merge {
            return Err(vision.fail(
                "window_size",
                format!("{window_size} is smaller than one merged token of {}", patch_size * merge),
            ));
        }
        let full = match vision.map.get("fullatt_block_indexes") {
            None | Some(Value::Null) => vec![7, 15, 23, 31],
            Some(Value::Array(a)) => a
                .iter()
                .map(|v| {
                    v.as_u64().map(|v| v as usize).ok_or_else(|| {
                        vision.fail("fullatt_block_indexes", format!("expected whole numbers, found {v}"))
                    })
                })
                .collect::<Result<_, _>>()?,
            Some(v) => return Err(vision.fail("fullatt_block_indexes", format!("expected a list, found {v}"))),
        };
        // transformers 5 writes it; the hub's files do not.
        let rope_theta = match vision.object("rope_parameters")? {
            None => 1e4,
            Some(map) => {
                let rope = Reader { path: vision.path, map, prefix: "vision_config.rope_parameters." };
                match rope.map.get("rope_type").and_then(Value::as_str) {
                    None | Some("axial" | "default") => {}
                    Some(other) => {
                        return Err(rope.fail("rope_type", format!("{other:?} is not supported; expected \"axial\"")));
                    }
                }
                rope.positive_f64("rope_theta", 1e4)?
            }
        };
        Ok(VisionConfig {
            rope_theta,
            depth,
            hidden_size,
            intermediate_size: vision.positive(&["intermediate_size"], None)?,
            num_heads,
            in_channels: vision.within(&["in_channels", "in_chans"], Some(3), 64)?,
            out_hidden_size: vision.positive(&["out_hidden_size"], None)?,
            patch_size,
            spatial_merge_size: merge,
            temporal_patch_size: vision.within(&["temporal_patch_size"], Some(2), 64)?,
            window_size,
            fullatt_block_indexes: full,
        })
    }

    /// The built-in sizes: `toy` (about 1 M parameters), `small` (about 13 M), and the published `3b`, `7b`, `32b`.
    /// `small`, `3b` and `7b` have the sizes of the PyTorch peer benchmark.
    pub fn preset(name: &str) -> Option<Self> {
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
        let raw = json!({
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
        });
        Self::from_json(raw, Path::new(name)).ok()
    }

    /// The same architecture with another vocabulary and other special ids (the toy tokenizer's).
    pub fn with_vocabulary(mut self, vocab_size: usize, ids: [(&str, u32); 6]) -> Result<Self, ModelError> {
        if let Value::Object(map) = &mut self.raw {
            map.insert("vocab_size".into(), json!(vocab_size));
            for (key, id) in ids {
                map.insert(key.into(), json!(id));
            }
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
pub fn token_ids(value: &Value) -> Result<Vec<u32>, String> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    let id = |id: u64| u32::try_from(id).map_err(|_| format!("{id} is no token id; the largest is {}", u32::MAX));
    items.iter().filter_map(Value::as_u64).map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_consistent() {
        for name in ["toy", "small", "3b", "7b", "32b"] {
            let c = Qwen2_5_VLConfig::preset(name).unwrap();
            assert_eq!(c.text.mrope_section.iter().sum::<usize>() * 2, c.text.head_dim());
        }
        let c = Qwen2_5_VLConfig::preset("3b").unwrap();
        assert_eq!((c.text.head_dim(), c.text.mrope_section), (128, [16, 24, 24]));
        assert!(Qwen2_5_VLConfig::preset("4b").is_none());
    }

    #[test]
    fn flat_and_nested_files_mean_the_same() {
        let flat = Qwen2_5_VLConfig::preset("small").unwrap();
        let mut raw = flat.raw.clone();
        let map = raw.as_object_mut().unwrap();
        let mut text = Map::new();
        for key in [
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "intermediate_size",
            "vocab_size",
            "rms_norm_eps",
            "eos_token_id",
        ] {
            text.insert(key.into(), map.remove(key).unwrap());
        }
        map.remove("rope_theta");
        let scaling = map.remove("rope_scaling").unwrap();
        text.insert(
            "rope_parameters".into(),
            json!({"rope_type": "default", "rope_theta": 1e6, "mrope_section": scaling["mrope_section"]}),
        );
        map.insert("text_config".into(), Value::Object(text));
        let nested = Qwen2_5_VLConfig::from_json(raw, Path::new("x")).unwrap();
        assert_eq!(nested.text, flat.text);
        assert_eq!(nested.vision, flat.vision);
        assert_eq!(nested.eos_token_ids, flat.eos_token_ids);
    }

    #[test]
    fn unusual_but_legal_files() {
        let read = |change: &dyn Fn(&mut Map<String, Value>)| {
            let mut raw = Qwen2_5_VLConfig::preset("3b").unwrap().raw;
            change(raw.as_object_mut().unwrap());
            Qwen2_5_VLConfig::from_json(raw, Path::new("config.json")).unwrap()
        };
        let bare = read(&|map| {
            map.remove("rope_scaling");
            map.remove("rms_norm_eps");
        });
        assert_eq!((bare.text.mrope_section, bare.text.rms_norm_eps), ([16, 24, 24], 1e-5));
        let both = read(&|map| {
            map.insert("rope_parameters".into(), json!({"rope_theta": 5.0, "mrope_section": [24, 20, 20]}));
        });
        assert_eq!((both.text.mrope_section, both.text.rope_theta), ([16, 24, 24], 1e6));
        let axial = read(&|map| {
            map["vision_config"]["rope_parameters"] = json!({"rope_type": "axial", "rope_theta": 100.0});
        });
        assert_eq!((both.vision.rope_theta, axial.vision.rope_theta), (1e4, 100.0));
        let tied = read(&|map| {
            let text = map.clone();
            map.insert("text_config".into(), Value::Object(text));
            map.insert("tie_word_embeddings".into(), json!(false));
        });
        assert!(tied.text.tie_word_embeddings);
    }

    #[test]
    fn errors_name_the_key() {
        let break_it = |path: &[&str], value: Value| {
            let mut raw = Qwen2_5_VLConfig::preset("small").unwrap().raw;
            let mut at = &mut raw;
            for key in path {
                at = &mut at[*key];
            }
            *at = value;
            Qwen2_5_VLConfig::from_json(raw, Path::new("config.json")).unwrap_err().to_string()
        };
        assert!(break_it(&["model_type"], json!("llama")).contains("model_type"));
        assert!(break_it(&["hidden_size"], json!("big")).contains("hidden_size: expected a whole number"));
        assert!(break_it(&["num_key_value_heads"], json!(4)).contains("num_key_value_heads: 4 does not divide"));
        assert!(break_it(&["rope_scaling", "mrope_section"], json!([1, 2, 3])).contains("mrope_section"));
        // These sum to 32 where sums wrap at 64 bits.
        let wraps = json!([u64::MAX, 17, 16]);
        assert!(break_it(&["rope_scaling", "mrope_section"], wraps).contains("more than 64 bits hold"));
        for key in ["image_token_id", "bos_token_id", "vision_token_id", "eos_token_id"] {
            let error = break_it(&[key], json!((1u64 << 32) + 3));
            assert!(error.contains(key) && error.contains("4294967299 is no token id"), "{error}");
        }
        assert!(break_it(&["eos_token_id"], json!([1, 1u64 << 32])).contains("4294967296 is no token id"));
        for (path, key) in [
            (vec!["vocab_size"], "vocab_size"),
            (vec!["intermediate_size"], "intermediate_size"),
            (vec!["max_position_embeddings"], "max_position_embeddings"),
            (vec!["vision_config", "patch_size"], "vision_config.patch_size"),
            (vec!["vision_config", "temporal_patch_size"], "vision_config.temporal_patch_size"),
            (vec!["vision_config", "intermediate_size"], "vision_config.intermediate_size"),
        ] {
            let error = break_it(&path, json!(u64::MAX / 2));
            assert!(error.contains(key) && error.contains("must be at most"), "{error}");
        }
        let error = break_it(&["hidden_act"], json!(format!("\u{1b}[2J{}", "x".repeat(100_000))));
        assert!(error.len() < 600 && !error.contains('\u{1b}'), "{error}");
        assert!(break_it(&["vision_config", "out_hidden_size"], json!(9)).contains("out_hidden_size is 9"));
        assert!(break_it(&["rms_norm_eps"], json!(-1)).contains("rms_norm_eps: must be above 0"));
        assert!(break_it(&["rope_theta"], json!(0)).contains("rope_theta: must be above 0"));
        assert!(break_it(&["num_hidden_layers"], json!(1e15 as u64)).contains("num_hidden_layers"));
        let axial = json!({"rope_type": "yarn", "rope_theta": 1e4});
        assert!(
            break_it(&["vision_config", "rope_parameters"], axial).contains("vision_config.rope_parameters.rope_type")
        );
        assert!(break_it(&["image_token_id"], json!(99999)).contains("image_token_id is 99999"));
        assert!(break_it(&["vision_config", "fullatt_block_indexes"], json!("x")).contains("fullatt_block_indexes"));
    }
}
