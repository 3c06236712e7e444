//! Runs on several ranks, which are threads here, beside the same run on one: the same rows, responses and rewards, the
//! same sums but for their order; checkpoints that any number of ranks reads.

use std::path::Path;

use burn::tensor::DType;
use comm::Ranks;
use rl::TrainError;
use rl::config::{Source, resolve};
use rl::progress::Progress;
use rl::run_folder::read_metrics;
use rl::trainer::Summary;
use serde_json::{Map, Value};

type B = burn_flex::Flex<f32, i32>;

/// Batches that no number of ranks divides, groups that do not fit into a pass, filtering with a surplus.
const CONFIG: &str = r#"
[model]
path = "toy"
[data]
train_files = ["toy:read?rows=1&cols=2&size=14"]
val_files = ["toy:read?rows=1&cols=2&size=3&seed=5"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 12
rollout_batch_size = 5
val_batch_size = 2
min_pixels = 0
max_pixels = 0
[rollout]
n = 4
[algorithm]
name = "vgpo"
online_filtering = true
filter_zero_variance = true
[actor]
global_batch_size = 3
micro_batch_tokens = 96
[actor.optim]
lr = 1e-3
[reward]
reward_type = "dapo"
overlong_buffer_length = 8
[trainer]
save_freq = 2
val_freq = 2
max_try_make_batch = 4
[[stages]]
stage = "sft"
name = "warm"
steps = 3
batch_size = 5
[[stages]]
stage = "rl"
steps = 3
"#;

fn train(ranks: Ranks, dir: &Path, overrides: &[&str]) -> Result<Summary, TrainError> {
    let mut all = vec![format!("trainer.output_dir={}", dir.display())];
    all.extend(overrides.iter().map(|s| s.to_string()));
    let config = resolve(&[Source::new("test", CONFIG)], &all)?;
    launch::train_on::<B>(ranks, config, DType::F32, &Default::default(), Progress::new(), Default::default())
}

/// Trains on `size` ranks; none of them fails.
fn run(size: usize, dir: &Path, overrides: &[&str]) -> Vec<Map<String, Value>> {
    match size {
        1 => drop(train(Ranks::solo(), dir, overrides).unwrap()),
        _ => drop(comm::threads::run(size, |ranks| train(ranks, dir, overrides).unwrap())),
    }
    read_metrics(&dir.join("metrics.jsonl")).unwrap()
}

fn text(dir: &Path, log: &str) -> String {
    std::fs::read_to_string(dir.join("rollouts").join(log)).unwrap_or_default()
}

/// Keys that a clock decides, or that are differences of nearly equal numbers.
fn is_noise(key: &str) -> bool {
    ["time/", "perf/", "mismatch/"].iter().any(|prefix| key.starts_with(prefix)) || key == "actor/ppo_kl"
}

/// All metrics within `tolerance` of one another, relative to their size.
fn near(a: &Map<String, Value>, b: &Map<String, Value>, tolerance: f64, what: &str) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
    for (key, value) in a.iter().filter(|(key, _)| !is_noise(key)) {
        match (value.as_f64(), b[key].as_f64()) {
            (Some(x), Some(y)) => {
                assert!((x - y).abs() <= tolerance * (1.0 + x.abs()), "{what}: {key}: {x} and {y}");
            }
            _ => assert_eq!(value, &b[key], "{what}: {key}"),
        }
    }
}

#[test]
fn any_number_of_ranks_trains_alike() {
    let dir = tempfile::tempdir().unwrap();
    let solo = run(1, &dir.path().join("1"), &[]);
    assert!(solo.len() == 6 && solo.iter().any(|line| line.contains_key("val/accuracy")));
    assert!(solo.iter().filter_map(|line| line.get("filter/carried")?.as_f64()).any(|carried| carried > 0.0));
    for size in 2..=4 {
        let path = dir.path().join(size.to_string());
        let lines = run(size, &path, &[]);
        assert_eq!(lines.len(), solo.len());
        for (step, (a, b)) in solo.iter().zip(&lines).enumerate() {
            near(a, b, if step < 4 { 2e-6 } else { 2e-5 }, &format!("{size} ranks, step {}", step + 1));
        }
        for log in
            ["step_4.jsonl", "step_5.jsonl", "step_6.jsonl", "validation_step_3.jsonl", "validation_step_6.jsonl"]
        {
            let (expected, found) = (text(&dir.path().join("1"), log), text(&path, log));
            assert_eq!(expected.lines().count(), found.lines().count(), "{log}");
            for (a, b) in expected.lines().zip(found.lines()) {
                let [a, b]: [Value; 2] = [a, b].map(|line| serde_json::from_str(line).unwrap());
                assert_eq!(
                    ["response", "accuracy", "id"].map(|k| &a[k]),
                    ["response", "accuracy", "id"].map(|k| &b[k]),
                    "{log}"
                );
            }
        }
    }
}
