//! How a kernel reaches the buffers of its tensors.
//!
//! Burn's `Fusion` is not supported: in 0.21 it computes narrow outputs wrongly on CUDA and multiplies the host's time
//! per launch, and what it would fuse are kernels here (docs/architecture.md).

use burn::tensor::backend::BackendTypes;
use burn::tensor::{DType, Int, Shape, Tensor, TensorPrimitive};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime};
use cubecl::client::ComputeClient;
use cubecl::prelude::*;

use crate::bounds::COUNTABLE;
use crate::ops::Kernels;

/// A backend whose tensors are buffers of a CubeCL runtime.
pub(super) trait Launch:
    Kernels + BackendTypes<FloatTensorPrimitive = CubeTensor<Self::Runtime>, IntTensorPrimitive = CubeTensor<Self::Runtime>>
{
    /// Where kernels run.
    type Runtime: CubeRuntime;
}

impl<R: CubeRuntime, BT: BoolElement> Launch for CubeBackend<R, f32, i32, BT> {
    type Runtime = R;
}

/// What a backend holds of a float tensor.
pub(super) fn held<B: Launch, const D: usize>(t: Tensor<B, D>) -> CubeTensor<B::Runtime> {
    t.into_primitive().tensor()
}

/// What a backend holds of an integer tensor.
pub(super) fn held_int<B: Launch, const D: usize>(t: Tensor<B, D, Int>) -> CubeTensor<B::Runtime> {
    t.into_primitive()
}

/// The float tensor that a backend holds.
pub(super) fn tensor<B: Launch, const D: usize>(t: CubeTensor<B::Runtime>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(t))
}

/// Whether kernels read and write `dtype`: they compute in f32, so f64 is left to the defaults.
pub(super) fn float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::BF16 | DType::F16)
}

/// Whether the elements of every shape can be counted in 32 bits, as kernels do.
pub(super) fn countable<const I: usize>(shapes: [Shape; I]) -> bool {
    shapes.iter().all(|s| s.num_elements() < COUNTABLE)
}

/// The integer tensor that a backend holds.
pub(super) fn int_tensor<B: Launch, const D: usize>(t: CubeTensor<B::Runtime>) -> Tensor<B, D, Int> {
    Tensor::from_primitive(t)
}

/// A new buffer beside `like`, in row-major order.
pub(super) fn empty<R: CubeRuntime>(like: &CubeTensor<R>, shape: Shape, dtype: DType) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// A kernel has a fixed number of operands: this stands in, unread, for one that there is not.
pub(super) fn nothing<R: CubeRuntime>(like: &CubeTensor<R>, dtype: DType) -> CubeTensor<R> {
    empty(like, Shape::new([1]), dtype)
}

/// A row-major tensor that nothing else holds: `t` itself if it is one, else a copy.
pub(super) fn owned<R: CubeRuntime>(t: CubeTensor<R>) -> CubeTensor<R> {
    let t = into_contiguous(t);
    if t.can_mut() { t } else { copy(&t) }
}

/// A tensor whose last dimension lies in order; between rows there may be gaps, which some runtimes leave to align
/// them.
pub(super) fn rows_in_order<R: CubeRuntime>(t: CubeTensor<R>) -> CubeTensor<R> {
    if t.meta.strides().last() == Some(&1) { t } else { into_contiguous(t) }
}

/// The same of a tensor that nothing else holds and whose rows do not overlap.
pub(super) fn owned_rows<R: CubeRuntime>(t: CubeTensor<R>) -> CubeTensor<R> {
    let t = rows_in_order(t);
    if t.can_mut() && t.is_nonoverlapping() { t } else { copy(&t) }
}

/// Elements of row-major `t` that a unit takes at one time: 4, unless its length or the place where it begins is
/// against it.
pub(super) fn vector<R: CubeRuntime>(t: &CubeTensor<R>) -> usize {
    let begin = t.handle.offset_start.unwrap_or(0) as usize;
    if t.meta.num_elements() % 4 == 0 && begin % (4 * t.elem_size()) == 0 { 4 } else { 1 }
}

/// `count` elements of row-major `t` from `start` on, as a kernel's operand: indices within it stay small.
pub(super) fn array_part<R: CubeRuntime>(t: &CubeTensor<R>, start: usize, count: usize) -> ArrayArg<R> {
    let handle = match start {
        0 => t.handle.clone(),
        _ => t.handle.clone().offset_start((start * t.elem_size()) as u64),
    };
    debug_assert!(start + count <= t.meta.num_elements());
    // SAFETY: `t` has these elements.
    unsafe { ArrayArg::from_raw_parts(handle, count) }
}

/// Row-major, whatever layout the runtime would prefer.
fn copy<R: CubeRuntime>(t: &CubeTensor<R>) -> CubeTensor<R> {
    into_contiguous(t.copy())
}

/// Units of a cube that share a row of `width` elements: a power of two, as the reductions need, at most 256.
pub(super) fn units<R: CubeRuntime>(client: &ComputeClient<R>, width: usize) -> usize {
    let hardware = &client.properties().hardware;
    let most = (hardware.max_units_per_cube.min(hardware.max_cube_dim.0) as usize).clamp(1, 256);
    width.next_power_of_two().clamp(1, 1 << most.ilog2())
}

/// A grid of at least `cubes` cubes: a dimension of a grid may end at 65,535. Kernels skip the surplus.
pub(super) fn grid<R: CubeRuntime>(client: &ComputeClient<R>, cubes: usize) -> CubeCount {
    cubecl::calculate_cube_count_elemwise(client, cubes, CubeDim::new_single())
}
