//! Runs that train adapters: the weights below them, which are loaded once and shared by the policy, its reference and
//! whatever a checkpoint is read into; and what a checkpoint must be for such a run to go on from it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use comm::Ranks;
use model_qwen2vl::lora::{AdapterFolder, BaseModel};
use model_qwen2vl::{Kernels, ModelError, QwenVl};
use policy::{LoraConfig, ModuleNames};
use rl::TrainError;
use rl::config::Config;

use crate::folder::{ModelFolder, base_model, here};

/// The adapter that a run starts from, if it starts from one: `model.adapter`, or `model.path` itself.
///
/// # Errors
/// A folder that has none; two of them.
pub(crate) fn first_adapter(config: &Config, folder: &ModelFolder) -> Result<Option<AdapterFolder>, TrainError> {
    let named = match config.model.adapter.is_empty() {
        true => None,
        false => Some(adapter_at(&here(Path::new(&config.model.adapter), true)?)?),
    };
    match (named, folder.adapter()) {
        (Some(named), Some(own)) => Err(TrainError::Input(format!(
            "`model.adapter`: {} is a second adapter, {} is one already; leave one out",
            named.path().display(),
            own.path().display()
        ))),
        (named, own) => Ok(named.or(own.cloned())),
    }
}

/// The adapter at a path: of its own folder, a checkpoint or a run; of a model on the hub, of its snapshot.
fn adapter_at(path: &Path) -> Result<AdapterFolder, TrainError> {
    let newest = rl::checkpoint::list(&path.join(rl::run_folder::layout::CHECKPOINTS)).pop();
    let checkpoint = newest.map_or_else(|| path.to_path_buf(), |(_, checkpoint)| checkpoint);
    let learned = rl::checkpoint::learned(&checkpoint);
    Ok(AdapterFolder::open(if learned.is_dir() { &learned } else { path })?)
}

/// Where a run's models come from: `load` of the weights below, with adapters or without.
pub(crate) struct RunWeights<B: Kernels> {
    /// What trains, adapters or, where there are none, the weights.
    lora: Option<LoraConfig>,
    folder: PathBuf,
    dtype: DType,
    device: B::Device,
    /// Ranks that share the decoder out.
    copy: Ranks,
    /// The weights below adapters, once they are there.
    base: RefCell<Option<(QwenVl<B>, BaseModel)>>,
}

impl<B: Kernels> RunWeights<B> {
    pub(crate) fn new(config: &Config, folder: &ModelFolder, dtype: DType, device: &B::Device, copy: &Ranks) -> Self {
        Self {
            lora: config.model.lora(),
            folder: folder.weights().to_path_buf(),
            dtype,
            device: device.clone(),
            copy: copy.clone(),
            base: RefCell::new(None),
        }
    }

    fn read(&self, folder: &Path) -> Result<QwenVl<B>, ModelError> {
        QwenVl::load_parallel(folder, self.dtype, &self.device, &self.copy)
    }

    /// The weights below adapters.
    fn base(&self) -> Result<(QwenVl<B>, BaseModel), ModelError> {
        let mut base = self.base.borrow_mut();
        if let Some(base) = &*base {
            return Ok(base.clone());
        }
        let found = (self.read(&self.folder)?, base_model(&self.folder)?);
        Ok(base.insert(found).clone())
    }

    /// What a run starts from: the weights with new adapters drawn by `seed`, or with those of `adapter`, which are
    /// merged where weights learn.
    ///
    /// # Errors
    /// Weights or adapters that cannot be used, or do not fit each other.
    pub(crate) fn first(&self, adapter: Option<&AdapterFolder>, seed: u64) -> Result<QwenVl<B>, ModelError> {
        match (&self.lora, adapter) {
            (None, None) => self.read(&self.folder),
            (None, Some(adapter)) => {
                Ok(self.read(&self.folder)?.with_adapter_of(adapter, base_model(&self.folder)?)?.merged())
            }
            (Some(lora), None) => {
                let (base, name) = self.base()?;
                base.with_adapters(lora.clone(), name, seed)
            }
            (Some(lora), Some(adapter)) => self.adapted(adapter, lora),
        }
    }

    /// The weights with an adapter that this run goes on with. What is dropped is a matter of the run, not of its
    /// matrices.
    fn adapted(&self, adapter: &AdapterFolder, lora: &LoraConfig) -> Result<QwenVl<B>, ModelError> {
        let (base, name) = self.base()?;
        let mut adapter = adapter.clone();
        adapter.config.dropout = lora.dropout;
        base.with_adapter_of(&adapter, name)
    }

    /// What a checkpoint or a reference policy of this run has in `folder`.
    ///
    /// # Errors
    /// As [`first`](Self::first).
    pub(crate) fn load(&self, folder: &Path) -> Result<QwenVl<B>, ModelError> {
        match &self.lora {
            None => self.read(folder),
            Some(lora) => self.adapted(&AdapterFolder::open(folder)?, lora),
        }
    }

    /// Whether this run can go on from what a checkpoint has in `folder`. What is not there or damaged is for the
    /// reader to say.
    ///
    /// # Errors
    /// Adapters where weights are trained, weights where adapters are, adapters of another form, with each key that
    /// differs, and of other weights.
    pub(crate) fn fits(&self, folder: &Path) -> Result<(), TrainError> {
        let (is_adapter, is_whole) = (AdapterFolder::is_one(folder), folder.join("config.json").is_file());
        let shown = folder.display();
        let way = format!(
            "give the run what it had, or start a new one from it with model.path={shown} trainer.resume=none and \
             another trainer.output_dir"
        );
        match &self.lora {
            None if is_adapter && !is_whole => Err(TrainError::Input(format!(
                "{shown}: the checkpoint has an adapter (LoRA), and this run trains the weights: set \
                 model.lora.enable = true; {way}"
            ))),
            Some(_) if is_whole && !is_adapter => Err(TrainError::Input(format!(
                "{shown}: the checkpoint has whole weights, and this run trains an adapter (model.lora.enable); {way}"
            ))),
            Some(lora) if is_adapter => {
                let Ok(adapter) = AdapterFolder::open(folder) else { return Ok(()) };
                same_form(lora, &adapter)?;
                Ok(adapter.check_base(&base_model(&self.folder)?)?)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a run that trains `lora` can go on with an adapter.
///
/// # Errors
/// Each key of `[model.lora]` that differs from what the adapter has.
pub(crate) fn same_form(lora: &LoraConfig, adapter: &AdapterFolder) -> Result<(), TrainError> {
    let own = &adapter.config;
    let mut differ = Vec::new();
    let mut compare = |key: &str, wanted: String, has: String| {
        if wanted != has {
            differ.push(format!("model.lora.{key} is {wanted}, the adapter has {has}"));
        }
    };
    compare("rank", lora.rank.to_string(), own.rank.to_string());
    compare("alpha", lora.alpha.to_string(), own.alpha.to_string());
    compare("rslora", lora.rslora.to_string(), own.rslora.to_string());
    // PEFT sorts names; order and repetition mean nothing.
    let names = |names: &ModuleNames| match names {
        ModuleNames::Pattern(pattern) => format!("{pattern:?}"),
        ModuleNames::Ends(ends) => format!("{:?}", BTreeSet::from_iter(ends).into_iter().collect::<Vec<_>>()),
    };
    compare("target_modules", names(&lora.target_modules), names(&own.target_modules));
    compare("exclude_modules", names(&lora.exclude_modules), names(&own.exclude_modules));
    match differ.is_empty() {
        true => Ok(()),
        false => Err(TrainError::Input(format!(
            "{}: the adapter is of another form than [model.lora] says: {}",
            adapter.path().display(),
            differ.join("; ")
        ))),
    }
}
