//! `eval`, `analyze` and `study` deal their work out, and write what one process writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::mpirun;
use super::support::{stderr, succeeded};

/// A program with arguments split at blanks, alone and on three ranks, each in a folder of its own.
fn both(program: &str, arguments: &str) -> Option<[tempfile::TempDir; 2]> {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut command = Command::new(program);
    let output = command.current_dir(folders[0].path()).args(arguments.split_whitespace()).output().unwrap();
    succeeded(&output);
    let mut command = mpirun()?;
    command.current_dir(folders[1].path()).args(["-np", "3", program]).args(arguments.split_whitespace());
    let on_ranks = command.output().unwrap();
    succeeded(&on_ranks);
    assert_eq!(said(&output), said(&on_ranks), "what is said of the results");
    Some(folders)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/tied_gqa")
}

/// All files of a folder, by name.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn questions_are_dealt_out() {
    let model = model();
    let arguments = format!(
        "--model {} --out out --backend flex --max-new-tokens 12 --benchmark sums=toy:sum?rows=1-2&cols=1-3&split=test&size=23 \
         --samples 2 --temperature 1.0 --seed 5",
        model.display()
    );
    let Some(folders) = both(env!("CARGO_BIN_EXE_eval"), &arguments) else { return };
    let [alone, together] = folders.each_ref().map(|folder| files(&folder.path().join("out")));
    assert!(
        alone.iter().any(|(name, bytes)| name == "sums.jsonl" && bytes.iter().filter(|b| **b == b'\n').count() == 46)
    );
    assert_eq!(alone, together);
}

#[test]
fn rows_are_dealt_out() {
    let model = model();
    // More rows than ranks look at together, so that all of them have some; a map whose response is not the first
    // rank's.
    let arguments = format!(
        "--model {} --data toy:sum?split=test --out out --backend flex --limit 70 --max-new-tokens 6 --maps 40",
        model.display()
    );
    let Some(folders) = both(env!("CARGO_BIN_EXE_analyze"), &arguments) else { return };
    for place in ["out", "out/maps"] {
        let [alone, together] = folders.each_ref().map(|folder| files(&folder.path().join(place)));
        let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&alone), names(&together));
        assert_eq!(alone.len(), if place == "out" { alone.len() } else { 40 });
        for ((name, alone), (_, together)) in alone.iter().zip(&together) {
            assert!(alone == together, "{name} differs");
        }
    }
}

const BASE: &str = r#"
[model]
path = "toy"
[data]
train_files = ["toy:read?rows=1&cols=1&split=train"]
val_files = ["toy:read?rows=1&cols=1&split=test"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 8
rollout_batch_size = 2
val_max_samples = 8
min_pixels = 0
max_pixels = 0
[rollout]
n = 2
[trainer]
val_freq = 2
log_rollouts = false
[[stages]]
stage = "sft"
name = "warm"
steps = 2
batch_size = 4
[[stages]]
stage = "rl"
name = "rl"
steps = 2
"#;

const ROWS: &str = r#"
reference = "dapo"
seeds = 2
[[rows]]
name = "dapo"
label = "DAPO"
[[rows]]
name = "vgpo"
label = "VGPO"
set = ["algorithm.shaping=vgpo"]
[[tables]]
name = "main"
title = "Algorithms"
rows = ["dapo", "vgpo"]
"#;

#[test]
fn runs_are_dealt_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("base.toml"), BASE).unwrap();
    std::fs::write(folder.path().join("rows.toml"), ROWS).unwrap();
    let Some(mut command) = mpirun() else { return };
    command.current_dir(folder.path()).args(["-np", "2", env!("CARGO_BIN_EXE_study")]);
    command.args(["--config", "base.toml", "--rows", "rows.toml", "--backend", "flex", "--out", "out", "--jobs", "1"]);
    let output = command.output().unwrap();
    succeeded(&output);
    // Two warm starts and four runs, one process each, and each rank has had three of them.
    assert!(said(&output).contains("6 runs finished"), "{}", said(&output));
    assert_eq!(stderr(&output).matches(": started").count(), 6, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("(1 of 1 runs)").count(), 2, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("(2 of 2 runs)").count(), 2, "{}", stderr(&output));
    let again = command.output().unwrap();
    succeeded(&again);
    assert_eq!(stderr(&again).matches(": started").count(), 0, "{}", stderr(&again));
}
