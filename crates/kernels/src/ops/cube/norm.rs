//! RMSNorm, with the residual connection before it and, in the backward, around it: one cube a row, and one cube a
//! block of rows in the backward. Every unit keeps its share of a row in registers, so that each is read once.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{Launch, countable, empty, float, grid, held, tensor, units, vector};
use super::reduce::sum;
use crate::ops::plain;
use crate::params::zeros;

/// Most blocks of rows that the gradient of the weight is summed in first.
const BLOCKS: usize = 256;

/// Most vectors of a row that a unit keeps.
const COLUMNS: usize = 8;

/// The sum of a vector's elements.
#[cube]
fn across<N: Size>(v: Vector<f32, N>) -> f32 {
    let mut total = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        total += v[k];
    }
    total
}

/// The root of the mean square of a row of `d` vectors, of which this unit has `row`.
#[cube]
fn rms<F: Float, N: Size>(
    row: &Array<Vector<F, N>>,
    d: usize,
    eps: f32,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
    #[comptime] columns: usize,
) -> f32 {
    let mut squares = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..columns {
        if UNIT_POS as usize + k * units < d {
            let v = Vector::<f32, N>::cast_from(row[k]);
            squares += v * v;
        }
    }
    let total = sum(across::<N>(squares), shared, units);
    (total / f32::cast_from(d * N::value()) + eps).sqrt()
}

/// `x [rows, d]`, `weight [d]`, in vectors of `N`, to `y [rows, d]`. Where there is a `residual`, `x` and it are added
/// first and their sum goes to `total`, too.
#[cube(launch)]
fn forward<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    residual: &ComptimeOption<Array<Vector<F, N>>>,
    weight: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    total: &mut ComptimeOption<Array<Vector<F, N>>>,
    rows: usize,
    d: usize,
    eps: f32,
    #[comptime] units: usize,
    #[comptime] columns: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(units);
    let mut kept = Array::<Vector<F, N>>::new(columns);
    #[unroll]
    for k in 0..columns {
        let i = UNIT_POS as usize + k * units;
        if i < d {
            let at = row * d + i;
            let mut v = x[at];
            #[comptime]
            match residual {
                ComptimeOption::Some(residual) => {
                    v += residual[at];
                }
                ComptimeOption::None => {}
            }
            #[comptime]
            match total {
                ComptimeOption::Some(total) => {
                    total[at] = v;
                }
                ComptimeOption::None => {}
            }
            kept[k] = v;
        }
    }
    let rms = Vector::<f32, N>::new(rms::<F, N>(&kept, d, eps, &mut shared, units, columns));
    #[unroll]
    for k in 0..columns {
        let i = UNIT_POS as usize + k * units;
        if i < d {
            y[row * d + i] = Vector::cast_from(Vector::<f32, N>::cast_from(kept[k]) / rms) * weight[i];
        }
    }
}

/// `x, dy [rows, d]`, `weight [d]`, in vectors of `N`, to `dx [rows, d]`, to which `residual` is added where there is
/// one, and for each of `blocks` blocks of rows to its part of the weight's gradient, `parts [blocks, d]`. A unit owns
/// its columns, so nothing is added by two units.
#[cube(launch)]
fn backward<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    weight: &Array<Vector<F, N>>,
    dy: &Array<Vector<F, N>>,
    residual: &ComptimeOption<Array<Vector<F, N>>>,
    dx: &mut Array<Vector<F, N>>,
    parts: &mut Array<Vector<f32, N>>,
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
    let mut kept = Array::<Vector<F, N>>::new(columns);
    let mut slopes = Array::<Vector<f32, N>>::new(columns);
    let mut dweight = Array::<Vector<f32, N>>::new(columns);
    #[unroll]
    for k in 0..columns {
        dweight[k] = Vector::<f32, N>::new(0.0f32);
    }
    let each = rows.div_ceil(blocks);
    let start = block * each;
    let end = select(start + each < rows, start + each, rows);
    for row in start..end {
        #[unroll]
        for k in 0..columns {
            let i = unit + k * units;
            if i < d {
                kept[k] = x[row * d + i];
                slopes[k] = Vector::<f32, N>::cast_from(dy[row * d + i]);
            }
        }
        let rms = Vector::<f32, N>::new(rms::<F, N>(&kept, d, eps, &mut shared, units, columns));
        let mut products = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for k in 0..columns {
            let i = unit + k * units;
            if i < d {
                let normed = Vector::<f32, N>::cast_from(kept[k]) / rms;
                dweight[k] += slopes[k] * normed;
                products += slopes[k] * Vector::<f32, N>::cast_from(weight[i]) * normed;
            }
        }
        let all = sum(across::<N>(products), &mut shared, units);
        let mean = Vector::<f32, N>::new(all / f32::cast_from(d * N::value()));
        #[unroll]
        for k in 0..columns {
            let i = unit + k * units;
            if i < d {
                let normed = Vector::<f32, N>::cast_from(kept[k]) / rms;
                let g = slopes[k] * Vector::<f32, N>::cast_from(weight[i]);
                let mut slope = (g - normed * mean) / rms;
                #[comptime]
                match residual {
                    ComptimeOption::Some(residual) => {
                        slope += Vector::<f32, N>::cast_from(residual[row * d + i]);
                    }
                    ComptimeOption::None => {}
                }
                dx[row * d + i] = Vector::cast_from(slope);
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

/// How a row of `d` elements is shared out: elements of a vector, vectors of a row, units of a cube, vectors of a unit.
struct Shares {
    width: usize,
    vectors: usize,
    units: usize,
    columns: usize,
}

impl Shares {
    /// For rows of which `operands` have whole numbers.
    fn of<R: CubeRuntime>(d: usize, operands: &[&CubeTensor<R>]) -> Self {
        let width = if d.is_multiple_of(4) { operands.iter().map(|t| vector(t)).min().unwrap_or(1) } else { 1 };
        let units = operands.first().map_or(1, |t| units(&t.client, d / width));
        Self { width, vectors: d / width, units, columns: (d / width).div_ceil(units) }
    }
}

/// Whether a row of `d` elements fits into the registers of a cube, whatever vectors it is read in.
fn fits(d: usize) -> bool {
    d <= COLUMNS * 256 || (d.is_multiple_of(4) && d <= 4 * COLUMNS * 256)
}

fn launch_forward<R: CubeRuntime>(
    x: CubeTensor<R>,
    residual: Option<CubeTensor<R>>,
    weight: CubeTensor<R>,
    eps: f32,
) -> (CubeTensor<R>, Option<CubeTensor<R>>) {
    let (x, residual, weight) = (into_contiguous(x), residual.map(into_contiguous), into_contiguous(weight));
    let (client, dtype) = (x.client.clone(), x.dtype);
    let (rows, d) = (x.meta.shape()[0], x.meta.shape()[1]);
    let out = || empty(&x, Shape::new([rows, d]), dtype);
    let (y, total) = (out(), residual.as_ref().map(|_| out()));
    if rows * d == 0 {
        return (y, total);
    }
    let operands: Vec<_> = [&x, &weight].into_iter().chain(&residual).collect();
    let Shares { width, vectors, units, columns } = Shares::of(d, &operands);
    forward::launch::<R>(
        &client,
        grid(&client, rows),
        CubeDim::new_1d(units as u32),
        width,
        x.into_array_arg(),
        residual.map(CubeTensor::into_array_arg).into(),
        weight.into_array_arg(),
        y.clone().into_array_arg(),
        total.clone().map(CubeTensor::into_array_arg).into(),
        rows,
        vectors,
        eps,
        units,
        columns,
        dtype.into(),
    );
    (y, total)
}

fn launch_backward<R: CubeRuntime>(
    [x, weight, dy]: [CubeTensor<R>; 3],
    residual: Option<CubeTensor<R>>,
    eps: f32,
) -> [CubeTensor<R>; 2] {
    let (x, weight, dy) = (into_contiguous(x), into_contiguous(weight), into_contiguous(dy));
    let residual = residual.map(into_contiguous);
    let (client, dtype) = (x.client.clone(), x.dtype);
    let (rows, d) = (x.meta.shape()[0], x.meta.shape()[1]);
    let blocks = rows.min(BLOCKS);
    let dx = empty(&x, Shape::new([rows, d]), dtype);
    let parts = empty(&x, Shape::new([blocks, d]), DType::F32);
    let operands: Vec<_> = [&x, &weight, &dy].into_iter().chain(&residual).collect();
    let Shares { width, vectors, units, columns } = Shares::of(d, &operands);
    backward::launch::<R>(
        &client,
        grid(&client, blocks),
        CubeDim::new_1d(units as u32),
        width,
        x.into_array_arg(),
        weight.into_array_arg(),
        dy.into_array_arg(),
        residual.map(CubeTensor::into_array_arg).into(),
        dx.clone().into_array_arg(),
        parts.clone().into_array_arg(),
        rows,
        blocks,
        vectors,
        eps,
        units,
        columns,
        dtype.into(),
    );
    [dx, parts]
}

/// Whether the kernels take rows like those of `x` and a weight of type `weight`.
fn covered<B: Launch>(x: &Tensor<B, 2>, weight: DType) -> bool {
    float(x.dtype()) && weight == x.dtype() && fits(x.dims()[1]) && countable([x.shape()])
}

/// See [`Kernels::rms_norm`](crate::Kernels::rms_norm). The default where the types of `x` and `weight` differ, or a
/// row is too long.
pub(super) fn rms_norm<B: Launch>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    if !covered(&x, weight.dtype()) {
        return plain::rms_norm(x, weight, eps);
    }
    tensor(launch_forward(held(x), None, held(weight), eps as f32).0)
}

/// See [`Kernels::add_rms_norm`](crate::Kernels::add_rms_norm). The default where types differ, or a row is too long.
pub(super) fn add_rms_norm<B: Launch>(
    x: Tensor<B, 2>,
    residual: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    if !covered(&x, weight.dtype()) || residual.dtype() != x.dtype() || residual.dims() != x.dims() {
        return plain::add_rms_norm(x, residual, weight, eps);
    }
    match launch_forward(held(x), Some(held(residual)), held(weight), eps as f32) {
        (y, Some(total)) => (tensor(total), tensor(y)),
        (_, None) => unreachable!("a residual was given"),
    }
}

/// See [`Kernels::rms_norm_backward`](crate::Kernels::rms_norm_backward). The default where types differ, or a row is
/// too long.
pub(super) fn rms_norm_backward<B: Launch>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
    dy: Tensor<B, 2>,
    residual: Option<Tensor<B, 2>>,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let like = |t: &Tensor<B, 2>| t.dtype() == x.dtype() && t.dims() == x.dims();
    let [rows, d] = x.dims();
    if rows * d == 0 {
        return (x, zeros([0, d], &dy.device(), DType::F32));
    }
    if !covered(&x, weight.dtype()) || !like(&dy) || !residual.as_ref().is_none_or(like) {
        return plain::rms_norm_backward(x, weight, eps, dy, residual);
    }
    let [dx, parts] = launch_backward([held(x), held(weight), held(dy)], residual.map(held), eps as f32);
    (tensor(dx), tensor(parts))
}
