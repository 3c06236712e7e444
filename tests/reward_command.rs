//! Training with a reward command of the user's: it is asked, and what it does wrong is said in one message.
#![cfg(unix)]

mod support;

use support::{Bench, SMALLEST, checkpoints, metrics, stderr, succeeded};

/// Three steps, a checkpoint after each.
fn three_steps() -> String {
    SMALLEST.replace("max_steps = 1", "max_steps = 3\nsave_freq = 1")
}

/// `reward.command` that runs this shell script, which finds each request in `$line`.
fn command(each: &str) -> String {
    format!(r#"reward.command=["sh", "-c", {:?}]"#, format!("while read -r line; do {each}; done"))
}

#[test]
fn its_rewards_are_trained_on() {
    let bench = Bench::new(&three_steps());
    // Rewards 0, 1, 2, ... so that no group is without differences, and a metric of its own.
    let each = r#"k=$((k+1)); echo "{\"overall\": $k, \"accuracy\": 1, \"seen\": 7}""#;
    let output = bench.train(&[command(each)]);
    succeeded(&output);
    let lines = metrics(&bench.path("run"));
    assert_eq!(lines.len(), 3);
    // One process for the whole run: 4 responses per step, counted on.
    let rewards: Vec<f64> = lines.iter().map(|line| line["reward"].as_f64().unwrap()).collect();
    assert_eq!(rewards, [2.5, 6.5, 10.5]);
    for line in &lines {
        assert_eq!((line["accuracy"].as_f64(), line["reward/seen"].as_f64()), (Some(1.0), Some(7.0)));
    }
}

#[test]
fn one_that_fails_ends_the_run_and_keeps_the_checkpoints() {
    let bench = Bench::new(&three_steps());
    // Dies in the second step, twice: the second life finds the mark of the first.
    let each = r#"k=$((k+1)); if [ $k -gt 4 ] || [ -e gone ]; then touch gone; echo "no such grader" >&2; exit 3; fi; echo "{\"overall\": $k}""#;
    let output = bench.train(&[command(each)]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no such grader") && !said.contains("panicked"), "{said}");
    assert_eq!(checkpoints(&bench.path("run")), [1], "{said}");

    let output = bench.train(&[command("echo garbage"), "trainer.output_dir=other".into()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("garbage"), "{said}");
}

#[test]
fn one_that_does_not_exist_is_bad_input() {
    let bench = Bench::new(&three_steps());
    let output = bench.train(&["reward.command=[no-such-grader-program]"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no-such-grader-program"), "{said}");
}
