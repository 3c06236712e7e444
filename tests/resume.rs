//! A run that is killed at any moment and started again gives the same numbers as one that never was.
#![cfg(unix)] // signals

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{
    Bench, NOTHING, STEPS, assert_same_run, checkpoints, last_step, metrics, stateful as bench, stderr, succeeded, wait,
};

/// The signal that `kill` sends.
const SIGKILL: i32 = 9;

/// A small generator of moments (SplitMix64): the test is the same in each run.
struct Moments(u64);

impl Moments {
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn finish(bench: &Bench, run: &Path) {
    let output = bench.train(NOTHING);
    succeeded(&output);
    assert_eq!(last_step(run), STEPS);
    assert_eq!(checkpoints(run).last(), Some(&STEPS));
}

#[test]
fn a_killed_run_goes_on_to_the_same_result() {
    let whole = bench();
    let clock = Instant::now();
    finish(&whole, &whole.path("run"));
    let duration = clock.elapsed();
    let lines = metrics(&whole.path("run"));
    let largest = |key: &str| lines.iter().filter_map(|l| l.get(key)?.as_f64()).fold(0.0, f64::max);
    // The run has what it is meant to have.
    assert!(largest("filter/carried") > 0.0, "no group was carried");
    assert!(largest("actor/grad_norm") > 0.0 && largest("data/set_aside") > 0.0);
    println!(
        "one run: {STEPS} steps, up to {} groups carried, {} rows set aside",
        largest("filter/carried"),
        largest("data/set_aside")
    );
    for seed in 0..4 {
        let bench = bench();
        let run = bench.path("run");
        let mut moments = Moments(seed);
        let (mut history, mut hits) = (Vec::new(), 0);
        for _ in 0..5 {
            // Of the time that is left: what is behind is not done again.
            let left = 1.0 - last_step(&run) as f64 / STEPS as f64;
            let moment = duration.mul_f64(moments.share() * 0.6 * left);
            let mut child = bench.start(NOTHING);
            std::thread::sleep(moment);
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(!stderr(&output).contains("error:"), "{}", stderr(&output));
            let hit = output.status.signal() == Some(SIGKILL);
            hits += usize::from(hit);
            let how = if hit { "" } else { ", too late" };
            history.push(format!("{} ms (step {}{how})", moment.as_millis(), last_step(&run)));
        }
        assert!(hits >= 3, "seed {seed}: only {hits} kills hit a running process: {history:?}");
        finish(&bench, &run);
        println!(
            "seed {seed}: killed after {}\n        {}",
            history.join(", "),
            assert_same_run(&whole.path("run"), &run)
        );
    }
}

/// The worst moment: a checkpoint is half written.
#[test]
fn a_run_killed_while_it_writes_a_checkpoint() {
    let whole = bench();
    finish(&whole, &whole.path("run"));
    let bench = bench();
    let run = bench.path("run");
    let (mut caught, mut halves) = (Vec::new(), 0);
    for step in [2, 6, 10] {
        let partial = run.join(format!("checkpoints/.global_step_{step}.partial"));
        let mut child = bench.start(NOTHING);
        let start = Instant::now();
        while !partial.exists() && child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        let output = wait(child);
        // The run had steps before it: a kill that hits nothing tests nothing.
        assert_eq!(output.status.signal(), Some(SIGKILL), "checkpoint {step}: {}", stderr(&output));
        halves += usize::from(partial.exists());
        caught.push(format!("{step}: {}", if partial.exists() { "half a folder left" } else { "too late" }));
    }
    assert!(halves > 0, "no kill fell into the writing of a checkpoint: {caught:?}");
    finish(&bench, &run);
    println!("killed at checkpoints {}\n        {}", caught.join(", "), assert_same_run(&whole.path("run"), &run));
    let left: Vec<_> = std::fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|n| n.to_string_lossy().contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
