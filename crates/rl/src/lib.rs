//! Reinforcement learning from verifiable rewards: policy, rollout, advantage, loss, engine, optimizer, trainer.

pub mod advantage;
pub(crate) mod blind;
pub mod checkpoint;
pub mod config;
pub mod engine;
pub mod error;
pub mod experience;
pub mod focus;
pub mod image_cache;
pub mod launch;
pub mod loss;
pub mod optimizer;
pub mod perturb;
pub mod policy;
pub mod progress;
pub mod prompts;
pub mod rollout;
pub mod sampler;
pub mod shaping;
pub mod spans;
pub mod trainer;
pub mod update;

pub use error::TrainError;

/// The run folder, from the crate that owns it.
pub mod run_folder {
    pub use run::folder::{RunFolder, RunFolderError};
    pub use run::lines::JsonLines;
    pub use run::metrics::{MetricsLog, read_metrics};
}
