//! What packed attention does with rows of tokens, beside its matrix products: to their places among the packed rows,
//! onto each other, and a product of each with another.

use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::launch::{empty, grid, nothing, units};
use super::reduce::sum;

/// `out [rows] = sum of x y` over their last dimension, `x, y [rows, d]`.
#[cube(launch)]
fn dots<F: Float>(
    x: &Array<F>,
    y: &Array<F>,
    out: &mut Array<f32>,
    rows: usize,
    d: usize,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(units);
    let mut part = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < d {
        part += f32::cast_from(x[row * d + i]) * f32::cast_from(y[row * d + i]);
        i += units;
    }
    let all = sum(part, &mut shared, units);
    if UNIT_POS == 0 {
        out[row] = all;
    }
}

/// `x += y`, both `[len]`.
#[cube(launch)]
fn add<F: Float>(y: &Array<F>, x: &mut Array<F>, len: usize, #[define(F)] _dtype: StorageType) {
    let i = ABSOLUTE_POS;
    if i >= len {
        terminate!();
    }
    x[i] = F::cast_from(f32::cast_from(x[i]) + f32::cast_from(y[i]));
}

/// Zeros in `x[first..first + len]`.
#[cube(launch)]
fn clear<F: Float>(x: &mut Array<F>, first: usize, len: usize, #[define(F)] _dtype: StorageType) {
    let i = ABSOLUTE_POS;
    if i >= len {
        terminate!();
    }
    x[first + i] = F::cast_from(0.0f32);
}

/// The packed row of row `i` of a block: the `first + i`-th, or what `index` says.
#[cube]
fn packed_row<I: Numeric>(index: &Array<I>, first: usize, i: usize, #[comptime] indexed: bool) -> usize {
    let mut row = first + i;
    if comptime!(indexed) {
        row = u32::cast_from(index[first + i]) as usize;
    }
    row
}

/// Rows of a block `x [rows, width]` to the packed rows of `out [N, width]` that they came from, where `real > least`.
#[cube(launch)]
fn scatter<F: Float, I: Numeric>(
    x: &Array<F>,
    index: &Array<I>,
    real: &Array<f32>,
    out: &mut Array<F>,
    len: usize,
    width: usize,
    first: usize,
    #[comptime] indexed: bool,
    #[comptime] padded: bool,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let at = ABSOLUTE_POS;
    if at >= len {
        terminate!();
    }
    let (i, column) = (at / width, at % width);
    let mut write = true;
    if comptime!(padded) {
        write = real[first + i] > 0.5f32;
    }
    if write {
        out[packed_row::<I>(index, first, i, indexed) * width + column] = x[at];
    }
}

/// Gradients of keys and of values by query head, `k_parts, v_parts [b, Hkv, g, rows, hd]`, summed over the `g` heads
/// of a K/V head into the packed rows `dk, dv [N, Hkv, hd]` of a block's `b rows` rows; those with `real <= least` left
/// out.
#[cube(launch)]
fn sum_heads<I: Numeric>(
    k_parts: &Array<f32>,
    v_parts: &Array<f32>,
    index: &Array<I>,
    real: &Array<f32>,
    dk: &mut Array<f32>,
    dv: &mut Array<f32>,
    len: usize,
    rows: usize,
    kv_heads: usize,
    g: usize,
    hd: usize,
    first: usize,
    least: f32,
    #[comptime] indexed: bool,
    #[comptime] padded: bool,
    #[comptime] adding: bool,
    #[define(I)] _dtype: StorageType,
) {
    let at = ABSOLUTE_POS;
    if at >= len {
        terminate!();
    }
    let width = kv_heads * hd;
    let (i, column) = (at / width, at % width);
    let mut write = true;
    if comptime!(padded) {
        write = real[first + i] > least;
    }
    if write {
        let step = rows * hd;
        let mut from = ((i / rows * kv_heads + column / hd) * g * rows + i % rows) * hd + column % hd;
        let mut k = 0.0f32;
        let mut v = 0.0f32;
        for _ in 0..g {
            k += k_parts[from];
            v += v_parts[from];
            from += step;
        }
        let to = packed_row::<I>(index, first, i, indexed) * width + column;
        if comptime!(adding) {
            k += dk[to];
            v += dv[to];
        }
        dk[to] = k;
        dv[to] = v;
    }
}

/// `sum of x y` over the last dimension of `x, y [rows, heads, hd]`: `[rows heads]` in f32.
pub(super) fn launch_dots<R: CubeRuntime>(x: &CubeTensor<R>, y: &CubeTensor<R>) -> CubeTensor<R> {
    let (client, dtype) = (x.client.clone(), x.dtype);
    let d = x.meta.shape()[2];
    let rows = x.meta.num_elements() / d;
    let out = empty(x, Shape::new([rows]), DType::F32);
    let units = units(&client, d);
    dots::launch::<R>(
        &client,
        grid(&client, rows),
        CubeDim::new_1d(units as u32),
        x.clone().into_array_arg(),
        y.clone().into_array_arg(),
        out.clone().into_array_arg(),
        rows,
        d,
        units,
        dtype.into(),
    );
    out
}

/// `x += y`.
pub(super) fn launch_add<R: CubeRuntime>(x: &CubeTensor<R>, y: &CubeTensor<R>) {
    let (client, dtype, len) = (x.client.clone(), x.dtype, x.meta.num_elements());
    let cube = CubeDim::new(&client, len);
    add::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, len, cube),
        cube,
        y.clone().into_array_arg(),
        x.clone().into_array_arg(),
        len,
        dtype.into(),
    );
}

/// Zeros in elements `first..first + len` of `x`.
pub(super) fn launch_clear<R: CubeRuntime>(x: &CubeTensor<R>, first: usize, len: usize) {
    let (client, dtype) = (x.client.clone(), x.dtype);
    let cube = CubeDim::new(&client, len);
    clear::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, len, cube),
        cube,
        x.clone().into_array_arg(),
        first,
        len,
        dtype.into(),
    );
}

/// Which packed rows the rows of a block are.
pub(super) struct Rows<R: CubeRuntime> {
    /// The first of consecutive rows; else the first of `index` that is meant.
    pub first: usize,
    /// Packed row of each row.
    pub index: Option<CubeTensor<R>>,
    /// Above `least` where a row is no padding; none without any.
    pub real: Option<CubeTensor<R>>,
    /// See `real`.
    pub least: f32,
}

impl<R: CubeRuntime> Rows<R> {
    /// Index and mask as operands.
    fn operands(&self, like: &CubeTensor<R>) -> [CubeTensor<R>; 2] {
        [(&self.index, DType::I32), (&self.real, DType::F32)]
            .map(|(t, dtype)| t.clone().unwrap_or_else(|| nothing(like, dtype)))
    }
}

/// Rows `x [rows, heads, hd]` of a block to their places in `out [N, heads, hd]`.
pub(super) fn launch_scatter<R: CubeRuntime>(x: &CubeTensor<R>, out: &CubeTensor<R>, rows: &Rows<R>) {
    let (client, len) = (x.client.clone(), x.meta.num_elements());
    let width = x.meta.shape()[1] * x.meta.shape()[2];
    let [index, real] = rows.operands(x);
    let types = [x.dtype.into(), index.dtype.into()];
    let cube = CubeDim::new(&client, len);
    scatter::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, len, cube),
        cube,
        x.clone().into_array_arg(),
        index.into_array_arg(),
        real.into_array_arg(),
        out.clone().into_array_arg(),
        len,
        width,
        rows.first,
        rows.index.is_some(),
        rows.real.is_some(),
        types,
    );
}

/// Parts `[b, Hkv, g, rows, hd]` of the gradients of keys and values to their places in `dk, dv [N, Hkv, hd]`, added to
/// what is there if `adding`.
pub(super) fn launch_sum_heads<R: CubeRuntime>(
    [k_parts, v_parts]: [&CubeTensor<R>; 2],
    [dk, dv]: [&CubeTensor<R>; 2],
    places: &Rows<R>,
    adding: bool,
) {
    let client = k_parts.client.clone();
    let shape = k_parts.meta.shape();
    let [b, kv_heads, g, rows, hd] = [0, 1, 2, 3, 4].map(|i| shape[i]);
    let [index, real] = places.operands(k_parts);
    let (len, dtype) = (b * rows * kv_heads * hd, index.dtype);
    let cube = CubeDim::new(&client, len);
    sum_heads::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, len, cube),
        cube,
        k_parts.clone().into_array_arg(),
        v_parts.clone().into_array_arg(),
        index.into_array_arg(),
        real.into_array_arg(),
        dk.clone().into_array_arg(),
        dv.clone().into_array_arg(),
        len,
        rows,
        kv_heads,
        g,
        hd,
        places.first,
        places.least,
        places.index.is_some(),
        places.real.is_some(),
        adding,
        dtype.into(),
    );
}
