//! Numbers that cannot be right end a run: a sampler and a trainer that disagree, a device that lost a step's work.

use std::path::Path;

use rl::TrainError;
use rl::run_folder::read_metrics;
use rl::trainer::Summary;

use crate::bandit;

/// Two steps.
fn run(dir: &Path, overrides: &[&str]) -> Result<Summary, TrainError> {
    bandit::train::<burn_flex::Flex<f32, i32>>(dir, "", &[&["trainer.max_steps=2"], overrides].concat())
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
