//! Writing a folder that transformers and vLLM load as it is: the hub's tensor names, the config as it was read, and
//! the tokenizer files of the folder the model came from.

use std::fs;
use std::path::Path;

use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::{Kernels, ParamVisitor, Shard};
pub use policy::companions::{Companions, write_synced};
pub use policy::weights::{Named, write_tensors};
use policy::{ModelError, NamedPart, by_first, write_gathered};
use serde_json::{Value, json};

use crate::config::Family;
use crate::model::QwenVl;

/// All tensors, or this rank's parts of them, under their names in files of the family.
struct Collect<B: Backend>(&'static Family, Vec<NamedPart<B>>);

impl<B: Backend> ParamVisitor<B> for Collect<B> {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        let len = tensor.shape().num_elements();
        self.1.push((self.0.file_name(name), tensor.clone().reshape([len]), shard.clone()));
    }
}

impl<B: Kernels> QwenVl<B> {
    /// Writes `config.json`, `model.safetensors` and the tokenizer and processor files of `companions` into `dir`
    /// (created); every file is on the disk when this returns. Ranks that share the decoder out all call this; the first
    /// of them puts each tensor together and writes.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] for weights that could not be loaded again, [`ModelError::Device`], and anything the
    /// file system refuses, with the path.
    pub fn save(&self, dir: &Path, companions: Option<&Companions>) -> Result<(), ModelError> {
        let mut collect = Collect(self.config.family, Vec::new());
        self.clone().visit(&mut collect);
        let weights = dir.join("model.safetensors");
        let (path, ranks) = (dir.join("config.json"), self.decoder.tensor.ranks());
        by_first(dir, ranks.is_first().then(|| self.write_config(dir, &path, companions)), ranks)?;
        write_gathered(&weights, &collect.1, ranks)?;
        // The writer makes a file that only its owner may read; another user's server should load the folder, too.
        let open = || {
            let permissions = fs::metadata(&path).map_err(ModelError::io(&path))?.permissions();
            fs::set_permissions(&weights, permissions).map_err(ModelError::io(&weights))
        };
        by_first(&weights, ranks.is_first().then(open), ranks)
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
