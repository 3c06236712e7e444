//! What the threads of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use tokio::sync::{Semaphore, watch};

use crate::metrics::ServerMetrics;
use crate::open::Submission;
use crate::options::{ServedModel, ServerOptions};

/// Requests that are parsed, and whose pictures are decoded, at the same time.
const PREPARED_AT_ONCE: usize = 2;

/// One server: what it was told, what it counts, and where requests go.
#[derive(Debug)]
pub(crate) struct ServerState {
    pub options: ServerOptions,
    pub model: ServedModel,
    pub metrics: ServerMetrics,
    /// Places of requests that wait for their first token.
    pub places: Arc<Semaphore>,
    /// Threads for pictures and tokens.
    pub preparing: Arc<Semaphore>,
    /// To the device's thread.
    pub inbox: Sender<Submission>,
    /// Seconds since 1970 at the start.
    pub created: u64,
    ready: AtomicBool,
    /// Whether the server was told to end.
    ending: watch::Sender<bool>,
}

impl ServerState {
    pub(crate) fn new(options: ServerOptions, model: ServedModel, inbox: Sender<Submission>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(options.max_queue.min(Semaphore::MAX_PERMITS))),
            preparing: Arc::new(Semaphore::new(PREPARED_AT_ONCE)),
            metrics: ServerMetrics::default(),
            created: now(),
            ready: AtomicBool::new(false),
            ending: watch::Sender::new(false),
            options,
            model,
            inbox,
        }
    }

    /// Whether the weights are there.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::SeqCst);
    }

    /// Whether the server was told to end.
    pub(crate) fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Tells the server to end; whether that is new.
    pub(crate) fn set_ending(&self) -> bool {
        !self.ending.send_replace(true)
    }

    /// Comes back once the server was told to end.
    pub(crate) async fn wait_for_end(&self) {
        // The sender lives as long as this does.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}
