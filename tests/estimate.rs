//! The `estimate` program, and what `bench` tells it.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::{SMALLEST, stderr, succeeded};

fn program(path: &str, dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(path);
    command.current_dir(dir).args(args).env("HF_HUB_OFFLINE", "1").stdin(Stdio::null()).output().unwrap()
}

fn estimate(dir: &Path, args: &[&str]) -> Output {
    program(env!("CARGO_BIN_EXE_estimate"), dir, args)
}

fn said(output: Output) -> String {
    succeeded(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// The number in a line of the table, behind its name: seconds are the third of the last five.
fn seconds(text: &str, name: &str) -> f64 {
    let (_, times) = text.split_once("A step of stage").unwrap_or_else(|| panic!("{text}"));
    let line = times.lines().find(|line| line.trim_start().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("{name}: {text}"));
    let cells: Vec<&str> = line.split_whitespace().collect();
    cells[cells.len() - 3].parse().unwrap_or_else(|_| panic!("{line}"))
}

#[test]
fn a_large_run_by_a_data_sheet() {
    let dir = tempfile::tempdir().unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/qwen2_5_vl_7b.toml");
    let of = |args: &[&str]| said(estimate(dir.path(), &[&["--config", config, "algorithm.name=vgpo"], args].concat()));
    let eight = of(&["--ranks", "8", "--memory-gib", "80", "--card", "h100"]);
    for part in
        ["Memory of each of 8 ranks", "the data sheet of an H100 (989 TFLOP/s", "shares are assumed", "decoding"]
    {
        assert!(eight.contains(part), "{part}: {eight}");
    }
    assert!(!eight.lines().any(|line| line.starts_with('#')), "{eight}");
    // A slower card is slower, and more ranks are faster.
    let slower = of(&["--ranks", "8", "--memory-gib", "80", "--card", "a100"]);
    let more = of(&["--ranks", "32", "--memory-gib", "80", "--card", "h100"]);
    assert!(seconds(&slower, "update: forward") > 2.0 * seconds(&eight, "update: forward"));
    assert!(seconds(&more, "update: forward") < 0.3 * seconds(&eight, "update: forward"));
    assert!(seconds(&more, "gradients and weights") > 0.0);
    // Shorter responses cost less; without a number of ranks six are set side by side.
    let shorter = of(&["--ranks", "8", "--memory-gib", "80", "--card", "h100", "--response-tokens", "256"]);
    assert!(seconds(&shorter, "decoding") < 0.5 * seconds(&eight, "decoding"));
    let table = of(&["--memory-gib", "80", "--card", "h100", "trainer.max_steps=10"]);
    let lines: Vec<&str> = table.lines().skip_while(|line| !line.contains("By ranks")).collect();
    assert_eq!(lines.len(), 8, "{table}");
    assert!(lines.last().unwrap().trim_start().starts_with("32 "), "{table}");
    assert!(!dir.path().join("runs").exists(), "nothing is written");
}

/// Figures that bench took are read, and give back its own step: of the same model, lengths and rows.
#[test]
fn figures_of_bench_are_the_speeds() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = ["--rollouts", "2", "--image", "56", "--text-tokens", "4", "--response-tokens", "4", "--steps", "3"];
    let bench = ["step", "--preset", "toy", "--json", "--backend", "flex"];
    let lines = said(program(env!("CARGO_BIN_EXE_bench"), dir.path(), &[&bench[..], &sizes].concat()));
    // Of a machine that takes ten thousand times as long: milliseconds would be told as 0.001 or 0.002.
    let slower = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        for work in line["figures"]["work"].as_array_mut().unwrap() {
            work["seconds"] = (work["seconds"].as_f64().unwrap() * 1e4).into();
        }
        format!("{line}\n")
    };
    std::fs::write(dir.path().join("figures.jsonl"), lines.lines().map(slower).collect::<String>()).unwrap();
    std::fs::write(dir.path().join("config.toml"), SMALLEST).unwrap();
    let args = ["--config", "config.toml", "--figures", "figures.jsonl", "--worst-first"];
    let text = said(estimate(dir.path(), &args));
    assert!(text.contains("measured by bench on") && text.contains("Worst row: toy:read"), "{text}");
    let step = seconds(&text, "sum");
    assert!(step > 1.0, "{text}");
    // Twice as many prompts take about twice as long.
    let twice = said(estimate(dir.path(), &[&args[..], &["data.rollout_batch_size=4"]].concat()));
    let ratio = seconds(&twice, "update: forward") / seconds(&text, "update: forward");
    assert!((ratio - 2.0).abs() < 0.1, "{ratio}");
}

#[test]
fn a_processor_without_figures_gets_no_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let text = said(estimate(dir.path(), &["trainer.backend=flex"]));
    assert!(text.contains("Memory of one device") && text.contains("Time: not estimated"), "{text}");
    assert!(text.contains("bench step"), "says how to measure: {text}");
}

#[test]
fn bad_usage_is_one_message() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("other.jsonl"), "{\"a\": 1}\n").unwrap();
    for (args, words) in [
        (&["--card", "abacus"][..], "h100"),
        (&["--figures", "no-such-file"], "no-such-file"),
        (&["--figures", "other.jsonl"], "bench step --json"),
        (&["--ranks", "0"], "--ranks"),
        (&["--config", "no-such.toml"], "no-such.toml"),
        (&["model.path=no/such/model"], "no/such/model"),
    ] {
        let output = estimate(dir.path(), args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words) && !said.contains("panicked"), "{args:?}: {said}");
    }
}
