//! Reinforcement learning from verifiable rewards: policy, rollout, advantage, loss, engine, optimizer, trainer.

pub mod advantage;
pub mod config;
pub mod loss;
pub mod progress;
pub mod run_folder;
pub mod shaping;
