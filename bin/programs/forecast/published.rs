//! The architecture of a run whose model may not be there yet.

use model_qwen2vl::QwenVlConfig;
use rl::config::Config;

/// The sizes of published models, whose folder need not be there to count with them.
const PUBLISHED: [(&str, &str); 10] = [
    ("Qwen2.5-VL-3B", "3b"),
    ("Qwen2.5-VL-7B", "7b"),
    ("Qwen2.5-VL-32B", "32b"),
    ("Qwen2-VL-2B", "qwen2vl-2b"),
    ("Qwen2-VL-7B", "qwen2vl-7b"),
    ("Qwen2-VL-72B", "qwen2vl-72b"),
    ("Qwen3-VL-2B", "qwen3vl-2b"),
    ("Qwen3-VL-4B", "qwen3vl-4b"),
    ("Qwen3-VL-8B", "qwen3vl-8b"),
    ("Qwen3-VL-32B", "qwen3vl-32b"),
];

/// The architecture of the run and, where its folder is not there, a line that says whose it is instead.
///
/// # Errors
/// Why there is none.
pub(crate) fn architecture(config: &Config) -> Result<(QwenVlConfig, String), String> {
    let missing = match launch::configured(config) {
        Ok(architecture) => return Ok((architecture, String::new())),
        Err(error) => error.to_string(),
    };
    let name = config.model.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    // Only of a model that was not fetched yet: what is there and damaged has no sizes.
    let published = PUBLISHED.iter().find(|(published, _)| name.starts_with(published));
    match published.filter(|_| !std::path::Path::new(&config.model.path).exists()) {
        Some((published, preset)) => match QwenVlConfig::preset(preset) {
            Some(sizes) => Ok((sizes, format!("# model.path is not there yet; the sizes are those of {published}.\n"))),
            None => Err(missing),
        },
        None => Err(missing),
    }
}
