//! The rollout engine: requests enter and leave while others run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use kernels::Kernels;
use kernels::host::DeviceError;
use policy::Decoding;

use crate::batch::{AdmittedRequest, DecodeBatch};
use crate::image_cache::ImageCache;
use crate::queue::{QueuedRequest, RequestQueue, prefill_parts};
use crate::request::{Event, FinishReason, RequestError, RequestId, Response, RolloutError, RolloutRequest};
use crate::top::MOST_TOP_LOG_PROBS;
use crate::waiting::ResponsePlace;

/// What an engine has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Rows decoded at the same time. A request with more responses is computed alone.
    pub max_batch_rows: usize,
    /// Prompt tokens in one prefill; a longer prompt is computed alone.
    pub prefill_token_budget: usize,
    /// Longest response of any request.
    pub max_new_tokens: usize,
    /// Longest prompt of any request, in tokens.
    pub max_prompt_tokens: usize,
    /// Most responses of one request.
    pub max_request_rows: usize,
    /// Steps after which numbers that decide nothing (log-probs, visual focus) are read from the device. More steps
    /// cost fewer reads, and a response is [`Finished`](Event::Finished) so much later at most.
    pub read_every: usize,
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

impl std::ops::AddAssign for RolloutStats {
    fn add_assign(&mut self, part: Self) {
        self.vision_s += part.vision_s;
        self.prefill_s += part.prefill_s;
        self.decode_s += part.decode_s;
        self.prompt_tokens += part.prompt_tokens;
        self.response_tokens += part.response_tokens;
        self.decode_steps += part.decode_steps;
    }
}

/// A request whose responses are being decoded.
struct RunningRequest {
    /// None once it was given out.
    responses: Vec<Option<Response>>,
    /// Whether each has its last token.
    ended: Vec<bool>,
    /// Version of the weights that answer it.
    version: u64,
}

/// Answers requests, each with settings of its own, many in one decode batch.
///
/// The policy is given to each [`step`](Self::step) and not owned, so that training can update it; whoever does calls
/// [`set_weights`](Self::set_weights) before the next step. What is sampled for a request depends on the request and
/// the weights alone, up to the rounding of sums over other batches.
pub struct RolloutEngine<B: Kernels, P: Decoding<B>> {
    config: EngineConfig,
    images: ImageCache<B>,
    version: u64,
    submitted: u64,
    queue: RequestQueue,
    running: BTreeMap<RequestId, RunningRequest>,
    batch: DecodeBatch<B, P>,
    /// What the next step reports first.
    events: Vec<Event>,
    stats: RolloutStats,
}

impl<B: Kernels, P: Decoding<B>> RolloutEngine<B, P> {
    /// An engine without requests, whose weights are version `version`; `images` must be empty or of those weights.
    pub fn new(config: EngineConfig, images: ImageCache<B>, version: u64) -> Self {
        Self {
            config,
            images,
            version,
            submitted: 0,
            queue: RequestQueue::default(),
            running: BTreeMap::new(),
            batch: DecodeBatch::default(),
            events: vec![],
            stats: RolloutStats::default(),
        }
    }

    /// Takes a request, at any time. What cannot be answered is reported as [`Event::Failed`] by the next step, as all
    /// else is.
    pub fn submit(&mut self, request: RolloutRequest) -> RequestId {
        let id = RequestId(self.submitted);
        self.submitted += 1;
        if let Err(error) = self.check(&request) {
            self.events.push(Event::Failed { request: id, error });
        } else if request.limits.max_new_tokens == 0 || request.n == 0 {
            let empty = |response| self.finished(id, response, Response::empty(), self.version);
            let all: Vec<Event> = (0..request.n).map(empty).collect();
            self.events.extend(all.into_iter().chain([Event::Done { request: id }]));
        } else {
            self.queue.push(QueuedRequest { id, request: Arc::new(request) });
        }
        id
    }

    /// One token more for everything that runs, after requests from the queue have taken the rows that are free.
    ///
    /// # Errors
    /// [`RolloutError::Device`] when the device cannot be read or waited for, [`RolloutError::Focus`] where a policy
    /// took a prompt whose image tokens are not where its grids say: all requests are forgotten.
    pub fn step(&mut self, policy: &P) -> Result<Vec<Event>, RolloutError> {
        match self.advance(policy) {
            Ok(()) => Ok(std::mem::take(&mut self.events)),
            Err(error) => {
                self.queue.clear();
                self.running.clear();
                self.events.clear();
                self.batch = DecodeBatch::default();
                Err(error)
            }
        }
    }

    /// Forgets a request, of which no event comes any more; whether it was unfinished. Its rows are used again as those
    /// of a response that has ended.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let before = self.events.len();
        self.events.retain(|event| event.request() != id);
        let queued = self.queue.remove(id);
        let running = self.running.remove(&id).is_some();
        if running {
            self.batch.cancel(id);
        }
        queued || running || self.events.len() < before
    }

    /// Ends one response where it is, because its text says enough (a stop string): no token is drawn for it any more,
    /// and it is [`Finished`](Event::Finished) with what it has, for [`FinishReason::Stop`]. Whether it was running.
    pub fn end(&mut self, id: RequestId, response: usize) -> bool {
        let place = (id, response);
        let is_open = self.running.get(&id).and_then(|running| running.ended.get(response)) == Some(&false);
        if is_open {
            self.mark_ended(place);
            self.batch.end(place);
            if let Some(open) = response_of(&mut self.running, place) {
                open.finish = FinishReason::Stop;
            }
        }
        is_open
    }

    /// A running response as far as it goes: all of its ids, and the log-probs, likeliest tokens and visual focus that
    /// were [read](EngineConfig::read_every). None before it runs and once it is [`Finished`](Event::Finished).
    pub fn so_far(&self, id: RequestId, response: usize) -> Option<&Response> {
        self.running.get(&id)?.responses.get(response)?.as_ref()
    }

    /// Responses that tokens are drawn for.
    pub fn open_rows(&self) -> usize {
        self.batch.open_rows()
    }

    /// Rows of the key/value cache, those included that have ended and were not removed yet. 0: there is no cache.
    pub fn cached_rows(&self) -> usize {
        self.batch.rows()
    }

    /// From now on [`step`](Self::step) is given weights of version `version`. Image embeddings are forgotten. A
    /// request of which anything was computed under the old weights ends with [`RequestError::WeightsChanged`], what it
    /// has finished but not yet given out included: its keys and values are the old weights', and a response of two
    /// policies is one of neither. Requests in the queue stay and are answered by the new weights. To keep what runs,
    /// step until it is done before the weights change.
    pub fn set_weights(&mut self, version: u64) {
        self.images.clear();
        self.batch = DecodeBatch::default();
        for (id, running) in std::mem::take(&mut self.running) {
            let error = RequestError::WeightsChanged { from: running.version, to: version };
            self.events.push(Event::Failed { request: id, error });
        }
        self.version = version;
    }

    /// Whether nothing is left to do or to report.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty() && self.events.is_empty()
    }

    /// Requests that wait for rows.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Requests that are being answered.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// What happened so far.
    pub fn stats(&self) -> &RolloutStats {
        &self.stats
    }

    /// The image embeddings, for other passes over the same prompts with the same weights.
    pub fn images(&mut self) -> &mut ImageCache<B> {
        &mut self.images
    }

    /// Ends the engine and gives its image embeddings back.
    pub(crate) fn into_images(self) -> ImageCache<B> {
        self.images
    }

    fn finished(&self, request: RequestId, response: usize, content: Response, policy_version: u64) -> Event {
        Event::Finished { request, response, content, policy_version }
    }

    /// What can be said of a request without a policy.
    fn check(&self, request: &RolloutRequest) -> Result<(), RequestError> {
        let (config, tokens, limits) = (&self.config, request.prompt.len(), &request.limits);
        let sampling = &request.sampling;
        if tokens == 0 {
            return Err(RequestError::EmptyPrompt);
        }
        if tokens > config.max_prompt_tokens {
            return Err(RequestError::LongPrompt { tokens, limit: config.max_prompt_tokens });
        }
        if request.n > config.max_request_rows {
            return Err(RequestError::ManyResponses { n: request.n, limit: config.max_request_rows });
        }
        if limits.max_new_tokens > config.max_new_tokens {
            let max_new_tokens = limits.max_new_tokens;
            return Err(RequestError::LongResponses { max_new_tokens, limit: config.max_new_tokens });
        }
        if !(sampling.temperature.is_finite() && sampling.temperature >= 0.0) {
            return Err(RequestError::Temperature(sampling.temperature));
        }
        if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
            return Err(RequestError::TopP(sampling.top_p));
        }
        if request.top_log_probs > MOST_TOP_LOG_PROBS {
            return Err(RequestError::ManyTopLogProbs(request.top_log_probs));
        }
        Ok(())
    }

    fn advance(&mut self, policy: &P) -> Result<(), RolloutError> {
        self.admit(policy)?;
        let clock = Instant::now();
        for token in self.batch.step(policy, &mut self.stats)? {
            let (request, response) = token.place;
            self.events.push(Event::Token { request, response, id: token.id, finish: token.finish });
            if let Some(open) = response_of(&mut self.running, token.place) {
                open.ids.push(token.id);
                open.finish = token.finish.unwrap_or(open.finish);
            }
            if token.finish.is_some() {
                self.mark_ended(token.place);
            }
        }
        if self.batch.rows() == 0 || self.batch.log_probs.steps() >= self.config.read_every {
            self.read()?;
        }
        self.stats.decode_s += clock.elapsed().as_secs_f64();
        Ok(())
    }

    /// Moves requests from the queue into the decode batch, as far as rows are free.
    fn admit(&mut self, policy: &P) -> Result<(), RolloutError> {
        let wave = self.queue.next_wave(self.batch.rows(), self.config.max_batch_rows);
        for part in prefill_parts(&wave, self.config.prefill_token_budget) {
            let mut admitted = Vec::with_capacity(part.len());
            for QueuedRequest { id, request } in part {
                match self.admissible(policy, *id, request) {
                    Ok(request) => admitted.push(request),
                    Err(error) => self.events.push(Event::Failed { request: *id, error }),
                }
            }
            for AdmittedRequest { id, request, .. } in &admitted {
                let responses = vec![Some(Response::empty()); request.n];
                let ended = vec![false; request.n];
                let running = RunningRequest { responses, ended, version: self.version };
                self.running.insert(*id, running);
            }
            self.batch.admit(policy, admitted, self.config.max_new_tokens, &mut self.images, &mut self.stats)?;
        }
        Ok(())
    }

    fn mark_ended(&mut self, (id, response): ResponsePlace) {
        if let Some(ended) = self.running.get_mut(&id).and_then(|running| running.ended.get_mut(response)) {
            *ended = true;
        }
    }

    /// What only the policy can say of a request.
    fn admissible(
        &mut self,
        policy: &P,
        id: RequestId,
        request: &Arc<RolloutRequest>,
    ) -> Result<AdmittedRequest<B>, RequestError> {
        policy.check_prompt(&request.prompt).map_err(|error| RequestError::Prompt(error.to_string()))?;
        let vocab = policy.head().0.vocab();
        let masks = self.batch.masks.of(&request.limits, vocab, &policy.device())?;
        Ok(AdmittedRequest { id, request: request.clone(), masks })
    }

    /// Reads the numbers that wait on the device, and reports the responses and requests that they complete.
    fn read(&mut self) -> Result<(), DeviceError> {
        let running = &mut self.running;
        self.batch.log_probs.read(|place, value| {
            if let Some(open) = response_of(running, place) {
                open.log_probs.push(value);
            }
        })?;
        self.batch.focus.read(|place, value| {
            if let Some(open) = response_of(running, place) {
                open.visual_focus.get_or_insert_default().push(value);
            }
        })?;
        self.batch.tops.read(|place, list| {
            if let Some(open) = response_of(running, place) {
                open.top_log_probs.push(list);
            }
        })?;
        let events = &mut self.events;
        self.running.retain(|&id, running| {
            for (response, open) in running.responses.iter_mut().enumerate() {
                let ended = running.ended.get(response).copied().unwrap_or(false);
                if let Some(content) = open.take_if(|_| ended) {
                    let policy_version = running.version;
                    events.push(Event::Finished { request: id, response, content, policy_version });
                }
            }
            let done = running.responses.iter().all(Option::is_none);
            if done {
                events.push(Event::Done { request: id });
            }
            !done
        });
        Ok(())
    }
}

/// A response that was not given out yet.
fn response_of(running: &mut BTreeMap<RequestId, RunningRequest>, place: ResponsePlace) -> Option<&mut Response> {
    running.get_mut(&place.0)?.responses.get_mut(place.1)?.as_mut()
}
