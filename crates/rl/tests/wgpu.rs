//! VGPO through the whole trainer on wgpu, beside the same steps on the CPU.
#![cfg(feature = "wgpu")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use launch::train;
use model_qwen2vl::Kernels;
use rl::TrainError;
use rl::config::{Source, resolve};
use rl::progress::Progress;
use rl::run_folder::read_metrics;
use rl::trainer::Summary;
use serde_json::{Map, Value};

// An untrained model is right by chance at most: responses differ in reward by their lengths.
const CONFIG: &str = r#"
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
[algorithm]
shaping = "vgpo"
[actor.optim]
lr = 2e-3
[reward]
reward_type = "dapo"
overlong_buffer_length = 8
[trainer]
max_steps = 2
"#;

fn try_run<B: Kernels>(dir: &Path, overrides: &[String]) -> Result<Summary, TrainError> {
    let mut all = vec![format!("trainer.output_dir={}", dir.display())];
    all.extend_from_slice(overrides);
    let config = resolve(&[Source::new("test", CONFIG)], &all).unwrap();
    train::<B>(config, DType::F32, &Default::default(), Progress::new(), Arc::new(AtomicBool::new(false)))
}

fn run<B: Kernels>(dir: &Path, micro_batch_tokens: usize) -> Vec<Map<String, Value>> {
    try_run::<B>(dir, &[format!("actor.micro_batch_tokens={micro_batch_tokens}")]).unwrap();
    read_metrics(&dir.join("metrics.jsonl")).unwrap()
}

#[test]
fn two_steps_as_on_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    // The group in parts there, in one here.
    let gpu = run::<burn_wgpu::Wgpu<f32, i32>>(&dir.path().join("wgpu"), 90);
    let cpu = run::<burn_flex::Flex<f32, i32>>(&dir.path().join("flex"), 4096);
    assert_eq!((gpu.len(), cpu.len()), (2, 2));
    for (gpu, cpu) in gpu.iter().zip(&cpu) {
        assert!(cpu["actor/grad_norm"].as_f64().unwrap() > 0.1, "nothing was learned, so nothing is compared");
        for key in [
            "reward",
            "response_length/mean",
            "actor/loss",
            "actor/grad_norm",
            "vgpo/focus_mean",
            "vgpo/token_factor_mean",
        ] {
            let (a, b) = (gpu[key].as_f64().unwrap(), cpu[key].as_f64().unwrap());
            println!("step {} {key}: wgpu {a:.6}, cpu {b:.6}", gpu["step"]);
            assert!((a - b).abs() < 1e-3 * b.abs().max(1.0), "{key}: {a} on wgpu, {b} on the CPU");
        }
    }
}

/// A value that is wrong before the run ends it with the line of the check, unless checks are switched off.
#[test]
fn a_run_does_not_begin_on_a_wrong_device() {
    type Gpu = burn_wgpu::Wgpu<f32, i32>;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let begin = |overrides: &[String]| doctor::fault::wrong_in("rotate", || try_run::<Gpu>(&path, overrides));
    let error = begin(&[]).unwrap_err();
    assert!(matches!(error, TrainError::Untrusted(_)) && error.exit_code() == 1, "{error}");
    let said = error.to_string();
    assert!(said.starts_with("WRONG rotate: ") && said.contains("trainer.check_device = false"), "{said}");
    assert!(!path.join("metrics.jsonl").exists(), "a run that was refused has begun");
    begin(&["trainer.check_device=false".into(), "trainer.max_steps=1".into()]).unwrap();
}
