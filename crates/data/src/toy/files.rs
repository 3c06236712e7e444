//! The toy model's tokenizer and processor settings, in the Hugging Face layout.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::DataError;

/// Single characters of the vocabulary, ids from 0.
const CHARACTERS: &str = "0123456789abcdefghijklmnopqrstuvwxyz \n.,:;?!+-*/=()<>{}[]\\'\"%_|&";
/// Words that are one token: the tags of a response and the roles of a conversation. Not special: text may contain
/// them.
const WORDS: [&str; 6] = ["<think>", "</think>", "\\boxed{", "system", "user", "assistant"];
/// Special tokens, Qwen's names; `<|unk|>` stands for characters outside the vocabulary.
const SPECIAL: [&str; 8] = [
    "<|unk|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
];

/// Ids that a model configuration has to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToyIds {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// `<|endoftext|>`, which Qwen names but never writes.
    pub bos: u32,
    /// `<|im_end|>`.
    pub eos: u32,
    /// `<|im_start|>`.
    pub im_start: u32,
    /// `<|im_end|>`.
    pub im_end: u32,
    /// `<|vision_start|>`.
    pub vision_start: u32,
    /// `<|vision_end|>`.
    pub vision_end: u32,
    /// `<|image_pad|>`.
    pub image_pad: u32,
    /// `<|video_pad|>`.
    pub video_pad: u32,
    /// `<|endoftext|>`.
    pub pad: u32,
}

/// The ids of the toy tokenizer's special tokens.
pub fn special_ids() -> ToyIds {
    let first = (CHARACTERS.chars().count() + WORDS.len()) as u32;
    // In the order of `SPECIAL`.
    let [_unk, endoftext, im_start, im_end, vision_start, vision_end, image_pad, video_pad] =
        std::array::from_fn(|k| first + k as u32);
    ToyIds {
        vocab_size: first as usize + SPECIAL.len(),
        bos: endoftext,
        eos: im_end,
        im_start,
        im_end,
        vision_start,
        vision_end,
        image_pad,
        video_pad,
        pad: endoftext,
    }
}

const CHAT_TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n\
    {% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
    {% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>\
    {% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// File names and contents of the toy processor.
fn processor_files() -> Vec<(&'static str, Value)> {
    let (tokenizer, settings) = tokenizer_files();
    vec![
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
        // transformers' processors do not look for a template in the tokenizer's settings.
        ("processor_config.json", json!({ "processor_class": "Qwen2_5_VLProcessor", "chat_template": CHAT_TEMPLATE })),
        ("preprocessor_config.json", image_settings()),
        ("generation_config.json", generation_settings()),
    ]
}

/// `tokenizer.json` and `tokenizer_config.json`: a token per character, some words, the special tokens.
fn tokenizer_files() -> (Value, Value) {
    let mut vocab = serde_json::Map::new();
    let mut added = Vec::new();
    let mut decoder = serde_json::Map::new();
    for c in CHARACTERS.chars() {
        vocab.insert(c.to_string(), json!(vocab.len()));
    }
    for (k, token) in WORDS.iter().chain(&SPECIAL).enumerate() {
        let special = k >= WORDS.len();
        let mut entry = json!({
            "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special
        });
        let id = vocab.len();
        vocab.insert((*token).to_owned(), json!(id));
        decoder.insert(id.to_string(), entry.clone());
        entry["id"] = json!(id);
        added.push(entry);
    }
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": SPECIAL[0], "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []
        }
    });
    let settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "Qwen2_5_VLProcessor",
        "added_tokens_decoder": decoder,
        "bos_token": null,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": SPECIAL[0],
        "additional_special_tokens": SPECIAL[2..],
        "clean_up_tokenization_spaces": false,
        "model_max_length": 4096,
        "chat_template": CHAT_TEMPLATE
    });
    (tokenizer, settings)
}

/// `preprocessor_config.json`.
fn image_settings() -> Value {
    json!({
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 28 * 28,
        "max_pixels": 512 * 512,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "do_resize": true,
        "resample": 3,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "do_convert_rgb": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711]
    })
}

/// `generation_config.json`.
fn generation_settings() -> Value {
    let ids = special_ids();
    json!({
        "bos_token_id": ids.bos,
        "eos_token_id": [ids.im_end, ids.pad],
        "pad_token_id": ids.pad,
        "do_sample": true,
        "temperature": 1.0,
        "top_p": 1.0
    })
}

/// Writes these files into `dir`, which is made if it does not exist.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_processor_files(dir: &Path) -> Result<(), DataError> {
    std::fs::create_dir_all(dir).map_err(|e| DataError::write(dir, e))?;
    for (name, value) in processor_files() {
        let path = dir.join(name);
        std::fs::write(&path, format!("{value:#}\n")).map_err(|e| DataError::write(path, e))?;
    }
    Ok(())
}
