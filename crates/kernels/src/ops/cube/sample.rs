//! Tokens out of logits: one cube a row, whatever the rows' settings.

use burn::tensor::{DType, Int, Shape, Tensor, TensorData};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{Launch, countable, empty, float, grid, held, int_tensor, tensor, units};
use super::reduce::{LOWEST, max, sum};
use crate::sampling::{self, BISECTIONS, FLOOR, RowChoice};

/// Numbers that a row's choice takes: its uniform number, inverse temperature, nucleus (2 for none), and 1 for greedy.
const SETTINGS: usize = 4;

/// A row of logits as it is drawn from.
#[derive(CubeType, Clone, Copy)]
struct Row {
    /// Its first vector of the logits.
    first: usize,
    /// Vectors of a row.
    vectors: usize,
    inverse: f32,
    /// The first vector of its mask.
    mask: usize,
}

/// Logits of vector `i` at the row's temperature.
#[cube]
fn scaled<F: Float, N: Size>(logits: &Array<Vector<F, N>>, row: &Row, i: usize) -> Vector<f32, N> {
    Vector::<f32, N>::cast_from(logits[row.first + i]) * Vector::<f32, N>::new(row.inverse)
}

/// The same, of tokens that may be drawn.
#[cube]
fn allowed<F: Float, N: Size>(
    logits: &Array<Vector<F, N>>,
    masks: &Array<Vector<f32, N>>,
    row: &Row,
    i: usize,
    #[comptime] masked: bool,
) -> Vector<f32, N> {
    let z = scaled::<F, N>(logits, row, i);
    if comptime!(masked) { z + masks[row.mask + i] } else { z }
}

/// The sum of the exponentials of vector `i` below `top` that are at least `threshold`.
#[cube]
fn mass<F: Float, N: Size>(
    logits: &Array<Vector<F, N>>,
    masks: &Array<Vector<f32, N>>,
    row: &Row,
    i: usize,
    top: f32,
    threshold: f32,
    #[comptime] vector: usize,
    #[comptime] masked: bool,
) -> f32 {
    let z = allowed::<F, N>(logits, masks, row, i, masked);
    let mut total = 0.0f32;
    #[unroll]
    for e in 0..vector {
        let p = (z[e] - top).exp();
        total += select(p >= threshold, p, 0.0f32);
    }
    total
}

/// [`mass`] of the whole row, in every unit.
#[cube]
fn whole_mass<F: Float, N: Size>(
    logits: &Array<Vector<F, N>>,
    masks: &Array<Vector<f32, N>>,
    row: &Row,
    top: f32,
    threshold: f32,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
    #[comptime] vector: usize,
    #[comptime] masked: bool,
) -> f32 {
    let mut total = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < row.vectors {
        total += mass::<F, N>(logits, masks, row, i, top, threshold, vector, masked);
        i += units;
    }
    sum(total, shared, units)
}

/// The first unit up to which the `value`s of all units exceed the share `u` of their total, and how far into its value
/// the share reaches, as a share again; the same in every unit. A value of zero is never picked.
#[cube]
fn pick(
    value: f32,
    u: f32,
    values: &mut SharedMemory<f32>,
    sums: &mut SharedMemory<f32>,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
) -> (usize, f32) {
    let unit = UNIT_POS as usize;
    values[unit] = value;
    sums[unit] = value;
    sync_cube();
    let steps = comptime!(units.ilog2() as usize);
    #[unroll]
    for step in 0..steps {
        let distance = comptime!(1usize << step);
        let mut more = 0.0f32;
        if unit >= distance {
            more = sums[unit - distance];
        }
        sync_cube();
        sums[unit] = sums[unit] + more;
        sync_cube();
    }
    let target = sums[units - 1] * below_one(u);
    let passed = sum(select(sums[unit] <= target, 1.0f32, 0.0f32), shared, units);
    let most = f32::cast_from(units - 1);
    let at = u32::cast_from(select(passed < most, passed, most)) as usize;
    let own = values[at];
    let share = (target - (sums[at] - own)) / select(own > 1.0e-30f32, own, 1.0e-30f32);
    // The next pick writes to the same memory.
    sync_cube();
    (at, select(share > 0.0f32, select(share < 1.0f32, share, 1.0f32), 0.0f32))
}

/// At most what keeps a target below the total.
#[cube]
fn below_one(u: f32) -> f32 {
    select(u < 0.999_999f32, u, 0.999_999f32)
}

/// The token of each row at which the cumulative probability passes the share `u`: first among runs of vectors, a run a
/// unit, then among the vectors of a run, then inside those.
#[cube]
fn invert<F: Float, N: Size>(
    logits: &Array<Vector<F, N>>,
    masks: &Array<Vector<f32, N>>,
    row: &Row,
    top: f32,
    threshold: f32,
    u: f32,
    values: &mut SharedMemory<f32>,
    sums: &mut SharedMemory<f32>,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
    #[comptime] vector: usize,
    #[comptime] masked: bool,
) -> usize {
    let unit = UNIT_POS as usize;
    let run = row.vectors.div_ceil(units);
    let mut total = 0.0f32;
    let mut i = unit * run;
    while i < select((unit + 1) * run < row.vectors, (unit + 1) * run, row.vectors) {
        total += mass::<F, N>(logits, masks, row, i, top, threshold, vector, masked);
        i += 1usize;
    }
    let (at, u) = pick(total, u, values, sums, shared, units);
    let (start, end) = (at * run, select((at + 1) * run < row.vectors, (at + 1) * run, row.vectors));
    let run = run.div_ceil(units);
    let mut total = 0.0f32;
    let mut i = start + unit * run;
    while i < select(start + (unit + 1) * run < end, start + (unit + 1) * run, end) {
        total += mass::<F, N>(logits, masks, row, i, top, threshold, vector, masked);
        i += 1usize;
    }
    let (at, u) = pick(total, u, values, sums, shared, units);
    let (start, end) = (start + at * run, select(start + (at + 1) * run < end, start + (at + 1) * run, end));
    let mut total = 0.0f32;
    let mut i = start;
    while i < end {
        total += mass::<F, N>(logits, masks, row, i, top, threshold, vector, masked);
        i += 1usize;
    }
    let target = total * below_one(u);
    let mut cumulative = 0.0f32;
    let mut passed = 0usize;
    let mut i = start;
    while i < end {
        let z = allowed::<F, N>(logits, masks, row, i, masked);
        #[unroll]
        for e in 0..vector {
            let p = (z[e] - top).exp();
            cumulative += select(p >= threshold, p, 0.0f32);
            passed += select(cumulative <= target, 1usize, 0usize);
        }
        i += 1usize;
    }
    start * vector + passed
}

/// The largest logit of a row, the largest that may be drawn, and minus the place of that one, the first of several;
/// minus 2^24 where none is a number.
#[cube]
fn likeliest<F: Float, N: Size>(
    logits: &Array<Vector<F, N>>,
    masks: &Array<Vector<f32, N>>,
    row: &Row,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
    #[comptime] vector: usize,
    #[comptime] masked: bool,
) -> (f32, f32, f32) {
    let mut highest = f32::new(LOWEST);
    let mut best = f32::new(LOWEST);
    let mut place = 0usize;
    let mut i = UNIT_POS as usize;
    while i < row.vectors {
        let z = scaled::<F, N>(logits, row, i);
        let a = allowed::<F, N>(logits, masks, row, i, masked);
        #[unroll]
        for e in 0..vector {
            highest = select(z[e] > highest, z[e], highest);
            if a[e] > best {
                best = a[e];
                place = i * vector + e;
            }
        }
        i += units;
    }
    let highest = max(highest, shared, units);
    let top = max(best, shared, units);
    // Places are whole numbers below 2^24, which f32 holds.
    let first = max(select(best >= top, -f32::cast_from(place), -16777216.0f32), shared, units);
    (highest, top, first)
}

/// The least probability, up to a factor that makes the largest 1, of the tokens of a row's nucleus: the fewest
/// likeliest that reach `share`.
#[cube]
fn nucleus<F: Float, N: Size>(
    logits: &Array<Vector<F, N>>,
    masks: &Array<Vector<f32, N>>,
    row: &Row,
    top: f32,
    share: f32,
    shared: &mut SharedMemory<f32>,
    #[comptime] units: usize,
    #[comptime] vector: usize,
    #[comptime] masked: bool,
) -> f32 {
    let target = share * whole_mass::<F, N>(logits, masks, row, top, 0.0f32, shared, units, vector, masked);
    // The largest threshold whose tokens still reach the target lies in [low, high].
    let mut low = f32::new(comptime!(FLOOR.ln() as f32));
    let mut high = 0.0f32;
    let mut bisection = 0usize;
    while bisection < BISECTIONS {
        let middle = (low + high) * 0.5f32;
        let mass = whole_mass::<F, N>(logits, masks, row, top, middle.exp(), shared, units, vector, masked);
        let reaches = mass >= target;
        low = select(reaches, middle, low);
        high = select(reaches, high, middle);
        bisection += 1usize;
    }
    low.exp()
}

/// One token for each of `rows` rows of `logits [rows, vectors]`: `ids` and `log_probs [rows]`. `choices [rows, 4]`,
/// `masks [1 or rows, vectors]`.
#[cube(launch)]
fn rows<F: Float, N: Size>(
    logits: &Array<Vector<F, N>>,
    masks: &Array<Vector<f32, N>>,
    choices: &Array<f32>,
    ids: &mut Array<i32>,
    log_probs: &mut Array<f32>,
    count: usize,
    vectors: usize,
    mask_rows: usize,
    #[comptime] units: usize,
    #[comptime] vector: usize,
    #[comptime] masked: bool,
    #[define(F)] _dtype: StorageType,
) {
    let at = CUBE_POS;
    if at >= count {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut shared = SharedMemory::<f32>::new(units);
    let mut values = SharedMemory::<f32>::new(units);
    let mut sums = SharedMemory::<f32>::new(units);
    let set = at * SETTINGS;
    let (u, inverse, share, greedy) = (choices[set], choices[set + 1], choices[set + 2], choices[set + 3]);
    let mask = select(mask_rows > 1, at, 0usize) * vectors;
    let row = Row { first: at * vectors, vectors, inverse, mask };
    let (highest, top, first) = likeliest::<F, N>(logits, masks, &row, &mut shared, units, vector, masked);
    let mut total = 0.0f32;
    let mut i = unit;
    while i < vectors {
        let z = scaled::<F, N>(logits, &row, i);
        #[unroll]
        for e in 0..vector {
            total += (z[e] - highest).exp();
        }
        i += units;
    }
    let all = sum(total, &mut shared, units).ln() + highest;
    let mut threshold = 0.0f32;
    if share < 1.0f32 {
        threshold = nucleus::<F, N>(logits, masks, &row, top, share, &mut shared, units, vector, masked);
    }
    let drawn = invert::<F, N>(
        logits,
        masks,
        &row,
        top,
        threshold,
        u,
        &mut values,
        &mut sums,
        &mut shared,
        units,
        vector,
        masked,
    );
    if unit == 0 {
        let best = u32::cast_from(select(first > -16777216.0f32, -first, 0.0f32)) as usize;
        let id = select(greedy > 0.5f32, best, drawn);
        let id = select(id < vectors * vector, id, 0usize);
        let z = scaled::<F, N>(logits, &row, id / vector);
        let mut own = 0.0f32;
        #[unroll]
        for e in 0..vector {
            own = select(id % vector == e, z[e], own);
        }
        ids[at] = i32::cast_from(id);
        log_probs[at] = own - all;
    }
}

fn launch<R: CubeRuntime>(
    logits: CubeTensor<R>,
    masks: Option<CubeTensor<R>>,
    choices: CubeTensor<R>,
) -> [CubeTensor<R>; 2] {
    let (client, dtype) = (logits.client.clone(), logits.dtype);
    let (count, vocab) = (logits.meta.shape()[0], logits.meta.shape()[1]);
    let vector = client.io_optimized_vector_sizes(dtype.size()).find(|vector| vocab % vector == 0).unwrap_or(1);
    let ids = empty(&logits, Shape::new([count]), DType::I32);
    let log_probs = empty(&logits, Shape::new([count]), DType::F32);
    let units = units(&client, vocab / vector);
    let vectors = |t: CubeTensor<R>| {
        let len = t.meta.num_elements() / vector;
        // SAFETY: the tensor is contiguous, and `len` vectors are what it holds.
        unsafe { ArrayArg::from_raw_parts(t.handle, len) }
    };
    let (masked, mask_rows) = (masks.is_some(), masks.as_ref().map_or(1, |masks| masks.meta.shape()[0]));
    rows::launch::<R>(
        &client,
        grid(&client, count),
        CubeDim::new_1d(units as u32),
        vector,
        vectors(logits),
        // A kernel has a fixed number of operands: the choices stand in, unread, for masks that are not there.
        vectors(masks.unwrap_or_else(|| choices.clone())),
        choices.into_array_arg(),
        ids.clone().into_array_arg(),
        log_probs.clone().into_array_arg(),
        count,
        vocab / vector,
        mask_rows,
        units,
        vector,
        masked,
        dtype.into(),
    );
    [ids, log_probs]
}

/// See [`Kernels::sample`](crate::Kernels::sample). The default where types differ or a vocabulary is beyond 2^24.
pub(super) fn sample<B: Launch>(
    logits: Tensor<B, 2>,
    choices: &[RowChoice],
    forbidden: Option<&Tensor<B, 2>>,
) -> (Tensor<B, 1, Int>, Tensor<B, 1>) {
    let [count, vocab] = logits.dims();
    let mask_fits = forbidden.is_none_or(|m| {
        let [rows, width] = m.dims();
        m.dtype() == DType::F32 && width == vocab && (rows == 1 || rows == count) && countable([m.shape()])
    });
    let sized = count * vocab > 0 && vocab < 1 << 24 && choices.len() == count && countable([logits.shape()]);
    if !float(logits.dtype()) || !mask_fits || !sized {
        return sampling::sample(logits, choices, forbidden);
    }
    let settings = choices.iter().flat_map(|row| {
        let greedy = row.temperature == 0.0;
        let inverse = if greedy { 1.0 } else { 1.0 / row.temperature };
        // A greedy row has no use for its nucleus.
        let share = if greedy || row.top_p >= 1.0 { 2.0 } else { row.top_p };
        [row.uniform, inverse as f32, share as f32, f32::from(u8::from(greedy))]
    });
    let data = TensorData::new(settings.collect(), [count * SETTINGS]);
    let settings = held(Tensor::<B, 1>::from_data(data, (&logits.device(), DType::F32)));
    let masks = forbidden.map(|masks| into_contiguous(held(masks.clone())));
    let [ids, log_probs] = launch(into_contiguous(held(logits)), masks, settings);
    (int_tensor(ids), tensor(log_probs))
}
