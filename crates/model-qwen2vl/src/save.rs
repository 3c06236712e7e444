//! Writing a folder that transformers and vLLM load as it is: the hub's tensor names, the config as it was read, and the
//! tokenizer files of the folder the model came from.

use std::borrow::Cow;
use std::path::Path;

use burn::tensor::{DType, Tensor, backend::Backend};
use safetensors::tensor::{Dtype, View};
use serde_json::{Value, json};

use crate::config::Family;
use crate::error::ModelError;
use crate::model::Qwen2_5_VL;
use crate::ops::Kernels;
use crate::params::ParamVisitor;

/// A tensor that is read from the device when it is written, so that one at a time is in memory.
struct Lazy<B: Backend> {
    tensor: Tensor<B, 1>,
    shape: Vec<usize>,
}

impl<B: Backend> View for Lazy<B> {
    fn dtype(&self) -> Dtype {
        match self.tensor.dtype() {
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            DType::F64 => Dtype::F64,
            _ => Dtype::F32,
        }
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.tensor.to_data().bytes.to_vec())
    }
    fn data_len(&self) -> usize {
        self.tensor.shape().num_elements() * self.tensor.dtype().size()
    }
}

/// All tensors under their names in files of the family.
struct Collect<B: Backend>(&'static Family, Vec<(String, Lazy<B>)>);

impl<B: Backend> ParamVisitor<B> for Collect<B> {
    fn visit<const D: usize>(&mut self, name: &str, shape: &[usize], tensor: &mut Tensor<B, D>) {
        let len = tensor.shape().num_elements();
        self.1.push((self.0.file_name(name), Lazy { tensor: tensor.clone().reshape([len]), shape: shape.to_vec() }));
    }
}

/// Files of a model folder that are not weights and are carried along.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
];

/// Writes named flat tensors to one safetensors file and syncs it.
///
/// # Errors
/// Anything the file system refuses (a full disk above all), with the path.
pub fn write_tensors<B: Backend>(
    path: &Path,
    tensors: Vec<(String, Tensor<B, 1>, Vec<usize>)>,
) -> Result<(), ModelError> {
    let lazy = tensors.into_iter().map(|(name, tensor, shape)| (name, Lazy { tensor, shape }));
    write(path, lazy.collect())
}

fn write<B: Backend>(path: &Path, tensors: Vec<(String, Lazy<B>)>) -> Result<(), ModelError> {
    let meta = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(tensors, Some(meta), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(source) => ModelError::Io { path: path.into(), source },
        other => ModelError::Io { path: path.into(), source: std::io::Error::other(other) },
    })?;
    std::fs::File::open(path).and_then(|f| f.sync_all()).map_err(ModelError::io(path))
}

impl<B: Kernels> Qwen2_5_VL<B> {
    /// Writes `config.json`, `model.safetensors` and, from `source`, the tokenizer and processor files into `dir` (created).
    ///
    /// # Errors
    /// Anything the file system refuses, with the path.
    pub fn save(&self, dir: &Path, source: Option<&Path>) -> Result<(), ModelError> {
        std::fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
        if let Some(source) = source {
            for name in COMPANIONS {
                let (from, to) = (source.join(name), dir.join(name));
                if from.is_file() && from != to {
                    std::fs::copy(&from, &to).map_err(ModelError::io(&to))?;
                }
            }
        }
        let mut collect = Collect(self.config.family, Vec::new());
        self.clone().visit(&mut collect);
        let dtype = match self.head().0.dtype() {
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
            _ => "float32",
        };
        let mut raw = self.config.raw.clone();
        set_dtype(&mut raw, dtype);
        let path = dir.join("config.json");
        let text = serde_json::to_string_pretty(&raw).unwrap_or_default();
        std::fs::write(&path, text + "\n").map_err(ModelError::io(&path))?;
        let weights = dir.join("model.safetensors");
        write(&weights, collect.1)?;
        // The writer makes a file that only its owner may read; another user's server should load the folder, too.
        let permissions = std::fs::metadata(&path).map_err(ModelError::io(&path))?.permissions();
        std::fs::set_permissions(&weights, permissions).map_err(ModelError::io(&weights))
    }
}

/// transformers casts to the type that the config names, so it must be the file's.
fn set_dtype(raw: &mut Value, dtype: &str) {
    let Value::Object(map) = raw else { return };
    let mut found = false;
    for key in ["dtype", "torch_dtype"] {
        if let Some(value) = map.get_mut(key) {
            *value = json!(dtype);
            found = true;
        }
    }
    for key in ["text_config", "vision_config"] {
        if let Some(Value::Object(inner)) = map.get_mut(key) {
            for key in ["dtype", "torch_dtype"] {
                if let Some(value) = inner.get_mut(key) {
                    *value = json!(dtype);
                }
            }
        }
    }
    if !found {
        map.insert("torch_dtype".into(), json!(dtype));
    }
}
