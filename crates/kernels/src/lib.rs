//! What models are computed with, over Burn's [`Backend`](burn::tensor::backend::Backend): operations with a default in
//! plain tensor operations and versions for CPUs (`flex`) and GPUs (`cube`), attention over packed tokens that share
//! prompts, its K/V cache, the draw of tokens, the chunked log-prob head, layers with a hand-written backward pass that keeps one layer's
//! graph alive, rotary tables, and reads of the device that fail with an error. Nothing here knows a model or the
//! configuration of one.
//!
//! Shape legend used all over the crate: `N` packed tokens, `d` hidden size, `H` query heads, `Hkv` key/value heads, `G
//! = H / Hkv`, `hd` head size, `V` vocabulary, `P` prompt tokens, `T` response tokens, `n` responses per group, `b`
//! groups padded together.

pub mod attention;
pub mod draw;
pub mod finite;
pub mod head;
pub mod host;
pub mod layers;
pub mod ops;
pub mod params;
pub mod rope;

#[cfg(test)]
#[path = "../tests/common/random.rs"]
mod source;

pub use attention::{AttentionPlan, ResponseRows};
pub use host::DeviceError;
pub use ops::{Activation, Kernels};
pub use params::{Gradients, ParamVisitor, StackPart};
