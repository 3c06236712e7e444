//! What is kept of the tokens of some groups: it is what was trained on, and nothing that is trained depends on it.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use burn::tensor::DType;
use burn_flex::Flex;
use launch::train;
use rl::config::{Source, resolve};
use rl::image_cache::ImageCache;
use rl::learn::{GroupRef, Heat, heat};
use rl::policy::Scoring;
use rl::progress::Progress;
use serde_json::Value;

use crate::common::{difference, mixed_prompts, model};

type B = Flex<f32, i32>;

const RUN: &str = r#"
[model]
path = "toy"
[data]
train_files = ["toy:read?rows=1&cols=2&size=6"]
val_files = ["toy:read?rows=1&cols=1&split=test&size=3"]
format_prompt = "none"
max_prompt_length = 64
max_response_length = 10
rollout_batch_size = 4
min_pixels = 0
max_pixels = 0
[rollout]
n = 3
[algorithm]
name = "vgpo"
online_filtering = false
[actor.optim]
lr = 2e-3
[reward]
reward_type = "dapo"
overlong_buffer_length = 8
[trainer]
max_steps = 5
log_heat_freq = 2
"#;

fn run(dir: &Path, overrides: &[&str]) {
    let mut all = vec![format!("trainer.output_dir={}", dir.display())];
    all.extend(overrides.iter().map(|s| s.to_string()));
    let config = resolve(&[Source::new("test", RUN)], &all).unwrap();
    let progress = Progress::to_writer(std::io::sink());
    train::<B>(config, DType::F32, &Default::default(), progress, Default::default()).unwrap();
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<Option<f64>> {
    value.as_array().unwrap().iter().map(Value::as_f64).collect()
}

/// The weights of the last checkpoint and what was measured, but for the clock's part.
fn trained(dir: &Path) -> (Vec<u8>, Vec<Value>) {
    let weights = std::fs::read(dir.join("checkpoints/global_step_5/hf/model.safetensors")).unwrap();
    let without_clock = |mut line: Value| {
        line.as_object_mut().unwrap().retain(|key, _| !key.starts_with("time/") && !key.starts_with("perf/"));
        line
    };
    (weights, lines(&dir.join("metrics.jsonl")).into_iter().map(without_clock).collect())
}

#[test]
fn tokens_are_those_that_were_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let (with, without) = (&dir.path().join("with"), &dir.path().join("without"));
    run(with, &[]);
    run(without, &["trainer.log_tokens=0"]);
    assert!(trained(with) == trained(without), "what is kept of tokens changes nothing");
    assert!(!without.join("tokens").exists() && !without.join("pictures").exists());

    let mut named = BTreeSet::new();
    for step in 1..=5 {
        let rollouts = lines(&with.join(format!("rollouts/step_{step}.jsonl")));
        let tokens = lines(&with.join(format!("tokens/step_{step}.jsonl")));
        assert_eq!(tokens.len(), 6, "two groups of three");
        for (index, line) in tokens.iter().enumerate() {
            let count = line["ids"].as_array().unwrap().len();
            let rollout = &rollouts[line["line"].as_u64().unwrap() as usize];
            assert_eq!((line["line"].as_u64(), line["group"].as_u64()), (Some(index as u64), Some(index as u64 / 3)));
            let pieces: Vec<&str> = line["pieces"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
            assert_eq!((pieces.concat().as_str(), pieces.len()), (rollout["response"].as_str().unwrap(), count));
            assert_eq!(rollout["tokens"].as_u64(), Some(count as u64));
            assert!(
                line["prompt"].as_str().unwrap().contains("<|vision_start|><image><|vision_end|>read?"),
                "{}",
                line["prompt"]
            );
            let values = line["values"].as_object().unwrap();
            for (name, values) in values {
                assert_eq!(values.as_array().unwrap().len(), count, "{name}");
            }
            let advantages = numbers(&values["advantage"]);
            let mean = advantages.iter().flatten().sum::<f64>() / count as f64;
            assert!((mean - rollout["advantage_mean"].as_f64().unwrap()).abs() < 1e-5);
            assert!(numbers(&values["log_prob"]).iter().flatten().all(|p| *p <= 0.0));
            assert!(numbers(&values["visual_focus"]).iter().flatten().all(|f| (0.0..=1.0).contains(f)));
            named.extend(line["pictures"].as_array().unwrap().iter().map(|p| p.as_str().unwrap().to_string()));
            // Each second step, and the first.
            assert_eq!(line.get("heat").is_some(), step % 2 == 1, "step {step}");
            if let Some(heat) = line.get("heat") {
                let [rows, columns] = [0, 1].map(|side| line["grids"][0][side].as_u64().unwrap() as usize);
                let bytes = BASE64_STANDARD.decode(heat["data"].as_str().unwrap()).unwrap();
                assert_eq!(bytes.len(), count * rows * columns);
                assert!(bytes.contains(&0) && bytes.contains(&255));
            }
        }
    }
    // Advantages of one response differ by the factor.
    let line = lines(&with.join("tokens/step_1.jsonl"))
        .into_iter()
        .find(|line| line["values"].get("factor").is_some_and(|f| numbers(f).len() > 1 && numbers(f)[0].is_some()))
        .expect("VGPO has factors");
    let (factors, advantages) = (numbers(&line["values"]["factor"]), numbers(&line["values"]["advantage"]));
    let plain: Vec<f64> = std::iter::zip(&advantages, &factors).map(|(a, f)| a.unwrap() / f.unwrap()).collect();
    assert!(plain.iter().all(|p| (p - plain[0]).abs() < 1e-5), "{plain:?}");

    let files: BTreeSet<String> = std::fs::read_dir(with.join("pictures"))
        .unwrap()
        .map(|entry| format!("pictures/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    assert_eq!(files, named, "each picture once, and none that nobody names");
    assert!(files.len() <= 6, "the data has six rows");
    let picture = image::open(with.join(files.first().unwrap())).unwrap().into_rgb8();
    assert!(picture.width() > picture.height(), "two digits side by side: {:?}", picture.dimensions());

    let record = run::record::read(with).unwrap();
    assert_eq!((record.state, record.steps, record.starts), (run::record::RunStatus::Finished, 5, 1));
    assert_eq!((record.algorithm.as_str(), record.dtype.as_str(), record.ranks), ("vgpo", "f32", 1));
    let table = std::fs::read_to_string(with.join("metrics.csv")).unwrap();
    assert_eq!(table.lines().count(), 6, "a header and a line a step");
}

/// In one pass, in parts of a group, and as the definition says.
#[test]
fn heat_is_the_cosine_of_hidden_states() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    let responses: Vec<Vec<u32>> = (0..3u32).map(|r| (0..4 + 3 * r).map(|t| (29 * r + 7 * t) % 50).collect()).collect();
    for prompt in &prompts {
        let group = GroupRef { prompt, responses: responses.iter().map(|r| &r[..]).collect() };
        let images = ImageCache::default();
        let [whole, parts] = [10_000, 30].map(|budget| heat(&model, &images, &group, budget).unwrap());
        if prompt.image_grid_thw.is_empty() {
            assert!(whole.is_none() && parts.is_none());
            continue;
        }
        let (whole, parts) = (whole.unwrap(), parts.unwrap());
        for (index, response) in responses.iter().enumerate() {
            let batch = model.pack(&[(prompt, vec![&response[..]])]);
            let hidden = model.hidden(&batch, Scoring::<B>::encode_images(&model, &[prompt]));
            let width = hidden.dims()[1];
            let states: Vec<f32> = hidden.into_data().to_vec().unwrap();
            let state = |row: usize| &states[row * width..][..width];
            let dot = |a: &[f32], b: &[f32]| std::iter::zip(a, b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let cosine = |a: usize, b: usize| {
                dot(state(a), state(b)) / (dot(state(a), state(a)) * dot(state(b), state(b))).sqrt()
            };
            let expected: Vec<f32> = batch.responses[0]
                .rows
                .clone()
                .flat_map(|token| batch.image_rows.iter().map(move |image| (token, *image)))
                .map(|(token, image)| cosine(token, image) as f32)
                .collect();
            assert_eq!(expected.len(), response.len() * batch.image_rows.len());
            for Heat { image_tokens, cosines, focus } in [&whole[index], &parts[index]] {
                assert_eq!((*image_tokens, focus.len()), (batch.image_rows.len(), response.len()));
                let far = difference(cosines, &expected);
                assert!(far < 1e-4, "response {index}: {far}");
            }
        }
    }
}
