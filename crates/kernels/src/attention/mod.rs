//! Own attention (design decision 4): varlen packed tokens, a shared prompt as a prefix of its group's responses, GQA
//! without copies of K/V, query-blocked, with a hand-written backward that recomputes the scores from the log-sum-exp.

mod backward;
pub mod decode;
mod forward;
pub mod mass;
pub mod packed;
mod plan;
pub(crate) mod scores;

pub use backward::backward;
pub use forward::forward;
pub use plan::{AttentionPlan, ResponseRows};
#[cfg(feature = "cube")]
pub(crate) use plan::{Block, Gather};

use burn::tensor::{Tensor, backend::Backend};

/// What a forward pass keeps for its backward: the log-sum-exp of each block, `[b Hkv n, t G, 1]` in f32.
#[derive(Debug, Clone, Default)]
pub struct AttentionSaved<B: Backend> {
    pub(crate) lse: Vec<Tensor<B, 3>>,
}
