//! Attention of one new token a row over a shared prompt and the row's own columns, split over keys: each part of the
//! keys is a cube of its own, so that few rows fill a device, and a second kernel joins the parts.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::client::ComputeClient;
use cubecl::prelude::*;

use super::super::launch::{Launch, countable, empty, float, grid, held, held_int, tensor};
use super::super::reduce::LOWEST;
use crate::attention::decode::DecodeKv;
use crate::ops::{Kernels, plain};

/// Units of a cube, and keys that it looks at together: a key a unit.
const UNITS: usize = 128;

/// Most query heads a K/V head: a unit keeps a score and a part of a mix for each.
const HEADS: usize = 16;

/// Cubes that are wanted: several for each processor of a large device.
const CUBES: usize = 1024;

/// Shared memory that every device has, in bytes: what WebGPU promises.
const SHARED: usize = 16384;

/// Units that share the scores of one query head: the largest power of two of which all heads have one.
fn helpers(g: usize) -> usize {
    UNITS / g.next_power_of_two()
}

/// Shared memory of a cube in bytes: queries, scores, the mixes of all units of one head, and sums.
fn shared_bytes(g: usize, hd: usize, vector: usize) -> usize {
    4 * (g * hd + g * UNITS + mixers(hd, vector) * hd + UNITS + 3 * g)
}

/// Groups of units that mix values at the same time, each a vector of a head a unit.
fn mixers(hd: usize, vector: usize) -> usize {
    UNITS / (hd / vector)
}

/// Vectors of a key, and values, that a unit asks for before it uses the first of them, so that enough of the cache is
/// under way (docs/performance.md). More keys at a time are put behind each other again by the compiler, which has no
/// registers for them.
const KEY_VECTORS: usize = 2;
/// See [`KEY_VECTORS`].
const VALUES: usize = 4;

/// Scores of the key that starts at vector `at` of `keys`, one for each query head: `q [g, lanes]`, `ahead` vectors of
/// the key at a time. A sum is one number: a vector of them would take registers that let a device hold more cubes.
#[cube]
fn score<F: Float, N: Size>(
    q: &SharedMemory<Vector<f32, N>>,
    keys: &Array<Vector<F, N>>,
    at: usize,
    scores: &mut SharedMemory<f32>,
    #[comptime] g: usize,
    #[comptime] lanes: usize,
    #[comptime] ahead: usize,
    #[comptime] vector: usize,
) {
    let mut acc = Array::<f32>::new(g);
    #[unroll]
    for r in 0..g {
        acc[r] = 0.0f32;
    }
    let mut next = Array::<Vector<F, N>>::new(ahead);
    for block in 0..comptime!(lanes / ahead) {
        let first = block * ahead;
        #[unroll]
        for u in 0..ahead {
            next[u] = keys[at + first + u];
        }
        #[unroll]
        for u in 0..ahead {
            let key = Vector::<f32, N>::cast_from(next[u]);
            #[unroll]
            for r in 0..g {
                let query = q[r * lanes + first + u];
                #[unroll]
                for e in 0..vector {
                    acc[r] = acc[r] + query[e] * key[e];
                }
            }
        }
    }
    #[unroll]
    for r in 0..g {
        scores[r * UNITS + UNIT_POS as usize] = acc[r];
    }
}

/// Adds `value` to the mix of each query head, by the weight of key `c` among the scores.
#[cube]
fn mix_in<F: Float, N: Size>(
    value: Vector<F, N>,
    scores: &SharedMemory<f32>,
    c: usize,
    acc: &mut Array<Vector<f32, N>>,
    #[comptime] g: usize,
) {
    let value = Vector::<f32, N>::cast_from(value);
    #[unroll]
    for r in 0..g {
        acc[r] = acc[r] + value * Vector::<f32, N>::new(scores[r * UNITS + c]);
    }
}

/// The softmax of the `width` scores of each head goes on: they become exponentials below the new largest, `top` and
/// `sums` follow, and `decay` is by how much what was mixed so far shrinks.
#[cube]
fn exponentials(
    scores: &mut SharedMemory<f32>,
    width: usize,
    top: &mut SharedMemory<f32>,
    sums: &mut SharedMemory<f32>,
    decay: &mut SharedMemory<f32>,
    parts: &mut SharedMemory<f32>,
    #[comptime] g: usize,
    #[comptime] helpers: usize,
) {
    let unit = UNIT_POS as usize;
    let (row, helper) = (unit / helpers, unit % helpers);
    let steps = comptime!(helpers.ilog2() as usize);
    let mut most = f32::new(LOWEST);
    if row < g {
        let mut c = helper;
        while c < width {
            let s = scores[row * UNITS + c];
            most = select(s > most, s, most);
            c += helpers;
        }
    }
    parts[unit] = most;
    sync_cube();
    #[unroll]
    for step in 0..steps {
        let half = comptime!(helpers >> (step + 1));
        if helper < half {
            let (a, b) = (parts[unit], parts[unit + half]);
            parts[unit] = select(a > b, a, b);
        }
        sync_cube();
    }
    let mut more = 0.0f32;
    let mut largest = f32::new(LOWEST);
    if row < g {
        let (old, new) = (top[row], parts[row * helpers]);
        largest = select(new > old, new, old);
        let mut c = helper;
        while c < width {
            let e = (scores[row * UNITS + c] - largest).exp();
            scores[row * UNITS + c] = e;
            more += e;
            c += helpers;
        }
    }
    // Everyone has read the maxima before they are written over.
    sync_cube();
    parts[unit] = more;
    sync_cube();
    #[unroll]
    for step in 0..steps {
        let half = comptime!(helpers >> (step + 1));
        if helper < half {
            parts[unit] = parts[unit] + parts[unit + half];
        }
        sync_cube();
    }
    if row < g {
        if helper == 0 {
            let shrink = (top[row] - largest).exp();
            decay[row] = shrink;
            sums[row] = sums[row] * shrink + parts[unit];
            top[row] = largest;
        }
    }
    sync_cube();
}

/// One cube a row, K/V head and part of the keys: the prompt's in `pk, pv [tokens, hkv, lanes]` at the row and of the
/// length that `places` has for its group, then `len` columns of `k, v [rows, capacity, hkv, lanes]`; `each` keys a
/// part. To `mixes [rows, hkv, splits, g, hd]` and `tops [rows, hkv, splits, g, 2]`: the largest score, and the sum of
/// exponentials below it.
#[cube(launch_unchecked)]
fn part<F: Float, N: Size>(
    q: &Array<Vector<F, N>>,
    places: &Array<i32>,
    pk: &Array<Vector<F, N>>,
    pv: &Array<Vector<F, N>>,
    k: &Array<Vector<F, N>>,
    v: &Array<Vector<F, N>>,
    mixes: &mut Array<f32>,
    tops: &mut Array<f32>,
    first: usize,
    cubes: usize,
    n: usize,
    hkv: usize,
    capacity: usize,
    len: usize,
    splits: usize,
    each: usize,
    scale: f32,
    #[comptime] g: usize,
    #[comptime] hd: usize,
    #[comptime] lanes: usize,
    #[comptime] ahead: usize,
    #[comptime] helpers: usize,
    #[comptime] mixers: usize,
    #[define(F)] _dtype: StorageType,
) {
    let cube = CUBE_POS;
    if cube >= cubes {
        terminate!();
    }
    let unit = UNIT_POS as usize;
    let (split, head, row) = (cube % splits, cube / splits % hkv, cube / (splits * hkv));
    let (start, p) = (u32::cast_from(places[row / n * 2]) as usize, u32::cast_from(places[row / n * 2 + 1]) as usize);
    let mut query = SharedMemory::<Vector<f32, N>>::new(g * lanes);
    let mut scores = SharedMemory::<f32>::new(g * UNITS);
    let mut parts = SharedMemory::<f32>::new(UNITS);
    let mut mix = SharedMemory::<f32>::new(mixers * hd);
    let mut top = SharedMemory::<f32>::new(g);
    let mut sums = SharedMemory::<f32>::new(g);
    let mut decay = SharedMemory::<f32>::new(g);
    let mut acc = Array::<Vector<f32, N>>::new(g);
    let mut next = Array::<Vector<F, N>>::new(VALUES);
    let mut i = unit;
    while i < comptime!(g * lanes) {
        let at = ((first + row) * hkv + head) * comptime!(g * lanes) + i;
        query[i] = Vector::<f32, N>::cast_from(q[at]) * Vector::<f32, N>::new(scale);
        i += UNITS;
    }
    if unit < g {
        top[unit] = f32::new(LOWEST);
        sums[unit] = 0.0f32;
    }
    #[unroll]
    for r in 0..g {
        acc[r] = Vector::<f32, N>::new(0.0f32);
    }
    sync_cube();
    let (mixer, lane) = (unit / lanes, unit % lanes);
    let last = select((split + 1) * each < p + len, (split + 1) * each, p + len);
    let mut base = split * each;
    while base < last {
        let width = select(last - base < UNITS, last - base, UNITS);
        if unit < width {
            let key = base + unit;
            if key < p {
                score::<F, N>(
                    &query,
                    pk,
                    ((start + key) * hkv + head) * lanes,
                    &mut scores,
                    g,
                    lanes,
                    ahead,
                    comptime!(hd / lanes),
                );
            } else {
                score::<F, N>(
                    &query,
                    k,
                    ((row * capacity + key - p) * hkv + head) * lanes,
                    &mut scores,
                    g,
                    lanes,
                    ahead,
                    comptime!(hd / lanes),
                );
            }
        }
        sync_cube();
        exponentials(&mut scores, width, &mut top, &mut sums, &mut decay, &mut parts, g, helpers);
        #[unroll]
        for r in 0..g {
            acc[r] = acc[r] * Vector::<f32, N>::new(decay[r]);
        }
        if mixer < mixers {
            let mut c = mixer;
            while c < width {
                #[unroll]
                for u in 0..VALUES {
                    let key = base + c + u * mixers;
                    if key < base + width {
                        if key < p {
                            next[u] = pv[((start + key) * hkv + head) * lanes + lane];
                        } else {
                            next[u] = v[((row * capacity + key - p) * hkv + head) * lanes + lane];
                        }
                    }
                }
                #[unroll]
                for u in 0..VALUES {
                    let at = c + u * mixers;
                    if at < width {
                        mix_in::<F, N>(next[u], &scores, at, &mut acc, g);
                    }
                }
                c += comptime!(VALUES * mixers);
            }
        }
        // The next keys write over the scores.
        sync_cube();
        base += UNITS;
    }
    #[unroll]
    for r in 0..g {
        if mixer < mixers {
            let mixed = acc[r];
            #[unroll]
            for e in 0..comptime!(hd / lanes) {
                mix[mixer * hd + lane * comptime!(hd / lanes) + e] = mixed[e];
            }
        }
        sync_cube();
        let mut e = unit;
        while e < hd {
            let mut total = 0.0f32;
            for m in 0..mixers {
                total += mix[m * hd + e];
            }
            mixes[(cube * g + r) * hd + e] = total;
            e += UNITS;
        }
        sync_cube();
    }
    if unit < g {
        tops[(cube * g + unit) * 2] = top[unit];
        tops[(cube * g + unit) * 2 + 1] = sums[unit];
    }
}

/// The parts of [`part`] as one softmax: `out [S, h, hd]` from element `offset` on, `elements` in all.
#[cube(launch)]
fn join<F: Float>(
    mixes: &Array<f32>,
    tops: &Array<f32>,
    out: &mut Array<F>,
    offset: usize,
    elements: usize,
    g: usize,
    hd: usize,
    splits: usize,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= elements {
        terminate!();
    }
    // In `mixes`, the parts lie between K/V heads and their query heads.
    let (e, query) = (i % hd, i / hd);
    let (r, head) = (query % g, query / g);
    let at = head * splits * g + r;
    let mut most = f32::new(LOWEST);
    for s in 0..splits {
        let top = tops[(at + s * g) * 2];
        most = select(top > most, top, most);
    }
    let mut total = 0.0f32;
    let mut mix = 0.0f32;
    for s in 0..splits {
        let weight = (tops[(at + s * g) * 2] - most).exp();
        total += weight * tops[(at + s * g) * 2 + 1];
        mix += weight * mixes[(at + s * g) * hd + e];
    }
    out[offset + i] = F::cast_from(mix / total);
}

/// The largest vector of elements of `size` bytes that the device loads at once and that shares out a head.
fn vector<R: CubeRuntime>(client: &ComputeClient<R>, size: usize, hd: usize) -> usize {
    client.io_optimized_vector_sizes(size).find(|vector| hd % vector == 0).unwrap_or(1)
}

/// The rows from `first` on of `q, out [S, h, hd]`; `lane` has the operands of one lane in the order of the kernel.
fn launch<R: CubeRuntime>(q: &CubeTensor<R>, out: &CubeTensor<R>, first: usize, lane: CubeLane<R>) {
    let (client, dtype) = (q.client.clone(), q.dtype);
    let (heads, hd) = (q.meta.shape()[1], q.meta.shape()[2]);
    let (rows, capacity, hkv) = (lane.k.meta.shape()[0], lane.k.meta.shape()[1], lane.k.meta.shape()[2]);
    let g = heads / hkv;
    let vector = vector(&client, dtype.size(), hd);
    // Parts are whole cubes' worth of keys, and as many as fill a device.
    let tiles = lane.keys.div_ceil(UNITS);
    let each = tiles.div_ceil(CUBES.div_ceil(rows * hkv)) * UNITS;
    let splits = lane.keys.div_ceil(each);
    let cubes = rows * hkv * splits;
    let mixes = empty(q, Shape::new([cubes * g, hd]), DType::F32);
    let tops = empty(q, Shape::new([cubes * g, 2]), DType::F32);
    let vectors = |t: &CubeTensor<R>| {
        let len = t.meta.num_elements() / vector;
        // SAFETY: the tensor is contiguous, and `len` vectors are what it holds.
        unsafe { ArrayArg::from_raw_parts(t.handle.clone(), len) }
    };
    // SAFETY: every index is below the sizes given: cubes and units beyond them do nothing, prompts lie inside `pk`,
    // and columns below `len`, which the caller has compared with the capacity.
    unsafe {
        part::launch_unchecked::<R>(
            &client,
            grid(&client, cubes),
            CubeDim::new_1d(UNITS as u32),
            vector,
            vectors(q),
            lane.places.into_array_arg(),
            vectors(&lane.pk),
            vectors(&lane.pv),
            vectors(&lane.k),
            vectors(&lane.v),
            mixes.clone().into_array_arg(),
            tops.clone().into_array_arg(),
            first,
            cubes,
            lane.n,
            hkv,
            capacity,
            lane.len,
            splits,
            each,
            1.0 / (hd as f32).sqrt(),
            g,
            hd,
            hd / vector,
            if (hd / vector).is_multiple_of(KEY_VECTORS) { KEY_VECTORS } else { 1 },
            helpers(g),
            mixers(hd, vector),
            dtype.into(),
        );
    }
    let elements = rows * heads * hd;
    let cube = CubeDim::new(&client, elements);
    join::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, elements, cube),
        cube,
        mixes.into_array_arg(),
        tops.into_array_arg(),
        out.clone().into_array_arg(),
        first * heads * hd,
        elements,
        g,
        hd,
        splits,
        dtype.into(),
    );
}

/// What the rows of one lane attend to.
struct CubeLane<R: CubeRuntime> {
    places: CubeTensor<R>,
    pk: CubeTensor<R>,
    pv: CubeTensor<R>,
    k: CubeTensor<R>,
    v: CubeTensor<R>,
    n: usize,
    len: usize,
    /// Keys of the row that has most.
    keys: usize,
}

/// See [`Kernels::decode_attention`]. The default where types differ, or heads are so large or so many that no cube
/// holds their queries in WebGPU's least shared memory.
pub(in super::super) fn attention<B: Launch + Kernels>(q: Tensor<B, 3>, past: &[DecodeKv<B>]) -> Tensor<B, 3> {
    let ([rows, heads, hd], dtype) = (q.dims(), q.dtype());
    if rows * heads * hd == 0 {
        return q;
    }
    let covered = |kv: &DecodeKv<B>| {
        let prefix = [&kv.prefix.0, &kv.prefix.1].iter().all(|t| t.dtype() == dtype && countable([t.shape()]));
        let own = [&kv.own.k, &kv.own.v].iter().all(|t| t.dtype() == dtype && countable([t.shape()]));
        let [tokens, hkv, _] = kv.prefix.0.dims();
        let [lane, capacity, ..] = kv.own.k.dims();
        let inside = kv.prompts.ranges.iter().all(|prompt| prompt.end <= tokens)
            && (1..=capacity).contains(&kv.own.len)
            && lane == kv.prompts.ranges.len() * kv.n;
        let g = heads / hkv;
        prefix && own && inside && g <= HEADS && shared_bytes(g, hd, 1) <= SHARED
    };
    if !float(dtype) || hd > UNITS || !countable([q.shape()]) || !past.iter().all(covered) {
        return plain::decode_attention(q, past);
    }
    let q = into_contiguous(held(q));
    let out = empty(&q, q.meta.shape().clone(), dtype);
    let mut first = 0;
    for kv in past {
        let whole = |t: CubeTensor<B::Runtime>| into_contiguous(t);
        let lane = CubeLane {
            places: whole(held_int(kv.prompts.places.clone())),
            pk: whole(held(kv.prefix.0.clone())),
            pv: whole(held(kv.prefix.1.clone())),
            k: whole(held(kv.own.k.clone())),
            v: whole(held(kv.own.v.clone())),
            n: kv.n,
            len: kv.own.len,
            keys: kv.prompts.longest() + kv.own.len,
        };
        let rows = kv.prompts.ranges.len() * kv.n;
        if rows > 0 {
            launch(&q, &out, first, lane);
        }
        first += rows;
    }
    tensor(out)
}
