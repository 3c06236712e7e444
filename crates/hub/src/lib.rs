//! The Hugging Face hub: repositories of models and data sets by their id, into the cache that `huggingface_hub` and
//! `hf download` share, and checkpoints back to it.
//!
//! | module | what |
//! |---|---|
//! | [`name`] | `owner/name@revision` |
//! | [`cache`] | what is here already: `blobs/`, `refs/`, `snapshots/` |
//! | [`download`] | what is missing: resumed, checked, under a lock |
//! | [`upload`] | a folder as one commit |
//! | `http` | requests: tokens, redirects, retries, and what a refusal means |
//!
//! ```no_run
//! let hub = hub::Hub::from_env()?;
//! let name = hub::name::RepoName::parse("Qwen/Qwen2.5-VL-3B-Instruct@main").expect("an id");
//! let folder = hub.snapshot(hub::RepoKind::Model, &name, |file| file.ends_with(".json"))?;
//! # Ok::<(), hub::HubError>(())
//! ```

#![warn(missing_docs)]

pub mod cache;
pub mod download;
mod http;
pub mod name;
pub mod upload;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// There is no such repository, or none for this user.
    #[error(
        "{id} is not on {endpoint}, or is private; check the id, and for a private one set HF_TOKEN (or run `hf auth login`)"
    )]
    NoRepository {
        /// Its id.
        id: String,
        /// The hub.
        endpoint: String,
    },
    /// There is no such branch, tag or commit.
    #[error("{id} has no revision {revision:?} on {endpoint}")]
    NoRevision {
        /// Id of the repository.
        id: String,
        /// The revision.
        revision: String,
        /// The hub.
        endpoint: String,
    },
    /// Its owner lets in only who has agreed to something.
    #[error("{id} is gated: ask for access at {endpoint}/{id} with your account, then set HF_TOKEN to a token of it")]
    Gated {
        /// Its id.
        id: String,
        /// The hub.
        endpoint: String,
    },
    /// The token is none, or may not do that.
    #[error("{endpoint} refuses the token ({status}) for {what}; set HF_TOKEN to one that may")]
    Refused {
        /// The hub.
        endpoint: String,
        /// The answer's status.
        status: u16,
        /// What was asked for.
        what: String,
    },
    /// `HF_HUB_OFFLINE` is set.
    #[error("{id} is not in the Hugging Face cache ({cache}), and may not be fetched (HF_HUB_OFFLINE, or a dry run)")]
    Offline {
        /// Id of the repository.
        id: String,
        /// The cache.
        cache: PathBuf,
    },
    /// No answer.
    #[error(
        "{endpoint} cannot be reached ({reason}), and {id} is not in the Hugging Face cache; check the network, or HF_ENDPOINT"
    )]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// Id of the repository.
        id: String,
        /// The system's reason.
        reason: String,
    },
    /// An answer that this program does not understand.
    #[error("{what}: the hub answers {status}{detail}")]
    Answer {
        /// What was asked for.
        what: String,
        /// The answer's status.
        status: u16,
        /// What it says; begins with a blank.
        detail: String,
    },
    /// Bytes that are not what the hub said they would be.
    #[error("{file}: {reason}; what was downloaded is removed, try again")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A repository without what is needed of it.
    #[error("{id} has no file of the kind that is needed on {endpoint}")]
    NoSuchFiles {
        /// Id of the repository.
        id: String,
        /// The hub.
        endpoint: String,
    },
    /// A name in the hub's answer that no file may have.
    #[error("the hub names a file {0:?}, which would lie outside of the cache")]
    BadName(String),
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There is no home.
    #[error("there is no folder for the Hugging Face cache; set HF_HOME")]
    NoCache,
    /// Whatever else is wrong with a request.
    #[error("{0}")]
    Usage(String),
}

/// Adds the path to an error of the file system.
pub(crate) fn at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> HubError + '_ {
    |source| HubError::Io { path: path.to_path_buf(), source }
}

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

impl RepoKind {
    /// In the cache's folder names and in the API.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }

    /// Before an id in an address.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            Self::Dataset => "datasets/",
        }
    }
}

/// A hub, and how it is asked.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Its address, without a slash at the end: `https://huggingface.co` or a mirror.
    pub endpoint: String,
    /// Who asks.
    pub token: Option<String>,
    /// The shared cache.
    pub cache: PathBuf,
    /// Whether nothing may be fetched.
    pub offline: bool,
    /// The first pause before a request is made again; each further one is twice as long.
    pub pause: Duration,
    /// Where a person is told what takes long.
    pub note: fn(&str),
}

impl Hub {
    /// As `huggingface_hub` reads the environment: `HF_ENDPOINT`, `HF_TOKEN` (or the file `HF_TOKEN_PATH`, or `token`
    /// in `HF_HOME`), `HF_HUB_CACHE` (or `hub` in `HF_HOME`), `HF_HUB_OFFLINE`. Nothing is asked.
    ///
    /// # Errors
    /// [`HubError::NoCache`]; a token or an address that can be none.
    pub fn from_env() -> Result<Self, HubError> {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(path("HOME").or_else(|| path("USERPROFILE"))?.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub"))).ok_or(HubError::NoCache)?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")));
        let from_file = || guard::file::read_text(&token_file?, guard::limits().id_bytes).ok();
        let token = text("HF_TOKEN").or_else(from_file).map(|token| token.trim().to_string());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Ok(Self {
            endpoint: sound_endpoint(endpoint.trim())?,
            token: token.filter(|token| !token.is_empty()).map(sound_token).transpose()?,
            cache,
            offline: text("HF_HUB_OFFLINE").is_some_and(|value| is_yes(&value)) || LOOKING.load(Ordering::Relaxed),
            pause: Duration::from_millis(500),
            note: |text| eprintln!("{text}"),
        })
    }
}

/// Whether this process only looks at what is there.
static LOOKING: AtomicBool = AtomicBool::new(false);

/// From here on nothing is fetched in this process, as with `HF_HUB_OFFLINE`: for programs that say what a run would
/// do.
pub fn fetch_nothing() {
    LOOKING.store(true, Ordering::Relaxed);
}

/// Whether a message is that of [`HubError::Offline`]: what it names could be fetched.
pub fn could_be_fetched(message: &str) -> bool {
    message.contains("may not be fetched (HF_HUB_OFFLINE, or a dry run)")
}

/// An address of a hub, without a slash at its end.
fn sound_endpoint(text: &str) -> Result<String, HubError> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    match host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[') {
        true => Ok(text.trim_end_matches('/').into()),
        false => {
            let shown = guard::echo(text);
            Err(HubError::Usage(format!("HF_ENDPOINT: {shown:?} is no address; it begins with https:// or http://")))
        }
    }
}

/// A token that can stand in a header. One that cannot is not shown: most of it may be right.
fn sound_token(token: String) -> Result<String, HubError> {
    match token.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(token),
        false => Err(HubError::Usage(
            "the token for the hub (HF_TOKEN, or its file) has blanks or letters that no token has; copy it again"
                .into(),
        )),
    }
}

/// What huggingface_hub takes for yes.
fn is_yes(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_could_be_fetched_says_so() {
        let error = super::HubError::Offline { id: "a/b".into(), cache: "/cache".into() };
        assert!(super::could_be_fetched(&format!("model: {error}")) && !super::could_be_fetched("no such file"));
    }

    #[test]
    fn addresses_and_tokens_that_can_be_none_are_refused() {
        use super::{sound_endpoint, sound_token};
        assert_eq!(sound_endpoint("https://hub.example/mirror/").unwrap(), "https://hub.example/mirror");
        assert!(sound_endpoint("http://[::1]:80").is_ok());
        for text in ["foo", "ftp://x", "http://", "https:///x", "file:///etc/passwd"] {
            assert!(sound_endpoint(text).unwrap_err().to_string().contains("HF_ENDPOINT"), "{text}");
        }
        for token in ["hf_a\nb", "hf_a b", "hf_\u{fc}"] {
            let said = sound_token(token.into()).unwrap_err().to_string();
            assert!(said.contains("HF_TOKEN") && !said.contains("hf_"), "{said}");
        }
        assert_eq!(sound_token("hf_aB3".into()).unwrap(), "hf_aB3");
    }

    #[test]
    fn offline_as_huggingface_hub_reads_it() {
        assert!(["1", "ON", "yes", "True"].into_iter().all(super::is_yes));
        assert!(["", "0", "no", "false"].into_iter().all(|value| !super::is_yes(value)));
    }
}
