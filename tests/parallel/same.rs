//! The same run on any number of ranks: docs/many-gpus.md says where the tolerances come from.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::{NOTHING, checkpoints, last_step, metrics, stateful, succeeded, wait};
use super::train;

fn number(line: &serde_json::Map<String, Value>, key: &str) -> f64 {
    line.get(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {key} in step {}", line["step"]))
}

/// Whether two numbers differ by no more than a share of them.
fn near(got: f64, expected: f64, share: f64, what: &str) {
    assert!((got - expected).abs() <= share * expected.abs(), "{what}: {got} for {expected}");
}

/// What was sampled in a step of RL, in order.
fn responses(run: &Path, step: u64) -> Vec<[Value; 4]> {
    let text = std::fs::read_to_string(run.join(format!("rollouts/step_{step}.jsonl"))).unwrap();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        ["id", "row", "response", "reward"].map(|key| line[key].clone())
    };
    text.lines().map(line).collect()
}

/// Supervised losses within 2e-6; in the first three RL steps the same responses and rewards, gradient norms within
/// 2e-5.
#[test]
fn a_run_is_the_same_on_any_number_of_ranks() {
    let alone = stateful();
    succeeded(&alone.train(NOTHING));
    let expected = metrics(&alone.path("run"));
    for ranks in 2..=4 {
        let bench = stateful();
        let Some(mut command) = train(&bench, ranks, &["parallel.check=true"]) else { return };
        let since = Instant::now();
        succeeded(&command.output().unwrap());
        let got = metrics(&bench.path("run"));
        assert_eq!(got.len(), expected.len());
        let (mut loss, mut norm) = (0.0f64, 0.0f64);
        for (line, expected) in got.iter().zip(&expected) {
            let step = number(expected, "step") as u64;
            let off = |key: &str| (number(line, key) / number(expected, key) - 1.0).abs();
            if step <= 5 {
                near(
                    number(line, "sft/loss"),
                    number(expected, "sft/loss"),
                    2e-6,
                    &format!("{ranks}: loss of step {step}"),
                );
                loss = loss.max(off("sft/loss"));
            }
            if step > 5 && step <= 8 {
                assert_eq!(
                    responses(&bench.path("run"), step),
                    responses(&alone.path("run"), step),
                    "{ranks} ranks: responses of step {step}"
                );
                assert_eq!(number(line, "reward"), number(expected, "reward"), "{ranks}: reward of step {step}");
                let what = format!("{ranks} ranks: gradient norm of step {step}");
                near(number(line, "actor/grad_norm"), number(expected, "actor/grad_norm"), 2e-5, &what);
                norm = norm.max(off("actor/grad_norm"));
            }
        }
        println!(
            "{ranks} ranks: losses within {loss:.1e}, gradient norms of 3 RL steps within {norm:.1e}, {:.1} s",
            since.elapsed().as_secs_f64()
        );
    }
}

/// What was written by some ranks is read by any number of them: a run that changes it on the way is one run.
#[test]
fn resumed_on_another_number_of_ranks() {
    let whole = stateful();
    succeeded(&whole.train(NOTHING));
    let bench = stateful();
    let run = bench.path("run");
    for (ranks, steps) in [(4, 3), (2, 6), (1, 8)] {
        let Some(mut command) = train(&bench, ranks, NOTHING) else { return };
        let mut child = command.spawn().unwrap();
        let start = Instant::now();
        while last_step(&run) < steps {
            assert!(child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(120), "{ranks} ranks");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::write(run.join("STOP"), "").unwrap();
        assert_eq!(wait(child).status.code(), Some(130), "{ranks} ranks");
        assert_eq!(checkpoints(&run).last(), Some(&last_step(&run)), "{ranks} ranks");
    }
    let Some(mut command) = train(&bench, 3, NOTHING) else { return };
    succeeded(&command.output().unwrap());
    assert_eq!(metrics(&run).len(), metrics(&whole.path("run")).len());
    let (expected, got) = (metrics(&whole.path("run")), metrics(&run));
    for (got, expected) in got.iter().zip(&expected).take(8) {
        let step = number(expected, "step") as u64;
        let key = if step <= 5 { "sft/loss" } else { "reward" };
        near(number(got, key), number(expected, key), 2e-6, &format!("{key} of step {step}"));
    }
}
