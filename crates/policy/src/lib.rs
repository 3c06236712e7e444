//! What a trainable vision-language model is to those who sample from it and train it: prompts, packed batches, and the
//! traits [`Scoring`], [`Decoding`] and [`Learning`], which together are a [`Policy`]. Rollouts, losses and trainers
//! are generic over these and name no model; a model crate implements them.
//!
//! ```
//! use burn::tensor::Tensor;
//! use kernels::{Kernels, head, host::int_tensor};
//! use policy::{Prompt, Scoring};
//!
//! /// Log-probs `[R]` of the tokens of a response, under any model on any backend.
//! fn log_probs<B: Kernels>(policy: &impl Scoring<B>, prompt: &Prompt, response: &[u32]) -> Tensor<B, 1> {
//!     let batch = policy.pack(&[(prompt, vec![response])]);
//!     let hidden = policy.hidden(&batch, policy.encode_images(&[prompt]));
//!     let hidden = hidden.select(0, int_tensor(batch.predicting_rows(), &policy.device()));
//!     let targets = int_tensor(response.iter().map(|&id| id as usize), &policy.device());
//!     head::log_probs(hidden, policy.head().0, targets, 1.0, false).log_probs
//! }
//! ```
//!
//! Shape legend used all over the crate: `N` packed tokens, `M` image tokens, `S` rows being decoded, `P` prompt
//! tokens, `R` response tokens of a part, `d` hidden size, `V` vocabulary, `K` decoder layers that DeepStack adds to.

pub mod batch;
pub mod companions;
pub mod error;
mod gathered;
pub mod lora;
mod model;
pub mod prompt;
mod staged;
mod weights;

pub use batch::{ImageRows, PackGroup, PackedBatch, Packing};
pub use companions::Companions;
pub use error::ModelError;
pub use gathered::{NamedPart, by_all, whole_at};
pub use lora::{LoraConfig, ModuleNames};
pub use model::{Decoding, Learning, Pictures, Policy, Scoring};
pub use prompt::Prompt;
pub use staged::{ModelCopy, Staged, stage_made, stage_weights};
pub use weights::{Hold, StagedTensor};
