//! How a kernel reaches its tensors, with Burn's fusion around the backend and without.

use burn::tensor::backend::{Backend, BackendTypes};
use burn::tensor::{DType, Int, Shape, Tensor, TensorPrimitive};
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime};
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{Fusion, FusionHandle, FusionTensor};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};
use cubecl::client::ComputeClient;
use cubecl::prelude::*;

/// A tensor of either kind as the backend holds it.
pub(super) type Held<B> = <B as BackendTypes>::FloatTensorPrimitive;

/// A backend whose tensors are, at the bottom, buffers of a CubeCL runtime.
pub(super) trait Launch:
    Backend + BackendTypes<IntTensorPrimitive = <Self as BackendTypes>::FloatTensorPrimitive>
{
    /// Where kernels run.
    type Runtime: CubeRuntime;

    /// Runs `kernel` on the buffers of `inputs`, now or when the stream gets there; its results have the shapes and types
    /// `outputs`, which must be known before. `name` identifies the operation to fusion.
    fn launch<const I: usize, const O: usize>(
        name: &'static str,
        inputs: [Held<Self>; I],
        outputs: [(Shape, DType); O],
        kernel: impl Fn([CubeTensor<Self::Runtime>; I]) -> [CubeTensor<Self::Runtime>; O] + Send + Sync + 'static,
    ) -> [Held<Self>; O];
}

impl<R: CubeRuntime, BT: BoolElement> Launch for CubeBackend<R, f32, i32, BT> {
    type Runtime = R;

    fn launch<const I: usize, const O: usize>(
        _: &'static str,
        inputs: [CubeTensor<R>; I],
        _: [(Shape, DType); O],
        kernel: impl Fn([CubeTensor<R>; I]) -> [CubeTensor<R>; O] + Send + Sync + 'static,
    ) -> [CubeTensor<R>; O] {
        kernel(inputs)
    }
}

impl<R: CubeRuntime, BT: BoolElement> Launch for Fusion<CubeBackend<R, f32, i32, BT>> {
    type Runtime = R;

    fn launch<const I: usize, const O: usize>(
        name: &'static str,
        inputs: [FusionTensor<FusionCubeRuntime<R>>; I],
        outputs: [(Shape, DType); O],
        kernel: impl Fn([CubeTensor<R>; I]) -> [CubeTensor<R>; O] + Send + Sync + 'static,
    ) -> [FusionTensor<FusionCubeRuntime<R>>; O] {
        let client = inputs[0].client.clone();
        let streams = OperationStreams::with_inputs(&inputs);
        let inputs = inputs.map(FusionTensor::into_ir);
        let outputs = outputs.map(|(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype));
        let description = OperationIr::Custom(CustomOpIr::new(name, &inputs, &outputs));
        let run = move |handles: &mut HandleContainer<_>| {
            // A handle that nothing else needs leaves the container here, so a kernel may write into it.
            let tensors = inputs.each_ref().map(|ir| handles.get_float_tensor::<CubeBackend<R, f32, i32, BT>>(ir));
            for (ir, tensor) in outputs.iter().zip(kernel(tensors)) {
                handles.register_float_tensor::<CubeBackend<R, f32, i32, BT>>(&ir.id, tensor);
            }
        };
        let results = client.register(streams, description, Custom { name, run });
        let mut results = results.into_iter();
        // `register` makes one tensor an output of the description.
        std::array::from_fn(|_| results.next().unwrap_or_else(|| unreachable!("{name} has {O} outputs")))
    }
}

/// A kernel in the stream of operations.
struct Custom<F> {
    name: &'static str,
    run: F,
}

impl<F> std::fmt::Debug for Custom<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl<R: CubeRuntime, F> Operation<FusionCubeRuntime<R>> for Custom<F>
where
    F: Fn(&mut HandleContainer<FusionHandle<FusionCubeRuntime<R>>>) + Send + Sync,
{
    fn execute(&self, handles: &mut HandleContainer<FusionHandle<FusionCubeRuntime<R>>>) {
        (self.run)(handles);
    }
}

/// What a backend holds of a float tensor.
pub(super) fn held<B: Backend, const D: usize>(t: Tensor<B, D>) -> Held<B> {
    t.into_primitive().tensor()
}

/// What a backend holds of an integer tensor.
pub(super) fn held_int<B: Launch, const D: usize>(t: Tensor<B, D, Int>) -> Held<B> {
    t.into_primitive()
}

/// The float tensor that a backend holds.
pub(super) fn tensor<B: Backend, const D: usize>(t: Held<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(t))
}

/// Whether kernels read and write `dtype`: they compute in f32, so f64 is left to the defaults.
pub(super) fn float(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::BF16 | DType::F16)
}

/// Whether the elements of every shape can be counted in 32 bits, as kernels do.
pub(super) fn countable<const I: usize>(shapes: [Shape; I]) -> bool {
    shapes.iter().all(|s| s.num_elements() < u32::MAX as usize / 2)
}

/// A new buffer beside `like`, in row-major order.
pub(super) fn empty<R: CubeRuntime>(like: &CubeTensor<R>, shape: Shape, dtype: DType) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// A row-major tensor that nothing else holds: `t` itself if it is one, else a copy.
pub(super) fn owned<R: CubeRuntime>(t: CubeTensor<R>) -> CubeTensor<R> {
    let t = into_contiguous(t);
    if t.can_mut() { t } else { copy(&t) }
}

/// A tensor whose last dimension lies in order; between rows there may be gaps, which some runtimes leave to align them.
pub(super) fn rows_in_order<R: CubeRuntime>(t: CubeTensor<R>) -> CubeTensor<R> {
    if t.meta.strides().last() == Some(&1) { t } else { into_contiguous(t) }
}

/// The same of a tensor that nothing else holds and whose rows do not overlap.
pub(super) fn owned_rows<R: CubeRuntime>(t: CubeTensor<R>) -> CubeTensor<R> {
    let t = rows_in_order(t);
    if t.can_mut() && t.is_nonoverlapping() { t } else { copy(&t) }
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
