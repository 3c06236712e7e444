//! Gradients: their sums over passes, in place, and the norm of all of them in few launches.

use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::launch::{Launch, array_part, countable, empty, float, grid, held, held_int, owned, tensor, units, vector};
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

/// `values [m, d]` added to the rows `rows [m]` of `table [height, d]`: the first of all places that name a row adds the
/// values of all of them, in their order, one cube a place.
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

/// Elements of which one cube sums the squares.
const BLOCK: usize = 1 << 16;

/// Tensors of one launch at most.
const TOGETHER: usize = 32;

/// Sums of squares of blocks of several tensors. Tensor `t` has `lens[t]` vectors of `N` and its blocks are the cubes
/// before `ends[t]`; they go to `parts`, from `first` on.
#[cube(launch_unchecked)]
fn squares<G: Float, N: Size>(
    grads: &Sequence<Array<Vector<G, N>>>,
    lens: &Sequence<usize>,
    ends: &Sequence<usize>,
    parts: &mut Array<f32>,
    first: usize,
    #[comptime] block: usize,
    #[comptime] units: usize,
    #[define(G)] _type: StorageType,
) {
    let cube = CUBE_POS;
    let mut shared = SharedMemory::<f32>::new(units);
    let mut squares = 0.0f32;
    let mut last = 0usize;
    let mut begin = 0usize;
    #[unroll]
    for t in 0..grads.len() {
        let end = *ends.index(t);
        if cube >= begin {
            if cube < end {
                squares = of_block::<G, N>(grads.index(t), *lens.index(t), cube - begin, block, units);
            }
        }
        begin = end;
        last = end;
    }
    // Every unit of the cube comes here: the sum waits for all of them.
    let total = sum(squares, &mut shared, units);
    if cube < last {
        if UNIT_POS == 0 {
            parts[first + cube] = total;
        }
    }
}

/// What this unit adds to the sum of squares of block `at`.
#[cube]
fn of_block<G: Float, N: Size>(
    grad: &Array<Vector<G, N>>,
    len: usize,
    at: usize,
    #[comptime] block: usize,
    #[comptime] units: usize,
) -> f32 {
    let start = at * block;
    let stop = select(start + block < len, start + block, len);
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut i = start + UNIT_POS as usize;
    while i < stop {
        let g = Vector::<f32, N>::cast_from(grad[i]);
        squares += g * g;
        i += units;
    }
    let mut total = 0.0f32;
    #[unroll]
    for k in 0..comptime!(N::value()) {
        total += squares[k];
    }
    total
}

/// The sum of `parts [len]`, by one cube.
#[cube(launch_unchecked)]
fn total(parts: &Array<f32>, out: &mut Array<f32>, len: usize, #[comptime] units: usize) {
    let mut shared = SharedMemory::<f32>::new(units);
    let mut part = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < len {
        part += parts[i];
        i += units;
    }
    let all = sum(part, &mut shared, units);
    if UNIT_POS == 0 {
        out[0] = all;
    }
}

/// A piece of a gradient of at most [`PART`] elements.
struct Piece<R: CubeRuntime> {
    of: CubeTensor<R>,
    start: usize,
    count: usize,
    width: usize,
}

impl<R: CubeRuntime> Piece<R> {
    /// Pieces of `grad` whose elements are counted in 32 bits.
    fn all(grad: CubeTensor<R>) -> impl Iterator<Item = Self> {
        let grad = into_contiguous(grad);
        let (len, width) = (grad.meta.num_elements(), vector(&grad));
        let piece = move |start| Self { of: grad.clone(), start, count: PART.min(len - start), width };
        (0..len).step_by(PART).map(piece)
    }

    /// Cubes that it takes.
    fn cubes(&self) -> usize {
        self.count.div_ceil(BLOCK)
    }
}

fn launch_squares<R: CubeRuntime>(pieces: &[Piece<R>], parts: &CubeTensor<R>, first: usize) {
    let Some(Piece { of, width, .. }) = pieces.first() else { return };
    let client = of.client.clone();
    let units = units(&client, 256);
    let mut cubes = 0;
    let ends = pieces.iter().map(|piece| {
        cubes += piece.cubes();
        cubes
    });
    let ends: SequenceArg<R, usize> = ends.collect();
    // SAFETY: a block ends with its tensor, and `parts` has room for every block of every tensor.
    unsafe {
        squares::launch_unchecked::<R>(
            &client,
            grid(&client, cubes),
            CubeDim::new_1d(units as u32),
            *width,
            pieces.iter().map(|p| array_part(&p.of, p.start, p.count)).collect(),
            pieces.iter().map(|p| p.count / p.width).collect(),
            ends,
            parts.clone().into_array_arg(),
            first,
            BLOCK / width,
            units,
            of.dtype.into(),
        );
    }
}

fn launch_squared_norm<R: CubeRuntime>(grads: Vec<CubeTensor<R>>) -> Option<CubeTensor<R>> {
    let mut pieces: Vec<Piece<R>> = grads.into_iter().flat_map(Piece::all).collect();
    let client = pieces.first()?.of.client.clone();
    // One launch takes tensors of one type and width, and every buffer is a binding, of which a device has so many.
    pieces.sort_by_key(|piece| (piece.of.dtype.name(), piece.width));
    let bindings = (client.properties().hardware.max_bindings as usize).saturating_sub(2);
    let most = bindings.clamp(1, TOGETHER);
    let blocks: usize = pieces.iter().map(Piece::cubes).sum();
    let parts = empty(&pieces[0].of, Shape::new([blocks]), DType::F32);
    let mut first = 0;
    for alike in pieces.chunk_by(|a, b| (a.of.dtype, a.width) == (b.of.dtype, b.width)) {
        for together in alike.chunks(most) {
            launch_squares(together, &parts, first);
            first += together.iter().map(Piece::cubes).sum::<usize>();
        }
    }
    let out = empty(&parts, Shape::new([1]), DType::F32);
    let units = units(&client, 256);
    // SAFETY: `parts` has `blocks` elements, all of them written above.
    unsafe {
        total::launch_unchecked::<R>(
            &client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(units as u32),
            parts.into_array_arg(),
            out.clone().into_array_arg(),
            blocks,
            units,
        );
    }
    Some(out)
}

/// See [`Kernels::squared_norm`](crate::Kernels::squared_norm). The default where a type is not for kernels.
pub(super) fn squared_norm<B: Launch>(grads: Vec<Tensor<B, 1>>, device: &B::Device) -> Tensor<B, 1> {
    if !grads.iter().all(|g| float(g.dtype())) {
        return plain::squared_norm(grads, device);
    }
    match launch_squared_norm(grads.into_iter().map(held).collect()) {
        Some(norm) => tensor(norm),
        None => Tensor::zeros([1], (device, DType::F32)),
    }
}
