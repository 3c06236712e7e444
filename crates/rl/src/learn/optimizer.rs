//! AdamW (design decision 7): state keyed by the Hugging Face parameter name, f32 or bf16 moments, optional f32 master
//! weights, clipping by the global norm, steps with a non-finite gradient skipped.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use ::policy::ModelError;
use ::policy::weights::write_tensors;
use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use kernels::canary::floats_beside_canary;
use kernels::finite::first_not_finite;
use kernels::ops::{AdamWParameter, AdamWStep, Rounding};
use kernels::params::element_ranges;
use kernels::params::{cast_to, to_f32};
use kernels::{DeviceError, Gradients, Kernels, ParamVisitor, Shard, StackPart, host};
use safetensors::SafeTensors;

use crate::config::{GradsDtype, LrScheduler, MomentsDtype, Optim};
use crate::error::TrainError;
use crate::policy::Policy;
use crate::random_keys::rounding_seed;

/// Moments and master weight of one parameter or of a stack of them, flat.
#[derive(Debug, Clone)]
struct State<B: Backend> {
    /// The parameters, and which elements are whose: files know them, not the stack.
    parts: Vec<(String, Range<usize>)>,
    m: Tensor<B, 1>,
    v: Tensor<B, 1>,
    /// f32 copy of a parameter that is kept in 16 bits.
    master: Option<Tensor<B, 1>>,
    /// Updates of this parameter so far: a parameter that had no gradient (the tower in a text-only batch) is not
    /// updated.
    steps: usize,
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
            state: BTreeMap::new(),
        }
    }

    /// Whether each step reads a number from the device that only this step makes, beside the gradient's norm; it does
    /// unless it is told otherwise here. For a device that computes nothing (docs/gpu.md).
    pub fn check_device(mut self, check: bool) -> Self {
        self.canary = check.then_some(0);
        self
    }

    /// Applies `grads` to the policy. Weight decay acts on matrices only; norms and biases have none.
    ///
    /// # Errors
    /// A device that cannot be read, or has lost work: nothing was changed.
    pub fn step<P: Policy<B>>(
        &mut self,
        policy: &mut P,
        grads: Gradients<B>,
        lr: f64,
        weight_decay: f64,
        max_grad_norm: f64,
    ) -> Result<StepOutcome, DeviceError> {
        let norm = grads.squared_norm(&policy.device());
        let norm = match &mut self.canary {
            Some(steps) => {
                *steps += 1;
                floats_beside_canary(norm, *steps)?
            }
            None => host::floats(norm)?,
        };
        let grad_norm = norm.first().map_or(f64::NAN, |v| f64::from(*v).sqrt());
        if !grad_norm.is_finite() {
            return Ok(StepOutcome { grad_norm, applied: false });
        }
        let grad_scale = if max_grad_norm > 0.0 { (max_grad_norm / (grad_norm + 1e-6)).min(1.0) } else { 1.0 };
        policy.visit_params(&mut Update { optimizer: self, grads, lr, weight_decay, grad_scale });
        Ok(StepOutcome { grad_norm, applied: true })
    }

    /// Writes moments, master weights and step counts.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] for state that [`load`](Self::load) would refuse, a device that cannot be read,
    /// anything the file system refuses.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut tensors = Vec::new();
        for state in self.state.values() {
            for (name, range) in &state.parts {
                let of = |t: &Tensor<B, 1>| t.clone().slice([range.clone()]);
                let steps =
                    Tensor::from_data(TensorData::new(vec![state.steps as f32], [1]), (&state.m.device(), DType::F32));
                tensors.push((format!("{name}.m"), of(&state.m), vec![range.len()]));
                tensors.push((format!("{name}.v"), of(&state.v), vec![range.len()]));
                tensors.push((format!("{name}.steps"), steps, vec![1]));
                if let Some(master) = &state.master {
                    tensors.push((format!("{name}.master"), of(master), vec![range.len()]));
                }
            }
        }
        write_tensors(path, tensors)
    }

    /// Reads what [`save`](Self::save) wrote, replacing all state.
    ///
    /// # Errors
    /// A missing or damaged file, numbers that are not finite, or state that does not belong to `policy`.
    pub fn load<P: Policy<B>>(&mut self, path: &Path, policy: &mut P) -> Result<(), ModelError> {
        let damaged = |reason: String| ModelError::Damaged { path: path.into(), reason };
        let io = |source| ModelError::Io { path: path.into(), source };
        let file = guard::file::open(path).map_err(io)?;
        // SAFETY: a checkpoint is written under another name and renamed when it is complete; nothing writes to it
        // after that.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
        let mut sizes = BufferSizes(Vec::new());
        policy.visit_params(&mut sizes);
        let device = policy.device();
        let mut state = BTreeMap::new();
        let mut found = 0;
        for parts in sizes.0 {
            let read: Vec<Option<State<B>>> = parts
                .iter()
                .map(|(name, range)| read_state(&file, name, range.len(), &device, &damaged))
                .collect::<Result<_, _>>()?;
            let read: Vec<State<B>> = match read.iter().filter(|part| part.is_some()).count() {
                0 => continue,
                count if count == parts.len() => read.into_iter().flatten().collect(),
                _ => return Err(damaged(format!("it holds the state of some of {} alone", listed(&parts)))),
            };
            found += read.len();
            if read.windows(2).any(|pair| pair[0].steps != pair[1].steps) {
                return Err(damaged(format!("{} are not at the same step", listed(&parts))));
            }
            let Some((name, _)) = parts.first().cloned() else { continue };
            state.insert(name, B::persistent(&device, || together(parts, read)));
            B::release_uploads(&device)?;
        }
        // Parts of stacks, which lie in one tensor now.
        B::memory_cleanup(&device);
        let saved = file.names().iter().filter(|n| n.ends_with(".m")).count();
        if saved != found {
            return Err(damaged(format!("it holds the state of {saved} parameters, of which the model has {found}")));
        }
        self.state = state;
        Ok(())
    }
}

/// Names for a message.
fn listed(parts: &[(String, Range<usize>)]) -> String {
    parts.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>().join(", ")
}

/// The state of a stack from that of its parts, which are at the same step.
fn together<B: Backend>(parts: Vec<(String, Range<usize>)>, mut read: Vec<State<B>>) -> State<B> {
    let steps = read.first().map_or(0, |part| part.steps);
    let masters: Option<Vec<_>> = read.iter_mut().map(|part| part.master.take()).collect();
    let (m, v) = read.into_iter().map(|part| (part.m, part.v)).unzip();
    let join = |mut all: Vec<Tensor<B, 1>>| if all.len() == 1 { all.remove(0) } else { Tensor::cat(all, 0) };
    State { parts, m: join(m), v: join(v), master: masters.map(join), steps }
}

/// The state of one parameter of `len` elements from a file; none if the file has none of it.
fn read_state<B: Kernels>(
    file: &SafeTensors,
    name: &str,
    len: usize,
    device: &B::Device,
    damaged: &impl Fn(String) -> ModelError,
) -> Result<Option<State<B>>, ModelError> {
    let read = |part: &str| -> Result<Option<Tensor<B, 1>>, ModelError> {
        let Ok(view) = file.tensor(&format!("{name}.{part}")) else {
            return Ok(None);
        };
        if let Some(found) = first_not_finite(view.data(), view.dtype()) {
            return Err(damaged(format!("{name}.{part} is not finite: {found}")));
        }
        let (data, dtype) = match view.dtype() {
            safetensors::Dtype::BF16 => {
                let v: Vec<half::bf16> =
                    view.data().chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]])).collect();
                (TensorData::new(v, [view.data().len() / 2]), DType::BF16)
            }
            safetensors::Dtype::F32 => {
                let v: Vec<f32> =
                    view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                (TensorData::new(v, [view.data().len() / 4]), DType::F32)
            }
            other => return Err(damaged(format!("{name}.{part} is {other:?}"))),
        };
        if part != "steps" && data.shape[0] != len {
            return Err(damaged(format!("{name}.{part} has {} values, the model {len}", data.shape[0])));
        }
        let tensor = B::persistent(device, || Tensor::from_data(data, (device, dtype)));
        Ok(Some(tensor))
    };
    let (m, v, steps) = match (read("m")?, read("v")?, read("steps")?) {
        (Some(m), Some(v), Some(steps)) => (m, v, steps),
        (None, None, None) => return Ok(None),
        _ => return Err(damaged(format!("a part of the state of {name} is missing"))),
    };
    let steps = host::floats(steps)?.first().map_or(0, |v| *v as usize);
    Ok(Some(State { parts: vec![(name.to_string(), 0..len)], m, v, master: read("master")?, steps }))
}

/// The parameters that the model keeps in one tensor each time, and which elements are whose.
struct BufferSizes(Vec<Vec<(String, Range<usize>)>>);

impl<B: Backend> ParamVisitor<B> for BufferSizes {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        self.0.push(vec![(name.into(), 0..tensor.shape().num_elements())]);
    }

    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], _: &[Shard], tensor: &mut Tensor<B, D>) {
        self.0.push(elements(parts, tensor.shape().num_elements()));
    }
}

/// Names of the parts of a stack of `len` elements, and which are whose.
fn elements(parts: &[StackPart], len: usize) -> Vec<(String, Range<usize>)> {
    parts.iter().map(|part| part.name.clone()).zip(element_ranges(parts, len)).collect()
}

struct Update<'a, B: Backend> {
    optimizer: &'a mut AdamW<B>,
    grads: Gradients<B>,
    lr: f64,
    weight_decay: f64,
    grad_scale: f64,
}

impl<B: Kernels> ParamVisitor<B> for Update<'_, B> {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        if let Some(grad) = self.grads.remove(name) {
            self.update(vec![(name.to_string(), 0..tensor.shape().num_elements())], grad, tensor);
        }
    }

    /// A stack is one tensor: one update.
    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], _: &[Shard], tensor: &mut Tensor<B, D>) {
        if let Some(grad) = self.grads.remove_stack(parts) {
            self.update(elements(parts, tensor.shape().num_elements()), grad, tensor);
        }
    }
}

impl<B: Kernels> Update<'_, B> {
    /// Updates the parameters `parts` that lie in `tensor`, whose state has the first's name.
    fn update<const D: usize>(
        &mut self,
        parts: Vec<(String, Range<usize>)>,
        grad: Tensor<B, 1>,
        tensor: &mut Tensor<B, D>,
    ) {
        let Some((name, _)) = parts.first().cloned() else { return };
        let name = &name[..];
        let dims: [usize; D] = tensor.dims();
        let len = tensor.shape().num_elements();
        let device = tensor.device();
        let dtype = tensor.dtype();
        let o = &mut *self.optimizer;
        // Taking the parameter and its moments out leaves them uniquely owned: the update can run in place.
        let param = std::mem::replace(tensor, Tensor::empty([1; D], &device)).reshape([len]);
        let moments = if o.bf16_moments { DType::BF16 } else { DType::F32 };
        let zeros = || B::persistent(&device, || Tensor::zeros([len], (&device, moments)));
        let State { parts, m, v, master, steps } =
            o.state.remove(name).unwrap_or_else(|| State { parts, m: zeros(), v: zeros(), master: None, steps: 0 });
        let keeps_master = o.master_weights && dtype != DType::F32;
        let parameter = AdamWParameter {
            master: keeps_master.then(|| master.unwrap_or_else(|| to_f32(param.clone()))),
            param,
            // Of another type only where the configuration was changed since they were saved.
            m: cast_to(m, moments),
            v: cast_to(v, moments),
        };
        let step = AdamWStep {
            lr: self.lr,
            beta1: o.beta1,
            beta2: o.beta2,
            eps: o.eps,
            weight_decay: if D > 1 { self.weight_decay } else { 0.0 },
            step: steps + 1,
            grad_scale: self.grad_scale,
            rounding: Rounding {
                // The same noise in every run, and in one that was resumed.
                seed: rounding_seed(name, steps),
                // Without a master copy a 16-bit weight is rounded up or down by chance: most steps are smaller than
                // half of its last bit, and rounding to the nearest would drop them all.
                param: !keeps_master && dtype == DType::BF16,
                moments: o.bf16_moments,
            },
        };
        let AdamWParameter { param, m, v, master } = B::adamw(parameter, grad, &step);
        o.state.insert(name.into(), State { parts, m, v, master, steps: steps + 1 });
        *tensor = param.reshape(dims);
    }
}

/// Whether the device has the number formats that are kept between updates.
///
/// # Errors
/// [`TrainError::Input`] names the key.
pub fn check_formats<B: Backend>(config: &Optim, device: &B::Device) -> Result<(), TrainError> {
    let wanted = [
        (config.moments_dtype == MomentsDtype::Bf16, "moments_dtype"),
        (config.grads_dtype == GradsDtype::Bf16, "grads_dtype"),
    ];
    for (_, key) in wanted.iter().filter(|(wanted, _)| *wanted) {
        if !B::supports_dtype(device, DType::BF16) {
            return Err(TrainError::Input(format!(
                "actor.optim.{key}: this backend does not store bf16; write \"f32\", or take another backend"
            )));
        }
    }
    Ok(())
}

/// Empty gradients in the format that the configuration wants.
pub fn gradients<B: Kernels>(config: &Optim) -> Gradients<B> {
    Gradients::kept_in(match config.grads_dtype {
        GradsDtype::F32 => DType::F32,
        GradsDtype::Bf16 => DType::BF16,
    })
}

/// The learning rate of update `step` (from 1) of `total`.
pub fn learning_rate(optim: &Optim, step: usize, total: usize) -> f64 {
    let warmup = if optim.lr_warmup_steps > 0 {
        optim.lr_warmup_steps
    } else {
        (optim.lr_warmup_ratio * total as f64).round() as usize
    };
    if step <= warmup {
        return optim.lr * step as f64 / warmup as f64;
    }
    match optim.lr_scheduler_type {
        LrScheduler::Constant => optim.lr,
        LrScheduler::Cosine => {
            let progress = (step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
            optim.lr * (optim.min_lr_ratio + (1.0 - optim.min_lr_ratio) * cosine)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model_qwen2vl::{QwenVl, QwenVlConfig};

    type B = burn_flex::Flex<f32, i32>;

    struct Fill<'a>(&'a mut Gradients<B>, f32);
    impl ParamVisitor<B> for Fill<'_> {
        fn visit<const D: usize>(&mut self, name: &str, _: &Shard, t: &mut Tensor<B, D>) {
            let values = t.clone().mul_scalar(self.1).add_scalar(0.01);
            self.0.add(name, values);
        }
    }
    struct First(Vec<(String, Vec<f32>)>);
    impl ParamVisitor<B> for First {
        fn visit<const D: usize>(&mut self, name: &str, _: &Shard, t: &mut Tensor<B, D>) {
            self.0.push((name.into(), to_f32(t.clone()).into_data().to_vec().unwrap()));
        }
    }
    fn values(model: &mut QwenVl<B>) -> Vec<(String, Vec<f32>)> {
        let mut first = First(vec![]);
        model.visit(&mut first);
        first.0
    }
    fn model() -> QwenVl<B> {
        QwenVl::random(QwenVlConfig::preset("toy").unwrap(), 7, DType::F32, &Default::default())
    }

    /// Two steps against AdamW written out for one number.
    #[test]
    fn matches_the_formula() {
        let optim = Optim { lr: 0.01, ..Optim::default() };
        let mut model = model();
        let before = values(&mut model);
        let mut adamw = AdamW::<B>::new(&optim);
        let mut expected: Vec<(f64, f64, f64)> = vec![];
        for step in 1..=2 {
            let mut grads = Gradients::default();
            model.visit(&mut Fill(&mut grads, 0.5));
            let now = values(&mut model);
            let norm = grads.squared_norm(&model.device()).into_scalar().sqrt() as f64;
            let outcome = adamw.step(&mut model, grads, 0.01, 0.1, 1.0).unwrap();
            assert!((outcome.grad_norm - norm).abs() < 1e-3 * norm && outcome.applied);
            let scale = (1.0 / (norm + 1e-6)).min(1.0);
            let after = values(&mut model);
            for (k, ((name, old), (_, new))) in now.iter().zip(&after).enumerate() {
                let x = old[0] as f64;
                let g = (x * 0.5 + 0.01) * scale;
                if step == 1 {
                    expected.push((0.0, 0.0, 0.0));
                }
                let (m, v, _) = &mut expected[k];
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.999 * *v + 0.001 * g * g;
                let (mh, vh) = (*m / (1.0 - 0.9f64.powi(step)), *v / (1.0 - 0.999f64.powi(step)));
                let decay = if name.ends_with(".bias") || name.contains("norm") || name.ends_with("ln_q.weight") {
                    0.0
                } else {
                    0.1
                };
                let y = x * (1.0 - 0.01 * decay) - 0.01 * mh / (vh.sqrt() + 1e-8);
                assert!((y - new[0] as f64).abs() < 2e-6, "{name}: {y} {}", new[0]);
            }
        }
        assert_ne!(before, values(&mut model));
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let mut model = model();
        let before = values(&mut model);
        let mut adamw = AdamW::<B>::new(&Optim::default());
        let mut grads = Gradients::default();
        model.visit(&mut Fill(&mut grads, f32::NAN));
        let outcome = adamw.step(&mut model, grads, 0.1, 0.1, 1.0).unwrap();
        assert!(!outcome.applied && outcome.grad_norm.is_nan());
        assert_eq!(before, values(&mut model));
    }

    #[test]
    fn state_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        let run = |restart: bool| {
            let mut model = model();
            let mut adamw = AdamW::<B>::new(&Optim::default());
            for step in 0..4 {
                if restart && step == 2 {
                    adamw.save(&path).unwrap();
                    adamw = AdamW::new(&Optim::default());
                    adamw.load(&path, &mut model).unwrap();
                }
                let mut grads = Gradients::default();
                model.visit(&mut Fill(&mut grads, 0.3));
                adamw.step(&mut model, grads, 0.01, 0.01, 1.0).unwrap();
            }
            values(&mut model)
        };
        assert_eq!(run(false), run(true));
    }

    /// Files know parameters, not the stacks that a model keeps them in.
    #[test]
    fn moments_are_saved_by_parameter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        let mut model = model();
        let mut adamw = AdamW::<B>::new(&Optim::default());
        let mut grads = Gradients::default();
        model.visit(&mut Fill(&mut grads, 0.3));
        let expected: BTreeMap<String, Vec<f32>> = grads
            .iter()
            .map(|(name, grad)| (name.clone(), grad.mul_scalar(0.1).into_data().to_vec().unwrap()))
            .collect();
        assert!(["q_proj", "k_proj", "v_proj"].iter().all(|p| {
            ["weight", "bias"].iter().all(|t| expected.contains_key(&format!("model.layers.0.self_attn.{p}.{t}")))
        }));
        adamw.step(&mut model, grads, 0.01, 0.01, 0.0).unwrap();
        adamw.save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let found: Vec<&str> = file.names().into_iter().filter_map(|name| name.strip_suffix(".m")).collect();
        assert_eq!(found.len(), expected.len());
        for name in found {
            let m = file.tensor(&format!("{name}.m")).unwrap();
            let m: Vec<f32> = m.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            let gap = m.iter().zip(&expected[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(m.len() == expected[name].len() && gap < 1e-7, "{name}: {gap}");
        }
        // A part that is missing, or at another step than the rest of its stack, is no state of this model.
        let tensors = |change: &dyn Fn(&str, &mut Vec<u8>) -> bool| {
            let mut kept: Vec<(String, Vec<u8>, Vec<usize>)> = vec![];
            for name in file.names() {
                let view = file.tensor(name).unwrap();
                let mut data = view.data().to_vec();
                if change(name, &mut data) {
                    kept.push((name.to_string(), data, view.shape().to_vec()));
                }
            }
            let views = kept.iter().map(|(name, data, shape)| {
                (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
            });
            safetensors::serialize_to_file(views, None, &path).unwrap();
            AdamW::<B>::new(&Optim::default()).load(&path, &mut self::model()).map_err(|e| e.to_string())
        };
        assert_eq!(tensors(&|_, _| true), Ok(()));
        let part = "model.layers.0.self_attn.k_proj.weight";
        let error = tensors(&|name, _| !name.starts_with(part)).unwrap_err();
        assert!(error.contains("some of") && error.contains(part), "{error}");
        let later = |name: &str, data: &mut Vec<u8>| {
            if name == format!("{part}.steps") {
                data.copy_from_slice(&2f32.to_le_bytes());
            }
            true
        };
        let error = tensors(&later).unwrap_err();
        assert!(error.contains("not at the same step"), "{error}");
    }

    /// Noise of bf16 moments is named, not drawn: two runs are the same.
    #[test]
    fn bf16_state_repeats() {
        let optim = Optim { moments_dtype: MomentsDtype::Bf16, grads_dtype: GradsDtype::Bf16, ..Optim::default() };
        let run = || {
            let mut model = model();
            let mut adamw = AdamW::<B>::new(&optim);
            for _ in 0..3 {
                let mut grads = gradients(&optim);
                model.visit(&mut Fill(&mut grads, 0.3));
                model.visit(&mut Fill(&mut grads, 0.1));
                assert!(grads.iter().all(|(_, g)| g.dtype() == DType::BF16));
                assert!(adamw.step(&mut model, grads, 0.01, 0.01, 1.0).unwrap().applied);
            }
            values(&mut model)
        };
        let (a, b) = (run(), run());
        assert_eq!(a, b);
        // Sixteen bits move the weights as thirty-two do, nearly.
        let mut exact = model();
        let mut adamw = AdamW::<B>::new(&Optim::default());
        for _ in 0..3 {
            let mut grads = Gradients::default();
            exact.visit(&mut Fill(&mut grads, 0.3));
            exact.visit(&mut Fill(&mut grads, 0.1));
            adamw.step(&mut exact, grads, 0.01, 0.01, 1.0).unwrap();
        }
        let start = values(&mut model());
        let distance = |a: &[(String, Vec<f32>)], b: &[(String, Vec<f32>)]| {
            let pairs = a.iter().zip(b).flat_map(|((_, a), (_, b))| a.iter().zip(b));
            pairs.map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>().sqrt()
        };
        let exact = values(&mut exact);
        let (gap, moved) = (distance(&a, &exact), distance(&start, &exact));
        assert!(gap < 0.05 * moved, "{gap} off after moving {moved}");
    }

    /// Steps far smaller than the last bit of a weight move it on average, with no master copy.
    #[test]
    fn small_steps_move_bf16_weights() {
        let device = Default::default();
        let config = QwenVlConfig::preset("toy").unwrap();
        let mut model = QwenVl::<B>::random(config, 7, DType::BF16, &device);
        let sum = |model: &mut QwenVl<B>| -> f64 {
            values(model)
                .iter()
                .filter(|(name, _)| name.contains("mlp"))
                .flat_map(|(_, v)| v)
                .map(|v| f64::from(*v))
                .sum()
        };
        let count =
            values(&mut model).iter().filter(|(name, _)| name.contains("mlp")).map(|(_, v)| v.len()).sum::<usize>();
        let before = sum(&mut model);
        let optim = Optim { lr: 1e-5, weight_decay: 0.0, master_weights: false, ..Optim::default() };
        let mut optimizer = AdamW::new(&optim);
        for _ in 0..10 {
            let mut grads = Gradients::default();
            struct Ones<'a>(&'a mut Gradients<B>);
            impl ParamVisitor<B> for Ones<'_> {
                fn visit<const D: usize>(&mut self, name: &str, _: &Shard, t: &mut Tensor<B, D>) {
                    self.0.add(name, to_f32(t.ones_like()));
                }
            }
            model.visit(&mut Ones(&mut grads));
            optimizer.step(&mut model, grads, optim.lr, 0.0, 1e9).unwrap();
        }
        // Adam's steps are lr each when all gradients agree.
        let moved = (before - sum(&mut model)) / count as f64;
        assert!((moved / 1e-4 - 1.0).abs() < 0.1, "{moved}");
    }

    #[test]
    fn learning_rates() {
        let mut optim = Optim { lr: 1.0, lr_warmup_steps: 4, ..Optim::default() };
        assert_eq!(learning_rate(&optim, 1, 10), 0.25);
        assert_eq!(learning_rate(&optim, 9, 10), 1.0);
        optim = Optim { lr: 1.0, lr_scheduler_type: LrScheduler::Cosine, min_lr_ratio: 0.1, ..Optim::default() };
        assert!((learning_rate(&optim, 5, 10) - 0.55).abs() < 1e-12);
        assert!((learning_rate(&optim, 10, 10) - 0.1).abs() < 1e-12);
    }
}
