//! The real `generate`: against what transformers computed, what its options do, and (`refused`) against input that
//! cannot be used.

mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn model(name: &str) -> PathBuf {
    fixtures().join("models").join(name)
}

fn image(name: &str) -> PathBuf {
    fixtures().join("images").join(name)
}

/// The program with a model folder, pictures and a prompt.
fn call(model: &Path, images: &[PathBuf], prompt: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_generate"));
    command.arg("--model").arg(model).arg("--prompt").arg(prompt);
    for image in images {
        command.arg("--image").arg(image);
    }
    command.stdin(Stdio::null());
    command
}

/// The usual call: `tied_gqa` and one picture.
fn usual() -> Command {
    call(&model("tied_gqa"), &[image("wide.png")], "What is this?")
}

trait Run {
    /// More options, split at spaces.
    fn with(self, options: &str) -> Self;
    /// An option with a path.
    fn path(self, option: &str, path: &Path) -> Self;
    /// The text that the call writes; it must succeed and say nothing else.
    fn text(self) -> String;
    /// The call must end with exit code 2, nothing on standard output, and an error that names all of these.
    fn refused(self, needles: &[&str]);
}

impl Run for Command {
    fn with(mut self, options: &str) -> Self {
        self.args(options.split_whitespace());
        self
    }
    fn path(mut self, option: &str, path: &Path) -> Self {
        self.arg(option).arg(path);
        self
    }
    fn text(mut self) -> String {
        let out = self.output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), &*stderr), (Some(0), ""), "{self:?}");
        String::from_utf8(out.stdout).unwrap()
    }
    #[track_caller]
    fn refused(mut self, needles: &[&str]) {
        let out = self.output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{self:?}: {stderr}");
        assert!(out.stdout.is_empty(), "{self:?}");
        assert!(stderr.starts_with("error: "), "{self:?}: {stderr}");
        for needle in needles {
            assert!(stderr.contains(needle), "{self:?}: no {needle:?} in {stderr}");
        }
    }
}

/// A tensor: type, shape, bytes.
type Entry = (Dtype, Vec<usize>, Vec<u8>);

fn entries(path: &Path) -> BTreeMap<String, Entry> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |t: safetensors::tensor::TensorView| (t.dtype(), t.shape().to_vec(), t.data().to_vec());
    file.iter().map(|(name, t)| (name.to_owned(), entry(t))).collect()
}

fn floats(entry: &Entry) -> Vec<f32> {
    assert_eq!(entry.0, Dtype::F32);
    let values = entry.2.chunks_exact(4);
    values.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn ints(entry: &Entry) -> Vec<i64> {
    assert_eq!(entry.0, Dtype::I64);
    let values = entry.2.chunks_exact(8);
    values.map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn files(folder: &TempDir) -> usize {
    std::fs::read_dir(folder.path()).unwrap().count()
}

/// Golden cases, and the model folder where it is not the case's own.
const CASES: [(&str, Option<&str>); 11] = [
    ("one_image_tied", None),
    ("two_images", None),
    ("text_only", None),
    ("partial_windows", None),
    ("one_image_untied", None),
    ("sharded_bf16", None),
    ("f16", None),
    ("one_image_tied", Some("old_layout")),
    ("two_images", Some("old_layout")),
    ("text_only", Some("old_layout")),
    ("partial_windows", Some("old_layout")),
];

fn matches_transformers(backend: &str) {
    let folder = tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    for (case, other_model) in CASES {
        let what = format!("{backend} {case} {other_model:?}");
        let about = json(&fixtures().join(format!("golden/{case}.json")));
        let text = |key: &str| about[key].as_str();
        let model = match other_model {
            Some(name) => model(name),
            None => fixtures().join(text("model").unwrap()),
        };
        let images: Vec<PathBuf> =
            about["images"].as_array().unwrap().iter().map(|i| fixtures().join(i.as_str().unwrap())).collect();
        // A picture at the front may be written or not: once in one way, once in the other.
        let problem = text("problem").unwrap();
        let bare = problem.strip_prefix("<image>").filter(|_| other_model.is_none());
        let mut command = call(&model, &images, bare.unwrap_or(problem))
            .with(&format!("--backend {backend} --dtype f32"))
            .with(&format!("--max-new-tokens {}", about["max_new_tokens"]))
            .path("--dump", &dump);
        if let Some(system) = text("system") {
            command.args(["--system", system]);
        }
        assert_eq!(command.text(), format!("{}\n", text("generated_text").unwrap()), "{what}");
        compare(&dump, &fixtures().join(format!("golden/{case}.safetensors")), &what);
    }
}

fn compare(dump: &Path, golden: &Path, what: &str) {
    let (got, wanted) = (entries(dump), entries(golden));
    let with_images = wanted.contains_key("pixel_values");
    let mut keys = BTreeSet::from(["input_ids", "position_ids", "hidden_last", "logits"]);
    keys.extend(["pixel_values", "image_grid_thw", "image_embeds"]);
    keys.extend(["generated_ids", "generated_logprobs"]);
    keys.extend(with_images.then_some("visual_focus"));
    assert_eq!(got.keys().map(String::as_str).collect::<BTreeSet<_>>(), keys, "{what}");
    // The picture first, and what follows from it later: the first difference is the cause.
    let order = ["input_ids", "pixel_values", "image_embeds", "hidden_last"];
    for key in order.into_iter().chain(keys) {
        let entry = &got[key];
        let Some(golden) = wanted.get(key) else {
            // Text alone: the entries of the picture have no rows.
            assert!(!with_images && entry.1[0] == 0, "{what} {key}: {:?}", entry.1);
            continue;
        };
        assert_eq!((entry.0, &entry.1), (golden.0, &golden.1), "{what} {key}");
        if entry.0 == Dtype::I64 {
            assert_eq!(ints(entry), ints(golden), "{what} {key}");
            continue;
        }
        let (found, expected) = (floats(entry), floats(golden));
        assert_eq!(found.len(), expected.len(), "{what} {key}");
        let differences: Vec<f32> = found.into_iter().zip(expected).map(|(a, b)| (a - b).abs()).collect();
        let largest = differences.iter().copied().fold(0.0, f32::max);
        if key == "pixel_values" {
            let equal = differences.iter().filter(|d| **d < 1e-6).count();
            assert!(equal as f64 >= 0.995 * differences.len() as f64, "{what} {key}: {equal}");
            // Two steps of a byte, divided by the smallest standard deviation.
            assert!(largest <= 2.0 / 255.0 / 0.261, "{what} {key}: {largest}");
        } else {
            assert!(largest < 1e-3, "{what} {key}: {largest}");
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
    let folder = tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let options = "--temperature 0.7 --top-p 0.8 --max-new-tokens 1";
    usual().with(options).path("--dump", &dump).text();
    let got = entries(&dump);
    let (logits, ids) = (floats(&got["logits"]), ints(&got["generated_ids"]));
    let vocab = got["logits"].1[1];
    let last = &logits[logits.len() - vocab..];
    let scaled: Vec<f64> = last.iter().map(|&z| f64::from(z) / 0.7).collect();
    let sum: f64 = scaled.iter().map(|z| z.exp()).sum();
    let expected = scaled[ids[0] as usize] - sum.ln();
    let found = f64::from(floats(&got["generated_logprobs"])[0]);
    assert!((expected - found).abs() < 1e-4, "{expected} {found}");
}

#[test]
fn seeds_decide() {
    let run = |options: &str| usual().with("--max-new-tokens 40").with(options).text();
    let one = run("--temperature 1 --seed 1");
    assert_eq!(one, run("--temperature 1 --seed 1"));
    assert_ne!(one, run("--temperature 1 --seed 2"));
    // Greedy has no randomness, and the smallest nucleus holds the likeliest token alone.
    let greedy = run("--seed 1");
    assert_ne!(greedy, one);
    assert_eq!(greedy, run("--seed 2"));
    assert_eq!(greedy, run("--temperature 1 --top-p 0.001 --seed 3"));
}

/// At a high temperature all tokens are nearly equally likely, but vision tokens never come.
#[test]
fn vision_tokens_are_never_sampled() {
    let folder = tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let about = json(&fixtures().join("golden/f16.json"));
    let numbers = |key: &str| -> Vec<i64> { about[key].as_array().unwrap().iter().filter_map(Value::as_i64).collect() };
    let (vision, ends) = (numbers("suppress_tokens"), numbers("eos_token_ids"));
    call(&model("f16"), &[image("small.png")], "x?")
        .with("--temperature 50 --min-new-tokens 600 --max-new-tokens 600")
        .path("--dump", &dump)
        .text();
    let ids = ints(&entries(&dump)["generated_ids"]);
    assert_eq!(ids.len(), 600);
    assert!(ids.iter().all(|id| !vision.contains(id)));
    assert!(ids.iter().all(|id| !ends.contains(id)), "no end before the minimum");
    // Most of the vocabulary is seen, so that an absent token is no accident.
    assert!(ids.iter().collect::<BTreeSet<_>>().len() > 200);
}

#[test]
fn the_minimum_length_is_kept() {
    let folder = tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let run = |options: &str| {
        let command = call(&model("f16"), &[image("small.png")], "x?").path("--dump", &dump);
        command.with("--max-new-tokens 60").with(options).text();
        ints(&entries(&dump)["generated_ids"])
    };
    // By itself this response ends early (golden `f16`).
    let free = run("");
    assert!(free.len() < 24);
    let forced = run("--min-new-tokens 40");
    assert!(forced.len() >= 40);
    assert_eq!(free[..free.len() - 1], forced[..free.len() - 1]);
}

#[test]
fn no_tokens_are_no_error() {
    let folder = tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    assert_eq!(usual().with("--max-new-tokens 0").path("--dump", &dump).text(), "\n");
    let got = entries(&dump);
    assert_eq!((&got["generated_ids"].1, &got["visual_focus"].1), (&vec![0], &vec![0]));
    assert!(got["logits"].1[0] > 0);
}

#[test]
fn pixel_limits_change_the_picture() {
    let folder = tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    let options = "--min-pixels 784 --max-pixels 3136 --max-new-tokens 1";
    usual().with(options).path("--dump", &dump).text();
    let grid = ints(&entries(&dump)["image_grid_thw"]);
    // 3136 pixels, each side then rounded to the nearest multiple of 28.
    assert!(grid[1] * grid[2] * 14 * 14 <= 70 * 70 * 2, "{grid:?}");
    usual().with("--max-new-tokens 1").path("--dump", &dump).text();
    let free = ints(&entries(&dump)["image_grid_thw"]);
    assert!(grid[1] * grid[2] < free[1] * free[2], "{grid:?} {free:?}");
    // 0 is no limit.
    usual().with("--min-pixels 0 --max-pixels 0 --max-new-tokens 1").path("--dump", &dump).text();
    assert_eq!(ints(&entries(&dump)["image_grid_thw"]), free);
}

#[test]
fn focus_maps_are_pictures() {
    let folder = tempdir().unwrap();
    let map = folder.path().join("map.png");
    let two = [image("wide.png"), image("photo.jpg")];
    for (images, options) in [
        (&two[..1], "--max-new-tokens 30"),
        (&two[..1], "--max-new-tokens 1"),
        (&two[..], "--max-new-tokens 200 --min-new-tokens 200"),
    ] {
        let command = call(&model("tied_gqa"), images, "Wie viele Kreise? 30° √2 π");
        // The tokens of this model may be of any script, and fonts are the machine's.
        let out = command.with(options).path("--focus-map", &map).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && (said.is_empty() || said.starts_with("note: ")), "{said}");
        let picture = image::load_from_memory(&std::fs::read(&map).unwrap()).unwrap().into_rgb8();
        let colours: BTreeSet<[u8; 3]> = picture.pixels().map(|p| p.0).collect();
        assert!(colours.len() > 100, "{options}: {}", colours.len());
        assert!(picture.width() > 1000 && picture.height() > 400);
    }
    // Only the picture is left, and no temporary file.
    assert_eq!(files(&folder), 1);
}

/// A drawing leaves its text to whatever shows it; for pixels, what no font has is said once.
#[test]
fn focus_maps_have_any_text() {
    let folder = tempdir().unwrap();
    let prompt = "漢字 30° <b>&\u{1b}\u{202e} \u{10fffd}";
    let run = |name: &str| {
        let path = folder.path().join(name);
        let out = call(&model("tied_gqa"), &[image("small.png")], prompt)
            .with("--max-new-tokens 8")
            .path("--focus-map", &path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{said}");
        (std::fs::read(&path).unwrap(), said)
    };
    for (name, start) in [("map.svg", "<svg "), ("map.html", "<!DOCTYPE html>")] {
        let (bytes, said) = run(name);
        let text = String::from_utf8(bytes).unwrap();
        assert!(said.is_empty() && text.starts_with(start), "{said}");
        assert!(text.contains("漢字") && text.contains("30°"), "the prompt is missing");
        assert!(text.contains("&lt;b&gt;&amp;\\u{1b}\\u{202e}") && !text.contains("<b>"));
    }
    let (bytes, said) = run("map.png");
    assert!(bytes.starts_with(b"\x89PNG"));
    assert!(said.starts_with("note: ") && said.contains("U+10FFFD") && said.contains("apt install"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Whoever reads the text may stop early; a file that was asked for is written all the same.
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    for with_dump in [false, true] {
        let mut command = usual();
        if with_dump {
            command = command.path("--dump", &dump);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!((out.status.code(), &*String::from_utf8_lossy(&out.stderr)), (Some(0), ""));
        assert_eq!(dump.exists(), with_dump);
    }
}

/// An interrupt ends the program with 130 and leaves the older file and nothing unfinished.
#[cfg(unix)]
#[test]
fn interrupts_leave_nothing_behind() {
    use std::io::Read;
    let folder = tempdir().unwrap();
    let dump = folder.path().join("dump.safetensors");
    std::fs::write(&dump, "older").unwrap();
    let mut child = usual()
        .with("--max-new-tokens 4000 --min-new-tokens 4000")
        .path("--dump", &dump)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    assert_eq!(files(&folder), 2);
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!((files(&folder), std::fs::read(&dump).unwrap()), (1, b"older".to_vec()));
}

/// An adapter may name its base by its id on the hub, as PEFT's do, and at a revision. Nothing is asked here: the cache
/// has it.
#[test]
fn an_adapters_base_may_be_a_model_on_the_hub() {
    let place = tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    };
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let (cache, adapter) = (place.path().join("hub"), place.path().join("adapter"));
    let repository = cache.join("models--me--base");
    copy(&model("tied_gqa"), &repository.join("snapshots").join(commit));
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::write(repository.join("refs/main"), commit).unwrap();
    let own = fixtures().join("adapters/qwen2_5_decoder");
    copy(&own, &adapter);
    let named = |base: &str, revision: Value| {
        let path = adapter.join("adapter_config.json");
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (config["base_model_name_or_path"], config["revision"]) = (base.into(), revision);
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = call(&adapter, &[image("wide.png")], "What is this?");
        command.env("HF_HUB_CACHE", &cache).env("HF_HUB_OFFLINE", "1").current_dir(place.path());
        command.with("--max-new-tokens 12")
    };
    let expected = call(&own, &[image("wide.png")], "What is this?").with("--max-new-tokens 12").text();
    assert_ne!(expected, usual().with("--max-new-tokens 12").text(), "the adapter changes the answer");
    for (base, revision) in [
        ("me/base", Value::Null),
        ("me/base", "main".into()),
        ("me/base", commit.into()),
        (&format!("me/base@{commit}"), Value::Null),
    ] {
        assert_eq!(named(base, revision).text(), expected, "{base}");
    }
    named("me/none", Value::Null).refused(&["base_model_name_or_path", "me/none", "HF_HUB_OFFLINE"]);
    named("me/base", "other".into()).refused(&["base_model_name_or_path", "me/base@other", "HF_HUB_OFFLINE"]);
    named("./none", Value::Null).refused(&["base_model_name_or_path", "is no model folder here"]);
}
