//! What can go wrong with a model folder. Every message names the file or key and what to do.

use std::path::PathBuf;

/// An unusable model folder, config or checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The folder or a file in it is missing.
    #[error("{path}: {what}")]
    Missing {
        /// The path that was looked for.
        path: PathBuf,
        /// What it should have held.
        what: String,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// `config.json` is not what the architecture needs.
    #[error("{path}: {reason}")]
    Config {
        /// The config file.
        path: PathBuf,
        /// The key and the fix.
        reason: String,
    },
    /// A weight file is damaged.
    #[error("{path}: not a readable safetensors file ({reason}); download or copy it again")]
    Damaged {
        /// The weight file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// Tensors missing, left over, mis-shaped or not finite: one list for all of them.
    #[error("{path}: the weights do not fit config.json\n{list}")]
    Weights {
        /// The model folder.
        path: PathBuf,
        /// One line per problem.
        list: String,
    },
    /// An adapter that does not fit the weights it is to be put on: one list of what does not.
    #[error("{path}: the adapter does not fit the model in {base}\n{list}")]
    Adapter {
        /// The adapter's folder.
        path: PathBuf,
        /// The folder of the weights.
        base: PathBuf,
        /// One line per problem.
        list: String,
    },
    /// A tensor with NaN or infinities in it, which no reader takes; nothing was written.
    #[error("{name} is not finite ({found})")]
    NotFinite {
        /// The tensor, by the name in the file.
        name: String,
        /// Where, and what stands there.
        found: kernels::finite::NotFinite,
    },
    /// The device that holds the weights.
    #[error(transparent)]
    Device(#[from] kernels::host::DeviceError),
    /// The other ranks that share the model out.
    #[error(transparent)]
    Ranks(#[from] comm::CommError),
    /// A prompt that this model cannot run.
    #[error("{0}")]
    Input(String),
}

impl ModelError {
    /// What a system call on `path` failed with, for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ModelError {
        let path = path.into();
        move |source| ModelError::Io { path, source }
    }
}
