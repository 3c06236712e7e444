//! Matrix products: the only ones on GPUs, so that nothing depends on which kernel of Burn's was found fastest.
//!
//! The kernels are cubek's, chosen from a table of two: one stage at a time on tensor cores where the device has them
//! for these types, else on its plain units. In cubek 0.2 every other family takes stages of the contraction in pairs
//! and rounds an odd number of them up, which adds what lies behind the operands (cubek issue 434); these do not.
//! Operands are read where they lie, by their strides, and go in as arrays, with sizes and strides as scalars: a
//! strided argument would upload a table of them for each launch.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::ComputeClient;
use cubecl::ir::StorageType;
use cubecl::prelude::*;
use cubecl::std::tensor::launch::ViewArg;
use cubecl::std::tensor::layout::VirtualLayoutLaunch;
use cubek::matmul::components::global::memory::{
    BatchLayout, BatchLayoutLaunch, GlobalLayout, GlobalLayoutConfig, GlobalLayoutLaunch,
};
use cubek::matmul::components::stage::PartitionBuffering;
use cubek::matmul::components::tile::TileMatmulKind;
use cubek::matmul::definition::{
    Blueprint, MatmulGlobalElems, MatmulProblem, MatmulSetupError, MatmulVectorSizes, TilingBlueprint, TilingScheme,
};
use cubek::matmul::launch::{TensorArgs, TensorInputsLaunch, TensorOutputLaunch, launch_kernel};
use cubek::matmul::routines::simple::{SimpleAlgorithm, SimpleArgs};
use cubek::matmul::routines::simple_unit::SimpleUnitAlgorithm;
use cubek::matmul::routines::{BlueprintStrategy, Routine};
use cubek::std::cube_count::{CubeCountStrategy, HypercubeBlueprint};
use cubek::std::{PartitionSize, StageSize, TileSize};

use super::few_rows::{self, COLUMNS, DEPTH, FEW};
use super::launch::{Launch, empty, held, tensor};
use crate::params::zeros;

/// Matrices `[.., rows, columns]` where they lie: one of the last two dimensions in order, any strides else.
#[derive(Clone)]
pub(super) struct Matrices<R: CubeRuntime> {
    binding: TensorBinding<R>,
    dtype: DType,
}

impl<R: CubeRuntime> Matrices<R> {
    /// Those of `t`, which is copied only where neither of its last two dimensions lies in order.
    pub(super) fn new(t: CubeTensor<R>) -> Self {
        let d = t.meta.num_dims();
        let matrix = |t: &CubeTensor<R>| {
            let (shape, strides) = (t.meta.shape(), t.meta.strides());
            in_order([shape[d - 2], shape[d - 1]], [strides[d - 2], strides[d - 1]])
        };
        let (t, strides) = match matrix(&t) {
            Some(strides) => (t, strides),
            None => {
                let t = into_contiguous(t);
                let columns = t.meta.shape()[d - 1];
                (t, [columns, 1])
            }
        };
        let (dtype, mut binding) = (t.dtype, t.binding());
        (binding.strides[d - 2], binding.strides[d - 1]) = (strides[0], strides[1]);
        if d == 2 {
            // One matrix is a batch of one: the same kernels serve both.
            binding.shape.insert(0, 1);
            binding.strides.insert(0, 0);
        }
        Self { binding, dtype }
    }

    /// Matrices of `shape` in the buffer of `t`, by `strides`, both for batches, rows and columns; one of the last two
    /// dimensions in order.
    pub(super) fn strided(t: CubeTensor<R>, shape: &[usize], strides: &[usize]) -> Self {
        let d = shape.len();
        let last = in_order([shape[d - 2], shape[d - 1]], [strides[d - 2], strides[d - 1]]);
        let last = last.expect("a dimension of each view is in order");
        let (dtype, mut binding) = (t.dtype, t.binding());
        binding.shape = shape.iter().copied().collect();
        binding.strides = strides[..d - 2].iter().copied().chain(last).collect();
        Self { binding, dtype }
    }

    /// One matrix `[rows, columns]` as `s` of them side by side, each with its share of the columns.
    pub(super) fn split(mut self, s: usize) -> Self {
        let d = self.binding.shape.len();
        let columns = self.binding.shape[d - 1] / s;
        (self.binding.shape[0], self.binding.strides[0]) = (s, columns * self.binding.strides[d - 1]);
        self.binding.shape[d - 1] = columns;
        self
    }

    /// Rows become columns.
    pub(super) fn transposed(mut self) -> Self {
        let d = self.binding.shape.len();
        self.binding.shape.swap(d - 2, d - 1);
        self.binding.strides.swap(d - 2, d - 1);
        self
    }

    /// Results are written by rows. Of one column, either stride would do.
    fn by_rows(mut self) -> Self {
        let d = self.binding.shape.len();
        if self.binding.shape[d - 1] == 1 {
            self.binding.strides[d - 1] = 1;
        }
        self
    }

    /// Rows and columns.
    fn size(&self) -> [usize; 2] {
        let shape = &self.binding.shape;
        [shape[shape.len() - 2], shape[shape.len() - 1]]
    }

    /// The most elements that one load may take: they lie side by side, and every load begins at a multiple of them.
    fn vector(&self, client: &ComputeClient<R>) -> usize {
        let (shape, strides) = (&self.binding.shape, &self.binding.strides);
        let d = shape.len();
        let along = if strides[d - 1] == 1 { d - 1 } else { d - 2 };
        let fits = |v: &usize| {
            let others = (0..d).filter(|i| *i != along && shape[*i] > 1);
            shape[along].is_multiple_of(*v) && others.into_iter().all(|i| strides[i].is_multiple_of(*v))
        };
        client.io_optimized_vector_sizes(self.dtype.size()).find(fits).unwrap_or(1)
    }

    fn view(&self, vector: usize, config: GlobalLayoutConfig) -> ViewArg<(usize, u32, u32), R> {
        let layout = GlobalLayoutLaunch::from_handle(&self.binding, vector, config);
        ViewArg::new_array::<GlobalLayout>(self.binding.clone().into_array_arg(), layout)
    }

    fn steps(&self, problem: &MatmulProblem) -> VirtualLayoutLaunch<usize, usize, R> {
        VirtualLayoutLaunch::new::<BatchLayout>(BatchLayoutLaunch::from_handle(&self.binding, problem))
    }
}

/// Strides of a matrix that lies in order by rows or by columns; none of another. Where a dimension has one element its
/// stride says nothing and is set to fit.
fn in_order([rows, columns]: [usize; 2], [down, across]: [usize; 2]) -> Option<[usize; 2]> {
    match (rows, columns) {
        (1, _) if across == 1 => Some([columns, 1]),
        (1, _) if across > 0 => Some([1, across]),
        (_, 1) if down == 1 => Some([1, rows]),
        (_, 1) if down > 0 => Some([down, 1]),
        _ if across == 1 && down >= columns => Some([down, 1]),
        _ if down == 1 && across >= rows => Some([1, across]),
        _ => None,
    }
}

/// Whether the device multiplies matrices of `dtype` on tensor cores (f32 as tf32, as Burn does).
fn tensor_cores<R: CubeRuntime>(client: &ComputeClient<R>, dtype: DType) -> bool {
    let element: StorageType = match dtype {
        DType::F32 => cubecl::tf32::as_type_native_unchecked().storage_type(),
        other => other.into(),
    };
    client.properties().features.matmul.cmma.iter().any(|c| c.a_type == element)
}

/// What 16-bit tensor cores do with few rows: 32 to 128 of them at once, so that the weight is read once, [`COLUMNS`]
/// of the result and [`DEPTH`] of the contraction at a time: 8 KB of the weight in four loads of 16 bytes a unit.
fn few_rows_blueprint(problem: &MatmulProblem, plane: u32) -> TilingBlueprint {
    let (tile, planes) = (TileSize::new(8, 32, 16), 4);
    let rows = (problem.m as u32).div_ceil(tile.m * planes);
    let partition = PartitionSize::new(rows, COLUMNS as u32 / tile.n, DEPTH as u32 / tile.k);
    let scheme = TilingScheme::builder()
        .with_tile_size(tile)
        .with_partition_size(partition)
        .with_stage_size(StageSize::new(planes, 1, 1))
        .build()
        .expect("all sizes are given");
    let order = HypercubeBlueprint::builder().cube_count_strategy(CubeCountStrategy::Flattened).build();
    TilingBlueprint::builder(TileMatmulKind::Cmma, scheme, plane, problem)
        .partition_buffering(PartitionBuffering::Single)
        .hypercube_blueprint(order)
        .build()
}

/// Side of the stages that tensor cores work on where there are enough rows and columns.
const STAGE: usize = 64;

/// `out = a b` by the table of this module. Contractions of different lengths end where the shorter does, and columns
/// of `out` that `b` does not have become zeros.
pub(super) fn multiply<R: CubeRuntime>(a: &Matrices<R>, b: &Matrices<R>, out: &Matrices<R>, client: &ComputeClient<R>) {
    let ([m, k], [_, n]) = (a.size(), b.size());
    let out = &out.clone().by_rows();
    let mut done = Err(None);
    if tensor_cores(client, a.dtype) {
        done = match launch_with::<R, SimpleAlgorithm>(a, b, out, client, |problem, plane| {
            if a.dtype != DType::F32 && m <= FEW && n >= FEW {
                return BlueprintStrategy::Forced(few_rows_blueprint(problem, plane));
            }
            let args = SimpleArgs { tile_matmul: TileMatmulKind::Cmma, multi_rows: m > STAGE && n > STAGE };
            BlueprintStrategy::Inferred(args)
        }) {
            Err(MatmulSetupError::Unavailable(_)) => Err(None), // these types or this shape: on plain units
            other => other.map_err(Some),
        };
    }
    if let Err(None) = done {
        done =
            launch_with::<R, SimpleUnitAlgorithm>(a, b, out, client, |_, _| BlueprintStrategy::default()).map_err(Some);
    }
    if let Err(error) = done {
        panic!("the product of [{m}, {k}] and [{k}, {n}] in {:?} cannot be set up: {error:?}", a.dtype);
    }
}

fn launch_with<R: CubeRuntime, A: Routine<(), Blueprint = TilingBlueprint>>(
    a: &Matrices<R>,
    b: &Matrices<R>,
    out: &Matrices<R>,
    client: &ComputeClient<R>,
    strategy: impl Fn(&MatmulProblem, u32) -> BlueprintStrategy<(), A>,
) -> Result<(), MatmulSetupError> {
    let elements = [a, b, out].map(|t| t.binding.required_address_type(t.dtype.size()));
    let [left, right, result] = [a, b, out].map(|t| t.binding.shape.clone());
    let strides = [a, b, out].map(|t| t.binding.strides.clone());
    let types = MatmulGlobalElems { lhs: a.dtype.into(), rhs: b.dtype.into(), out: out.dtype.into() };
    let address = elements[0].max(elements[1]).max(elements[2]);
    let mut problem = MatmulProblem::from_shapes_and_strides(
        left,
        right,
        result,
        strides[0].clone(),
        strides[1].clone(),
        strides[2].clone(),
        types,
        address,
        None,
        None,
    )?;
    problem.n = out.size()[1]; // columns beyond those of `b` are written, too
    let vectors = MatmulVectorSizes { lhs: a.vector(client), rhs: b.vector(client), out: out.vector(client) };
    let settings = A::device_settings(client, vectors);
    let strategy = strategy(&problem, settings.plane_dim);
    let mut info = A::prepare(&problem, &settings, A::expand_blueprint(&problem, &settings, &strategy)?)?;
    // Always, not only where a size says so: one kernel serves all sizes, and no load leaves its operand.
    let blueprint = &mut info.blueprint;
    (blueprint.check_m_bounds, blueprint.check_n_bounds, blueprint.check_k_bounds) = (true, true, true);
    let (blueprint, vectors) = (&info.blueprint, info.vector_sizes);
    let input = TensorInputsLaunch::new(
        a.steps(&problem),
        a.view(vectors.lhs, blueprint.lhs_global_layout_config()),
        b.steps(&problem),
        b.view(vectors.rhs, blueprint.rhs_global_layout_config()),
        ComptimeOptionArgs::None,
        ComptimeOptionArgs::None,
    );
    let output =
        TensorOutputLaunch::new(out.view(vectors.out, blueprint.out_global_layout_config()), out.steps(&problem));
    launch_kernel::<TensorArgs, R, A>(client, input, output, (), info)
}

/// `a b` in `dtype`, row-major, `shape` its shape; batches of one operand may be of one matrix.
fn product<R: CubeRuntime>(
    like: &CubeTensor<R>,
    a: Matrices<R>,
    b: Matrices<R>,
    shape: Shape,
    dtype: DType,
) -> CubeTensor<R> {
    assert_eq!(a.dtype, b.dtype, "a product of two types");
    let out = empty(like, shape, dtype);
    multiply(&a, &b, &Matrices::new(out.clone()), &like.client);
    out
}

/// See [`Kernels::matmul`](crate::Kernels::matmul).
pub(super) fn matmul<B: Launch, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    let (dtype, device) = (a.dtype(), a.device());
    let (left, right) = (a.dims(), b.dims());
    assert_eq!(left[D - 1], right[D - 2], "the product of {left:?} and {right:?}");
    let mut shape = left;
    for i in 0..D - 2 {
        let fit = left[i] == right[i] || left[i] == 1 || right[i] == 1;
        assert!(fit, "the product of {left:?} and {right:?}");
        shape[i] = if left[i] == 1 { right[i] } else { left[i] };
    }
    shape[D - 1] = right[D - 1];
    if shape.contains(&0) || left[D - 1] == 0 {
        return zeros(shape, &device, dtype);
    }
    let (a, b) = (held(a), held(b));
    let like = a.clone();
    tensor(product(&like, Matrices::new(a), Matrices::new(b), Shape::new(shape), dtype))
}

/// See [`Kernels::affine`](crate::Kernels::affine).
pub(super) fn affine<B: Launch>(x: Tensor<B, 2>, weight: &Tensor<B, 2>, bias: Option<&Tensor<B, 1>>) -> Tensor<B, 2> {
    if let Some(y) = few_rows::affine(&x, weight, bias) {
        return y;
    }
    let y = matmul(x, weight.clone().transpose());
    match bias {
        Some(bias) => y.add(bias.clone().unsqueeze()),
        None => y,
    }
}

/// See [`Kernels::weight_gradient`](crate::Kernels::weight_gradient): f32 straight from the sums.
pub(super) fn weight_gradient<B: Launch>(dy: Tensor<B, 2>, x: Tensor<B, 2>) -> Tensor<B, 2> {
    let shape = [dy.dims()[1], x.dims()[1]];
    assert_eq!(dy.dims()[0], x.dims()[0], "the weight gradient of {:?} and {:?}", dy.dims(), x.dims());
    if shape.contains(&0) || x.dims()[0] == 0 {
        return zeros(shape, &x.device(), DType::F32);
    }
    let (dy, x) = (held(dy), held(x));
    let like = x.clone();
    tensor(product(&like, Matrices::new(dy).transposed(), Matrices::new(x), Shape::new(shape), DType::F32))
}
