//! What runs between layers: rows of the embedding, and the residual addition with the norm behind it.

use burn::tensor::{Int, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::launch::{Launch, countable, empty, float, grid, held, held_int, tensor, units};
use super::reduce::sum as over_cube;
use crate::ops::{Kernels, plain};

/// Rows `rows` of `table [.., d]`: `y [n, d]`, `elements` in all.
#[cube(launch)]
fn take<F: Float>(
    table: &Array<F>,
    rows: &Array<i32>,
    y: &mut Array<F>,
    elements: usize,
    d: usize,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= elements {
        terminate!();
    }
    y[i] = table[(u32::cast_from(rows[i / d]) as usize) * d + i % d];
}

/// `x + y`, both `[rows, d]`, to `total`, and its RMSNorm under `weight [d]` to `normed`. One cube a row.
#[cube(launch)]
fn add_norm<F: Float>(
    x: &Array<F>,
    y: &Array<F>,
    weight: &Array<F>,
    total: &mut Array<F>,
    normed: &mut Array<F>,
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
    let mut squares = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < d {
        let value = F::cast_from(f32::cast_from(x[first + i]) + f32::cast_from(y[first + i]));
        total[first + i] = value;
        let value = f32::cast_from(value);
        squares += value * value;
        i += units;
    }
    let squares = over_cube(squares, &mut shared, units);
    let rms = (squares / f32::cast_from(d) + eps).sqrt();
    let mut i = UNIT_POS as usize;
    while i < d {
        // What this unit wrote itself.
        normed[first + i] = F::cast_from(f32::cast_from(total[first + i]) / rms) * weight[i];
        i += units;
    }
}

/// See [`Kernels::take_rows`]. The default for other types than kernels take.
pub(super) fn take_rows<B: Launch + Kernels>(table: &Tensor<B, 2>, rows: Tensor<B, 1, Int>) -> Tensor<B, 2> {
    let (dtype, [_, d], n) = (table.dtype(), table.dims(), rows.dims()[0]);
    if !float(dtype) || n * d == 0 || !countable([table.shape(), Shape::new([n, d])]) {
        return plain::take_rows(table, rows);
    }
    tensor(launch_take(into_contiguous(held(table.clone())), into_contiguous(held_int(rows))))
}

fn launch_take<R: CubeRuntime>(table: CubeTensor<R>, rows: CubeTensor<R>) -> CubeTensor<R> {
    let (client, dtype) = (table.client.clone(), table.dtype);
    let (n, d) = (rows.meta.shape()[0], table.meta.shape()[1]);
    let y = empty(&table, Shape::new([n, d]), dtype);
    let cube = CubeDim::new(&client, n * d);
    take::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, n * d, cube),
        cube,
        table.into_array_arg(),
        rows.into_array_arg(),
        y.clone().into_array_arg(),
        n * d,
        d,
        dtype.into(),
    );
    y
}

/// See [`Kernels::add_rms_norm`]. The default where types or shapes differ.
pub(super) fn add_rms_norm<B: Launch + Kernels>(
    x: Tensor<B, 2>,
    y: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
) -> [Tensor<B, 2>; 2] {
    let ([rows, d], dtype) = (x.dims(), x.dtype());
    let typed = float(dtype) && y.dtype() == dtype && weight.dtype() == dtype;
    if !typed || y.dims() != [rows, d] || rows * d == 0 || !countable([x.shape()]) {
        return plain::add_rms_norm(x, y, weight, eps);
    }
    launch_add_norm([held(x), held(y), held(weight)].map(into_contiguous), eps as f32).map(tensor)
}

fn launch_add_norm<R: CubeRuntime>([x, y, weight]: [CubeTensor<R>; 3], eps: f32) -> [CubeTensor<R>; 2] {
    let (client, dtype) = (x.client.clone(), x.dtype);
    let (rows, d) = (x.meta.shape()[0], x.meta.shape()[1]);
    let [total, normed] = [(); 2].map(|()| empty(&x, Shape::new([rows, d]), dtype));
    let units = units(&client, d);
    add_norm::launch::<R>(
        &client,
        grid(&client, rows),
        CubeDim::new_1d(units as u32),
        x.into_array_arg(),
        y.into_array_arg(),
        weight.into_array_arg(),
        total.clone().into_array_arg(),
        normed.clone().into_array_arg(),
        rows,
        d,
        eps,
        units,
        dtype.into(),
    );
    [total, normed]
}
