//! From a configuration to a run on one device.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use data::processor::serving;
use data::{Processor, toy};
use model_qwen2vl::load::eos_token_ids;
use model_qwen2vl::save::Companions;
use model_qwen2vl::{Kernels, ModelError, QwenVl, QwenVlConfig};

use crate::config::{Config, Family};
use crate::error::TrainError;
use crate::optimizer::check_formats;
use crate::progress::Progress;
use crate::run_folder::RunFolder;
use crate::trainer::{Setup, Summary, Trainer};

/// Writes the embedded toy model's folder without weights: tokenizer, image processor, `config.json`.
///
/// # Errors
/// Anything the file system refuses.
pub fn write_toy_folder(dir: &Path) -> Result<(), TrainError> {
    write_toy_folder_of(dir, Family::Qwen2_5)
}

/// The same of a model of `family`.
///
/// # Errors
/// As [`write_toy_folder`].
pub fn write_toy_folder_of(dir: &Path, family: Family) -> Result<(), TrainError> {
    toy::write_processor_files(dir)?;
    let config = toy_config_of(family)?;
    let path = dir.join("config.json");
    let text = serde_json::to_string_pretty(&config.raw).unwrap_or_default();
    std::fs::write(&path, text).map_err(|source| ModelError::Io { path, source })?;
    Ok(())
}

/// The architecture of the toy model, with the toy tokenizer's vocabulary.
///
/// # Errors
/// None in practice: both halves are built in.
pub fn toy_config() -> Result<QwenVlConfig, TrainError> {
    toy_config_of(Family::Qwen2_5)
}

/// The same of a model of `family`: its smallest built-in size.
fn toy_config_of(family: Family) -> Result<QwenVlConfig, TrainError> {
    let ids = toy::special_ids();
    let preset = model_qwen2vl::Family::of(family.as_str())
        .and_then(|family| QwenVlConfig::preset(family.presets[0]))
        .ok_or_else(|| TrainError::Input("the toy preset is missing".into()))?;
    Ok(preset.with_vocabulary(
        ids.vocab_size,
        [
            ("bos_token_id", ids.bos),
            ("eos_token_id", ids.eos),
            ("vision_start_token_id", ids.vision_start),
            ("vision_end_token_id", ids.vision_end),
            ("image_token_id", ids.image_pad),
            ("video_token_id", ids.video_pad),
        ],
    )?)
}

/// Whether the tokenizer and the image processor of a folder are those of its `config.json`.
///
/// # Errors
/// [`TrainError::Input`] names the folder, the key and both values.
pub fn check_folder(dir: &Path, processor: &Processor, config: &QwenVlConfig) -> Result<(), TrainError> {
    let fail = |reason: String| {
        let reason = format!("model folder {}: {reason}; the files belong to two models", dir.display());
        Err(TrainError::Input(reason))
    };
    for (token, id, key, wanted) in [
        ("<|image_pad|>", processor.image_pad_id(), "image_token_id", config.image_token_id),
        ("<|video_pad|>", processor.video_pad_id(), "video_token_id", config.video_token_id),
    ] {
        if id != wanted {
            return fail(format!("{token} is token {id} of tokenizer.json, but config.json has {key} = {wanted}"));
        }
    }
    let (limits, vision) = (processor.limits(), &config.vision);
    for (own, own_key, key, wanted) in [
        (limits.patch_size, "patch_size", "patch_size", vision.patch_size),
        (limits.merge_size, "merge_size", "spatial_merge_size", vision.spatial_merge_size),
        (limits.temporal_patch_size, "temporal_patch_size", "temporal_patch_size", vision.temporal_patch_size),
    ] {
        if own != wanted {
            return fail(format!(
                "the image processor's settings have {own_key} = {own}, but config.json has vision_config.{key} = {wanted}"
            ));
        }
    }
    Ok(())
}

/// Ids that end a response, none twice: those of the folder's `generation_config.json` and `config.json`, the tokenizer's `eos_token`,
/// and the chat template's `<|im_end|>` where it is a special token. A response ends at whichever comes first, as the files of published
/// folders name different ones. The first is what a supervised response is taught to end with.
///
/// # Errors
/// A folder that names none which its tokenizer has, or one that the model has no embedding for.
pub fn end_tokens(dir: &Path, config: &QwenVlConfig, processor: &Processor) -> Result<Vec<u32>, TrainError> {
    let mut ids = eos_token_ids(dir, config)?;
    let turn = processor.token_id("<|im_end|>").filter(|id| processor.special_ids().contains(id));
    for id in processor.eos_ids().iter().copied().chain(turn) {
        if !ids.contains(&id) && (id as usize) < config.text.vocab_size {
            ids.push(id);
        }
    }
    ids.retain(|&id| processor.token(id).is_some());
    match ids.is_empty() {
        false => Ok(ids),
        true => Err(TrainError::Input(format!(
            "model folder {}: no end token of generation_config.json, config.json or tokenizer_config.json is a token of \
             tokenizer.json, so responses would never end; set eos_token_id in generation_config.json",
            dir.display()
        ))),
    }
}

/// The architecture to train: the folder's, or a preset with the folder's vocabulary and special ids.
fn architecture(config: &Config, folder: &Path) -> Result<QwenVlConfig, TrainError> {
    let own = QwenVlConfig::from_folder(folder)?;
    let name = config.model.init.as_str();
    if name.is_empty() || (config.model.path == "toy" && name == "toy") {
        return Ok(own);
    }
    let preset = QwenVlConfig::preset(name)
        .ok_or_else(|| TrainError::Input(format!("model.init: there is no preset {name:?}")))?;
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

/// Trains as `config` says on `device`, with weights and activations in `dtype`.
///
/// # Errors
/// [`TrainError`] says what ended the run; its exit code says whose fault it was.
pub fn train<B: Kernels>(
    config: Config,
    dtype: DType,
    device: &B::Device,
    progress: Progress,
    interrupt: Arc<AtomicBool>,
) -> Result<Summary, TrainError> {
    check_formats::<B>(&config.actor.optim, device)?;
    let is_toy = config.model.path == "toy";
    let source: PathBuf =
        if is_toy { config.trainer.run_dir().join("model") } else { PathBuf::from(&config.model.path) };
    if is_toy {
        // A run that is there has its folder, and goes on with that one.
        let begun = RunFolder::has_run(&config.trainer.run_dir()) && source.join("config.json").is_file();
        if !begun {
            std::fs::create_dir_all(&source).map_err(|e| ModelError::Io { path: source.clone(), source: e })?;
            write_toy_folder_of(&source, config.model.family)?;
        }
    }
    let architecture = architecture(&config, &source)?;
    let processor = Processor::from_folder(&source)?;
    let processor = processor
        .with_limits(config.data.min_pixels as u64, config.data.max_pixels as u64)?
        .with_picture_settings(config.data.alpha, config.data.exif_orientation)
        .with_max_prompt_length(config.data.max_prompt_length);
    check_folder(&source, &processor, &architecture)?;
    let eos = end_tokens(&source, &architecture, &processor)?;
    let mut companions = Companions::read(&source)?;
    // Every folder that the run saves says how its pictures became patches.
    companions
        .revise(|name, bytes| serving::restate(name, bytes, processor.limits()))
        .map_err(|reason| TrainError::Input(format!("model folder {}: {reason}", source.display())))?;
    let random = is_toy || !config.model.init.as_str().is_empty();
    let (seed, own_device, folder) = (config.model.init_seed, device.clone(), source.clone());
    let initial = move || match random {
        true => Ok(QwenVl::<B>::random(architecture.clone(), seed, dtype, &own_device)),
        false => QwenVl::load(&folder, dtype, &own_device),
    };
    let own_device = device.clone();
    let setup = Setup {
        config,
        load: Box::new(move |path| QwenVl::<B>::load(path, dtype, &own_device)),
        initial: Box::new(initial),
        processor: Arc::new(processor),
        companions,
        eos,
        progress,
        interrupt,
    };
    Trainer::<B, _>::new(setup)?.run()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a folder whose files name different end tokens ended its responses at one of them only.
    #[test]
    fn a_response_ends_at_every_end_token_that_a_folder_names() {
        let dir = tempfile::tempdir().unwrap();
        write_toy_folder(dir.path()).unwrap();
        let mut config = QwenVlConfig::from_folder(dir.path()).unwrap();
        let processor = || Processor::from_folder(dir.path()).unwrap();
        let id = |token: &str| processor().token_id(token).unwrap();
        let (end, text) = (id("<|im_end|>"), id("<|endoftext|>"));
        let set = |name: &str, key: &str, value: serde_json::Value| {
            let path = dir.path().join(name);
            let bytes = std::fs::read(&path).unwrap_or_else(|_| b"{}".to_vec());
            let mut map: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            map[key] = value;
            std::fs::write(&path, map.to_string()).unwrap();
        };
        let _ = std::fs::remove_file(dir.path().join("generation_config.json"));
        set("tokenizer_config.json", "eos_token", "<|im_end|>".into());
        config.eos_token_ids = vec![text];
        assert_eq!(end_tokens(dir.path(), &config, &processor()).unwrap(), [text, end], "tokenizer and config differ");
        set("tokenizer_config.json", "eos_token", "<|endoftext|>".into());
        assert_eq!(end_tokens(dir.path(), &config, &processor()).unwrap(), [text, end], "the template's end of a turn");
        set("generation_config.json", "eos_token_id", 3.into());
        assert_eq!(
            end_tokens(dir.path(), &config, &processor()).unwrap(),
            [3, text, end],
            "generation_config.json first"
        );
    }

    #[test]
    fn a_folder_of_two_models_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write_toy_folder(dir.path()).unwrap();
        let config = QwenVlConfig::from_folder(dir.path()).unwrap();
        let check = || check_folder(dir.path(), &Processor::from_folder(dir.path()).unwrap(), &config);
        check().unwrap();
        let path = dir.path().join("preprocessor_config.json");
        let own: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for (key, value, other) in [
            ("patch_size", 16, format!("vision_config.patch_size = {}", config.vision.patch_size)),
            ("merge_size", 1, format!("vision_config.spatial_merge_size = {}", config.vision.spatial_merge_size)),
            ("temporal_patch_size", 1, format!("temporal_patch_size = {}", config.vision.temporal_patch_size)),
        ] {
            let mut settings = own.clone();
            settings[key] = value.into();
            std::fs::write(&path, settings.to_string()).unwrap();
            let error = check().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let said = error.to_string();
            for part in [&format!("{key} = {value}"), &other, "two models", &dir.path().display().to_string()] {
                assert!(said.contains(part), "{part:?} is not in: {said}");
            }
        }
    }
}
