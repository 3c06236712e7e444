//! What ends a run, and with which exit code.

use std::io::ErrorKind;
use std::path::PathBuf;

use ::policy::ModelError;
use data::DataError;
use kernels::DeviceError;
use reward::RewardError;

use crate::rollout::RolloutError;
use crate::run_folder::RunFolderError;

/// The end of a run that did not finish.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A data file, model folder or template that cannot be used.
    #[error(transparent)]
    Data(#[from] data::DataError),
    /// The model folder or a checkpoint.
    #[error(transparent)]
    Model(#[from] ::policy::ModelError),
    /// A reward that cannot be computed.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// The run folder.
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    /// Settings of an estimator.
    #[error(transparent)]
    Advantage(#[from] crate::advantage::AdvantageError),
    /// Settings or streams of a shaping.
    #[error(transparent)]
    Shaping(#[from] crate::shaping::ShapingError),
    /// Settings or streams of a loss.
    #[error(transparent)]
    Loss(#[from] crate::loss::LossError),
    /// Data that holds nothing to train on.
    #[error("{0}")]
    Input(String),
    /// A checkpoint that cannot be written.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// Why, and what is left.
        reason: String,
    },
    /// A checkpoint that cannot be read: it was named, or lies in the folder that was.
    #[error("{path}: {reason}")]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// The file, and what is wrong with it.
        reason: String,
    },
    /// Weights, optimizer state or outputs that are no numbers any more. No checkpoint was written, and none removed.
    #[error("training has diverged: {what}.{way}")]
    Diverged {
        /// What is not finite.
        what: String,
        /// From which checkpoint to go on, and with which change; a sentence with a blank before it.
        way: String,
    },
    /// Other ranks of the run.
    #[error(transparent)]
    Ranks(#[from] comm::CommError),
    /// The device.
    #[error("the device failed: {0}")]
    Device(String),
    /// Numbers that cannot be right: a device that computes wrongly, or a sampler and a trainer that disagree.
    #[error("{0}")]
    Untrusted(String),
    /// SIGINT or SIGTERM, after a checkpoint.
    #[error("interrupted; the run goes on from its checkpoint when the same command is given again")]
    Interrupted,
}

impl TrainError {
    /// Whether the device has failed, whatever was to be computed or read.
    pub(crate) fn is_of_device(&self) -> bool {
        matches!(self, Self::Device(_) | Self::Model(ModelError::Device(_)))
    }

    /// 2 for what the user gave, 130 for an interrupt, 1 for the rest (design decision 11).
    pub fn exit_code(&self) -> i32 {
        match self {
            // A device that fails is not what the user gave, nor are weights that have diverged, nor is a disk without
            // room.
            Self::Model(ModelError::Device(_) | ModelError::NotFinite { .. }) => 1,
            Self::Data(DataError::Write { .. }) => 1,
            Self::Data(DataError::Io { source, .. }) | Self::Model(ModelError::Io { source, .. })
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) =>
            {
                1
            }
            Self::Config(_) | Self::Data(_) | Self::Model(_) | Self::Input(_) | Self::Advantage(_) => 2,
            Self::Reward(
                RewardError::Config { .. } | RewardError::CommandStart { .. } | RewardError::FunctionLoad { .. },
            ) => 2,
            // A folder that holds another run is a matter of the command line; a full disk is not.
            Self::RunFolder(RunFolderError::Occupied(_)) => 2,
            Self::Damaged { .. } => 2,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

impl From<RolloutError> for TrainError {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::Interrupted => Self::Interrupted,
            RolloutError::Device(error) => error.into(),
            RolloutError::Request(error) => Self::Input(error.to_string()),
            RolloutError::Focus(error) => error.into(),
        }
    }
}

impl From<::vgpo::VgpoError> for TrainError {
    fn from(error: ::vgpo::VgpoError) -> Self {
        crate::shaping::ShapingError::from(error).into()
    }
}

impl From<DeviceError> for TrainError {
    fn from(DeviceError(reason): DeviceError) -> Self {
        Self::Device(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_not_what_the_user_gave() {
        let path = PathBuf::from("x");
        let io = |kind: ErrorKind| std::io::Error::from(kind);
        let data = |kind| TrainError::Data(DataError::Io { path: "x".into(), source: io(kind) });
        let model = |kind| TrainError::Model(ModelError::Io { path: "x".into(), source: io(kind) });
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            assert_eq!([data(kind), model(kind)].map(|error| error.exit_code()), [1, 1], "{kind}");
        }
        let write = DataError::Write { path: path.clone(), source: io(ErrorKind::PermissionDenied) };
        assert_eq!(TrainError::Data(write).exit_code(), 1);
        assert_eq!(TrainError::RunFolder(RunFolderError::DiskFull(path)).exit_code(), 1);
        // What cannot be read was named by somebody.
        for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied] {
            assert_eq!([data(kind), model(kind)].map(|error| error.exit_code()), [2, 2], "{kind}");
        }
    }
}
