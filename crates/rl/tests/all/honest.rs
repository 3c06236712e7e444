//! What a run says of itself: curves of everything that was sampled beside those of what was kept, null where there is
//! no number, and a warning, once, where it goes on and learns nothing.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use burn::tensor::DType;
use launch::train;
use rl::config::{Source, resolve};
use rl::progress::Progress;
use rl::run_folder::read_metrics;
use serde_json::{Map, Value};

type B = burn_flex::Flex<f32, i32>;

const RUN: &str = r#"
[model]
path = "toy"
[data]
train_files = ["toy:read?rows=1&cols=1&size=8"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 8
rollout_batch_size = 4
min_pixels = 0
max_pixels = 0
[rollout]
n = 4
[actor.optim]
lr = 2e-3
[reward]
reward_type = "dapo"
overlong_buffer_length = 8
[trainer]
max_steps = 2
"#;

/// What a run writes to a person.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines of `metrics.jsonl`, and what was said.
fn run(dir: &Path, overrides: &[&str]) -> (Vec<Map<String, Value>>, String) {
    let mut all: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    all.push(format!("trainer.output_dir={}", dir.display()));
    let config = resolve(&[Source::new("test", RUN)], &all).unwrap();
    let said = Said::default();
    let interrupt = Arc::new(AtomicBool::new(false));
    train::<B>(config, DType::F32, &Default::default(), Progress::to_writer(said.clone()), interrupt).unwrap();
    let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    (read_metrics(&dir.join("metrics.jsonl")).unwrap(), text)
}

fn of(line: &Map<String, Value>, key: &str) -> f64 {
    line.get(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {key} in {line:?}"))
}

/// Dynamic sampling selects; what it selected from stands beside it.
#[test]
fn everything_sampled_stands_beside_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, _) = run(&dir.path().join("plain"), &["trainer.max_steps=1"]);
    let filter = [
        "trainer.max_steps=1",
        "trainer.max_try_make_batch=1",
        "algorithm.online_filtering=true",
        "algorithm.filter_key=overall",
        "algorithm.filter_low=-1.9",
        "algorithm.filter_high=1.5",
    ];
    let (kept, _) = run(&dir.path().join("kept"), &filter);
    let (plain, kept) = (&plain[0], &kept[0]);
    let share = of(kept, "filter/kept_share");
    assert!(share > 0.0 && share < 1.0, "{share}");
    // The first step of both samples the same.
    for (all, sampled) in [
        ("reward", "sampled/reward"),
        ("accuracy", "sampled/accuracy"),
        ("group/zero_variance_share", "sampled/zero_variance_share"),
    ] {
        assert!((of(plain, all) - of(kept, sampled)).abs() < 1e-12, "{all}");
        assert!((of(plain, all) - of(plain, sampled)).abs() < 1e-12, "{all}: without a filter they are one");
    }
    assert!(of(kept, "reward") > of(kept, "sampled/reward") + 1e-3, "{kept:?}");
}

/// Groups without differences pass a filter by another key: it is said, and can be had otherwise.
#[test]
fn groups_without_differences_are_named_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    // Every group has a mean format between these; of two responses most have the same length and earn the same.
    let settings = [
        "algorithm.online_filtering=true",
        "algorithm.filter_key=format",
        "algorithm.filter_low=-1.0",
        "algorithm.filter_high=2.0",
        "trainer.max_try_make_batch=1",
        "trainer.max_steps=3",
        "data.rollout_batch_size=8",
        "rollout.n=2",
    ];
    let (lines, said) = run(&dir.path().join("passed"), &settings);
    assert!(lines.iter().filter(|line| of(line, "group/zero_variance_share") > 0.0).count() > 1, "{lines:?}");
    assert_eq!(said.matches("algorithm.filter_zero_variance = true").count(), 1, "once, though it goes on:\n{said}");
    let (lines, said) =
        run(&dir.path().join("dropped"), &[&settings[..], &["algorithm.filter_zero_variance=true"]].concat());
    assert!(lines.iter().any(|line| of(line, "sampled/zero_variance_share") > 0.0));
    assert!(lines.iter().any(|line| line.contains_key("group/zero_variance_share")), "{lines:?}");
    for line in &lines {
        let kept = 1.0 - of(line, "sampled/zero_variance_share");
        assert!((of(line, "filter/kept_share") - kept).abs() < 1e-12);
        assert!(!line.contains_key("group/zero_variance_share") || of(line, "group/zero_variance_share") == 0.0);
    }
    assert!(!said.contains("algorithm.filter_zero_variance = true"), "{said}");
}

/// A policy that never ends its responses, and a loss that leaves those out: nothing is learned, and it is said.
#[test]
fn a_run_that_learns_nothing_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    // An untrained model does not end within two tokens.
    let short = ["data.max_response_length=2", "reward.overlong_buffer_length=2", "rollout.n=2", "trainer.max_steps=3"];
    let (lines, said) = run(&dir.path().join("cut"), &short);
    assert!(lines.iter().all(|line| of(line, "response_length/clip_ratio") >= 0.95), "{lines:?}");
    assert_eq!(said.matches("were cut at data.max_response_length = 2").count(), 1, "{said}");
    assert!(lines.iter().all(|line| of(line, "actor/grad_norm") >= 0.0));

    let (lines, said) = run(&dir.path().join("masked"), &[&short[..], &["actor.mask_truncated=true"]].concat());
    let all_cut = |line: &&Map<String, Value>| of(line, "response_length/clip_ratio") == 1.0;
    assert!(lines.iter().filter(all_cut).count() > 1, "{lines:?}");
    for line in lines.iter().filter(all_cut) {
        assert!(line["actor/grad_norm"].is_null() && of(line, "actor/skipped_steps") == 1.0, "{line:?}");
        assert!(!line.contains_key("actor/loss"));
    }
    assert_eq!(said.matches("actor.mask_truncated leaves those out").count(), 1, "{said}");
}
