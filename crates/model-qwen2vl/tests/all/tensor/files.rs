//! Weights that are read in parts, drawn in parts and written whole.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Tensor, backend::Backend};
use comm::threads;
use kernels::{ParamVisitor, Shard};
use model_qwen2vl::{QwenVl, QwenVlConfig};

use super::{CASES, whole};
use crate::common::folder;

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

/// Ranks read the parts of one folder, and write one that has the same bytes as one rank's.
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
                for name in ["config.json", "model.safetensors"] {
                    assert!(bytes(&dir, name) == bytes(&expected, name), "{case} over {size}: {name}");
                }
            }
        }
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
    assert!(!dir.join("model.safetensors").exists());
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
