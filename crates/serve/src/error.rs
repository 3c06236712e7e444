//! What a client is told when something is wrong, in OpenAI's shape, and why a server does not start.

use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ChatServerError {
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
    /// The threads that serve cannot be started.
    #[error("serving failed: {0}")]
    Failed(#[from] io::Error),
    /// The model does not answer a first question.
    #[error("the model does not answer: {0}")]
    Model(String),
    /// The device failed, and with it all that was computed.
    #[error(transparent)]
    Device(#[from] rollout::RolloutError),
}

/// An answer that is an error: its HTTP status and what stands in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: u16,
    /// OpenAI's `type`.
    pub kind: &'static str,
    pub code: Option<&'static str>,
    /// The field of the request.
    pub param: Option<String>,
    pub message: String,
    /// Seconds after which another try may succeed.
    pub retry_after: Option<u32>,
}

impl ApiError {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        // What is quoted of a request goes to logs and terminals.
        let message = guard::printable(&message.into());
        Self { status, kind, code: None, param: None, message, retry_after: None }
    }

    /// 400: the request itself is wrong.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    /// The same of one field.
    pub(crate) fn field(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self { param: Some(param.clone()), ..Self::bad(format!("{param}: {message}")) }
    }

    /// Another status.
    pub(crate) fn status(status: u16, message: impl Into<String>) -> Self {
        let kind = match status {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        Self::new(status, kind, message)
    }

    pub(crate) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The body.
    pub(crate) fn json(&self) -> Value {
        json!({ "error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        } })
    }
}
