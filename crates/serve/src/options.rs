//! What a server is told: where it listens, what it serves, and the bounds of a request.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data::Processor;
use policy::{ModelError, Prompt};

/// Where a server listens, who may ask, and what a request may cost. Of each field the default stands in its own line
/// of [`ServerOptions::default`].
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Address to listen at.
    pub host: IpAddr,
    /// Port; 0 takes any that is free.
    pub port: u16,
    /// Names by which clients may name this machine, besides its addresses and `localhost`.
    pub allowed_names: Vec<String>,
    /// Names of the model; replies and `/v1/models` have the first.
    pub model_names: Vec<String>,
    /// What a client must send as its key, if anything.
    pub api_key: Option<String>,
    /// The folder that pictures may be named in by path; none: pictures come as data URLs only.
    pub allowed_media: Option<PathBuf>,
    /// System message of conversations that have none; none: the chat template's own.
    pub system: Option<String>,
    /// Responses that are sampled at the same time.
    pub max_batch_rows: usize,
    /// Requests that may wait for their first token; beyond it a client is sent away.
    pub max_queue: usize,
    /// Tokens of a prompt, its pictures' included.
    pub max_prompt_tokens: usize,
    /// Tokens of a response.
    pub max_new_tokens: usize,
    /// Prompt tokens that are computed at once.
    pub prefill_token_budget: usize,
    /// Bytes of a request's body, or of a picture's file.
    pub max_body_bytes: usize,
    /// From a request's arrival to its last token.
    pub request_time: Duration,
    /// How long a client may not take what is there for it, and not send what it has begun to.
    pub slow_reader: Duration,
    /// How long requests may go on after the server was told to end.
    pub grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: cli::ports::SERVE,
            allowed_names: vec![],
            model_names: vec!["model".into()],
            api_key: None,
            allowed_media: None,
            system: None,
            max_batch_rows: 64,
            max_queue: 256,
            max_prompt_tokens: 16_384,
            max_new_tokens: 4096,
            prefill_token_budget: 16_384,
            max_body_bytes: 32 << 20,
            request_time: Duration::from_secs(600),
            slow_reader: Duration::from_secs(30),
            grace: Duration::from_secs(30),
        }
    }
}

/// Makes a model's prompt of ids `[P]`, the patches of its pictures and their grids
/// ([`Scoring::prompt`](policy::Scoring::prompt)), without the model's weights.
pub type PromptMaker = Arc<dyn Fn(Vec<u32>, Vec<f32>, Vec<[usize; 3]>) -> Result<Prompt, ModelError> + Send + Sync>;

/// What there is of a model before its weights: all that is needed to make prompts of requests and texts of tokens.
#[derive(Clone)]
pub struct ServedModel {
    /// Tokenizer, chat template, picture settings.
    pub processor: Arc<Processor>,
    /// Makes prompts.
    pub prompt: PromptMaker,
    /// Positions that the model knows (`max_position_embeddings`).
    pub max_positions: usize,
    /// Ids that end a response.
    pub eos: Arc<[u32]>,
    /// Ids that are never sampled.
    pub suppress: Arc<[u32]>,
}

impl std::fmt::Debug for ServedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedModel").field("max_positions", &self.max_positions).finish_non_exhaustive()
    }
}
