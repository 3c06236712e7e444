//! The default run, cut short, as a person starts it: what it prints and what it leaves behind.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use support::{Bench, NOTHING, SMALLEST, checkpoints, metrics, stderr, succeeded, write_rows};

fn train(dir: &std::path::Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_train")).current_dir(dir).args(args).output().unwrap()
}

/// Two steps of each stage of configs/toy.toml.
const SHORT: [&str; 8] = [
    "stages.0.steps=2",
    "stages.1.steps=2",
    "stages.2.steps=2",
    "stages.3.steps=2",
    "stages.4.steps=2",
    "stages.5.steps=2",
    "data.val_max_samples=16",
    "data.rollout_batch_size=4",
];

#[test]
fn the_default_run_needs_nothing_and_ends_with_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let output = train(dir.path(), &SHORT);
    succeeded(&output);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    for part in [
        "held-out validation",
        "before RL",
        "accuracy, greedy",
        "  sum",
        "visual late/early ratio",
        "12 steps in",
        "run folder: runs/toy",
        "model:      runs/toy/checkpoints/global_step_12/hf",
        "report:     runs/toy/report.html",
    ] {
        assert!(said.contains(part), "{part:?} is missing:\n{said}");
    }
    let run = dir.path().join("runs/toy");
    assert_eq!(checkpoints(&run), [12]);
    let lines = metrics(&run);
    assert_eq!(lines.len(), 12);
    assert_eq!(lines[0]["stage"], "read_one");
    let last = &lines[11];
    assert_eq!(last["stage"], "vgpo");
    for key in
        ["reward", "accuracy", "actor/grad_norm", "vgpo/late_early_halves", "vgpo/gate_pass_rate", "val/accuracy"]
    {
        assert!(last[key].is_f64(), "{key}: {}", last[key]);
    }
    assert!(run.join("rollouts/step_12.jsonl").is_file() && run.join("config.toml").is_file());
    let report = std::fs::read_to_string(run.join("report.html")).unwrap();
    for part in ["api/runs/0/metrics", "api/runs/0/rollouts/12", "api/runs/0/config"] {
        assert!(report.contains(&format!("data-path=\"{part}\"")), "{part} is not in the report");
    }

    // The same command finds a finished run and says so again without training; another run does not overwrite it.
    let again = train(dir.path(), &SHORT);
    succeeded(&again);
    assert_eq!(metrics(&run).len(), 12);
    let other = train(dir.path(), &[&SHORT[..], &["trainer.resume=none"]].concat());
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
    assert!(stderr(&other).contains("runs/toy"), "{}", stderr(&other));
}

/// The same run with a toy of another family; what it leaves is of that family, and another run starts from it.
#[test]
fn each_family_has_a_toy() {
    for (family, prefix) in [("qwen2_vl", "model.layers."), ("qwen3_vl", "model.language_model.layers.")] {
        let dir = tempfile::tempdir().unwrap();
        let named = format!("model.family={family}");
        succeeded(&train(dir.path(), &[&SHORT[..], &[&named]].concat()));
        let model = dir.path().join("runs/toy/checkpoints/global_step_12/hf");
        let config = std::fs::read_to_string(model.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["model_type"], family);
        let bytes = std::fs::read(model.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert!(file.names().iter().any(|name| name.starts_with(prefix)), "{family}: {:?}", file.names());
        let path = "model.path=runs/toy";
        let again = train(dir.path(), &[&SHORT[..], &[path, "trainer.output_dir=runs/again"]].concat());
        succeeded(&again);
        assert_eq!(metrics(&dir.path().join("runs/again")).len(), 12);
    }
}

#[test]
fn a_dry_run_prints_a_configuration_that_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let first = train(dir.path(), &["--dry-run", "algorithm.beta=0.7"]);
    succeeded(&first);
    let text = String::from_utf8(first.stdout).unwrap();
    assert!(text.contains("beta = 0.7"), "{text}");
    std::fs::write(dir.path().join("printed.toml"), &text).unwrap();
    let second = train(dir.path(), &["--config", "printed.toml", "--dry-run"]);
    succeeded(&second);
    assert_eq!(text, String::from_utf8(second.stdout).unwrap());
    assert!(!dir.path().join("runs").exists());
}

/// What a rank has to hold stands behind the keys, as comments; of a model that is not there yet with its published
/// sizes.
#[test]
fn a_dry_run_counts_the_memory_of_a_rank() {
    let dir = tempfile::tempdir().unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/qwen2_5_vl_7b.toml");
    let said = |args: &[&str]| {
        let output = train(dir.path(), &[&["--config", config, "algorithm.name=vgpo", "--dry-run"], args].concat());
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    let plain = said(&["--memory-gib", "80", "parallel.tensor=1"]);
    assert!(
        plain.contains("# Memory of one device:") && plain.contains("the sizes are those of Qwen2.5-VL-7B"),
        "{plain}"
    );
    let ranks = said(&["--ranks", "8", "--memory-gib", "60", "parallel.tensor=1"]);
    assert!(ranks.contains("# Memory of each of 8 ranks") && ranks.contains("of 60.00 GiB"), "{ranks}");
    assert!(ranks.contains("TOO MUCH") && ranks.contains("#   rollout.max_batch_rows="), "{ranks}");
    // Left to itself, the plan shares the model out until it fits.
    let shared = said(&["--ranks", "8", "--memory-gib", "60"]);
    assert!(!shared.contains("TOO MUCH"), "{shared}");
    let keys = |text: &str| text.parse::<toml::Table>().unwrap();
    assert_eq!(keys(&plain), keys(&ranks), "the plan is no part of the configuration");
    for refused in [&["--ranks", "8"][..], &["--dry-run", "--memory-gib", "0"], &["--dry-run", "--check-devices"]] {
        assert_eq!(train(dir.path(), refused).status.code(), Some(2), "{refused:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_dry_run_that_cannot_be_printed_fails() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_train")).arg("--dry-run").stdout(full).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1 && !said.contains("panicked"), "{said}");
}

/// The files of `configs/`, those for real models with the published algorithm that their head names.
#[test]
fn every_configuration_resolves() {
    let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let toml_files = |folder: &std::path::Path| {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
        files.sort();
        files
    };
    let resolves = |args: &[&str]| {
        let output = train(&configs, &[args, &["--dry-run"]].concat());
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut count = 0;
    for path in toml_files(&configs) {
        let name = path.file_name().unwrap().to_str().unwrap();
        // One has rows and tables, the other is put over toy.toml and wants what a run of that left.
        if ["study_rows.toml", "lora_toy.toml"].contains(&name) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        match text.lines().find_map(|line| line.strip_prefix("#   train --config configs/")) {
            Some(said) => {
                let (own, algorithm) = said.split_once(' ').unwrap();
                assert_eq!(own, name);
                // The algorithm changes something of the model's file, and another one something else.
                let text = resolves(&["--config", name, algorithm]);
                assert_ne!(text, resolves(&["--config", name, "algorithm.name=grpo"]), "{name}");
            }
            None => drop(resolves(&["--config", name])),
        }
        count += 1;
    }
    assert_eq!(count, 8);
}

/// A picture of the given size, as a PNG file.
fn picture(path: &Path, width: u32, height: u32) {
    image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 90])).save(path).unwrap();
}

/// Runs a program; what it printed, on both streams.
fn said(program: &str, dir: &Path, args: &[&str]) -> String {
    let output = Command::new(program).current_dir(dir).args(args).stdin(Stdio::null()).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// N of "the prompt has N tokens", which programs say of a prompt that is too long.
#[track_caller]
fn tokens(text: &str) -> usize {
    let found = text.split_once("the prompt has ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    found.unwrap_or_else(|| panic!("no length of a prompt in: {text}"))
}

/// The same picture and the same limits are the same tokens, whichever program looks at them; and a model that a run
/// has saved is asked with the pixels and the format prompt of the run, in its folder and copied elsewhere.
#[test]
fn pixels_of_a_run_are_those_of_every_program() {
    let bench = Bench::new(SMALLEST);
    let dir = bench.path("");
    picture(&bench.path("tall.png"), 31, 521);
    let row = json!({"problem": "<image>sum?", "answer": "7", "images": ["tall.png"]});
    write_rows(&bench.path("tall.jsonl"), &[row]);
    let math = ["data.format_prompt=math", "data.max_prompt_length=400", "data.min_pixels=20000", "data.alpha=drop"];
    succeeded(&bench.train(NOTHING));
    succeeded(&bench.train(&[&math[..], &["trainer.output_dir=limited"]].concat()));
    let hf = |run: &str| bench.path(run).join("checkpoints/global_step_1/hf").display().to_string();

    let in_train = |model: &str, extra: &[&str]| {
        let model = format!("model.path={model}");
        let own = ["data.train_files=[tall.jsonl]", "data.max_prompt_length=1", "trainer.output_dir=none", &model];
        tokens(&stderr(&bench.train(&[&own[..], extra].concat())))
    };
    let eval = env!("CARGO_BIN_EXE_eval");
    let in_eval = |model: &str, extra: &[&str]| {
        let own = ["--model", model, "--benchmark", "custom:a=tall.jsonl", "--max-prompt-length", "1", "--out", "out"];
        let text = said(eval, &dir, &[&own[..], extra].concat());
        std::fs::remove_dir_all(bench.path("out")).unwrap();
        tokens(&text)
    };
    let in_generate = |model: &str, extra: &[&str]| {
        let own = ["--model", model, "--image", "tall.png", "--prompt", "sum?", "--max-new-tokens", "0"];
        let own = [&own[..], &["--dump", "d.safetensors"]].concat();
        let text = said(env!("CARGO_BIN_EXE_generate"), &dir, &[&own[..], extra].concat());
        let bytes = std::fs::read(bench.path("d.safetensors")).unwrap_or_else(|_| panic!("{text}"));
        std::fs::remove_file(bench.path("d.safetensors")).unwrap();
        safetensors::SafeTensors::deserialize(&bytes).unwrap().tensor("input_ids").unwrap().shape()[0]
    };
    let in_analyze = |model: &str, extra: &[&str]| {
        let own = ["--model", model, "--data", "tall.jsonl", "--out", "analysis", "data.max_prompt_length=1"];
        let text = said(env!("CARGO_BIN_EXE_analyze"), &dir, &[&own[..], extra].concat());
        std::fs::remove_dir_all(bench.path("analysis")).unwrap();
        tokens(&text)
    };
    let in_data = |model: &str, extra: &[&str]| {
        let own = ["inspect", "tall.jsonl", "--model", model, "--max-prompt-length", "1"];
        tokens(&said(env!("CARGO_BIN_EXE_data"), &dir, &[&own[..], extra].concat()))
    };

    // Without limits of the run there is one resize: 31 x 521 -> 28 x 532, 19 tokens. Two, of which the first changes
    // nothing, would be the same; two within the folder's limits would not.
    let plain = hf("run");
    let expected = in_train(&plain, &[]);
    for model in [&plain, "run", "run/checkpoints/global_step_1"] {
        let none = ["--format-prompt", "none"];
        let found = [
            in_eval(model, &none),
            in_eval(model, &[]),
            in_eval(model, &["--format-prompt", "none", "--min-pixels", "0", "--max-pixels", "0"]),
            in_generate(model, &[]),
            in_generate(model, &["--max-pixels", "0"]),
            in_analyze(model, &["data.format_prompt=none"]),
            in_analyze(model, &["data.format_prompt=none", "data.min_pixels=0", "data.max_pixels=0"]),
        ];
        assert_eq!(found, [expected; 7], "{model}");
    }
    assert_eq!(in_data(&plain, &["--format-prompt", "none"]), expected);

    // With them: 31 x 521 -> 34 x 579 -> 28 x 588, 21 tokens; and the format prompt of the run around the question.
    let limited = hf("limited");
    let expected = in_train(&limited, &math[..1].iter().chain(&math[2..]).copied().collect::<Vec<_>>());
    for model in [&limited, "limited", "limited/checkpoints/global_step_1"] {
        let found = [in_eval(model, &[]), in_generate(model, &[]), in_analyze(model, &["data.format_prompt=math"])];
        assert_eq!(found, [expected; 3], "{model}");
    }
    let without = in_eval("limited", &["--min-pixels", "0"]);
    assert!(without < expected, "{without} {expected}");
    // A copy knows its pixels, not its prompt.
    std::fs::rename(&limited, bench.path("copy")).unwrap();
    assert_eq!(in_eval("copy", &["--format-prompt", "math"]), expected);
    assert_eq!(in_generate("copy", &["--format-prompt", "math"]), expected);
    assert!(in_generate("copy", &[]) < expected);
    let own = data::Processor::from_folder(&bench.path("copy")).unwrap();
    assert_eq!((own.limits().run.min_pixels, own.limits().alpha), (20_000, data::Alpha::Drop));
}

#[test]
fn pictures_by_number_are_in_their_places_in_every_program() {
    let bench = Bench::new(SMALLEST);
    succeeded(&bench.train(NOTHING));
    picture(&bench.path("a.png"), 28, 28);
    picture(&bench.path("b.png"), 84, 28);
    let rows = [
        json!({"problem": "<image 2> or <image 1>?", "answer": "1", "image_1": "a.png", "image_2": "b.png"}),
        json!({"problem": "<image1>?", "answer": "1", "image_1": "a.png", "image_2": null}),
        json!({"problem": "<image 3>?", "answer": "1", "image_1": "a.png", "image_2": "b.png"}),
        json!({"problem": "sum?", "answer": "1"}),
    ];
    write_rows(&bench.path("numbered.jsonl"), &rows);
    let dir = bench.path("");
    let check = said(env!("CARGO_BIN_EXE_data"), &dir, &["check", "numbered.jsonl"]);
    assert!(check.contains("row 2: ") && check.contains("<image 3> and the row has 2 images"), "{check}");
    assert!(check.contains("3 of 4 rows are good"), "{check}");
    let all = ["data.train_files=[numbered.jsonl]", "data.rollout_batch_size=3", "trainer.output_dir=numbered"];
    let output = bench.train(&all);
    succeeded(&output);
    assert!(
        stderr(&output).contains("row 2: placeholder count differs: the problem has <image 3>"),
        "{}",
        stderr(&output)
    );
    let eval = said(
        env!("CARGO_BIN_EXE_eval"),
        &dir,
        &["--model", "run", "--benchmark", "custom:a=numbered.jsonl", "--max-new-tokens", "2", "--out", "out"],
    );
    assert!(eval.contains("<image 3> and the row has 2 images"), "{eval}");
    let dump = |prompt: &str| {
        let args = ["--model", "run", "--image", "a.png", "--image", "b.png", "--prompt", prompt];
        let text = said(
            env!("CARGO_BIN_EXE_generate"),
            &dir,
            &[&args[..], &["--max-new-tokens", "0", "--dump", "d.safetensors"]].concat(),
        );
        let bytes = std::fs::read(bench.path("d.safetensors")).unwrap_or_else(|_| panic!("{text}"));
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let grids = file.tensor("image_grid_thw").unwrap();
        grids.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(dump("<image 2> or <image 1>?"), [1, 2, 6, 1, 2, 2]);
    assert_eq!(dump("<image1><image2><image1>?"), [1, 2, 2, 1, 2, 6, 1, 2, 2]);
}

/// Several processes of a program that cannot talk to each other would each do all of the work, in one folder.
#[test]
fn ranks_of_a_program_without_mpi() {
    let fault = match cfg!(feature = "mpi") {
        // With MPI, train finds the others or says that it does not (tests/parallel.rs).
        true => return,
        false => "4 ranks were launched, and this program was built without MPI: build it with --features mpi",
    };
    let bench = Bench::new(SMALLEST);
    let mut command = bench.command(NOTHING);
    for (rank, lines) in [("0", 1), ("2", 0)] {
        let output = command.envs([("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", rank)]).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.matches(fault).count(), lines, "{said}");
        assert_eq!(said.lines().count(), lines, "{said}");
        assert!(!bench.path("run").exists());
    }
}
