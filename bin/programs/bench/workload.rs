//! The work that `bench` measures: random prompts, fixed lengths, one step of reinforcement learning over them.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::{Distribution, Tensor};
use data::Processor;
use model_qwen2vl::config::{MlpKind, TowerAttention};
use model_qwen2vl::model::Prompt;
use model_qwen2vl::{Kernels, QwenVl, QwenVlConfig, host};
use rl::TrainError;
use rl::advantage::Advantages;
use rl::config::{Config, OldLogProbs, Optim};
use rl::engine::{GradientOptions, GroupRef, ScoreRequest, recompute_for, score};
use rl::experience::{Experience, Group};
use rl::focus;
use rl::image_cache::ImageCache;
use rl::launch::end_tokens;
use rl::optimizer::AdamW;
use rl::prompts::Item;
use rl::rollout::{Job, RolloutConfig, generate, never_sampled};
use rl::sampler::{Sampling, uniform};
use rl::shaping::{ShapingBatch, Stream, Streams, Training};
use rl::update::{Learner, Schedule, update};
use serde_json::{Value, json};

use crate::common::Failure;

/// Sizes of a step.
#[derive(Debug, Clone)]
pub struct Sizes {
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
pub struct Bench<B: Kernels> {
    model: QwenVl<B>,
    optimizer: AdamW<B>,
    /// Settings of the step.
    pub config: Config,
    /// Whether layers are computed again; none leaves it to memory.
    pub recompute: Option<bool>,
    seed: u64,
    /// Floating-point operations a second of a large matmul, measured.
    peak_flops: f64,
    /// Ids that end a response; all are held back until it has its length.
    eos: Vec<u32>,
    /// Ids that are never sampled.
    suppress: Vec<u32>,
}

/// What one step took.
#[derive(Debug, Clone)]
pub struct Row {
    step: u64,
    prompt_tokens: usize,
    response_tokens: usize,
    rollouts: usize,
    /// `[generate, old log-probs, update, vision, prefill, focus and factors, optimizer, total]` in seconds.
    seconds: [f64; 8],
    flops: f64,
    update_flops: f64,
    peak_flops: f64,
    decode_bytes: f64,
    peak_gib: Option<f64>,
}

/// Seconds of the parts of a step, and its highest memory.
pub struct Phases {
    /// Sampling.
    pub generate: f64,
    /// The scoring pass.
    pub old_log_probs: f64,
    /// Gradients and optimizer.
    pub update: f64,
    /// All of it.
    pub total: f64,
    /// GiB, where the system says.
    pub peak_gib: Option<f64>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        0 => 0.5 * (values[half - 1] + values[half]),
        _ => values[half],
    }
}

impl Row {
    /// Columns of [`line`](Self::line).
    pub const COLUMNS: usize = 10;

    /// Names of the columns.
    pub fn header() -> &'static str {
        "| generate s | old log-probs s | update s | total s | vision s | prefill s | focus s | optimizer s | GFLOP/s | peak GiB |"
    }

    /// One row of a Markdown table.
    pub fn line(&self) -> String {
        let [generate, old, update, vision, prefill, focus, optimizer, total] = self.seconds;
        let gib = self.peak_gib.map_or("-".into(), |g| format!("{g:.2}"));
        format!(
            "| {generate:.3} | {old:.3} | {update:.3} | {total:.3} | {vision:.3} | {prefill:.3} | {focus:.4} | {optimizer:.3} | {:.1} | {gib} |",
            self.flops / total / 1e9
        )
    }

    /// The parts that are drawn.
    pub fn phases(&self) -> Phases {
        let [generate, old_log_probs, update, .., total] = self.seconds;
        Phases { generate, old_log_probs, update, total, peak_gib: self.peak_gib }
    }

    /// The peer's keys and ours.
    pub fn json(&self) -> Value {
        let [generate, old, update, vision, prefill, focus, optimizer, total] = self.seconds;
        let round = |x: f64| (x * 1e4).round() / 1e4;
        let (b, r) = (self.rollouts as f64, self.response_tokens as f64);
        let mut row = json!({
            "engine": "visual-rl", "step": self.step, "threads": std::thread::available_parallelism().map_or(1, |n| n.get()),
            "prompt_tokens": self.prompt_tokens, "response_tokens": self.response_tokens, "rollouts": self.rollouts,
            "generate_s": round(generate), "old_logprobs_s": round(old), "update_s": round(update), "total_s": round(total),
            "decode_tokens_per_s": round(b * r / generate),
            // As the peer counts: every response with a prompt of its own.
            "update_tokens_per_s": round(b * (self.prompt_tokens as f64 + r) / update),
            "rollouts_per_s": round(b / total),
            "vision_s": round(vision), "prefill_s": round(prefill), "focus_s": round(focus), "optimizer_s": round(optimizer),
            "model_flops": self.flops, "matmul_flops_per_s": self.peak_flops.round(), "share_of_peak": round(self.flops / total / self.peak_flops),
            "update_share_of_peak": round(self.update_flops / update / self.peak_flops),
            "decode_bytes": self.decode_bytes, "decode_bytes_per_s": (self.decode_bytes / (generate - vision - prefill).max(1e-9)).round(),
        });
        if let (Some(gib), Some(map)) = (self.peak_gib, row.as_object_mut()) {
            map.insert("peak_gib".into(), json!(round(gib)));
        }
        row
    }

    /// Medians of the seconds, the highest peak.
    pub fn median(rows: Vec<Row>) -> Row {
        let mut out = rows[0].clone();
        for (i, s) in out.seconds.iter_mut().enumerate() {
            *s = median(rows.iter().map(|r| r.seconds[i]).collect());
        }
        out.peak_gib = rows.iter().filter_map(|r| r.peak_gib).reduce(f64::max);
        out
    }
}

/// Lets [`Row`]'s peak count from here, where the kernel can.
pub fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The highest resident memory so far, where /proc says; on a GPU what its memory pool holds, which does not shrink within a step.
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
    /// Measures the device's matmul and sets up an optimizer.
    ///
    /// # Errors
    /// A device that fails, a `folder` whose tokenizer cannot be read.
    pub fn new(model: QwenVl<B>, folder: Option<&Path>, seed: u64, optim: Optim) -> Result<Self, Failure> {
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
        let peak_flops = matmul_flops(&model)?;
        let optimizer = AdamW::new(&config.actor.optim);
        Ok(Self { optimizer, model, config, recompute: None, seed, peak_flops, eos, suppress })
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(host::sync::<B>(&self.model.device()).map_err(TrainError::from)?)
    }

    /// One step: generate, old log-probs, advantages and their shaping, update.
    pub fn step(&mut self, sizes: &Sizes, step: u64) -> Result<Row, Failure> {
        let config = &self.model.config.clone();
        let prompts =
            (0..sizes.prompts).map(|i| prompt(config, sizes, self.seed, i as u64)).collect::<Result<Vec<_>, _>>()?;
        let shaping = self.config.to_shaping_config().build::<B>();
        let mode = shaping.streams().iter().find_map(|s| match s {
            Stream::VisualFocus { prototype } => Some(*prototype),
            _ => None,
        });
        let from_rollout = self.config.actor.old_log_probs == OldLogProbs::Rollout;
        let token_budget = match sizes.micro_batch {
            // As many prompts as k responses have.
            Some(k) => {
                let k = k.min(sizes.prompts * sizes.rollouts);
                let prompt = prompts.iter().map(Prompt::len).max().unwrap_or(0);
                k.div_ceil(sizes.rollouts) * prompt + k * sizes.response_tokens
            }
            None => self.config.actor.micro_batch_tokens,
        };
        let all = sizes.prompts * sizes.rollouts;
        let rollout = RolloutConfig {
            n: sizes.rollouts,
            sampling: Sampling { temperature: 1.0, top_p: 1.0, seed: self.seed.wrapping_add(step) },
            max_new_tokens: sizes.response_tokens,
            min_new_tokens: sizes.response_tokens,
            eos: self.eos.clone(),
            suppress: self.suppress.clone(),
            focus: mode.filter(|_| from_rollout),
            max_batch_rows: all,
            prefill_token_budget: token_budget.max(self.config.actor.micro_batch_tokens),
        };

        let mut images = ImageCache::new(self.config.rollout.image_cache_gib);
        let start = Instant::now();
        let jobs: Vec<Job> = prompts.iter().enumerate().map(|(i, prompt)| Job { prompt, key: i as u64 }).collect();
        let (responses, stats) =
            generate(&self.model, &jobs, &rollout, &mut images, &AtomicBool::new(false), |_, _, _| {})
                .map_err(TrainError::from)?;
        self.sync()?;
        let generate_s = start.elapsed().as_secs_f64();

        let clock = Instant::now();
        let rollout_log_probs: Vec<Vec<f32>> = responses.iter().flatten().map(|r| r.log_probs.clone()).collect();
        let mut streams = Streams::default();
        let old_log_probs = if from_rollout {
            streams.visual_focus =
                mode.map(|_| responses.iter().flatten().map(|r| r.visual_focus.clone().unwrap_or_default()).collect());
            rollout_log_probs.clone()
        } else {
            let groups: Vec<GroupRef> = prompts
                .iter()
                .zip(&responses)
                .map(|(prompt, rs)| GroupRef { prompt, responses: rs.iter().map(|r| &r.ids[..]).collect() })
                .collect();
            let request =
                ScoreRequest { temperature: 1.0, entropy: false, focus: mode, dependency: false, token_budget };
            let scores: Vec<_> = score(&self.model, &mut images, &groups, &request)
                .map_err(TrainError::from)?
                .into_iter()
                .flatten()
                .collect();
            streams.visual_focus =
                mode.map(|_| scores.iter().map(|s| s.visual_focus.clone().unwrap_or_default()).collect());
            scores.into_iter().map(|s| s.log_probs).collect()
        };
        self.sync()?;
        let old_s = clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let lengths = vec![sizes.response_tokens; all];
        let advantages =
            Advantages::PerResponse((0..all).map(|i| normal(self.seed, step + (1 << 33), i as u64)).collect());
        let ids: Vec<usize> = (0..all).map(|i| i / sizes.rollouts).collect();
        let batch = ShapingBatch {
            advantages: &advantages,
            lengths: &lengths,
            groups: &ids,
            has_image: &vec![sizes.image > 0; all],
            streams: &streams,
            training: Training { step, max_steps: u64::MAX },
        };
        let shaped = shaping.shape(&batch, &self.model.device()).map_err(Failure::other)?;
        let shaping_s = clock.elapsed().as_secs_f64();

        let groups = prompts.iter().zip(responses).enumerate().map(|(row, (prompt, responses))| Group {
            item: Item {
                row,
                id: String::new(),
                problem: String::new(),
                answer: String::new(),
                solution: None,
                task: None,
                prompt: prompt.clone(),
                images: vec![],
            },
            texts: vec![],
            scores: vec![],
            greedy: None,
            carried: false,
            responses,
        });
        let experience = Experience {
            groups: groups.collect(),
            has_image: vec![sizes.image > 0; lengths.len()],
            lengths,
            old_log_probs,
            rollout_log_probs,
            shaped,
            ref_log_probs: None,
            masked_log_probs: None,
            metrics: Default::default(),
        };
        let clock = Instant::now();
        self.config.data.rollout_batch_size = sizes.prompts;
        self.config.actor.global_batch_size = sizes.prompts;
        let loss = self.config.to_loss_config();
        let options = GradientOptions {
            temperature: 1.0,
            entropy: loss.needs_full_entropy(),
            token_budget,
            train_vision: true,
            recompute: self.recompute.unwrap_or_else(|| {
                let tokens = token_budget.min(packed(&prompts, sizes));
                recompute_for(&self.model, tokens, self.config.actor.activation_memory_gib)
            }),
        };
        let mut schedule = Schedule { done: 0, total: 1 };
        let learner = Learner { policy: &mut self.model, optimizer: &mut self.optimizer, images: &mut images };
        let (_, times) = update(learner, &experience, &self.config, &loss, &options, &mut schedule)?;
        self.sync()?;
        let update_s = clock.elapsed().as_secs_f64();
        let total_s = start.elapsed().as_secs_f64();
        // Focus is computed inside the scoring pass; here once more by itself, outside of the total.
        let focus_s = shaping_s + mode.map_or(Ok(0.0), |mode| self.focus_seconds(&prompts, sizes, mode))?;
        let [decoder, tower] = flops(config, &prompts, sizes);
        // The tower computes a picture once for generation and scoring.
        let flops = decoder * if from_rollout { 4.0 } else { 5.0 } + tower * 4.0;
        let width = self.model.head().0.dtype().size();
        Ok(Row {
            step,
            prompt_tokens: prompts[0].len(),
            response_tokens: sizes.response_tokens,
            rollouts: all,
            seconds: [
                generate_s,
                old_s,
                update_s,
                stats.vision_s,
                stats.prefill_s,
                focus_s,
                times.optimizer_s,
                total_s,
            ],
            flops,
            update_flops: 3.0 * (decoder + tower),
            peak_flops: self.peak_flops,
            decode_bytes: decode_bytes(config, &prompts, sizes, width),
            peak_gib: peak_gib::<B>(&self.model.device()),
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
            if let Some(p) = focus::prototype(&hidden, &image_rows, &(0..prompt.len()), mode, &prompt.image_grid_thw) {
                host::floats(focus::of_range(&hidden, prompt.len()..rows, &p)).map_err(TrainError::from)?;
            }
            seconds += clock.elapsed().as_secs_f64();
        }
        Ok(seconds)
    }
}

/// Floating-point operations a second of a square matmul, the best of six; of 1024 rows on a CPU, more where that is over
/// too soon to be measured.
fn matmul_flops<B: Kernels>(model: &QwenVl<B>) -> Result<f64, TrainError> {
    let device = model.device();
    let mut n = 1024;
    loop {
        let x = Tensor::<B, 2>::random([n, n], Distribution::Default, (&device, model.head().0.dtype()));
        let mut best = f64::MAX;
        for _ in 0..6 {
            host::sync::<B>(&device)?;
            let clock = Instant::now();
            let y = x.clone().matmul(x.clone());
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

/// What decoding has to read at least: for each new token of the batch the decoder's weights and the head once, the keys and
/// values of each prompt once a group, and each row's own. The first token needs the head alone.
fn decode_bytes(config: &QwenVlConfig, prompts: &[Prompt], sizes: &Sizes, width: usize) -> f64 {
    let t = &config.text;
    let (q, kv) = (t.query_width(), t.kv_width());
    let layer = t.hidden_size * (2 * q + 2 * kv + 3 * t.intermediate_size);
    let (layers, head) = ((t.num_hidden_layers * layer) as f64, (t.vocab_size * t.hidden_size) as f64);
    let (n, r) = (sizes.rollouts as f64, sizes.response_tokens as f64);
    let cached: f64 = prompts.iter().map(|p| (r - 1.0) * p.len() as f64 + n * r * (r - 1.0) / 2.0).sum();
    width as f64 * ((r - 1.0) * layers + r * head + 2.0 * (t.num_hidden_layers * kv) as f64 * cached)
}

/// Packed tokens of a step.
fn packed(prompts: &[Prompt], sizes: &Sizes) -> usize {
    prompts.iter().map(|p| p.len() + sizes.rollouts * sizes.response_tokens).sum()
}

/// Multiplications and additions of decoder and tower in one forward pass over all prompts, each computed once, and responses. An
/// update takes three times as many; recomputed layers do not count.
fn flops(config: &QwenVlConfig, prompts: &[Prompt], sizes: &Sizes) -> [f64; 2] {
    let (t, v) = (&config.text, &config.vision);
    let (q, kv) = (t.query_width(), t.kv_width());
    let layer = t.hidden_size * (2 * q + 2 * kv + 3 * t.intermediate_size);
    let (n, r) = (sizes.rollouts as f64, sizes.response_tokens as f64);
    let (mut decoder, mut tower) = (0.0, 0.0);
    for prompt in prompts {
        let p = prompt.len() as f64;
        let tokens = p + n * r;
        let pairs = p * (p + 1.0) / 2.0 + n * (r * p + r * (r + 1.0) / 2.0);
        decoder += t.num_hidden_layers as f64 * (2.0 * tokens * layer as f64 + 4.0 * pairs * q as f64);
        decoder += 2.0 * n * r * (t.vocab_size * t.hidden_size) as f64;
        for grid in &prompt.image_grid_thw {
            let patches = grid.iter().product::<usize>() as f64;
            let (full, window) = match &v.attention {
                TowerAttention::Full => (v.depth as f64, 0.0),
                TowerAttention::Windows { side, full } => {
                    (full.len() as f64, (side * v.spatial_merge_size).pow(2) as f64)
                }
            };
            let matrices = if v.mlp == MlpKind::Gated { 3 } else { 2 };
            let block = v.hidden_size * (4 * v.hidden_size + matrices * v.intermediate_size);
            let merged = v.hidden_size * v.merge_unit();
            let mergers = (1 + v.deepstack.len()) as f64;
            tower += 2.0 * patches * (v.depth * block + v.patch_dim() * v.hidden_size) as f64;
            tower += 2.0 * mergers * patches / v.merge_unit() as f64 * (merged * (merged + t.hidden_size)) as f64;
            tower +=
                4.0 * patches * v.hidden_size as f64 * (full * patches + (v.depth as f64 - full) * window.min(patches));
        }
    }
    [decoder, tower]
}
