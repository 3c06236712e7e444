//! Bad input ends a run with one clear line and exit code 2; a bad row is set aside, named and counted.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use support::{
    Bench, SMALLEST, checkpoints, json_row, metrics, skipped, stderr, succeeded, toy_rows, wait, write_rows,
};

/// Runs, expects exit code 2 and exactly one message; checks that it contains all of `words`. Returns the message.
fn refused(bench: &Bench, overrides: &[&str], words: &[&str]) -> String {
    let output = bench.train(overrides);
    let said = stderr(&output);
    println!("train {}\n  {}", overrides.join(" "), said.trim_end().replace('\n', "\n  "));
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "one message: {said}");
    let message = said.split_once("error: ").map_or("", |(_, message)| message);
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    message.trim_end().to_string()
}

/// As [`refused`], and the message is one line.
fn refused_in_a_line(bench: &Bench, overrides: &[&str], words: &[&str]) {
    let message = refused(bench, overrides, words);
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn configuration() {
    let bench = Bench::new(SMALLEST);
    refused_in_a_line(&bench, &["algorithm.betta=0.2"], &["algorithm.betta", "did you mean `algorithm.vgpo.beta`"]);
    refused_in_a_line(&bench, &["rollout.n=many"], &["rollout.n", "integer", "many"]);
    refused(&bench, &["rollout.n=0"], &["rollout.n"]);
    std::fs::write(bench.path("typo.toml"), "[algoritm]\nbeta = 0.2\n").unwrap();
    refused_in_a_line(&bench, &["--config", "typo.toml"], &["typo.toml", "algoritm", "did you mean `algorithm"]);
    std::fs::write(bench.path("type.toml"), "[actor]\nglobal_batch_size = \"all\"\n").unwrap();
    refused_in_a_line(&bench, &["--config", "type.toml"], &["type.toml", "actor.global_batch_size"]);
    std::fs::write(bench.path("syntax.toml"), "[actor\n").unwrap();
    refused(&bench, &["--config", "syntax.toml"], &["syntax.toml"]);
    refused_in_a_line(&bench, &["--config", "nowhere.toml"], &["nowhere.toml", "No such file"]);
    assert!(!bench.path("run").exists(), "nothing is written for a run that cannot start");
    refused_in_a_line(&bench, &["--resume", "nowhere"], &["nowhere", "checkpoint"]);
    refused_in_a_line(&bench, &["trainer.output_dir=config.toml"], &["config.toml"]);
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

/// A copy of the model folder `tied_gqa`.
fn model(bench: &Bench, name: &str) -> PathBuf {
    let dir = bench.path(name);
    std::fs::create_dir(&dir).unwrap();
    for entry in std::fs::read_dir(fixture("tied_gqa")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    dir
}

fn edit_text(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} is not in {}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Rewrites the weights (f32) of a folder.
fn edit_weights(dir: &Path, edit: impl FnOnce(&mut Tensors)) {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, view)| (name.to_string(), (view.shape().to_vec(), view.data().to_vec())))
        .collect();
    edit(&mut tensors);
    let views: Vec<(&String, TensorView)> = tensors
        .iter()
        .map(|(name, (shape, data))| (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap()))
        .collect();
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn model_folder() {
    let bench = Bench::new(SMALLEST);
    refused_in_a_line(&bench, &["model.path=nowhere"], &["nowhere", "no such model folder", "config.json"]);

    let dir = model(&bench, "no_weights");
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    refused_in_a_line(&bench, &["model.path=no_weights"], &["no_weights", "neither model.safetensors nor"]);

    let path = model(&bench, "truncated").join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    refused_in_a_line(&bench, &["model.path=truncated"], &["truncated/model.safetensors", "download or copy it again"]);
    std::fs::write(&path, &bytes[..4]).unwrap();
    refused_in_a_line(&bench, &["model.path=truncated"], &["truncated/model.safetensors", "download or copy it again"]);

    let dir = model(&bench, "broken_json");
    std::fs::write(dir.join("config.json"), "{").unwrap();
    refused_in_a_line(&bench, &["model.path=broken_json"], &["broken_json/config.json", "not valid JSON"]);

    let dir = model(&bench, "no_tokenizer");
    std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
    refused_in_a_line(&bench, &["model.path=no_tokenizer"], &["no_tokenizer", "tokenizer.json"]);

    let dir = model(&bench, "other_tokenizer");
    edit_text(&dir.join("tokenizer.json"), "<|image_pad|>", "<|picture|>");
    refused_in_a_line(&bench, &["model.path=other_tokenizer"], &["other_tokenizer", "<|image_pad|>"]);

    // Special tokens that config.json places elsewhere: the folders of two models mixed up.
    let dir = model(&bench, "other_ids");
    let config: Value = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
    let id = config["image_token_id"].as_u64().unwrap();
    edit_text(&dir.join("config.json"), &format!("\"image_token_id\": {id}"), "\"image_token_id\": 3");
    refused_in_a_line(&bench, &["model.path=other_ids"], &["other_ids", "image_token_id"]);
}

#[test]
fn weights_that_do_not_fit_are_listed_together() {
    let bench = Bench::new(SMALLEST);
    let dir = model(&bench, "contradiction");
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let nested = config.get("text_config").is_some_and(|t| t.get("intermediate_size").is_some());
    let text = if nested { &mut config["text_config"] } else { &mut config };
    text["intermediate_size"] = json!(200);
    std::fs::write(&path, config.to_string()).unwrap();
    let message = refused(
        &bench,
        &["model.path=contradiction"],
        &[
            "contradiction",
            "do not fit config.json",
            "mis-shaped model.layers.0.mlp.gate_proj.weight",
            "config.json needs [200, ",
        ],
    );
    assert!(message.lines().filter(|l| l.contains("mis-shaped")).count() >= 6, "every tensor has a line: {message}");

    let dir = model(&bench, "mixed");
    edit_weights(&dir, |tensors| {
        let name = tensors.keys().find(|n| n.ends_with("layers.0.self_attn.q_proj.weight")).unwrap().clone();
        let moved = tensors.remove(&name).unwrap();
        tensors.insert("model.layers.0.self_attn.q_projection.weight".into(), moved);
        let norm = tensors.keys().find(|n| n.ends_with("layers.1.input_layernorm.weight")).unwrap().clone();
        tensors.get_mut(&norm).unwrap().1[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let message = refused(
        &bench,
        &["model.path=mixed"],
        &[
            "missing    model.layers.0.self_attn.q_proj.weight",
            "extra      model.layers.0.self_attn.q_projection.weight",
            "not finite model.layers.1.input_layernorm.weight: NaN at element 0",
        ],
    );
    assert_eq!(message.lines().count(), 4, "a heading and three tensors: {message}");
}

#[test]
fn data_files() {
    let bench = Bench::new(SMALLEST);
    refused_in_a_line(&bench, &["data.train_files=nowhere.parquet"], &["nowhere.parquet", "no such file"]);
    refused_in_a_line(&bench, &["data.val_files=[nowhere.parquet]"], &["nowhere.parquet", "no such file"]);
    refused_in_a_line(&bench, &["data.train_files=config.toml"], &["config.toml", "unknown file type", ".parquet"]);
    refused_in_a_line(&bench, &["data.train_files=toy:reed"], &["reed", "sum"]);
    refused(&bench, &["data.train_files=[]"], &["data.train_files"]);

    let mut writer = data::write::SampleWriter::create(
        &bench.path("whole.parquet"),
        &data::Keys::default(),
        data::write::JsonImages::Base64,
    )
    .unwrap();
    let rows = toy_rows("toy:read?rows=1&cols=1&size=4");
    rows.iter().for_each(|row| writer.write(row).unwrap());
    writer.finish().unwrap();
    let bytes = std::fs::read(bench.path("whole.parquet")).unwrap();
    for (name, size) in [("half.parquet", bytes.len() / 2), ("stub.parquet", 3), ("empty.parquet", 0)] {
        std::fs::write(bench.path(name), &bytes[..size]).unwrap();
        refused_in_a_line(&bench, &[&format!("data.train_files={name}")], &[name]);
    }
    write_rows(&bench.path("no_rows.jsonl"), &[]);
    refused_in_a_line(&bench, &["data.train_files=no_rows.jsonl"], &["no_rows.jsonl", "no rows"]);
    write_rows(&bench.path("other.jsonl"), &[json!({"question": "1+1", "answer": "2"})]);
    refused_in_a_line(&bench, &["data.train_files=other.jsonl"], &["other.jsonl", "problem", "prompt_key", "question"]);
    // A supervised stage without worked responses.
    write_rows(&bench.path("unsolved.jsonl"), &[json!({"problem": "1+1", "answer": "2"})]);
    std::fs::write(bench.path("sft.toml"), "[[stages]]\nstage = \"sft\"\nsteps = 1\nbatch_size = 1\n").unwrap();
    refused_in_a_line(
        &bench,
        &["--config", "sft.toml", "data.train_files=unsolved.jsonl"],
        &["solution", "data.solution_key"],
    );
}

/// The bytes of a PNG that claims to be `width` x `height` pixels.
fn png_bomb(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let size: Vec<u8> = [width.to_be_bytes(), height.to_be_bytes()].concat();
    for (kind, data) in [
        (b"IHDR", [&size[..], &[8, 2, 0, 0, 0]].concat()),
        (b"IDAT", vec![0x78, 0x9c, 3, 0, 0, 0, 0, 1]),
        (b"IEND", vec![]),
    ] {
        png.extend((data.len() as u32).to_be_bytes());
        let body = [&kind[..], &data].concat();
        // CRC-32 bit by bit, as the PNG specification defines it.
        let crc = body.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 })
        });
        png.extend(&body);
        png.extend((!crc).to_be_bytes());
    }
    png
}

/// Rows that cannot be used, each with the words that its message must hold.
fn bad_rows() -> Vec<(Value, &'static [&'static str])> {
    use base64::Engine;
    let good = json_row(&toy_rows("toy:read?rows=1&cols=1&size=1")[0]);
    let picture = good["images"][0].as_str().unwrap().to_string();
    let row = |id: &str, problem: &str, answer: &str, images: Vec<String>| json!({"id": id, "problem": problem, "answer": answer, "images": images});
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let whole = base64::engine::general_purpose::STANDARD.decode(&picture).unwrap();
    vec![
        (
            row(
                "garbage",
                "<image>read?",
                "1",
                vec![format!("data:image/png;base64,{}", encode(b"this is not a picture"))],
            ),
            &["not an image"],
        ),
        (row("cut", "<image>read?", "1", vec![encode(&whole[..whole.len() / 2])]), &["decode"]),
        (row("bomb", "<image>read?", "1", vec![encode(&png_bomb(60_000, 60_000))]), &["60000x60000", "limit"]),
        (row("one_too_few", "<image><image>read?", "1", vec![picture.clone()]), &["2", "1", "image"]),
        (row("one_too_many", "<image>read?", "1", vec![picture.clone(), picture.clone()]), &["1", "2", "image"]),
        (row("no_answer", "<image>read?", "", vec![picture.clone()]), &["answer"]),
        (
            row("long", &format!("<image>{}?", "read ".repeat(40)), "1", vec![picture.clone()]),
            &["data.max_prompt_length = 64"],
        ),
        (row("no_file", "<image>read?", "1", vec!["missing/picture.png".into()]), &["missing/picture.png"]),
    ]
}

#[test]
fn bad_rows_are_set_aside_and_the_run_goes_on() {
    let bench = Bench::new(SMALLEST);
    let bad = bad_rows();
    let mut rows: Vec<Value> = bad.iter().map(|(row, _)| row.clone()).collect();
    rows.insert(3, json_row(&toy_rows("toy:read?rows=1&cols=1&size=1")[0]));
    rows.push(json_row(&toy_rows("toy:read?rows=1&cols=1&size=1&seed=2")[0]));
    write_rows(&bench.path("rows.jsonl"), &rows);
    // A line that is not JSON, too.
    let text = std::fs::read_to_string(bench.path("rows.jsonl")).unwrap();
    std::fs::write(bench.path("rows.jsonl"), text + "{\"problem\": \n").unwrap();
    let output = bench.train(&["data.train_files=rows.jsonl", "data.shuffle=false", "trainer.max_steps=3"]);
    succeeded(&output);
    let said = stderr(&output);
    println!("{said}");
    assert!(!said.contains("panicked"), "{said}");
    for (row, words) in &bad {
        let id = row["id"].as_str().unwrap();
        let line = said
            .lines()
            .find(|l| l.contains("set aside") && l.contains(&format!("{id:?}")))
            .unwrap_or_else(|| panic!("{id} is not named: {said}"));
        words.iter().for_each(|word| assert!(line.contains(word), "{word:?} is not in: {line}"));
        assert_eq!(said.matches(&format!("{id:?}")).count(), 1, "{id} is named once");
    }
    let lines = metrics(&bench.path("run"));
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["data/set_aside"], json!(bad.len() + 1));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains(&format!("{} rows set aside", bad.len() + 1)), "{printed}");
}

#[test]
fn a_file_of_bad_rows_only() {
    let bench = Bench::new(SMALLEST);
    let rows: Vec<Value> = bad_rows().into_iter().map(|(row, _)| row).collect();
    write_rows(&bench.path("rows.jsonl"), &rows);
    refused(&bench, &["data.train_files=rows.jsonl"], &["data.train_files", "none of its 8 rows can be used"]);
    // The same for an over-long prompt when that is not to be set aside.
    write_rows(&bench.path("rows.jsonl"), &rows[6..7]);
    refused_in_a_line(
        &bench,
        &["data.train_files=rows.jsonl", "data.filter_overlong_prompts=false"],
        &["data.max_prompt_length", "row 0"],
    );
}

#[test]
fn an_occupied_run_folder() {
    let bench = Bench::new(SMALLEST);
    succeeded(&bench.train::<&str>(&[]));
    let before = std::fs::read(bench.path("run/metrics.jsonl")).unwrap();
    let output = bench.train(&["trainer.resume=none"]);
    let said = stderr(&output);
    println!("{said}");
    assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
    assert!(said.contains("error: ") && said.contains("run") && !said.contains("panicked"), "{said}");
    assert_eq!(std::fs::read(bench.path("run/metrics.jsonl")).unwrap(), before, "the earlier run is untouched");

    // A damaged checkpoint is named.
    let state = bench.path("run/checkpoints/global_step_1/trainer.json");
    std::fs::write(&state, "{\"step\": 1").unwrap();
    let output = bench.train(&["trainer.max_steps=2"]);
    let said = stderr(&output);
    println!("{said}");
    assert!(matches!(output.status.code(), Some(1 | 2)), "{said}");
    assert!(said.contains("trainer.json cannot be read") && said.contains("earlier checkpoint"), "{said}");
}

/// A run that cannot write its second checkpoint: the first one survives, and the run goes on when there is room.
fn full_disk(bench: &Bench, limit: &str, overrides: &[&str], make_room: impl FnOnce(), reason: &str) {
    let run = bench.path("disk/run");
    let args: Vec<&str> =
        ["trainer.output_dir=disk/run", "trainer.max_steps=6", "trainer.save_freq=2", "trainer.save_limit=1"]
            .iter()
            .chain(overrides)
            .copied()
            .collect();
    let command = bench.command(&args);
    let mut shell = std::process::Command::new("sh");
    // A write beyond the limit fails instead of killing the program.
    shell
        .args(["-c", &format!("trap '' XFSZ; {limit} exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args());
    shell.current_dir(bench.path("")).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let kept = checkpoints(&run);
    let output = wait(shell.spawn().unwrap());
    let said = stderr(&output);
    println!("{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    let newest = checkpoints(&run);
    assert!(!newest.is_empty() && kept.iter().all(|k| newest.contains(k)), "{kept:?}, {newest:?}");
    for word in [
        "cannot be written",
        reason,
        "make room",
        &format!("the newest checkpoint is disk/run/checkpoints/global_step_{}", newest[newest.len() - 1]),
    ] {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    let partial = std::fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .any(|e| e.unwrap().file_name().to_string_lossy().contains("partial"));
    assert!(!partial, "nothing half written is left");
    make_room();
    succeeded(&bench.train(&args));
    assert_eq!(metrics(&run).len(), 6);
    assert_eq!(checkpoints(&run), [6]);
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_grow_leaves_the_last_checkpoint() {
    let bench = Bench::new(SMALLEST);
    succeeded(&bench.train(&["trainer.output_dir=disk/run", "trainer.max_steps=2", "trainer.save_freq=2"]));
    full_disk(&bench, "ulimit -f 2000;", &[], || (), "File too large");
}

/// Needs the right to mount a file system; says so where that is missing, and fails there if `CI` is set.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(&self.0).status();
        }
    }
    let bench = Bench::new(SMALLEST);
    let disk = bench.path("disk");
    std::fs::create_dir(&disk).unwrap();
    // Room for one checkpoint of the toy model (12 MB), not for two.
    let mount =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=20m", "tmpfs"]).arg(&disk).output();
    if !mount.is_ok_and(|m| m.status.success()) {
        skipped("a_full_disk_leaves_the_last_checkpoint: a small file system cannot be mounted here (that needs root)");
        return;
    }
    let mounted = Mounted(disk.clone());
    full_disk(
        &bench,
        "",
        &[],
        || {
            let more =
                std::process::Command::new("mount").args(["-o", "remount,size=60m"]).arg(&disk).status().unwrap();
            assert!(more.success());
        },
        "No space left on device",
    );
    drop(mounted);
}

/// A program with its arguments, to its end.
fn program(path: &str, bench: &Bench, args: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(path);
    command.current_dir(bench.path("")).args(args).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    wait(command.spawn().unwrap())
}

/// What a program says against its arguments: exit code 2, without a panic, in lines that a terminal can show.
fn said_by(path: &str, bench: &Bench, args: &[&str]) -> String {
    let output = program(path, bench, args);
    let said = stderr(&output);
    let start: String = args.join(" ").chars().take(200).collect();
    assert_eq!(output.status.code(), Some(2), "{start}: {}", &said[..said.len().min(2000)]);
    assert!(
        said.contains("error: ") && !said.contains("panicked") && !said.contains("fault of this program"),
        "{start}: {said}"
    );
    assert!(said.lines().all(|line| line.len() < 10_000), "{start}: {} bytes", said.len());
    assert!(!said.contains(['\u{1b}', '\u{7}']), "{start}: {said:?}");
    said
}

const GENERATE: &str = env!("CARGO_BIN_EXE_generate");
const DATA: &str = env!("CARGO_BIN_EXE_data");

#[test]
fn sizes_beyond_their_range_are_named() {
    let bench = Bench::new(SMALLEST);
    let folder = model(&bench, "m");
    let m = folder.to_str().unwrap();
    for (path, args, words) in [
        (
            GENERATE,
            vec!["--model", m, "--prompt", "x", "--max-new-tokens", "1000000000000"],
            ["--max-new-tokens", "1000000000000", "0..=1048576"],
        ),
        (
            GENERATE,
            vec!["--model", m, "--prompt", "x", "--min-pixels", "5000000000"],
            ["--min-pixels", "5000000000", "0..=4294967296"],
        ),
        (env!("CARGO_BIN_EXE_study"), vec!["--seeds", "100000000", "--plan"], ["--seeds", "100000000", "1..=1000"]),
        (env!("CARGO_BIN_EXE_study"), vec!["--jobs", "100000000"], ["--jobs", "100000000", "1..=1024"]),
        (
            env!("CARGO_BIN_EXE_bench"),
            vec!["step", "--preset", "toy", "--prompts", "18446744073709551615"],
            ["--prompts", "18446744073709551615", "0..=65536"],
        ),
        (
            env!("CARGO_BIN_EXE_bench"),
            vec!["step", "--preset", "toy", "--image", "1000000000"],
            ["--image", "1000000000", "0..=16384"],
        ),
        (
            env!("CARGO_BIN_EXE_eval"),
            vec!["--model", m, "--out", "o", "--benchmark", "custom:x=toy:sum", "--samples", "1000000000"],
            ["--samples", "1000000000", "1 to 65536"],
        ),
        (
            env!("CARGO_BIN_EXE_eval"),
            vec!["--model", m, "--out", "o", "--benchmark", "custom:x=toy:sum", "--max-pixels", "5000000000"],
            ["--max-pixels", "5000000000", "0 to 4294967296"],
        ),
        (
            env!("CARGO_BIN_EXE_analyze"),
            vec!["--model", m, "--data", "toy:sum", "--out", "o", "--max-batch-rows", "1000000000"],
            ["--max-batch-rows", "1000000000", "0..=65536"],
        ),
        (DATA, vec!["check", "toy:sum?size=1000000000000"], ["size", "1000000000000", "at most 100000000"]),
        (DATA, vec!["toy", "sum?size=1000000000000", "-o", "x.jsonl"], ["size", "1000000000000", "at most 100000000"]),
    ] {
        let said = said_by(path, &bench, &args);
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    }
    for (override_, words) in [
        ("rollout.n=9223372036854775807", ["rollout.n", "9223372036854775807", "1 to 65536"]),
        ("data.rollout_batch_size=1000000000000", ["data.rollout_batch_size", "1000000000000", "1 to 1048576"]),
        ("data.train_files=[\"toy:sum?size=1000000000000\"]", ["size", "1000000000000", "at most 100000000"]),
    ] {
        refused(&bench, &[override_], &words);
    }
    let enlarged = ["data.min_pixels=200000000", "data.max_pixels=200000000"];
    refused(&bench, &enlarged, &["min_pixels", "200000000", "resized_pixels="]);
}

#[test]
fn an_echo_is_cut_and_harmless() {
    let bench = Bench::new(SMALLEST);
    let long = format!("{}\u{1b}[2J\u{7}end", "k".repeat(100_000));
    for args in [
        vec!["--config".to_string(), long.clone()],
        vec![format!("rollout.{long}=1")],
        vec![format!("{long}=1")],
        vec![format!("rollout.n={long}")],
        vec![format!("model.path={long}")],
        vec![format!("data.train_files=[\"{}\"]", "t".repeat(100_000))],
        vec![format!("--{}", "o".repeat(100_000))],
        vec!["--dtype".into(), long.clone()],
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said =
            said_by(env!("CARGO_BIN_EXE_train"), &bench, &[&["--config", "config.toml"], args.as_slice()].concat());
        assert!(said.len() < 30_000, "{} bytes", said.len());
    }
    let said = said_by(DATA, &bench, &["check", &long]);
    assert!(said.contains("kkk") && said.contains("end\"") && said.len() < 6_000, "{said}");
}

#[cfg(unix)]
#[test]
fn what_is_no_file_ends_a_program_at_once() {
    let bench = Bench::new(SMALLEST);
    let folder = model(&bench, "m");
    let m = folder.to_str().unwrap();
    let pipe = |path: &Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    pipe(&bench.path("pipe.toml"));
    pipe(&bench.path("pipe.jinja"));
    let train = env!("CARGO_BIN_EXE_train");
    for (path, args) in [
        (train, vec!["--config", "pipe.toml"]),
        (train, vec!["--config", "/dev/zero"]),
        (train, vec!["--config", "."]),
        (train, vec!["--config", "config.toml", "data.format_prompt=pipe.jinja"]),
        (env!("CARGO_BIN_EXE_eval"), vec!["--config", "pipe.toml"]),
        (env!("CARGO_BIN_EXE_study"), vec!["--rows", "pipe.toml", "--plan"]),
        (GENERATE, vec!["--model", m, "--prompt", "x", "--image", "pipe.toml", "--max-new-tokens", "1"]),
    ] {
        let said = said_by(path, &bench, &args);
        assert!(["a pipe", "a device", "a folder"].iter().any(|what| said.contains(what)), "{args:?}: {said}");
    }
    for name in ["config.json", "tokenizer.json", "model.safetensors", "preprocessor_config.json"] {
        let kept = bench.path("kept");
        std::fs::rename(folder.join(name), &kept).unwrap();
        pipe(&folder.join(name));
        let said = said_by(GENERATE, &bench, &["--model", m, "--prompt", "x", "--max-new-tokens", "1"]);
        assert!(said.contains(name) && said.contains("a pipe"), "{said}");
        std::fs::remove_file(folder.join(name)).unwrap();
        std::fs::rename(&kept, folder.join(name)).unwrap();
    }
}

#[test]
fn limits_are_raised_by_the_environment() {
    let bench = Bench::new(SMALLEST);
    let run = |limits: &str| {
        let mut command = bench.command::<&str>(&["--dry-run"]);
        wait(command.env("VISUAL_RL_LIMITS", limits).spawn().unwrap())
    };
    let refused = run("config_bytes=10");
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("config_bytes=... raises the limit"), "{}", stderr(&refused));
    succeeded(&run("config_bytes=100000,template_fuel=1e6"));
    let unknown = run("config_byte=10");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("there is no limit"), "{}", stderr(&unknown));
}

/// Threads that the system does not give: an error, no panic. The standard library asks for as much stack as this
/// variable says.
#[cfg(target_os = "linux")]
#[test]
fn a_system_without_threads_is_an_error() {
    let bench = Bench::new(SMALLEST);
    let mut command = bench.command::<&str>(&[]);
    let output = wait(command.env("RUST_MIN_STACK", "100000000000000").spawn().unwrap());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: ") && said.contains("ulimit"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("fault of this program"), "{said}");
    // A small stack is the main thread's alone.
    let command = bench.command::<&str>(&[]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -s 256; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(bench.path("")).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    succeeded(&wait(shell.spawn().unwrap()));
}
