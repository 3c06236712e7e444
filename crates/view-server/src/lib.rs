//! Serves the page of [`view`] to a browser: read only, from memory and the folders of the runs alone.
//!
//! Who may ask: a page of a stranger that is open in the same browser could ask, too, under a name of its own that it
//! lets point at this machine (DNS rebinding). So a request must name this server by an address or by `localhost`, or
//! by a name that was allowed; and a strict policy keeps whatever text is in a run from being run by the page.
//!
//! ```
//! use std::net::{IpAddr, Ipv4Addr};
//!
//! let place = tempfile::tempdir()?;
//! std::fs::write(place.path().join("metrics.jsonl"), "{\"step\":1,\"reward\":0.5}\n")?;
//! let runs = view::ViewedRun::open(&[place.path().to_path_buf()])?;
//! let server = view_server::Server::bind(runs, IpAddr::V4(Ipv4Addr::LOCALHOST), 0, vec![])?;
//! assert_ne!(server.address().port(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

pub mod program;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{Method, Response, StatusCode, header};
use view::{Ask, ViewError, ViewedRun};

/// What the page may do: show what comes from here. No text of a run can become a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Stack of the threads that read foreign files and compare foreign answers.
const STACK: usize = 16 << 20;

/// Why runs cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another program listens there.
    #[error("port {} of {} is in use; choose another with --port N, or any free one with --port 0", .0.port(), .0.ip())]
    PortInUse(SocketAddr),
    /// The port or the address is not to be had.
    #[error("{address} cannot be listened at: {source}; choose another --port or --host")]
    Address {
        /// What was asked for.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The threads that serve cannot be started, or the system ended the work.
    #[error("serving failed: {0}")]
    Failed(#[from] io::Error),
}

/// Runs that are served at an address.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shown: Arc<Shown>,
}

/// What requests are answered from.
#[derive(Debug)]
struct Shown {
    runs: Vec<ViewedRun>,
    /// Names of this machine, besides its addresses and `localhost`.
    names: Vec<String>,
}

impl Server {
    /// Listens at `host` and `port` (0: any that is free). `names` are those by which browsers on other machines may
    /// name this one.
    ///
    /// # Errors
    /// [`ServeError::PortInUse`], [`ServeError::Address`].
    pub fn bind(runs: Vec<ViewedRun>, host: IpAddr, port: u16, names: Vec<String>) -> Result<Self, ServeError> {
        let asked = SocketAddr::new(host, port);
        let listener = TcpListener::bind(asked).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServeError::PortInUse(asked),
            _ => ServeError::Address { address: asked, source },
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, shown: Arc::new(Shown { runs, names }) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for as long as the program runs.
    ///
    /// # Errors
    /// [`ServeError::Failed`].
    pub fn serve(self) -> Result<(), ServeError> {
        // Browsers ask for little at a time; files are read on threads of their own.
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_stack_size(STACK).enable_io().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let router = Router::new().fallback(handle).with_state(self.shown);
            Ok(axum::serve(listener, router).await?)
        })
    }
}

/// A request from beginning to end.
async fn handle(State(shown): State<Arc<Shown>>, request: Request) -> Response<Body> {
    if !is_for_us(&request, &shown.names) {
        let reason = "this address is asked for under a name that is not allowed; use http://127.0.0.1:PORT/ or \
                      http://localhost:PORT/, or start view with --allow-name NAME";
        return refused(StatusCode::FORBIDDEN, reason);
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "runs are only read here");
    }
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    // Files are read and parsed, which takes its time.
    let work = move || guard::caught(|| answer(&shown, &path, &query));
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(response)) => response,
        Ok(Err(fault)) => refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("a fault of this program: {fault}")),
        Err(fault) => refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("a fault of this program: {fault}")),
    }
}

/// Whether a request names this server by an address, by `localhost` or by a name that is allowed. Only a name can be
/// made to point here by a stranger.
fn is_for_us(request: &Request, names: &[String]) -> bool {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = named.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    address || host.eq_ignore_ascii_case("localhost") || names.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// What stands at a path: the page, a part of it, a picture, or an answer.
fn answer(shown: &Shown, path: &str, query: &str) -> Response<Body> {
    if path.is_empty() {
        return found("text/html; charset=utf-8", "no-cache", view::index().into_bytes());
    }
    if let Some(asset) = path.strip_prefix("assets/").and_then(view::asset) {
        return found(asset.media_type, "no-cache", asset.text.as_bytes().to_vec());
    }
    if let Some((run, name)) = picture(path) {
        let picture = shown.runs.get(run).map(|run| run.picture(name));
        return match picture {
            // Named by what is in it, so it stays.
            Some(Ok(bytes)) => found("image/png", "private, max-age=86400", bytes),
            Some(Err(reason)) => missing(&reason),
            None => refused(StatusCode::NOT_FOUND, "there is no such run"),
        };
    }
    match Ask::parse(path, query).map(|ask| ask.answer(&shown.runs)) {
        Some(Ok(json)) => found("application/json", "no-store", json),
        Some(Err(reason)) => missing(&reason),
        None => refused(StatusCode::NOT_FOUND, "there is nothing at this address"),
    }
}

/// `api/runs/RUN/pictures/NAME`.
fn picture(path: &str) -> Option<(usize, &str)> {
    let (run, name) = path.strip_prefix("api/runs/")?.split_once("/pictures/")?;
    Some((run.parse().ok()?, name))
}

fn missing(reason: &ViewError) -> Response<Body> {
    match reason {
        ViewError::Absent(_) => refused(StatusCode::NOT_FOUND, &reason.to_string()),
        _ => refused(StatusCode::INTERNAL_SERVER_ERROR, &reason.to_string()),
    }
}

fn refused(status: StatusCode, reason: &str) -> Response<Body> {
    let mut response = found("text/plain; charset=utf-8", "no-store", guard::printable(reason).into_bytes());
    *response.status_mut() = status;
    response
}

fn found(media_type: &'static str, cache: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // No page of another place may embed what is here.
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    response
}
