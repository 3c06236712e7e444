//! VGPO through the whole trainer on wgpu, beside the same steps on the CPU.
#![cfg(feature = "wgpu")]

#[path = "all/bandit.rs"]
mod bandit;

use std::path::Path;

use model_qwen2vl::Kernels;
use rl::TrainError;
use rl::run_folder::read_metrics;
use rl::trainer::Summary;
use serde_json::{Map, Value};

/// Two steps with VGPO.
fn try_run<B: Kernels>(dir: &Path, overrides: &[&str]) -> Result<Summary, TrainError> {
    let all = [&["algorithm.shaping=vgpo", "trainer.max_steps=2"], overrides].concat();
    bandit::train::<B>(dir, "", &all)
}

fn run<B: Kernels>(dir: &Path, micro_batch_tokens: usize) -> Vec<Map<String, Value>> {
    try_run::<B>(dir, &[&format!("actor.micro_batch_tokens={micro_batch_tokens}")]).unwrap();
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
    let begin = |overrides: &[&str]| doctor::fault::wrong_in("rotate", || try_run::<Gpu>(&path, overrides));
    let error = begin(&[]).unwrap_err();
    assert!(matches!(error, TrainError::Untrusted(_)) && error.exit_code() == 1, "{error}");
    let said = error.to_string();
    assert!(said.starts_with("WRONG rotate: ") && said.contains("trainer.check_device = false"), "{said}");
    assert!(!path.join("metrics.jsonl").exists(), "a run that was refused has begun");
    begin(&["trainer.check_device=false", "trainer.max_steps=1"]).unwrap();
}
