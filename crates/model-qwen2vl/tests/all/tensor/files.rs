//! Weights that are read in parts, drawn in parts and written whole.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Tensor, backend::Backend};
use comm::threads;
use kernels::{ParamVisitor, Shard};
use model_qwen2vl::{QwenVl, QwenVlConfig};

use policy::{Hold, Learning, ModelCopy};

use super::{CASES, whole};
use crate::common::folder;
use crate::roundtrip::tensors;

type B = burn_flex::Flex<f32, i32>;

struct Values(BTreeMap<String, Vec<f32>>);
impl<B: Backend> ParamVisitor<B> for Values {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        self.0.insert(name.to_string(), crate::common::values(tensor.clone()));
    }
}

fn own(model: &QwenVl<B>) -> BTreeMap<String, Vec<f32>> {
    let mut values = Values(BTreeMap::new());
    model.clone().visit(&mut values);
    values.0
}

fn bytes(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

/// Ranks read the parts of one folder, and write one that has the same tensors as one rank's.
#[test]
fn a_folder_is_read_in_parts_and_written_whole() {
    for (case, sizes) in CASES {
        for dtype in [DType::F32, DType::BF16] {
            let temporary = tempfile::tempdir().unwrap();
            let alone = QwenVl::<B>::load(&folder(case), dtype, &Default::default()).unwrap();
            let expected = temporary.path().join("alone");
            alone.save(&expected, None).unwrap();
            for &size in sizes {
                let dir = temporary.path().join(size.to_string());
                let parts = threads::run(size, |ranks| {
                    let model = QwenVl::<B>::load_parallel(&folder(case), dtype, &Default::default(), &ranks).unwrap();
                    model.save(&dir, None).unwrap();
                    let own = own(&model);
                    (own.values().map(Vec::len).sum::<usize>(), whole(&model, &own))
                });
                let all: usize = own(&alone).values().map(Vec::len).sum();
                assert!(parts.iter().all(|(len, _)| *len < all), "{case}: a rank has all weights");
                assert!(parts.iter().all(|(_, whole)| *whole == own(&alone)), "{case} over {size}");
                assert!(bytes(&dir, "config.json") == bytes(&expected, "config.json"), "{case} over {size}");
                assert!(tensors(&dir).0 == tensors(&expected).0, "{case} over {size}: tensors");
            }
        }
    }
}

/// Two copies of the model, each shared out over two ranks, write one folder: four files with whole tensors, even by
/// bytes, and the index that Hugging Face's loaders read.
#[test]
fn all_ranks_of_all_copies_write_a_folder() {
    for hold in [Hold::Tensors, Hold::Bytes] {
        let temporary = tempfile::tempdir().unwrap();
        let (case, dir, expected) = ("one_image_tied", temporary.path().join("four"), temporary.path().join("one"));
        let alone = QwenVl::<B>::load(&folder(case), DType::F32, &Default::default()).unwrap();
        alone.save(&expected, None).unwrap();
        for index in 0..2 {
            threads::run(2, |ranks| {
                let model = QwenVl::<B>::load_parallel(&folder(case), DType::F32, &Default::default(), &ranks).unwrap();
                Learning::stage(&model, None, ModelCopy { index, count: 2 }, hold).unwrap().write(&dir).unwrap();
            });
        }
        assert!(own(&QwenVl::load(&dir, DType::F32, &Default::default()).unwrap()) == own(&alone), "{hold:?}");
        assert!(tensors(&dir).0 == tensors(&expected).0, "{hold:?}");
        let index: serde_json::Value = serde_json::from_slice(&bytes(&dir, "model.safetensors.index.json")).unwrap();
        let total: usize = tensors(&dir).0.values().map(|(_, _, bytes)| bytes.len()).sum();
        assert_eq!(index["metadata"]["total_size"], total);
        let mut largest = 0;
        for rank in 1..=4 {
            let name = format!("model-{rank:05}-of-00004.safetensors");
            let file = bytes(&dir, &name);
            let held = safetensors::SafeTensors::deserialize(&file).unwrap();
            assert!(!held.is_empty() && held.names().iter().all(|tensor| index["weight_map"][*tensor] == name[..]));
            largest = largest.max(file.len());
        }
        assert_eq!(index["weight_map"].as_object().unwrap().len(), tensors(&dir).0.len());
        assert!(largest < total / 4 + total / 8, "{largest} of {total} bytes in one of four files");
    }
}

/// Random weights do not depend on the number of ranks.
#[test]
fn random_weights_are_the_same() {
    for preset in ["toy", "qwen2vl-toy", "qwen3vl-toy"] {
        let config = QwenVlConfig::preset(preset).unwrap();
        let alone = own(&QwenVl::<B>::random(config.clone(), 5, DType::F32, &Default::default()));
        for size in [1, 2, 4] {
            let parts = threads::run(size, |ranks| {
                let device = Default::default();
                let model = QwenVl::<B>::random_parallel(config.clone(), 5, DType::F32, &device, &ranks).unwrap();
                whole(&model, &own(&model))
            });
            assert!(parts.iter().all(|whole| *whole == alone), "{preset} over {size}");
        }
    }
}

/// Weights that are no numbers, in the part of a rank that does not write: an error for all, and no file.
#[test]
fn what_cannot_be_written_is_an_error_on_all_ranks() {
    struct Break;
    impl ParamVisitor<B> for Break {
        fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
            if name == "model.layers.1.mlp.down_proj.weight" {
                *tensor = tensor.clone().mul_scalar(f32::NAN);
            }
        }
    }
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("broken");
    let errors = threads::run(2, |ranks| {
        let mut model =
            QwenVl::<B>::load_parallel(&folder("one_image_tied"), DType::F32, &Default::default(), &ranks).unwrap();
        if !ranks.is_first() {
            model.visit(&mut Break);
        }
        model.save(&dir, None).unwrap_err().to_string()
    });
    assert!(errors.iter().all(|error| error.contains("down_proj.weight is not finite")), "{errors:?}");
    // Of the two files one would have had that tensor.
    let left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let weights = left.iter().filter(|name| name.to_string_lossy().ends_with(".safetensors")).count();
    assert_eq!(weights, 1, "{left:?}");
    // A folder that cannot be made: of the first rank's error the others hear, too.
    let file = temporary.path().join("file");
    std::fs::write(&file, "").unwrap();
    let errors = threads::run(2, |ranks| {
        let device = Default::default();
        let model = QwenVl::<B>::load_parallel(&folder("one_image_tied"), DType::F32, &device, &ranks).unwrap();
        model.save(&file.join("below"), None).unwrap_err().to_string()
    });
    assert!(errors.iter().all(|error| error.contains("Not a directory")), "{errors:?}");
}
