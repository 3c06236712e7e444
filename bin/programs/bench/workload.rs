//! The work that `bench` measures: random prompts, fixed lengths, one step of reinforcement learning over them.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::{DType, Distribution, Tensor};
use comm::Ranks;
use data::Processor;
use doctor::product::best_seconds;
use launch::end_tokens;
use model_qwen2vl::model::Prompt;
use model_qwen2vl::{Kernels, QwenVl, QwenVlConfig, host};
use plan::{ModelShapes, StepFigures, optimizer_bytes};
use reward::Score;
use rl::TrainError;
use rl::config::{Config, OldLogProbs, Optim};
use rl::experience::{StepContext, make};
use rl::focus;
use rl::image_cache::ImageCache;
use rl::learn::optimizer::AdamW;
use rl::learn::update::{Learner, UpdateSchedule, UpdateSettings, update};
use rl::learn::{GradientOptions, recompute_for};
use rl::policy::Learning;
use rl::prompts::Item;
use rl::recipe::Recipe;
use rl::rollout::{Job, Response, RolloutConfig, RolloutStats, generate, never_sampled};
use rl::sampler::{Sampling, uniform};
use rl::shaping::Training;
use rl::trajectory::{ScoredGroup, Trajectory};

use super::row::BenchRow;
use super::work::{StepDone, decode_bytes, flops, measured, packed};
use crate::common::{Failure, device_name};

/// Sizes of a step.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    /// Prompts.
    pub prompts: usize,
    /// Responses a prompt.
    pub rollouts: usize,
    /// Side of the picture in pixels, 0 for none.
    pub image: usize,
    /// Words of the prompt.
    pub text_tokens: usize,
    /// Tokens of each response.
    pub response_tokens: usize,
    /// Responses in one pass.
    pub micro_batch: Option<usize>,
}

/// A model and its optimizer, ready to be timed.
pub(super) struct Bench<B: Kernels> {
    model: QwenVl<B>,
    optimizer: AdamW<B>,
    /// Settings of the step.
    pub config: Config,
    /// Whether layers are computed again; none leaves it to memory.
    pub recompute: Option<bool>,
    seed: u64,
    /// Floating-point operations a second of a large matmul, measured or given.
    peak_flops: f64,
    /// Bytes a second of a copy; none where the other speed was given.
    copied: Option<f64>,
    parameters: usize,
    /// Ids that end a response; all are held back until it has its length.
    eos: Vec<u32>,
    /// Ids that are never sampled.
    suppress: Vec<u32>,
}

/// Lets [`BenchRow`]'s peak count from here, where the kernel can.
pub(super) fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The highest resident memory so far, where /proc says; on a GPU what its memory pool holds, which does not shrink
/// between the phases at whose ends pages are given back.
fn peak_gib<B: Kernels>(device: &B::Device) -> Option<f64> {
    if let Some(bytes) = B::device_memory(device) {
        return Some(bytes as f64 / (1u64 << 30) as f64);
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0 / 1024.0)
}

/// A standard normal number by Box and Muller.
fn normal(seed: u64, stream: u64, i: u64) -> f32 {
    let (a, b) = (uniform(seed, stream, i, 0), uniform(seed, stream, i, 1));
    (-2.0 * a.ln()).sqrt() * (std::f32::consts::TAU * b).cos()
}

/// The peer's layout: half of the words, the picture between its markers, the other half.
fn prompt(config: &QwenVlConfig, sizes: &Sizes, seed: u64, index: u64) -> Result<Prompt, TrainError> {
    let vocab = config.text.vocab_size;
    let (low, high) = if vocab < 100_000 { (6, vocab) } else { (100, 150_000) };
    let special = config.vision_token_ids();
    let word = |i: usize| {
        let id = low + (uniform(seed, index, 1, i as u64) as f64 * (high - low) as f64) as usize;
        // A special token among the words would break the layout.
        if special.contains(&(id as u32)) { low as u32 } else { id as u32 }
    };
    let words: Vec<u32> = (0..sizes.text_tokens).map(word).collect();
    let merge = config.vision.spatial_merge_size;
    let side = sizes.image / 14 / merge * merge;
    if side == 0 {
        return Ok(config.prompt(words, vec![], vec![])?);
    }
    let (first, second) = words.split_at(words.len() / 2);
    let mut ids = first.to_vec();
    ids.push(config.vision_start_token_id);
    ids.extend(std::iter::repeat_n(config.image_token_id, side * side / config.vision.merge_unit()));
    ids.push(config.vision_end_token_id);
    ids.extend(second);
    let pixels =
        (0..side * side * config.vision.patch_dim()).map(|i| normal(seed, index + (1 << 32), i as u64)).collect();
    Ok(config.prompt(ids, pixels, vec![[1, side, side]])?)
}

impl<B: Kernels> Bench<B> {
    /// Sets up an optimizer. Shares are reported of `peak_flops` floating-point operations a second, and with the bytes
    /// a second of a copy `copied` go into the figures of each step.
    ///
    /// # Errors
    /// A `folder` whose tokenizer cannot be read.
    pub(super) fn new(
        model: QwenVl<B>,
        folder: Option<&Path>,
        seed: u64,
        optim: Optim,
        (peak_flops, copied): (f64, Option<f64>),
    ) -> Result<Self, Failure> {
        let mut config = Config::default();
        config.actor.optim = optim;
        let vision = model.config.vision_token_ids();
        // A preset has no tokenizer, and its ids no text.
        let (eos, suppress) = match folder.filter(|folder| folder.join("tokenizer.json").exists()) {
            Some(folder) => {
                let processor = Processor::from_folder(folder)?;
                let eos = end_tokens(folder, &model.config, &processor)?;
                (eos, never_sampled(vision, &processor, model.config.text.vocab_size))
            }
            None => (model.config.eos_token_ids.clone(), vision),
        };
        let optimizer = AdamW::new(&config.actor.optim);
        let parameters = ModelShapes::new(&model.config, model.head().0.dtype()).counts()[0];
        Ok(Self { optimizer, model, config, recompute: None, seed, peak_flops, copied, parameters, eos, suppress })
    }

    /// Whether each optimizer step reads a number that shows lost work.
    pub(super) fn check_device(&mut self, check: bool) {
        self.optimizer = AdamW::new(&self.config.actor.optim).check_device(check);
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(host::sync::<B>(&self.model.device()).map_err(TrainError::from)?)
    }

    /// The settings of a step of these sizes: one optimizer step over all groups, in passes as long as asked for.
    fn settings(&self, sizes: &Sizes, prompts: &[Prompt]) -> Config {
        let mut config = self.config.clone();
        config.data.rollout_batch_size = sizes.prompts;
        config.actor.global_batch_size = sizes.prompts;
        config.actor.ppo_epochs = 1;
        config.rollout.temperature = 1.0;
        if let Some(k) = sizes.micro_batch {
            // As many prompts as k responses have.
            let k = k.min(sizes.prompts * sizes.rollouts);
            let prompt = prompts.iter().map(Prompt::len).max().unwrap_or(0);
            config.actor.micro_batch_tokens = k.div_ceil(sizes.rollouts) * prompt + k * sizes.response_tokens;
        }
        config
    }

    /// One step by the trainer's own steps: sample, make experience, update. Random rewards stand for a grader's.
    pub(super) fn step(&mut self, sizes: &Sizes, step: u64) -> Result<BenchRow, Failure> {
        let architecture = &self.model.config.clone();
        let prompts = (0..sizes.prompts)
            .map(|i| prompt(architecture, sizes, self.seed, i as u64))
            .collect::<Result<Vec<_>, _>>()?;
        let config = self.settings(sizes, &prompts);
        let recipe = Recipe::<B>::new(&config)?;
        let mut images = ImageCache::new(config.rollout.image_cache_gib);

        let start = Instant::now();
        let (responses, stats) = self.sample(&prompts, sizes, &recipe, step, &mut images)?;
        self.sync()?;
        let generate_s = start.elapsed().as_secs_f64();

        let clock = Instant::now();
        let context = StepContext {
            config: &config,
            recipe: &recipe,
            // No stream of these algorithms needs one, and a preset has none.
            processor: None,
            step,
            training: Training { step, max_steps: u64::MAX },
            ranks: &Ranks::solo(),
        };
        let groups = self.groups(&prompts, responses, step);
        let (experience, made) = make(&self.model, None, groups, &context, &mut images)?;
        self.sync()?;
        let old_s = clock.elapsed().as_secs_f64() - made.advantages_s;

        // The update gives the pages of sampling and scoring back.
        let before_update = peak_gib::<B>(&self.model.device());
        let clock = Instant::now();
        let token_budget = config.actor.micro_batch_tokens;
        let options = GradientOptions {
            temperature: 1.0,
            entropy: recipe.loss.needs_full_entropy(),
            token_budget,
            train_vision: self.model.trains_vision(),
            recompute: self.recompute.unwrap_or_else(|| {
                let tokens = token_budget.min(packed(&prompts, sizes));
                recompute_for(&self.model, tokens, config.actor.activation_memory_gib)
            }),
        };
        let settings = UpdateSettings { config: &config, loss: &recipe.loss, options: &options };
        let learner = Learner {
            policy: &mut self.model,
            optimizer: &mut self.optimizer,
            images: &mut images,
            ranks: &Ranks::solo(),
        };
        let (_, updated) = update(learner, &experience, settings, &mut UpdateSchedule { done: 0, total: 1 })?;
        self.sync()?;
        let update_s = clock.elapsed().as_secs_f64();
        let total_s = start.elapsed().as_secs_f64();
        // Focus is computed inside the scoring pass; here once more by itself, outside of the total.
        let focus_s =
            made.advantages_s + recipe.focus().map_or(Ok(0.0), |mode| self.focus_seconds(&prompts, sizes, mode))?;
        let seconds =
            [generate_s, old_s, update_s, stats.vision_s, stats.prefill_s, focus_s, updated.optimizer_s, total_s];
        let mut row = self.row(sizes, &prompts, step, seconds);
        row.figures = self.figures(&prompts, sizes, seconds, options.recompute);
        row.peak_gib = before_update.into_iter().chain(row.peak_gib).reduce(f64::max);
        Ok(row)
    }

    /// Responses of the asked length to all prompts.
    fn sample(
        &self,
        prompts: &[Prompt],
        sizes: &Sizes,
        recipe: &Recipe<B>,
        step: u64,
        images: &mut ImageCache<B>,
    ) -> Result<(Vec<Vec<Response>>, RolloutStats), Failure> {
        let config = self.settings(sizes, prompts);
        let rollout = RolloutConfig {
            n: sizes.rollouts,
            sampling: Sampling { temperature: 1.0, top_p: 1.0, seed: self.seed.wrapping_add(step) },
            max_new_tokens: sizes.response_tokens,
            min_new_tokens: sizes.response_tokens,
            eos: self.eos.clone(),
            suppress: self.suppress.clone(),
            focus: recipe.focus().filter(|_| config.actor.old_log_probs == OldLogProbs::Rollout),
            max_batch_rows: sizes.prompts * sizes.rollouts,
            prefill_token_budget: config.actor.micro_batch_tokens.max(self.config.actor.micro_batch_tokens),
        };
        let jobs: Vec<Job> = prompts.iter().enumerate().map(|(i, prompt)| Job { prompt, key: i as u64 }).collect();
        let never = AtomicBool::new(false);
        Ok(generate(&self.model, &jobs, &rollout, images, &never, |_, _, _| {}).map_err(TrainError::from)?)
    }

    /// The responses as a grader would return them, with random rewards.
    fn groups(&self, prompts: &[Prompt], responses: Vec<Vec<Response>>, step: u64) -> Vec<ScoredGroup> {
        let mut count = 0;
        let mut trajectory = |response| {
            let overall = f64::from(normal(self.seed, step + (1 << 33), count));
            count += 1;
            Trajectory::new(response, String::new(), Score { overall, ..Score::default() })
        };
        // One list of responses per prompt: `generate` answers what it was given.
        let pairs = std::iter::zip(prompts, responses).enumerate();
        let group = |(row, (prompt, responses)): (usize, (&Prompt, Vec<Response>))| ScoredGroup {
            item: Item {
                row,
                id: String::new(),
                problem: String::new(),
                answer: String::new(),
                solution: None,
                task: None,
                columns: Default::default(),
                prompt: prompt.clone(),
                images: vec![],
                holder: 0,
                known_content: None,
            },
            trajectories: responses.into_iter().map(&mut trajectory).collect(),
            greedy: None,
            carried: false,
        };
        pairs.map(group).collect()
    }

    /// What a step took, with the work that it was.
    fn row(&self, sizes: &Sizes, prompts: &[Prompt], step: u64, seconds: [f64; 8]) -> BenchRow {
        let architecture = &self.model.config;
        let [decoder, tower] = flops(architecture, prompts, sizes);
        // The tower computes a picture once for generation and scoring.
        let passes = if self.config.actor.old_log_probs == OldLogProbs::Rollout { 4.0 } else { 5.0 };
        BenchRow {
            step,
            prompt_tokens: prompts[0].len(),
            response_tokens: sizes.response_tokens,
            rollouts: sizes.prompts * sizes.rollouts,
            seconds,
            flops: decoder * passes + tower * 4.0,
            update_flops: 3.0 * (decoder + tower),
            peak_flops: self.peak_flops,
            decode_bytes: decode_bytes(architecture, prompts, sizes, self.model.head().0.dtype().size()),
            peak_gib: peak_gib::<B>(&self.model.device()),
            figures: None,
        }
    }

    /// How fast this machine was, for `estimate`.
    fn figures(&self, prompts: &[Prompt], sizes: &Sizes, seconds: [f64; 8], recompute: bool) -> Option<StepFigures> {
        let width = self.model.head().0.dtype().size();
        let optimizer_bytes = self.parameters as f64 * optimizer_bytes(&self.config.actor.optim, width);
        let done = StepDone { prompts, sizes, seconds, recompute, width, optimizer_bytes };
        let device = self.model.device();
        Some(StepFigures {
            device: device_name(&B::name(&device)),
            dtype: if width == 4 { "f32" } else { "bf16" }.into(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            parameters: self.parameters as f64,
            rows: (prompts.len() * sizes.rollouts) as f64,
            flops_per_s: self.peak_flops,
            bytes_per_s: self.copied?,
            work: measured(&self.model.config, &done),
        })
    }

    /// Equations 2 to 4 over hidden states of the step's size.
    fn focus_seconds(&self, prompts: &[Prompt], sizes: &Sizes, mode: ::vgpo::PrototypeMode) -> Result<f64, Failure> {
        let device = self.model.device();
        let d = self.model.config.text.hidden_size;
        let responses = sizes.rollouts * sizes.response_tokens;
        let mut seconds = 0.0;
        for prompt in prompts {
            let rows = prompt.len() + responses;
            let hidden =
                Tensor::<B, 2>::random([rows, d], Distribution::Default, (&device, self.model.head().0.dtype()));
            let image_rows = prompt.image_rows(&self.model.config);
            self.sync()?;
            let clock = Instant::now();
            let prototype = focus::prototype(&hidden, &image_rows, &(0..prompt.len()), mode, &prompt.image_grid_thw);
            if let Some(p) = prototype.map_err(TrainError::from)? {
                host::floats(focus::of_range(&hidden, prompt.len()..rows, &p)).map_err(TrainError::from)?;
            }
            seconds += clock.elapsed().as_secs_f64();
        }
        Ok(seconds)
    }
}

/// Bytes a second, read and written, of an addition to 64 MiB: beyond a processor's caches. An addition reads and
/// writes every element once; a copy alone would be a second name for the same memory.
pub(super) fn copied_bytes<B: Kernels>(model: &QwenVl<B>) -> Result<f64, TrainError> {
    const BYTES: usize = 1 << 26;
    let device = model.device();
    let source = Tensor::<B, 1>::zeros([BYTES / 4], (&device, DType::F32));
    let seconds = best_seconds::<B>(&device, || {
        let _copy = source.clone().add_scalar(1.0);
    })?;
    Ok(2.0 * BYTES as f64 / seconds)
}

/// Floating-point operations a second of a square matmul, the best of six; of 1024 rows on a CPU, more where that is
/// over too soon to be measured.
pub(super) fn matmul_flops<B: Kernels>(model: &QwenVl<B>) -> Result<f64, TrainError> {
    let device = model.device();
    let mut n = 1024;
    loop {
        let x = Tensor::<B, 2>::random([n, n], Distribution::Default, (&device, model.head().0.dtype()));
        let mut best = f64::MAX;
        for _ in 0..6 {
            host::sync::<B>(&device)?;
            let clock = Instant::now();
            let y = B::matmul(x.clone(), x.clone());
            host::sync::<B>(&device)?;
            drop(y);
            best = best.min(clock.elapsed().as_secs_f64());
        }
        if best > 5e-3 || n == 8192 {
            return Ok(2.0 * (n as f64).powi(3) / best);
        }
        n *= 2;
    }
}
