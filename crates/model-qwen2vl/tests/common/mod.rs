//! Golden files made by transformers (tools/make_model_fixtures.py).
#![allow(dead_code)] // each test binary uses a part

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::{DType, IndexingUpdateOp, Tensor, TensorData, backend::Backend};
use kernels::{Gradients, Kernels, head, host::int_tensor};
use model_qwen2vl::{QwenVl, load::hub_name};
use policy::{PackedBatch, Pictures, Prompt};
use safetensors::SafeTensors;

/// Where models and goldens are: of the repository, or another folder that holds the tests to models of its own
/// (tools/make_unseen_fixtures.py).
pub(crate) fn fixtures() -> PathBuf {
    match std::env::var_os("GOLDEN_FOLDER") {
        Some(folder) => folder.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures"),
    }
}

/// `committed`, or all cases of the folder that `GOLDEN_FOLDER` names.
pub(crate) fn cases(committed: &[&str]) -> Vec<String> {
    if std::env::var_os("GOLDEN_FOLDER").is_none() {
        return committed.iter().map(|case| case.to_string()).collect();
    }
    let files = std::fs::read_dir(fixtures().join("golden")).unwrap().map(|file| file.unwrap().file_name());
    let mut found: Vec<String> =
        files.filter_map(|name| name.to_str()?.strip_suffix(".json").map(String::from)).collect();
    found.sort();
    assert!(!found.is_empty(), "GOLDEN_FOLDER has no golden/*.json");
    found
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

/// All gradients of a weighted sum of log-probs of a case's response, ours and torch's, under our names. What torch has
/// as zeros and we do not compute (the tower of a prompt without pictures) is left out.
pub(crate) fn torch_gradients<B: Kernels>(case: &str) -> (BTreeMap<String, Vec<f32>>, BTreeMap<String, Vec<f32>>) {
    let model = load::<B>(case);
    let golden = Golden::open(&format!("{case}_grads"));
    let prompt = Golden::open(case).prompt(&model);
    let response = golden.ids("response_ids");
    let device = model.device();
    let batch = PackedBatch::new(&model.config, &[(&prompt, vec![&response[..]])], &device);
    let (hidden, tape) = model.forward_saving(&batch, Pictures::Trained(&[&prompt]), true);
    let dims = hidden.dims();
    let rows = int_tensor(batch.predicting_rows(), &device);
    let targets = int_tensor(response.iter().map(|&i| i as usize), &device);
    let coef = Tensor::<B, 1>::from_data(TensorData::new(golden.floats("coef"), [response.len()]), &device);
    let mut grads = Gradients::default();
    let (weight, name) = model.head();
    let predicting = hidden.select(0, rows.clone());
    let dh = head::log_probs_backward(predicting, weight, targets, 1.0, coef, None, name, &mut grads);
    let d_hidden = Tensor::zeros(dims, &device).select_assign(0, rows, dh, IndexingUpdateOp::Add);
    model.backward(tape, &batch, d_hidden, &mut grads);
    let ours: BTreeMap<String, Vec<f32>> = grads.iter().map(|(k, g)| (k.clone(), values(g.clone()))).collect();
    let theirs = golden
        .names()
        .into_iter()
        .filter(|n| n.ends_with(".weight") || n.ends_with(".bias"))
        .map(|n| (hub_name(&n), golden.floats(&n)))
        .filter(|(n, g)| ours.contains_key(n) || g.iter().any(|v| *v != 0.0))
        .collect();
    (ours, theirs)
}

/// The largest error of a tensor, beside its largest element, of all tensors. What is zero in exact arithmetic counts
/// beside the hundredth of the largest of all.
pub(crate) fn worst_element<'a>(a: &'a BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> (f32, &'a str) {
    let largest = |g: &[f32]| g.iter().fold(0f32, |m, v| m.max(v.abs()));
    let floor = 1e-2 * b.values().map(|g| largest(g)).fold(0.0, f32::max);
    let error = |(name, g): (&'a String, &Vec<f32>)| {
        let gap = g.iter().zip(&b[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        (gap / largest(&b[name]).max(floor), name.as_str())
    };
    a.iter().map(error).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}
