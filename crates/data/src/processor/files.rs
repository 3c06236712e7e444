//! The files of a model folder.

use std::path::Path;

use guard::file::{read_model_file, read_model_text};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokenizers::Tokenizer;

use super::template::ChatTemplate;
use super::{Processor, VisionIds, serving};
use crate::error::DataError;
use crate::image::ImageLimits;
use crate::lfs;

/// What `generation_config.json` says about sampling; all optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Ids that end a response.
    #[serde(deserialize_with = "one_or_many")]
    pub eos_token_id: Vec<u32>,
    /// Padding.
    pub pad_token_id: Option<u32>,
    /// Begin of text.
    pub bos_token_id: Option<u32>,
    /// Whether to sample at all.
    pub do_sample: Option<bool>,
    /// Softmax temperature.
    pub temperature: Option<f64>,
    /// Nucleus mass.
    pub top_p: Option<f64>,
    /// Candidates kept.
    pub top_k: Option<usize>,
    /// Above one: repeated tokens become less likely.
    pub repetition_penalty: Option<f64>,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Ids {
        One(u32),
        Many(Vec<u32>),
        None,
    }
    Ok(match Ids::deserialize(deserializer)? {
        Ids::One(id) => vec![id],
        Ids::Many(ids) => ids,
        Ids::None => Vec::new(),
    })
}

pub(super) fn load(dir: &Path) -> Result<Processor, DataError> {
    let fail = |reason: String| DataError::Model { dir: dir.to_path_buf(), reason };
    if !dir.is_dir() {
        return Err(fail("is not a folder; name a folder in the Hugging Face layout".into()));
    }
    let tokenizer = open_tokenizer(dir)?;
    let vision = guard::caught(|| vision_ids(&tokenizer)).and_then(|found| found).map_err(fail)?;
    let config = object(dir, "tokenizer_config.json")?.unwrap_or_default();
    let token = |key: &str| match config.get(key) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Object(map)) => map.get("content").and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    let (name, source) = chat_template(dir, &config)?.ok_or_else(|| {
        fail(
            "has no chat template in chat_template.jinja, chat_template.json or tokenizer_config.json; \
             copy the one of the instruct model into it"
                .into(),
        )
    })?;
    let template = ChatTemplate::new(name, &source, token("bos_token"), token("eos_token"))
        .map_err(|e| fail(format!("the chat template cannot be used: {e}")))?;

    let limits = image_limits(dir, &fail)?;
    let generation = match object(dir, "generation_config.json")? {
        Some(map) => serde_json::from_value(Value::Object(map))
            .map_err(|e| fail(format!("generation_config.json cannot be used: {e}")))?,
        None => GenerationConfig::default(),
    };
    // A response ends where the tokenizer says, and wherever else the generation settings say.
    let eos = token("eos_token").and_then(|t| tokenizer.token_to_id(&t));
    let mut eos_ids: Vec<u32> = eos.into_iter().collect();
    for id in &generation.eos_token_id {
        if !eos_ids.contains(id) {
            eos_ids.push(*id);
        }
    }
    if eos_ids.is_empty() {
        eos_ids.extend(tokenizer.token_to_id("<|im_end|>"));
    }
    let Some(first_eos) = eos_ids.first().copied() else {
        return Err(fail(
            "names no end-of-text token; set eos_token in tokenizer_config.json or eos_token_id in generation_config.json"
                .into(),
        ));
    };
    let pad_id = token("pad_token").and_then(|t| tokenizer.token_to_id(&t));
    let pad_id = pad_id.or(generation.pad_token_id).unwrap_or(first_eos);

    let added = tokenizer.get_added_tokens_decoder();
    let mut special_ids: Vec<u32> = added.iter().filter(|(_, t)| t.special).map(|(id, _)| *id).collect();
    // Vision tokens count as special whatever the file says: a response or a problem must never contain one.
    special_ids.extend([vision.vision_start, vision.vision_end, vision.image_pad, vision.video_pad]);
    special_ids.sort_unstable();
    special_ids.dedup();
    let (vocab_size, longest_token) = vocabulary(&tokenizer).map_err(fail)?;
    let special = special_ids.iter().filter_map(|id| tokenizer.id_to_token(*id)).collect();
    Ok(Processor {
        tokenizer,
        template,
        limits,
        generation,
        vision,
        eos_ids,
        pad_id,
        special,
        special_ids,
        vocab_size,
        longest_token,
        max_prompt_length: None,
    })
}

/// Token ids are places in tables; the largest published vocabulary has 262,144.
const MOST_TOKENS: usize = 1 << 24;

/// The tokenizer of a folder, without the settings of its training.
fn open_tokenizer(dir: &Path) -> Result<Tokenizer, DataError> {
    let fail = |reason: String| DataError::Model { dir: dir.to_path_buf(), reason };
    let path = dir.join("tokenizer.json");
    let bytes = read_model_file(dir, "tokenizer.json").map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => fail(
            "has no tokenizer.json; save the processor with transformers (`processor.save_pretrained`) into it".into(),
        ),
        _ => DataError::io(&path, e),
    })?;
    if lfs::is_pointer(&bytes) {
        return Err(DataError::file(path, lfs::REASON));
    }
    let tokenizer = guard::caught(|| Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())).and_then(|done| done);
    let mut tokenizer = tokenizer.map_err(|e| fail(format!("tokenizer.json cannot be read: {}", guard::echo(&e))))?;
    // Some files carry the settings of their training; a prompt must never be cut or padded behind our back.
    let _ = tokenizer.with_truncation(None);
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// The largest token id plus one, and the bytes of the longest token.
fn vocabulary(tokenizer: &Tokenizer) -> Result<(usize, usize), String> {
    let vocab = tokenizer.get_vocab(true);
    let size = vocab.values().max().map_or(0, |id| *id as usize + 1);
    if size > MOST_TOKENS {
        return Err(format!("tokenizer.json has the token id {}; the largest that is read is {MOST_TOKENS}", size - 1));
    }
    Ok((size, vocab.keys().map(String::len).max().unwrap_or(1).max(1)))
}

fn vision_ids(tokenizer: &Tokenizer) -> Result<VisionIds, String> {
    let mut missing = Vec::new();
    let mut id = |token: &'static str| {
        let id = tokenizer.token_to_id(token);
        // The token must also be matched in text, not only stand in the vocabulary.
        let matched =
            tokenizer.encode_fast(token, false).is_ok_and(|e| id.is_some() && e.get_ids() == [id.unwrap_or(0)]);
        if !matched {
            missing.push(token);
        }
        id.unwrap_or(0)
    };
    let ids = VisionIds {
        vision_start: id("<|vision_start|>"),
        vision_end: id("<|vision_end|>"),
        image_pad: id("<|image_pad|>"),
        video_pad: id("<|video_pad|>"),
    };
    if missing.is_empty() {
        return Ok(ids);
    }
    Err(format!("the tokenizer has no token {}; it is not one of a Qwen2-VL family model", missing.join(", ")))
}

/// A JSON object; `None` when there is no such file.
pub(super) fn object(dir: &Path, name: &str) -> Result<Option<Map<String, Value>>, DataError> {
    let path = dir.join(name);
    let bytes = match read_model_file(dir, name) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(DataError::io(path, e)),
    };
    if lfs::is_pointer(&bytes) {
        return Err(DataError::file(path, lfs::REASON));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(Some(map)),
        Ok(_) => Err(DataError::file(path, "is not a JSON object")),
        Err(e) => Err(DataError::file(path, format!("is not JSON: {e}"))),
    }
}

/// The first of: `chat_template.jinja`, `chat_template.json`, `tokenizer_config.json`; with its name.
fn chat_template(dir: &Path, config: &Map<String, Value>) -> Result<Option<(&'static str, String)>, DataError> {
    const JINJA: &str = "chat_template.jinja";
    match read_model_text(dir, JINJA) {
        Ok(text) => return Ok(Some((JINJA, text))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(DataError::io(dir.join(JINJA), e)),
    }
    let legacy = object(dir, "chat_template.json")?;
    let found = |name, map: &Map<String, Value>| Some((name, template_text(map.get("chat_template")?)?));
    Ok(legacy.and_then(|map| found("chat_template.json", &map)).or_else(|| found("tokenizer_config.json", config)))
}

/// A template is a string, or a list of `{ name, template }` of which `default` counts.
fn template_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let named = |item: &&Value| item.get("name").and_then(Value::as_str) == Some("default");
            let item = items.iter().find(named).or(items.first())?;
            item.get("template").and_then(Value::as_str).map(str::to_owned)
        }
        _ => None,
    }
}

fn image_limits(dir: &Path, fail: &dyn Fn(String) -> DataError) -> Result<ImageLimits, DataError> {
    // transformers 5 nests the image processor's settings in one file, and reads that first: an older file may be left
    // beside it.
    let nested = object(dir, "processor_config.json")?;
    let inner = nested.as_ref().and_then(|map| map.get("image_processor")).and_then(Value::as_object);
    let (name, map) = match inner {
        Some(inner) => ("processor_config.json", inner.clone()),
        None => match object(dir, "preprocessor_config.json")? {
            Some(map) => ("preprocessor_config.json", map),
            None if nested.is_some() => {
                return Err(fail(
                    "has no preprocessor_config.json, and its processor_config.json has no image_processor".into(),
                ));
            }
            None => return Err(fail("has neither preprocessor_config.json nor processor_config.json".into())),
        },
    };
    let default = ImageLimits::default();
    let bad = |key: &str, value: &Value| fail(format!("{name}: {key} is {value}, which is not usable"));
    let size = map.get("size").and_then(Value::as_object);
    let whole = |keys: &[&str], default: u64| {
        // An explicit min_pixels wins over size.shortest_edge, as in transformers.
        let top = map.get(keys[0]).filter(|v| !v.is_null()).map(|v| (keys[0], v));
        let nested = || keys.iter().find_map(|k| Some((*k, size?.get(*k).filter(|v| !v.is_null())?)));
        match top.or_else(nested) {
            None => Ok(default),
            Some((key, value)) => value.as_u64().ok_or_else(|| bad(key, value)),
        }
    };
    let triple = |key: &str, default: [f32; 3]| match map.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => serde_json::from_value(value.clone()).map_err(|_| bad(key, value)),
    };
    for key in ["do_resize", "do_rescale", "do_normalize", "do_convert_rgb"] {
        if map.get(key) == Some(&Value::Bool(false)) {
            return Err(fail(format!("{name}: {key} = false is not supported; the models here need it")));
        }
    }
    match map.get("rescale_factor").and_then(Value::as_f64) {
        Some(factor) if (factor - 1.0 / 255.0).abs() > 1e-9 => {
            return Err(fail(format!("{name}: rescale_factor {factor} is not supported; it must be 1/255")));
        }
        _ => {}
    }
    match map.get("resample").and_then(Value::as_u64) {
        // PIL's number for bicubic.
        None | Some(3) => {}
        Some(other) => {
            return Err(fail(format!("{name}: resample {other} is not supported; it must be 3 (bicubic)")));
        }
    }
    let limits = ImageLimits {
        min_pixels: whole(&["min_pixels", "shortest_edge"], default.min_pixels)?,
        max_pixels: whole(&["max_pixels", "longest_edge"], default.max_pixels)?,
        patch_size: whole(&["patch_size"], default.patch_size as u64)? as usize,
        merge_size: whole(&["merge_size"], default.merge_size as u64)? as usize,
        temporal_patch_size: whole(&["temporal_patch_size"], default.temporal_patch_size as u64)? as usize,
        mean: triple("image_mean", default.mean)?,
        std: triple("image_std", default.std)?,
        ..default
    };
    let limits = serving::read(&map, limits).map_err(|e| fail(format!("{name}: {e}")))?;
    limits.validate().map_err(|e| fail(format!("{name}: {e}")))?;
    Ok(limits)
}
