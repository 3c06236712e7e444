//! Runs that train adapters: the same on any number of ranks, exact after a resume, and what they leave behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use comm::Ranks;
use launch::{ModelFolder, toy_config, write_toy_folder};
use model_qwen2vl::QwenVl;
use model_qwen2vl::lora::AdapterFolder;
use policy::Scoring;
use rl::TrainError;
use rl::config::{Source, resolve};
use rl::progress::Progress;
use rl::run_folder::read_metrics;
use rl::trainer::Summary;
use serde_json::{Map, Value};

mod support;

use support::{StopAt, near};

type B = burn_flex::Flex<f32, i32>;

/// Batches that no number of ranks divides, groups that do not fit into a pass, a KL term and dropout.
const CONFIG: &str = r#"
[model.lora]
enable = true
rank = 4
alpha = 8
dropout = 0.1
[data]
train_files = ["toy:read?rows=1&cols=2&size=14"]
val_files = ["toy:read?rows=1&cols=2&size=3&seed=5"]
val_batch_size = 2
format_prompt = "none"
max_prompt_length = 64
max_response_length = 12
rollout_batch_size = 10
min_pixels = 0
max_pixels = 0
[rollout]
n = 4
[algorithm]
name = "vgpo"
disable_kl = false
use_kl_loss = true
kl_coef = 0.05
online_filtering = false
filter_zero_variance = false
[actor]
global_batch_size = 5
micro_batch_tokens = 96
[actor.optim]
lr = 3e-3
[reward]
reward_type = "dapo"
overlong_buffer_length = 8
[trainer]
save_freq = 1
save_limit = 0
val_freq = 2
[[stages]]
stage = "sft"
name = "warm"
steps = 2
batch_size = 5
lr = 3e-3
[[stages]]
stage = "rl"
steps = 2
"#;

/// A folder of the toy model with random weights.
fn base(dir: &Path) -> PathBuf {
    let folder = dir.join("base");
    std::fs::create_dir_all(&folder).unwrap();
    write_toy_folder(&folder).unwrap();
    QwenVl::<B>::random(toy_config().unwrap(), 3, DType::F32, &Default::default()).save(&folder, None).unwrap();
    folder
}

fn train_until(
    ranks: Ranks,
    [base, dir]: [&Path; 2],
    overrides: &[&str],
    stop: &'static str,
) -> Result<Summary, TrainError> {
    let mut all = vec![format!("trainer.output_dir={}", dir.display()), format!("model.path={}", base.display())];
    all.extend(overrides.iter().map(|s| s.to_string()));
    let config = resolve(&[Source::new("test", CONFIG)], &all)?;
    let flag = Arc::new(AtomicBool::new(false));
    let progress = Progress::to_writer(StopAt(stop, flag.clone()));
    launch::train_on::<B>(ranks, config, DType::F32, &Default::default(), progress, flag)
}

fn train(folders: [&Path; 2], overrides: &[&str]) -> Result<Summary, TrainError> {
    train_until(Ranks::solo(), folders, overrides, "no line says this")
}

fn metrics(dir: &Path) -> Vec<Map<String, Value>> {
    read_metrics(&dir.join("metrics.jsonl")).unwrap()
}

/// All tensors of a file, by name.
fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

fn checkpoint(dir: &Path, step: usize) -> PathBuf {
    dir.join(format!("checkpoints/global_step_{step}"))
}

/// Copies of the model, decoders that are shared out, state and gradients in parts; what is dropped is the same, too.
#[test]
fn any_number_of_ranks_trains_alike() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let solo = dir.path().join("1");
    train([&base, &solo], &[]).unwrap();
    let expected = metrics(&solo);
    assert_eq!(expected.len(), 4);
    assert!(expected[3]["actor/kl"].as_f64().is_some_and(|kl| kl > 0.0), "{:?}", expected[3]);
    for (size, tensor, zero) in [(2, 1, 1), (3, 1, 2), (2, 2, 1), (4, 2, 2), (4, 4, 1)] {
        let path = dir.path().join(format!("{size}_{tensor}_{zero}"));
        let settings = [format!("parallel.tensor={tensor}"), format!("parallel.zero={zero}")];
        let all: Vec<&str> = settings.iter().map(|s| &s[..]).collect();
        comm::threads::run(size, |ranks| train_until(ranks, [&base, &path], &all, "no line says this").unwrap());
        for (step, (a, b)) in expected.iter().zip(&metrics(&path)).enumerate() {
            near(
                a,
                b,
                if step < 3 { 3e-6 } else { 3e-5 },
                &format!("{size} by {tensor}, ZeRO-{zero}, step {}", step + 1),
            );
        }
        let names = |dir: &Path| {
            tensors(&checkpoint(dir, 4).join("hf/adapter_model.safetensors")).into_keys().collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&path), names(&solo));
    }
}

/// What is stopped in the middle of either stage goes on to the same bits, whatever a checkpoint has of the model.
#[test]
fn a_resumed_run_is_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let before = std::fs::read(base.join("model.safetensors")).unwrap();
    let whole = dir.path().join("whole");
    train([&base, &whole], &[]).unwrap();
    for (save, adapter) in [("adapter", "hf"), ("merged", "adapter"), ("both", "adapter")] {
        let path = dir.path().join(save);
        let save = format!("trainer.save={save}");
        for stop in ["warm 1/2", "rl 1/2"] {
            let stopped = train_until(Ranks::solo(), [&base, &path], &[&save], stop).unwrap_err();
            assert!(stopped.to_string().starts_with("interrupted"), "{stopped}");
        }
        train([&base, &path], &[&save]).unwrap();
        for (own, others) in [
            (format!("{adapter}/adapter_model.safetensors"), "hf/adapter_model.safetensors"),
            ("optimizer.safetensors".into(), "optimizer.safetensors"),
        ] {
            assert_eq!(
                tensors(&checkpoint(&path, 4).join(own)),
                tensors(&checkpoint(&whole, 4).join(others)),
                "{save}"
            );
        }
        for (a, b) in metrics(&whole).iter().zip(&metrics(&path)) {
            near(a, b, 0.0, &save);
        }
        // A whole folder of PEFT, or what a resume needs.
        assert_eq!(checkpoint(&path, 4).join("adapter/tokenizer.json").is_file(), save.ends_with("both"));
        assert_eq!(checkpoint(&path, 4).join("hf/model.safetensors").is_file(), adapter == "adapter");
    }
    // The optimizer has state of adapters alone, and nobody wrote to the base.
    let state = tensors(&checkpoint(&whole, 4).join("optimizer.safetensors"));
    let layers = toy_config().unwrap().text.num_hidden_layers;
    assert!(state.len() == layers * 7 * 2 * 3 && state.keys().all(|name| name.contains(".lora_")), "{}", state.len());
    assert_eq!(std::fs::read(base.join("model.safetensors")).unwrap(), before);
}

/// A run folder, its checkpoint and its adapter are one model to whoever opens them, and merged weights are that model.
#[test]
fn what_was_trained_is_opened_by_any_of_its_paths() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let run = dir.path().join("run");
    train([&base, &run], &["trainer.save=both"]).unwrap();
    let said = |path: &Path| -> Vec<f32> {
        let folder = ModelFolder::open(path).unwrap();
        let processor = folder.processor(Default::default()).unwrap();
        assert!(!folder.end_tokens(&processor).unwrap().is_empty());
        let model = folder.load::<B>(DType::F32, &Default::default()).unwrap();
        let prompt = model.prompt((5..25).collect(), vec![], vec![]).unwrap();
        let batch = Scoring::pack(&model, &[(&prompt, vec![])]);
        model.logits(model.hidden(&batch, None)).into_data().to_vec().unwrap()
    };
    let gap = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let (merged, adapted) = (said(&run), said(&checkpoint(&run, 4).join("adapter")));
    assert!(gap(&merged, &adapted) < 1e-5 && gap(&adapted, &said(&base)) > 1e-3);
    // Another run from the adapter, by either key, adapting or not, begins where this one ended.
    let adapter = checkpoint(&run, 4).join("adapter");
    let first_loss = |path: &Path, name: &str, overrides: &[&str]| {
        let next = dir.path().join(name);
        let plain = ["model.lora.dropout=0", "algorithm.disable_kl=true", "algorithm.use_kl_loss=false"];
        let stopped = train_until(Ranks::solo(), [path, &next], &[&plain, overrides].concat(), "warm 1/2").unwrap_err();
        assert!(stopped.to_string().starts_with("interrupted"), "{stopped}");
        (metrics(&next)[0]["sft/loss"].as_f64().unwrap(), checkpoint(&next, 1).join("hf"))
    };
    let full = ["model.lora.enable=false", "model.lora.rank=16", "model.lora.alpha=32"];
    let named = format!("model.adapter={}", adapter.display());
    let (from_base, _) = first_loss(&base, "anew", &[]);
    let (expected, hf) = first_loss(&base, "named", &[&named]);
    assert!((from_base - expected).abs() > 1e-2 && AdapterFolder::is_one(&hf), "{from_base} {expected}");
    for (path, name, overrides) in [
        (&adapter, "path", vec![]),
        (&adapter, "path_full", full.to_vec()),
        (&base, "named_full", [&full[..], &[&named]].concat()),
    ] {
        let (loss, hf) = first_loss(path, name, &overrides);
        assert!((loss - expected).abs() < 1e-4, "{name}: {loss} {expected}");
        assert_eq!(AdapterFolder::is_one(&hf), overrides.is_empty());
    }
}

/// One clear error each.
#[test]
fn checkpoints_of_another_kind_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path());
    let (adapters, weights) = (dir.path().join("adapters"), dir.path().join("weights"));
    let full = ["model.lora.enable=false", "model.lora.rank=16", "model.lora.alpha=32", "model.lora.dropout=0"];
    let stop =
        |dir: &Path, overrides: &[&str]| train_until(Ranks::solo(), [&base, dir], overrides, "warm 1/2").unwrap_err();
    assert!(stop(&adapters, &[]).to_string().starts_with("interrupted"));
    assert!(stop(&weights, &full).to_string().starts_with("interrupted"));
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let resume = |from: &Path| format!("trainer.resume={}", checkpoint(from, 1).display());
    let (of_adapters, of_weights) = (resume(&adapters), resume(&weights));
    for (folder, overrides, parts) in [
        (&adapters, &full[..], &["has an adapter (LoRA)", "model.lora.enable = true", "model.path="][..]),
        (&weights, &[], &["has whole weights", "model.lora.enable"]),
        (&other, &[&of_adapters, full[0], full[1], full[2], full[3]], &["has an adapter (LoRA)"]),
        (&other, &[&of_weights], &["has whole weights"]),
        (&adapters, &["model.lora.rank=2"], &["model.lora.rank is 2, the adapter has 4"]),
        (
            &adapters,
            &["model.lora.target_modules=[q_proj]"],
            &["model.lora.target_modules is [\"q_proj\"], the adapter has"],
        ),
        (&other, &["model.lora.target_modules=[q_pro]"], &["model.lora.target_modules", "did you mean \"q_proj\""]),
        (
            &other,
            &["model.freeze_vision_tower=true", "model.lora.exclude_modules=", "model.lora.dropout=0"],
            &["model.freeze_vision_tower"],
        ),
    ] {
        let error = train([&base, folder], overrides).unwrap_err();
        let said = error.to_string();
        assert!(parts.iter().all(|part| said.contains(part)) && error.exit_code() == 2, "{overrides:?}: {said}");
    }
    // A damaged adapter is no reason to stop where there is an earlier one.
    let damaged = dir.path().join("damaged");
    train([&base, &damaged], &[]).unwrap();
    std::fs::write(checkpoint(&damaged, 4).join("hf/adapter_config.json"), "{").unwrap();
    let before = tensors(&checkpoint(&damaged, 3).join("optimizer.safetensors"));
    train([&base, &damaged], &[]).unwrap();
    assert_ne!(tensors(&checkpoint(&damaged, 4).join("optimizer.safetensors")), before);
    // The weights below have changed since.
    let moved = dir.path().join("moved");
    std::fs::create_dir_all(&moved).unwrap();
    write_toy_folder(&moved).unwrap();
    QwenVl::<B>::random(toy_config().unwrap(), 4, DType::F32, &Default::default()).save(&moved, None).unwrap();
    let said = train([&moved, &adapters], &[]).unwrap_err().to_string();
    assert!(said.contains("trained on other weights") && said.contains("does not fit the model in"), "{said}");
}
