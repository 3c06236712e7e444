//! From a configuration to a run on one device.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use comm::Ranks;
use data::Processor;
use doctor::Examined;
use model_qwen2vl::{Kernels, QwenVl, QwenVlConfig};
use plan::{ModelShapes, RankGrid, ZeroStage};
use rl::TrainError;
use rl::config::Config;
use rl::learn::optimizer::check_formats;
use rl::progress::Progress;
use rl::prompts::Prompts;
use rl::trainer::{RankGroups, Setup, Summary, Trainer, check_batch_rows};

use crate::adapted::{RunWeights, first_adapter, same_form};
use crate::checks::{check_adapters, check_folder, end_tokens};
use crate::folder::{ModelFolder, PictureOptions};
use crate::names;

/// The architecture to train: the folder's, or a preset with the folder's vocabulary and special ids.
fn architecture(config: &Config, folder: &ModelFolder) -> Result<QwenVlConfig, TrainError> {
    let own = folder.config()?.clone();
    let name = &config.model.init[..];
    let preset = match names::preset(name)? {
        Some(preset) if config.model.path != "toy" || name != "toy" => preset,
        _ => return Ok(own),
    };
    let id = |key: &str| {
        own.raw
            .get(key)
            .or_else(|| own.raw.get("text_config").and_then(|t| t.get(key)))
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0) as u32
    };
    Ok(preset.with_vocabulary(
        own.text.vocab_size,
        [
            ("bos_token_id", id("bos_token_id")),
            ("eos_token_id", own.eos_token_ids.first().copied().unwrap_or(0)),
            ("vision_start_token_id", own.vision_start_token_id),
            ("vision_end_token_id", own.vision_end_token_id),
            ("image_token_id", own.image_token_id),
            ("video_token_id", own.video_token_id),
        ],
    )?)
}

/// The architecture that a run with this configuration trains; no weights are read.
///
/// # Errors
/// A model folder that cannot be used, a preset that is none.
pub fn configured(config: &Config) -> Result<QwenVlConfig, TrainError> {
    described(config, |folder| architecture(config, folder))
}

/// The data of each stage, in order, ready to be counted; no weights are read.
///
/// # Errors
/// A model folder that cannot be used, data that cannot be read.
pub fn stage_prompts(config: &Config) -> Result<Vec<Prompts>, TrainError> {
    described(config, |folder| {
        let processor = Arc::new(processor(config, folder)?);
        config.stages().iter().map(|stage| Prompts::of_stage(stage, config, processor.clone())).collect()
    })
}

/// What `look` finds in the model folder of a run without its weights. The embedded toy model's is written for a
/// moment, as it is read for a run.
fn described<T>(config: &Config, look: impl FnOnce(&ModelFolder) -> Result<T, TrainError>) -> Result<T, TrainError> {
    let path = match config.model.path.as_str() {
        "toy" => std::env::temp_dir().join(format!("toy_model_{}", std::process::id())),
        path => return look(&ModelFolder::describe(Path::new(path))?),
    };
    let found = ModelFolder::toy(&path, &config.model.family, &Ranks::solo()).and_then(|folder| look(&folder));
    // What is left in a folder for temporary files does no harm.
    let _ = std::fs::remove_dir_all(&path);
    found
}

/// The tokenizer of a run's folder, and its image processor with the run's own settings.
fn processor(config: &Config, folder: &ModelFolder) -> Result<Processor, TrainError> {
    let pictures = PictureOptions {
        min_pixels: Some(config.data.min_pixels as u64),
        max_pixels: Some(config.data.max_pixels as u64),
        alpha: Some(config.data.alpha),
        exif_orientation: Some(config.data.exif_orientation),
    };
    Ok(folder.unchecked_processor(pictures)?.with_max_prompt_length(config.data.max_prompt_length))
}

/// Ranks that have a copy of the model together: `parallel.tensor`, or as few as the plan says will do.
///
/// # Errors
/// A number that cannot share the decoder out; a rank that is gone.
fn tensor_size<B: Kernels>(
    ranks: &Ranks,
    config: &Config,
    architecture: &QwenVlConfig,
    dtype: DType,
    device: &B::Device,
) -> Result<usize, TrainError> {
    let (memory, zero) = (B::free_memory(device).unwrap_or(0) as usize, config.parallel.zero_stage::<B>(device));
    let zero = if zero == 2 { ZeroStage::Two } else { ZeroStage::One };
    let choose = || -> Result<usize, TrainError> {
        let shapes = ModelShapes::of_run(config, architecture, dtype)?;
        Ok(RankGrid::of_run(config, architecture, &shapes, ranks.size(), zero, memory)?.tensor)
    };
    let chosen = ranks.from_first("parallel.tensor", || choose().map_err(|error| error.to_string()))?;
    chosen.map_err(TrainError::Input)
}

/// The short form of `doctor`, on a GPU.
fn check_device<B: Kernels>(config: &Config, examined: Examined<B>, progress: &mut Progress) -> Result<(), TrainError> {
    if !config.trainer.check_device || B::device_memory(&examined.device).is_none() {
        return Ok(());
    }
    let clock = std::time::Instant::now();
    doctor::refuse_wrong(&examined)?;
    progress.note(&format!("the device computes what the CPU does ({:.1} s)", clock.elapsed().as_secs_f64()));
    Ok(())
}

/// Trains as `config` says on `device`, with weights and activations in `dtype`. `model.path` may be whatever
/// [`ModelFolder::open`] takes, and `toy`; pictures and prompts are the configuration's, not those of an earlier run.
///
/// # Errors
/// [`TrainError`] says what ended the run; its exit code says whose fault it was.
///
/// ```no_run
/// use burn::tensor::DType;
/// use rl::config::{Source, resolve};
/// use rl::progress::Progress;
///
/// let file = Source::new("mine.toml", std::fs::read_to_string("mine.toml")?);
/// let config = resolve(&[file], &["trainer.output_dir=runs/mine".to_string()])?;
/// let stop = Default::default(); // set it, and the run ends with a checkpoint
/// launch::train::<burn_flex::Flex>(config, DType::F32, &Default::default(), Progress::new(), stop)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train<B: Kernels>(
    config: Config,
    dtype: DType,
    device: &B::Device,
    progress: Progress,
    interrupt: Arc<AtomicBool>,
) -> Result<Summary, TrainError> {
    train_on::<B>(Ranks::solo(), config, dtype, device, progress, interrupt)
}

/// The same as one of `ranks`, each of which calls it with the same configuration and with a device of its own.
///
/// # Errors
/// As [`train`], and ranks that are gone.
pub fn train_on<B: Kernels>(
    ranks: Ranks,
    config: Config,
    dtype: DType,
    device: &B::Device,
    mut progress: Progress,
    interrupt: Arc<AtomicBool>,
) -> Result<Summary, TrainError> {
    check_formats::<B>(&config.actor.optim, device)?;
    check_batch_rows::<B>(&config, device)?;
    let is_toy = config.model.path == "toy";
    let folder = match is_toy {
        true => ModelFolder::toy(&config.trainer.run_dir(), &config.model.family, &ranks)?,
        false => ModelFolder::open(Path::new(&config.model.path))?,
    };
    let architecture = architecture(&config, &folder)?;
    let processor = processor(&config, &folder)?;
    check_folder(folder.path(), &processor, &architecture)?;
    check_adapters(&config, &architecture)?;
    let eos = end_tokens(folder.path(), &architecture, &processor)?;
    let companions = folder.companions(&processor)?;
    let groups = RankGroups::new(&ranks, tensor_size::<B>(&ranks, &config, &architecture, dtype, device)?)?;
    let examined = Examined { config: architecture.clone(), dtype, device: device.clone() };
    check_device::<B>(&config, examined, &mut progress)?;
    let random = is_toy || !config.model.init.is_empty();
    let (seed, own_device) = (config.model.init_seed, device.clone());
    let copy = groups.tensor.clone();
    let adapter = first_adapter(&config, &folder)?;
    if let (Some(lora), Some(adapter)) = (config.model.lora(), &adapter) {
        same_form(&lora, adapter)?;
    }
    let weights = Rc::new(RunWeights::<B>::new(&config, &folder, dtype, device, &copy));
    let (first, looking) = (weights.clone(), weights.clone());
    let initial = move || match random {
        true => QwenVl::<B>::random_parallel(architecture.clone(), seed, dtype, &own_device, &copy),
        false => first.first(adapter.as_ref(), seed),
    };
    let reward = rl::recipe::reward(&config)?;
    let setup = Setup {
        config,
        load: Box::new(move |path| weights.load(path)),
        fits: Box::new(move |path| looking.fits(path)),
        initial: Box::new(initial),
        processor: Arc::new(processor),
        companions,
        eos,
        reward,
        progress,
        interrupt,
        ranks: groups,
    };
    Trainer::<B, _>::new(setup)?.run()
}
