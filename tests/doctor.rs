//! The `doctor` program on the CPU, where it looks at itself.

mod support;

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{SMALLEST, stderr, succeeded};

fn doctor(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doctor"));
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn each_check_is_a_line() {
    let output = doctor(&["--backend", "flex"]);
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    for start in
        ["ok    products: ", "ok    rms_norm: ", "ok    layers: ", "ok    decoding: ", "-     refused-launch: "]
    {
        assert!(text.lines().any(|line| line.starts_with(start)), "{start:?} is not in {text}");
    }
    assert!(!text.contains("WRONG") && text.lines().last().unwrap().starts_with("all of "), "{text}");
}

#[test]
fn a_run_is_checked_with_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, SMALLEST).unwrap();
    let output = doctor(&["--config", config.to_str().unwrap(), "--backend", "flex", "--json", "trainer.dtype=f32"]);
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| rows.iter().find(|row| row["check"] == name).unwrap_or_else(|| panic!("{name} in {text}"));
    assert!(of("memory")["compared"].as_str().unwrap().contains(" GiB"));
    let layers = of("layers");
    assert!(layers["largest_difference"].as_f64().unwrap() <= layers["bound"].as_f64().unwrap());
    assert_eq!(layers["verdict"], "ok");
}

#[test]
fn the_short_form_is_short() {
    let output = doctor(&["--backend", "flex", "--short", "--preset", "toy"]);
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ok    products: ") && !text.contains("decoding: "), "{text}");
}

#[test]
fn bad_usage_is_one_message() {
    for (args, words) in [
        (&["--preset", "huge"][..], "toy, small, 3b, 7b, 32b"),
        (&["--model", "no/such/folder"], "no/such/folder"),
        (&["--config", "no/such/file.toml"], "no/such/file.toml"),
        (&["--backend", "abacus"], "abacus"),
        (&["trainer.dtype=f32"], "--config"),
    ] {
        let output = doctor(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(words) && !said.contains("panicked"), "{args:?}: {said}");
    }
}

/// In a debug build a check may be given wrong numbers: what a program does on a device that is wrong.
#[test]
fn something_wrong_is_exit_code_1() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doctor"));
    command.args(["--backend", "flex", "--short"]).env("VISUAL_RL_WRONG_CHECK", "rotate").stdin(Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let wrong: Vec<&str> = text.lines().filter(|line| line.starts_with("WRONG ")).collect();
    assert!(wrong.len() == 1 && wrong[0].starts_with("WRONG rotate: "), "{text}");
    assert!(text.lines().last().unwrap().starts_with("1 of "), "{text}");
}
