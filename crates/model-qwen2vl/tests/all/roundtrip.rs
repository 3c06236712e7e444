//! Folders that this crate saves: it reads them back, and so does transformers.
//!
//! The second half needs Python and is run by hand for each model (`tools/requirements.txt`):
//!
//! ```text
//! ROUNDTRIP_DIR=saved cargo test -p model-qwen2vl --test all roundtrip
//! python tools/check_roundtrip.py saved/tied_gqa tests/fixtures/golden/one_image_tied.safetensors
//! python tools/check_roundtrip.py saved/untied_mha tests/fixtures/golden/one_image_untied.safetensors
//! python tools/check_roundtrip.py saved/sharded_bf16 tests/fixtures/golden/sharded_bf16.safetensors
//! python tools/check_roundtrip.py saved/f16 tests/fixtures/golden/f16.safetensors
//! python tools/check_roundtrip.py saved/old_layout tests/fixtures/golden/one_image_tied.safetensors
//! goldens=tests/fixtures/golden
//! for family in qwen2_vl qwen3_vl; do
//!     python tools/check_roundtrip.py saved/${family}_tied_gqa $goldens/${family}_tied_gqa.safetensors
//!     python tools/check_roundtrip.py saved/${family}_untied_m* $goldens/${family}_untied_two_images.safetensors
//! done
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::fixtures;
use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::{ParamVisitor, Shard};
use model_qwen2vl::QwenVl;
use model_qwen2vl::load::hub_name;
use policy::{Companions, ModelError};
use safetensors::SafeTensors;

type B = burn_flex::Flex<f32, i32>;

const MODELS: [&str; 9] = [
    "tied_gqa",
    "untied_mha",
    "sharded_bf16",
    "f16",
    "old_layout",
    "qwen2_vl_tied_gqa",
    "qwen2_vl_untied_mha",
    "qwen3_vl_tied_gqa",
    "qwen3_vl_untied_mqa",
];

struct Values(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl<B: Backend> ParamVisitor<B> for Values {
    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        self.0.insert(name.to_string(), (shard.shape.clone(), crate::common::values(tensor.clone())));
    }
}

fn values(model: &QwenVl<B>) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut values = Values(BTreeMap::new());
    model.clone().visit(&mut values);
    values.0
}

pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, safetensors::Dtype, Vec<u8>)>;

/// Tensors of all weight files of a folder by their name on the hub, and the files' metadata.
pub(crate) fn tensors(dir: &Path) -> (Tensors, Vec<Option<std::collections::HashMap<String, String>>>) {
    let (mut all, mut metadata) = (Tensors::new(), Vec::new());
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            metadata.push(SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone());
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                all.insert(hub_name(name), (view.shape().to_vec(), view.dtype(), view.data().to_vec()));
            }
        }
    }
    (all, metadata)
}

fn saved(model: &str, kept: &tempfile::TempDir) -> PathBuf {
    std::env::var_os("ROUNDTRIP_DIR").map_or(kept.path().to_path_buf(), PathBuf::from).join(model)
}

#[test]
fn a_saved_folder_is_the_one_that_was_loaded() {
    let temporary = tempfile::tempdir().unwrap();
    for name in MODELS {
        let source = fixtures().join("models").join(name);
        let model = QwenVl::<B>::load(&source, DType::F32, &Default::default()).unwrap();
        let dir = saved(name, &temporary);
        model.save(&dir, Some(&Companions::read(&source).unwrap())).unwrap();

        let again = QwenVl::<B>::load(&dir, DType::F32, &Default::default()).unwrap();
        assert!(values(&model) == values(&again), "{name}: the weights differ");

        let ((theirs, their_metadata), (ours, metadata)) = (tensors(&source), tensors(&dir));
        assert_eq!(
            metadata,
            [their_metadata[0].clone()],
            "{name}: one file with the metadata that transformers writes"
        );
        // A tied head is the embedding: it is not written twice.
        let expected: Vec<_> = theirs
            .iter()
            .filter(|(n, _)| !(model.config.text.tie_word_embeddings && *n == "lm_head.weight"))
            .map(|(n, t)| (n, &t.0))
            .collect();
        assert_eq!(ours.iter().map(|(n, t)| (n, &t.0)).collect::<Vec<_>>(), expected, "{name}: names and shapes");
        // The names in the file are the hub's own, which every loader reads. Qwen3-VL's are longer.
        let prefixes = match model.config.family.model_type {
            "qwen3_vl" => ["model.visual.", "model.language_model."],
            _ => ["visual.", "model."],
        };
        let text = |n: &str| ["layers.", "norm.", "embed_tokens."].iter().any(|part| n.starts_with(part));
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert!(file.names().into_iter().all(|n| n.starts_with(prefixes[0])
            || n.strip_prefix(prefixes[1]).is_some_and(text)
            || n == "lm_head.weight"));
        assert!(ours.values().all(|t| t.1 == safetensors::Dtype::F32));
        for companion in [
            "tokenizer.json",
            "tokenizer_config.json",
            "preprocessor_config.json",
            "generation_config.json",
            "chat_template.jinja",
            "chat_template.json",
        ] {
            assert_eq!(
                std::fs::read(dir.join(companion)).ok(),
                std::fs::read(source.join(companion)).ok(),
                "{name}: {companion}"
            );
        }
        // The config is the one that was read but for the number format.
        let json = |dir: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap()
        };
        let (mut a, mut b) = (json(&source), json(&dir));
        for config in [&mut a, &mut b] {
            strip_dtype(config);
        }
        assert_eq!(a, b, "{name}: config.json");
        println!(
            "{name}: {} tensors, {} values equal",
            ours.len(),
            values(&again).values().map(|v| v.1.len()).sum::<usize>()
        );
    }
}

fn strip_dtype(config: &mut serde_json::Value) {
    if let serde_json::Value::Object(map) = config {
        map.remove("dtype");
        map.remove("torch_dtype");
        map.values_mut().for_each(strip_dtype);
    }
}

/// Sixteen-bit weights that are kept in sixteen bits come back bit for bit.
#[test]
fn sixteen_bit_weights_are_written_as_they_were() {
    let temporary = tempfile::tempdir().unwrap();
    let source = fixtures().join("models/sharded_bf16");
    let model = QwenVl::<B>::load(&source, DType::BF16, &Default::default()).unwrap();
    model.save(temporary.path(), Some(&Companions::read(&source).unwrap())).unwrap();
    let (theirs, ours) = (tensors(&source).0, tensors(temporary.path()).0);
    assert!(!ours.is_empty() && ours.iter().all(|(name, tensor)| theirs[name] == *tensor));
}

/// A copy of one shard under another name that the index lists too: which values count is not known.
#[test]
fn a_tensor_in_two_shards_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures().join("models/sharded_bf16");
    for entry in std::fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let shard = std::fs::read(source.join("model-00002-of-00003.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&shard).unwrap();
    let name = *file.names().iter().min().unwrap();
    let again = dir.path().join("model-again.safetensors");
    safetensors::serialize_to_file([(name, file.tensor(name).unwrap())], None, &again).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    json["weight_map"]["extra"] = "model-again.safetensors".into();
    std::fs::write(&index, json.to_string()).unwrap();
    let error = QwenVl::<B>::load(dir.path(), DType::F32, &Default::default()).unwrap_err().to_string();
    for part in [name, "twice", "model-again.safetensors", "model-00002-of-00003.safetensors", "remove one"] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// Another user's server reads the folder: the weights are as readable as the files beside them.
/// Regression: they were readable by their owner alone.
#[cfg(unix)]
#[test]
fn weights_are_as_readable_as_the_config() {
    let temporary = tempfile::tempdir().unwrap();
    let model = QwenVl::<B>::load(&fixtures().join("models/f16"), DType::F32, &Default::default()).unwrap();
    model.save(temporary.path(), None).unwrap();
    let mode = |name: &str| std::fs::metadata(temporary.path().join(name)).unwrap().permissions();
    assert_eq!(mode("model.safetensors"), mode("config.json"));
}

/// Multiplies one tensor.
struct Break(&'static str, f64);

impl ParamVisitor<B> for Break {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        if name == self.0 {
            *tensor = tensor.clone().add_scalar(1.0).mul_scalar(self.1);
        }
    }
}

/// What `load` refuses `save` refuses: a diverged run does not write folders that nobody can read.
#[test]
fn weights_that_are_no_numbers_are_not_written() {
    let source = fixtures().join("models/sharded_bf16");
    for (dtype, factor) in [(DType::F32, f64::NAN), (DType::F32, f64::INFINITY), (DType::BF16, f64::NEG_INFINITY)] {
        let temporary = tempfile::tempdir().unwrap();
        let mut model = QwenVl::<B>::load(&source, dtype, &Default::default()).unwrap();
        model.save(temporary.path(), None).unwrap();
        let name = "model.norm.weight";
        model.visit(&mut Break(name, factor));
        let error = model.save(temporary.path(), None).unwrap_err();
        assert!(matches!(&error, ModelError::NotFinite { name: found, .. } if found == name), "{error}");
        assert!(!temporary.path().join("model.safetensors").exists(), "nothing is left that looks like weights");
    }
}

/// A device that fails while weights are read gives an error and no file.
#[cfg(debug_assertions)]
#[test]
fn a_device_that_fails_leaves_no_weights() {
    use kernels::host::fault::failing_from;
    let source = fixtures().join("models/tied_gqa");
    let model = QwenVl::<B>::load(&source, DType::F32, &Default::default()).unwrap();
    for nth in [0, 1, 7] {
        let temporary = tempfile::tempdir().unwrap();
        let error = failing_from(nth, || model.save(temporary.path(), None)).unwrap_err();
        assert!(matches!(error, ModelError::Device(_)), "{error}");
        assert!(!temporary.path().join("model.safetensors").exists());
    }
}

/// The folder that a run started from may go away: what a checkpoint needs of it is in memory.
#[test]
fn companions_outlive_their_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, saved) = (temporary.path().join("source"), temporary.path().join("saved"));
    std::fs::create_dir(&folder).unwrap();
    let source = fixtures().join("models/tied_gqa");
    for entry in std::fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let model = QwenVl::<B>::load(&folder, DType::F32, &Default::default()).unwrap();
    let companions = Companions::read(&folder).unwrap();
    assert!(companions.get("tokenizer.json").is_some() && companions.get("model.safetensors").is_none());
    std::fs::remove_dir_all(&folder).unwrap();
    model.save(&saved, Some(&companions)).unwrap();
    for (name, bytes) in companions.files() {
        assert!(std::fs::read(saved.join(name)).unwrap() == bytes, "{name}");
    }
}

/// A copy of a model folder.
#[cfg(unix)]
fn copy(model: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixtures().join("models").join(model)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[cfg(unix)]
#[test]
fn what_a_link_brings_in_is_not_saved() {
    use std::os::unix::fs::symlink;
    let source = copy("tied_gqa");
    let device = Default::default();
    let model = QwenVl::<B>::load(source.path(), DType::F32, &device).unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "SECRET").unwrap();
    symlink(outside.path().join("secret"), source.path().join("added_tokens.json")).unwrap();
    let to = tempfile::tempdir().unwrap();
    let error = Companions::read(source.path()).unwrap_err().to_string();
    assert!(error.contains("added_tokens.json") && error.contains("outside the model folder"), "{error}");
    // A pipe would be waited for.
    std::fs::remove_file(source.path().join("added_tokens.json")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(source.path().join("merges.txt")).status().unwrap().success());
    assert!(Companions::read(source.path()).unwrap_err().to_string().contains("a pipe"));
    // A link within the folder is its own file, and so is one into the cache that the folder is a snapshot of.
    std::fs::remove_file(source.path().join("merges.txt")).unwrap();
    std::fs::write(source.path().join("one"), "m").unwrap();
    symlink("one", source.path().join("merges.txt")).unwrap();
    model.save(to.path(), Some(&Companions::read(source.path()).unwrap())).unwrap();
    assert_eq!(std::fs::read_to_string(to.path().join("merges.txt")).unwrap(), "m");
}

#[cfg(unix)]
#[test]
fn hostile_weight_files_are_refused() {
    let device = Default::default();
    let refusal = |dir: &Path| QwenVl::<B>::load(dir, DType::F32, &device).err().unwrap().to_string();
    let folder = copy("tied_gqa");
    let weights = folder.path().join("model.safetensors");
    let own = std::fs::read(&weights).unwrap();
    // Names that a terminal would obey, and names without end.
    let header_bytes = u64::from_le_bytes(own[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&own[8..8 + header_bytes]).unwrap();
    let mut named = header.clone();
    let first = named.as_object().unwrap().keys().find(|k| *k != "__metadata__").unwrap().clone();
    let tensor = named.as_object_mut().unwrap().remove(&first).unwrap();
    named[format!("\u{1b}[2J\u{7}{}", "x".repeat(100_000))] = tensor;
    let with = |header: &serde_json::Value| {
        let text = header.to_string();
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &own[8 + header_bytes..]].concat()
    };
    std::fs::write(&weights, with(&named)).unwrap();
    let error = refusal(folder.path());
    assert!(error.contains(&first) && error.len() < 3_000 && !error.contains(['\u{1b}', '\u{7}']), "{error}");
    // A header that is all of the memory.
    let mut long = own.clone();
    long[..8].copy_from_slice(&(99_000_000u64).to_le_bytes());
    std::fs::write(&weights, &long).unwrap();
    let error = refusal(folder.path());
    assert!(error.contains("99000000 bytes") && error.contains("weights_header_bytes="), "{error}");
    for damage in [&own[..4], &own[..8], b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}"] {
        std::fs::write(&weights, damage).unwrap();
        assert!(refusal(folder.path()).contains("model.safetensors"));
    }
    std::fs::remove_file(&weights).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&weights).status().unwrap().success());
    assert!(refusal(folder.path()).contains("a pipe"));
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(folder.path().join("config.json")).status().unwrap().success());
    assert!(refusal(folder.path()).contains("a pipe"));
}
