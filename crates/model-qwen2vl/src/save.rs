//! Writing a folder that transformers and vLLM load as it is: the hub's tensor names, the config as it was read, and
//! the tokenizer files of the folder the model came from.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::layers::adapted_module;
use kernels::{Kernels, ParamVisitor, Shard};
pub use policy::companions::Companions;
use policy::{Hold, ModelCopy, ModelError, NamedPart, Staged, by_all, stage_made};
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
    /// Writes `config.json`, the weights, with what adapters add to them, and the tokenizer and processor files of
    /// `companions` into `dir`, which is made or holds no weights yet; every file is on the disk when this returns.
    /// Ranks that share the decoder out all call this, and each writes a file with its share of the tensors.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] for weights that could not be loaded again, [`ModelError::Device`], and anything the
    /// file system refuses, with the path.
    pub fn save(&self, dir: &Path, companions: Option<&Companions>) -> Result<(), ModelError> {
        let staged = self.stage(companions, ModelCopy::ALONE, Hold::Tensors)?;
        by_all(dir, staged.write(dir), self.decoder.tensor.ranks())
    }

    /// [`Learning::stage`](policy::Learning::stage).
    pub(crate) fn stage(
        &self,
        companions: Option<&Companions>,
        copy: ModelCopy,
        hold: Hold,
    ) -> Result<Staged, ModelError> {
        let ranks = self.decoder.tensor.ranks();
        let mut collect = Collect(self.config.family, Vec::new());
        self.clone().visit(&mut collect);
        let name_of = |module: &str| self.config.family.file_name(&format!("{module}.weight"));
        let merging: BTreeMap<String, _> =
            self.adapted().map(|(module, lora)| (name_of(&module), (module, lora))).collect();
        // Merged weights are read at once, one at a time: the device holds no second copy.
        let hold = if merging.is_empty() { hold } else { Hold::Bytes };
        let value = |name: &str, weight: Tensor<B, 1>| match merging.get(name) {
            Some((module, lora)) => merged(&weight, lora, module),
            None => weight,
        };
        let mut staged = stage_made(collect.1, copy, ranks, hold, value)?;
        if copy.index == 0 && ranks.is_first() {
            companions.iter().flat_map(|all| all.files()).for_each(|(name, bytes)| staged.text(name, bytes.to_vec()));
            staged.text("config.json", self.config_text().into_bytes());
        }
        Ok(staged)
    }

    /// `config.json` as it was read, with the number format of the weights.
    fn config_text(&self) -> String {
        let dtype = match self.decoder.embed.dtype() {
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
            _ => "float32",
        };
        let mut raw = self.config.raw.clone();
        set_dtype(&mut raw, dtype);
        format!("{raw:#}\n")
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
