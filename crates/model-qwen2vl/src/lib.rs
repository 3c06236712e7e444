//! Qwen2-VL, Qwen2.5-VL and Qwen3-VL (dense): what a `config.json` says, vision tower, decoder, M-RoPE positions,
//! Hugging Face checkpoints in and out, and what makes of it a [`Policy`](policy::Policy). What they are computed with
//! stands in [`kernels`].
//!
//! ```
//! use burn::tensor::DType;
//! use model_qwen2vl::{QwenVl, QwenVlConfig};
//! use policy::Scoring;
//!
//! // The smallest built-in size with random weights; `QwenVl::load` reads a folder in the Hugging Face layout.
//! let config = QwenVlConfig::preset("toy").unwrap();
//! let model = QwenVl::<burn_flex::Flex>::random(config, 1, DType::F32, &Default::default());
//! let prompt = model.prompt(vec![1, 2, 3], vec![], vec![])?;
//! let hidden = model.hidden(&model.pack(&[(&prompt, vec![])]), None);
//! assert_eq!(hidden.dims(), [3, model.config.text.hidden_size]);
//! # Ok::<(), policy::ModelError>(())
//! ```
//!
//! Shape legend used all over the crate: `N` packed tokens, `M` image tokens, `d` hidden size, `H` query heads, `Hkv`
//! key/value heads, `hd` head size, `V` vocabulary, `P` prompt tokens, `R` response tokens of a part, `K` DeepStack
//! layers.

mod as_policy;
pub mod config;
mod decoder;
mod init;
pub mod load;
pub mod lora;
pub mod model;
mod pictures;
mod prompt;
pub(crate) mod rope;
pub mod save;
mod shared;
mod tensor;
mod vision;

pub use config::{Family, QwenVlConfig, TextConfig, VisionConfig};
pub use init::ParamSource;
pub use model::QwenVl;
pub use shared::{PartTape, SharedPrompt, TrainedPrompt};
pub use tensor::TensorParallel;
pub use vision::VisionPlan;

// Where these stood before they became crates of their own.
pub use kernels::{
    AttentionPlan, DeviceError, Gradients, Kernels, LmHead, ParamVisitor, Shard, attention, finite, head, host, layers,
    ops, params, pending,
};
pub use policy::{ModelError, error};
