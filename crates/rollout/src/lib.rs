//! Rollout: prompts in, sampled responses out.
//!
//! | file | subject |
//! |---|---|
//! | `request` | what is asked for, and the events and errors that come back |
//! | `engine` | [`RolloutEngine`]: submit, step, cancel, new weights |
//! | `queue` | which requests enter the decode batch, and when |
//! | `batch` | the rows that are decoded together, one token each per step |
//! | `waiting` | numbers that stay on the device for some steps, so that a token costs one read |
//! | `masks` | tokens that may not be drawn, per row |
//! | [`sampler`] | from hidden states to tokens |
//! | [`focus`] | visual focus of packed rows |
//! | [`image_cache`] | image embeddings, kept while the weights stay |
//! | `vocabulary` | ids that are never drawn |
//! | `generate` | the short driver over the engine for a batch of prompts with one set of settings |
//!
//! Nothing here knows a trainer: it needs a model that decodes ([`policy::Decoding`]), the kernels and the `vgpo`
//! crate.

mod batch;
mod engine;
pub mod focus;
mod generate;
pub mod image_cache;
mod masks;
mod queue;
mod request;
pub mod sampler;
mod vocabulary;
mod waiting;

pub use engine::{EngineConfig, RolloutEngine, RolloutStats};
pub use generate::{Job, RolloutConfig, generate};
pub use request::{
    Event, FinishReason, RequestError, RequestId, Response, ResponseLimits, RolloutError, RolloutRequest,
};
pub use vocabulary::never_sampled;
