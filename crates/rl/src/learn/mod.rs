//! From responses to log-probs, gradients and new weights.
//!
//! | file | what |
//! |---|---|
//! | [`passes`](passes()) | which responses are computed together |
//! | [`score`](score()) | log-probs, entropy, focus and dependency without gradients |
//! | [`heat`](heat()) | where each token looks: its cosine to each image token |
//! | `gradients.rs` | [`accumulate`]: the gradients of a loss over log-probs |
//! | [`update`] | experience to gradients to AdamW, in mini-batches of whole groups |
//! | [`optimizer`] | AdamW |
//! | `ragged.rs` | ragged values as padded tables |
//!
//! A batch is a list of [`GroupRef`], and a micro-batch names its responses by `(group, response)`. How many fit into
//! one pass changes no result.

mod gradients;
mod heat;
pub mod optimizer;
mod passes;
mod ragged;
mod score;
pub mod update;

pub use gradients::{GradientOptions, MicroGradients, MicroScores, accumulate, recompute_for};
pub use heat::{Heat, heat};
pub use passes::{GroupRef, MicroBatch, Pass, passes};
pub use ragged::Ragged;
pub use score::{ResponseScores, ScoreRequest, score};
