//! Runs that diverge, that are resumed under another configuration, whose checkpoints are damaged or whose device
//! fails.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use burn::tensor::DType;
use data::write::{JsonImages, SampleWriter};
use data::{Dataset, Keys, Processor, Sample};
use launch::train;
use rl::TrainError;
use rl::config::{Source, resolve};
use rl::progress::Progress;
use rl::rollout::never_sampled;
use rl::run_folder::read_metrics;
use rl::trainer::Summary;

type B = burn_flex::Flex<f32, i32>;

/// A supervised step, then RL with groups that are carried over; a checkpoint each step. The reward grows as responses
/// get shorter.
const RUN: &str = r#"
[model]
path = "toy"
[data]
train_files = ["rows.jsonl"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 10
rollout_batch_size = 4
min_pixels = 0
max_pixels = 0
[rollout]
n = 3
[algorithm]
online_filtering = true
filter_key = "overall"
filter_low = -1.95
filter_high = -1.01
[actor]
global_batch_size = 4
[actor.optim]
lr = 1e-3
[reward]
reward_type = "dapo"
overlong_buffer_length = 10
[trainer]
max_try_make_batch = 8
save_freq = 1
save_limit = 0
[[stages]]
stage = "sft"
name = "warm"
steps = 1
batch_size = 2
[[stages]]
stage = "rl"
name = "rl"
steps = 5
"#;

/// A folder with data and a run.
struct World(tempfile::TempDir);

/// What a run says.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl World {
    /// Fourteen rows with pictures.
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        world.write_rows(&rows());
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write_rows(&self, rows: &[Sample]) {
        let mut file = SampleWriter::create(&self.path("rows.jsonl"), &Keys::default(), JsonImages::Base64).unwrap();
        rows.iter().for_each(|row| file.write(row).unwrap());
        file.finish().unwrap();
    }

    /// Trains in `run`; the result, and everything that was said.
    fn train(&self, overrides: &[&str]) -> (Result<Summary, TrainError>, String) {
        let text = RUN.replace("rows.jsonl", &self.path("rows.jsonl").display().to_string());
        let mut all = vec![format!("trainer.output_dir={}", self.path("run").display())];
        all.extend(overrides.iter().map(|s| s.to_string()));
        let config = resolve(&[Source::new("test", &text)], &all).unwrap();
        let said = Said::default();
        let progress = Progress::to_writer(said.clone());
        let result = train::<B>(config, DType::F32, &Default::default(), progress, Arc::new(AtomicBool::new(false)));
        let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
        (result, text)
    }

    fn trained(&self, overrides: &[&str]) -> String {
        let (result, said) = self.train(overrides);
        result.unwrap_or_else(|error| panic!("{overrides:?}: {error}\n{said}"));
        said
    }

    fn checkpoint(&self, step: u64) -> PathBuf {
        self.path("run").join(format!("checkpoints/global_step_{step}"))
    }

    /// The last checkpoint but the final one that holds carried groups and stands inside an epoch; its step and the
    /// carried rows.
    fn with_carried(&self) -> (u64, Vec<usize>) {
        let found = (2..6).rev().find_map(|step| {
            let text = std::fs::read_to_string(self.checkpoint(step).join("trainer.json")).unwrap();
            let state: serde_json::Value = serde_json::from_str(&text).unwrap();
            let rows: Vec<usize> =
                state["carried"].as_array().unwrap().iter().map(|c| c["row"].as_u64().unwrap() as usize).collect();
            (!rows.is_empty() && state["cursor"]["position"] != 0).then_some((step, rows))
        });
        found.expect("a checkpoint with carried groups")
    }
}

fn rows() -> Vec<Sample> {
    let spec = "toy:read?rows=1&cols=1-2&split=train&size=14".to_string().into();
    let dataset = Dataset::open(&[spec], &Keys::default(), None).unwrap();
    (0..dataset.len()).map(|i| dataset.get(i).unwrap()).collect()
}

/// Every file below a folder with its bytes.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(snapshot(&path)),
            false => drop(files.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    files
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

/// Names of the folders in `checkpoints/`, in order.
fn folders(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.path("run/checkpoints")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Regression: a diverged run removed its good checkpoints for ones that nothing can read, and ended with exit code 0.
#[test]
fn a_run_that_diverges_keeps_its_good_checkpoints() {
    // Weights that are infinite, and weights that are finite but compute no numbers.
    for lr in ["1e38", "1e12"] {
        let world = World::new();
        let change = format!("actor.optim.lr={lr}");
        let (result, said) = world.train(&[&change, "trainer.save_limit=1", "algorithm.online_filtering=false"]);
        let error = result.expect_err("a policy that computes no numbers");
        assert_eq!(error.exit_code(), 1, "{error}");
        assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
        let text = error.to_string();
        println!("{lr}: {text}\n{said}");
        for part in ["diverged", "global_step_1", "actor.optim.lr", "smaller"] {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
        assert_eq!(folders(&world), ["global_step_1"], "{lr}");
        // The way out that it names works.
        let checkpoint = format!("trainer.resume={}", world.checkpoint(1).display());
        let said = world.trained(&[&checkpoint, "trainer.save_limit=1", "algorithm.online_filtering=false"]);
        assert!(said.contains("actor.optim.lr: "), "the changed key is named: {said}");
    }
    // Nothing was written yet; a supervised stage.
    let world = World::new();
    let (result, _) = world.train(&["stages.0.lr=1e38", "stages.0.steps=3", "trainer.save_freq=2"]);
    let text = result.expect_err("a supervised stage that diverges").to_string();
    assert!(text.contains("no checkpoint before it") && text.contains("stages.0.lr"), "{text}");
    assert!(folders(&world).is_empty());
}

/// Regression: a resume that was refused had cut the logs and set checkpoints aside.
#[test]
fn a_refused_resume_changes_nothing() {
    let world = World::new();
    world.trained(&[]);
    let text = world.path("text.jsonl");
    std::fs::write(&text, "{\"problem\": \"2+2?\", \"answer\": \"4\", \"solution\": \"4\"}\n".repeat(14)).unwrap();
    let text_only = format!("data.train_files=[{}]", text.display());
    // A folder of another tokenizer: two letters have changed places.
    let other = world.path("other");
    copy(&world.checkpoint(6).join("hf"), &other);
    let mut tokenizer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(other.join("tokenizer.json")).unwrap()).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let (a, b) = (vocab["a"].clone(), vocab["b"].clone());
    vocab.insert("a".into(), b);
    vocab.insert("b".into(), a);
    std::fs::write(other.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let other_tokenizer = format!("model.path={}", other.display());
    // A damaged checkpoint, named outright.
    let damaged = world.path("damaged/checkpoints/global_step_2");
    copy(&world.checkpoint(2), &damaged);
    std::fs::write(damaged.join("optimizer.safetensors"), b"").unwrap();
    let from_damaged = format!("trainer.resume={}", damaged.display());

    let resume = format!("trainer.resume={}", world.checkpoint(2).display());
    let before = snapshot(&world.path("run"));
    let refusals: [(&[&str], &str); 11] = [
        (&[&resume, "data.val_files=[nowhere.jsonl]"], "nowhere.jsonl"),
        (&[&resume, "data.train_files=[nowhere.jsonl]"], "nowhere.jsonl"),
        (&[&resume, "stages.1.train_files=[nowhere.jsonl]"], "nowhere.jsonl"),
        (&[&resume, "stages.1.name=renamed"], "no such stage"),
        (&[&resume, "data.format_prompt=nowhere.jinja"], "nowhere.jinja"),
        (&[&resume, "data.answer_key=problem"], "another problem or answer"),
        (&[&resume, "model.path=nowhere"], "nowhere"),
        (&[&resume, &other_tokenizer], "tokenizer.json"),
        (&[&resume, &text_only, "algorithm.shaping=vppo"], "picture"),
        (&[&from_damaged], "optimizer.safetensors"),
        (&["trainer.resume=none"], "already holds a run"),
    ];
    for (overrides, part) in refusals {
        let (result, said) = world.train(overrides);
        let error = result.map(|_| said).expect_err(part).to_string();
        assert!(error.contains(part), "{part:?} is not in: {error}");
        assert!(snapshot(&world.path("run")) == before, "{overrides:?} changed the run folder");
    }
    // A log that cannot be cut.
    let metrics = world.path("run/metrics.jsonl");
    let lines = std::fs::read_to_string(&metrics).unwrap();
    std::fs::write(&metrics, format!("no log line\n{lines}")).unwrap();
    let before = snapshot(&world.path("run"));
    assert!(world.train(&[&resume]).0.unwrap_err().to_string().contains("not a log line"));
    assert!(snapshot(&world.path("run")) == before);
}

/// Regression: responses that were sampled for one row were trained on beside the problem and the answer of another.
#[test]
fn carried_groups_are_known_by_the_content_of_their_row() {
    let world = World::new();
    world.trained(&[]);
    let (step, carried) = world.with_carried();
    let resume = format!("trainer.resume={}", world.checkpoint(step).display());
    let kept = world.path("kept");
    copy(&world.path("run"), &kept);
    let again = || {
        std::fs::remove_dir_all(world.path("run")).unwrap();
        copy(&kept, &world.path("run"));
    };
    // The same data and settings.
    let said = world.trained(&[&resume]);
    assert!(!said.contains("dropped") && !said.contains("changed since"), "{said}");
    // Settings that the groups were made with.
    for (change, key) in
        [("rollout.n=4", "rollout.n: 3 -> 4"), ("reward.overlong_penalty_factor=2.0", "overlong_penalty_factor")]
    {
        again();
        let said = world.trained(&[&resume, change]);
        let note = format!("{} carried groups are dropped", carried.len());
        assert!(said.contains(&note) && said.contains(key), "{change}: {said}");
    }
    // Another prompt for the same row.
    again();
    let said = world.trained(&[&resume, "data.system_prompt=read"]);
    assert!(said.contains(&format!("the carried group of row {} is dropped", carried[0])), "{said}");
    // The row itself, edited in place.
    again();
    let mut edited = rows();
    edited[carried[0]].answer = "77".into();
    world.write_rows(&edited);
    let said = world.trained(&[&resume]);
    assert!(said.contains(&format!("the carried group of row {} is dropped", carried[0])), "{said}");
    // Other data under the cursor: rows in another order, and fewer of them.
    for (rows, part) in [
        (rows().into_iter().rev().collect::<Vec<_>>(), "another problem or answer"),
        (rows()[..9].to_vec(), "an epoch had 14 rows and has 9"),
    ] {
        again();
        world.write_rows(&rows);
        let error = world.train(&[&resume]).0.expect_err(part).to_string();
        assert!(error.contains(part) && error.contains("trainer.resume=none"), "{error}");
    }
}

/// Regression: one damaged checkpoint stopped a run that had others.
#[test]
fn a_damaged_newest_checkpoint_gives_way_to_the_one_before() {
    let world = World::new();
    world.trained(&["stages.1.steps=2"]);
    let kept = world.path("kept");
    copy(&world.path("run"), &kept);
    let half = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let nan = |path: PathBuf| {
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
    };
    // Still a number, and another one.
    let flip = |path: PathBuf| {
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let damages: [(&str, &dyn Fn(PathBuf)); 12] = [
        ("hf/model.safetensors", &flip),
        ("optimizer.safetensors", &flip),
        ("hf/model.safetensors", &half),
        ("hf/model.safetensors", &nan),
        ("hf/model.safetensors", &|path| std::fs::remove_file(path).unwrap()),
        ("hf/config.json", &|path| std::fs::write(path, "").unwrap()),
        ("optimizer.safetensors", &half),
        ("optimizer.safetensors", &nan),
        ("optimizer.safetensors", &|path| std::fs::remove_file(path).unwrap()),
        ("trainer.json", &half),
        ("trainer.json", &|path| std::fs::write(path, "").unwrap()),
        ("trainer.json", &|path| std::fs::remove_file(path).unwrap()),
    ];
    for (index, (file, damage)) in damages.into_iter().enumerate() {
        std::fs::remove_dir_all(world.path("run")).unwrap();
        copy(&kept, &world.path("run"));
        damage(world.checkpoint(3).join(file));
        let explicit = format!("trainer.resume={}", world.checkpoint(3).display());
        let before = snapshot(&world.path("run"));
        world.train(&["stages.1.steps=2", &explicit]).0.expect_err("a damaged checkpoint that was named");
        assert!(snapshot(&world.path("run")) == before, "{index}: {file}");
        let said = world.trained(&["stages.1.steps=2"]);
        assert!(
            said.contains("warning: checkpoint") && said.contains("global_step_3 is damaged"),
            "{index} {file}: {said}"
        );
        assert!(said.contains("resumed at step 2"), "{index} {file}: {said}");
        let names = ["global_step_1", "global_step_2", "global_step_3", "superseded_0_global_step_3"];
        assert_eq!(folders(&world), names, "{index}: {file}");
        let same = |name: &str| {
            std::fs::read(world.checkpoint(3).join(name)).unwrap()
                == std::fs::read(kept.join("checkpoints/global_step_3").join(name)).unwrap()
        };
        assert!(same("hf/model.safetensors") && same("optimizer.safetensors"), "{index}: {file}: other numbers");
    }
    // Nothing left to go on from: no fresh start over the logs of a run.
    std::fs::remove_dir_all(world.path("run")).unwrap();
    copy(&kept, &world.path("run"));
    (1..4).for_each(|step| half(world.checkpoint(step).join("trainer.json")));
    let before = snapshot(&world.path("run"));
    let error = world.train(&["stages.1.steps=2"]).0.expect_err("only damaged checkpoints").to_string();
    assert!(error.contains("nor can any checkpoint before it"), "{error}");
    assert!(snapshot(&world.path("run")) == before);
}

/// Regression: one supervised row without a worked response, or with a control token in it, ended the run.
#[test]
fn bad_supervised_rows_are_set_aside() {
    let world = World::new();
    let mut all = rows();
    all[2].solution = None;
    all[5].solution = Some("  ".into());
    all[7].solution = Some("1<|im_end|>".into());
    all[8].solution = Some("1 ".repeat(40));
    all[9].solution = Some("1".repeat(40 * 512 + 1));
    world.write_rows(&all);
    let overrides = ["stages.0.steps=6", "stages.0.max_response_length=40", "data.shuffle=false", "stages.1.steps=1"];
    let (result, said) = world.train(&overrides);
    let summary = result.unwrap_or_else(|error| panic!("{error}\n{said}"));
    assert_eq!(summary.set_aside, 5, "{said}");
    for part in ["data.solution_key", "<|im_end|>", "max_response_length = 40", "bytes"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    let lines = read_metrics(&world.path("run/metrics.jsonl")).unwrap();
    assert_eq!(lines.len(), 7);
    // Rows that are no use to a supervised stage are good enough for RL.
    all.iter_mut().for_each(|row| row.solution = None);
    let world = World::new();
    world.write_rows(&all);
    let error = world.train(&[]).0.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("none of its 14 rows can be used"), "{error}");
}

/// Wherever a device fails, the run ends with an error that says so, and never with other numbers.
#[cfg(debug_assertions)]
#[test]
fn a_device_that_fails_ends_the_run() {
    use model_qwen2vl::ModelError;
    use model_qwen2vl::host::fault::failing_from;
    let settings = ["stages.1.steps=1", "actor.old_log_probs=recompute", "algorithm.disable_kl=false"];
    let mut failed = 0;
    for power in 0.. {
        let world = World::new();
        let nth = (1usize << power) - 1;
        let (result, said) = failing_from(nth, || world.train(&settings));
        match result {
            Err(error @ (TrainError::Device(_) | TrainError::Model(ModelError::Device(_)))) => {
                assert_eq!(error.exit_code(), 1);
                assert!(error.to_string().contains("the device failed: lost on purpose"), "{error}");
                failed += 1;
            }
            Err(other) => panic!("read {nth}: {other}\n{said}"),
            Ok(_) => break,
        }
    }
    println!("{failed} runs failed");
    assert!(failed > 5, "{failed}");
}

/// Rows of the embedding that the tokenizer has no token for are never drawn, nor are vision tokens.
#[test]
fn ids_without_a_token_are_never_sampled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/tied_gqa");
    let processor = Processor::from_folder(&folder).unwrap();
    let never = never_sampled(vec![290], &processor, 304);
    assert!((processor.vocab_size() as u32..304).all(|id| never.contains(&id)), "{never:?}");
    assert!(never.contains(&290) && never.contains(&processor.image_pad_id()));
    assert!(never.windows(2).all(|pair| pair[0] < pair[1]));
    // Everything else may come: the ends of a response above all.
    let end = processor.token_id("<|im_end|>").unwrap();
    assert!(!never.contains(&end) && never.len() < 20, "{never:?}");
    assert!((0..200).all(|id| !never.contains(&id)));
}
