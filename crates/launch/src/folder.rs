//! A model as a user names it, opened in one way by every program.

use std::path::{Path, PathBuf};

use burn::tensor::DType;
use comm::Ranks;
use data::processor::serving;
use data::{Alpha, ExifOrientation, Processor};
use hub::download::is_of_model;
use hub::name::RepoName;
use hub::{Hub, HubError, RepoKind};
use model_qwen2vl::lora::{AdapterFolder, BaseModel, fingerprint};
use model_qwen2vl::save::Companions;
use model_qwen2vl::{Kernels, ModelError, QwenVl, QwenVlConfig};
use rl::TrainError;
use rl::rollout::never_sampled;
use rl::run_folder::layout;

use crate::checks::{check_folder, end_tokens};
use crate::run::RunSettings;
use crate::toy::write_toy_folder_of;

/// What a command line says about pictures; the rest is the model's.
#[derive(Debug, Clone, Copy, Default)]
pub struct PictureOptions {
    /// `--min-pixels`, 0: no limit.
    pub min_pixels: Option<u64>,
    /// `--max-pixels`, 0: no limit.
    pub max_pixels: Option<u64>,
    /// `--alpha`.
    pub alpha: Option<Alpha>,
    /// `--exif-orientation`.
    pub exif_orientation: Option<ExifOrientation>,
}

/// A model: a folder in the Hugging Face layout, or an adapter's in PEFT's, and what the run says that it stands in.
///
/// A run folder of `train`, its checkpoint and the `hf/` of that are one model: opened by any of the three paths, it is
/// asked the same ids.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    /// Where tokenizer, processor and end tokens are.
    path: PathBuf,
    /// Where the weights are.
    weights: PathBuf,
    /// What is put on them.
    adapter: Option<AdapterFolder>,
    config: Option<QwenVlConfig>,
    run: RunSettings,
}

impl ModelFolder {
    /// Opens what `path` names: a model folder in the Hugging Face layout, an adapter's folder, the run folder of
    /// `train` (its newest checkpoint), a checkpoint of a run, or a model on the Hugging Face hub by its id, which is
    /// fetched into the shared cache; so is the base of an adapter that names it by its id. No weights are read.
    ///
    /// # Errors
    /// An adapter whose base model is not there; a run without a checkpoint, a `config.toml` or `config.json` that
    /// cannot be read, and `toy`, which has no weights.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        if path == Path::new("toy") && !path.exists() {
            return Err(TrainError::Input(
                "model toy: the toy model is random before it is trained; run `train` and name its run folder (runs/toy)"
                    .into(),
            ));
        }
        Self::open_here(&here(path, true)?, true)
    }

    /// The same where no weights will be read: of a model on the hub what is in the cache has to do, and nothing is
    /// asked.
    ///
    /// # Errors
    /// As [`open`](Self::open), and a model on the hub that was never fetched.
    pub fn describe(path: &Path) -> Result<Self, TrainError> {
        Self::open_here(&here(path, false)?, false)
    }

    fn open_here(path: &Path, fetch: bool) -> Result<Self, TrainError> {
        let path = if path.join("config.json").is_file() || AdapterFolder::is_one(path) {
            path.to_path_buf()
        } else if path.join(layout::STATE).is_file() {
            path.join(layout::MODEL)
        } else if path.join(layout::CHECKPOINTS).is_dir() {
            match rl::checkpoint::list(&path.join(layout::CHECKPOINTS)).pop() {
                Some((_, checkpoint)) => checkpoint.join(layout::MODEL),
                None => {
                    return Err(TrainError::Input(format!("model {}: the run has no checkpoint yet", path.display())));
                }
            }
        } else {
            path.to_path_buf()
        };
        let run = RunSettings::of_folder(&path)?;
        Self::at(path, run, fetch)
    }

    /// The toy model of a run that trains in `run`: rank 0 writes its folder there, unless the run has begun and has
    /// one.
    ///
    /// # Errors
    /// Anything the file system refuses; a rank that is gone.
    pub(crate) fn toy(run: &Path, family: &str, ranks: &Ranks) -> Result<Self, TrainError> {
        let path = run.join("model");
        let begun = rl::run_folder::RunFolder::has_run(run) && path.join("config.json").is_file();
        if ranks.is_first() && !begun {
            std::fs::create_dir_all(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
            write_toy_folder_of(&path, family)?;
        }
        ranks.barrier("the toy model's folder")?;
        Self::at(path, RunSettings::default(), true)
    }

    fn at(path: PathBuf, run: RunSettings, fetch: bool) -> Result<Self, TrainError> {
        let is_adapter = AdapterFolder::is_one(&path) && !path.join("config.json").is_file();
        let adapter = is_adapter.then(|| AdapterFolder::open(&path)).transpose()?;
        let weights = match &adapter {
            Some(adapter) => base_of(adapter, fetch)?,
            None => path.clone(),
        };
        // Whoever only counts tokens needs no architecture.
        let config = weights.join("config.json").exists().then(|| QwenVlConfig::from_folder(&weights)).transpose()?;
        // PEFT writes no tokenizer unless it is told to.
        let path = if path.join("tokenizer.json").is_file() { path } else { weights.clone() };
        Ok(Self { path, weights, adapter, config, run })
    }

    /// The folder with tokenizer and processor.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder with the weights: of an adapter, its base model's.
    pub(crate) fn weights(&self) -> &Path {
        &self.weights
    }

    /// The adapter that is put on the weights.
    pub(crate) fn adapter(&self) -> Option<&AdapterFolder> {
        self.adapter.as_ref()
    }

    /// What the run of the model says; nothing where it stands in none.
    pub fn run(&self) -> &RunSettings {
        &self.run
    }

    /// `config.json`.
    ///
    /// # Errors
    /// A folder without one.
    pub fn config(&self) -> Result<&QwenVlConfig, TrainError> {
        match &self.config {
            Some(config) => Ok(config),
            None => {
                // Says what is missing: the folder or the file.
                QwenVlConfig::from_folder(&self.weights)?;
                Err(TrainError::Input(format!("model folder {}: changed while it was read", self.path.display())))
            }
        }
    }

    /// Tokenizer and image processor, with pictures as in training unless `options` say otherwise; those of the
    /// folder's `config.json` where it has one.
    ///
    /// # Errors
    /// A folder that cannot be used, limits that no picture can satisfy, files of two models.
    pub fn processor(&self, options: PictureOptions) -> Result<Processor, TrainError> {
        let processor = self.unchecked_processor(options)?;
        if let Some(config) = &self.config {
            check_folder(&self.path, &processor, config)?;
        }
        Ok(processor)
    }

    /// The same before it is known for which architecture it is.
    pub(crate) fn unchecked_processor(&self, options: PictureOptions) -> Result<Processor, TrainError> {
        let processor = Processor::from_folder(&self.path)?;
        let own = processor.limits();
        // The folder of a checkpoint says how its pictures were seen; one of an earlier version does not, but its run
        // does.
        let said = (own.run, own.alpha, own.exif_orientation);
        let (run, alpha, exif_orientation) = match self.run.pictures {
            Some(of_run) if said == Default::default() => of_run,
            _ => said,
        };
        let processor = processor
            .with_limits(options.min_pixels.unwrap_or(run.min_pixels), options.max_pixels.unwrap_or(run.max_pixels))?;
        Ok(processor.with_picture_settings(
            options.alpha.unwrap_or(alpha),
            options.exif_orientation.unwrap_or(exif_orientation),
        ))
    }

    /// Ids that end a response; the first is what a supervised response is taught to end with.
    ///
    /// # Errors
    /// As [`end_tokens`].
    pub fn end_tokens(&self, processor: &Processor) -> Result<Vec<u32>, TrainError> {
        end_tokens(&self.path, self.config()?, processor)
    }

    /// Ids that no response may have, ascending: control tokens of pictures, and rows of the embedding without a token.
    ///
    /// # Errors
    /// A folder without `config.json`.
    pub fn never_sampled(&self, processor: &Processor) -> Result<Vec<u32>, TrainError> {
        let config = self.config()?;
        Ok(never_sampled(config.vision_token_ids(), processor, config.text.vocab_size))
    }

    /// The tokenizer's and the processor's files for a checkpoint: they say how its pictures became patches.
    ///
    /// # Errors
    /// A file that cannot be read, or is too large to be what its name says.
    pub fn companions(&self, processor: &Processor) -> Result<Companions, TrainError> {
        let mut companions = Companions::read(&self.path)?;
        companions
            .revise(|name, bytes| serving::restate(name, bytes, processor.limits()))
            .map_err(|reason| TrainError::Input(format!("model folder {}: {reason}", self.path.display())))?;
        Ok(companions)
    }

    /// The model with its weights, in `dtype` on `device`; an adapter is applied apart from them, as in training.
    ///
    /// # Errors
    /// An adapter of other weights; weights that are damaged, missing, or of another `config.json`.
    pub fn load<B: Kernels>(&self, dtype: DType, device: &B::Device) -> Result<QwenVl<B>, ModelError> {
        let model = QwenVl::load(&self.weights, dtype, device)?;
        match &self.adapter {
            Some(adapter) => model.with_adapter_of(adapter, base_model(&self.weights)?),
            None => Ok(model),
        }
    }
}

/// The folder that `path` names: itself, or that of a model on the Hugging Face hub (`owner/name@revision`)
/// in the shared cache; what is missing there is fetched where `fetch` says so.
///
/// # Errors
/// A model that is neither here nor there.
pub(crate) fn here(path: &Path, fetch: bool) -> Result<PathBuf, TrainError> {
    let name = path.to_str().filter(|_| !path.exists()).and_then(RepoName::parse);
    let Some(name) = name else { return Ok(path.to_path_buf()) };
    let fail = |error| {
        TrainError::Input(format!("{}: no such model folder, and of a model on the hub: {error}", path.display()))
    };
    snapshot(&name, fetch).map_err(fail)
}

/// The folder of an adapter's base: the one that its files name, or else that of a model on the hub.
///
/// # Errors
/// A base that is neither here nor there.
fn base_of(adapter: &AdapterFolder, fetch: bool) -> Result<PathBuf, TrainError> {
    let missing = match adapter.base_folder() {
        Ok(folder) => return Ok(folder),
        Err(missing) => missing,
    };
    let Some(name) = RepoName::parse(&adapter.base_on_hub()) else { return Err(missing.into()) };
    snapshot(&name, fetch).map_err(|error| TrainError::Input(format!("{missing}; of a model on the hub: {error}")))
}

/// A model on the hub, in the shared cache.
fn snapshot(name: &RepoName, fetch: bool) -> Result<PathBuf, HubError> {
    let hub = Hub::from_env()?;
    let hub = if fetch { hub } else { Hub { offline: true, ..hub } };
    hub.snapshot(RepoKind::Model, name, is_of_model)
}

/// The weights in `folder`, as an adapter's files name them.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn base_model(folder: &Path) -> Result<BaseModel, ModelError> {
    let path = folder.canonicalize().map_err(ModelError::io(folder))?;
    let fingerprint = fingerprint(&path)?;
    Ok(BaseModel { path, fingerprint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::write_toy_folder;

    /// A run with checkpoints of these steps, as an earlier version left them: their folders say nothing of pictures.
    fn run(steps: &[u64]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(layout::CONFIG), "[data]\nmin_pixels = 800\nmax_pixels = 2500\n").unwrap();
        for step in steps {
            let checkpoint = dir.path().join(layout::CHECKPOINTS).join(format!("global_step_{step}"));
            std::fs::create_dir_all(checkpoint.join(layout::MODEL)).unwrap();
            std::fs::write(checkpoint.join(layout::STATE), "{}").unwrap();
            write_toy_folder(&checkpoint.join(layout::MODEL)).unwrap();
        }
        dir
    }

    /// By number, not by name.
    #[test]
    fn a_run_folder_is_its_newest_checkpoint() {
        let run = run(&[9, 10, 2]);
        let newest = run.path().join(layout::CHECKPOINTS).join("global_step_10").join(layout::MODEL);
        assert_eq!(ModelFolder::open(run.path()).unwrap().path(), newest);
    }

    /// A checkpoint whose folder does not say how its pictures were seen is asked as its run says; a user comes first.
    #[test]
    fn pictures_are_those_of_the_run() {
        let run = run(&[3]);
        let folder = ModelFolder::open(run.path()).unwrap();
        let limits = |options| {
            let processor = folder.processor(options).unwrap();
            let run = processor.limits().run;
            (run.min_pixels, run.max_pixels)
        };
        assert_eq!(limits(PictureOptions::default()), (800, 2500));
        assert_eq!(limits(PictureOptions { max_pixels: Some(5000), ..PictureOptions::default() }), (800, 5000));
    }
}
