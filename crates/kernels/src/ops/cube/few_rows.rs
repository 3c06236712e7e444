//! Products of few rows with a large weight, as decoding has them: the weight is read once, at the speed of the memory,
//! if enough of it is under way at any time. So the contraction is split over as many cubes as the device needs, as a
//! batch of shorter products whose f32 sums are added afterwards, in the same order on every run.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::client::ComputeClient;
use cubecl::prelude::*;

use super::launch::{Launch, empty, float, held, tensor};
use super::matmul::{Matrices, multiply};
use crate::params::zeros;

/// Most rows that count as few: more keep a device busy without a split.
pub(super) const FEW: usize = 128;

/// Columns of a result, and elements of the contraction, that a cube takes at a time (see the table of `matmul`).
pub(super) const COLUMNS: usize = 64;
/// See [`COLUMNS`].
pub(super) const DEPTH: usize = 64;

/// Shortest contraction that is left after a split.
const SHORTEST: usize = 256;

/// Multiprocessors of a device that does not say.
const PROCESSORS: usize = 32;

/// Cubes wanted for each multiprocessor: each waits for 8 KB of a weight at a time, and a large GPU needs 15 to 30 KB
/// under way on each multiprocessor to read at full speed.
const CUBES_EACH: usize = 3;

/// Into how many parts the contraction `k` of a product of `m` rows and `n` columns is cut.
pub(super) fn splits<R: CubeRuntime>(client: &ComputeClient<R>, [m, k, n]: [usize; 3]) -> usize {
    if m > FEW || !k.is_multiple_of(DEPTH) {
        return 1;
    }
    let processors = client.properties().hardware.num_streaming_multiprocessors.map_or(PROCESSORS, |n| n as usize);
    let fit = (1..=k / SHORTEST).filter(|s| (k / DEPTH).is_multiple_of(*s));
    let mut best = 1;
    for s in fit {
        best = s;
        if n.div_ceil(COLUMNS) * s >= CUBES_EACH * processors {
            break;
        }
    }
    best
}

/// `y [m, n] = sum of parts [s, m, n] + bias [n]`.
#[cube(launch)]
fn combine<F: Float>(
    parts: &Array<f32>,
    bias: &Array<F>,
    y: &mut Array<F>,
    len: usize,
    n: usize,
    splits: usize,
    #[comptime] with_bias: bool,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= len {
        terminate!();
    }
    let mut all = 0.0f32;
    for s in 0..splits {
        all += parts[s * len + i];
    }
    let mut rounded = F::cast_from(all);
    if comptime!(with_bias) {
        rounded += bias[i % n];
    }
    y[i] = rounded;
}

fn launch_combine<R: CubeRuntime>(parts: CubeTensor<R>, bias: Option<CubeTensor<R>>, dtype: DType) -> CubeTensor<R> {
    let shape = parts.meta.shape();
    let (splits, m, n) = (shape[0], shape[1], shape[2]);
    let (client, len) = (parts.client.clone(), m * n);
    let y = empty(&parts, Shape::new([m, n]), dtype);
    let with_bias = bias.is_some();
    let bias = bias.map_or_else(|| empty(&parts, Shape::new([1]), dtype), into_contiguous);
    let cube = CubeDim::new(&client, len);
    combine::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, len, cube),
        cube,
        parts.into_array_arg(),
        bias.into_array_arg(),
        y.clone().into_array_arg(),
        len,
        n,
        splits,
        with_bias,
        dtype.into(),
    );
    y
}

/// See [`Kernels::partial_affine`](crate::Kernels::partial_affine).
pub(super) fn partial_affine<B: Launch>(x: Tensor<B, 2>, weight: &Tensor<B, 2>) -> Tensor<B, 3> {
    let ([m, k], [n, _]) = (x.dims(), weight.dims());
    assert_eq!(k, weight.dims()[1], "the product of {:?} and {:?}", x.dims(), weight.dims());
    if m * k * n == 0 {
        return zeros([1, m, n], &x.device(), DType::F32);
    }
    let (x, weight) = (held(x), held(weight.clone()));
    let client = x.client.clone();
    let s = splits(&client, [m, k, n]);
    let out = empty(&x, Shape::new([s, m, n]), DType::F32);
    let (x, weight) = (Matrices::new(x).split(s), Matrices::new(weight).split(s).transposed());
    multiply(&x, &weight, &Matrices::new(out.clone()), &client);
    tensor(out)
}

/// `x W^T + b` with a split contraction; none where a split gains nothing.
pub(super) fn affine<B: Launch>(
    x: &Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    bias: Option<&Tensor<B, 1>>,
) -> Option<Tensor<B, 2>> {
    let ([m, k], [n, _], dtype) = (x.dims(), weight.dims(), x.dtype());
    let typed = float(dtype) && weight.dtype() == dtype && bias.is_none_or(|bias| bias.dtype() == dtype);
    if !typed || m * k * n == 0 || splits(&held(x.clone()).client, [m, k, n]) == 1 {
        return None;
    }
    let parts = held(partial_affine(x.clone(), weight));
    Some(tensor(launch_combine(parts, bias.map(|bias| held(bias.clone())), dtype)))
}
