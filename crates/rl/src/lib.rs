//! Reinforcement learning from verifiable rewards: policy, rollout, advantage, loss, engine, optimizer, trainer.

pub mod advantage;
pub(crate) mod blind;
pub mod checkpoint;
pub mod config;
pub mod engine;
pub mod error;
pub mod experience;
pub mod launch;
pub mod loss;
pub mod optimizer;
pub mod perturb;
pub mod policy;
pub mod progress;
pub mod prompts;
pub mod random_keys;
pub mod run_folder;
pub mod shaping;
pub mod spans;
pub mod trainer;
pub mod update;

pub use ::rollout;
pub use ::rollout::{focus, image_cache, sampler};
pub use error::TrainError;
