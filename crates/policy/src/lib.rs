//! What a trainable vision-language model is to those who sample from it and train it: prompts, packed batches, and the traits
//! [`Scoring`], [`Decoding`] and [`Learning`], which together are a [`Policy`]. Rollouts, losses and trainers are generic over these and
//! name no model; a model crate implements them.
//!
//! Shape legend used all over the crate: `N` packed tokens, `M` image tokens, `S` rows being decoded, `P` prompt tokens, `R` response
//! tokens of a part, `d` hidden size, `V` vocabulary, `K` decoder layers that DeepStack adds to.

pub mod batch;
pub mod companions;
pub mod error;
mod model;
pub mod prompt;
pub mod weights;

pub use batch::{ImageRows, PackGroup, PackedBatch, Packing};
pub use companions::Companions;
pub use error::ModelError;
pub use model::{Decoding, Learning, Pictures, Policy, Scoring};
pub use prompt::Prompt;
