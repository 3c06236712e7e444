//! Numbers that cannot be right end a run: a sampler and a trainer that disagree, a device that lost a step's work.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use launch::train;
use rl::TrainError;
use rl::config::{Source, resolve};
use rl::progress::Progress;
use rl::run_folder::read_metrics;
use rl::trainer::Summary;

type B = burn_flex::Flex<f32, i32>;

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
[reward]
reward_type = "dapo"
overlong_buffer_length = 8
[trainer]
max_steps = 2
"#;

fn run(dir: &Path, overrides: &[&str]) -> Result<Summary, TrainError> {
    let mut all = vec![format!("trainer.output_dir={}", dir.display())];
    all.extend(overrides.iter().map(|s| s.to_string()));
    let config = resolve(&[Source::new("test", CONFIG)], &all).unwrap();
    train::<B>(config, DType::F32, &Default::default(), Progress::new(), Arc::new(AtomicBool::new(false)))
}

/// What the sampler and the trainer compute differs by rounding, which a limit below it does not let pass, whichever of
/// the two gives the old log-probs. The step that is found out leaves no line and no update.
#[test]
fn a_gap_between_sampler_and_trainer_ends_the_run() {
    for old in ["recompute", "rollout"] {
        let dir = tempfile::tempdir().unwrap();
        let old = format!("actor.old_log_probs={old}");
        let error = run(&dir.path().join("low"), &[&old, "actor.mismatch_limit=1e-12"]).unwrap_err();
        assert!(matches!(error, TrainError::Untrusted(_)) && error.exit_code() == 1, "{error}");
        assert!(error.to_string().contains("sampler and trainer disagree"), "{error}");
        let lines = read_metrics(&dir.path().join("low/metrics.jsonl")).unwrap_or_default();
        assert!(lines.is_empty(), "{lines:?}");

        let fine = dir.path().join("fine");
        run(&fine, &[&old]).unwrap();
        for line in read_metrics(&fine.join("metrics.jsonl")).unwrap() {
            let gap = line["mismatch/log_prob_abs_mean"].as_f64().unwrap();
            assert!(gap > 0.0 && gap < 1e-5, "{old}: {gap}");
        }
    }
}

/// The number that shows lost work changes nothing else: with it and without it the run is the same.
#[test]
fn the_canary_costs_no_number() {
    let dir = tempfile::tempdir().unwrap();
    let steps = |name: &str, check: &str| {
        let folder = dir.path().join(name);
        run(&folder, &[check]).unwrap();
        let lines = read_metrics(&folder.join("metrics.jsonl")).unwrap();
        lines.iter().map(|line| [line["actor/grad_norm"].clone(), line["reward"].clone()]).collect::<Vec<_>>()
    };
    let with = steps("with", "trainer.check_device=true");
    assert_eq!((with.len(), with.clone()), (2, steps("without", "trainer.check_device=false")));
}
