//! The loop of the device's thread: requests in, one token for all, pieces out; no client can hold it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use data::Processor;
use kernels::Kernels;
use policy::Decoding;
use rollout::image_cache::ImageCache;
use rollout::{EngineConfig, Event, RequestId, RolloutEngine, RolloutError};

use crate::error::ApiError;
use crate::metrics::{CutOff, ServerMetrics};
use crate::open::{Handed, OpenRequest, Submission};
use crate::options::ServerOptions;
use crate::shared::ServerState;

/// Steps after which log-probs and visual focus are read: so many tokens come at once where they are asked for.
const READ_EVERY: usize = 8;
/// How long the loop sleeps where there is nothing to compute and somebody does not read, or may have gone.
const SLEEP: Duration = Duration::from_millis(20);
/// How long nothing must come before memory is given back; the end of the server is noticed so much later at most.
const IDLE: Duration = Duration::from_millis(200);

/// An engine and those whom it answers.
pub(crate) struct Drive<'p, B: Kernels, P: Decoding<B>> {
    engine: RolloutEngine<B, P>,
    open: BTreeMap<RequestId, OpenRequest<'p>>,
    processor: &'p Processor,
    state: &'p ServerState,
    /// Whether anything was computed since memory was given back.
    worked: bool,
}

impl<'p, B: Kernels, P: Decoding<B>> Drive<'p, B, P> {
    pub(crate) fn new(state: &'p ServerState) -> Self {
        let ServerOptions { max_batch_rows, prefill_token_budget, max_new_tokens, max_prompt_tokens, .. } =
            state.options;
        let config = EngineConfig {
            max_batch_rows,
            prefill_token_budget,
            max_new_tokens,
            max_prompt_tokens,
            max_request_rows: max_batch_rows,
            read_every: READ_EVERY,
        };
        // Each request has pixels of its own: there is nothing to keep.
        let engine = RolloutEngine::new(config, ImageCache::new(0.0), 0);
        Self { engine, open: BTreeMap::new(), processor: &state.model.processor, state, worked: false }
    }

    /// Answers until the server is told to end, and then until all is answered or the grace is over.
    ///
    /// # Errors
    /// A device that fails.
    pub(crate) fn run(&mut self, policy: &P, inbox: &Receiver<Submission>) -> Result<(), RolloutError> {
        let mut grace_ends = None;
        loop {
            if self.engine.is_idle() {
                self.wait(policy, inbox);
            }
            while let Ok(submission) = inbox.try_recv() {
                self.take(submission);
            }
            if self.state.is_ending() {
                let ends = *grace_ends.get_or_insert_with(|| Instant::now() + self.state.options.grace);
                if self.open.is_empty() {
                    return Ok(());
                }
                if Instant::now() >= ends {
                    self.end_all(CutOff::Ended, &ApiError::status(503, "the server is ending"));
                    return Ok(());
                }
            }
            if let Err(error) = self.step(policy) {
                self.end_all(CutOff::Failed, &ApiError::status(500, "the device failed"));
                if matches!(error, RolloutError::Device(_)) {
                    return Err(error);
                }
            }
            self.report();
        }
    }

    /// Waits for a request where there is nothing to compute; while somebody has something to read, not for long.
    fn wait(&mut self, policy: &P, inbox: &Receiver<Submission>) {
        let time = if self.open.is_empty() { IDLE } else { SLEEP };
        match inbox.recv_timeout(time) {
            Ok(submission) => self.take(submission),
            // Pages that the last requests left.
            Err(RecvTimeoutError::Timeout) if self.open.is_empty() && self.worked => {
                B::memory_cleanup(&policy.device());
                self.worked = false;
            }
            // The server holds a sender for as long as it lives.
            Err(_) => {}
        }
    }

    fn take(&mut self, submission: Submission) {
        let (open, request) = OpenRequest::new(submission, self.processor);
        let id = self.engine.submit(request);
        self.open.insert(id, open);
        self.worked = true;
    }

    fn step(&mut self, policy: &P) -> Result<(), RolloutError> {
        for event in self.engine.step(policy)? {
            match event {
                Event::Token { request, response, id, finish } => self.token(request, response, id, finish),
                Event::Finished { request, response, content, .. } => {
                    if let Some(open) = self.open.get_mut(&request) {
                        open.complete(response, content);
                    }
                }
                Event::Failed { request, error } => {
                    if let Some(open) = self.open.remove(&request) {
                        self.state.metrics.count_cut_off(CutOff::Failed);
                        open.fail(ApiError::bad(error.to_string()));
                    }
                }
                Event::Done { .. } => {}
            }
        }
        self.hand_over();
        Ok(())
    }

    fn token(&mut self, request: RequestId, response: usize, id: u32, finish: Option<rollout::FinishReason>) {
        let Some(open) = self.open.get_mut(&request) else { return };
        if open.place.take().is_some() {
            self.state.metrics.first_token.add(open.arrived.elapsed());
        }
        match open.take(response, id, finish) {
            Ok(false) => {}
            Ok(true) => _ = self.engine.end(request, response),
            Err(error) => self.cut_off(request, CutOff::Failed, Some(ApiError::status(500, error.to_string()))),
        }
    }

    /// Hands over what there is, and forgets whoever has all, has gone, does not read, or has waited too long.
    fn hand_over(&mut self) {
        let now = Instant::now();
        let slow = self.state.options.slow_reader;
        let mut cut = Vec::new();
        let mut done = Vec::new();
        for (&id, open) in &mut self.open {
            match open.hand_over(|choice| self.engine.so_far(id, choice)) {
                Handed::Gone => cut.push((id, CutOff::Disconnected)),
                Handed::Blocked if now.duration_since(*open.blocked_since.get_or_insert(now)) > slow => {
                    cut.push((id, CutOff::Slow));
                }
                Handed::Blocked => {}
                Handed::Some => open.blocked_since = None,
                Handed::Nothing => {}
            }
            if open.is_done() {
                done.push(id);
            } else if now > open.deadline && cut.last().is_none_or(|(last, _)| *last != id) {
                cut.push((id, CutOff::TimedOut));
            }
        }
        for id in done {
            // What is left of it in the engine is log-probs that nobody asked for.
            self.engine.cancel(id);
            if let Some(open) = self.open.remove(&id) {
                self.state.metrics.answered.add(open.arrived.elapsed());
            }
        }
        for (id, why) in cut {
            let seconds = self.state.options.request_time.as_secs_f64();
            let late =
                || ApiError::status(504, format!("the request took more than {seconds} s (--timeout)")).code("timeout");
            self.cut_off(id, why, (why == CutOff::TimedOut).then(late));
        }
    }

    fn cut_off(&mut self, id: RequestId, why: CutOff, error: Option<ApiError>) {
        self.engine.cancel(id);
        if let Some(open) = self.open.remove(&id) {
            self.state.metrics.count_cut_off(why);
            if let Some(error) = error {
                open.fail(error);
            }
        }
    }

    fn end_all(&mut self, why: CutOff, error: &ApiError) {
        let all: Vec<RequestId> = self.open.keys().copied().collect();
        all.into_iter().for_each(|id| self.cut_off(id, why, Some(error.clone())));
        self.report();
    }

    fn report(&self) {
        let ServerMetrics { running, open_rows, cached_rows, prompt_tokens, response_tokens, decode_steps, .. } =
            &self.state.metrics;
        let stats = self.engine.stats();
        running.store(self.open.len(), Ordering::Relaxed);
        open_rows.store(self.engine.open_rows(), Ordering::Relaxed);
        cached_rows.store(self.engine.cached_rows(), Ordering::Relaxed);
        prompt_tokens.store(stats.prompt_tokens as u64, Ordering::Relaxed);
        response_tokens.store(stats.response_tokens as u64, Ordering::Relaxed);
        decode_steps.store(stats.decode_steps as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use burn::tensor::DType;
    use data::Content;
    use launch::{ModelFolder, PictureOptions};
    use model_qwen2vl::QwenVl;
    use tokio::sync::mpsc;

    use super::*;
    use crate::ask::AskedRequest;
    use crate::open::Told;
    use crate::options::ServedModel;
    use crate::prepare::prepare;

    type Cpu = burn_flex::Flex<f32, i32>;

    fn fixture() -> (ModelFolder, ServedModel) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models/tied_gqa");
        let folder = ModelFolder::open(path.as_ref()).unwrap();
        let processor = Arc::new(folder.processor(PictureOptions::default()).unwrap());
        let config = folder.config().unwrap().clone();
        let model = ServedModel {
            max_positions: config.text.max_position_embeddings,
            eos: folder.end_tokens(&processor).unwrap().into(),
            suppress: folder.never_sampled(&processor).unwrap().into(),
            prompt: Arc::new(move |ids, pixels, grids| config.prompt(ids, pixels, grids)),
            processor,
        };
        assert!(model.processor.encode(None, &[Content::Text("?".into())], &[]).is_ok());
        (folder, model)
    }

    /// A request of `tokens` tokens, and what comes of it through a channel of `room` pieces.
    fn submit(state: &ServerState, tokens: usize, room: usize) -> mpsc::Receiver<Told> {
        let body = serde_json::json!({
            "model": "model", "seed": 1, "max_tokens": tokens, "min_tokens": tokens,
            "messages": [{ "role": "user", "content": "What is this?" }],
        });
        let asked = AskedRequest::chat(body.to_string().as_bytes()).unwrap();
        let prepared = prepare(asked, &state.model, &state.options).unwrap();
        let (out, inbox) = mpsc::channel(room);
        let submission = Submission {
            request: prepared.requests.into_iter().next().unwrap(),
            first_choice: 0,
            settings: prepared.settings,
            arrived: Instant::now(),
            deadline: Instant::now() + Duration::from_secs(60),
            out,
            place: Arc::clone(&state.places).try_acquire_owned().unwrap(),
        };
        state.inbox.send(submission).unwrap();
        inbox
    }

    /// The text of an answer, and its pieces, read with a pause after each.
    fn read(mut inbox: mpsc::Receiver<Told>, pause: Duration) -> (String, usize) {
        let (mut text, mut pieces) = (String::new(), 0);
        while let Some(said) = inbox.blocking_recv() {
            let Told::Piece(piece) = said else { panic!("{said:?}") };
            text += &piece.text;
            pieces += 1;
            std::thread::sleep(pause);
        }
        (text, pieces)
    }

    /// Who never reads is cut off after a time, and holds nobody meanwhile; who reads slowly gets all, in fewer pieces.
    #[test]
    fn a_client_that_does_not_read_holds_nobody() {
        let (folder, model) = fixture();
        let (sender, inbox) = channel();
        let options = ServerOptions { slow_reader: Duration::from_millis(1500), ..ServerOptions::default() };
        let state = Arc::new(ServerState::new(options, model, sender));
        let driver = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let policy: QwenVl<Cpu> = folder.load(DType::F32, &Default::default()).unwrap();
            Drive::<Cpu, _>::new(&driver).run(&policy, &inbox)
        });
        let never = submit(&state, 200, 2);
        let (whole, all) = read(submit(&state, 120, 64), Duration::ZERO);
        assert!(!whole.is_empty());
        let (slow, fewer) = read(submit(&state, 120, 1), Duration::from_millis(60));
        assert_eq!(slow, whole);
        assert!(fewer < all, "{fewer} of {all}: what waits is joined");
        let text = || state.metrics.text();
        let start = Instant::now();
        while !text().contains("serve_cut_off_total{reason=\"slow_reader\"} 1\n") {
            assert!(start.elapsed() < Duration::from_secs(60), "{}", text());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(text().contains("\nserve_requests_running 0\n") || text().contains("\nserve_rows 0\n"), "{}", text());
        drop(never);
        assert_eq!(state.places.available_permits(), state.options.max_queue, "every place was given back");
        state.set_ending();
        thread.join().unwrap().unwrap();
    }
}
