//! Reinforcement learning from verifiable rewards: advantages, shapings, losses, learning, the trainer. It names no
//! model: a policy is whatever implements [`policy::Policy`](::policy::Policy).
//!
//! ```
//! use rl::config::{Source, resolve};
//!
//! let file = Source::new("mine.toml", "[data]\ntrain_files = [\"toy:sum\"]\n[algorithm]\nname = \"dapo\"\n");
//! let config = resolve(&[file], &["rollout.n=4".to_string()])?;
//! assert_eq!(config.rollout.n, 4);
//! let mistake = resolve(&[], &["rollout.temperatur=0.5".to_string()]).unwrap_err();
//! assert!(mistake.to_string().contains("did you mean `rollout.temperature`"));
//! # Ok::<(), rl::config::ConfigError>(())
//! ```
//!
//! `examples/one_step.rs` in the root is one training step, written out with [`prelude`].

pub mod advantage;
pub mod checkpoint;
pub mod config;
mod dealt;
pub mod error;
pub mod experience;
pub mod learn;
pub mod loss;
mod mismatch;
pub mod perturb;
pub mod progress;
pub mod prompts;
pub(crate) mod random_keys;
pub mod recipe;
pub mod registry;
mod response_log;
mod reward_rows;
pub mod shaping;
pub mod streams;
mod tally;
mod token_log;
pub mod trainer;
pub mod trajectory;
mod warnings;

pub use ::comm;
pub use ::policy;
pub use ::rollout;
pub use ::rollout::{focus, image_cache, sampler};
pub use error::TrainError;

/// What a training step is written with; see `examples/one_step.rs`.
pub mod prelude {
    pub use crate::config::{Config, Source, resolve};
    pub use crate::error::TrainError;
    pub use crate::experience::{Experience, StepContext, grade, make, select};
    pub use crate::learn::optimizer::{AdamW, gradients, learning_rate};
    pub use crate::learn::{GradientOptions, MicroGradients, ScoreRequest, accumulate, score};
    pub use crate::prompts::{Item, Prompts, SetAside};
    pub use crate::recipe::Recipe;
    pub use crate::shaping::Training;
    pub use crate::trajectory::{ScoredGroup, Trajectory};
    pub use ::comm::Ranks;
    pub use ::rollout::image_cache::ImageCache;
    pub use ::rollout::sampler::Sampling;
    pub use ::rollout::{Job, RolloutConfig, generate, never_sampled};
}

/// The run folder, from the crate that owns it.
pub mod run_folder {
    pub use run::folder::{RunFolder, RunFolderError};
    pub use run::layout;
    pub use run::lines::JsonLines;
    pub use run::metrics::{MetricsLog, read_metrics};
    pub use run::tokens::TokenStore;
}
