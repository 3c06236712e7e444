//! Rows of the embedding.

use burn::tensor::{Int, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::launch::{Launch, countable, empty, float, held, held_int, tensor};
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
