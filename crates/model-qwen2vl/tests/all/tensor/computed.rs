//! Forward and backward passes.

use std::collections::BTreeMap;

use burn::tensor::{DType, IndexingUpdateOp, Tensor, TensorData};
use comm::threads;
use kernels::{Gradients, Kernels, head, host::int_tensor};
use model_qwen2vl::QwenVl;
use policy::{PackedBatch, Pictures, Prompt, Scoring};

use super::{CASES, whole};
use crate::common::{Golden, folder, load, values};
use crate::gradients::{Group, coefficients, engine};
use crate::lora::all_adapted;

/// What a model says of some prompts and responses.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    /// By what is said.
    numbers: BTreeMap<&'static str, Vec<f32>>,
    /// Whole gradients: by what is trained how, and by parameter.
    gradients: BTreeMap<String, BTreeMap<String, Vec<f32>>>,
}

/// A prompt with pictures, one without, and another with the first one's pictures and other text.
fn prompts<B: Kernels>(case: &str, model: &QwenVl<B>) -> Vec<Prompt> {
    let pictured = Golden::open(case).prompt(model);
    let text = model.prompt((0..9).map(|i| 30 + 7 * i).collect(), vec![], vec![]).unwrap();
    let mut ids = pictured.input_ids.clone();
    ids.extend([40, 41, 42]);
    let longer = model.prompt(ids, pictured.pixel_values.to_vec(), pictured.image_grid_thw.clone()).unwrap();
    vec![pictured, text, longer]
}

fn said<B: Kernels>(case: &str, model: &QwenVl<B>) -> Said {
    let device = model.device();
    let prompts = prompts(case, model);
    let responses: Vec<Vec<u32>> = (0..2 * prompts.len())
        .map(|i| (0..3 + 5 * (i as u32 % 3)).map(|t| (13 * i as u32 + 7 * t) % 250).collect())
        .collect();
    let groups: Vec<Group> =
        prompts.iter().zip(responses.chunks(2)).map(|(p, r)| (p, r.iter().map(|r| &r[..]).collect())).collect();
    let all: Vec<&Prompt> = prompts.iter().collect();
    let batch = PackedBatch::new(&model.config, &groups, &device);
    let features = Scoring::encode_images(model, &all);
    let (hidden, masses) = model.hidden_with_attention(&batch, features.clone()).unwrap();
    let states = hidden.select(0, int_tensor(batch.predicting_rows(), &device));
    let targets = int_tensor(responses.iter().flatten().map(|&id| id as usize), &device);
    let scores = head::log_probs(states.clone(), model.head().0, targets, 0.8, true);
    let divergence = head::kl_divergence(states.clone(), states.clone().flip([0]), model.head().0, 0.8);
    let numbers = BTreeMap::from([
        ("features", values(features.unwrap())),
        ("logits", values(model.logits(states))),
        ("log_probs", values(scores.log_probs)),
        ("entropies", values(scores.entropy.unwrap())),
        ("divergences", values(divergence)),
        ("attention", masses.into_iter().flat_map(|m| [m.image, m.prompt].concat()).collect()),
    ]);
    let coef = coefficients(responses.iter().map(Vec::len).sum());
    let mut gradients = BTreeMap::new();
    for (what, tower, recompute) in
        [("all", true, false), ("all, recomputed", true, true), ("frozen tower", false, false)]
    {
        let own = engine(model, &groups, &coef, 0.3, tower, recompute);
        gradients.insert(what.to_string(), whole(model, &own));
    }
    // Only text: no rank has a gradient of the tower.
    let own = engine(model, &groups[1..2], &coef[..groups[1].1.iter().map(|r| r.len()).sum()], 0.3, true, true);
    gradients.insert("text only".to_string(), whole(model, &own));
    for recompute in [false, true] {
        let own = in_parts(model, &prompts[0], &responses[..2], recompute);
        gradients.insert(format!("in parts, recomputed: {recompute}"), whole(model, &own));
    }
    Said { numbers, gradients }
}

/// The gradients of a group whose responses are two parts.
pub(crate) fn in_parts<B: Kernels>(
    model: &QwenVl<B>,
    prompt: &Prompt,
    responses: &[Vec<u32>],
    recompute: bool,
) -> BTreeMap<String, Vec<f32>> {
    let device = model.device();
    let mut grads = Gradients::default();
    let mut shared = model.share_saving(prompt, Pictures::Trained(&[prompt]), recompute);
    for response in responses {
        let batch = PackedBatch::part(&model.config, prompt, &[response], &device);
        let (hidden, tape) = model.forward_saving_part(&shared, &batch, recompute);
        let dims = hidden.dims();
        let rows = int_tensor(batch.predicting_rows(), &device);
        let targets = int_tensor(response.iter().map(|&id| id as usize), &device);
        let coef = TensorData::new(coefficients(response.len()), [response.len()]);
        let (weight, name) = model.head();
        let (states, coef) = (hidden.select(0, rows.clone()), Tensor::from_data(coef, &device));
        let dh = head::log_probs_backward(states, weight, targets, 0.8, coef, None, name, &mut grads);
        let d_hidden = Tensor::zeros(dims, &device).select_assign(0, rows, dh, IndexingUpdateOp::Add);
        model.backward_part(tape, &mut shared, &batch, d_hidden, &mut grads);
    }
    model.backward_shared(shared, &mut grads);
    grads.iter().map(|(name, grad)| (name.clone(), values(grad))).collect()
}

/// The largest difference beside the largest number, or beside 1 where that is less.
fn gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).map(|(a, b)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() }).fold(0.0, f32::max)
        / largest
}

fn many_ranks_say_what_one_says<B: Kernels>() {
    many_ranks_say_the_same::<B>(|model| model, 1e-5);
}

/// With adapters on all linear layers, which ranks cut as they cut the layers. They are large: gradients differ by
/// up to 3.3e-5 by the order of sums.
fn many_ranks_adapt_as_one_does<B: Kernels>() {
    many_ranks_say_the_same::<B>(|model| all_adapted(model, 0.0), 1e-4);
}

fn many_ranks_say_the_same<B: Kernels>(adapt: fn(QwenVl<B>) -> QwenVl<B>, of_gradients: f32) {
    let mut worst: BTreeMap<&str, f32> = BTreeMap::new();
    for (case, sizes) in CASES {
        let alone = said(case, &adapt(load::<B>(case)));
        assert!(alone.gradients["all"].keys().any(|name| name.starts_with("visual.")), "{case}");
        assert!(!alone.gradients["text only"].keys().any(|name| name.starts_with("visual.")), "{case}");
        for &size in sizes {
            let all = threads::run(size, |ranks| {
                let model = QwenVl::<B>::load_parallel(&folder(case), DType::F32, &Default::default(), &ranks);
                said(case, &adapt(model.unwrap()))
            });
            assert!(all.iter().all(|said| *said == all[0]), "{case} over {size}: the ranks came apart");
            for (what, expected) in &alone.numbers {
                let gap = gap(&all[0].numbers[what], expected);
                assert!(gap < 1e-5, "{case} over {size}: {what} {gap:.1e}");
                *worst.entry(what).or_default() = worst.get(what).map_or(gap, |worst| worst.max(gap));
            }
            for (what, expected) in &alone.gradients {
                let found = &all[0].gradients[what];
                assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{case}: {what}");
                for (name, expected) in expected {
                    let gap = gap(&found[name], expected);
                    assert!(gap < of_gradients, "{case} over {size}, {what}: {name} {gap:.1e}");
                    *worst.entry("gradients").or_default() = worst.get("gradients").map_or(gap, |worst| worst.max(gap));
                }
            }
        }
    }
    println!("largest differences: {worst:?}");
}

#[cfg(feature = "flex")]
on!(flex, burn_flex::Flex<f32, i32>: many_ranks_say_what_one_says many_ranks_adapt_as_one_does);
#[cfg(feature = "ndarray")]
on!(ndarray, burn_ndarray::NdArray<f32>: many_ranks_say_what_one_says);
