//! The bytes of a rank, by what they are for, and the two moments when most of them are held.

use burn::tensor::DType;
use kernels::bounds::{SAMPLER_LOGITS, TOKENS};
use model_qwen2vl::{QwenVlConfig, TensorParallel};
use rl::TrainError;
use rl::config::{Config, GradsDtype, MomentsDtype};
use rl::learn::GradientOptions;
use rl::recipe::Recipe;

use crate::parameters::CountedOn;
use crate::pass::{computing, learning};
use crate::{ModelShapes, PassMemory, PassSize, cache};

/// How ranks lie: copies of the model, each shared out over some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankGrid {
    /// Copies of the model, which share out the work.
    pub data: usize,
    /// Ranks that have a copy together.
    pub tensor: usize,
}

impl RankGrid {
    /// One device.
    pub const ALONE: Self = Self { data: 1, tensor: 1 };

    /// The grid of a run on `ranks` ranks of `memory` bytes each: `parallel.tensor` ranks to a copy of the model, or as
    /// few as the plan says will do; where the memory is not known (0) there is no reason to share a copy out.
    ///
    /// # Errors
    /// A number that cannot share the decoder out, or that does not divide `ranks`.
    pub fn of_run(
        run: &Config,
        architecture: &QwenVlConfig,
        shapes: &ModelShapes,
        ranks: usize,
        zero: ZeroStage,
        memory: usize,
    ) -> Result<Self, TrainError> {
        let grid = |tensor: usize| Self { data: ranks / tensor, tensor };
        let wanted = run.parallel.tensor;
        // Exact sums are those of whole copies.
        if wanted > 0 || memory == 0 || run.parallel.exact_sums {
            let tensor = wanted.max(1);
            TensorParallel::shapes(&architecture.text, 0, tensor)?;
            return match ranks.is_multiple_of(tensor) {
                true => Ok(grid(tensor)),
                false => Err(TrainError::Input(format!(
                    "parallel.tensor: {tensor} ranks have a copy of the model together, and there are {ranks}; take a \
                     multiple of {tensor}, or lower it"
                ))),
            };
        }
        let possible = |tensor: &usize| {
            ranks.is_multiple_of(*tensor) && TensorParallel::shapes(&architecture.text, 0, *tensor).is_ok()
        };
        let sizes: Vec<usize> = [1, 2, 4, 8].into_iter().filter(possible).collect();
        for &tensor in &sizes {
            let plan = MemoryPlan::new(run, shapes, grid(tensor), zero, memory)?;
            if MemoryPlan::holds(plan.peak(), memory) {
                return Ok(grid(tensor));
            }
        }
        Ok(grid(sizes.last().copied().unwrap_or(1)))
    }

    /// Ranks.
    pub fn ranks(self) -> usize {
        self.data * self.tensor
    }

    /// Copies that sum their gradients in every pass: those of a machine where there are several machines, which sum
    /// theirs once a step (`kernels::zero::Shards`).
    pub(crate) fn together(self) -> usize {
        match MACHINE / self.tensor {
            0 | 1 => self.data,
            copies => copies.min(self.data),
        }
    }
}

/// What the copies of the model share out between them (ZeRO, arXiv 1910.02054).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroStage {
    /// Nothing: each has all gradients and the whole state of the optimizer.
    Off,
    /// The state of the optimizer.
    One,
    /// And the gradients, but for those of the layer that is computed.
    Two,
}

/// GPUs of a machine: what machines with GPUs of 80 GB have.
const MACHINE: usize = 8;

/// The driver's context with the kernels that are loaded. Assumed, not measured.
const CONTEXT: usize = 512 << 20;

/// The buffers of NCCL's communicators. Assumed, not measured.
const NCCL: usize = 1536 << 20;

/// Bytes of one rank, by what they are for. Rounded to no pages: what pools leave unused comes on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// What the copies of the model share out.
    pub zero: ZeroStage,
    /// Weights.
    pub weights: usize,
    /// The policy of a KL term.
    pub reference: usize,
    /// Gradients.
    pub gradients: usize,
    /// Gradients that are on their way to the rank that keeps them.
    pub bucket: usize,
    /// Those of the layer before, whose sums are still under way.
    pub under_way: usize,
    /// Both moments, and f32 copies of 16-bit weights.
    pub optimizer: usize,
    /// Activations of one pass.
    pub pass: PassMemory,
    /// Whether layers are computed again in the backward.
    pub recompute: bool,
    /// Image embeddings, and whether they are still there in an update.
    pub images: (usize, bool),
    /// Responses that are decoded at the same time.
    pub rows: usize,
    /// Their keys and values, and those of their prompts, all of the longest.
    pub keys_and_values: usize,
    /// The same where all are half as long.
    pub keys_and_values_of_half: usize,
    /// Prefill, or the logits of a token.
    pub sampling: usize,
    /// What is held outside of tensors: the driver, NCCL.
    pub runtime: usize,
}

impl MemoryPlan {
    /// Of a rank of `grid` in a run with this configuration. `memory` bytes of the device matter only where
    /// `rollout.max_batch_rows` is 0.
    ///
    /// # Errors
    /// A configuration that names no algorithm.
    pub fn new(
        run: &Config,
        shapes: &ModelShapes,
        grid: RankGrid,
        zero: ZeroStage,
        memory: usize,
    ) -> Result<Self, TrainError> {
        let (optim, size) = (&run.actor.optim, shapes.dtype.size());
        let mut options = GradientOptions::of::<CountedOn, _>(run, &shapes.model, 1.0, false);
        options.train_vision &= shapes.trains_vision();
        let adapters = shapes.adapters_of_rank(grid);
        let parameters = shapes.of_rank(grid, false) + adapters;
        let learned = if shapes.has_adapters() { adapters } else { shapes.of_rank(grid, !options.train_vision) };
        let share = |stage: bool| if stage { learned.div_ceil(grid.data) } else { learned };
        let state_share = share(zero != ZeroStage::Off);
        let gradient = if optim.grads_dtype == GradsDtype::Bf16 { 2 } else { 4 };
        let moments = if optim.moments_dtype == MomentsDtype::Bf16 { 4 } else { 8 };
        let master = if optim.master_weights && shapes.dtype != DType::F32 { 4 } else { 0 };
        // Parts are summed over ranks in f32, layer by layer, a tower that is frozen as zeros; what is kept in 16 bits
        // is cast on the way.
        let cast = if gradient < 4 { 4 * shapes.largest_tensor(grid) } else { 0 };
        let summed = if shapes.has_adapters() { learned } else { parameters };
        let (gradients, bucket, under_way) = match zero {
            ZeroStage::Two => (
                4 * summed.div_ceil(grid.together()),
                gradient * shapes.largest_bucket(grid) + cast,
                4 * shapes.largest_layer(grid),
            ),
            _ => (learned * gradient, 0, 0),
        };
        let weights = parameters * size;
        // Of adapters the weights below are the same.
        let referred = if shapes.has_adapters() { adapters * size } else { weights };
        let reference = if Recipe::<CountedOn>::new(run)?.wants_reference() { referred } else { 0 };
        let optimizer = state_share * (moments + master);
        let images = cache::images(run, shapes, grid)?;
        let runtime = CONTEXT + if grid.ranks() > 1 { NCCL } else { 0 };
        let free = memory.saturating_sub(weights + reference + optimizer + images + runtime);
        let rows = cache::rows(run, shapes, grid, free);
        let pass = learning_size(run, shapes, grid, options.token_budget);
        Ok(Self {
            zero,
            weights,
            reference,
            gradients,
            bucket,
            under_way,
            optimizer,
            pass: learning(shapes, grid, &pass, options.recompute, options.train_vision),
            recompute: options.recompute,
            images: (images, !options.train_vision),
            rows,
            keys_and_values: cache::keys_and_values(run, shapes, grid, rows, false),
            keys_and_values_of_half: cache::keys_and_values(run, shapes, grid, rows, true),
            sampling: sampling(run, shapes, grid, rows),
            runtime,
        })
    }

    /// Bytes of a checkpoint on the disk: all weights, and the optimizer's state of all ranks.
    pub fn checkpoint(&self, shapes: &ModelShapes, grid: RankGrid) -> usize {
        let copies = if self.zero == ZeroStage::Off { 1 } else { grid.data };
        shapes.counts()[0] * shapes.dtype.size() + self.optimizer * copies * grid.tensor
    }

    /// The part of a device's memory that pools reserve and do not use. Counted under the stand-in for CUDA, see
    /// docs/memory.md.
    pub const UNUSED: f64 = 0.10;

    /// Whether a device of `memory` bytes holds `bytes`, with what its pools leave unused.
    pub fn holds(bytes: usize, memory: usize) -> bool {
        bytes as f64 <= memory as f64 * (1.0 - Self::UNUSED)
    }

    /// What is held at any time.
    fn always(&self) -> usize {
        self.weights + self.reference + self.optimizer + self.runtime
    }

    /// Bytes while the policy learns.
    pub fn update(&self) -> usize {
        let images = if self.images.1 { self.images.0 } else { 0 };
        let sums = self.gradients + self.bucket + self.under_way;
        self.always() + sums + self.pass.kept + self.pass.passing + images
    }

    /// Bytes while responses are sampled.
    pub fn rollout(&self) -> usize {
        self.always() + self.keys_and_values + self.sampling + self.images.0
    }

    /// The same where prompts and responses are half as long.
    pub fn rollout_of_half(&self) -> usize {
        self.rollout() - self.keys_and_values + self.keys_and_values_of_half
    }

    /// The larger of the two.
    pub fn peak(&self) -> usize {
        self.update().max(self.rollout())
    }

    /// The same without what is held outside of tensors.
    pub fn tensors(&self) -> usize {
        self.peak() - self.runtime
    }

    /// In words, with GiB.
    pub fn text(&self) -> String {
        let gib = |bytes: usize| format!("{:.1}", bytes as f64 / (1u64 << 30) as f64);
        format!(
            "weights {}, optimizer {}, gradients {}, activations {}, keys and values {}: {} GiB in an update, {} in sampling",
            gib(self.weights + self.reference),
            gib(self.optimizer),
            gib(self.gradients + self.bucket + self.under_way),
            gib(self.pass.kept + self.pass.passing),
            gib(self.keys_and_values),
            gib(self.update()),
            gib(self.rollout())
        )
    }
}

/// The largest pass of an update: as many tokens as may be together, or as there are.
fn learning_size(run: &Config, shapes: &ModelShapes, grid: RankGrid, budget: usize) -> PassSize {
    let (prompt, response) = (run.data.max_prompt_length, run.data.max_response_length);
    let group = prompt + run.rollout.n * response;
    let groups = run.actor.global_batch_size.min(run.data.rollout_batch_size).div_ceil(grid.data);
    // A response is never cut, and counts with its prompt.
    let tokens = budget.max(prompt + response).min(groups * group);
    let picture = cache::picture(run, shapes);
    let image_tokens = (tokens / group).clamp(1, groups) * picture;
    PassSize { tokens: tokens.next_multiple_of(TOKENS), image_tokens, prompt, response, picture }
}

/// What sampling takes beside keys and values: the prefill of as many prompts as may be together, or a token's logits.
fn sampling(run: &Config, shapes: &ModelShapes, grid: RankGrid, rows: usize) -> usize {
    let prompt = run.data.max_prompt_length;
    let groups = rows.div_ceil(run.rollout.n);
    let together = (run.rollout.prefill_token_budget / prompt).clamp(1, groups);
    let picture = cache::picture(run, shapes);
    let tokens = (together * prompt).next_multiple_of(TOKENS);
    let pass = PassSize { tokens, image_tokens: together * picture, prompt, response: 0, picture };
    let vocab = shapes.architecture().text.vocab_size.div_ceil(grid.tensor);
    let logits = SAMPLER_LOGITS.clamp(vocab, (rows * vocab).max(vocab)) * shapes.dtype.size();
    computing(shapes, grid, &pass).max(logits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model_qwen2vl::QwenVlConfig;

    fn plan(preset: &str, grid: RankGrid, zero: ZeroStage, run: &Config) -> MemoryPlan {
        let shapes = ModelShapes::new(&QwenVlConfig::preset(preset).unwrap(), DType::BF16);
        MemoryPlan::new(run, &shapes, grid, zero, 80 << 30).unwrap()
    }

    /// Bytes in units of 1e8, rounded.
    fn tenths(bytes: usize) -> usize {
        (bytes + 50_000_000) / 100_000_000
    }

    /// The figures of the design, worked out by another program: GB (1e9) of weights, gradients of ZeRO-1 and 2,
    /// bucket, and optimizer with f32 and with bf16 moments, all with an f32 master.
    #[test]
    fn published_sizes_on_eight_and_thirty_two() {
        let at = |data, tensor| RankGrid { data, tensor };
        let bf16 = {
            let mut run = Config::default();
            run.actor.optim.moments_dtype = MomentsDtype::Bf16;
            run
        };
        for (preset, grid, w, g1, g2, bucket, f32s, bf16s) in [
            ("3b", at(8, 1), 75, 150, 19, 12, 56, 38),
            ("7b", at(8, 1), 166, 332, 41, 22, 124, 83),
            ("7b", at(2, 4), 52, 103, 52, 5, 155, 103),
            // Two levels: gradients are shared out within a machine, moments over all.
            ("7b", at(32, 1), 166, 332, 41, 22, 31, 21),
            ("32b", at(8, 4), 178, 355, 178, 8, 133, 89),
            ("32b", at(4, 8), 96, 191, 48, 4, 144, 96),
        ] {
            let (one, two) = (ZeroStage::One, ZeroStage::Two);
            let [a, b] = [one, two].map(|zero| plan(preset, grid, zero, &Config::default()));
            let c = plan(preset, grid, two, &bf16);
            let layer = ModelShapes::new(&QwenVlConfig::preset(preset).unwrap(), DType::BF16).largest_layer(grid);
            assert_eq!((a.under_way, b.under_way), (0, 4 * layer), "{preset} {grid:?}");
            let found = [a.weights, a.gradients, b.gradients, b.bucket, b.optimizer, c.optimizer].map(tenths);
            assert_eq!(found, [w, g1, g2, bucket, f32s, bf16s], "{preset} {grid:?}");
            assert_eq!((a.bucket, a.optimizer), (0, b.optimizer));
        }
    }

    /// Everything that a key takes away is away.
    #[test]
    fn keys_and_types_count() {
        let mut run = Config::default();
        let alone = |run: &Config| plan("7b", RankGrid::ALONE, ZeroStage::Off, run);
        let all = alone(&run);
        let parameters = 8_292_166_656;
        assert_eq!((all.weights, all.gradients, all.optimizer), (2 * parameters, 4 * parameters, 12 * parameters));
        assert_eq!((all.reference, all.images.1, all.runtime), (0, false, CONTEXT));
        run.actor.optim.moments_dtype = MomentsDtype::Bf16;
        run.actor.optim.grads_dtype = GradsDtype::Bf16;
        run.actor.optim.master_weights = false;
        run.algorithm.disable_kl = false;
        run.algorithm.use_kl_loss = true;
        let small = alone(&run);
        assert_eq!((small.gradients, small.optimizer), (2 * parameters, 4 * parameters));
        assert_eq!(small.reference, small.weights);
        run.model.freeze_vision_tower = true;
        let frozen = alone(&run);
        let learned = parameters - 676_550_144;
        assert_eq!((frozen.gradients, frozen.optimizer), (2 * learned, 4 * learned));
        assert!(frozen.images.1 && frozen.pass.kept < small.pass.kept);
        assert_eq!(frozen.weights, small.weights);
    }

    #[test]
    fn an_update_is_no_longer_than_its_groups() {
        let mut run = Config::default();
        run.data.max_prompt_length = 64;
        run.data.max_response_length = 4;
        run.data.rollout_batch_size = 2;
        run.rollout.n = 2;
        let shapes = ModelShapes::new(&QwenVlConfig::preset("toy").unwrap(), DType::F32);
        let size = |run: &Config, data| learning_size(run, &shapes, RankGrid { data, tensor: 1 }, 16_384);
        assert_eq!(size(&run, 1).tokens, (2 * (64 + 8usize)).next_multiple_of(TOKENS));
        run.data.max_prompt_length = 20_000;
        assert_eq!(size(&run, 2).tokens, 20_004usize.next_multiple_of(TOKENS), "a prompt and a response of it");
    }
}
