//! Adapters as PEFT keeps them: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, backend::Backend};
use kernels::layers::{AdaptersOnly, adapted_module};
use kernels::{Kernels, ParamVisitor, Shard, host};
use policy::{
    Companions, Hold, LoraConfig, ModelCopy, ModelError, ModuleNames, NamedPart, Staged, StagedTensor, by_all, whole_at,
};
use serde_json::{Map, Value, json};

use super::{Adapters, BaseModel, check_dropout, own_name, peft_name};
use crate::load::{Checkpoint, FileSource};
use crate::model::QwenVl;

/// The file with an adapter's settings.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The file with its matrices.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// A file of our own beside them: which weights they belong to.
const BASE: &str = "adapter_base.json";

/// A folder with an adapter, and what its `adapter_config.json` says. Its matrices are not read yet.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFolder {
    path: PathBuf,
    /// Its settings.
    pub config: LoraConfig,
    /// `base_model_name_or_path`: a folder, or a model on the Hugging Face hub by its id.
    pub base: String,
    /// `revision` of a base on the hub: a branch, a tag or a commit.
    revision: Option<String>,
    /// [`fingerprint`](super::fingerprint) of the weights that it was trained on, where it is known.
    fingerprint: Option<String>,
}

/// Keys of PEFT that would compute something else unless they are false, empty or null.
const REFUSED: [&str; 17] = [
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "megatron_config",
];

/// Values of `init_lora_weights` that leave the base's weights as they are; the others take a part out of them.
const HARMLESS_INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

impl AdapterFolder {
    /// Whether `folder` has an adapter.
    pub fn is_one(folder: &Path) -> bool {
        folder.join(ADAPTER_CONFIG).is_file()
    }

    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// A file that is missing or malformed, and what is no LoRA or would compute something else: the key is named.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join(ADAPTER_CONFIG);
        let text = match guard::file::read_model_text(folder, ADAPTER_CONFIG) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let what = "missing; an adapter's folder has adapter_config.json and adapter_model.safetensors".into();
                return Err(ModelError::Missing { path, what });
            }
            Err(source) => return Err(ModelError::Io { path, source }),
        };
        let fail = |reason: String| ModelError::Config { path: path.clone(), reason };
        let json: Value = serde_json::from_str(&text).map_err(|e| fail(format!("not valid JSON ({e})")))?;
        let map = json.as_object().ok_or_else(|| fail("expected a JSON object".into()))?;
        let config = read_config(map).map_err(fail)?;
        let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        let base = text("base_model_name_or_path");
        let revision = Some(text("revision")).filter(|revision| !revision.is_empty());
        let fingerprint = read_base(folder)?;
        Ok(Self { path: folder.into(), config, base, revision, fingerprint })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that `base_model_name_or_path` names, beside the adapter or where the program was started.
    ///
    /// # Errors
    /// A name that is no folder here.
    pub fn base_folder(&self) -> Result<PathBuf, ModelError> {
        let places = [self.path.join(&self.base), PathBuf::from(&self.base)];
        let found = places.into_iter().find(|place| !self.base.is_empty() && place.join("config.json").is_file());
        found.ok_or_else(|| ModelError::Missing {
            path: self.path.join(ADAPTER_CONFIG),
            what: format!(
                "base_model_name_or_path: {:?} is no model folder here; write the folder of the base model there \
                 (train takes model.path=BASE model.adapter=FOLDER, too)",
                guard::echo(&self.base)
            ),
        })
    }

    /// The base as a model on the hub, `owner/name` or `owner/name@revision`, if it is one.
    pub fn base_on_hub(&self) -> String {
        match &self.revision {
            Some(revision) if !self.base.contains('@') => format!("{}@{revision}", self.base),
            _ => self.base.clone(),
        }
    }

    /// Whether it was trained on the weights in `base`, as far as that is known.
    ///
    /// # Errors
    /// Other weights, with both fingerprints.
    pub fn check_base(&self, base: &BaseModel) -> Result<(), ModelError> {
        match &self.fingerprint {
            Some(own) if *own != base.fingerprint => Err(ModelError::Adapter {
                path: self.path.clone(),
                base: base.path.clone(),
                list: format!(
                    "  it was trained on other weights ({own}, of {:?}; these are {}); where these are the same values in \
                     other files, remove {BASE}",
                    guard::echo(&self.base),
                    base.fingerprint
                ),
            }),
            _ => Ok(()),
        }
    }
}

/// Id and commit of a model on the hub whose snapshot in the Hugging Face cache is `folder`
/// (`models--OWNER--NAME/snapshots/COMMIT`): a path in a cache means nothing on another machine.
fn on_hub(folder: &Path) -> Option<(String, String)> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_string());
    let snapshots = folder.parent()?;
    let repository = name(snapshots.parent()?)?;
    let id = repository.strip_prefix("models--")?.replacen("--", "/", 1);
    (name(snapshots)? == "snapshots" && id.contains('/')).then_some((id, name(folder)?))
}

/// What `adapter_config.json` says.
fn read_config(map: &Map<String, Value>) -> Result<LoraConfig, String> {
    let said = |key: &str| map.get(key).filter(|value| !value.is_null());
    match said("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        other => {
            return Err(format!(
                "peft_type: {:?} is not supported; expected \"LORA\"",
                guard::echo(other.unwrap_or("missing"))
            ));
        }
    }
    let empty = |value: &Value| {
        *value == false || value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
    };
    for key in REFUSED {
        if let Some(value) = said(key).filter(|value| !empty(value)) {
            return Err(format!("{key}: {} is not supported", guard::echo(&value.to_string())));
        }
    }
    if let Some(init) = said("init_lora_weights").and_then(Value::as_str).filter(|init| !HARMLESS_INITS.contains(init))
    {
        return Err(format!(
            "init_lora_weights: {:?} is not supported: it changes the base's weights; PEFT can save such an \
             adapter as a plain one",
            guard::echo(init)
        ));
    }
    if let Some(bias) = said("bias").filter(|bias| **bias != "none") {
        return Err(format!("bias: {} is not supported; expected \"none\"", guard::echo(&bias.to_string())));
    }
    let rank = said("r").and_then(Value::as_u64).filter(|r| (1..=1 << 16).contains(r));
    let rank = rank.ok_or("r: expected a rank of at least 1")? as usize;
    let number = |key: &str| {
        said(key).map_or(Some(None), |value| value.as_f64().map(Some)).ok_or(format!("{key}: expected a number"))
    };
    let alpha = number("lora_alpha")?.ok_or("lora_alpha: missing")?;
    let dropout = number("lora_dropout")?.unwrap_or(0.0);
    if !(0.0..1.0).contains(&dropout) {
        return Err(format!("lora_dropout: {dropout} is no probability below 1"));
    }
    let rslora = said("use_rslora").is_some_and(|value| *value == true);
    let names = |key: &str| match said(key) {
        None => Ok(ModuleNames::Pattern(String::new())),
        Some(Value::String(pattern)) => Ok(ModuleNames::Pattern(pattern.clone())),
        Some(Value::Array(ends)) => {
            let ends: Option<Vec<String>> = ends.iter().map(|end| end.as_str().map(String::from)).collect();
            ends.map(ModuleNames::Ends).ok_or(format!("{key}: expected a list of names"))
        }
        Some(_) => Err(format!("{key}: expected a list of names, or a regular expression")),
    };
    let [target_modules, exclude_modules] = [names("target_modules")?, names("exclude_modules")?];
    Ok(LoraConfig { rank, alpha, dropout, rslora, target_modules, exclude_modules })
}

fn read_base(folder: &Path) -> Result<Option<String>, ModelError> {
    let path = folder.join(BASE);
    let text = match guard::file::read_model_text(folder, BASE) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ModelError::Io { path, source }),
    };
    let json: Value = serde_json::from_str(&text)
        .map_err(|e| ModelError::Config { path: path.clone(), reason: format!("not valid JSON ({e})") })?;
    match json["fingerprint"].as_str() {
        Some(own) => Ok(Some(own.to_string())),
        None => Err(ModelError::Config { path, reason: "fingerprint: missing; expected a text".into() }),
    }
}

/// All adapters' matrices, or this rank's parts of them, under PEFT's names.
struct CollectAdapters<B: Backend>(Vec<NamedPart<B>>);

impl<B: Backend> ParamVisitor<B> for CollectAdapters<B> {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        let len = tensor.shape().num_elements();
        self.0.push((format!("base_model.model.{}", peft_name(name)), tensor.clone().reshape([len]), shard.clone()));
    }
}

impl<B: Kernels> QwenVl<B> {
    /// Gives the model the adapter in a folder: PEFT's, or one that [`save_adapter`](Self::save_adapter) wrote. `base`
    /// is what the model's own weights are.
    ///
    /// # Errors
    /// An adapter of other weights: the tensors that do not fit, with both shapes, or that belong to no layer; files
    /// that are missing or damaged.
    pub fn with_adapter_of(self, folder: &AdapterFolder, base: BaseModel) -> Result<Self, ModelError> {
        folder.check_base(&base)?;
        let path = folder.path.join(ADAPTER_WEIGHTS);
        if !path.exists() && folder.path.join("adapter_model.bin").exists() {
            let what =
                "missing; adapter_model.bin is not read, save the adapter again with PEFT's save_pretrained".into();
            return Err(ModelError::Missing { path, what });
        }
        let checkpoint = Checkpoint::of_files(vec![path], own_name)?;
        let modules: BTreeSet<String> =
            checkpoint.index.keys().filter_map(|name| Some(adapted_module(name)?.0.to_string())).collect();
        // Of a layer that the model has not the tensors are left over, and listed.
        let chosen: Vec<String> = self.linear_modules().into_iter().filter(|module| modules.contains(module)).collect();
        check_dropout(&folder.config, chosen.iter().map(|module| &module[..]))?;
        let (dtype, device, tensor) = (self.decoder.embed.dtype(), self.device(), self.decoder.tensor.clone());
        let needed_by = format!("a rank of {} on this base", folder.config.rank);
        let mut source = FileSource::new(checkpoint, needed_by, dtype, device, tensor);
        let base_path = base.path.clone();
        let model = self.adapted_from(chosen.clone(), folder.config.clone(), base, &mut source);
        source.uploaded::<B>()?;
        let problems = match chosen.is_empty() {
            true => source.list(|_| false).or(Some("  it has no matrix of any layer".into())),
            false => source.list(|_| false),
        };
        match problems {
            None => Ok(model),
            Some(list) => Err(ModelError::Adapter { path: folder.path.clone(), base: base_path, list }),
        }
    }

    /// Writes the adapters as PEFT has them, and the tokenizer and processor files of `companions`, into `dir` (made
    /// where it is not there); every file is on the disk when this returns. Ranks that share the decoder out all call
    /// this; the first writes.
    ///
    /// # Errors
    /// A model without adapters; as [`save`](Self::save).
    pub fn save_adapter(&self, dir: &Path, companions: Option<&Companions>) -> Result<(), ModelError> {
        let Some(adapters) = &self.adapters else {
            return Err(ModelError::Input("the model has no adapters to save".into()));
        };
        let staged = self.stage_adapter(adapters, companions, ModelCopy::ALONE, Hold::Tensors)?;
        by_all(dir, staged.write(dir), self.decoder.tensor.ranks())
    }

    /// [`Learning::stage`](policy::Learning::stage) of adapters: they are small, and the first rank has all of them.
    pub(crate) fn stage_adapter(
        &self,
        adapters: &Adapters,
        companions: Option<&Companions>,
        copy: ModelCopy,
        hold: Hold,
    ) -> Result<Staged, ModelError> {
        let ranks = self.decoder.tensor.ranks();
        let mut staged = Staged::default();
        if copy.index > 0 {
            return Ok(staged);
        }
        let mut collect = CollectAdapters(Vec::new());
        self.clone().visit(&mut AdaptersOnly(&mut collect));
        let mut own = Vec::new();
        for (name, part, shard) in collect.0 {
            let dtype = part.dtype();
            if shard.is_whole() {
                if ranks.is_first() {
                    own.push(StagedTensor::new(name, part, shard.shape, hold)?);
                }
            } else if let Some(bytes) = whole_at(0, host::bytes(part), &shard, dtype.size(), ranks)? {
                own.push(StagedTensor::of_bytes(name, bytes, dtype, shard.shape));
            }
        }
        if ranks.is_first() {
            companions.iter().flat_map(|all| all.files()).for_each(|(name, bytes)| staged.text(name, bytes.to_vec()));
            let base = json!({ "fingerprint": adapters.base.fingerprint });
            staged.text(BASE, format!("{base:#}\n").into_bytes());
            staged.text(ADAPTER_CONFIG, format!("{:#}\n", adapters.peft_config()).into_bytes());
            staged.tensors(ADAPTER_WEIGHTS, own);
        }
        Ok(staged)
    }
}

impl Adapters {
    /// `adapter_config.json`.
    fn peft_config(&self) -> Value {
        let LoraConfig { rank, alpha, dropout, rslora, target_modules, exclude_modules } = &self.config;
        let names = |names: &ModuleNames| match names {
            names if names.is_empty() => Value::Null,
            ModuleNames::Ends(ends) => json!(ends),
            ModuleNames::Pattern(pattern) => json!(pattern),
        };
        // A whole number where it is one, as PEFT has it.
        let alpha = if alpha.fract() == 0.0 { json!(*alpha as i64) } else { json!(alpha) };
        let (base, revision) = match on_hub(&self.base.path) {
            Some((id, commit)) => (id, Some(commit)),
            None => (self.base.path.display().to_string(), None),
        };
        json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": base,
            "bias": "none",
            "exclude_modules": names(exclude_modules),
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": alpha,
            "lora_dropout": dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": rank,
            "rank_pattern": {},
            "revision": revision,
            "target_modules": names(target_modules),
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": rslora,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_in_the_cache_is_a_model_on_the_hub() {
        let of = |path: &str| on_hub(Path::new(path));
        let found = of("/home/me/.cache/huggingface/hub/models--Qwen--Qwen2.5-VL-3B-Instruct/snapshots/66285546d2b8");
        assert_eq!(found, Some(("Qwen/Qwen2.5-VL-3B-Instruct".into(), "66285546d2b8".into())));
        for path in ["/models/base", "base", "/", "/a/models--x/snapshots/c", "/a/models--x--y/blobs/c", "snapshots/c"]
        {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
