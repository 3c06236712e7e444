//! Whether the files of a model folder belong together, and the ids that end a response.

use std::path::Path;

use burn::tensor::DType;
use data::Processor;
use model_qwen2vl::QwenVlConfig;
use model_qwen2vl::load::eos_token_ids;
use model_qwen2vl::lora::select;
use plan::ModelShapes;
use rl::TrainError;
use rl::config::Config;

/// Whether the tokenizer and the image processor of a folder are those of its `config.json`.
///
/// # Errors
/// [`TrainError::Input`] names the folder, the key and both values.
pub(crate) fn check_folder(dir: &Path, processor: &Processor, config: &QwenVlConfig) -> Result<(), TrainError> {
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

/// Whether what `[model.lora]` names is there, and learns.
///
/// # Errors
/// As [`select`]; adapters of a frozen vision tower.
pub(crate) fn check_adapters(run: &Config, architecture: &QwenVlConfig) -> Result<(), TrainError> {
    let Some(lora) = run.model.lora() else { return Ok(()) };
    let modules = ModelShapes::new(architecture, DType::F32).linear_modules();
    let chosen = select(&lora, &modules)?;
    let tower = std::iter::zip(&modules, chosen).any(|(module, chosen)| chosen && module.starts_with("visual."));
    match tower && run.model.freeze_vision_tower {
        false => Ok(()),
        true => Err(TrainError::Input(
            "`model.freeze_vision_tower`, `model.lora.target_modules`: layers of the vision tower are adapted, and nothing in \
             it may learn; set freeze_vision_tower = false, or exclude_modules = \".*visual.*\""
                .into(),
        )),
    }
}

/// Ids that end a response, none twice: those of the folder's `generation_config.json` and `config.json`, the
/// tokenizer's `eos_token`, and the chat template's `<|im_end|>` where it is a special token. A response ends at
/// whichever comes first, as the files of published folders name different ones. The first is what a supervised
/// response is taught to end with.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_toy_folder;

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
