//! Qwen2-VL, Qwen2.5-VL and Qwen3-VL (dense): what a `config.json` says, vision tower, decoder, M-RoPE positions,
//! Hugging Face checkpoints in and out, and what makes of it a [`Policy`](policy::Policy). What they are computed with
//! stands in [`kernels`].
//!
//! Shape legend used all over the crate: `N` packed tokens, `M` image tokens, `d` hidden size, `H` query heads, `Hkv`
//! key/value heads, `hd` head size, `V` vocabulary, `P` prompt tokens, `R` response tokens of a part, `K` DeepStack
//! layers.

mod as_policy;
pub mod config;
mod decoder;
mod init;
pub mod load;
pub mod model;
mod prompt;
pub(crate) mod rope;
pub mod save;
mod shared;
mod vision;

pub use config::{Family, QwenVlConfig, TextConfig, VisionConfig};
pub use model::QwenVl;
pub use shared::{PartTape, SharedPrompt, TrainedPrompt};
pub use vision::VisionPlan;

// Where these stood before they became crates of their own.
pub use kernels::{
    AttentionPlan, DeviceError, Gradients, Kernels, ParamVisitor, attention, finite, head, host, layers, ops, params,
};
pub use policy::{ModelError, error};
