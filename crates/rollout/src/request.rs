//! What is asked of the engine, and what comes back.

use std::sync::Arc;

use kernels::host::DeviceError;
use policy::Prompt;
use serde::{Deserialize, Serialize};
use vgpo::{PrototypeMode, VgpoError};

use crate::sampler::Sampling;
use crate::top::{MOST_TOP_LOG_PROBS, TokenLogProb};

/// A prompt to answer, with settings of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutRequest {
    /// The prompt, as [`Scoring::prompt`](policy::Scoring::prompt) of the model that answers made it. Copies share the
    /// pixels.
    pub prompt: Prompt,
    /// Names the stream of random numbers: the same key, seed and settings give the same responses, whatever else is
    /// decoded.
    pub key: u64,
    /// Responses; response `i` does not depend on how many there are.
    pub n: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Where responses end, and what they may not contain.
    pub limits: ResponseLimits,
    /// Whether to compute the visual focus of each token while decoding (no further forward pass), and against what.
    pub focus: Option<PrototypeMode>,
    /// How many of the likeliest tokens to tell of each step beside the one that is drawn,
    /// [`MOST_TOP_LOG_PROBS`] at most; 0: none.
    pub top_log_probs: usize,
}

/// Where the responses to a request end, and what they may not contain. Copies share the lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Most tokens of a response; 0 gives empty responses.
    pub max_new_tokens: usize,
    /// No end token before this many tokens.
    pub min_new_tokens: usize,
    /// Ids that end a response.
    pub eos: Arc<[u32]>,
    /// Ids that are never drawn ([`never_sampled`](crate::never_sampled)).
    pub suppress: Arc<[u32]>,
}

/// Names a request within its engine; ids ascend in the order of submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

/// What happened to a request in one step.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A token was sampled.
    Token {
        /// The request.
        request: RequestId,
        /// Which of its responses, from 0.
        response: usize,
        /// The token.
        id: u32,
        /// Why the response ends with this token, if it does.
        finish: Option<FinishReason>,
    },
    /// A response is complete, log-probs and visual focus included: at most
    /// [`read_every`](crate::EngineConfig::read_every) steps behind its last token.
    Finished {
        /// The request.
        request: RequestId,
        /// Which of its responses, from 0.
        response: usize,
        /// The response.
        content: Response,
        /// Version of the weights that sampled all of it ([`set_weights`](crate::RolloutEngine::set_weights)).
        policy_version: u64,
    },
    /// All responses of the request are finished. The last event of a request that is answered.
    Done {
        /// The request.
        request: RequestId,
    },
    /// The request is not (or no longer) answered. The last event of a request that fails; others notice nothing.
    Failed {
        /// The request.
        request: RequestId,
        /// Why.
        error: RequestError,
    },
}

impl Event {
    /// Whom it concerns.
    pub fn request(&self) -> RequestId {
        match self {
            Self::Token { request, .. }
            | Self::Finished { request, .. }
            | Self::Done { request }
            | Self::Failed { request, .. } => *request,
        }
    }
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-sequence token, which is the last of the ids; or [`RolloutEngine::end`](crate::RolloutEngine::end).
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
    /// The likeliest tokens of each step that might have been drawn, likeliest first, if they were asked for. `[T]`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_log_probs: Vec<Vec<TokenLogProb>>,
}

impl Response {
    /// A response without a token.
    pub(crate) fn empty() -> Self {
        Self { ids: vec![], log_probs: vec![], finish: FinishReason::Length, visual_focus: None, top_log_probs: vec![] }
    }
}

/// Why one request is not answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The prompt has no tokens.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt is longer than the engine takes.
    #[error("the prompt has {tokens} tokens, this engine takes {limit} at most")]
    LongPrompt {
        /// Its tokens.
        tokens: usize,
        /// [`EngineConfig::max_prompt_tokens`](crate::EngineConfig::max_prompt_tokens).
        limit: usize,
    },
    /// More responses than the engine gives to one request.
    #[error("n = {n}: this engine gives {limit} responses to one request at most")]
    ManyResponses {
        /// What was asked for.
        n: usize,
        /// [`EngineConfig::max_request_rows`](crate::EngineConfig::max_request_rows).
        limit: usize,
    },
    /// Longer responses than the engine has room for.
    #[error("max_new_tokens = {max_new_tokens}: the responses of this engine have {limit} tokens at most")]
    LongResponses {
        /// What was asked for.
        max_new_tokens: usize,
        /// [`EngineConfig::max_new_tokens`](crate::EngineConfig::max_new_tokens).
        limit: usize,
    },
    /// A temperature that means nothing.
    #[error("temperature = {0}: it must be 0 (greedy) or more, and finite")]
    Temperature(f64),
    /// A nucleus that means nothing.
    #[error("top_p = {0}: it must be above 0 and at most 1")]
    TopP(f64),
    /// More likeliest tokens than are told.
    #[error("top_log_probs = {0}: {MOST_TOP_LOG_PROBS} at most")]
    ManyTopLogProbs(usize),
    /// Tokens, pictures and positions of the prompt do not fit each other or the policy.
    #[error("the prompt does not fit the model: {0}")]
    Prompt(String),
    /// Nothing is left to draw.
    #[error("suppress and eos leave no token of the vocabulary of {vocab}")]
    NothingToDraw {
        /// Rows of the embedding.
        vocab: usize,
    },
    /// The weights changed while it was answered.
    #[error("the weights changed from version {from} to {to} while the request was answered")]
    WeightsChanged {
        /// Version under which it began.
        from: u64,
        /// The new version.
        to: u64,
    },
}

/// Why nothing was generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RolloutError {
    /// The interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
    /// The device could not be read.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A request of [`generate`](crate::generate) that no policy could answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The visual focus of a prompt whose image tokens are not where its grids say.
    #[error(transparent)]
    Focus(#[from] VgpoError),
}
