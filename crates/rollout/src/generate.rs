//! The short driver over the engine: a batch of prompts with one set of settings, all submitted at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kernels::{DeviceError, Kernels};
use policy::{Decoding, Prompt};
use vgpo::PrototypeMode;

use crate::engine::{EngineConfig, RolloutEngine, RolloutStats};
use crate::image_cache::ImageCache;
use crate::request::{Event, RequestId, Response, ResponseLimits, RolloutError, RolloutRequest};
use crate::sampler::Sampling;

/// Steps after which log-probs and visual focus are read: nobody waits for them.
const READ_EVERY: usize = 64;

/// A prompt of a batch, and the name of its random numbers.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// Names the stream of random numbers; the same key gives the same responses.
    pub key: u64,
}

/// How to generate: the settings of every prompt of a batch, and the room there is.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutConfig {
    /// Responses per prompt.
    pub n: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Length limit of a response, in tokens.
    pub max_new_tokens: usize,
    /// No end token before this many tokens.
    pub min_new_tokens: usize,
    /// Ids that end a response.
    pub eos: Vec<u32>,
    /// Ids that are never sampled ([`never_sampled`](crate::never_sampled)).
    pub suppress: Vec<u32>,
    /// Whether to compute visual focus while decoding (no further forward pass).
    pub focus: Option<PrototypeMode>,
    /// Rows decoded at the same time.
    pub max_batch_rows: usize,
    /// Prompt tokens in one prefill.
    pub prefill_token_budget: usize,
}

impl RolloutConfig {
    /// An engine with room for this and nothing larger.
    fn engine(&self) -> EngineConfig {
        EngineConfig {
            max_batch_rows: self.max_batch_rows,
            prefill_token_budget: self.prefill_token_budget,
            max_new_tokens: self.max_new_tokens,
            max_prompt_tokens: usize::MAX,
            max_request_rows: self.n,
            read_every: READ_EVERY,
        }
    }
}

/// Runs the jobs; the responses of each, in order. Image embeddings stay in `images` for the passes that follow.
/// `on_token(job, response, id)` sees each token as it is sampled.
///
/// # Errors
/// [`RolloutError::Interrupted`] when `interrupt` is set, [`RolloutError::Device`] when the device cannot be read or
/// waited for, [`RolloutError::Request`] for a prompt or settings that cannot be answered: nothing that was generated
/// is kept.
pub fn generate<B: Kernels, P: Decoding<B>>(
    policy: &P,
    jobs: &[Job],
    config: &RolloutConfig,
    images: &mut ImageCache<B>,
    interrupt: &AtomicBool,
    on_token: impl FnMut(usize, usize, u32),
) -> Result<(Vec<Vec<Response>>, RolloutStats), RolloutError> {
    // Pages that an update left, of sizes that are none of sampling's.
    B::memory_cleanup(&policy.device());
    let mut engine = RolloutEngine::new(config.engine(), std::mem::take(images), 0);
    let limits = ResponseLimits {
        max_new_tokens: config.max_new_tokens,
        min_new_tokens: config.min_new_tokens,
        eos: Arc::from(&config.eos[..]),
        suppress: Arc::from(&config.suppress[..]),
    };
    let request = |job: &Job| RolloutRequest {
        prompt: job.prompt.clone(),
        key: job.key,
        n: config.n,
        sampling: config.sampling.clone(),
        limits: limits.clone(),
        focus: config.focus,
        top_log_probs: 0,
    };
    let ids: Vec<RequestId> = jobs.iter().map(|job| engine.submit(request(job))).collect();
    let mut responses = vec![vec![Response::empty(); config.n]; jobs.len()];
    let result = drive(&mut engine, policy, &ids, interrupt, &mut responses, on_token);
    let stats = *engine.stats();
    *images = engine.into_images();
    result.map(|()| (responses, stats))
}

/// Steps until all requests are done; the responses to `ids[job]` go to `out[job]`.
fn drive<B: Kernels, P: Decoding<B>>(
    engine: &mut RolloutEngine<B, P>,
    policy: &P,
    ids: &[RequestId],
    interrupt: &AtomicBool,
    out: &mut [Vec<Response>],
    mut on_token: impl FnMut(usize, usize, u32),
) -> Result<(), RolloutError> {
    let job = |request: RequestId| ids.binary_search(&request).ok();
    for step in 0.. {
        if engine.is_idle() {
            break;
        }
        if interrupted(policy, interrupt, step)? {
            return Err(RolloutError::Interrupted);
        }
        for event in engine.step(policy)? {
            match event {
                Event::Token { request, response, id, .. } => {
                    if let Some(job) = job(request) {
                        on_token(job, response, id);
                    }
                }
                Event::Finished { request, response, content, .. } => {
                    if let Some(place) = job(request).and_then(|job| out.get_mut(job)?.get_mut(response)) {
                        *place = content;
                    }
                }
                Event::Failed { error, .. } => return Err(error.into()),
                Event::Done { .. } => {}
            }
        }
    }
    Ok(())
}

/// Whether to stop at this step. Of ranks that share the policy out none may stop alone: now and then they ask each
/// other.
fn interrupted<B: Kernels, P: Decoding<B>>(
    policy: &P,
    interrupt: &AtomicBool,
    step: usize,
) -> Result<bool, DeviceError> {
    let own = interrupt.load(Ordering::Relaxed);
    match policy.head().0.shared {
        None => Ok(own),
        Some(shared) if step.is_multiple_of(READ_EVERY) => Ok(shared.ranks.any("interrupt", own)?),
        Some(_) => Ok(false),
    }
}
