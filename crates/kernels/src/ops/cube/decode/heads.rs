//! What the projections made of new tokens, with bias and norms, turned: queries in order, keys and values where the
//! cache wants them. One launch a lane, no copy.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::launch::{Launch, countable, empty, float, grid, held, held_int, owned, tensor, units};
use super::super::reduce::sum;
use crate::attention::decode::{NewTokens, OwnKv};
use crate::layers::BlockShape;
use crate::ops::{Kernels, plain};

/// The root mean square norm of the pair `(a, b)` that is this unit's, `2 pairs` elements in all, rounded as Hugging
/// Face does; units from `pairs` on have zeros.
#[cube]
fn norm<F: Float>(
    a: F,
    b: F,
    weight: &Array<F>,
    j: usize,
    eps: f32,
    shared: &mut SharedMemory<f32>,
    #[comptime] pairs: usize,
    #[comptime] units: usize,
) -> (F, F) {
    let (a, b) = (f32::cast_from(a), f32::cast_from(b));
    let total = sum(a * a + b * b, shared, units);
    let rms = (total / f32::cast_from(comptime!(2 * pairs)) + eps).sqrt();
    (F::cast_from(a / rms) * weight[j], F::cast_from(b / rms) * weight[j + pairs])
}

/// One cube a head of `x [parts, S, h + 2 hkv, 2 pairs]`, whose parts are added, in the rows from `first` on, `vectors`
/// heads in all: to `q [S, h, 2 pairs]`, and to column `at` of `k, v [rows, capacity, hkv, 2 pairs]`. Unit `j` has the
/// pair `(j, j + pairs)`.
#[cube(launch)]
fn split<F: Float>(
    x: &Array<f32>,
    bias: &Array<F>,
    q_norm: &Array<F>,
    k_norm: &Array<F>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    positions: &Array<i32>,
    q: &mut Array<F>,
    k: &mut Array<F>,
    v: &mut Array<F>,
    parts: usize,
    elements: usize,
    first: usize,
    vectors: usize,
    h: usize,
    hkv: usize,
    capacity: usize,
    at: usize,
    q_eps: f32,
    k_eps: f32,
    #[comptime] pairs: usize,
    #[comptime] units: usize,
    #[comptime] biased: bool,
    #[comptime] normed: bool,
    #[define(F)] _dtype: StorageType,
) {
    let vector = CUBE_POS;
    if vector >= vectors {
        terminate!();
    }
    let heads = h + 2 * hkv;
    let (row, head) = (vector / heads, vector % heads);
    // Units without a pair only help with sums, on the elements of the first.
    let lane = UNIT_POS as usize;
    let live = lane < pairs;
    let j = select(live, lane, 0usize);
    let from = ((first + row) * heads + head) * comptime!(2 * pairs) + j;
    let mut first_half = 0.0f32;
    let mut second_half = 0.0f32;
    for part in 0..parts {
        first_half += x[part * elements + from];
        second_half += x[part * elements + from + pairs];
    }
    let mut a = F::cast_from(first_half);
    let mut b = F::cast_from(second_half);
    if comptime!(biased) {
        let column = head * comptime!(2 * pairs) + j;
        a = F::cast_from(f32::cast_from(a) + f32::cast_from(bias[column]));
        b = F::cast_from(f32::cast_from(b) + f32::cast_from(bias[column + pairs]));
    }
    if comptime!(normed) {
        let mut shared = SharedMemory::<f32>::new(units);
        // The branches are those of a cube: all of its units have the same head.
        if head < h + hkv {
            let zero = F::cast_from(0.0f32);
            let (na, nb) = (select(live, a, zero), select(live, b, zero));
            if head < h {
                let (y1, y2) = norm::<F>(na, nb, q_norm, j, q_eps, &mut shared, pairs, units);
                a = y1;
                b = y2;
            } else {
                let (y1, y2) = norm::<F>(na, nb, k_norm, j, k_eps, &mut shared, pairs, units);
                a = y1;
                b = y2;
            }
        }
    }
    if live {
        let cache = ((row * capacity + at) * hkv) * comptime!(2 * pairs) + j;
        if head >= h + hkv {
            let to = cache + (head - h - hkv) * comptime!(2 * pairs);
            v[to] = a;
            v[to + pairs] = b;
        } else {
            let angle = u32::cast_from(positions[first + row]) as usize * comptime!(2 * pairs) + j;
            let (x1, x2) = (f32::cast_from(a), f32::cast_from(b));
            let y1 = F::cast_from(x1 * cos[angle] - x2 * sin[angle]);
            let y2 = F::cast_from(x2 * cos[angle + pairs] + x1 * sin[angle + pairs]);
            if head < h {
                let to = ((first + row) * h + head) * comptime!(2 * pairs) + j;
                q[to] = y1;
                q[to + pairs] = y2;
            } else {
                let to = cache + (head - h) * comptime!(2 * pairs);
                k[to] = y1;
                k[to + pairs] = y2;
            }
        }
    }
}

/// Buffers that the kernel binds, with those of sizes and scalars.
const BINDINGS: u32 = 12;

/// Buffers that a kernel may bind on the device of a tensor.
fn bindings<B: Launch>(of: &Tensor<B, 3>) -> u32 {
    held(of.clone()).client.properties().hardware.max_bindings
}

/// Operands that all lanes share.
struct Operands<R: CubeRuntime> {
    x: CubeTensor<R>,
    bias: Option<CubeTensor<R>>,
    norms: Option<[(CubeTensor<R>, f32); 2]>,
    angles: [CubeTensor<R>; 2],
    positions: CubeTensor<R>,
    q: CubeTensor<R>,
    shape: BlockShape,
}

/// The rows from `first` on into column `at` of their caches.
fn launch_split<R: CubeRuntime>(o: &Operands<R>, [k, v]: [&CubeTensor<R>; 2], first: usize, at: usize) {
    let (rows, capacity) = (k.meta.shape()[0], k.meta.shape()[1]);
    let BlockShape { heads, kv_heads, head_dim: hd } = o.shape;
    let client = o.x.client.clone();
    let vectors = rows * (heads + 2 * kv_heads);
    if vectors == 0 {
        return;
    }
    let units = units(&client, hd / 2);
    // A kernel has a fixed number of operands: another stands in, unread, for what is not there.
    let bias = o.bias.as_ref().unwrap_or(k);
    let ([q_norm, k_norm], [q_eps, k_eps]) = match &o.norms {
        Some([(q, q_eps), (k, k_eps)]) => ([q, k], [*q_eps, *k_eps]),
        None => ([k, k], [0.0, 0.0]),
    };
    split::launch::<R>(
        &client,
        grid(&client, vectors),
        CubeDim::new_1d(units as u32),
        o.x.clone().into_array_arg(),
        bias.clone().into_array_arg(),
        q_norm.clone().into_array_arg(),
        k_norm.clone().into_array_arg(),
        o.angles[0].clone().into_array_arg(),
        o.angles[1].clone().into_array_arg(),
        o.positions.clone().into_array_arg(),
        o.q.clone().into_array_arg(),
        k.clone().into_array_arg(),
        v.clone().into_array_arg(),
        o.x.meta.shape()[0],
        o.x.meta.shape()[1] * o.x.meta.shape()[2],
        first,
        vectors,
        heads,
        kv_heads,
        capacity,
        at,
        q_eps,
        k_eps,
        hd / 2,
        units,
        o.bias.is_some(),
        o.norms.is_some(),
        k.dtype.into(),
    );
}

/// See [`Kernels::decode_heads`]. The default where types differ, or a head is too large or odd.
pub(in super::super) fn heads<B: Launch + Kernels>(
    projected: Tensor<B, 3>,
    tokens: NewTokens<'_, B>,
    own: Vec<OwnKv<B>>,
) -> (Tensor<B, 3>, Vec<OwnKv<B>>) {
    let [_, rows, width] = projected.dims();
    let dtype = own.first().map_or(projected.dtype(), |kv| kv.k.dtype());
    let BlockShape { heads, head_dim: hd, .. } = tokens.shape;
    let caches = own.iter().all(|kv| kv.k.dtype() == dtype && kv.v.dtype() == dtype);
    let weights = tokens.bias.into_iter().chain(tokens.qk_norm.iter().flatten().map(|(weight, _)| *weight));
    let typed = float(dtype)
        && projected.dtype() == DType::F32
        && caches
        && weights.into_iter().all(|weight| weight.dtype() == dtype);
    let angles = [&tokens.angles.cos, &tokens.angles.sin].map(|t| t.dtype() == DType::F32) == [true; 2];
    let sized = hd % 2 == 0 && hd <= 256 && rows * width > 0 && bindings::<B>(&projected) >= BINDINGS;
    let counted = countable([projected.shape()]) && own.iter().all(|kv| countable([kv.k.shape(), kv.v.shape()]));
    if !typed || !angles || !sized || !counted {
        return plain::decode_heads(projected, tokens, own);
    }
    let x = into_contiguous(held(projected));
    let operands = Operands {
        q: empty(&x, Shape::new([rows, heads, hd]), dtype),
        x,
        bias: tokens.bias.map(|bias| into_contiguous(held(bias.clone()))),
        norms: tokens.qk_norm.map(|norms| norms.map(|(w, eps)| (into_contiguous(held(w.clone())), eps as f32))),
        angles: [&tokens.angles.cos, &tokens.angles.sin].map(|t| into_contiguous(held(t.clone()))),
        positions: into_contiguous(held_int(tokens.positions.clone())),
        shape: tokens.shape,
    };
    let mut first = 0;
    let written = own.into_iter().map(|OwnKv { k, v, len }| {
        let rows = k.dims()[0];
        let [k, v] = [k, v].map(|t| owned(held(t)));
        launch_split(&operands, [&k, &v], first, len);
        first += rows;
        OwnKv { k: tensor(k), v: tensor(v), len: len + 1 }
    });
    let written = written.collect();
    (tensor(operands.q), written)
}
