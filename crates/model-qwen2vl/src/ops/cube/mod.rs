//! Specialisations for GPUs, written in CubeCL once for every runtime (wgpu, CUDA): each operation one pass over memory.
//! They compute in f32 whatever type the tensors have (f32, bf16 or f16, looked up at run time), give the same numbers on
//! every run, and leave what they do not cover to the defaults.

mod launch;
mod norm;
mod reduce;

use burn::tensor::Tensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime};
use burn_fusion::Fusion;

use super::Kernels;

/// The same for the bare backend and for the one that fuses its operations.
macro_rules! kernels {
    ($backend:ty) => {
        impl<R: CubeRuntime, BT: BoolElement> Kernels for $backend {
            fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
                norm::rms_norm(x, weight, eps)
            }

            fn rms_norm_backward(
                x: Tensor<Self, 2>,
                weight: Tensor<Self, 1>,
                eps: f64,
                dy: Tensor<Self, 2>,
            ) -> (Tensor<Self, 2>, Tensor<Self, 1>) {
                norm::rms_norm_backward(x, weight, eps, dy)
            }
        }
    };
}
kernels!(CubeBackend<R, f32, i32, BT>);
kernels!(Fusion<CubeBackend<R, f32, i32, BT>>);
