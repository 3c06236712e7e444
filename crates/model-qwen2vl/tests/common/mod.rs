//! Golden files made by transformers (tools/make_model_fixtures.py).
#![allow(dead_code)] // each test binary uses a part

use std::path::PathBuf;

use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::Kernels;
use model_qwen2vl::QwenVl;
use policy::Prompt;
use safetensors::SafeTensors;

pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// One golden file, all values in memory.
pub(crate) struct Golden(Vec<u8>);

impl Golden {
    pub(crate) fn open(case: &str) -> Self {
        Self(std::fs::read(fixtures().join(format!("golden/{case}.safetensors"))).unwrap())
    }
    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }
    pub(crate) fn names(&self) -> Vec<String> {
        self.file().names().into_iter().map(String::from).collect()
    }
    pub(crate) fn floats(&self, key: &str) -> Vec<f32> {
        let file = self.file();
        let Ok(view) = file.tensor(key) else { return vec![] };
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
    pub(crate) fn ints(&self, key: &str) -> Vec<i64> {
        let file = self.file();
        let Ok(view) = file.tensor(key) else { return vec![] };
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    }
    pub(crate) fn ids(&self, key: &str) -> Vec<u32> {
        self.ints(key).into_iter().map(|v| v as u32).collect()
    }
    pub(crate) fn prompt<B: Backend>(&self, model: &QwenVl<B>) -> Prompt {
        let grids = self
            .ints("image_grid_thw")
            .chunks_exact(3)
            .map(|g| [g[0] as usize, g[1] as usize, g[2] as usize])
            .collect();
        model.config.prompt(self.ids("input_ids"), self.floats("pixel_values"), grids).unwrap()
    }
}

/// The model of a case.
pub(crate) fn load<B: Kernels>(case: &str) -> QwenVl<B> {
    QwenVl::load(&folder(case), DType::F32, &Default::default()).unwrap()
}

/// The model folder of a case.
pub(crate) fn folder(case: &str) -> PathBuf {
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(fixtures().join(format!("golden/{case}.json"))).unwrap())
            .unwrap();
    fixtures().join(json["model"].as_str().unwrap())
}

pub(crate) fn values<B: Backend, const D: usize>(t: Tensor<B, D>) -> Vec<f32> {
    t.into_data().convert::<f32>().to_vec().unwrap()
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// `|a - b| / |b|` over whole vectors.
pub(crate) fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| (a - b) as f64));
    difference / norm(&mut b.iter().map(|&b| b as f64)).max(1e-12)
}
