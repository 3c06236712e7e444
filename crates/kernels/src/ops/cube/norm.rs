//! RMSNorm: one cube a row, and one cube a block of rows in the backward.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{Launch, countable, empty, float, grid, held, tensor, units};
use super::reduce::sum;
use crate::ops::plain;

/// Most blocks of rows that the gradient of the weight is summed in first.
const BLOCKS: usize = 256;

/// Most columns that a unit keeps sums of.
const COLUMNS: usize = 32;

/// The root of the mean square of row `first..first + d`.
#[cube]
fn rms<F: Float>(
    x: &Array<F>,
    first: usize,
    d: usize,
    eps: f32,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
) -> f32 {
    let mut squares = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < d {
        let v = f32::cast_from(x[first + i]);
        squares += v * v;
        i += units;
    }
    let total = sum(squares, shared, units);
    (total / f32::cast_from(d) + eps).sqrt()
}

/// `x [rows, d]`, `weight [d]` to `y [rows, d]`.
#[cube(launch)]
fn forward<F: Float>(
    x: &Array<F>,
    weight: &Array<F>,
    y: &mut Array<F>,
    rows: usize,
    d: usize,
    eps: f32,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(units);
    let first = row * d;
    let rms = rms::<F>(x, first, d, eps, &mut shared, units);
    let mut i = UNIT_POS as usize;
    while i < d {
        y[first + i] = F::cast_from(f32::cast_from(x[first + i]) / rms) * weight[i];
        i += units;
    }
}

/// `x, dy [rows, d]`, `weight [d]` to `dx [rows, d]` and, for each of `blocks` blocks of rows, its part of the weight's
/// gradient, `parts [blocks, d]`. A unit owns the columns `unit + k units`, so nothing is added by two units.
#[cube(launch)]
fn backward<F: Float>(
    x: &Array<F>,
    weight: &Array<F>,
    dy: &Array<F>,
    dx: &mut Array<F>,
    parts: &mut Array<f32>,
    rows: usize,
    blocks: usize,
    d: usize,
    eps: f32,
    #[comptime] units: usize,
    #[comptime] columns: usize,
    #[define(F)] _dtype: StorageType,
) {
    let block = CUBE_POS;
    if block >= blocks {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut shared = SharedMemory::<f32>::new(units);
    let mut dweight = Array::<f32>::new(columns);
    #[unroll]
    for k in 0..columns {
        dweight[k] = 0.0f32;
    }
    let each = rows.div_ceil(blocks);
    let start = block * each;
    let end = clamp_max(start + each, rows);
    for row in start..end {
        let first = row * d;
        let rms = rms::<F>(x, first, d, eps, &mut shared, units);
        let mut products = 0.0f32;
        #[unroll]
        for k in 0..columns {
            let i = unit + k * units;
            if i < d {
                let normed = f32::cast_from(x[first + i]) / rms;
                let dy = f32::cast_from(dy[first + i]);
                dweight[k] += dy * normed;
                products += dy * f32::cast_from(weight[i]) * normed;
            }
        }
        let mean = sum(products, &mut shared, units) / f32::cast_from(d);
        #[unroll]
        for k in 0..columns {
            let i = unit + k * units;
            if i < d {
                let normed = f32::cast_from(x[first + i]) / rms;
                let g = f32::cast_from(dy[first + i]) * f32::cast_from(weight[i]);
                dx[first + i] = F::cast_from((g - normed * mean) / rms);
            }
        }
    }
    #[unroll]
    for k in 0..columns {
        let i = unit + k * units;
        if i < d {
            parts[block * d + i] = dweight[k];
        }
    }
}

#[cube]
fn clamp_max(value: usize, most: usize) -> usize {
    select(value < most, value, most)
}

fn launch_forward<R: CubeRuntime>(x: CubeTensor<R>, weight: CubeTensor<R>, eps: f32) -> CubeTensor<R> {
    let (x, weight) = (into_contiguous(x), into_contiguous(weight));
    let (client, dtype) = (x.client.clone(), x.dtype);
    let (rows, d) = (x.meta.shape()[0], x.meta.shape()[1]);
    let y = empty(&x, Shape::new([rows, d]), dtype);
    if rows * d == 0 {
        return y;
    }
    let units = units(&client, d);
    forward::launch::<R>(
        &client,
        grid(&client, rows),
        CubeDim::new_1d(units as u32),
        x.into_array_arg(),
        weight.into_array_arg(),
        y.clone().into_array_arg(),
        rows,
        d,
        eps,
        units,
        dtype.into(),
    );
    y
}

fn launch_backward<R: CubeRuntime>([x, weight, dy]: [CubeTensor<R>; 3], eps: f32, blocks: usize) -> [CubeTensor<R>; 2] {
    let (x, weight, dy) = (into_contiguous(x), into_contiguous(weight), into_contiguous(dy));
    let (client, dtype) = (x.client.clone(), x.dtype);
    let (rows, d) = (x.meta.shape()[0], x.meta.shape()[1]);
    let dx = empty(&x, Shape::new([rows, d]), dtype);
    let parts = empty(&x, Shape::new([blocks, d]), DType::F32);
    let units = units(&client, d);
    backward::launch::<R>(
        &client,
        grid(&client, blocks),
        CubeDim::new_1d(units as u32),
        x.into_array_arg(),
        weight.into_array_arg(),
        dy.into_array_arg(),
        dx.clone().into_array_arg(),
        parts.clone().into_array_arg(),
        rows,
        blocks,
        d,
        eps,
        units,
        d.div_ceil(units),
        dtype.into(),
    );
    [dx, parts]
}

/// See [`Kernels::rms_norm`](crate::Kernels::rms_norm). The default where the types of `x` and `weight` differ.
pub(super) fn rms_norm<B: Launch>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    let (shape, dtype) = (x.shape(), x.dtype());
    if !float(dtype) || weight.dtype() != dtype || !countable([shape]) {
        return plain::rms_norm(x, weight, eps);
    }
    tensor(launch_forward(held(x), held(weight), eps as f32))
}

/// See [`Kernels::rms_norm_backward`](crate::Kernels::rms_norm_backward). The default where types differ, or a row has
/// more than `32 * 256` elements.
pub(super) fn rms_norm_backward<B: Launch>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
    dy: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 1>) {
    let (shape, dtype) = (x.shape(), x.dtype());
    let [rows, d] = x.dims();
    let same = weight.dtype() == dtype && dy.dtype() == dtype;
    if rows * d == 0 {
        return (x, Tensor::zeros([d], (&dy.device(), DType::F32)));
    }
    if !float(dtype) || !same || d > COLUMNS * 256 || !countable([shape]) {
        return plain::rms_norm_backward(x, weight, eps, dy);
    }
    let blocks = rows.min(BLOCKS);
    let [dx, parts] = launch_backward([held(x), held(weight), held(dy)], eps as f32, blocks);
    (tensor(dx), tensor::<B, 2>(parts).sum_dim(0).squeeze_dim::<1>(0))
}
