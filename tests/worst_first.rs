//! Worst rows first (`data.worst_first`): the first step takes the rows that cost most, and nothing else about the data
//! changes.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use support::{Bench, SMALLEST, assert_same_run, json_row, stderr, succeeded, toy_rows, write_rows};

/// Rows, of which 2 are a step.
const ROWS: usize = 8;
/// The row with the longest text, and the one with the largest picture.
const LONGEST: u64 = 5;
const WIDEST: u64 = 2;

/// A run over two epochs of rows of which one has a long text and one a wide picture.
fn bench() -> Bench {
    let bench = Bench::new(&SMALLEST.replace("max_steps = 1", "max_steps = 8\nsave_freq = 1\nsave_limit = 0"));
    let small = toy_rows("toy:read?rows=1&cols=1&size=8");
    let wide = toy_rows("toy:read?rows=2&cols=2&size=1");
    let row = |k: usize| {
        let mut row = json_row(if k as u64 == WIDEST { &wide[0] } else { &small[k] });
        if k as u64 == LONGEST {
            // One picture as everywhere, and three times the words.
            let problem = row["problem"].as_str().unwrap().to_string();
            row["problem"] = json!(problem.clone() + &problem.replace("<image>", "").repeat(2));
        }
        row
    };
    write_rows(&bench.path("rows.jsonl"), &(0..ROWS).map(row).collect::<Vec<_>>());
    bench
}

/// The rows of each step, each once, in the order of the log.
fn rows(run: &Path, steps: u64) -> Vec<Vec<u64>> {
    let of = |step: u64| {
        let text = std::fs::read_to_string(run.join(format!("rollouts/step_{step}.jsonl"))).unwrap();
        let mut rows: Vec<u64> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["row"].as_u64().unwrap()).collect();
        rows.dedup();
        rows
    };
    (1..=steps).map(of).collect()
}

/// How often each row is seen.
fn counts(steps: &[Vec<u64>]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    steps.iter().flatten().for_each(|row| *counts.entry(*row).or_default() += 1);
    counts
}

#[test]
fn the_first_step_has_the_rows_that_cost_most_and_the_epoch_the_rows_that_it_has() {
    let data = "data.train_files=rows.jsonl";
    let plain = bench();
    succeeded(&plain.train(&[data]));
    let ordinary = rows(&plain.path("run"), 8);
    let worst = bench();
    let output = worst.train(&[data, "data.worst_first=true"]);
    succeeded(&output);
    let got = rows(&worst.path("run"), 8);
    assert_eq!(got[0], [LONGEST, WIDEST], "{got:?}");
    assert_ne!(ordinary[0], got[0], "choose another data.seed: the two agree by chance");
    // The rest of the first epoch in its order, and the second one as ever.
    let rest: Vec<u64> =
        ordinary[..4].iter().flatten().copied().filter(|row| ![LONGEST, WIDEST].contains(row)).collect();
    assert_eq!(got[1..4].concat(), rest);
    assert_eq!(got[4..], ordinary[4..]);
    assert!(counts(&got).values().all(|seen| *seen == 2) && counts(&got).len() == ROWS, "{got:?}");
    let said = stderr(&output);
    assert!(said.contains("worst rows first") && said.contains("rows.jsonl line 6"), "{said}");
}

/// Stopped in the middle of the epoch, and before its first step.
#[test]
fn a_resumed_run_goes_on_in_the_same_order() {
    let settings = ["data.train_files=rows.jsonl", "data.worst_first=true"];
    let whole = bench();
    succeeded(&whole.train(&settings));
    let again = bench();
    succeeded(&again.train(&[&settings[..], &["trainer.max_steps=2"]].concat()));
    succeeded(&again.train(&settings));
    println!("{}", assert_same_run(&whole.path("run"), &again.path("run")));
    // The key decides where a stage begins; in the middle of it the order stands.
    let changed = bench();
    succeeded(&changed.train(&[&settings[..], &["trainer.max_steps=2"]].concat()));
    succeeded(&changed.train(&settings[..1]));
    assert_eq!(rows(&changed.path("run"), 8), rows(&whole.path("run"), 8));
}

/// The dry run names the worst row by its line, and counts with what is there.
#[test]
fn a_dry_run_names_the_worst_row() {
    let bench = bench();
    let output = bench.train(&["data.train_files=rows.jsonl", "--dry-run", "--worst-first", "--card", "a100"]);
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("worst_first = true") && text.parse::<toml::Table>().is_ok(), "{text}");
    let worst = text.lines().find(|line| line.contains("Worst row: ")).unwrap_or_else(|| panic!("{text}"));
    assert!(worst.contains("rows.jsonl line 6, a prompt of ") && worst.contains(" GiB"), "{worst}");
    assert!(text.contains("8 can be used") && text.contains("# A step of stage \"rl\":"), "{text}");
}
