//! Runs on several ranks, which are threads here, beside the same run on one: the same rows, responses and rewards, the
//! same sums but for their order; checkpoints that any number of ranks reads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use comm::Ranks;
use rl::TrainError;
use rl::config::{Source, resolve};
use rl::progress::Progress;
use rl::run_folder::read_metrics;
use rl::trainer::Summary;
use serde_json::{Map, Value};

mod support;

use support::{StopAt, near};

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
rollout_batch_size = 10
val_batch_size = 2
min_pixels = 0
max_pixels = 0
[rollout]
n = 4
[algorithm]
name = "vgpo"
online_filtering = true
filter_zero_variance = true
filter_key = "overall"
filter_low = -1.8
filter_high = 1.0
[actor]
global_batch_size = 5
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
    train_with(ranks, dir, overrides, Progress::to_writer(std::io::sink()), Arc::default())
}

fn train_with(
    ranks: Ranks,
    dir: &Path,
    overrides: &[&str],
    progress: Progress,
    interrupt: Arc<AtomicBool>,
) -> Result<Summary, TrainError> {
    let mut all = vec![format!("trainer.output_dir={}", dir.display())];
    all.extend(overrides.iter().map(|s| s.to_string()));
    let config = resolve(&[Source::new("test", CONFIG)], &all)?;
    launch::train_on::<B>(ranks, config, DType::F32, &Default::default(), progress, interrupt)
}

/// Trains on `size` ranks; none of them fails.
fn run(size: usize, dir: &Path, overrides: &[&str]) -> Vec<Map<String, Value>> {
    run_on(size, size, dir, overrides)
}

/// The same with `of_node` ranks on each machine.
fn run_on(of_node: usize, size: usize, dir: &Path, overrides: &[&str]) -> Vec<Map<String, Value>> {
    match size {
        1 => drop(train(Ranks::solo(), dir, overrides).unwrap()),
        _ => drop(comm::threads::run_on(of_node, size, |ranks| train(ranks, dir, overrides).unwrap())),
    }
    read_metrics(&dir.join("metrics.jsonl")).unwrap()
}

fn text(dir: &Path, log: &str) -> String {
    std::fs::read_to_string(dir.join("rollouts").join(log)).unwrap_or_default()
}

#[test]
fn any_number_of_ranks_trains_alike() {
    let dir = tempfile::tempdir().unwrap();
    let solo = run(1, &dir.path().join("1"), &[]);
    assert!(solo.len() == 6 && solo.iter().any(|line| line.contains_key("val/accuracy")));
    assert!(solo.iter().filter_map(|line| line.get("filter/carried")?.as_f64()).any(|carried| carried > 0.0));
    for (size, of_node, zero) in [(2, 2, 1), (3, 3, 1), (4, 4, 1), (3, 3, 2), (4, 2, 2), (4, 2, 1)] {
        let path = dir.path().join(format!("{size}_{of_node}_{zero}"));
        let lines = run_on(of_node, size, &path, &[&format!("parallel.zero={zero}")]);
        assert_eq!(lines.len(), solo.len());
        for (step, (a, b)) in solo.iter().zip(&lines).enumerate() {
            near(a, b, if step < 3 { 2e-6 } else { 2e-5 }, &format!("{size} ranks, ZeRO-{zero}, step {}", step + 1));
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

/// The rows that cost most are found together, and come first on any number of ranks: two of twelve have more digits,
/// and so longer worked responses.
#[test]
fn worst_rows_first_on_any_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let data = "data.train_files=[\"toy:read?rows=1&cols=1&size=10\",\"toy:read?rows=2&cols=2&size=4\"]";
    let settings = [data, "data.worst_first=true", "stages.1.steps=1", "data.rollout_batch_size=4"];
    let rows = |size: usize| {
        let path = dir.path().join(size.to_string());
        run(size, &path, &settings);
        let log = text(&path, "step_4.jsonl");
        let of = |line: &str| serde_json::from_str::<Value>(line).unwrap()["row"].as_u64().unwrap();
        let mut rows: Vec<u64> = log.lines().map(of).collect();
        rows.dedup();
        rows
    };
    let solo = rows(1);
    assert!(solo.iter().any(|row| *row >= 10), "{solo:?}");
    for size in [2, 3, 4] {
        assert_eq!(rows(size), solo, "{size} ranks");
    }
}

/// The decoder shared out over two ranks, over four of which pairs hold the same key/value heads, and over two in each
/// of two copies; and a run that goes on with another layout each time.
#[test]
fn a_decoder_that_is_shared_out_trains_alike() {
    let dir = tempfile::tempdir().unwrap();
    let kl = ["algorithm.disable_kl=false", "algorithm.use_kl_loss=true"];
    let solo = run(1, &dir.path().join("1"), &kl);
    let compare = |lines: &[Map<String, Value>], what: &str| {
        assert_eq!(lines.len(), solo.len());
        for (step, (a, b)) in solo.iter().zip(lines).enumerate() {
            near(a, b, if step < 3 { 2e-6 } else { 2e-5 }, &format!("{what}, step {}", step + 1));
        }
    };
    for (size, tensor, zero) in [(2, 2, 1), (4, 4, 1), (4, 2, 2)] {
        let path = dir.path().join(format!("{size}_{tensor}"));
        let settings = [format!("parallel.tensor={tensor}"), format!("parallel.zero={zero}")];
        let all: Vec<&str> = kl.iter().copied().chain(settings.iter().map(|s| &s[..])).collect();
        compare(&run(size, &path, &all), &format!("{size} ranks by {tensor}"));
    }
    let path = dir.path().join("moved");
    for (size, tensor, stop) in [(4, "2", "warm 2/3"), (2, "1", "rl 1/3"), (2, "2", "rl 2/3")] {
        let tensor = format!("parallel.tensor={tensor}");
        let all = [kl[0], kl[1], &tensor];
        let stopped = |ranks: Ranks| {
            let flag = Arc::new(AtomicBool::new(false));
            let text = if ranks.rank() + 1 == ranks.size() { stop } else { "no line says this" };
            let progress = Progress::to_writer(StopAt(text, flag.clone()));
            train_with(ranks, &path, &all, progress, flag).unwrap_err().to_string()
        };
        let said = comm::threads::run(size, stopped);
        assert!(said.iter().all(|said| said.starts_with("interrupted")), "{size}: {said:?}");
    }
    compare(&run(1, &path, &kl), "moved");
}

/// All tensors of the `.safetensors` files of a folder, by name.
fn tensors(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            found.extend(file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())));
        }
    }
    found
}

/// With sums that do not depend on their order, any number of ranks writes the same weights and moments, to the bit.
#[test]
fn exact_sums_are_the_same_on_any_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    // Moments in 16 bits are rounded by chance, which goes by the element's place in the whole tensor.
    let exact = [
        "parallel.exact_sums=true",
        "actor.old_log_probs=recompute",
        "actor.ppo_epochs=2",
        "actor.optim.moments_dtype=bf16",
    ];
    let of = |size: usize| {
        let path = dir.path().join(size.to_string());
        run(size, &path, &exact);
        let last = path.join("checkpoints/global_step_6");
        let logs = (4..=6).map(|step| text(&path, &format!("step_{step}.jsonl"))).collect::<Vec<_>>();
        (tensors(&last.join("hf")), tensors(&last), logs)
    };
    let (weights, moments, logs) = of(1);
    assert!(moments.len() > 3 * weights.len() - 1 && logs.iter().all(|log| log.lines().count() >= 20));
    for size in [2, 4] {
        let found = of(size);
        let differ = |a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
            a.keys().filter(|name| a[*name] != b[*name]).cloned().collect()
        };
        assert_eq!(differ(&weights, &found.0), [""; 0], "{size} ranks");
        assert_eq!(differ(&moments, &found.1), [""; 0], "{size} ranks");
        assert_eq!(logs, found.2, "{size} ranks");
    }
}

/// What an algorithm reads of all ranks: whitened returns, batch minima and maxima, a KL term with its reference,
/// streams of other passes, log-probs that are computed again.
#[test]
fn every_kind_of_algorithm() {
    let dir = tempfile::tempdir().unwrap();
    let recompute = "actor.old_log_probs=recompute";
    for (name, overrides) in [
        ("whitened", &["algorithm.adv_estimator=reinforce_plus_plus", recompute][..]),
        ("vppo", &["algorithm.name=vppo"]),
        ("released", &["algorithm.vgpo.variant=released", "actor.optim.moments_dtype=bf16"]),
        ("kl", &["algorithm.disable_kl=false", "algorithm.use_kl_loss=true", "algorithm.kl_coef=0.01"]),
        ("adaptive", &["algorithm.disable_kl=false", "algorithm.use_kl_loss=false", "algorithm.kl_type=adaptive"]),
        ("papo", &["algorithm.name=papo_d"]),
        ("pgpo", &["algorithm.shaping=pgpo", "model.freeze_vision_tower=true"]),
        ("remax", &["algorithm.adv_estimator=remax", "algorithm.shaping=none"]),
        ("off", &["algorithm.online_filtering=false", "algorithm.filter_zero_variance=false", "actor.ppo_epochs=2"]),
    ] {
        let [solo, ranks] = [1, 3].map(|size| run(size, &dir.path().join(format!("{name}{size}")), overrides));
        for (step, (a, b)) in solo.iter().zip(&ranks).enumerate() {
            near(a, b, if step < 3 { 2e-6 } else { 3e-5 }, &format!("{name}, step {}", step + 1));
        }
    }
}

/// A run that is stopped and goes on with another number of ranks, three times, is the run that was never stopped: its
/// moments, carried groups and reference policy go from one to the next. One rank hears of the stop, all of them do it.
#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let kl = ["algorithm.disable_kl=false", "algorithm.use_kl_loss=true", "actor.optim.moments_dtype=bf16"];
    let whole = run(1, &dir.path().join("whole"), &kl);
    let path = dir.path().join("moved");
    for (size, stop) in [(4, "warm 2/3"), (2, "rl 1/3"), (1, "rl 2/3")] {
        let stopped = |ranks: Ranks| {
            let flag = Arc::new(AtomicBool::new(false));
            let text = if ranks.rank() + 1 == ranks.size() { stop } else { "no line says this" };
            let progress = Progress::to_writer(StopAt(text, flag.clone()));
            train_with(ranks, &path, &kl, progress, flag).unwrap_err().to_string()
        };
        let said = if size == 1 { vec![stopped(Ranks::solo())] } else { comm::threads::run_on(2, size, stopped) };
        assert!(said.iter().all(|said| said.starts_with("interrupted")), "{size}: {said:?}");
    }
    let moved = run(3, &path, &kl);
    assert_eq!(moved.len(), whole.len());
    for (step, (a, b)) in whole.iter().zip(&moved).enumerate() {
        near(a, b, if step < 3 { 2e-6 } else { 3e-5 }, &format!("step {}", step + 1));
    }
    // The last checkpoint has whole tensors in as many files as ranks wrote it, and its numbers are those of the run
    // that was never stopped; weights by what three more digits of a step of Adam make of the order of sums.
    let of = |run: &str| dir.path().join(run).join("checkpoints/global_step_6");
    let (last, whole) = (of("moved"), of("whole"));
    for rank in 1..=3 {
        assert!(last.join(format!("optimizer-{rank:05}-of-00003.safetensors")).is_file(), "{rank}");
        assert!(last.join(format!("hf/model-{rank:05}-of-00003.safetensors")).is_file(), "{rank}");
    }
    assert!(!last.join("optimizer.safetensors").exists() && !last.join("hf/model.safetensors").exists());
    let (weights, expected) = (tensors(&last.join("hf")), tensors(&whole.join("hf")));
    assert_eq!(weights.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    let apart = |name: &String| -> f64 {
        let (a, b) = (floats(&weights[name]), floats(&expected[name]));
        assert_eq!(a.len(), b.len(), "{name}");
        let square = |x: f32| f64::from(x) * f64::from(x);
        a.iter().zip(&b).map(|(a, b)| square(a - b)).sum::<f64>() / a.len() as f64
    };
    let most = weights.keys().map(|name| apart(name).sqrt()).fold(0.0, f64::max);
    // Six steps of 1e-3 have moved them.
    assert!(most < 2e-4, "weights are {most:e} apart");
    let moments =
        |folder: &Path| tensors(folder).into_iter().map(|(name, bytes)| (name, bytes.len())).collect::<Vec<_>>();
    assert_eq!(moments(&last), moments(&whole));
}

/// Checkpoints that are written while training goes on have the bytes of those that training waits for, on any number
/// of ranks, and as many of them are kept.
#[test]
fn what_a_thread_writes_has_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for size in [1, 3] {
        let [waited, meanwhile] = [false, true].map(|save_async| {
            let path = dir.path().join(format!("{size}_{save_async}"));
            let setting = format!("trainer.save_async={save_async}");
            let lines = run(size, &path, &[&setting, "trainer.save_freq=1", "trainer.save_limit=4"]);
            let checkpoints = path.join("checkpoints");
            let state = std::fs::read_to_string(checkpoints.join("global_step_6/trainer.json")).unwrap();
            let state: Value = serde_json::from_str(&state).unwrap();
            // The clock of the last checkpoint stands before it was written: five have held the run.
            let steps: f64 = lines.iter().filter_map(|line| line["time/step_s"].as_f64()).sum();
            let held = (state["seconds"].as_f64().unwrap() - steps) / 5.0;
            println!("{size} ranks, save_async = {save_async}: a checkpoint holds training for {:.1} ms", 1e3 * held);
            checkpoints
        });
        let names = |folder: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let steps: Vec<String> = (3..=6).map(|step| format!("global_step_{step}")).collect();
        assert_eq!((names(&waited), names(&meanwhile)), (steps.clone(), steps.clone()));
        for folder in steps.iter().flat_map(|step| [step.clone(), format!("{step}/hf")]) {
            let (waited, meanwhile) = (waited.join(&folder), meanwhile.join(&folder));
            assert_eq!(names(&waited), names(&meanwhile), "{folder}");
            // What trainer.json has besides is a clock and the setting itself.
            for name in names(&waited).iter().filter(|name| *name != "hf" && *name != "trainer.json") {
                let [a, b] = [&waited, &meanwhile].map(|folder| std::fs::read(folder.join(name)).unwrap());
                assert!(a == b, "{size} ranks: {folder}/{name}");
            }
        }
    }
}

/// The most memory that a run and then a resume of it take, which finds nothing to do after it has read its checkpoint:
/// each in a process of its own, this test again.
#[cfg(target_os = "linux")]
#[test]
fn a_resume_holds_no_more_than_a_step() {
    const FOLDER: &str = "TRAIN_IN_THIS_FOLDER";
    const SAYS: &str = "at most, in KiB: ";
    if let Some(folder) = std::env::var_os(FOLDER) {
        let overrides = ["model.init=small", "trainer.save_async=false", "trainer.save_freq=0", "trainer.val_freq=0"];
        let short = ["trainer.val_before_train=false", "stages.0.steps=1", "stages.1.steps=1", "rollout.n=2"];
        let all: Vec<&str> = overrides
            .into_iter()
            .chain(short)
            .chain(["algorithm.online_filtering=false", "algorithm.filter_zero_variance=false"])
            .collect();
        train(Ranks::solo(), Path::new(&folder), &all).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        println!("{SAYS}{}", line.trim().trim_end_matches(" kB"));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let peak = || -> u64 {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "a_resume_holds_no_more_than_a_step", "--nocapture"]).env(FOLDER, dir.path());
        let output = again.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said.lines().find_map(|line| line.rsplit_once(SAYS)?.1.parse().ok()).unwrap_or_else(|| panic!("{said}"))
    };
    let [step, resume] = [peak(), peak()];
    println!("a run holds {step} KiB at most, a resume {resume} KiB");
    assert!(resume <= step, "{resume} KiB to resume, {step} KiB for a step");
}

/// An error of one rank ends the calls of the others, and is the one that is told.
#[test]
fn a_rank_that_fails_leaves_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let errors = comm::threads::run(3, |ranks| {
        let overrides = if ranks.rank() == 1 { vec!["data.train_files=[/no/such/file.jsonl]"] } else { vec![] };
        train(ranks, dir.path(), &overrides).unwrap_err().to_string()
    });
    assert!(errors[1].contains("/no/such/file.jsonl"), "{errors:?}");
    assert!([0, 2].iter().all(|rank| errors[*rank].contains("rank 1 has ended")), "{errors:?}");
}
