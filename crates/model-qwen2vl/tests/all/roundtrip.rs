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
//! for family in qwen2_vl qwen3_vl; do
//!     python tools/check_roundtrip.py saved/${family}_tied_gqa tests/fixtures/golden/${family}_tied_gqa.safetensors
//!     python tools/check_roundtrip.py saved/${family}_untied_m* tests/fixtures/golden/${family}_untied_two_images.safetensors
//! done
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::common::fixtures;
use burn::tensor::{DType, Tensor, backend::Backend};
use model_qwen2vl::load::hub_name;
use model_qwen2vl::{ParamVisitor, Qwen2_5_VL};
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
    fn visit<const D: usize>(&mut self, name: &str, shape: &[usize], tensor: &mut Tensor<B, D>) {
        self.0.insert(name.to_string(), (shape.to_vec(), crate::common::values(tensor.clone())));
    }
}

fn values(model: &Qwen2_5_VL<B>) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let mut values = Values(BTreeMap::new());
    model.clone().visit(&mut values);
    values.0
}

type Tensors = BTreeMap<String, (Vec<usize>, safetensors::Dtype, Vec<u8>)>;

/// Tensors of all weight files of a folder by their name on the hub, and the files' metadata.
fn tensors(dir: &Path) -> (Tensors, Vec<Option<std::collections::HashMap<String, String>>>) {
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
        let model = Qwen2_5_VL::<B>::load(&source, DType::F32, &Default::default()).unwrap();
        let dir = saved(name, &temporary);
        model.save(&dir, Some(&source)).unwrap();

        let again = Qwen2_5_VL::<B>::load(&dir, DType::F32, &Default::default()).unwrap();
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
    let model = Qwen2_5_VL::<B>::load(&source, DType::BF16, &Default::default()).unwrap();
    model.save(temporary.path(), Some(&source)).unwrap();
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
    let error = Qwen2_5_VL::<B>::load(dir.path(), DType::F32, &Default::default()).unwrap_err().to_string();
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
    let model = Qwen2_5_VL::<B>::load(&fixtures().join("models/f16"), DType::F32, &Default::default()).unwrap();
    model.save(temporary.path(), None).unwrap();
    let mode = |name: &str| std::fs::metadata(temporary.path().join(name)).unwrap().permissions();
    assert_eq!(mode("model.safetensors"), mode("config.json"));
}
