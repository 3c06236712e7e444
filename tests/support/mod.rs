//! The real `train` binary in temporary folders.
#![allow(dead_code)] // each test binary uses a part

pub(crate) mod large_model;
pub(crate) mod standin;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use data::{Dataset, Keys, Sample};
use serde_json::{Map, Value};

/// Longest that any run of these tests may take, in seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// The smallest run there is: a step takes milliseconds, and nothing is learned.
pub(crate) const SMALLEST: &str = r#"
[model]
path = "toy"
[data]
train_files = ["toy:read?rows=1&cols=1&size=4"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 4
rollout_batch_size = 2
min_pixels = 0
max_pixels = 0
[rollout]
n = 2
[trainer]
output_dir = "run"
max_steps = 1
"#;

/// A folder with a configuration, in which runs are started.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// A temporary folder that holds `config.toml`.
    pub(crate) fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        Self { dir }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command `train --config config.toml OVERRIDES`, started in the folder.
    pub(crate) fn command<S: AsRef<str>>(&self, overrides: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
        command.current_dir(self.dir.path()).args(["--config", "config.toml", "--backend", "flex"]);
        // No test asks the real hub.
        command.env("HF_HUB_OFFLINE", "1");
        command.args(overrides.iter().map(AsRef::as_ref));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs to the end.
    pub(crate) fn train<S: AsRef<str>>(&self, overrides: &[S]) -> Output {
        wait(self.command(overrides).spawn().unwrap())
    }

    /// Starts a run.
    pub(crate) fn start<S: AsRef<str>>(&self, overrides: &[S]) -> Child {
        self.command(overrides).spawn().unwrap()
    }
}

/// Waits for a run that has to end by itself.
pub(crate) fn wait(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("the run did not end in {LIMIT:?}: {}", stderr(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Sends a signal by name (`TERM`, `INT`, `KILL`) to a run that is still going on: a test of interrupts that hits none
/// has tested nothing. A child that has ended and was not waited for would still take a signal, so that is asked first.
pub(crate) fn signal(child: &mut Child, name: &str) {
    assert!(try_signal(child, name), "the run had ended by itself before SIG{name}: make it longer");
}

/// The same; false, and no signal, if the run has ended.
pub(crate) fn try_signal(child: &mut Child, name: &str) -> bool {
    if child.try_wait().unwrap().is_some() {
        return false;
    }
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(sent.success(), "SIG{name} reached no process");
    true
}

/// Says that a test cannot be done here and why, past the capture of the test program; where `CI` is set that is a
/// failure.
pub(crate) fn skipped(why: &str) {
    use std::io::Write;
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "skipped where CI is set: {why}");
    #[allow(clippy::explicit_write)] // the harness captures what `eprintln` writes
    writeln!(std::io::stderr(), "\nSKIPPED: {why}").unwrap();
}

/// What a run printed on its standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Checks that a run ended with code 0.
pub(crate) fn succeeded(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
}

/// The lines of `metrics.jsonl` without what depends on the clock; whole lines only.
pub(crate) fn metrics(folder: &Path) -> Vec<Map<String, Value>> {
    let log = folder.join("metrics.jsonl");
    if !log.exists() {
        return vec![];
    }
    run::metrics::MetricsReader::read(&log).unwrap().steps.into_iter().map(|step| step.without_clock().0).collect()
}

/// The step of the last whole line of `metrics.jsonl`; 0 without any.
pub(crate) fn last_step(run: &Path) -> u64 {
    metrics(run).last().map_or(0, |line| line["step"].as_u64().unwrap())
}

/// Steps of the checkpoints of a run, in order.
pub(crate) fn checkpoints(run: &Path) -> Vec<u64> {
    let mut steps: Vec<u64> = std::fs::read_dir(run.join("checkpoints"))
        .into_iter()
        .flatten()
        .filter_map(|e| e.unwrap().file_name().to_str()?.strip_prefix("global_step_")?.parse().ok())
        .collect();
    steps.sort_unstable();
    steps
}

/// The bytes of the weights and of the optimizer's state in the newest checkpoint.
pub(crate) fn weights(run: &Path) -> (Vec<u8>, Vec<u8>) {
    let step = *checkpoints(run).last().expect("a checkpoint");
    let folder = run.join(format!("checkpoints/global_step_{step}"));
    // One file, or one of each rank that has written.
    let read = |folder: &Path, start: &str| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> =
            names.filter(|name| name.starts_with(start) && name.ends_with(".safetensors")).collect();
        assert!(!names.is_empty(), "no {start} in {}", folder.display());
        names.sort();
        names.iter().flat_map(|name| std::fs::read(folder.join(name)).unwrap()).collect()
    };
    (read(&folder.join("hf"), "model"), read(&folder, "optimizer"))
}

/// Fails with the first value that differs between two runs; says what was compared.
pub(crate) fn assert_same_run(expected: &Path, got: &Path) -> String {
    let (a, b) = (metrics(expected), metrics(got));
    assert_eq!(a.len(), b.len(), "lines of metrics.jsonl");
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "keys of step {}", a["step"]);
        // What ranks tell each other at a start, and for a checkpoint, counts to the next step.
        for (key, value) in a.iter().filter(|(key, _)| !key.starts_with("comm/")) {
            assert_eq!(value, &b[key], "{key} of step {}", a["step"]);
        }
    }
    let (a, b) = (weights(expected), weights(got));
    assert!(a.0 == b.0, "model.safetensors differs");
    assert!(a.1 == b.1, "optimizer.safetensors differs");
    let values: usize = metrics(got).iter().map(Map::len).sum();
    format!(
        "{} lines, {values} values, {} bytes of weights, {} of optimizer state: equal",
        metrics(got).len(),
        b.0.len(),
        b.1.len()
    )
}

/// Rows of the toy world.
pub(crate) fn toy_rows(spec: &str) -> Vec<Sample> {
    let dataset = Dataset::open(&[spec.to_string().into()], &Keys::default(), None).unwrap();
    (0..dataset.len()).map(|i| dataset.get(i).unwrap()).collect()
}

/// A row as JSON, its pictures in base64.
pub(crate) fn json_row(sample: &Sample) -> Value {
    use base64::Engine;
    let images: Vec<String> =
        sample.images.iter().map(|i| base64::engine::general_purpose::STANDARD.encode(i.load().unwrap())).collect();
    serde_json::json!({
        "id": sample.id, "problem": sample.problem, "answer": sample.answer, "solution": sample.solution, "images": images,
    })
}

/// Writes JSON lines.
pub(crate) fn write_rows(path: &Path, rows: &[Value]) {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(path, text).unwrap();
}

/// No overrides.
pub(crate) const NOTHING: &[&str] = &[];

/// A warm start in two stages, then RL in two stages, each with a reference of its own, with everything that has state:
/// dynamic sampling with groups that are carried to the next batch, an adaptive KL term against a reference, two epochs
/// of two mini-batches, validation, rows that are set aside. The reward grows as responses get shorter, so that an
/// untrained model has something to learn.
const STATEFUL: &str = r#"
[model]
path = "toy"
[data]
train_files = ["train.jsonl"]
val_files = ["toy:read?rows=1&cols=1&split=test&size=6"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 10
rollout_batch_size = 4
min_pixels = 0
max_pixels = 0
[rollout]
n = 3
[algorithm]
shaping = "vgpo"
online_filtering = true
filter_key = "overall"
filter_low = -1.95
filter_high = -1.01
disable_kl = false
use_kl_loss = false
kl_type = "adaptive"
kl_horizon = 50.0
[actor]
global_batch_size = 2
ppo_epochs = 2
[actor.optim]
lr = 1e-3
[reward]
reward_type = "dapo"
overlong_buffer_length = 10
[trainer]
output_dir = "run"
max_try_make_batch = 8
val_freq = 3
save_freq = 2
save_limit = 2
[[stages]]
stage = "sft"
name = "warm"
steps = 2
batch_size = 4
[[stages]]
stage = "sft"
name = "warmer"
steps = 3
batch_size = 3
[[stages]]
stage = "rl"
name = "rl"
steps = 5
[[stages]]
stage = "rl"
name = "more"
steps = 3
"#;

/// Steps of that run.
pub(crate) const STEPS: u64 = 13;

/// A folder for a run with everything that has state.
pub(crate) fn stateful() -> Bench {
    let bench = Bench::new(STATEFUL);
    let mut rows: Vec<_> = toy_rows("toy:read?rows=1&cols=1-2&split=train&size=14").iter().map(json_row).collect();
    rows.insert(5, serde_json::json!({"id": "no_picture", "problem": "<image>read?", "answer": "1", "solution": "1", "images": []}));
    rows.insert(9, serde_json::json!({"id": "broken", "problem": "<image>read?", "answer": "1", "solution": "1", "images": ["AAAA"]}));
    write_rows(&bench.path("train.jsonl"), &rows);
    bench
}
