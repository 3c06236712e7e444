//! SIGTERM and SIGINT end a run with a checkpoint and exit code 130; the same command goes on to the same result.

#![cfg(unix)]

mod support;

use std::time::{Duration, Instant};

use support::{
    Bench, NOTHING, STEPS, assert_same_run, checkpoints, last_step, signal, stateful, stderr, succeeded, try_signal,
    wait,
};

/// Starts a run, waits until it has finished `step`, sends a signal and checks how the run ends.
fn interrupt(bench: &Bench, step: u64, name: &str, delay: Duration) -> String {
    let run = bench.path("run");
    let mut child = bench.start(NOTHING);
    let start = Instant::now();
    while last_step(&run) < step && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "step {step} is not reached");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(delay);
    signal(&mut child, name);
    let output = wait(child);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted: checkpoint of step") && said.contains("error: interrupted"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let newest = *checkpoints(&run).last().unwrap();
    assert!(
        newest >= step && newest >= last_step(&run),
        "the newest checkpoint is of step {newest}, the log ends at {}",
        last_step(&run)
    );
    format!("{name} after step {step} and {} ms: checkpoint {newest}", delay.as_millis())
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_result() {
    let whole = stateful();
    succeeded(&whole.train(NOTHING));
    for (name, moments) in [("TERM", [(1, 0), (5, 0), (8, 30)]), ("INT", [(3, 10), (6, 90), (10, 50)])] {
        let bench = stateful();
        for (step, delay) in moments {
            println!("{}", interrupt(&bench, step, name, Duration::from_millis(delay)));
        }
        succeeded(&bench.train(NOTHING));
        assert_eq!(last_step(&bench.path("run")), STEPS);
        println!("        {}", assert_same_run(&whole.path("run"), &bench.path("run")));
    }
}

/// An interrupt that falls into a validation: the update before it is not lost and not repeated, and the validation is
/// made up. Regression: the resumed run had no validation for that step, and a supervised stage took the step twice.
#[test]
fn an_interrupt_in_a_validation() {
    // Validation takes longer than anything else here.
    let overrides = [
        "data.val_files=[toy:read?rows=1&cols=1-3&split=test&size=64]",
        "data.val_batch_size=1",
        "stages.1.until_accuracy=0.9",
        "stages.1.check_freq=2",
    ];
    let whole = stateful();
    succeeded(&whole.train(&overrides));
    for step in [4, 8] {
        let bench = stateful();
        let run = bench.path("run");
        let mut child = bench.start(&overrides);
        // The log of a validation's responses is opened when it begins.
        let log = std::iter::repeat_with(|| validation_log(&run, step));
        let start = Instant::now();
        for found in log {
            assert!(
                start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none(),
                "no validation of step {step}"
            );
            if found {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&mut child, "TERM");
        let output = wait(child);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        println!(
            "TERM in the validation of step {step}: log ends at {}, checkpoints {:?}",
            last_step(&run),
            checkpoints(&run)
        );
        assert_eq!(checkpoints(&run).last(), Some(&step));
        succeeded(&bench.train(&overrides));
        println!("        {}", assert_same_run(&whole.path("run"), &run));
    }
}

fn validation_log(run: &std::path::Path, step: u64) -> bool {
    std::fs::read_dir(run.join("rollouts")).into_iter().flatten().any(|e| {
        let name = e.unwrap().file_name().to_string_lossy().into_owned();
        name.starts_with("val") && name.contains(&format!("_{step}."))
    })
}

/// Two signals: the second does not wait for anything.
#[test]
fn a_second_signal_ends_at_once() {
    // The first may have ended the run before the second is there.
    let mut second_hit = false;
    for _ in 0..8 {
        let bench = stateful();
        let mut child = bench.start(NOTHING);
        let start = Instant::now();
        while last_step(&bench.path("run")) < 1 {
            assert!(start.elapsed() < Duration::from_secs(60), "step 1 is not reached");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&mut child, "INT");
        second_hit = try_signal(&mut child, "INT");
        assert_eq!(wait(child).status.code(), Some(130));
        assert!(last_step(&bench.path("run")) < STEPS, "it was interrupted, not finished");
        succeeded(&bench.train(NOTHING));
        assert_eq!(last_step(&bench.path("run")), STEPS);
        if second_hit {
            break;
        }
    }
    assert!(second_hit, "no second signal hit a running process in eight runs");
}
