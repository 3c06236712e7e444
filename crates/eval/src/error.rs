//! What ends an evaluation, and with which exit code.

use std::path::{Path, PathBuf};

/// The end of an evaluation that did not finish.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A data file, model folder or template that cannot be used.
    #[error(transparent)]
    Data(#[from] data::DataError),
    /// The model folder.
    #[error(transparent)]
    Model(#[from] model_qwen2vl::ModelError),
    /// The model, or the run that it stands in.
    #[error(transparent)]
    Run(#[from] rl::TrainError),
    /// Settings or files that cannot be used; one line that says what to do.
    #[error("{0}")]
    Input(String),
    /// The output folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The device could not be read; every finished answer is in its file.
    #[error(transparent)]
    Device(#[from] model_qwen2vl::DeviceError),
    /// Other ranks.
    #[error(transparent)]
    Ranks(#[from] comm::CommError),
    /// SIGINT or SIGTERM; every finished answer is in its file.
    #[error("interrupted; the same command goes on where it was")]
    Interrupted,
}

impl EvalError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_path_buf(), source }
    }

    /// 2 for what the user gave, 130 for an interrupt, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Data(error) => error.exit_code(),
            Self::Run(error) => error.exit_code() as u8,
            Self::Model(_) | Self::Input(_) => 2,
            Self::Interrupted => 130,
            Self::Io { .. } | Self::Device(_) | Self::Ranks(_) => 1,
        }
    }
}
