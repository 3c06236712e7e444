//! `train --dry-run`: the resolved configuration, and under it what a run asks of each device's memory, as comments, so
//! that what is printed is still a configuration.

use burn::tensor::DType;
use model_qwen2vl::QwenVlConfig;
use plan::{ModelShapes, RankGrid, ZeroStage, table};
use rl::config::{Config, Dtype};

use crate::common::{Failure, device_memory};

/// What a device is taken to have where none is asked.
const MEMORY_GIB: f64 = 80.0;

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
fn architecture(config: &Config) -> Result<(QwenVlConfig, String), String> {
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

/// A configuration as a file, and the plan of a rank among `ranks` with `memory_gib` GiB; without a number, what is
/// free on this machine's device.
///
/// # Errors
/// A number of ranks that no grid has.
pub(super) fn dry_run(config: &Config, ranks: usize, memory_gib: Option<f64>) -> Result<String, Failure> {
    let printed = config.to_toml();
    let (architecture, note) = match architecture(config) {
        Ok(found) => found,
        Err(why) => {
            let why = why.lines().next().unwrap_or_default().to_string();
            return Ok(format!("{printed}\n# Memory: not counted, {why}\n"));
        }
    };
    // "auto" is what a GPU takes.
    let dtype = if config.trainer.dtype == Dtype::F32 { DType::F32 } else { DType::BF16 };
    let free = || device_memory().map(|[free, _]| free as f64);
    let gib = (1u64 << 30) as f64;
    let memory = memory_gib.map(|given| given * gib).or_else(free).unwrap_or(MEMORY_GIB * gib);
    let shapes = ModelShapes::of_run(config, &architecture, dtype)?;
    let zero = if config.parallel.zero == 1 { ZeroStage::One } else { ZeroStage::Two };
    let grid = match RankGrid::of_run(config, &architecture, &shapes, ranks, zero, memory as usize) {
        Ok(grid) => grid,
        // A file for many ranks is shown on one device, too.
        Err(why) => return Ok(format!("{printed}\n{note}# Memory: not counted, {why} (--ranks N)\n")),
    };
    let plan = table(config, &shapes, grid, memory as usize)?;
    Ok(format!("{printed}\n{note}{plan}"))
}
