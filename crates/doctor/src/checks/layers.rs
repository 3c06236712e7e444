//! Two layers at the run's widths: logits, a backward pass and a step of AdamW, beside the CPU.

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor};
use kernels::params::to_f32;
use kernels::{Gradients, Kernels, ParamVisitor, Shard, host};
use model_qwen2vl::QwenVl;
use policy::{Learning, Scoring};
use rl::TrainError;
use rl::config::Optim;
use rl::image_cache::ImageCache;
use rl::learn::optimizer::AdamW;
use rl::learn::{GradientOptions, GroupRef, MicroGradients, accumulate};

use super::model::{self, Work};
use crate::finding::Comparisons;
use crate::sides::{Sides, flat};

/// Elements of each gradient that are compared one by one.
const READ: usize = 1 << 16;
/// Of the global norm: below it a gradient is what rounding leaves of zero, like that of the keys' bias.
const SMALL: f64 = 1e-3;
/// Moves a weight by more than the last bit of most of them.
const LR: f64 = 1e-3;

/// What a step made.
struct StepValues {
    logits: Vec<f32>,
    /// Norm and first elements of each gradient.
    gradients: BTreeMap<String, (f64, Vec<f32>)>,
    grad_norm: f64,
    /// Norm of what the optimizer added to the weights.
    moved: f64,
}

/// All parameters, flat, in f32.
struct FlatParameters<B: Kernels>(BTreeMap<String, Tensor<B, 1>>);
impl<B: Kernels> ParamVisitor<B> for FlatParameters<B> {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        self.0.insert(name.into(), to_f32(flat(tensor.clone())));
    }
}

fn norm<B: Kernels>(x: Tensor<B, 1>) -> Result<f64, TrainError> {
    let sum = host::floats(to_f32(x).powi_scalar(2).sum())?;
    Ok(sum.first().map_or(f64::NAN, |sum| f64::from(*sum).sqrt()))
}

/// Forward, backward, update.
fn step<B: Kernels>(mut model: QwenVl<B>, work: &Work) -> Result<StepValues, TrainError> {
    let device = model.device();
    let groups: Vec<GroupRef> = std::iter::zip(&work.prompts, &work.responses)
        .map(|(prompt, responses)| GroupRef { prompt, responses: responses.iter().map(|ids| &ids[..]).collect() })
        .collect();
    let batch = model.pack(&groups.iter().map(|g| (g.prompt, g.responses.clone())).collect::<Vec<_>>());
    let prompts: Vec<_> = work.prompts.iter().collect();
    let hidden = Scoring::hidden(&model, &batch, Scoring::encode_images(&model, &prompts));
    let rows = host::int_tensor(batch.predicting_rows(), &device);
    let logits = host::floats(model.logits(hidden.select(0, rows)))?;

    let tokens: usize = work.responses.iter().flatten().map(Vec::len).sum();
    let options = GradientOptions {
        temperature: 1.0,
        entropy: false,
        token_budget: 1 << 20,
        train_vision: true,
        recompute: false,
    };
    let mut grads = Gradients::default();
    accumulate(&model, &mut ImageCache::default(), &groups, &options, &mut grads, |micro| -> Result<_, TrainError> {
        let gradient = Tensor::full(micro.log_probs.dims(), -1.0 / tokens as f64, &micro.log_probs.device());
        Ok(MicroGradients { log_probs: gradient, entropy: None })
    })?;
    let mut gradients = BTreeMap::new();
    for (name, gradient) in grads.iter() {
        let read = gradient.dims()[0].min(READ);
        let first = host::floats(to_f32(gradient.clone().narrow(0, 0, read)))?;
        gradients.insert(name.clone(), (norm(gradient.clone())?, first));
    }
    let mut before = FlatParameters(BTreeMap::new());
    model.visit_params(&mut before);
    let optim = Optim { lr: LR, ..Optim::default() };
    let outcome = AdamW::new(&optim).step(&mut model, grads, LR, optim.weight_decay, 1.0)?;
    let mut after = FlatParameters(BTreeMap::new());
    model.visit_params(&mut after);
    let mut moved = 0f64;
    for (name, before) in before.0 {
        if let Some(after) = after.0.remove(&name) {
            moved += norm(after.sub(before))?.powi(2);
        }
    }
    Ok(StepValues { logits, gradients, grad_norm: outcome.grad_norm, moved: moved.sqrt() })
}

/// `|a - b| / |b|` over whole vectors.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let gap: f64 = std::iter::zip(a, b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    if a.len() == b.len() { (gap / norm.max(1e-30)).sqrt() } else { f64::INFINITY }
}

pub(crate) fn layers<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let work = Work::new(sides)?;
    let found = step(model::on_device(sides)?, &work)?;
    let expected = step(model::on_cpu(sides)?, &work)?;
    let mut tally = Comparisons::new(format!(
        "two layers of {} in {:?}: logits, gradients and a step of AdamW beside the CPU in f32",
        sides.config.text.hidden_size, sides.dtype
    ));
    // Values through all layers, and norms, in which roundings average out.
    let (of_values, of_norms) = match sides.dtype {
        DType::F32 => (10.0 * sides.product_bound(DType::F32), 2.0 * sides.product_bound(DType::F32)),
        _ => (0.1, 0.02),
    };
    tally.add(distance(&found.logits, &expected.logits), of_values, || "the logits".into());
    let relative = |a: f64, b: f64| (a / b - 1.0).abs();
    tally.add(relative(found.grad_norm, expected.grad_norm), of_norms, || "the gradient's norm".into());
    tally.add(relative(found.moved, expected.moved), of_norms, || "what AdamW added".into());
    if !found.gradients.keys().eq(expected.gradients.keys()) {
        tally.add(f64::INFINITY, of_norms, || "which parameters have a gradient".into());
    }
    for (name, (norm, values)) in &expected.gradients {
        let Some((found_norm, found)) = found.gradients.get(name) else { continue };
        if norm.is_nan() || *norm >= SMALL * expected.grad_norm {
            tally.add(relative(*found_norm, *norm), of_norms, || format!("the gradient's norm of {name}"));
            let read: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
            if read.sqrt() > SMALL * norm {
                tally.add(distance(found, values), of_values, || format!("the gradient of {name}"));
            }
        }
    }
    Ok(tally)
}
