//! The hand-written backward: against torch's gradients, against full autodiff of the same forward, and the
//! shared-prompt form against one sequence per response.

use std::collections::BTreeMap;

use crate::common::{Golden, cases, largest_difference, load, relative_error, torch_gradients, values, worst_element};
use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData, backend::AutodiffBackend};
use kernels::params::element_ranges;
use kernels::{Gradients, Kernels, ParamVisitor, Shard, StackPart, head, host::int_tensor};
use model_qwen2vl::{QwenVl, model::Images};
use policy::{Learning, PackedBatch, Pictures, Prompt, Scoring};

pub(crate) type Group<'a> = (&'a Prompt, Vec<&'a [u32]>);

/// `sum_t c_t log p_t` over all response tokens, by the engine.
pub(crate) fn engine<B: Kernels>(
    model: &QwenVl<B>,
    groups: &[Group],
    coef: &[f32],
    entropy_coef: f32,
    train_vision: bool,
    recompute: bool,
) -> BTreeMap<String, Vec<f32>> {
    let device = model.device();
    let batch = PackedBatch::new(&model.config, groups, &device);
    let prompts: Vec<&Prompt> = groups.iter().map(|g| g.0).collect();
    let pictures = match train_vision {
        true => Pictures::Trained(&prompts),
        false => Pictures::Embedded(Scoring::encode_images(model, &prompts)),
    };
    let (hidden, tape) = model.forward_saving(&batch, pictures, recompute);
    let dims = hidden.dims();
    let rows = int_tensor(batch.predicting_rows(), &device);
    let targets =
        int_tensor(groups.iter().flat_map(|g| g.1.iter().flat_map(|r| r.iter().map(|&i| i as usize))), &device);
    let m = coef.len();
    let d = |v: Vec<f32>| Tensor::<B, 1>::from_data(TensorData::new(v, [m]), &device);
    let mut grads = Gradients::default();
    let (weight, name) = model.head();
    let d_entropy = (entropy_coef != 0.0).then(|| d(vec![entropy_coef; m]));
    let dh = head::log_probs_backward(
        hidden.select(0, rows.clone()),
        weight,
        targets,
        0.8,
        d(coef.to_vec()),
        d_entropy,
        name,
        &mut grads,
    );
    let d_hidden = Tensor::zeros(dims, &device).select_assign(0, rows, dh, burn::tensor::IndexingUpdateOp::Add);
    model.backward(tape, &batch, d_hidden, &mut grads);
    grads.iter().map(|(k, g)| (k.clone(), values(g.clone()))).collect()
}

pub(crate) struct Track;
impl<B: AutodiffBackend> ParamVisitor<B> for Track {
    fn visit<const D: usize>(&mut self, _: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        *tensor = tensor.clone().require_grad();
    }
    fn visit_stack<const D: usize>(&mut self, _: &[StackPart], _: &[Shard], tensor: &mut Tensor<B, D>) {
        *tensor = tensor.clone().require_grad();
    }
}
pub(crate) struct Read<'a, B: AutodiffBackend>(pub(crate) &'a B::Gradients, pub(crate) BTreeMap<String, Vec<f32>>);
impl<B: AutodiffBackend> ParamVisitor<B> for Read<'_, B> {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        if let Some(g) = tensor.grad(self.0) {
            self.1.insert(name.to_string(), values(g));
        }
    }
    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], _: &[Shard], tensor: &mut Tensor<B, D>) {
        if let Some(g) = tensor.grad(self.0) {
            let g = values(g);
            let of = |range: std::ops::Range<usize>| g[range].to_vec();
            self.1.extend(parts.iter().map(|p| p.name.clone()).zip(element_ranges(parts, g.len()).into_iter().map(of)));
        }
    }
}

/// The same by full autodiff over the same forward.
pub(crate) fn autodiff<B: Kernels>(
    mut model: QwenVl<Autodiff<B>>,
    groups: &[Group],
    coef: &[f32],
    entropy_coef: f32,
) -> BTreeMap<String, Vec<f32>> {
    Learning::visit_params(&mut model, &mut Track);
    let device = model.device();
    let batch = PackedBatch::new(&model.config, groups, &device);
    let images = Images::new(&model.config, groups.iter().map(|g| g.0), &device);
    let hidden = model.hidden(&batch, images.map(|i| model.encode_images(&i)));
    let hidden = hidden.select(0, int_tensor(batch.predicting_rows(), &device));
    let targets =
        int_tensor(groups.iter().flat_map(|g| g.1.iter().flat_map(|r| r.iter().map(|&i| i as usize))), &device);
    let out = head::log_probs(hidden, model.head().0, targets, 0.8, true);
    let coef = Tensor::<Autodiff<B>, 1>::from_data(TensorData::new(coef.to_vec(), [coef.len()]), &device);
    let loss = out.log_probs.mul(coef).sum().add(out.entropy.unwrap().sum().mul_scalar(entropy_coef));
    let grads = loss.backward();
    let mut read = Read(&grads, BTreeMap::new());
    Learning::visit_params(&mut model, &mut read);
    read.1
}

pub(crate) fn compare(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>, bound: f64, what: &str) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
    let mut worst = ("", 0.0);
    // An attention key bias has a gradient that is zero in exact arithmetic (softmax ignores a shift): judge it against
    // the whole.
    let total = b.values().flatten().map(|&v| (v as f64).powi(2)).sum::<f64>().sqrt();
    for (name, g) in a {
        let norm = b[name].iter().map(|&v| (v as f64).powi(2)).sum::<f64>().sqrt();
        let error = relative_error(g, &b[name]) * (norm / (norm + 1e-4 * total));
        if error > worst.1 {
            worst = (name, error);
        }
    }
    println!("{what}: worst relative error {:.1e} ({})", worst.1, worst.0);
    assert!(worst.1 < bound, "{what}: {} {}", worst.0, worst.1);
}

pub(crate) fn coefficients(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 % 19) as f32 - 9.0) / 10.0).collect()
}

const TORCH: [&str; 9] = [
    "one_image_tied",
    "two_images",
    "text_only",
    "qwen2_vl_tied_gqa",
    "qwen2_vl_untied_two_images",
    "qwen2_vl_text_only",
    "qwen3_vl_tied_gqa",
    "qwen3_vl_untied_two_images",
    "qwen3_vl_text_only",
];

fn as_torch<B: Kernels>() {
    for case in &cases(&TORCH) {
        let (ours, theirs) = torch_gradients::<B>(case);
        compare(&ours, &theirs, 1e-4, case);
        let (worst, name) = worst_element(&ours, &theirs);
        println!("{case}: {} tensors, worst element {worst:.1e} of the tensor's largest ({name})", ours.len());
        assert!(worst < 1e-3, "{case}: {name} {worst:.1e}");
    }
}

/// `oracle` bounds the error against autodiff: burn-ndarray's derivative of a division takes the processor's 14-bit
/// reciprocal, so there the oracle is the coarse side (the engine holds 1e-4 against torch on both backends).
fn as_autodiff_and_naive<B: Kernels>(oracle: f64) {
    for (case, cases) in [
        ("one_image_tied", &["one_image_tied", "two_images", "text_only"][..]),
        ("one_image_untied", &["one_image_untied"]),
        ("qwen2_vl_untied_two_images", &["qwen2_vl_untied_two_images"]),
        ("qwen3_vl_tied_gqa", &["qwen3_vl_tied_gqa", "qwen3_vl_text_only"]),
        ("qwen3_vl_untied_two_images", &["qwen3_vl_untied_two_images"]),
    ] {
        let model = load::<B>(case);
        let prompts: Vec<Prompt> = cases.iter().map(|c| Golden::open(c).prompt(&model)).collect();
        let responses: Vec<Vec<u32>> = (0..3 * prompts.len())
            .map(|i| (0..3 + 5 * (i as u32 % 3)).map(|t| (13 * i as u32 + 7 * t) % 250).collect())
            .collect();
        let groups: Vec<Group> =
            prompts.iter().zip(responses.chunks(3)).map(|(p, r)| (p, r.iter().map(|r| &r[..]).collect())).collect();
        let coef = coefficients(responses.iter().map(Vec::len).sum());
        let ours = engine(&model, &groups, &coef, 0.3, true, false);
        compare(&engine(&model, &groups, &coef, 0.3, true, true), &ours, 1e-6, "recomputed");
        compare(&ours, &autodiff::<B>(load(case), &groups, &coef, 0.3), oracle, "full autodiff");
        // One sequence per response, gradients added up.
        let mut naive: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        let mut at = 0;
        for (prompt, group) in &groups {
            for response in group {
                let part = engine(&model, &[(prompt, vec![response])], &coef[at..at + response.len()], 0.3, true, true);
                at += response.len();
                for (name, g) in part {
                    match naive.get_mut(&name) {
                        Some(sum) => sum.iter_mut().zip(g).for_each(|(s, g)| *s += g),
                        None => drop(naive.insert(name, g)),
                    }
                }
            }
        }
        compare(&ours, &naive, 1e-4, "one sequence per response");
        // A frozen tower changes nothing else.
        let frozen = engine(&model, &groups, &coef, 0.3, false, true);
        assert!(frozen.keys().all(|k| !k.starts_with("visual.")));
        let text_only: BTreeMap<_, _> =
            ours.iter().filter(|(k, _)| !k.starts_with("visual.")).map(|(k, v)| (k.clone(), v.clone())).collect();
        compare(&frozen, &text_only, 1e-6, "frozen tower");
    }
}

/// A prompt with pictures computed once for two parts of its responses: hidden states and gradients of the whole group.
/// What DeepStack adds lies in the prompt's keys and values.
fn parts_are_the_group<B: Kernels>() {
    for case in ["one_image_tied", "qwen2_vl_tied_gqa", "qwen3_vl_tied_gqa", "qwen3_vl_untied_two_images"] {
        let model = load::<B>(case);
        let device = model.device();
        let prompt = Golden::open(case).prompt(&model);
        let responses: Vec<Vec<u32>> =
            (0..3u32).map(|i| (0..4 + 3 * i).map(|t| (17 * i + 5 * t) % 250).collect()).collect();
        let coef = coefficients(responses.iter().map(Vec::len).sum());
        let all: Vec<&[u32]> = responses.iter().map(|r| &r[..]).collect();
        let whole = engine(&model, &[(&prompt, all)], &coef, 0.0, true, false);
        for recompute in [false, true] {
            let mut grads = Gradients::default();
            let mut shared = model.share_saving(&prompt, Pictures::Trained(&[&prompt]), recompute);
            let mut at = 0;
            for part in [&responses[..2], &responses[2..]] {
                let ids: Vec<&[u32]> = part.iter().map(|r| &r[..]).collect();
                let batch = PackedBatch::part(&model.config, &prompt, &ids, &device);
                let (hidden, tape) = model.forward_saving_part(&shared, &batch, recompute);
                let alone = model.share(&prompt, Scoring::encode_images(&model, &[&prompt]));
                let gap = largest_difference(&values(model.hidden_part(&alone, &batch)), &values(hidden.clone()));
                assert!(gap < 1e-5, "{case}: hidden states of a part {gap:.1e}");
                let dims = hidden.dims();
                let rows = int_tensor(batch.predicting_rows(), &device);
                let targets = int_tensor(part.iter().flatten().map(|&id| id as usize), &device);
                let tokens: usize = part.iter().map(Vec::len).sum();
                let c = TensorData::new(coef[at..at + tokens].to_vec(), [tokens]);
                at += tokens;
                let (weight, name) = model.head();
                let dh = head::log_probs_backward(
                    hidden.select(0, rows.clone()),
                    weight,
                    targets,
                    0.8,
                    Tensor::from_data(c, &device),
                    None,
                    name,
                    &mut grads,
                );
                let add = burn::tensor::IndexingUpdateOp::Add;
                let d_hidden = Tensor::zeros(dims, &device).select_assign(0, rows, dh, add);
                model.backward_part(tape, &mut shared, &batch, d_hidden, &mut grads);
            }
            model.backward_shared(shared, &mut grads);
            let ours: BTreeMap<String, Vec<f32>> = grads.iter().map(|(k, g)| (k.clone(), values(g.clone()))).collect();
            compare(&ours, &whole, 1e-4, &format!("{case} in parts"));
        }
    }
}

#[cfg(feature = "flex")]
on!(flex, burn_flex::Flex<f32, i32>: as_torch as_autodiff_and_naive(1e-4) parts_are_the_group);
#[cfg(feature = "ndarray")]
on!(ndarray, burn_ndarray::NdArray<f32>: as_torch as_autodiff_and_naive(2e-3));
