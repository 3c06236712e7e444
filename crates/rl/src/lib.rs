//! Reinforcement learning from verifiable rewards: advantages, shapings, losses, learning, the trainer. It names no model: a
//! policy is whatever implements [`policy::Policy`](::policy::Policy).

pub mod advantage;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod experience;
pub mod learn;
pub mod loss;
pub mod perturb;
pub mod progress;
pub mod prompts;
pub mod random_keys;
pub mod recipe;
pub mod registry;
pub mod shaping;
pub mod streams;
pub mod trainer;
pub mod trajectory;

pub use ::policy;
pub use ::rollout;
pub use ::rollout::{focus, image_cache, sampler};
pub use error::TrainError;

/// The run folder, from the crate that owns it.
pub mod run_folder {
    pub use run::folder::{RunFolder, RunFolderError};
    pub use run::lines::JsonLines;
    pub use run::metrics::{MetricsLog, read_metrics};
}
