//! Rollout: prompts in, sampled responses out.
//!
//! | file | subject |
//! |---|---|
//! | `request` | what is asked for, and the events and errors that come back |
//! | `engine` | [`RolloutEngine`]: submit, step, end, cancel, new weights |
//! | `queue` | which requests enter the decode batch, and when |
//! | `batch` | the rows that are decoded together, one token each per step |
//! | `waiting` | numbers that stay on the device for some steps, so that a token costs one read |
//! | `masks` | tokens that may not be drawn, per row |
//! | [`sampler`] | from hidden states to tokens |
//! | `top` | the likeliest tokens beside the one that is drawn |
//! | [`focus`] | visual focus of packed rows |
//! | [`image_cache`] | image embeddings, kept while the weights stay |
//! | `vocabulary` | ids that are never drawn |
//! | `generate` | the short driver over the engine for a batch of prompts with one set of settings |
//!
//! Nothing here knows a trainer: it needs a model that decodes ([`policy::Decoding`]), the kernels and the `vgpo`
//! crate.
//!
//! ```
//! use kernels::Kernels;
//! use policy::{Decoding, Prompt};
//! use rollout::image_cache::ImageCache;
//! use rollout::sampler::Sampling;
//! use rollout::{EngineConfig, Event, ResponseLimits, RolloutEngine, RolloutRequest};
//!
//! /// Prints the ids of two responses as they are sampled.
//! fn stream<B: Kernels, P: Decoding<B>>(policy: &P, prompt: Prompt, eos: u32) -> Result<(), rollout::RolloutError> {
//!     let config = EngineConfig {
//!         max_batch_rows: 8,
//!         prefill_token_budget: 4096,
//!         max_new_tokens: 64,
//!         max_prompt_tokens: 1024,
//!         max_request_rows: 8,
//!         read_every: 8,
//!     };
//!     let limits = ResponseLimits { max_new_tokens: 64, min_new_tokens: 1, eos: [eos].into(), suppress: [].into() };
//!     let sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: 1 };
//!     let mut engine = RolloutEngine::<B, P>::new(config, ImageCache::new(0.0), 0);
//!     engine.submit(RolloutRequest { prompt, key: 0, n: 2, sampling, limits, focus: None, top_log_probs: 0 });
//!     while !engine.is_idle() {
//!         for event in engine.step(policy)? {
//!             if let Event::Token { response, id, .. } = event {
//!                 println!("response {response}: {id}");
//!             }
//!         }
//!     }
//!     Ok(())
//! }
//! ```

mod batch;
mod engine;
pub mod focus;
mod generate;
pub mod image_cache;
mod masks;
mod queue;
mod request;
pub mod sampler;
mod top;
mod vocabulary;
mod waiting;

pub use engine::{EngineConfig, RolloutEngine, RolloutStats};
pub use generate::{Job, RolloutConfig, generate};
pub use request::{
    Event, FinishReason, RequestError, RequestId, Response, ResponseLimits, RolloutError, RolloutRequest,
};
pub use top::{MOST_TOP_LOG_PROBS, TokenLogProb};
pub use vocabulary::never_sampled;
