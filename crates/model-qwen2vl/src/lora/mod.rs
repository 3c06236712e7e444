//! Low-rank adapters of the model's linear layers: which layers have them, what they start as, how they are merged into
//! the weights, and their files.

mod files;
mod fingerprint;

use std::path::PathBuf;

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use kernels::Kernels;
use kernels::layers::{Dropout, Linear, LinearShow, Lora, LoraPart, adapted_module, adapter_names};
use kernels::params::{StackPart, cast_to};
use policy::{LoraConfig, ModelError};

use crate::init::ParamSource;
use crate::load::hub_name;
use crate::model::QwenVl;
use crate::tensor::TensorParallel;

pub use files::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterFolder};
pub use fingerprint::fingerprint;

/// The weights that adapters belong to, as their files name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseModel {
    /// Their folder.
    pub path: PathBuf,
    /// What tells them from others ([`fingerprint`]).
    pub fingerprint: String,
}

/// What is known of a model's adapters beside their matrices.
#[derive(Debug, Clone)]
pub(crate) struct Adapters {
    pub(crate) config: LoraConfig,
    pub(crate) base: BaseModel,
    /// Whether layers of the vision tower have some.
    pub(crate) tower: bool,
    /// Names what the passes of this optimizer step drop.
    pub(crate) seed: u64,
}

impl Adapters {
    /// What is dropped of tokens with these keys.
    pub(crate) fn dropout<'a>(&self, rows: &'a [u64]) -> Option<Dropout<'a>> {
        let share = self.config.dropout;
        (share > 0.0).then_some(Dropout { share, seed: self.seed, rows })
    }
}

/// The name in transformers (from 4.52 on) of the layer that this crate calls `module`, by which PEFT knows it.
pub fn peft_name(module: &str) -> String {
    match module.strip_prefix("model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None => format!("model.{module}"),
    }
}

/// The linear layer whose weight is the parameter `name` of a model, if it is one that can have an adapter.
pub fn linear_module(name: &str, dimensions: usize) -> Option<&str> {
    let module = name.strip_suffix(".weight").filter(|_| dimensions == 2)?;
    let in_tower =
        module.starts_with("visual.") && !module.ends_with(".patch_embed.proj") && !module.ends_with("pos_embed");
    (in_tower || module.starts_with("model.layers.")).then_some(module)
}

/// Which of the linear layers `modules`, by this crate's names, a configuration adapts.
///
/// # Errors
/// As [`LoraConfig::select`]; dropout in the vision tower.
pub fn select(config: &LoraConfig, modules: &[String]) -> Result<Vec<bool>, ModelError> {
    let names: Vec<String> = modules.iter().map(|module| peft_name(module)).collect();
    let chosen = config.select(&names)?;
    check_dropout(
        config,
        std::iter::zip(modules, &chosen).filter(|(_, chosen)| **chosen).map(|(module, _)| &module[..]),
    )?;
    Ok(chosen)
}

/// Adapters of the tower drop nothing: its rows are patches, which have no key.
fn check_dropout<'a>(config: &LoraConfig, mut adapted: impl Iterator<Item = &'a str>) -> Result<(), ModelError> {
    match adapted.find(|module| module.starts_with("visual.")).filter(|_| config.dropout > 0.0) {
        None => Ok(()),
        Some(module) => Err(ModelError::Input(format!(
            "`model.lora.dropout` is {}, and {} is adapted: inputs of the vision tower are not dropped; set it to 0, or \
             leave the tower out (model.lora.exclude_modules = \".*visual.*\")",
            config.dropout,
            peft_name(module)
        ))),
    }
}

impl<B: Kernels> QwenVl<B> {
    /// Shows its linear layers, the head excepted, in a fixed order.
    fn linears(&mut self, show: &mut LinearShow<B>) {
        self.visual.linears(show);
        for (i, layer) in self.decoder.layers.iter_mut().enumerate() {
            layer.linears(&format!("model.layers.{i}"), show);
        }
    }

    /// The names of its linear layers, the head excepted.
    pub fn linear_modules(&self) -> Vec<String> {
        let mut modules = Vec::new();
        self.clone().linears(&mut |parts, _| modules.extend(parts.iter().map(|(module, _)| module.clone())));
        modules
    }

    /// Those that have an adapter, with it.
    pub(crate) fn adapted(&self) -> impl Iterator<Item = (String, Lora<B>)> {
        let mut found = Vec::new();
        self.clone().linears(&mut |_, linear| {
            if let Some(lora) = &linear.lora {
                found.extend(lora.parts.iter().map(|part| (part.module.clone(), lora.clone())));
            }
        });
        found.into_iter()
    }

    /// The settings of its adapters, if it has any.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.adapters.as_ref().map(|adapters| &adapters.config)
    }

    /// With new adapters as `config` says, which add nothing yet: `A` is drawn as PEFT draws it, by `seed` and name,
    /// and `B` is 0. From now on they alone learn. `base` is what the weights are called in the adapters' files.
    ///
    /// # Errors
    /// As [`select`].
    pub fn with_adapters(self, config: LoraConfig, base: BaseModel, seed: u64) -> Result<Self, ModelError> {
        let modules = self.linear_modules();
        let chosen = select(&config, &modules)?;
        let chosen = std::iter::zip(modules, chosen).filter(|(_, chosen)| *chosen).map(|(module, _)| module).collect();
        let (dtype, device) = (self.decoder.embed.dtype(), self.device());
        let mut source = AdapterSource { seed, dtype, device, tensor: self.decoder.tensor.clone() };
        Ok(self.adapted_from(chosen, config, base, &mut source))
    }

    /// With adapters of the linear layers `chosen`, whose matrices come from `source`.
    fn adapted_from(
        mut self,
        chosen: Vec<String>,
        config: LoraConfig,
        base: BaseModel,
        source: &mut impl ParamSource<B>,
    ) -> Self {
        let (rank, scale, device, tensor) = (config.rank, config.scale(), self.device(), self.decoder.tensor.clone());
        let tower = chosen.iter().any(|module| module.starts_with("visual."));
        B::persistent(&device, || {
            self.linears(&mut |parts, linear| {
                linear.lora = adapter(parts, linear, &chosen, (rank, scale), &tensor, source)
            });
        });
        B::memory_cleanup(&device);
        self.adapters = Some(Adapters { config, base, tower, seed: 0 });
        self
    }

    /// With the adapters' products added to the weights, and without adapters: everything learns again.
    #[must_use]
    pub fn merged(mut self) -> Self {
        self.linears(&mut |parts, linear| {
            let Some(lora) = linear.lora.take() else { return };
            let mut start = 0;
            let rows: Vec<Tensor<B, 2>> = parts
                .iter()
                .map(|(module, rows)| {
                    let part = linear.weight.clone().narrow(0, start, *rows);
                    start += rows;
                    let dims = part.dims();
                    match lora.merged(module) {
                        Some(_) => merged(&part.reshape([dims[0] * dims[1]]), &lora, module).reshape(dims),
                        None => part,
                    }
                })
                .collect();
            linear.weight = Tensor::cat(rows, 0);
        });
        self.adapters = None;
        self
    }
}

/// A weight `[out in]` with what the adapter of its layer adds, in its own type.
pub(crate) fn merged<B: Kernels>(weight: &Tensor<B, 1>, lora: &Lora<B>, module: &str) -> Tensor<B, 1> {
    let Some(more) = lora.merged(module) else { return weight.clone() };
    let (len, dtype) = (weight.dims()[0], weight.dtype());
    cast_to(cast_to(weight.clone(), DType::F32).add(more.reshape([len])), dtype)
}

/// The adapters of those of a linear layer's `parts` that are among `chosen`; none of none.
fn adapter<B: Backend>(
    parts: &[(String, usize)],
    linear: &Linear<B>,
    chosen: &[String],
    (rank, scale): (usize, f64),
    tensor: &TensorParallel,
    source: &mut impl ParamSource<B>,
) -> Option<Lora<B>> {
    let [out, width] = linear.weight.dims();
    let mut end = 0;
    let mut own = Vec::new();
    for (module, rows) in parts {
        end += rows;
        if chosen.contains(module) {
            own.push((module, end - rows..end));
        }
    }
    if own.is_empty() {
        return None;
    }
    let stack: Vec<StackPart> = own
        .iter()
        .map(|(module, _)| {
            let [name, _] = adapter_names(module);
            StackPart { name, rows: rank }
        })
        .collect();
    let a = source.stack(&stack, [rank * own.len(), width]);
    let cut = tensor.shard(&stack[0].name, &[rank, width]);
    let first_input = if cut.axis == 1 { cut.range.start } else { 0 };
    let parts = own.into_iter().map(|(module, rows)| {
        let [_, name] = adapter_names(module);
        LoraPart { module: module.clone(), b: source.param(&name, [rows.len(), rank]), rows }
    });
    Some(Lora { a, parts: parts.collect(), scale, out, first_input })
}

/// New adapters.
struct AdapterSource<D> {
    seed: u64,
    dtype: DType,
    device: D,
    tensor: TensorParallel,
}

impl<B: Backend> ParamSource<B> for AdapterSource<B::Device> {
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D> {
        let options = (&self.device, self.dtype);
        if adapted_module(name).is_none_or(|(_, is_b)| is_b) {
            return Tensor::zeros(shape, options);
        }
        // PyTorch's kaiming_uniform_ with a = sqrt(5): the bound is 1 / sqrt(in), of the whole layer.
        let shard = self.tensor.shard(name, &shape);
        let bound = 1.0 / (shard.shape.last().copied().unwrap_or(1) as f32).sqrt();
        let bytes = name.bytes().chain(self.seed.to_le_bytes());
        let mut state = bytes.fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        let whole: Vec<f32> =
            (0..shard.shape.iter().product()).map(|_| (2.0 * crate::init::uniform(&mut state) - 1.0) * bound).collect();
        let values: Vec<f32> = match shard.is_whole() {
            true => whole,
            false => shard.elements().flat_map(|range| whole[range].to_vec()).collect(),
        };
        Tensor::from_data(TensorData::new(values, shape), options)
    }
}

/// This crate's name of a parameter of an adapter that PEFT wrote: `base_model.model.`, and perhaps the adapter's own
/// name, are left out.
fn own_name(name: &str) -> String {
    let inner = name.strip_prefix("base_model.model.").unwrap_or(name);
    hub_name(&inner.replace("lora_A.default.weight", "lora_A.weight").replace("lora_B.default.weight", "lora_B.weight"))
}
