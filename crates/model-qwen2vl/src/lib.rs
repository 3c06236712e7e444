//! Qwen2-VL, Qwen2.5-VL and Qwen3-VL (dense) over Burn's [`Backend`](burn::tensor::backend::Backend): vision tower, decoder,
//! M-RoPE, K/V cache, a chunked log-prob head, a hand-written backward pass that keeps one layer's graph alive, and Hugging Face
//! checkpoints in and out.
//!
//! Shape legend used all over the crate:
//! `N` packed tokens, `d` hidden size, `H` query heads, `Hkv` key/value heads, `G = H / Hkv`, `hd` head size, `V` vocabulary,
//! `P` prompt tokens, `T` response tokens, `n` responses a group, `b` groups padded together.

pub mod attention;
pub mod config;
pub mod decoder;
pub mod error;
pub mod finite;
pub mod head;
pub mod host;
pub mod init;
pub mod layers;
pub mod load;
pub mod model;
pub mod ops;
pub mod params;
pub mod rope;
pub mod save;
pub mod shared;
pub mod vision;

pub use attention::{AttentionPlan, Response};
pub use config::{Family, QwenVlConfig, TextConfig, VisionConfig};
pub use error::ModelError;
pub use host::DeviceError;
pub use model::QwenVl;
pub use ops::Kernels;
pub use params::{Gradients, ParamVisitor};
