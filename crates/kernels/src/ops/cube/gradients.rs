//! Sums of gradients, in place: over passes, over the tokens of one pass, over equal tokens.

use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::launch::{Launch, array_part, countable, float, grid, held, held_int, owned, tensor, units, vector};
use super::reduce::sum;
use crate::ops::adamw::PART;
use crate::ops::plain;

/// `sum [len]` plus `grad [len]`, in vectors of `N`.
#[cube(launch_unchecked)]
fn add<S: Float, G: Float, N: Size>(
    grad: &Array<Vector<G, N>>,
    sum: &mut Array<Vector<S, N>>,
    len: usize,
    #[define(S, G)] _types: [StorageType; 2],
) {
    let at = ABSOLUTE_POS;
    if at >= len {
        terminate!();
    }
    sum[at] = Vector::cast_from(Vector::<f32, N>::cast_from(sum[at]) + Vector::<f32, N>::cast_from(grad[at]));
}

fn launch_add<R: CubeRuntime>(sum: CubeTensor<R>, grad: CubeTensor<R>) -> CubeTensor<R> {
    let (sum, grad) = (owned(sum), into_contiguous(grad));
    let (client, len) = (sum.client.clone(), sum.meta.num_elements());
    let width = vector(&sum).min(vector(&grad));
    for start in (0..len).step_by(PART) {
        let count = PART.min(len - start);
        let cube = CubeDim::new(&client, count / width);
        // SAFETY: both operands have `len` elements, and the kernel touches none from `count` on.
        unsafe {
            add::launch_unchecked::<R>(
                &client,
                calculate_cube_count_elemwise(&client, count / width, cube),
                cube,
                width,
                array_part(&grad, start, count),
                array_part(&sum, start, count),
                count / width,
                [sum.dtype.into(), grad.dtype.into()],
            );
        }
    }
    sum
}

/// See [`Kernels::accumulate`](crate::Kernels::accumulate). The default where a type is not for kernels.
pub(super) fn accumulate<B: Launch>(sum: Tensor<B, 1>, grad: Tensor<B, 1>) -> Tensor<B, 1> {
    if !float(sum.dtype()) || !float(grad.dtype()) {
        return plain::accumulate(sum, grad);
    }
    assert_eq!(sum.dims(), grad.dims(), "a gradient is as long as the sum that it is added to");
    tensor(launch_add(held(sum), held(grad)))
}

/// Columns (or vectors of them) that a cube adds up side by side.
const ACROSS: usize = 16;

/// `sum [d]` plus the columns of `rows [n, d]`, in vectors of `N`: `down` units share the rows of a column.
#[cube(launch_unchecked)]
fn add_columns<S: Float, G: Float, N: Size>(
    rows: &Array<Vector<G, N>>,
    sum: &mut Array<Vector<S, N>>,
    n: usize,
    d: usize,
    #[comptime] down: usize,
    #[define(S, G)] _types: [StorageType; 2],
) {
    let unit = UNIT_POS as usize;
    let column = CUBE_POS * ACROSS + unit % ACROSS;
    let mut shared = SharedMemory::<Vector<f32, N>>::new(comptime!(ACROSS * down));
    let mut total = Vector::<f32, N>::new(0.0f32);
    if column < d {
        let mut row = unit / ACROSS;
        while row < n {
            total += Vector::<f32, N>::cast_from(rows[row * d + column]);
            row += down;
        }
    }
    shared[unit] = total;
    sync_cube();
    if unit < ACROSS {
        if column < d {
            let mut all = Vector::<f32, N>::cast_from(sum[column]);
            for lane in 0..down {
                all += shared[lane * ACROSS + unit];
            }
            sum[column] = Vector::cast_from(all);
        }
    }
}

fn launch_add_columns<R: CubeRuntime>(sum: CubeTensor<R>, rows: CubeTensor<R>) -> CubeTensor<R> {
    let (sum, rows) = (owned(sum), into_contiguous(rows));
    let client = sum.client.clone();
    let (n, d) = (rows.meta.shape()[0], rows.meta.shape()[1]);
    if n * d == 0 {
        return sum;
    }
    let width = vector(&sum).min(vector(&rows));
    let down = (units(&client, 256) / ACROSS).max(1);
    // SAFETY: `sum` has `d` elements and `rows` has `n d`, and the kernel keeps to them.
    unsafe {
        add_columns::launch_unchecked::<R>(
            &client,
            grid(&client, (d / width).div_ceil(ACROSS)),
            CubeDim::new_1d((ACROSS * down) as u32),
            width,
            rows.clone().into_array_arg(),
            sum.clone().into_array_arg(),
            n,
            d / width,
            down,
            [sum.dtype.into(), rows.dtype.into()],
        );
    }
    sum
}

/// See [`Kernels::accumulate_columns`](crate::Kernels::accumulate_columns). The default where a type is not for
/// kernels.
pub(super) fn accumulate_columns<B: Launch>(sum: Tensor<B, 1>, rows: Tensor<B, 2>) -> Tensor<B, 1> {
    if !float(sum.dtype()) || !float(rows.dtype()) || !countable([rows.shape()]) {
        return plain::accumulate_columns(sum, rows);
    }
    assert_eq!(sum.dims()[0], rows.dims()[1], "a sum has an element for each column");
    tensor(launch_add_columns(held(sum), held(rows)))
}

/// `values [m, d]` added to the rows `rows [m]` of `table [height, d]`: the first of all places that name a row adds
/// the values of all of them, in their order, one cube a place.
#[cube(launch_unchecked)]
fn add_rows<S: Float, G: Float, I: Numeric>(
    rows: &Array<I>,
    values: &Array<G>,
    table: &mut Array<S>,
    m: usize,
    d: usize,
    height: usize,
    #[comptime] units: usize,
    #[define(S, G, I)] _types: [StorageType; 3],
) {
    let place = CUBE_POS;
    if place >= m {
        terminate!();
    }
    let row = u32::cast_from(rows[place]);
    let mut shared = SharedMemory::<f32>::new(units);
    let mut before = 0.0f32;
    let mut j = UNIT_POS as usize;
    while j < place {
        if u32::cast_from(rows[j]) == row {
            before += 1.0f32;
        }
        j += units;
    }
    let earlier = sum(before, &mut shared, units);
    // A row that the table has not is left out.
    if select((row as usize) < height, earlier, 1.0f32) == 0.0f32 {
        let first = row as usize * d;
        let mut i = UNIT_POS as usize;
        while i < d {
            let mut total = f32::cast_from(table[first + i]);
            for j in place..m {
                if u32::cast_from(rows[j]) == row {
                    total += f32::cast_from(values[j * d + i]);
                }
            }
            table[first + i] = S::cast_from(total);
            i += units;
        }
    }
}

fn launch_add_rows<R: CubeRuntime>([table, rows, values]: [CubeTensor<R>; 3]) -> CubeTensor<R> {
    let (table, rows, values) = (owned(table), into_contiguous(rows), into_contiguous(values));
    let client = table.client.clone();
    let (m, d) = (values.meta.shape()[0], values.meta.shape()[1]);
    if m * d == 0 {
        return table;
    }
    let types = [table.dtype.into(), values.dtype.into(), rows.dtype.into()];
    let units = units(&client, d);
    let height = table.meta.num_elements() / d;
    // SAFETY: `rows` and `values` have `m` rows and `table` has `height`, and the kernel keeps to them.
    unsafe {
        add_rows::launch_unchecked::<R>(
            &client,
            grid(&client, m),
            CubeDim::new_1d(units as u32),
            rows.into_array_arg(),
            values.into_array_arg(),
            table.clone().into_array_arg(),
            m,
            d,
            height,
            units,
            types,
        );
    }
    table
}

/// See [`Kernels::accumulate_rows`](crate::Kernels::accumulate_rows). The default where a type is not for kernels.
pub(super) fn accumulate_rows<B: Launch>(
    table: Tensor<B, 1>,
    rows: Tensor<B, 1, Int>,
    values: Tensor<B, 2>,
) -> Tensor<B, 1> {
    let typed = float(table.dtype()) && float(values.dtype());
    let counted = matches!(rows.dtype(), DType::I32 | DType::I64 | DType::U32);
    if !typed || !counted || !countable([table.shape(), values.shape()]) {
        return plain::accumulate_rows(table, rows, values);
    }
    tensor(launch_add_rows([held(table), held_int(rows), held(values)]))
}
