//! The real `generate` against what transformers computed, and against input that cannot be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn model(name: &str) -> String {
    fixtures().join("models").join(name).display().to_string()
}

fn image(name: &str) -> String {
    fixtures().join("images").join(name).display().to_string()
}

fn generate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_generate"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The text that a call writes, which must succeed.
fn text(args: &[&str]) -> String {
    let out = generate(args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!((out.status.code(), &*stderr), (Some(0), ""), "{args:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// A tensor: type, shape, bytes.
type Entry = (Dtype, Vec<usize>, Vec<u8>);

fn entries(path: &Path) -> BTreeMap<String, Entry> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, t)| {
            (
                name.to_owned(),
                (t.dtype(), t.shape().to_vec(), t.data().to_vec()),
            )
        })
        .collect()
}

fn floats(entry: &Entry) -> Vec<f32> {
    assert_eq!(entry.0, Dtype::F32);
    entry
        .2
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn ints(entry: &Entry) -> Vec<i64> {
    assert_eq!(entry.0, Dtype::I64);
    entry
        .2
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A golden case: its description and, for `old_layout`, the case whose weights it has.
fn cases() -> Vec<(&'static str, &'static str)> {
    let own = [
        "one_image_tied",
        "two_images",
        "text_only",
        "partial_windows",
        "one_image_untied",
        "sharded_bf16",
        "f16",
    ];
    let same = [
        "one_image_tied",
        "two_images",
        "text_only",
        "partial_windows",
    ];
    let old = same.map(|case| ("old_layout", case));
    own.iter().map(|case| ("", *case)).chain(old).collect()
}

fn matches_transformers(backend: &str) {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    for (folder, case) in cases() {
        let golden = fixtures().join("golden");
        let about = json(&golden.join(format!("{case}.json")));
        let model = match folder {
            "" => fixtures().join(about["model"].as_str().unwrap()),
            other => fixtures().join("models").join(other),
        };
        let limit = about["max_new_tokens"].to_string();
        let mut args = vec![
            "--backend",
            backend,
            "--dtype",
            "f32",
            "--max-new-tokens",
            &limit,
        ];
        args.extend([
            "--model",
            model.to_str().unwrap(),
            "--dump",
            dump.to_str().unwrap(),
        ]);
        let images: Vec<String> = about["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| fixtures().join(i.as_str().unwrap()).display().to_string())
            .collect();
        args.extend(images.iter().flat_map(|i| ["--image", i]));
        // `<image>` in the prompt, or pictures first: the same for the cases that begin with their picture.
        let problem = about["problem"].as_str().unwrap();
        let plain = problem
            .strip_prefix("<image>")
            .filter(|rest| !rest.contains("<image>"))
            .unwrap_or(problem);
        args.extend(["--prompt", if folder.is_empty() { plain } else { problem }]);
        if let Some(system) = about["system"].as_str() {
            args.extend(["--system", system]);
        }
        let shown = text(&args);
        let what = format!("{backend} {folder} {case}");
        assert_eq!(
            shown,
            about["generated_text"].as_str().unwrap().to_owned() + "\n",
            "{what}"
        );

        let (got, wanted) = (
            entries(&dump),
            entries(&golden.join(format!("{case}.safetensors"))),
        );
        let with_images = !images.is_empty();
        let mut keys = vec![
            "generated_ids",
            "generated_logprobs",
            "hidden_last",
            "image_embeds",
            "image_grid_thw",
            "input_ids",
        ];
        keys.extend(["logits", "pixel_values", "position_ids"]);
        keys.extend(with_images.then_some("visual_focus"));
        assert_eq!(got.keys().collect::<Vec<_>>(), keys, "{what}");
        for (key, entry) in &got {
            let Some(golden) = wanted.get(key) else {
                assert!(
                    !with_images && entry.1[0] == 0 && entry.2.is_empty(),
                    "{what} {key}: {:?}",
                    entry.1
                );
                continue;
            };
            assert_eq!((entry.0, &entry.1), (golden.0, &golden.1), "{what} {key}");
            if entry.0 == Dtype::I64 {
                assert_eq!(ints(entry), ints(golden), "{what} {key}");
                continue;
            }
            let difference: Vec<f32> = floats(entry)
                .iter()
                .zip(floats(golden))
                .map(|(a, b)| (a - b).abs())
                .collect();
            let largest = difference.iter().copied().fold(0.0, f32::max);
            if key == "pixel_values" {
                // Two steps of a byte, divided by the smallest standard deviation.
                let equal = difference.iter().filter(|d| **d < 1e-6).count();
                assert!(
                    equal as f64 >= 0.995 * difference.len() as f64
                        && largest <= 2.0 / 255.0 / 0.261,
                    "{what}: {equal} {largest}"
                );
            } else {
                assert!(largest < 1e-3, "{what} {key}: {largest}");
            }
        }
    }
}

#[cfg(feature = "flex")]
#[test]
fn flex_matches_transformers() {
    matches_transformers("flex");
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_matches_transformers() {
    matches_transformers("ndarray");
}

/// Log-probs are those at the sampling temperature over all tokens, whatever `--top-p` cuts off.
#[test]
fn log_probs_are_of_the_sampling_temperature() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let (model, image) = (model("tied_gqa"), image("wide.png"));
    let mut args = vec![
        "--model",
        &model,
        "--image",
        &image,
        "--prompt",
        "?",
        "--temperature",
        "0.7",
        "--top-p",
        "0.8",
    ];
    args.extend(["--max-new-tokens", "1", "--dump", dump.to_str().unwrap()]);
    text(&args);
    let got = entries(&dump);
    let (logits, ids) = (floats(&got["logits"]), ints(&got["generated_ids"]));
    let vocab = got["logits"].1[1];
    let last: Vec<f64> = logits[logits.len() - vocab..]
        .iter()
        .map(|&z| f64::from(z) / 0.7)
        .collect();
    let sum: f64 = last.iter().map(|z| z.exp()).sum();
    let expected = last[ids[0] as usize] - sum.ln();
    let found = f64::from(floats(&got["generated_logprobs"])[0]);
    assert!((expected - found).abs() < 1e-4, "{expected} {found}");
}

#[test]
fn seeds_decide() {
    let (model, image) = (model("tied_gqa"), image("small.png"));
    let run = |more: &[&str]| {
        let base = [
            "--model",
            &model,
            "--image",
            &image,
            "--prompt",
            "What is this?",
            "--max-new-tokens",
            "40",
        ];
        text(&[&base, more].concat())
    };
    let one = run(&["--temperature", "1", "--seed", "1"]);
    assert_eq!(one, run(&["--temperature", "1", "--seed", "1"]));
    assert_ne!(one, run(&["--temperature", "1", "--seed", "2"]));
    // Greedy has no randomness, and the smallest nucleus holds the likeliest token alone.
    let greedy = run(&["--seed", "1"]);
    assert_eq!(greedy, run(&["--seed", "2"]));
    assert_eq!(
        greedy,
        run(&["--temperature", "1", "--top-p", "0.001", "--seed", "3"])
    );
    assert_ne!(greedy, one);
}

/// At a high temperature all tokens are nearly equally likely, but vision tokens never come.
#[test]
fn vision_tokens_are_never_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let about = json(&fixtures().join("golden/f16.json"));
    let numbers = |key: &str| {
        about[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let (vision, ends) = (numbers("suppress_tokens"), numbers("eos_token_ids"));
    let (model, image) = (model("f16"), image("small.png"));
    let mut args = vec![
        "--model",
        &model,
        "--image",
        &image,
        "--prompt",
        "x?",
        "--temperature",
        "50",
    ];
    args.extend([
        "--min-new-tokens",
        "600",
        "--max-new-tokens",
        "600",
        "--dump",
        dump.to_str().unwrap(),
    ]);
    text(&args);
    let ids = ints(&entries(&dump)["generated_ids"]);
    assert_eq!(ids.len(), 600);
    assert!(ids.iter().all(|id| !vision.contains(id)));
    assert!(
        ids[..599].iter().all(|id| !ends.contains(id)),
        "no end token before the minimum"
    );
    // Most of the vocabulary is seen, so that an absent token is no accident.
    assert!(ids.iter().collect::<std::collections::BTreeSet<_>>().len() > 200);
}

#[test]
fn the_minimum_length_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let (model, image) = (model("f16"), image("small.png"));
    let run = |more: &[&str]| {
        let base = [
            "--model",
            &model,
            "--image",
            &image,
            "--prompt",
            "x?",
            "--dump",
            dump.to_str().unwrap(),
        ];
        text(&[&base, more].concat());
        ints(&entries(&dump)["generated_ids"])
    };
    // By itself this response ends early (golden `f16`).
    let free = run(&["--max-new-tokens", "60"]);
    assert!(free.len() < 24);
    let forced = run(&["--max-new-tokens", "60", "--min-new-tokens", "40"]);
    assert!(forced.len() >= 40);
    assert_eq!(free[..free.len() - 1], forced[..free.len() - 1]);
}

#[test]
fn no_tokens_are_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let (model, image) = (model("tied_gqa"), image("small.png"));
    let shown = text(&[
        "--model",
        &model,
        "--image",
        &image,
        "--prompt",
        "?",
        "--max-new-tokens",
        "0",
        "--dump",
        dump.to_str().unwrap(),
    ]);
    assert_eq!(shown, "\n");
    let got = entries(&dump);
    assert_eq!(
        (&got["generated_ids"].1[..], &got["visual_focus"].1[..]),
        (&[0][..], &[0][..])
    );
    assert!(got["logits"].1[0] > 0);
}

#[test]
fn pixel_limits_change_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let (model, image) = (model("tied_gqa"), image("wide.png"));
    let mut args = vec![
        "--model",
        &model,
        "--image",
        &image,
        "--prompt",
        "?",
        "--max-new-tokens",
        "1",
    ];
    args.extend([
        "--min-pixels",
        "784",
        "--max-pixels",
        "3136",
        "--dump",
        dump.to_str().unwrap(),
    ]);
    text(&args);
    let grid = ints(&entries(&dump)["image_grid_thw"]);
    assert!(grid[1] * grid[2] * 196 <= 3136, "{grid:?}");
}

#[test]
fn focus_maps_are_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map.png");
    let (model, one, two) = (model("tied_gqa"), image("wide.png"), image("photo.jpg"));
    let cases: [&[&str]; 3] = [
        &["--image", &one, "--max-new-tokens", "30"],
        &["--image", &one, "--max-new-tokens", "1"],
        &[
            "--image",
            &one,
            "--image",
            &two,
            "--max-new-tokens",
            "200",
            "--min-new-tokens",
            "200",
        ],
    ];
    for more in cases {
        let base = [
            "--model",
            &model,
            "--prompt",
            "Wie viele Kreise? \u{1f600}",
            "--focus-map",
            map.to_str().unwrap(),
        ];
        text(&[&base, more].concat());
        let picture = image::load_from_memory(&std::fs::read(&map).unwrap())
            .unwrap()
            .into_rgb8();
        let colours: std::collections::BTreeSet<_> = picture.pixels().map(|p| p.0).collect();
        assert!(colours.len() > 100, "{more:?}: {}", colours.len());
        assert!(picture.width() > 1000 && picture.height() > 400);
    }
    // Only the picture is left, and no temporary file.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Whoever reads the text may stop early; a file that was asked for is written all the same.
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let (model, image) = (model("tied_gqa"), image("small.png"));
    for with_dump in [false, true] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_generate"));
        command.args([
            "--model",
            &model,
            "--image",
            &image,
            "--prompt",
            "?",
            "--max-new-tokens",
            "50",
        ]);
        if with_dump {
            command.arg("--dump").arg(&dump);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!(
            (
                out.status.code(),
                String::from_utf8_lossy(&out.stderr).as_ref()
            ),
            (Some(0), "")
        );
        assert_eq!(dump.exists(), with_dump);
    }
}

/// An interrupt ends the program with 130 and leaves the older file and nothing unfinished.
#[cfg(unix)]
#[test]
fn interrupts_leave_nothing_behind() {
    use std::io::Read;
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    std::fs::write(&dump, "older").unwrap();
    let (model, image) = (model("tied_gqa"), image("small.png"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_generate"))
        .args([
            "--model",
            &model,
            "--image",
            &image,
            "--prompt",
            "?",
            "--max-new-tokens",
            "4000",
            "--min-new-tokens",
            "4000",
        ])
        .arg("--dump")
        .arg(&dump)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    assert!(
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read(&dump).unwrap(), b"older");
}

/// A call that must end with exit code 2, nothing on standard output and one line that names the problem.
#[track_caller]
fn refused(args: &[&str], needles: &[&str]) {
    let out = generate(args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(out.stdout.is_empty(), "{args:?}");
    assert!(
        stderr.starts_with("error: ") && stderr.lines().count() == 1,
        "{args:?}: {stderr}"
    );
    for needle in needles {
        assert!(
            stderr.contains(needle),
            "{args:?}: {needle:?} is not in {stderr}"
        );
    }
}

#[test]
fn bad_arguments_are_refused() {
    let (model, image) = (model("tied_gqa"), image("small.png"));
    let with = |more: &[&'static str], needles: &[&str]| {
        let base = ["--model", &model, "--image", &image, "--prompt", "?"];
        refused(&[&base[..], more].concat(), needles);
    };
    with(&["--temperature", "-1"], &["--temperature -1"]);
    with(&["--temperature", "nan"], &["--temperature NaN"]);
    with(&["--temperature", "inf"], &["--temperature inf"]);
    with(
        &["--temperature", "1e-30"],
        &["--temperature", "0 (greedy)"],
    );
    with(&["--top-p", "0"], &["--top-p 0"]);
    with(&["--top-p", "-0.5"], &["--top-p -0.5"]);
    with(&["--top-p", "1.01"], &["--top-p 1.01"]);
    with(&["--top-p", "nan"], &["--top-p NaN"]);
    with(
        &["--min-new-tokens", "9", "--max-new-tokens", "8"],
        &["--min-new-tokens 9", "--max-new-tokens 8"],
    );
    with(
        &["--max-new-tokens", "18446744073709551615"],
        &["max_position_embeddings", "4096"],
    );
    with(
        &["--min-pixels", "9000", "--max-pixels", "8000"],
        &["min_pixels (9000)", "max_pixels (8000)"],
    );
    with(&["--max-pixels", "0"], &["max_pixels"]);
    with(
        &["--focus-map", "map.png", "--max-new-tokens", "0"],
        &["--focus-map", "--max-new-tokens"],
    );
    for prompt in ["", " \n"] {
        refused(
            &["--model", &model, "--prompt", prompt],
            &["--prompt is empty"],
        );
    }
    refused(
        &["--model", &model, "--prompt", "?", "--focus-map", "map.png"],
        &["--focus-map", "--image"],
    );
    refused(
        &["--model", &model, "--prompt", "<image>?"],
        &["1 <image>", "0 pictures"],
    );
    refused(
        &[
            "--model",
            &model,
            "--image",
            &image,
            "--prompt",
            "<image> <image>",
        ],
        &["2 <image>", "1 pictures"],
    );
    for token in [
        "<|video_pad|>",
        "<|image_pad|>",
        "<|vision_start|>",
        "<|im_end|>",
    ] {
        refused(
            &["--model", &model, "--prompt", &format!("a {token} b")],
            &[token],
        );
        refused(
            &["--model", &model, "--prompt", "?", "--system", token],
            &[token],
        );
    }
    // The command line's own errors say how to call it; the exit code is the same.
    for more in [
        ["--seed", "x"],
        ["--max-new-tokens", "-1"],
        ["--backend", "tpu"],
        ["--dtype", "f8"],
        ["--no-such", "x"],
    ] {
        let out = generate(&["--model", &model, "--prompt", "?", more[0], more[1]]);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(more[0]),
            "{stderr}"
        );
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_backend_that_was_not_compiled_in_is_refused() {
    refused(
        &[
            "--model",
            &model("tied_gqa"),
            "--prompt",
            "?",
            "--backend",
            "cuda",
        ],
        &["cuda", "--features"],
    );
}

/// A path that cannot be written is known before anything is generated.
#[test]
fn unwritable_paths_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (model, image) = (model("tied_gqa"), image("small.png"));
    let missing = folder
        .path()
        .join("no/such/folder/out")
        .display()
        .to_string();
    let here = folder.path().display().to_string();
    for option in ["--dump", "--focus-map"] {
        for path in [&missing, &here] {
            refused(
                &[
                    "--model", &model, "--image", &image, "--prompt", "?", option, path,
                ],
                &[option, path, "cannot be written"],
            );
        }
    }
    let same = folder.path().join("same").display().to_string();
    refused(
        &[
            "--model",
            &model,
            "--image",
            &image,
            "--prompt",
            "?",
            "--dump",
            &same,
            "--focus-map",
            &same,
        ],
        &["both name"],
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The header of a PNG file of any size; there is nothing behind it.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut crc = u32::MAX;
    for byte in &chunk {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(chunk);
    file.extend((!crc).to_be_bytes());
    // An empty IDAT chunk, so that the header is complete for every reader.
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    file
}

#[test]
fn bad_pictures_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = model("tied_gqa");
    let good = image("small.png");
    let whole = std::fs::read(&good).unwrap();
    let jpeg = std::fs::read(image("photo.jpg")).unwrap();
    let thin = {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(2010, 10)
            .write_to(&mut bytes, image::ImageFormat::Png)
            .unwrap();
        bytes.into_inner()
    };
    let cases: [(&str, &[u8], &str); 6] = [
        ("empty.png", b"", "empty"),
        ("text.png", b"not a picture", "not an image"),
        ("half.png", &whole[..whole.len() / 2], "cannot decode"),
        ("half.jpg", &jpeg[..40], "decode"),
        ("bomb.png", &png_header(60_000, 60_000), "60000x60000"),
        ("thin.png", &thin, "2010x10"),
    ];
    for (name, bytes, needle) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        // The second picture is named as such.
        refused(
            &[
                "--model",
                &model,
                "--image",
                &good,
                "--image",
                path.to_str().unwrap(),
                "--prompt",
                "?",
            ],
            &["image 2", needle],
        );
    }
    let missing = folder.path().join("missing.png").display().to_string();
    refused(
        &["--model", &model, "--image", &missing, "--prompt", "?"],
        &["image 1", "missing.png"],
    );
    let here = folder.path().display().to_string();
    refused(
        &["--model", &model, "--image", &here, "--prompt", "?"],
        &["image 1", &here],
    );
}

/// A copy of `tied_gqa` to damage.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(model("tied_gqa")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

#[test]
fn bad_model_folders_are_refused() {
    refused(
        &["--model", "no/such/folder", "--prompt", "?"],
        &["no/such/folder"],
    );
    let file = format!("{}/config.json", model("tied_gqa"));
    refused(&["--model", &file, "--prompt", "?"], &["config.json"]);
    for (missing, needle) in [
        ("config.json", "config.json"),
        ("tokenizer.json", "tokenizer.json"),
        ("chat_template.jinja", "chat template"),
        ("preprocessor_config.json", "preprocessor_config.json"),
        ("model.safetensors", "model.safetensors"),
    ] {
        let folder = copy();
        std::fs::remove_file(folder.path().join(missing)).unwrap();
        refused(
            &["--model", folder.path().to_str().unwrap(), "--prompt", "?"],
            &[needle],
        );
    }
    // name, what stands there, what stands there instead, what the error names
    for (name, from, to, needle) in [
        (
            "tokenizer.json",
            "<|image_pad|>",
            "<|other|>",
            "<|image_pad|>",
        ),
        ("tokenizer.json", "{", "[", "tokenizer.json"),
        (
            "config.json",
            "\"image_token_id\": 294",
            "\"image_token_id\": 290",
            "image_token_id = 290",
        ),
        (
            "config.json",
            "\"vocab_size\": 304",
            "\"vocab_size\": 300",
            "[304, 64]",
        ),
        ("generation_config.json", "284", "9999", "9999"),
        (
            "chat_template.jinja",
            "{%",
            "{% nonsense %}{%",
            "chat template",
        ),
    ] {
        let folder = copy();
        let path = folder.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name}: {from}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let out = generate(&["--model", folder.path().to_str().unwrap(), "--prompt", "?"]);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{name} {to}: {stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains(needle),
            "{name} {to}: {stderr}"
        );
        assert!(out.stdout.is_empty());
    }
    let folder = copy();
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    refused(
        &["--model", folder.path().to_str().unwrap(), "--prompt", "?"],
        &["model.safetensors"],
    );
}
