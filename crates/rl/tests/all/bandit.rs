//! A bandit through the whole trainer: one picture, and a reward that falls with the length of the response, so that
//! what is learned is to emit the end token. An untrained model is right by chance at most; lengths differ.

use std::path::Path;

use burn::tensor::DType;
use model_qwen2vl::Kernels;
use rl::TrainError;
use rl::config::{Source, resolve};
use rl::progress::Progress;
use rl::trainer::Summary;

const BANDIT: &str = r#"
[model]
path = "toy"
[data]
train_files = ["toy:read?rows=1&cols=1&size=1"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 8
rollout_batch_size = 1
min_pixels = 0
max_pixels = 0
[rollout]
n = 16
[actor.optim]
lr = 2e-3
weight_decay = 0.0
[reward]
reward_type = "dapo"
overlong_buffer_length = 8
[trainer]
max_steps = 20
"#;

/// Trains it in the run folder `dir`. `more` is a configuration file on top, `overrides` come after both.
pub(crate) fn train<B: Kernels>(dir: &Path, more: &str, overrides: &[&str]) -> Result<Summary, TrainError> {
    let mut all: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    all.push(format!("trainer.output_dir={}", dir.display()));
    let config = resolve(&[Source::new("bandit", BANDIT), Source::new("more", more)], &all)?;
    launch::train::<B>(config, DType::F32, &Default::default(), Progress::new(), Default::default())
}
