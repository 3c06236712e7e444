//! Attention of one new token a row over a shared prompt and the row's own columns, and the write of a new column.

use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::{Tensor as Strided, *};

use super::launch::{Launch, countable, empty, float, grid, held, owned, rows_in_order, tensor};
use super::reduce::LOWEST;
use crate::attention::decode::{DecodeKv, decode_attention};
use crate::ops::plain;

/// Most and fewest columns that a cube looks at together: as many as its shared memory holds.
const TILES: [usize; 2] = [32, 8];

/// Most query heads a K/V head: a unit keeps one sum for each.
const HEADS: usize = 32;

/// Units of a cube: enough for the largest head size that the kernel takes.
const UNITS: usize = 128;

/// Shared memory that every device has, in bytes: what WebGPU promises.
const SHARED: usize = 16384;

/// Elements for a tile of keys; at the end they hold the sums of all units.
fn keys_len(tile: usize, hd: usize) -> usize {
    // One element more a column, so that units that read a column each do not meet in one bank.
    (tile * (hd + 1)).max(UNITS)
}

/// Shared memory of a cube in bytes.
fn shared_bytes(tile: usize, g: usize, hd: usize) -> usize {
    4 * (g * hd + keys_len(tile, hd) + g * tile + 3 * g)
}

/// Adds the columns `0..columns` of `k, v [.., columns, hd]`, matrix `at`, to the softmax so far: `top [g]` the largest
/// score, `sums [g]` of the exponentials, `acc [g]` the mix of one element of the values. A unit mixes element `lane`
/// of the columns `slot + i slots` of a tile; those with `slot >= slots` only help with scores.
#[cube]
fn attend<F: Float>(
    q: &SharedMemory<f32>,
    k: &Strided<F>,
    v: &Strided<F>,
    mask: &Array<f32>,
    at: usize,
    columns: usize,
    keys: &mut SharedMemory<f32>,
    scores: &mut SharedMemory<f32>,
    top: &mut SharedMemory<f32>,
    sums: &mut SharedMemory<f32>,
    decay: &mut SharedMemory<f32>,
    acc: &mut Array<f32>,
    #[comptime] tile: usize,
    #[comptime] g: usize,
    #[comptime] hd: usize,
    #[comptime] masked: bool,
) {
    let unit = UNIT_POS as usize;
    let slots = comptime!(UNITS / hd);
    let (slot, lane) = (unit / hd, unit % hd);
    let mut start = 0usize;
    while start < columns {
        let width = select(columns - start < tile, columns - start, tile);
        let mut i = unit;
        while i < width * hd {
            let (c, e) = (i / hd, i % hd);
            keys[c * comptime!(hd + 1) + e] = f32::cast_from(k[at * k.stride(0) + (start + c) * k.stride(1) + e]);
            i += UNITS;
        }
        sync_cube();
        let mut i = unit;
        while i < comptime!(g * tile) {
            let (row, c) = (i / tile, i % tile);
            let mut score = f32::new(LOWEST);
            if c < width {
                score = 0.0f32;
                for e in 0..hd {
                    score += q[row * hd + e] * keys[c * comptime!(hd + 1) + e];
                }
                if comptime!(masked) {
                    score += mask[at * columns + start + c];
                }
            }
            scores[i] = score;
            i += UNITS;
        }
        sync_cube();
        if unit < g {
            let mut most = top[unit];
            for c in 0..width {
                let s = scores[unit * tile + c];
                most = select(s > most, s, most);
            }
            decay[unit] = (top[unit] - most).exp();
            top[unit] = most;
        }
        sync_cube();
        let mut i = unit;
        while i < comptime!(g * tile) {
            let (row, c) = (i / tile, i % tile);
            scores[i] = select(c < width, (scores[i] - top[row]).exp(), 0.0f32);
            i += UNITS;
        }
        sync_cube();
        if unit < g {
            let mut more = 0.0f32;
            for c in 0..width {
                more += scores[unit * tile + c];
            }
            sums[unit] = sums[unit] * decay[unit] + more;
        }
        #[unroll]
        for row in 0..g {
            acc[row] = acc[row] * decay[row];
        }
        if slot < slots {
            let mut c = slot;
            while c < width {
                let value = f32::cast_from(v[at * v.stride(0) + (start + c) * v.stride(1) + lane]);
                #[unroll]
                for row in 0..g {
                    acc[row] = acc[row] + scores[row * tile + c] * value;
                }
                c += slots;
            }
        }
        // The next tile writes over the scores.
        sync_cube();
        start += tile;
    }
}

/// One cube a row of `q [rows, g, hd]`: prompt `row / n` of `pk, pv [rows / n, p, hd]` and its mask `[rows / n, p]`,
/// then the first `len` columns of `k, v [rows, capacity, hd]`. The softmax is kept as a running maximum and sum, so
/// nothing as long as the columns exists.
#[cube(launch)]
fn forward<F: Float>(
    q: &Array<F>,
    pk: &Strided<F>,
    pv: &Strided<F>,
    mask: &Array<f32>,
    k: &Strided<F>,
    v: &Strided<F>,
    out: &mut Array<F>,
    rows: usize,
    n: usize,
    p: usize,
    len: usize,
    scale: f32,
    #[comptime] tile: usize,
    #[comptime] g: usize,
    #[comptime] hd: usize,
    #[comptime] masked: bool,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let mut query = SharedMemory::<f32>::new(g * hd);
    // Also holds the mixes of all units at the end.
    let mut keys = SharedMemory::<f32>::new(comptime!(keys_len(tile, hd)));
    let mut scores = SharedMemory::<f32>::new(g * tile);
    let mut top = SharedMemory::<f32>::new(g);
    let mut sums = SharedMemory::<f32>::new(g);
    let mut decay = SharedMemory::<f32>::new(g);
    let mut acc = Array::<f32>::new(g);
    let mut i = unit;
    while i < comptime!(g * hd) {
        query[i] = f32::cast_from(q[row * comptime!(g * hd) + i]) * scale;
        i += UNITS;
    }
    if unit < g {
        top[unit] = f32::new(LOWEST);
        sums[unit] = 0.0f32;
    }
    #[unroll]
    for r in 0..g {
        acc[r] = 0.0f32;
    }
    sync_cube();
    attend::<F>(
        &query,
        pk,
        pv,
        mask,
        row / n,
        p,
        &mut keys,
        &mut scores,
        &mut top,
        &mut sums,
        &mut decay,
        &mut acc,
        tile,
        g,
        hd,
        masked,
    );
    attend::<F>(
        &query,
        k,
        v,
        mask,
        row,
        len,
        &mut keys,
        &mut scores,
        &mut top,
        &mut sums,
        &mut decay,
        &mut acc,
        tile,
        g,
        hd,
        false,
    );
    let slots = comptime!(UNITS / hd);
    let (slot, lane) = (unit / hd, unit % hd);
    #[unroll]
    for r in 0..g {
        if slot < slots {
            keys[slot * hd + lane] = acc[r];
        }
        sync_cube();
        if unit < hd {
            let mut mix = 0.0f32;
            for s in 0..slots {
                mix += keys[s * hd + unit];
            }
            out[(row * g + r) * hd + unit] = F::cast_from(mix / sums[r]);
        }
        sync_cube();
    }
}

/// `value [rows, hd]` into column `at` of `cache [rows, capacity, hd]`.
#[cube(launch)]
fn write<F: Float>(
    value: &Array<F>,
    cache: &mut Array<F>,
    elements: usize,
    hd: usize,
    capacity: usize,
    at: usize,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= elements {
        terminate!();
    }
    cache[(i / hd * capacity + at) * hd + i % hd] = value[i];
}

fn launch_attention<R: CubeRuntime>(
    [q, pk, pv, mask, k, v]: [CubeTensor<R>; 6],
    masked: bool,
    n: usize,
    len: usize,
) -> CubeTensor<R> {
    let (q, mask) = (into_contiguous(q), into_contiguous(mask));
    let [pk, pv, k, v] = [pk, pv, k, v].map(rows_in_order);
    let (client, dtype) = (q.client.clone(), q.dtype);
    let shape = q.meta.shape().clone();
    let (rows, g, hd, p) = (shape[0], shape[1], shape[2], pk.meta.shape()[1]);
    let out = empty(&q, shape, dtype);
    let room = client.properties().hardware.max_shared_memory_size.max(SHARED);
    let [mut tile, fewest] = TILES;
    while tile > fewest && shared_bytes(tile, g, hd) > room {
        tile /= 2;
    }
    forward::launch::<R>(
        &client,
        grid(&client, rows),
        CubeDim::new_1d(UNITS as u32),
        q.into_array_arg(),
        pk.into_tensor_arg(),
        pv.into_tensor_arg(),
        mask.into_array_arg(),
        k.into_tensor_arg(),
        v.into_tensor_arg(),
        out.clone().into_array_arg(),
        rows,
        n,
        p,
        len,
        1.0 / (hd as f32).sqrt(),
        tile,
        g,
        hd,
        masked,
        dtype.into(),
    );
    out
}

fn launch_write<R: CubeRuntime>(cache: CubeTensor<R>, value: CubeTensor<R>, at: usize) -> CubeTensor<R> {
    let (cache, value) = (owned(cache), into_contiguous(value));
    let (client, dtype, elements) = (cache.client.clone(), cache.dtype, value.meta.num_elements());
    let (capacity, hd) = (cache.meta.shape()[1], cache.meta.shape()[2]);
    if elements == 0 {
        return cache;
    }
    let cube = CubeDim::new(&client, elements);
    write::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, elements, cube),
        cube,
        value.into_array_arg(),
        cache.clone().into_array_arg(),
        elements,
        hd,
        capacity,
        at,
        dtype.into(),
    );
    cache
}

/// See [`Kernels::decode_attention`](crate::Kernels::decode_attention). The default where types differ, a prompt is
/// empty, a head has more than 128 elements, or there are so many query heads a K/V head that no tile fits WebGPU's
/// least shared memory.
pub(super) fn attention<B: Launch>(q: Tensor<B, 3>, kv: DecodeKv<B>) -> Tensor<B, 3> {
    let ([rows, g, hd], dtype) = (q.dims(), q.dtype());
    if rows * g * hd == 0 {
        return q;
    }
    let caches = [&kv.prefix.0, &kv.prefix.1, &kv.own.0, &kv.own.1];
    let typed = float(dtype) && caches.iter().all(|t| t.dtype() == dtype);
    let mask_typed = kv.prefix_mask.as_ref().is_none_or(|m| m.dtype() == DType::F32);
    let sized = hd <= UNITS && g <= HEADS && shared_bytes(TILES[1], g, hd) <= SHARED;
    let filled = kv.n > 0 && kv.len > 0 && kv.prefix.0.dims()[1] > 0;
    if !typed || !mask_typed || !sized || !filled || !countable(caches.map(|t| t.shape())) {
        return decode_attention(q, kv);
    }
    let (n, len, masked) = (kv.n, kv.len, kv.prefix_mask.is_some());
    // A kernel has a fixed number of operands: without a mask any small f32 tensor stands in for it, unread.
    let mask = kv.prefix_mask.unwrap_or_else(|| Tensor::zeros([1, 1, 1], (&q.device(), DType::F32)));
    let inputs = [held(q), held(kv.prefix.0), held(kv.prefix.1), held(mask), held(kv.own.0), held(kv.own.1)];
    tensor(launch_attention(inputs, masked, n, len))
}

/// See [`Kernels::write_column`](crate::Kernels::write_column). The default where types or sizes do not match.
pub(super) fn write_column<B: Launch>(cache: Tensor<B, 3>, at: usize, value: Tensor<B, 3>) -> Tensor<B, 3> {
    let (shape, dtype) = (cache.shape(), cache.dtype());
    let [rows, capacity, hd] = cache.dims();
    let sized = value.dims() == [rows, 1, hd] && at < capacity;
    if !float(dtype) || value.dtype() != dtype || !sized || !countable([shape]) {
        return plain::write_column(cache, at, value);
    }
    tensor(launch_write(held(cache), held(value), at))
}
