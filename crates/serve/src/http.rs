//! Paths, who may ask, bodies, and the way of a request to the engine and back.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use futures_core::Stream;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant as Time, timeout_at};

use crate::ask::AskedRequest;
use crate::error::ApiError;
use crate::media;
use crate::open::{CHANNEL, Submission, TextPiece, Told};
use crate::options::ServerOptions;
use crate::prepare::{PreparedRequest, prepare};
use crate::reply::{ReplyHead, ReplyStream};
use crate::shared::ServerState;
use crate::sse::EventBody;

/// How long a body that is too large is still taken, so that its sender reads the answer.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes of a body for each second that it may take beyond `--slow-reader`.
const SLOWEST: u64 = 16 << 10;

/// A path that is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerPath<'a> {
    Health,
    Metrics,
    Models,
    Model(&'a str),
    Chat,
    Completions,
    Unknown,
}

impl<'a> ServerPath<'a> {
    fn of(path: &'a str) -> Self {
        match path {
            "/health" => Self::Health,
            "/metrics" => Self::Metrics,
            "/v1/models" => Self::Models,
            "/v1/chat/completions" => Self::Chat,
            "/v1/completions" => Self::Completions,
            _ => path.strip_prefix("/v1/models/").map_or(Self::Unknown, Self::Model),
        }
    }

    /// As metrics name it: what clients invent stays out of them.
    fn name(self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Metrics => "/metrics",
            Self::Models | Self::Model(_) => "/v1/models",
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Unknown => "other",
        }
    }

    /// The methods that it is asked with.
    fn methods(self) -> &'static str {
        match self {
            Self::Chat | Self::Completions => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// A request from beginning to end.
pub(crate) async fn handle(State(state): State<Arc<ServerState>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let path = ServerPath::of(&path);
    let mut response = route(&state, path, request).await.unwrap_or_else(|error| failed(&error));
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(path.methods()));
    }
    state.metrics.count_answer(path.name(), response.status().as_u16());
    response
}

async fn route(state: &Arc<ServerState>, path: ServerPath<'_>, request: Request) -> Result<Response<Body>, ApiError> {
    if !is_for_us(request.headers(), &state.options.allowed_names) {
        let reason = "this address is asked for under a name that is not allowed; use its address or localhost, or start \
                      serve with --allow-name NAME";
        return Err(ApiError::status(403, reason));
    }
    if path == ServerPath::Unknown {
        return Err(ApiError::status(404, format!("there is nothing at {}", guard::echo(request.uri().path()))));
    }
    if path.methods().split(", ").all(|method| request.method() != method) {
        return Err(ApiError::status(405, format!("{} is asked with {}", path.name(), path.methods())));
    }
    if path == ServerPath::Health {
        return health(state);
    }
    if let Some(key) = &state.options.api_key
        && !has_key(request.headers(), key)
    {
        let reason = "the API key is missing or wrong; send it as Authorization: Bearer KEY";
        return Err(ApiError::status(401, reason).code("invalid_api_key"));
    }
    match path {
        ServerPath::Metrics => Ok(found("text/plain; version=0.0.4", state.metrics.text())),
        ServerPath::Models => {
            let all: Vec<Value> = state.options.model_names.iter().map(|name| model(state, name)).collect();
            Ok(found_json(&json!({ "object": "list", "data": all })))
        }
        ServerPath::Model(name) => {
            // Clients write the slashes of a name as %2F.
            let name = media::unescaped(name).unwrap_or_default();
            match state.options.model_names.iter().find(|own| **own == name) {
                Some(own) => Ok(found_json(&model(state, own))),
                None => {
                    let reason = format!("the model `{}` does not exist", guard::echo(&name));
                    Err(ApiError::status(404, reason).code("model_not_found"))
                }
            }
        }
        _ => answer(state, path == ServerPath::Chat, request).await,
    }
}

/// Whether a request names this server by an address, by `localhost` or by a name that is allowed. Only a name can be
/// made to point here by a page of a stranger.
fn is_for_us(headers: &HeaderMap, names: &[String]) -> bool {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = named.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    address || host.eq_ignore_ascii_case("localhost") || names.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Compares all of the key, so that the time tells nothing of it but its length.
fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(given) = given.and_then(|value| value.strip_prefix("Bearer ")).map(|given| given.trim().as_bytes()) else {
        return false;
    };
    let differences = given.iter().zip(key.as_bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == key.len() && differences == 0
}

fn health(state: &ServerState) -> Result<Response<Body>, ApiError> {
    check_open(state)?;
    Ok(found_json(&json!({ "status": "ok" })))
}

/// Refuses where nothing is answered yet or any more.
fn check_open(state: &ServerState) -> Result<(), ApiError> {
    let wait = |message: &str| Err(ApiError { retry_after: Some(2), ..ApiError::status(503, message) });
    match (state.is_ending(), state.is_ready()) {
        (true, _) => wait("the server is ending"),
        (_, false) => wait("the model is being loaded"),
        _ => Ok(()),
    }
}

fn model(state: &ServerState, name: &str) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": state.created,
        "owned_by": "visual-rl",
        "max_model_len": state.model.max_positions,
    })
}

/// `/v1/chat/completions` and `/v1/completions`.
async fn answer(state: &Arc<ServerState>, is_chat: bool, request: Request) -> Result<Response<Body>, ApiError> {
    let arrived = Instant::now();
    check_open(state)?;
    check_type(request.headers())?;
    let mut places = places(state, 1)?;
    let deadline = arrived + state.options.request_time;
    let late = |_| {
        let seconds = state.options.request_time.as_secs_f64();
        ApiError::status(408, format!("the request was not there after {seconds} s (--timeout)")).code("timeout")
    };
    let prepared = timeout_at(deadline.into(), prepared(state, is_chat, request.into_body())).await.map_err(late)??;
    let more = prepared.requests.len().saturating_sub(1);
    if more > 0 {
        places.merge(self::places(state, more)?);
    }
    let head = ReplyHead::new(&prepared, state);
    let (out, inbox) = mpsc::channel(CHANNEL);
    let PreparedRequest { requests, settings, .. } = prepared;
    let (choices, stream) = (requests.iter().map(|request| request.n).sum(), settings.stream);
    let mut first_choice = 0;
    for request in requests {
        let n = request.n;
        let place = places.split(1).ok_or_else(|| ApiError::status(500, "a prompt has no place"))?;
        let (settings, out) = (settings.clone(), out.clone());
        let submission = Submission { request, first_choice, settings, arrived, deadline, out, place };
        state.inbox.send(submission).map_err(|_| ApiError::status(503, "the server is ending"))?;
        first_choice += n;
    }
    // The channel ends with the last prompt.
    drop(out);
    if stream {
        let body = EventBody::new(inbox, ReplyStream::new(head), choices, Arc::clone(state));
        let mut response = found("text/event-stream", Body::from_stream(body));
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        return Ok(response);
    }
    let pieces = collect(inbox, choices).await?;
    Ok(found_json(&head.whole(&pieces, &state.model.processor)))
}

/// Places for prompts that wait for their first token.
fn places(state: &ServerState, prompts: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let full = |_| {
        let reason = match prompts {
            1 => format!("{} requests are waiting already (--max-queue)", state.options.max_queue),
            _ => format!("there is no room for {prompts} prompts more among those that wait (--max-queue)"),
        };
        ApiError { retry_after: Some(1), ..ApiError::status(429, reason) }.code("queue_full")
    };
    let permits = u32::try_from(prompts).unwrap_or(u32::MAX);
    Arc::clone(&state.places).try_acquire_many_owned(permits).map_err(full)
}

/// Requests of other pages in a browser cannot have this type without asking first, which nothing here answers.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::status(415, "the body is compressed (Content-Encoding); send it as it is"));
    }
    match essence.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => {
            let reason = format!("the Content-Type is {:?}; send application/json", guard::echo(given));
            Err(ApiError::status(415, reason))
        }
    }
}

/// Reads and prepares a request, on a thread of its own.
async fn prepared(state: &Arc<ServerState>, is_chat: bool, body: Body) -> Result<PreparedRequest, ApiError> {
    let body = read_body(body, &state.options).await?;
    let fault = |reason: String| ApiError::status(500, format!("a fault of this program: {reason}"));
    let turn = Arc::clone(&state.preparing).acquire_owned().await.map_err(|e| fault(e.to_string()))?;
    let state = Arc::clone(state);
    let work = move || {
        let _turn = turn;
        guard::caught(|| {
            let asked = if is_chat { AskedRequest::chat(&body) } else { AskedRequest::completion(&body) }?;
            prepare(asked, &state.model, &state.options)
        })
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(|e| fault(e.to_string()))?;
    done.map_err(fault)?
}

/// The bytes of a body, up to a limit, from a client that goes on sending them.
async fn read_body(body: Body, options: &ServerOptions) -> Result<Vec<u8>, ApiError> {
    let limit = options.max_body_bytes;
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let start = Time::now();
    loop {
        let next = poll_fn(|context| Pin::new(&mut stream).poll_next(context));
        let patience = options.slow_reader + Duration::from_secs(bytes.len() as u64 / SLOWEST);
        match timeout_at(start + patience, next).await {
            Ok(Some(Ok(part))) if bytes.len() + part.len() <= limit => bytes.extend_from_slice(&part),
            Ok(Some(Ok(_))) => break,
            Ok(Some(Err(_))) => return Err(ApiError::bad("the body broke off")),
            Ok(None) => return Ok(bytes),
            Err(_) => {
                let reason = format!("only {} bytes of the body came in {} s", bytes.len(), patience.as_secs_f64());
                return Err(ApiError::status(408, reason).code("timeout"));
            }
        }
    }
    drop(bytes);
    let end = Time::now() + LINGER;
    let rest = async { while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {} };
    let _ = timeout_at(end, rest).await;
    Err(ApiError::status(413, format!("the body has more than {limit} bytes (--max-body)")))
}

/// All pieces of an answer, joined: one a choice.
async fn collect(mut inbox: Receiver<Told>, n: usize) -> Result<Vec<TextPiece>, ApiError> {
    let mut whole: Vec<TextPiece> = (0..n).map(|choice| TextPiece { choice, ..TextPiece::default() }).collect();
    while let Some(said) = inbox.recv().await {
        match said {
            Told::Failed(error) => return Err(error),
            Told::Piece(piece) => {
                if let Some(joined) = whole.get_mut(piece.choice) {
                    joined.text += &piece.text;
                    joined.ids.extend(piece.ids);
                    joined.log_probs.extend(piece.log_probs);
                    joined.top_log_probs.extend(piece.top_log_probs);
                    joined.focus.extend(piece.focus);
                    joined.finish = piece.finish;
                }
            }
        }
    }
    match whole.iter().all(|piece| piece.finish.is_some()) {
        true => Ok(whole),
        false => Err(ApiError::status(503, "the server ended before the answer was complete")),
    }
}

fn failed(error: &ApiError) -> Response<Body> {
    let mut response = found_json(&error.json());
    *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.status == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn found_json(body: &Value) -> Response<Body> {
    found("application/json", body.to_string())
}

fn found(media_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
