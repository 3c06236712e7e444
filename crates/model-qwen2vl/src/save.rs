//! Writing a folder that transformers and vLLM load as it is: the hub's tensor names, the config as it was read, and
//! the tokenizer files of the folder the model came from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::layers::adapted_module;
use kernels::{Kernels, ParamVisitor, Shard};
pub use policy::companions::{Companions, write_synced};
pub use policy::weights::{Named, write_tensors};
use policy::{ModelError, NamedPart, by_first, write_made};
use serde_json::{Value, json};

use crate::config::Family;
use crate::lora::merged;
use crate::model::QwenVl;

/// All tensors, or this rank's parts of them, under their names in files of the family.
struct Collect<B: Backend>(&'static Family, Vec<NamedPart<B>>);

impl<B: Backend> ParamVisitor<B> for Collect<B> {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        if adapted_module(name).is_some() {
            return;
        }
        let len = tensor.shape().num_elements();
        self.1.push((self.0.file_name(name), tensor.clone().reshape([len]), shard.clone()));
    }
}

impl<B: Kernels> QwenVl<B> {
    /// Writes `config.json`, `model.safetensors`, with what adapters add to the weights, and the tokenizer and processor
    /// files of `companions` into `dir` (created); every file is on the disk when this returns. Ranks that share the decoder out all call this; the
    /// first of them puts each tensor together and writes.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] for weights that could not be loaded again, [`ModelError::Device`], and anything the
    /// file system refuses, with the path.
    pub fn save(&self, dir: &Path, companions: Option<&Companions>) -> Result<(), ModelError> {
        let mut collect = Collect(self.config.family, Vec::new());
        self.clone().visit(&mut collect);
        // One tensor at a time is merged.
        let merging: BTreeMap<String, _> = self
            .adapted()
            .map(|(module, lora)| (self.config.family.file_name(&format!("{module}.weight")), (module, lora)))
            .collect();
        let value = |i: usize| {
            let (name, weight, _) = &collect.1[i];
            match merging.get(name) {
                Some((module, lora)) => merged(weight, lora, module),
                None => weight.clone(),
            }
        };
        let weights = dir.join("model.safetensors");
        let (path, ranks) = (dir.join("config.json"), self.decoder.tensor.ranks());
        by_first(dir, ranks.is_first().then(|| self.write_config(dir, &path, companions)), ranks)?;
        write_made(&weights, &collect.1, ranks, value)?;
        by_first(&weights, ranks.is_first().then(|| readable_as(&path, &weights)), ranks)
    }

    /// Writes everything but the weights, `config.json` to `path`.
    fn write_config(&self, dir: &Path, path: &Path, companions: Option<&Companions>) -> Result<(), ModelError> {
        fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
        if let Some(companions) = companions {
            companions.write(dir)?;
        }
        let dtype = match self.decoder.embed.dtype() {
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
            _ => "float32",
        };
        let mut raw = self.config.raw.clone();
        set_dtype(&mut raw, dtype);
        write_synced(path, format!("{raw:#}\n").as_bytes())
    }
}

/// The writer makes a file that only its owner may read; another user's server should load the folder, too: `file` may
/// be read by whoever may read `other`.
pub(crate) fn readable_as(other: &Path, file: &Path) -> Result<(), ModelError> {
    let permissions = fs::metadata(other).map_err(ModelError::io(other))?.permissions();
    fs::set_permissions(file, permissions).map_err(ModelError::io(file))
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
