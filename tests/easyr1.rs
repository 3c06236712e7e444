//! A user of EasyR1 comes over: their file and command as they are, the same as TOML, a reward in Python; and what is
//! wrong with any of them is one message.
#![cfg(unix)]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::{Bench, SMALLEST, metrics, stderr, succeeded};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `train` in a folder.
fn train(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.current_dir(folder).args(["--backend", "flex"]).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder with the example.
fn example() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("examples/easyr1");
    std::fs::create_dir_all(&inner).unwrap();
    for name in ["toy.yaml", "rewards.py"] {
        std::fs::copy(root().join("examples/easyr1").join(name), inner.join(name)).unwrap();
    }
    folder
}

#[test]
fn the_example_runs_as_easyr1_would_start_it() {
    let folder = example();
    let output = train(
        folder.path(),
        &["config=examples/easyr1/toy.yaml", "trainer.max_steps=2", "worker.rollout.n=3", "trainer.n_gpus_per_node=1"],
    );
    succeeded(&output);
    let said = stderr(&output);
    assert_eq!(said.matches("keys of EasyR1's change no result here").count(), 1, "{said}");
    assert!(said.contains("worker.rollout.gpu_memory_utilization"), "{said}");
    let lines = metrics(&folder.path().join("runs/easyr1_toy"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line["reward/brief"].is_number()), "{lines:?}");

    // As TOML it is the same run.
    let toml =
        train(folder.path(), &["--convert", "examples/easyr1/toy.yaml", "worker.rollout.n=3", "trainer.max_steps=2"]);
    succeeded(&toml);
    std::fs::write(folder.path().join("config.toml"), stdout(&toml)).unwrap();
    let dry = train(folder.path(), &["--config", "config.toml", "--dry-run"]);
    let yaml = ["--config", "examples/easyr1/toy.yaml", "worker.rollout.n=3", "trainer.max_steps=2", "--dry-run"];
    assert_eq!(stdout(&dry), stdout(&train(folder.path(), &yaml)));
}

#[test]
fn what_is_wrong_with_a_file_is_one_message() {
    let folder = tempfile::tempdir().unwrap();
    for (text, part) in [
        ("data:\n\tseed: 1\n", "x.yaml:2: not valid YAML: a tab stands in front of the text"),
        ("data:\n  seed: 1\n  seed: 2\n", "x.yaml:3: not valid YAML: `seed` stands in line 2 already"),
        ("data:\n  sed: 1\n", "x.yaml:2: EasyR1 has no key `data.sed`; did you mean `data.seed`?"),
        ("algorithm: {adv_estimator: gae}\n", "algorithm.adv_estimator (x.yaml:1): is gae, and there are grpo"),
    ] {
        std::fs::write(folder.path().join("x.yaml"), text).unwrap();
        for arguments in [["--config", "x.yaml"], ["--convert", "x.yaml"]] {
            let output = train(folder.path(), &arguments);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(part) && said.starts_with("error: "), "{said}");
        }
    }
}

/// A bench with `mine.py` and the smallest run, three steps.
fn bench(script: &str) -> Bench {
    let bench = Bench::new(&SMALLEST.replace("max_steps = 1", "max_steps = 3\nsave_freq = 1"));
    std::fs::write(bench.path("mine.py"), script).unwrap();
    bench
}

#[test]
fn a_function_sees_prompt_columns_and_pictures() {
    let script = r#"
import os
seen = 0
def f(prompts, completions, images, ground_truth, **columns):
    global seen
    print("on standard output")
    for prompt, pictures in zip(prompts, images):
        assert "<image>" in prompt and len(pictures) == 1 and open(pictures[0], "rb").read(4) == b"\x89PNG", pictures
    seen += len(prompts)
    return [{"overall": k % 2, "seen": seen} for k in range(len(prompts))]
"#;
    let bench = bench(script);
    let output = bench.train(&["reward.function=mine.py:f", "reward.write_images=true"]);
    succeeded(&output);
    let lines = metrics(&bench.path("run"));
    assert_eq!(lines.len(), 3);
    let seen: Vec<f64> = lines.iter().map(|line| line["reward/seen"].as_f64().unwrap()).collect();
    assert_eq!(seen, [4.0, 8.0, 12.0], "one process for the whole run");
    assert!(lines.iter().all(|line| line["reward"].as_f64() == Some(0.5)));
}

#[test]
fn a_function_that_cannot_be_loaded_is_bad_input() {
    let bench = bench("def score(xs):\n    return [0 for _ in xs]\n");
    for (function, part) in [
        ("mine.py:scores", "reward.function: `mine.py:scores`: it has no function scores; did you mean score?"),
        ("mime.py:score", "there is no file mime.py; its folder has mine.py"),
    ] {
        let output = bench.train(&[format!("reward.function={function}")]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said}");
        assert!(!bench.path("run").join("metrics.jsonl").exists(), "it is found before anything is trained");
    }
}

#[test]
fn a_function_that_raises_ends_the_run_with_its_row() {
    let bench =
        bench("calls = 0\ndef f(xs):\n    global calls\n    calls += 1\n    return [1 / (calls - 3) for _ in xs]\n");
    let output = bench.train(&["reward.function=mine.py:f"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("ZeroDivisionError").count(), 1, "{said}");
    assert!(said.contains("it raised on a batch of 4 (rows ["), "{said}");
    assert_eq!(support::checkpoints(&bench.path("run")), [1, 2], "{said}");
}
