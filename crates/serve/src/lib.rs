//! A model behind OpenAI's HTTP interface, over the [rollout engine](rollout::RolloutEngine): requests enter and leave
//! the batch between two tokens, each with settings of its own.
//!
//! ```text
//! listen: connections -> http: path, key, body -> ask: fields
//!    -> media, prepare: pictures, tokens, bounds                                         threads of their own
//!    -> drive, open: engine, texts, stop strings, who has gone or does not read          the device's thread
//!    -> reply, sse: OpenAI's shapes                                                      threads of requests
//! ```
//!
//! What is answered depends on the request alone: the same as `generate` gives with its seed and settings, whatever
//! else is asked at the time.
//!
//! ```
//! use std::sync::Arc;
//! use launch::{ModelFolder, PictureOptions};
//! use serve::{ChatServer, ServedModel, ServerOptions};
//!
//! # let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models/tied_gqa");
//! let folder = ModelFolder::open(fixture.as_ref())?;
//! let config = folder.config()?.clone();
//! let processor = Arc::new(folder.processor(PictureOptions::default())?);
//! let model = ServedModel {
//!     max_positions: config.text.max_position_embeddings,
//!     eos: folder.end_tokens(&processor)?.into(),
//!     suppress: folder.never_sampled(&processor)?.into(),
//!     prompt: Arc::new(move |ids, pixels, grids| config.prompt(ids, pixels, grids)),
//!     processor,
//! };
//! let server = ChatServer::bind(ServerOptions { port: 0, ..ServerOptions::default() }, model)?;
//! let handle = server.handle();
//! println!("http://{}/v1", handle.address());
//! let policy = folder.load::<burn_flex::Flex>(burn::tensor::DType::F32, &Default::default())?;
//! # handle.end();
//! server.run(&policy, || println!("ready"))?; // until somebody calls handle.end()
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod ask;
mod drive;
mod error;
mod fields;
mod http;
mod listen;
mod media;
mod metrics;
mod open;
mod options;
mod prepare;
pub mod program;
mod reply;
mod shared;
mod sse;
mod stop;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use axum::Router;
use data::Content;
use kernels::Kernels;
use policy::Decoding;
use rollout::image_cache::ImageCache;
use rollout::sampler::Sampling;
use rollout::{Job, RolloutConfig, generate};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

pub use error::ChatServerError;
pub use options::{PromptMaker, ServedModel, ServerOptions};

use drive::Drive;
use open::Submission;
use shared::ServerState;

/// Stack of the threads that parse requests and decode pictures.
const STACK: usize = 16 << 20;
/// How long what was answered may take to reach its clients after the engine has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A server that listens. Until [`run`](Self::run) has a model it says that one is being loaded.
#[derive(Debug)]
pub struct ChatServer {
    state: Arc<ServerState>,
    address: SocketAddr,
    inbox: Receiver<Submission>,
    runtime: Runtime,
    serving: JoinHandle<io::Result<()>>,
}

/// A server from other threads.
#[derive(Debug, Clone)]
pub struct ChatServerHandle {
    state: Arc<ServerState>,
    address: SocketAddr,
}

impl ChatServerHandle {
    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it answers questions: the model is there.
    pub fn is_ready(&self) -> bool {
        self.state.is_ready()
    }

    /// Lets the server end: it takes no more requests, and what is being answered has
    /// [`grace`](ServerOptions::grace). Whether it was not told before.
    pub fn end(&self) -> bool {
        self.state.set_ending()
    }
}

impl ChatServer {
    /// Listens, and answers that the model is being loaded.
    ///
    /// # Errors
    /// [`ChatServerError::PortInUse`], [`ChatServerError::Address`], [`ChatServerError::Failed`].
    pub fn bind(options: ServerOptions, model: ServedModel) -> Result<Self, ChatServerError> {
        let asked = SocketAddr::new(options.host, options.port);
        let listener = TcpListener::bind(asked).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ChatServerError::PortInUse(asked),
            _ => ChatServerError::Address { address: asked, source },
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_stack_size(STACK).enable_io().enable_time().build()?;
        let (sender, inbox) = channel();
        let state = Arc::new(ServerState::new(options, model, sender));
        let router = Router::new().fallback(http::handle).with_state(Arc::clone(&state));
        let ending = Arc::clone(&state);
        let serving = runtime.spawn(listen::serve(listener, router, ending));
        Ok(Self { state, address, inbox, runtime, serving })
    }

    /// The server from other threads.
    pub fn handle(&self) -> ChatServerHandle {
        ChatServerHandle { state: Arc::clone(&self.state), address: self.address }
    }

    /// Answers with `policy`, on the thread that uses its device, until [`ChatServerHandle::end`]. `on_ready` is called
    /// once questions are answered.
    ///
    /// # Errors
    /// [`ChatServerError::Model`] for a model that cannot answer, [`ChatServerError::Device`] for a device that fails.
    pub fn run<B: Kernels, P: Decoding<B>>(self, policy: &P, on_ready: impl FnOnce()) -> Result<(), ChatServerError> {
        let Self { state, inbox, runtime, serving, .. } = self;
        let result = first_token::<B, P>(policy, &state.model).and_then(|()| {
            state.set_ready();
            on_ready();
            Ok(Drive::<B, P>::new(&state).run(policy, &inbox)?)
        });
        state.set_ending();
        // Whoever sends from here on is told that the server ends.
        drop(inbox);
        let _ = runtime.block_on(async { tokio::time::timeout(LAST_WORDS, serving).await });
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

/// Samples one token before anybody asks: a model whose numbers are none is found here, and kernels are compiled.
fn first_token<B: Kernels, P: Decoding<B>>(policy: &P, model: &ServedModel) -> Result<(), ChatServerError> {
    let wrong = |reason: String| ChatServerError::Model(reason);
    let encoded = model.processor.encode(None, &[Content::Text("?".into())], &[]).map_err(|e| wrong(e.to_string()))?;
    let prompt = (model.prompt)(encoded.input_ids, vec![], vec![]).map_err(|e| wrong(e.to_string()))?;
    let config = RolloutConfig {
        n: 1,
        sampling: Sampling::greedy(),
        max_new_tokens: 1,
        min_new_tokens: 0,
        eos: model.eos.to_vec(),
        suppress: model.suppress.to_vec(),
        focus: None,
        max_batch_rows: 1,
        prefill_token_budget: usize::MAX,
    };
    let job = Job { prompt: &prompt, key: 0 };
    let never = AtomicBool::new(false);
    let (responses, _) = generate(policy, &[job], &config, &mut ImageCache::default(), &never, |_, _, _| {})?;
    match responses.iter().flatten().flat_map(|r| &r.log_probs).all(|log_prob| log_prob.is_finite()) {
        true => Ok(()),
        false => Err(wrong(
            "its outputs are not numbers (NaN or infinite); its weights or its config.json are damaged".into(),
        )),
    }
}
