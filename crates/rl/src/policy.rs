//! What the trainer needs from a model: the seam between `rl` and an architecture.

pub use ::policy::{Decoding, Learning, PackGroup, Policy, Scoring};
