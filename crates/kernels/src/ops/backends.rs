//! Which backends run the model, and with which specialisations.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;

use super::Kernels;

/// Autodiff differentiates the defaults: the oracle that the hand-written backward is tested against.
impl<B: Kernels, C: CheckpointStrategy> Kernels for Autodiff<B, C> {}

#[cfg(feature = "ndarray")]
impl Kernels for burn_ndarray::NdArray<f32> {}
