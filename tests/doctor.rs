//! The `doctor` program on the CPU, where it looks at itself.

mod support;

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::{SMALLEST, stderr, succeeded};

fn doctor(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doctor"));
    // No test asks the real hub.
    command.args(args).env("HF_HUB_OFFLINE", "1").stdin(Stdio::null()).output().unwrap()
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

/// What stands around the device is said before anything is computed, and of a run with what it asks for.
#[test]
fn the_machine_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let folder = dir.path().join("not/yet/there");
    std::fs::write(&config, SMALLEST).unwrap();
    let path = format!("trainer.output_dir={}", folder.display());
    let output = doctor(&["--config", config.to_str().unwrap(), "--backend", "flex", "--json", &path]);
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| rows.iter().find(|row| row["check"] == name).unwrap_or_else(|| panic!("{name} in {text}"));
    for name in ["machine", "host-memory", "run-folder", "hub-cache", "temporary-files", "mpi", "network", "hub", "run"]
    {
        assert!(!of(name)["compared"].as_str().unwrap().is_empty(), "{name}");
    }
    assert!(of("run-folder")["compared"].as_str().unwrap().contains("a checkpoint takes"), "{text}");
    assert!(of("hub")["compared"].as_str().unwrap().contains("HF_HUB_OFFLINE"), "{text}");
    assert_eq!(of("run")["verdict"], "ok");
    let place = |name: &str| rows.iter().position(|row| row["check"] == name).unwrap();
    assert!(place("run") < place("products"));
    assert!(!folder.exists(), "nothing is made");
}

/// A token is never shown, a port that is taken and a hub that does not answer are warnings and no errors.
#[test]
fn warnings_say_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:6160");
    let mut command = Command::new(env!("CARGO_BIN_EXE_doctor"));
    command.args(["--backend", "flex"]).env("HF_TOKEN", "hf_secret").env_remove("HF_HUB_OFFLINE");
    let output = command.env("HF_ENDPOINT", "http://127.0.0.1:9").stdin(Stdio::null()).output().unwrap();
    drop(taken);
    succeeded(&output);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let behind = |start: &str| {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(start));
        lines.next().unwrap_or_else(|| panic!("{start:?} is not in {text}"));
        lines.next().unwrap_or_default()
    };
    assert!(behind("warn  port-view: ").starts_with("      to do: ") && behind("warn  port-view: ").contains("--port"));
    assert!(behind("warn  hub: http://127.0.0.1:9 cannot be reached").contains("HF_ENDPOINT"));
    assert!(text.contains("a token is there") && !(text.clone() + &stderr(&output)).contains("hf_secret"));
}

/// A folder that cannot be written to, and data that is not there, are errors: exit code 1, with the checks all the
/// same.
#[test]
fn what_a_run_cannot_do_without_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, SMALLEST).unwrap();
    let args = ["--config", config.to_str().unwrap(), "--backend", "flex"];
    let missing = doctor(&[&args[..], &["trainer.output_dir=/proc/run", "data.train_files=no-such.jsonl"]].concat());
    let text = String::from_utf8(missing.stdout.clone()).unwrap();
    assert_eq!(missing.status.code(), Some(1), "{text}{}", stderr(&missing));
    for start in ["ERROR run-folder: cannot be written to", "ERROR run: ", "ok    products: ", "2 of "] {
        assert!(text.lines().any(|line| line.starts_with(start)), "{start:?} is not in {text}");
    }
}

#[test]
fn the_short_form_is_short() {
    let output = doctor(&["--backend", "flex", "--short", "--preset", "toy"]);
    succeeded(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ok    products: ") && !text.contains("decoding: ") && !text.contains("hub: "), "{text}");
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
