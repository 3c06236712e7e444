//! The embedded toy model: everything of its folder but the weights.

use std::path::Path;
use std::sync::Arc;

use data::{Processor, toy};
use model_qwen2vl::{ModelError, QwenVlConfig};
use rl::TrainError;

/// Writes the embedded toy model's folder without weights: tokenizer, image processor, `config.json`.
///
/// # Errors
/// Anything the file system refuses.
pub fn write_toy_folder(dir: &Path) -> Result<(), TrainError> {
    write_toy_folder_of(dir, "")
}

/// The same of a model of `family`.
///
/// # Errors
/// As [`write_toy_folder`].
pub(crate) fn write_toy_folder_of(dir: &Path, family: &str) -> Result<(), TrainError> {
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
    toy_config_of("")
}

/// The same of a model of `family`: its smallest built-in size.
fn toy_config_of(family: &str) -> Result<QwenVlConfig, TrainError> {
    let ids = toy::special_ids();
    let preset = crate::names::preset(crate::names::family(family)?.presets[0])?
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

/// The toy world without a folder of its own: the architecture of its model, its tokenizer and image processor, and the
/// ids that end a response.
///
/// # Errors
/// A folder for temporary files that cannot be written.
pub fn toy_world() -> Result<(QwenVlConfig, Arc<Processor>, Vec<u32>), TrainError> {
    let folder = std::env::temp_dir().join(format!("toy_world_{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|source| ModelError::Io { path: folder.clone(), source })?;
    let opened = (|| {
        write_toy_folder(&folder)?;
        let (architecture, processor) = (toy_config()?, Processor::from_folder(&folder)?);
        let eos = crate::end_tokens(&folder, &architecture, &processor)?;
        Ok((architecture, Arc::new(processor), eos))
    })();
    let removed = std::fs::remove_dir_all(&folder);
    removed.map_err(|source| TrainError::from(ModelError::Io { path: folder, source })).and(opened)
}
