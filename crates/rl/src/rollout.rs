//! The rollout engine: groups of responses, each prompt computed once, rows leaving as they finish and queued groups entering.

use std::sync::atomic::{AtomicBool, Ordering};

use ::vgpo::PrototypeMode;
use burn::tensor::{Int, Tensor, TensorData};
use data::Processor;
use model_qwen2vl::Kernels;
use model_qwen2vl::host::{self, DeviceError};
use model_qwen2vl::model::{PackedBatch, Prompt, int_tensor};
use serde::{Deserialize, Serialize};

use crate::focus;
use crate::image_cache::ImageCache;
use crate::policy::Policy;
use crate::sampler::{Sampling, sample, suppression, uniform};

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-sequence token, which is the last of the ids.
    Stop,
    /// The length limit.
    Length,
}

/// One sampled response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Token ids `[T]`, the end token included.
    pub ids: Vec<u32>,
    /// Log-probs at the sampling temperature (at 1 when greedy) of the untruncated distribution. `[T]`
    pub log_probs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Visual focus of each token (equation 4), if it was asked for and the prompt has an image. `[T]`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visual_focus: Option<Vec<f32>>,
}

/// A prompt to answer.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// Names the stream of random numbers; the same key gives the same responses.
    pub key: u64,
}

/// How to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutConfig {
    /// Responses a prompt.
    pub n: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Length limit of a response.
    pub max_new_tokens: usize,
    /// No end token before this many tokens.
    pub min_new_tokens: usize,
    /// Ids that end a response.
    pub eos: Vec<u32>,
    /// Ids that are never sampled ([`never_sampled`]).
    pub suppress: Vec<u32>,
    /// Whether to compute visual focus while decoding (no further forward pass).
    pub focus: Option<PrototypeMode>,
    /// Rows decoded at the same time.
    pub max_batch_rows: usize,
    /// Prompt tokens in one prefill.
    pub prefill_token_budget: usize,
}

/// What happened while generating.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RolloutStats {
    /// Seconds in the vision tower.
    pub vision_s: f64,
    /// Seconds in prefill.
    pub prefill_s: f64,
    /// Seconds in decoding.
    pub decode_s: f64,
    /// Prompt tokens computed.
    pub prompt_tokens: usize,
    /// Response tokens sampled.
    pub response_tokens: usize,
    /// Forward passes of decoding.
    pub decode_steps: usize,
}

/// Why nothing was generated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
    /// The device could not be read.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Ids that no program samples, ascending: `vision` tokens of the model's config and of the tokenizer, one of which without its picture
/// would break the sequence, and the ids below `vocab` (rows of the embedding) that the tokenizer has no token for. Published models
/// pad their embeddings, so that such an id can be likely and has no text.
///
/// The mask acts on what is *drawn*, greedily or not. Log-probs, of the sampler and of every scoring pass alike, are those of the full
/// distribution: the ids count in the denominator and in neither ratio, and training pushes them down as it does every other
/// token that was not drawn, which keeps them unlikely for servers that mask nothing.
pub fn never_sampled(vision: Vec<u32>, processor: &Processor, vocab: usize) -> Vec<u32> {
    let mut ids = vision;
    ids.extend([
        processor.vision_start_id(),
        processor.vision_end_id(),
        processor.image_pad_id(),
        processor.video_pad_id(),
    ]);
    ids.extend(processor.token_id("<|vision_pad|>"));
    ids.extend((0..vocab as u32).filter(|&id| processor.token(id).is_none()));
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// A row being decoded.
struct Row<B: Kernels> {
    job: usize,
    index: usize,
    done: bool,
    /// Prototypes of its prompt, shared by its group.
    prototype: Option<focus::Rows<B>>,
    /// Tokens whose focus was computed.
    focused: usize,
}

/// Tokens after which numbers that decide nothing are read from the device.
const READ_EVERY: usize = 64;

/// Numbers of sampled tokens that wait on the device, so that a token costs one read and not three.
struct Later<B: Kernels> {
    log_probs: Waiting<B>,
    focus: Waiting<B>,
}

/// One number a row and token, and the response `(job, index)` that it belongs to, if any.
struct Waiting<B: Kernels> {
    parts: Vec<Tensor<B, 1>>,
    whose: Vec<Option<(usize, usize)>>,
}

impl<B: Kernels> Waiting<B> {
    fn new() -> Self {
        Self { parts: vec![], whose: vec![] }
    }

    fn push(&mut self, values: Tensor<B, 1>, whose: impl Iterator<Item = Option<(usize, usize)>>) {
        self.parts.push(values);
        self.whose.extend(whose);
    }

    /// Gives every number to its response, in the order of the tokens.
    fn read(&mut self, mut give: impl FnMut(usize, usize, f32)) -> Result<(), DeviceError> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let values = host::floats(Tensor::cat(std::mem::take(&mut self.parts), 0))?;
        for (whose, value) in self.whose.drain(..).zip(values) {
            if let Some((job, index)) = whose {
                give(job, index, value);
            }
        }
        Ok(())
    }
}

impl<B: Kernels> Later<B> {
    fn read(&mut self, out: &mut [Vec<Response>]) -> Result<(), DeviceError> {
        self.log_probs.read(|job, index, value| out[job][index].log_probs.push(value))?;
        self.focus.read(|job, index, value| out[job][index].visual_focus.get_or_insert_default().push(value))
    }
}

/// Runs the jobs; the responses of each, in order. Image embeddings stay in `images` for the passes that follow.
/// `on_token(job, response, id)` sees each token as it is sampled.
///
/// # Errors
/// [`RolloutError::Interrupted`] when `interrupt` is set, [`RolloutError::Device`] when the device cannot be read or waited for:
/// nothing that was generated is kept.
pub fn generate<B: Kernels, P: Policy<B>>(
    policy: &P,
    jobs: &[Job],
    config: &RolloutConfig,
    images: &mut ImageCache<B>,
    interrupt: &AtomicBool,
    mut on_token: impl FnMut(usize, usize, u32),
) -> Result<(Vec<Vec<Response>>, RolloutStats), RolloutError> {
    let device = policy.device();
    let (weight, _) = policy.head();
    let vocab = weight.dims()[0];
    let suppress = suppression::<B>(&config.suppress, vocab, &device);
    let no_end: Vec<u32> = config.suppress.iter().chain(&config.eos).copied().collect();
    let no_end = suppression::<B>(&no_end, vocab, &device);
    // For batches in which some rows may end and others not yet: `[2, V]`.
    let either = no_end.clone().filter(|_| config.min_new_tokens > 0).map(|no_end| {
        Tensor::cat(vec![suppress.clone().unwrap_or_else(|| Tensor::zeros([1, vocab], &device)), no_end], 0)
    });
    let mut stats = RolloutStats::default();
    let blank = || Response { ids: vec![], log_probs: vec![], finish: FinishReason::Length, visual_focus: None };
    let mut out: Vec<Vec<Response>> = jobs.iter().map(|_| (0..config.n).map(|_| blank()).collect()).collect();
    // Prompts of similar length go together, so that lanes are hardly padded.
    let mut queue: Vec<usize> = (0..jobs.len()).collect();
    queue.sort_by_key(|&j| jobs[j].prompt.len());
    let mut cache = policy.cache(config.max_new_tokens);
    let mut rows: Vec<Row<B>> = Vec::new();
    let mut stack: Option<focus::Stack<B>> = None;
    let mut later = Later { log_probs: Waiting::new(), focus: Waiting::new() };
    let mut hidden: Option<Tensor<B, 2>> = None; // [rows, d], the state that predicts each row's next token
    if config.max_new_tokens == 0 || config.n == 0 {
        return Ok((out, stats));
    }
    loop {
        if interrupt.load(Ordering::Relaxed) {
            return Err(RolloutError::Interrupted);
        }
        // Admit a wave when a good part of the rows is free: each wave is a lane of its own in the cache.
        // A finished row takes its place in the cache until its lane is made smaller.
        let room = config.max_batch_rows.saturating_sub(rows.len()) / config.n;
        if !queue.is_empty() && (rows.is_empty() || room * config.n * 4 >= config.max_batch_rows) {
            let count = room.max(usize::from(rows.is_empty())).min(queue.len());
            let mut wave: Vec<usize> = queue.split_off(queue.len() - count);
            wave.reverse();
            for part in prefill_parts(&wave, jobs, config.prefill_token_budget) {
                stack = None;
                let last = admit(policy, &mut cache, jobs, part, config, images, &mut rows, &mut stats)?;
                hidden = Some(match hidden.take() {
                    Some(h) => Tensor::cat(vec![h, last], 0),
                    None => last,
                });
            }
        }
        let Some(states) = hidden.take() else {
            later.read(&mut out)?;
            return Ok((out, stats));
        };

        let clock = std::time::Instant::now();
        let uniforms: Vec<f32> = rows
            .iter()
            .map(|r| {
                uniform(config.sampling.seed, jobs[r.job].key, r.index as u64, out[r.job][r.index].ids.len() as u64)
            })
            .collect();
        let early: Vec<usize> =
            rows.iter().map(|r| usize::from(out[r.job][r.index].ids.len() < config.min_new_tokens)).collect();
        let mask = match (early.contains(&1), early.contains(&0)) {
            (false, _) => suppress.clone(),
            (true, false) => no_end.clone(),
            (true, true) => either.as_ref().map(|either| either.clone().select(0, int_tensor(early, &device))),
        };
        let (ids, log_probs) = sample(states, weight, &config.sampling, &uniforms, mask.as_ref());
        // The one read a token: what is sampled decides what is computed next.
        let sampled = sampled_ids(ids.clone(), vocab)?;
        later.log_probs.push(log_probs, rows.iter().map(|r| (!r.done).then_some((r.job, r.index))));
        for (row, &id) in rows.iter_mut().zip(&sampled) {
            if row.done {
                continue;
            }
            let response = &mut out[row.job][row.index];
            response.ids.push(id);
            stats.response_tokens += 1;
            on_token(row.job, row.index, id);
            if config.eos.contains(&id) {
                response.finish = FinishReason::Stop;
                row.done = true;
            } else if response.ids.len() >= config.max_new_tokens {
                row.done = true;
            }
        }
        // With focus, a finished row takes part once more: its last token has a state of its own.
        let wants_focus = config.focus.is_some();
        let all_done = rows.iter().all(|r| r.done);
        if all_done && !wants_focus {
            (rows, cache, stack) = (Vec::new(), policy.cache(config.max_new_tokens), None);
            later.read(&mut out)?;
            stats.decode_s += clock.elapsed().as_secs_f64();
            continue;
        }
        let (ids, keep) = if wants_focus { (ids, None) } else { drop_done(policy, &mut cache, &mut rows, ids) };
        let positions = positions(&rows, jobs, &out);
        let mut states = policy.decode(ids, &positions, &mut cache);
        stats.decode_steps += 1;
        debug_assert!(keep.is_none_or(|k| k == rows.len()));
        if wants_focus {
            if stack.is_none() {
                let prototypes: Vec<Option<&focus::Rows<B>>> = rows.iter().map(|r| r.prototype.as_ref()).collect();
                stack = focus::Stack::new(&prototypes);
            }
            if let Some(stack) = &stack {
                let whose = rows.iter_mut().map(|row| {
                    let owes = row.prototype.is_some() && row.focused < out[row.job][row.index].ids.len();
                    row.focused += usize::from(owes);
                    owes.then_some((row.job, row.index))
                });
                later.focus.push(stack.focus(&states), whose);
            }
            let d = states.dims()[1];
            let before: Vec<usize> = (0..rows.len()).collect();
            let index = compact(policy, &mut cache, &mut rows);
            if index != before {
                stack = None;
                states = if index.is_empty() {
                    Tensor::zeros([0, d], &device)
                } else {
                    states.select(0, int_tensor(index, &device))
                };
            }
        }
        if later.log_probs.parts.len() >= READ_EVERY {
            later.read(&mut out)?;
        }
        hidden = (!rows.is_empty()).then_some(states);
        stats.decode_s += clock.elapsed().as_secs_f64();
    }
}

/// Sampled ids `[S]` on the host.
fn sampled_ids<B: Kernels>(ids: Tensor<B, 1, Int>, vocab: usize) -> Result<Vec<u32>, DeviceError> {
    let id = |id: i32| u32::try_from(id).ok().filter(|&id| (id as usize) < vocab);
    let outside = |i: i32| DeviceError(format!("it sampled token {i} of a vocabulary of {vocab}"));
    host::ints(ids)?.into_iter().map(|i| id(i).ok_or_else(|| outside(i))).collect()
}

/// Splits a wave into prefills of at most `budget` prompt tokens; a longer prompt goes alone.
fn prefill_parts<'a>(wave: &'a [usize], jobs: &[Job], budget: usize) -> Vec<&'a [usize]> {
    let mut parts = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, &j) in wave.iter().enumerate() {
        let len = jobs[j].prompt.len();
        if tokens + len > budget && i > start {
            parts.push(&wave[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += len;
    }
    parts.push(&wave[start..]);
    parts
}

#[allow(clippy::too_many_arguments)] // the state of the loop above
/// Prefills some jobs and adds their rows; the hidden state of each row's prompt end, `[rows, d]`.
fn admit<B: Kernels, P: Policy<B>>(
    policy: &P,
    cache: &mut P::Cache,
    jobs: &[Job],
    part: &[usize],
    config: &RolloutConfig,
    images: &mut ImageCache<B>,
    rows: &mut Vec<Row<B>>,
    stats: &mut RolloutStats,
) -> Result<Tensor<B, 2>, DeviceError> {
    let prompts: Vec<&Prompt> = part.iter().map(|&j| jobs[j].prompt).collect();
    let clock = std::time::Instant::now();
    let embeds = images.embed(policy, &prompts);
    // What is queued belongs to the part that queued it.
    host::sync::<B>(&policy.device())?;
    stats.vision_s += clock.elapsed().as_secs_f64();
    let clock = std::time::Instant::now();
    let groups: Vec<_> = prompts.iter().map(|p| (*p, vec![])).collect();
    let batch: PackedBatch<B> = policy.pack(&groups);
    let (hidden, kv) = policy.prefill(&batch, embeds);
    policy.admit(cache, &kv, &batch.prompts, config.n);
    for (&job, range) in part.iter().zip(&batch.prompts) {
        let prototype = config.focus.and_then(|mode| {
            focus::prototype(&hidden, &batch.image_rows, range, mode, &jobs[job].prompt.image_grid_thw)
        });
        rows.extend((0..config.n).map(|index| Row {
            job,
            index,
            done: false,
            prototype: prototype.clone(),
            focused: 0,
        }));
    }
    stats.prompt_tokens += batch.tokens;
    let ends = batch.prompts.iter().flat_map(|r| std::iter::repeat_n(r.end - 1, config.n));
    let last = hidden.select(0, int_tensor(ends, &policy.device()));
    host::sync::<B>(&policy.device())?;
    stats.prefill_s += clock.elapsed().as_secs_f64();
    Ok(last)
}

/// Position of the token that each row feeds next: its last sampled one.
fn positions<B: Kernels>(rows: &[Row<B>], jobs: &[Job], out: &[Vec<Response>]) -> Vec<i64> {
    rows.iter().map(|r| jobs[r.job].prompt.next_position() + out[r.job][r.index].ids.len() as i64 - 1).collect()
}

/// Removes finished rows when that frees at least a quarter of them (or all of them).
fn compact<B: Kernels, P: Policy<B>>(policy: &P, cache: &mut P::Cache, rows: &mut Vec<Row<B>>) -> Vec<usize> {
    let keep: Vec<bool> = rows.iter().map(|r| !r.done).collect();
    let done = keep.iter().filter(|k| !**k).count();
    if done * 4 < rows.len().max(1) {
        return (0..rows.len()).collect();
    }
    let index = policy.compact(cache, &keep);
    let mut old: Vec<Option<Row<B>>> = std::mem::take(rows).into_iter().map(Some).collect();
    *rows = index.iter().filter_map(|&i| old.get_mut(i).and_then(Option::take)).collect();
    index
}

/// [`compact`] before a forward pass: the ids of the rows that stay.
fn drop_done<B: Kernels, P: Policy<B>>(
    policy: &P,
    cache: &mut P::Cache,
    rows: &mut Vec<Row<B>>,
    ids: Tensor<B, 1, Int>,
) -> (Tensor<B, 1, Int>, Option<usize>) {
    let before = rows.len();
    let index = compact(policy, cache, rows);
    if index.len() == before {
        return (ids, Some(before));
    }
    let left = index.len();
    let index: Vec<i32> = index.into_iter().map(|i| i as i32).collect();
    let index = Tensor::from_data(TensorData::new(index, [left]), &ids.device());
    (ids.select(0, index), Some(left))
}
