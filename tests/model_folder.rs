//! A run, its checkpoint and the model folder inside: one model, asked the same by every program.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{Bench, json_row, stderr, succeeded, toy_rows, write_rows};

/// Everything that a model is asked with differs from the defaults: format prompt, system message, columns, pixels.
const ASKED: &str = r#"
[model]
path = "toy"
[data]
train_files = ["rows.jsonl"]
prompt_key = "question"
answer_key = "truth"
image_key = "pictures"
format_prompt = "words.jinja"
system_prompt = "sum largest"
max_prompt_length = 96
max_response_length = 4
rollout_batch_size = 2
min_pixels = 0
max_pixels = 2500
[rollout]
n = 2
[trainer]
output_dir = "run"
[actor.optim]
lr = 2e-3
[[stages]]
stage = "sft"
name = "warm"
steps = 60
batch_size = 3
[[stages]]
stage = "rl"
name = "rl"
steps = 1
"#;

/// A run that has learned three rows, with their picture files.
fn trained() -> Bench {
    let bench = Bench::new(ASKED);
    std::fs::write(bench.path("words.jinja"), "read: {{ content }} sum?").unwrap();
    let samples = toy_rows("toy:sum?rows=2&cols=2&size=3&split=test");
    let rows: Vec<Value> = samples
        .iter()
        .map(|sample| {
            let row = json_row(sample);
            json!({"id": row["id"], "question": row["problem"], "truth": row["answer"], "solution": row["solution"], "pictures": row["images"]})
        })
        .collect();
    write_rows(&bench.path("rows.jsonl"), &rows);
    for (k, sample) in samples.iter().enumerate() {
        std::fs::write(bench.path(&format!("{k}.png")), sample.images[0].load().unwrap()).unwrap();
    }
    succeeded(&bench.train(support::NOTHING));
    bench
}

fn run(bench: &Bench, program: &str, args: &[&str]) -> Output {
    let output = Command::new(program)
        .current_dir(bench.path(""))
        .args(args)
        .args(["--backend", "flex", "--max-new-tokens", "8"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    succeeded(&output);
    output
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The texts that `eval` gets.
fn evaluated(bench: &Bench, model: &str, out: &str, more: &[&str]) -> (Vec<Value>, Value) {
    let args = [&["--model", model, "--benchmark", "custom:rows=rows.jsonl", "--out", out][..], more].concat();
    run(bench, env!("CARGO_BIN_EXE_eval"), &args);
    let settings = std::fs::read_to_string(bench.path(&format!("{out}/rows.settings.json"))).unwrap();
    let records = lines(&bench.path(&format!("{out}/rows.jsonl")));
    (records.into_iter().map(|r| r["response"].clone()).collect(), serde_json::from_str(&settings).unwrap())
}

/// The records of `analyze`: texts, and numbers that every token of the prompt changes.
fn analyzed(bench: &Bench, model: &str, out: &str, more: &[&str]) -> Vec<Value> {
    let args = [&["--model", model, "--data", "rows.jsonl", "--out", out][..], more].concat();
    run(bench, env!("CARGO_BIN_EXE_analyze"), &args);
    lines(&bench.path(&format!("{out}/responses.jsonl")))
}

/// The text that `generate` writes for row `k`, and the ids of its prompt.
fn generated(bench: &Bench, model: &str, k: usize, more: &[&str]) -> (String, Vec<u8>) {
    let question = lines(&bench.path("rows.jsonl"))[k]["question"].as_str().unwrap().to_owned();
    let (picture, dump) = (format!("{k}.png"), bench.path("dump.safetensors"));
    let named = ["--model", model, "--prompt", &question, "--image", &picture, "--dump", dump.to_str().unwrap()];
    let output = run(bench, env!("CARGO_BIN_EXE_generate"), &[&named[..], more].concat());
    let bytes = std::fs::read(&dump).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("input_ids").unwrap().data().to_vec();
    (String::from_utf8(output.stdout).unwrap(), ids)
}

/// Regression: `analyze` asked a run's model with the default prompt, whichever of the three paths named it.
#[test]
fn a_run_its_checkpoint_and_its_model_folder_are_one_model() {
    let bench = trained();
    let paths = ["run", "run/checkpoints/global_step_61", "run/checkpoints/global_step_61/hf"];
    let mut asked = Vec::new();
    for (k, path) in paths.iter().enumerate() {
        let (texts, mut settings) = evaluated(&bench, path, &format!("eval_{k}"), &[]);
        assert!(texts.iter().any(|text| *text != texts[0]), "the model says one thing only: {texts:?}");
        assert_eq!(settings["format_prompt_text"], "read: {problem} sum?");
        assert_eq!(settings["system_prompt"], "sum largest");
        assert_eq!((&settings["prompt_key"], &settings["run_max_pixels"]), (&json!("question"), &json!(2500)));
        settings["model"] = Value::Null;
        let records = analyzed(&bench, path, &format!("analyze_{k}"), &[]);
        let of_analyze: Vec<Value> = records.iter().map(|record| record["response"].clone()).collect();
        assert_eq!(of_analyze, texts, "analyze and eval, {path}");
        let responses: Vec<_> = (0..3).map(|row| generated(&bench, path, row, &[])).collect();
        for (row, (text, _)) in responses.iter().enumerate() {
            assert_eq!(text.strip_suffix('\n'), texts[row].as_str(), "generate and eval, {path}, row {row}");
        }
        let inspected = Command::new(env!("CARGO_BIN_EXE_data"))
            .current_dir(bench.path(""))
            .args(["inspect", "rows.jsonl", "--model", path])
            .output()
            .unwrap();
        succeeded(&inspected);
        let tokens = responses.iter().map(|(_, ids)| ids.len() / 8).max().unwrap();
        let said = String::from_utf8(inspected.stdout.clone()).unwrap();
        assert!(said.contains(&format!("pictures included: min {tokens}, ")), "{tokens} tokens: {said}");
        asked.push((texts, settings, records, responses, inspected.stdout));
    }
    assert!(asked[0] == asked[1] && asked[0] == asked[2], "the three paths are asked differently");
    // What a user says comes before the run, and the comparisons above can fail.
    let (_, records, responses) = (&asked[0].0, &asked[0].2, &asked[0].3);
    assert_ne!(analyzed(&bench, "run", "other", &["data.format_prompt=none"])[0]["prompt"], records[0]["prompt"]);
    assert_ne!(generated(&bench, "run", 0, &["--format-prompt", "none"]).1, responses[0].1);
    let (_, settings) = evaluated(&bench, "run", "eval_none", &["--format-prompt", "none", "--system-prompt", "sum"]);
    assert_eq!((&settings["format_prompt_text"], &settings["system_prompt"]), (&json!("{problem}"), &json!("sum")));
}

/// What a run has learned in adapters is a model to every program, by each of its paths, and not its base.
#[test]
fn an_adapter_is_one_model() {
    let bench = trained();
    let output = bench.train(&["model.path=run", "model.lora.enable=true", "trainer.output_dir=adapted"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let logits = |path: &str| {
        generated(&bench, path, 0, &[]);
        let bytes = std::fs::read(bench.path("dump.safetensors")).unwrap();
        safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("logits").unwrap().data().to_vec()
    };
    let paths = ["adapted", "adapted/checkpoints/global_step_61", "adapted/checkpoints/global_step_61/hf"];
    let asked = paths.map(|path| {
        let out = |program: &str| format!("{program}_{}", path.replace('/', "_"));
        let (texts, _) = evaluated(&bench, path, &out("eval"), &[]);
        let of_analyze: Vec<Value> =
            analyzed(&bench, path, &out("analyze"), &[]).iter().map(|record| record["response"].clone()).collect();
        assert_eq!(of_analyze, texts, "analyze and eval, {path}");
        let (text, ids) = generated(&bench, path, 0, &[]);
        assert_eq!(text.strip_suffix('\n'), texts[0].as_str(), "generate and eval, {path}");
        (texts, ids, logits(path))
    });
    assert!(asked[0] == asked[1] && asked[0] == asked[2], "the three paths are asked differently");
    assert_ne!(asked[0].2, logits("run"), "the adapter is left out");
    // Without its base it is none, and says which folder it wants.
    std::fs::rename(bench.path("run"), bench.path("elsewhere")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_generate"))
        .current_dir(bench.path(""))
        .args(["--model", "adapted", "--prompt", "sum?", "--backend", "flex"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("base_model_name_or_path"), "{}", stderr(&output));
}

/// A run can start where another one ended, whichever path names it.
#[test]
fn train_starts_from_a_run() {
    let bench = trained();
    let from = |path: &str, out: &str| {
        let path = format!("model.path={path}");
        let output = bench.train(&[path.as_str(), &format!("trainer.output_dir={out}")]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        support::weights(&bench.path(out))
    };
    let (a, b) = (from("run", "a"), from("run/checkpoints/global_step_61/hf", "b"));
    assert!(a == b, "the weights differ");
}

/// A run that has no checkpoint names itself.
#[test]
fn a_run_without_a_checkpoint() {
    let bench = Bench::new("");
    std::fs::create_dir_all(bench.path("run/checkpoints")).unwrap();
    for (program, args) in [
        (env!("CARGO_BIN_EXE_eval"), &["--benchmark", "sums=toy:sum", "--out", "o"][..]),
        (env!("CARGO_BIN_EXE_generate"), &["--prompt", "sum?"]),
        (env!("CARGO_BIN_EXE_analyze"), &["--data", "toy:sum", "--out", "o"]),
    ] {
        let output =
            Command::new(program).current_dir(bench.path("")).args(["--model", "run"]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{program}");
        assert!(stderr(&output).contains("run: the run has no checkpoint yet"), "{program}: {}", stderr(&output));
    }
}
