//! What runs between layers while decoding: rows of the embedding, and the parts of a product on their way through the
//! residual addition and the norm behind it.

use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::launch::{Launch, countable, empty, float, grid, held, held_int, tensor, units};
use super::reduce::sum;
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

/// `x [rows, d]` and the sum of `parts [splits, rows, d]` to `total`, and its RMSNorm under `weight [d]` to `normed`.
/// One cube a row.
#[cube(launch)]
fn add_parts_norm<F: Float>(
    x: &Array<F>,
    parts: &Array<f32>,
    weight: &Array<F>,
    total: &mut Array<F>,
    normed: &mut Array<F>,
    rows: usize,
    d: usize,
    splits: usize,
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
        let mut all = 0.0f32;
        for s in 0..splits {
            all += parts[s * rows * d + first + i];
        }
        // Rounded as the product would have been.
        let rounded = f32::cast_from(F::cast_from(all));
        let value = F::cast_from(f32::cast_from(x[first + i]) + rounded);
        total[first + i] = value;
        let value = f32::cast_from(value);
        squares += value * value;
        i += units;
    }
    let squares = sum(squares, &mut shared, units);
    let rms = (squares / f32::cast_from(d) + eps).sqrt();
    let mut i = UNIT_POS as usize;
    while i < d {
        // What this unit wrote itself.
        normed[first + i] = F::cast_from(f32::cast_from(total[first + i]) / rms) * weight[i];
        i += units;
    }
}

/// See [`Kernels::add_parts_rms_norm`]. The default where types or shapes differ.
pub(super) fn add_parts_rms_norm<B: Launch + Kernels>(
    x: Tensor<B, 2>,
    parts: Tensor<B, 3>,
    weight: Tensor<B, 1>,
    eps: f64,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let ([rows, d], [_, n, out], dtype) = (x.dims(), parts.dims(), x.dtype());
    let typed = float(dtype) && parts.dtype() == DType::F32 && weight.dtype() == dtype;
    if !typed || [n, out] != [rows, d] || rows * d == 0 || !countable([x.shape(), parts.shape()]) {
        return B::add_rms_norm(x, plain::whole(parts, dtype), weight, eps);
    }
    let [total, normed] = launch_add_parts([held(x), held(parts), held(weight)].map(into_contiguous), eps as f32);
    (tensor(total), tensor(normed))
}

fn launch_add_parts<R: CubeRuntime>([x, parts, weight]: [CubeTensor<R>; 3], eps: f32) -> [CubeTensor<R>; 2] {
    let (client, dtype) = (x.client.clone(), x.dtype);
    let (rows, d, splits) = (x.meta.shape()[0], x.meta.shape()[1], parts.meta.shape()[0]);
    let [total, normed] = [(); 2].map(|()| empty(&x, Shape::new([rows, d]), dtype));
    let units = units(&client, d);
    add_parts_norm::launch::<R>(
        &client,
        grid(&client, rows),
        CubeDim::new_1d(units as u32),
        x.into_array_arg(),
        parts.into_array_arg(),
        weight.into_array_arg(),
        total.clone().into_array_arg(),
        normed.clone().into_array_arg(),
        rows,
        d,
        splits,
        eps,
        units,
        dtype.into(),
    );
    [total, normed]
}
