//! AdamW (design decision 7): state keyed by the Hugging Face parameter name, f32 or bf16 moments, optional f32 master
//! weights, clipping by the global norm, steps with a non-finite gradient skipped.
//!
//! | file | what |
//! |---|---|
//! | `shards` | which elements a rank updates, and how their gradients come to it |
//! | `files` | state in a checkpoint |
//! | `schedule` | the learning rate, number formats |

mod files;
mod schedule;
mod shards;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::canary::floats_beside_canary;
use kernels::exact::ExactSums;
use kernels::ops::{AdamWParameter, AdamWStep, Rounding};
use kernels::params::SummedOver;
use kernels::params::{cast_to, element_ranges, to_f32};
use kernels::zero::{OwnElements, Reduced, Shards};
use kernels::{DeviceError, Gradients, Kernels, ParamVisitor, Shard, StackPart, host};

use crate::config::{Config, MomentsDtype, Optim};
use crate::policy::Policy;
use crate::random_keys::rounding_seed;
pub use schedule::{check_formats, gradients, learning_rate};
use shards::OwnGradients;
pub(crate) use shards::PARAMETERS;

/// Moments and master weight of one parameter or of a stack of them, flat.
#[derive(Debug, Clone)]
struct State<B: Backend> {
    /// The parameters, and which elements are whose: files know them, not the stack.
    parts: Vec<(String, Range<usize>)>,
    /// Of the elements that this rank updates; none where it has none.
    moments: Option<Moments<B>>,
    /// Updates of this parameter so far: a parameter that had no gradient (the tower in a text-only batch) is not
    /// updated.
    steps: usize,
}

/// What AdamW keeps of some elements.
#[derive(Debug, Clone)]
struct Moments<B: Backend> {
    m: Tensor<B, 1>,
    v: Tensor<B, 1>,
    /// f32 copy of a parameter that is kept in 16 bits.
    master: Option<Tensor<B, 1>>,
}

/// The optimizer.
#[derive(Debug, Clone)]
pub struct AdamW<B: Backend> {
    beta1: f64,
    beta2: f64,
    eps: f64,
    master_weights: bool,
    bf16_moments: bool,
    /// Steps so far, where the device is checked in each.
    canary: Option<u64>,
    /// Who shares the state, and how.
    shards: Shards,
    /// By the name of the (first) parameter.
    state: BTreeMap<String, State<B>>,
}

/// What one optimizer step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepOutcome {
    /// Global norm of the gradient before clipping; may be infinite or NaN.
    pub grad_norm: f64,
    /// False if the gradient was not finite and nothing was changed.
    pub applied: bool,
}

impl<B: Kernels> AdamW<B> {
    /// An optimizer without state yet.
    pub fn new(config: &Optim) -> Self {
        let [beta1, beta2] = config.betas;
        Self {
            beta1,
            beta2,
            eps: config.eps,
            master_weights: config.master_weights,
            bf16_moments: config.moments_dtype == MomentsDtype::Bf16,
            canary: Some(0),
            shards: Shards::default(),
            state: BTreeMap::new(),
        }
    }

    /// Whether each step reads a number from the device that only this step makes, beside the gradient's norm; it does
    /// unless it is told otherwise here. For a device that computes nothing (docs/gpu.md).
    pub fn check_device(mut self, check: bool) -> Self {
        self.canary = check.then_some(0);
        self
    }

    /// Shares the state with other ranks (arXiv 1910.02054): each keeps that of its part of every tensor, updates this
    /// part by the sum of all ranks' gradients, and gets the others' from them.
    #[must_use]
    pub fn over(self, shards: &Shards) -> Self {
        Self { shards: shards.clone(), ..self }
    }

    /// No gradients yet, in the format that `config` wants. Of several ranks each keeps its part alone where `parallel`
    /// says so (ZeRO-2), else all of them until the step (ZeRO-1).
    pub fn gradients<P: Policy<B>>(&self, policy: &mut P, config: &Config) -> Gradients<B> {
        let grads = gradients(&config.actor.optim);
        let device = policy.device();
        if config.parallel.exact_sums {
            return grads.summed(SummedOver::Exact(ExactSums::new(&self.shards, &device, shards::list(policy))));
        }
        match !self.shards.ranks.is_solo() && config.parallel.zero_stage::<B>(&device) == 2 {
            true => grads.summed(SummedOver::Parts(Reduced::new(&self.shards, &device, shards::list(policy)))),
            false => grads,
        }
    }

    /// Applies `grads`, of several ranks their sum, to the policy. Weight decay acts on matrices only; norms and biases
    /// have none.
    ///
    /// # Errors
    /// A device that cannot be read, or has lost work: nothing was changed. A rank that is gone.
    pub fn step<P: Policy<B>>(
        &mut self,
        policy: &mut P,
        grads: Gradients<B>,
        lr: f64,
        weight_decay: f64,
        max_grad_norm: f64,
    ) -> Result<StepOutcome, DeviceError> {
        let grads = OwnGradients::of(policy, grads, &self.shards)?;
        let norm = grads.squared_norm(&policy.device());
        let norm = match &mut self.canary {
            Some(steps) => {
                *steps += 1;
                floats_beside_canary(norm, *steps)?
            }
            None => host::floats(norm)?,
        };
        let own = norm.first().map_or(f64::NAN, |v| f64::from(*v));
        let grad_norm = grads.squared_over(own, &self.shards)?.sqrt();
        if !grad_norm.is_finite() {
            return Ok(StepOutcome { grad_norm, applied: false });
        }
        let grad_scale = if max_grad_norm > 0.0 { (max_grad_norm / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        let mut update = Update { optimizer: self, grads, lr, weight_decay, grad_scale, failed: None };
        policy.visit_params(&mut update);
        update.failed.map_or(Ok(StepOutcome { grad_norm, applied: true }), Err)
    }
}

/// Names of the parts of a stack of `len` elements, and which are whose.
fn elements(parts: &[StackPart], len: usize) -> Vec<(String, Range<usize>)> {
    parts.iter().map(|part| part.name.clone()).zip(element_ranges(parts, len)).collect()
}

struct Update<'a, B: Backend> {
    optimizer: &'a mut AdamW<B>,
    grads: OwnGradients<B>,
    lr: f64,
    weight_decay: f64,
    grad_scale: f64,
    /// What went wrong first; nothing is updated after it.
    failed: Option<DeviceError>,
}

impl<B: Kernels> ParamVisitor<B> for Update<'_, B> {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        let len = tensor.shape().num_elements();
        if let Some(grad) = self.grads.take(name, &[]) {
            self.keep(vec![(name.to_string(), 0..len)], grad, tensor);
        }
    }

    /// A stack is one tensor: one update.
    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], _: &[Shard], tensor: &mut Tensor<B, D>) {
        let Some(first) = parts.first() else { return };
        if let Some(grad) = self.grads.take(&first.name, parts) {
            self.keep(elements(parts, tensor.shape().num_elements()), grad, tensor);
        }
    }
}

impl<B: Kernels> Update<'_, B> {
    /// Updates a tensor, unless something has failed.
    fn keep<const D: usize>(
        &mut self,
        parts: Vec<(String, Range<usize>)>,
        grad: Option<Tensor<B, 1>>,
        tensor: &mut Tensor<B, D>,
    ) {
        if self.failed.is_none() {
            self.failed = self.update(parts, grad, tensor).err();
        }
    }

    /// Updates the parameters `parts` that lie in `tensor`, whose state has the first's name: this rank's elements here,
    /// the others' come from their ranks.
    fn update<const D: usize>(
        &mut self,
        parts: Vec<(String, Range<usize>)>,
        grad: Option<Tensor<B, 1>>,
        tensor: &mut Tensor<B, D>,
    ) -> Result<(), DeviceError> {
        let Some((name, _)) = parts.first().cloned() else { return Ok(()) };
        let dims: [usize; D] = tensor.dims();
        let (len, device) = (tensor.shape().num_elements(), tensor.device());
        let shards = self.optimizer.shards.clone();
        let own = OwnElements::of(len, &shards);
        // Taking the parameter and its moments out leaves them uniquely owned: the update can run in place.
        let whole = std::mem::replace(tensor, Tensor::empty([1; D], &device)).reshape([len]);
        let dtype = whole.dtype();
        let state = self.optimizer.state.remove(&name);
        let State { parts, moments, steps } = state.unwrap_or_else(|| State { parts, moments: None, steps: 0 });
        let (param, moments) = match grad {
            Some(grad) => {
                let param = if shards.ranks.is_solo() { whole } else { whole.slice([own.range.clone()]) };
                let weight_decay = if D > 1 { self.weight_decay } else { 0.0 };
                let step = AdamWStep { weight_decay, ..self.settings(&name, steps, own.range.start) };
                let (param, moments) = self.optimizer.advance(param, moments, grad, step);
                (Some(param), Some(moments))
            }
            None => (None, None),
        };
        self.optimizer.state.insert(name, State { parts, moments, steps: steps + 1 });
        *tensor = shards::complete(&own, param, (&device, dtype), &shards)?.reshape(dims);
        Ok(())
    }

    /// The settings of update `steps + 1` of the tensor `name`, from its element `first` on.
    fn settings(&self, name: &str, steps: usize, first: usize) -> AdamWStep {
        let o = &*self.optimizer;
        AdamWStep {
            lr: self.lr,
            beta1: o.beta1,
            beta2: o.beta2,
            eps: o.eps,
            weight_decay: self.weight_decay,
            step: steps + 1,
            grad_scale: self.grad_scale,
            // The same noise in every run, and in one that was resumed, on however many ranks.
            rounding: Rounding { seed: rounding_seed(name, steps), first, param: false, moments: o.bf16_moments },
        }
    }
}

impl<B: Kernels> AdamW<B> {
    /// One update of some elements, in place where nothing else holds them.
    fn advance(
        &self,
        param: Tensor<B, 1>,
        moments: Option<Moments<B>>,
        grad: Tensor<B, 1>,
        mut step: AdamWStep,
    ) -> (Tensor<B, 1>, Moments<B>) {
        let (device, dtype, len) = (param.device(), param.dtype(), param.dims());
        let kept_in = if self.bf16_moments { DType::BF16 } else { DType::F32 };
        let zeros = || B::persistent(&device, || Tensor::zeros(len, (&device, kept_in)));
        let Moments { m, v, master } = moments.unwrap_or_else(|| Moments { m: zeros(), v: zeros(), master: None });
        let keeps_master = self.master_weights && dtype != DType::F32;
        // Without a master copy a 16-bit weight is rounded up or down by chance: most steps are smaller than half of its
        // last bit, and rounding to the nearest would drop them all.
        step.rounding.param = !keeps_master && dtype == DType::BF16;
        let parameter = AdamWParameter {
            master: keeps_master.then(|| master.unwrap_or_else(|| to_f32(param.clone()))),
            param,
            // Of another type only where the configuration was changed since they were saved.
            m: cast_to(m, kept_in),
            v: cast_to(v, kept_in),
        };
        let AdamWParameter { param, m, v, master } = B::adamw(parameter, grad, &step);
        (param, Moments { m, v, master })
    }
}
