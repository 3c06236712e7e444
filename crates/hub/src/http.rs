//! Requests to the hub: who asks, where a redirect leads, what is tried again, and what a refusal means.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;

use crate::{Hub, HubError};

/// Requests that are made before one is given up.
pub(crate) const TRIES: u32 = 5;
/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Longest pause between two attempts, however long the hub says.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Bytes of an answer that is read into memory.
const ANSWER: u64 = 64 << 20;

/// A request.
#[derive(Debug, Clone, Default)]
pub(crate) struct HubCall<'a> {
    pub method: &'a str,
    pub address: String,
    pub headers: Vec<(&'a str, String)>,
    pub body: Vec<u8>,
    /// Whether redirects to other hosts are followed; they never hear the token.
    pub elsewhere: bool,
}

impl<'a> HubCall<'a> {
    pub(crate) fn new(method: &'a str, address: String) -> Self {
        Self { method, address, elsewhere: true, ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json(self, value: &Value) -> Self {
        let body = value.to_string().into_bytes();
        Self { body, ..self }.header("Content-Type", "application/json")
    }
}

/// Why no answer came, and whether another attempt is of no use.
struct NoAnswer {
    reason: String,
    is_final: bool,
}

/// Whether a status says that the same request may succeed later.
pub(crate) fn is_for_later(status: u16) -> bool {
    status == 429 || status >= 500
}

/// Scheme, host and port of an address.
fn host(address: &str) -> &str {
    let start = address.find("://").map_or(0, |at| at + 3);
    address[start..].find('/').map_or(address, |end| &address[..start + end])
}

impl Hub {
    fn agent() -> ureq::Agent {
        ureq::AgentBuilder::new()
            .redirects(0)
            .try_proxy_from_env(true)
            .timeout_connect(Duration::from_secs(10))
            .timeout_read(Duration::from_secs(60))
            .user_agent(concat!("visual-rl/", env!("CARGO_PKG_VERSION")))
            .build()
    }

    /// Whether the hub answers at all, within `limit`: the status of one request, which no token goes with.
    ///
    /// # Errors
    /// The system's reason where no answer came.
    pub fn reach(&self, limit: Duration) -> Result<u16, String> {
        let agent = ureq::AgentBuilder::new().redirects(0).try_proxy_from_env(true).timeout(limit).build();
        match agent.head(&self.endpoint).call() {
            Ok(answer) | Err(ureq::Error::Status(_, answer)) => Ok(answer.status()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The answer to a request, whatever its status; requests that got none, or one that says "later", are made again.
    ///
    /// # Errors
    /// The system's reason where no answer came.
    pub(crate) fn answer(&self, ask: &HubCall) -> Result<ureq::Response, String> {
        let agent = Self::agent();
        let mut pause = self.pause;
        let mut left = TRIES;
        loop {
            left -= 1;
            let said = match self.once(&agent, ask) {
                Ok(answer) if left > 0 && is_for_later(answer.status()) => {
                    let seconds = answer.header("retry-after").and_then(|seconds| seconds.trim().parse().ok());
                    Duration::from_secs(seconds.unwrap_or(0))
                }
                Ok(answer) => return Ok(answer),
                // A host that is not there will not be there in a moment.
                Err(failed) if left == 0 || failed.is_final => return Err(failed.reason),
                Err(_) => Duration::ZERO,
            };
            std::thread::sleep(pause.max(said).min(LONGEST_PAUSE));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One attempt, with its redirects.
    fn once(&self, agent: &ureq::Agent, ask: &HubCall) -> Result<ureq::Response, NoAnswer> {
        let mut address = ask.address.clone();
        for _ in 0..=REDIRECTS {
            let mut request = agent.request(ask.method, &address);
            // A token is for the hub, not for where its files lie.
            if let Some(token) = self.token.as_ref().filter(|_| host(&address) == host(&self.endpoint)) {
                request = request.set("Authorization", &format!("Bearer {token}"));
            }
            for (name, value) in &ask.headers {
                request = request.set(name, value);
            }
            let done = match ask.body.is_empty() && ask.method != "POST" {
                true => request.call(),
                false => request.send_bytes(&ask.body),
            };
            let answer = match done {
                Ok(answer) | Err(ureq::Error::Status(_, answer)) => answer,
                Err(ureq::Error::Transport(error)) => {
                    use ureq::ErrorKind::{BadHeader, ConnectionFailed, Dns, InvalidUrl, UnknownScheme};
                    let is_final =
                        matches!(error.kind(), Dns | ConnectionFailed | InvalidUrl | UnknownScheme | BadHeader);
                    return Err(NoAnswer { reason: error.to_string(), is_final });
                }
            };
            let target = answer.header("location").filter(|_| (300..400).contains(&answer.status()));
            address = match target {
                None => return Ok(answer),
                // Of the same scheme, on whatever host.
                Some(target) if target.starts_with("//") => {
                    let target = format!("{}:{target}", address.split(':').next().unwrap_or("https"));
                    match ask.elsewhere || host(&target) == host(&self.endpoint) {
                        true => target,
                        false => return Ok(answer),
                    }
                }
                Some(target) if target.starts_with('/') => format!("{}{target}", host(&address)),
                Some(target) if ask.elsewhere || host(target) == host(&self.endpoint) => target.to_string(),
                Some(_) => return Ok(answer),
            };
        }
        Err(NoAnswer { reason: format!("more than {REDIRECTS} redirects"), is_final: true })
    }

    /// The error that an answer is, about a repository; `what` was asked for.
    pub(crate) fn refusal(&self, answer: ureq::Response, id: &str, revision: &str, what: &str) -> HubError {
        let (id, endpoint, status) = (id.to_string(), self.endpoint.clone(), answer.status());
        let code = answer.header("x-error-code").unwrap_or_default().to_string();
        match (status, code.as_str()) {
            (_, "GatedRepo") => HubError::Gated { id, endpoint },
            (404, "RevisionNotFound") => HubError::NoRevision { id, revision: revision.into(), endpoint },
            (401 | 404, "RepoNotFound" | "") => HubError::NoRepository { id, endpoint },
            (401 | 403, _) => HubError::Refused { endpoint, status, what: what.into() },
            _ => {
                let said = answer.header("x-error-message").map(str::to_string);
                let said = said.or_else(|| text(answer).ok()).unwrap_or_default();
                let said: String = said.trim().chars().take(300).collect();
                let detail = if said.is_empty() { said } else { format!(" ({said})") };
                HubError::Answer { what: what.into(), status, detail }
            }
        }
    }
}

/// The body of an answer.
///
/// # Errors
/// A connection that ends, more bytes than an answer may have.
pub(crate) fn text(answer: ureq::Response) -> Result<String, String> {
    let mut text = String::new();
    match answer.into_reader().take(ANSWER + 1).read_to_string(&mut text) {
        Ok(bytes) if bytes as u64 > ANSWER => Err(format!("it has more than {} MiB", ANSWER >> 20)),
        Ok(_) => Ok(text),
        Err(error) => Err(error.to_string()),
    }
}

/// The body of an answer as JSON.
///
/// # Errors
/// One that is none.
pub(crate) fn json(answer: ureq::Response, what: &str) -> Result<Value, HubError> {
    let status = answer.status();
    let fail =
        |detail: String| HubError::Answer { what: what.into(), status, detail: format!(" with no JSON: {detail}") };
    serde_json::from_str(&text(answer).map_err(&fail)?).map_err(|error| fail(error.to_string()))
}
