//! The memory that a run is going to need, and whether the device has it.

use burn::tensor::{DType, Tensor};
use kernels::params::to_f32;
use kernels::{DeviceError, Kernels, host};
use model_qwen2vl::ParamSource;
use model_qwen2vl::QwenVl;
use model_qwen2vl::QwenVlConfig;
use rl::config::{Config, GradsDtype, MomentsDtype, Recompute};

use crate::sides::Cpu;

/// Bytes of one piece: far below what a pool of any device takes at once.
const BLOCK: usize = 1 << 28;

/// Bytes that a training run holds at its peak, by what they are for. Rounded to no pages: what pools waste comes on
/// top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights.
    pub weights: usize,
    /// f32 copies of 16-bit weights, and both moments.
    pub optimizer: usize,
    /// Gradients.
    pub gradients: usize,
    /// Activations of one pass that the backward reads.
    pub activations: usize,
    /// Keys and values of the responses that are decoded at the same time, and of their prompts.
    pub cache: usize,
}

/// Counts parameters and makes none.
struct Count(usize);
impl ParamSource<Cpu> for Count {
    fn param<const D: usize>(&mut self, _: &str, shape: [usize; D]) -> Tensor<Cpu, D> {
        self.0 += shape.iter().product::<usize>();
        Tensor::zeros([1; D], &Default::default())
    }
}

impl MemoryPlan {
    /// Of a run with this configuration.
    pub fn new(architecture: &QwenVlConfig, dtype: DType, run: &Config) -> Self {
        let mut count = Count(0);
        let _shapes_only: QwenVl<Cpu> = QwenVl::build(architecture.clone(), &mut count);
        let (parameters, width, optim) = (count.0, dtype.size(), &run.actor.optim);
        let moment = if optim.moments_dtype == MomentsDtype::Bf16 { 2 } else { 4 };
        let master = if optim.master_weights && dtype != DType::F32 { 4 } else { 0 };
        let gradient = if optim.grads_dtype == GradsDtype::Bf16 { 2 } else { 4 };
        let t = &architecture.text;
        // As `Learning::activation_bytes` counts them: all layers, or each layer's input and one layer.
        let layer = (4 * t.hidden_size + 2 * t.query_width() + 2 * t.kv_width() + 2 * t.intermediate_size) * width;
        let all = layer * t.num_hidden_layers * run.actor.micro_batch_tokens;
        let kept = layer * run.actor.micro_batch_tokens
            + t.hidden_size * width * t.num_hidden_layers * run.actor.micro_batch_tokens;
        let again = match run.actor.recompute {
            Recompute::Always => true,
            Recompute::Never => false,
            Recompute::Auto => all as f64 > run.actor.activation_memory_gib * (1u64 << 30) as f64,
        };
        let row = run.data.max_response_length + run.data.max_prompt_length.div_ceil(run.rollout.n.max(1));
        Self {
            weights: parameters * width,
            optimizer: parameters * (2 * moment + master),
            gradients: parameters * gradient,
            activations: if again { kept } else { all },
            cache: run.rollout.max_batch_rows * row * 2 * t.kv_width() * t.num_hidden_layers * width,
        }
    }

    /// The larger of what sampling and what an update hold.
    pub fn peak(&self) -> usize {
        self.weights + self.optimizer + (self.gradients + self.activations).max(self.cache)
    }

    /// In words, with GiB.
    pub fn text(&self) -> String {
        let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
        format!(
            "weights {:.1}, optimizer {:.1}, gradients {:.1}, activations {:.1}, keys and values {:.1}: {:.1} GiB at the peak",
            gib(self.weights),
            gib(self.optimizer),
            gib(self.gradients),
            gib(self.activations),
            gib(self.cache),
            gib(self.peak())
        )
    }
}

/// Takes `bytes` of the device's memory in pieces, writes all of them, reads one number of each, and gives them back.
///
/// # Errors
/// A device that has less, or that lost a piece.
pub fn fill<B: Kernels>(bytes: usize, device: &B::Device) -> Result<(), DeviceError> {
    let mut pieces: Vec<Tensor<B, 1>> = Vec::new();
    let mut left = bytes / 4;
    while left > 0 {
        let len = left.min(BLOCK / 4);
        pieces.push(Tensor::full([len], (pieces.len() % 1000) as f32 + 1.0, (device, DType::F32)));
        left -= len;
    }
    for (at, piece) in pieces.iter().enumerate() {
        let last = piece.dims()[0] - 1;
        let found = host::floats(to_f32(piece.clone().narrow(0, last, 1)))?;
        if found != [(at % 1000) as f32 + 1.0] {
            return Err(DeviceError(format!(
                "piece {at} of {}, of {} MiB, holds {found:?} where {} was written",
                pieces.len(),
                BLOCK >> 20,
                at % 1000 + 1
            )));
        }
    }
    drop(pieces);
    B::memory_cleanup(device);
    host::sync::<B>(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_counts_what_the_keys_say() {
        let toy = QwenVlConfig::preset("toy").expect("a preset");
        let mut run = Config::default();
        let plan = |run: &Config, dtype| MemoryPlan::new(&toy, dtype, run);
        let f32s = plan(&run, DType::F32);
        assert!(f32s.weights > 4_000_000 && f32s.optimizer == 2 * f32s.weights && f32s.gradients == f32s.weights);
        let bf16 = plan(&run, DType::BF16);
        assert_eq!((2 * bf16.weights, bf16.optimizer), (f32s.weights, 3 * f32s.weights), "moments and a copy in f32");
        run.actor.optim.master_weights = false;
        run.actor.optim.moments_dtype = MomentsDtype::Bf16;
        run.actor.optim.grads_dtype = GradsDtype::Bf16;
        let small = plan(&run, DType::BF16);
        assert_eq!((small.optimizer, small.gradients), (f32s.weights, bf16.weights));
        run.actor.recompute = Recompute::Always;
        assert!(plan(&run, DType::BF16).activations < small.activations);
        assert!(small.text().contains("GiB at the peak"));
    }

    #[test]
    fn pieces_are_read_again() {
        fill::<Cpu>(1 << 20, &Default::default()).expect("a megabyte");
    }
}
