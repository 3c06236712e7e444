//! What models are computed with, over Burn's [`Backend`](burn::tensor::backend::Backend): operations with a default in
//! plain tensor operations and versions for CPUs (`flex`) and GPUs (`cube`), attention over packed tokens that share
//! prompts, its K/V cache, the chunked log-prob head, layers with a hand-written backward pass that keeps one layer's
//! graph alive, rotary tables, and reads of the device that fail with an error. Nothing here knows a model or the
//! configuration of one.
//!
//! ```
//! use burn::tensor::Tensor;
//! use kernels::Kernels;
//!
//! type Cpu = burn_flex::Flex; // or Burn's ndarray, wgpu and CUDA backends
//! let device = Default::default();
//! let x = Tensor::<Cpu, 2>::from_floats([[3.0, 4.0]], &device);
//! let y = Cpu::rms_norm(x, Tensor::ones([2], &device), 0.0);
//! let root_mean_square = 12.5_f32.sqrt();
//! let y = y.into_data().to_vec::<f32>().unwrap();
//! assert!((y[0] - 3.0 / root_mean_square).abs() < 1e-6 && (y[1] - 4.0 / root_mean_square).abs() < 1e-6);
//! ```
//!
//! Shape legend used all over the crate: `N` packed tokens, `d` hidden size, `H` query heads, `Hkv` key/value heads, `G
//! = H / Hkv`, `hd` head size, `V` vocabulary, `P` prompt tokens, `T` response tokens, `n` responses per group, `b`
//! groups padded together.

pub mod attention;
pub mod bounds;
pub mod canary;
pub mod collective;
pub mod exact;
pub mod finite;
pub mod head;
pub mod host;
pub mod layers;
pub mod ops;
pub mod params;
pub mod pending;
pub mod rope;
pub mod sampling;
pub mod zero;

#[cfg(test)]
#[path = "../tests/common/random.rs"]
mod source;

pub use attention::{AttentionPlan, ResponseRows};
pub use head::LmHead;
pub use host::DeviceError;
pub use ops::{Activation, Kernels};
pub use params::{Gradients, ParamVisitor, Shard, StackPart};
