//! The default run, cut short, as a person starts it: what it prints and what it leaves behind.

mod support;

use std::process::{Command, Output};

use support::{checkpoints, metrics, stderr, succeeded};

fn train(dir: &std::path::Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_train")).current_dir(dir).args(args).output().unwrap()
}

/// Two steps of each stage of configs/toy.toml.
const SHORT: [&str; 8] = [
    "stages.0.steps=2",
    "stages.1.steps=2",
    "stages.2.steps=2",
    "stages.3.steps=2",
    "stages.4.steps=2",
    "stages.5.steps=2",
    "data.val_max_samples=16",
    "data.rollout_batch_size=4",
];

#[test]
fn the_default_run_needs_nothing_and_ends_with_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let output = train(dir.path(), &SHORT);
    succeeded(&output);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    for part in [
        "held-out validation",
        "before RL",
        "accuracy, greedy",
        "  sum",
        "visual late/early ratio",
        "12 steps in",
        "run folder: runs/toy",
        "model:      runs/toy/checkpoints/global_step_12/hf",
    ] {
        assert!(said.contains(part), "{part:?} is missing:\n{said}");
    }
    let run = dir.path().join("runs/toy");
    assert_eq!(checkpoints(&run), [12]);
    let lines = metrics(&run);
    assert_eq!(lines.len(), 12);
    assert_eq!(lines[0]["stage"], "read_one");
    let last = &lines[11];
    assert_eq!(last["stage"], "vgpo");
    for key in
        ["reward", "accuracy", "actor/grad_norm", "vgpo/late_early_halves", "vgpo/gate_pass_rate", "val/accuracy"]
    {
        assert!(last[key].is_f64(), "{key}: {}", last[key]);
    }
    assert!(run.join("rollouts/step_12.jsonl").is_file() && run.join("config.toml").is_file());

    // The same command finds a finished run and says so again without training; another run does not overwrite it.
    let again = train(dir.path(), &SHORT);
    succeeded(&again);
    assert_eq!(metrics(&run).len(), 12);
    let other = train(dir.path(), &[&SHORT[..], &["trainer.resume=none"]].concat());
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
    assert!(stderr(&other).contains("runs/toy"), "{}", stderr(&other));
}

#[test]
fn a_dry_run_prints_a_configuration_that_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let first = train(dir.path(), &["--dry-run", "algorithm.beta=0.7"]);
    succeeded(&first);
    let text = String::from_utf8(first.stdout).unwrap();
    assert!(text.contains("beta = 0.7"), "{text}");
    std::fs::write(dir.path().join("printed.toml"), &text).unwrap();
    let second = train(dir.path(), &["--config", "printed.toml", "--dry-run"]);
    succeeded(&second);
    assert_eq!(text, String::from_utf8(second.stdout).unwrap());
    assert!(!dir.path().join("runs").exists());
}

#[cfg(unix)]
#[test]
fn a_dry_run_that_cannot_be_printed_fails() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_train")).arg("--dry-run").stdout(full).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1 && !said.contains("panicked"), "{said}");
}

/// The files of `configs/` for real models, and each of `configs/algorithms/` on the base that its head names.
#[test]
fn every_configuration_resolves() {
    let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let toml_files = |folder: &std::path::Path| {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
        files.sort();
        files
    };
    let resolves = |args: &[&str]| {
        let output = train(&configs, &[args, &["--dry-run"]].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut count = 0;
    for path in toml_files(&configs) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name != "study_rows.toml" {
            resolves(&["--config", name]);
            count += 1;
        }
    }
    for path in toml_files(&configs.join("algorithms")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let said =
            text.lines().find_map(|line| line.split_once("train --config configs/")).expect("a command in the head").1;
        let (base, own) = said.split_once(" --config configs/").unwrap();
        let own = own.trim();
        assert!(path.ends_with(own), "{own} is not {}", path.display());
        // It changes something of its base.
        assert_ne!(resolves(&["--config", base]), resolves(&["--config", base, "--config", own]), "{own}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}
