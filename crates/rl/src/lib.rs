//! Reinforcement learning from verifiable rewards: policy, rollout, advantage, loss, engine, optimizer, trainer.

pub mod advantage;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod experience;
pub mod focus;
pub mod image_cache;
pub mod learn;
pub mod loss;
pub mod perturb;
pub mod policy;
pub mod progress;
pub mod prompts;
pub mod recipe;
pub mod registry;
pub mod rollout;
pub mod sampler;
pub mod shaping;
pub mod streams;
pub mod trainer;
pub mod trajectory;

pub use error::TrainError;
pub use learn as engine;
pub use learn::{optimizer, update};

/// The run folder, from the crate that owns it.
pub mod run_folder {
    pub use run::folder::{RunFolder, RunFolderError};
    pub use run::lines::JsonLines;
    pub use run::metrics::{MetricsLog, read_metrics};
}
