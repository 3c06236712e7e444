//! Packed attention: matrix products over views of the packed tensors, one kernel between them.
//!
//! A batch of products is `[b, Hkv, g, n]` matrices: units, K/V heads, their query heads, segments. Queries, keys and
//! values are multiplied where they lie in the packed rows, keys and values stand for all query heads of theirs, and
//! results go straight to their rows; only what a block pads is gathered first. Blocks are taken in pieces of whole
//! segments, as many as keep the scores within the plan's bound, so no sum runs over pieces but that of a shared
//! prefix.

use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::{into_contiguous, slice};
use burn_cubecl::tensor::CubeTensor;

use super::launch::{Launch, countable, empty, float, held, held_int, nothing, tensor};
use super::matmul::{Matrices, multiply};
use super::scores::{Masks, Piece, Seen, launch_slopes, launch_softmax};
use super::token_rows::{Rows, launch_add, launch_clear, launch_dots, launch_scatter, launch_sum_heads};
use crate::attention::{self, AttentionPlan, AttentionSaved, Block, Gather};
use crate::bounds::COUNTABLE;
use crate::params::cast_to;

/// Sizes of heads.
#[derive(Clone, Copy)]
struct HeadSizes {
    kv: usize,
    /// Query heads of each.
    g: usize,
    hd: usize,
}

impl HeadSizes {
    fn scale(self) -> f32 {
        (1.0 / (self.hd as f64).sqrt()) as f32
    }

    /// Rows `x [b n t, heads, hd]` as matrices `[b, Hkv, g, n, t, hd]`; `g` is 1 where all query heads share them.
    fn matrices<R: CubeRuntime>(self, x: CubeTensor<R>, g: usize, [b, n, t]: [usize; 3]) -> Matrices<R> {
        let (row, hd) = (self.kv * g * self.hd, self.hd);
        Matrices::strided(x, &[b, self.kv, g, n, t, hd], &[n * t * row, g * hd, hd, t * row, row, 1])
    }

    /// Scores `[b, Hkv, g, n, t, width]`.
    fn scores<R: CubeRuntime>(self, z: &CubeTensor<R>, [b, n, t, width]: [usize; 4]) -> Matrices<R> {
        let (g, each) = (self.g, t * width);
        let strides = [self.kv * g * n * each, g * n * each, n * each, each, width, 1];
        Matrices::strided(z.clone(), &[b, self.kv, g, n, t, width], &strides)
    }
}

/// Sizes of a block's pieces: whole units, or segments of one unit.
fn pieces<B: Launch>(block: &Block<B>, heads: usize, most: usize) -> Vec<Piece> {
    let (b, n, t, p) = (block.b, block.n, block.t, block.p);
    let segment = heads * t * (Piece::width(t) + Piece::width(p));
    let units = (most / (segment * n).max(1)).clamp(1, b.max(1));
    let segments = if units > 1 { n } else { (most / segment.max(1)).clamp(1, n.max(1)) };
    let of_units = (0..b).step_by(units).flat_map(|unit| {
        let b = units.min(block.b - unit);
        (0..n).step_by(segments).map(move |i| {
            let n = segments.min(n - i);
            Piece { b, n, t, p, heads, unit, segment: unit * block.n + i }
        })
    });
    of_units.collect()
}

/// Rows `first..first + count` of `x [rows, heads, hd]`: a view where they begin and end where a buffer may, else a
/// copy.
fn narrow<R: CubeRuntime>(x: &CubeTensor<R>, first: usize, count: usize) -> CubeTensor<R> {
    let shape = x.meta.shape();
    if (first, count) == (0, shape[0]) {
        return x.clone();
    }
    into_contiguous(slice(x.clone(), &[first..first + count, 0..shape[1], 0..shape[2]]))
}

/// Rows of `x` that a result may be written to; none where they would be a copy.
fn narrow_mut<R: CubeRuntime>(x: &CubeTensor<R>, first: usize, count: usize) -> Option<CubeTensor<R>> {
    let shape = x.meta.shape();
    let (row, align) = (shape[1] * shape[2] * x.dtype.size(), x.client.properties().memory.alignment as usize);
    let ends = [first * row, (shape[0] - first - count) * row];
    ends.iter().all(|end| end.is_multiple_of(align)).then(|| narrow(x, first, count))
}

/// What a block reads: packed tensors where its rows are consecutive, else their rows gathered.
fn gathered<B: Launch>(gather: &Gather<B>, x: &Tensor<B, 3>) -> CubeTensor<B::Runtime> {
    into_contiguous(held(gather.take(x)))
}

/// The places of a piece's rows, which begin at row `first` of the block.
fn places<B: Launch>(gather: &Gather<B>, first: usize, real: Option<&Tensor<B, 3>>, least: f32) -> Rows<B::Runtime> {
    let held_index = |index: &Tensor<B, 1, Int>| into_contiguous(held_int(index.clone()));
    let real = real.map(|real| into_contiguous(held(real.clone())));
    match gather {
        Gather::Range(range) => Rows { first: range.start + first, index: None, real: None, least },
        Gather::Index(index) => Rows { first, index: Some(held_index(index)), real, least },
    }
}

fn masks<B: Launch>(block: &Block<B>, like: &CubeTensor<B::Runtime>) -> Masks<B::Runtime> {
    let mask = |mask: &Option<Tensor<B, 3>>| match mask {
        Some(mask) => into_contiguous(held(mask.clone())),
        None => nothing(like, DType::F32),
    };
    Masks { own: mask(&block.own_mask), prefix: mask(&block.prefix_mask), valid: mask(&block.valid) }
}

fn seen<B: Launch>(block: &Block<B>, causal: bool) -> Seen {
    Seen {
        causal,
        own_masked: block.own_mask.is_some(),
        prefix: block.p > 0,
        prefix_masked: block.prefix_mask.is_some(),
        padded: block.valid.is_some(),
    }
}

/// Rows of a piece, its tensors narrowed to them.
struct Parts<R: CubeRuntime> {
    heads: HeadSizes,
    piece: Piece,
    q: CubeTensor<R>,
    k: CubeTensor<R>,
    v: CubeTensor<R>,
    /// Keys and values of the prefix.
    prefix: Option<[CubeTensor<R>; 2]>,
}

impl<R: CubeRuntime> Parts<R> {
    /// Rows that ask, `[b, n, t]`, seen by own keys and by those of the prefix, for which all segments are one.
    fn sizes(&self) -> [[usize; 3]; 2] {
        let Piece { b, n, t, .. } = self.piece;
        [[b, n, t], [b, 1, n * t]]
    }

    fn queries(&self, x: &CubeTensor<R>) -> [Matrices<R>; 2] {
        self.sizes().map(|sizes| self.heads.matrices(x.clone(), self.heads.g, sizes))
    }

    /// Keys or values `[own, prefix]`.
    fn keys(&self, own: &CubeTensor<R>, prefix: Option<&CubeTensor<R>>) -> (Matrices<R>, Option<Matrices<R>>) {
        let Piece { b, n, t, p, .. } = self.piece;
        let prefix = prefix.map(|x| self.heads.matrices(x.clone(), 1, [b, 1, p]));
        (self.heads.matrices(own.clone(), 1, [b, n, t]), prefix)
    }

    /// Products of rows `x` with keys or values, `[own, prefix]`, in new buffers.
    fn products(&self, x: &CubeTensor<R>, own: &CubeTensor<R>, prefix: Option<&CubeTensor<R>>) -> [CubeTensor<R>; 2] {
        let Piece { t, p, .. } = self.piece;
        let rows = self.piece.rows();
        let [x_own, x_prefix] = self.queries(x);
        let (keys, prefix) = self.keys(own, prefix);
        let z = empty(x, Shape::new([rows * Piece::width(t)]), x.dtype);
        multiply(&x_own, &keys.transposed(), &self.own(&z), &x.client);
        let Some(prefix) = prefix else { return [z, nothing(x, x.dtype)] };
        let z_prefix = empty(x, Shape::new([rows * Piece::width(p)]), x.dtype);
        multiply(&x_prefix, &prefix.transposed(), &self.against_prefix(&z_prefix), &x.client);
        [z, z_prefix]
    }

    /// Scores against own keys.
    fn own(&self, z: &CubeTensor<R>) -> Matrices<R> {
        let Piece { b, n, t, .. } = self.piece;
        self.heads.scores(z, [b, n, t, Piece::width(t)])
    }

    /// Scores against the prefix.
    fn against_prefix(&self, z: &CubeTensor<R>) -> Matrices<R> {
        let Piece { b, n, t, p, .. } = self.piece;
        self.heads.scores(z, [b, 1, n * t, Piece::width(p)])
    }

    /// Weights `[own, prefix]` times keys or values into rows `out [b n t, H, hd]`.
    fn mix(&self, w: [&CubeTensor<R>; 2], own: &CubeTensor<R>, prefix: Option<&CubeTensor<R>>, out: &CubeTensor<R>) {
        let (keys, prefix) = self.keys(own, prefix);
        let [own, _] = self.queries(out);
        multiply(&self.own(w[0]), &keys, &own, &out.client);
        if let Some(prefix) = prefix {
            let more = empty(out, out.meta.shape().clone(), out.dtype);
            let [_, rows] = self.queries(&more);
            multiply(&self.against_prefix(w[1]), &prefix, &rows, &out.client);
            launch_add(out, &more);
        }
    }

    /// Transposed weights against own keys times rows `x`: `[b, Hkv, g, n t, hd]` in f32.
    fn to_own(&self, w: &CubeTensor<R>, x: &CubeTensor<R>) -> CubeTensor<R> {
        let Piece { b, n, t, .. } = self.piece;
        let HeadSizes { kv, g, hd } = self.heads;
        let out = empty(x, Shape::new([b, kv, g, n * t, hd]), DType::F32);
        let rows = Matrices::strided(
            out.clone(),
            &[b, kv, g, n, t, hd],
            &[kv * g * n * t * hd, g * n * t * hd, n * t * hd, t * hd, hd, 1],
        );
        multiply(&self.own(w).transposed(), &self.queries(x)[0], &rows, &x.client);
        out
    }

    /// The same against the prefix: `[b, Hkv, g, p, hd]`.
    fn to_prefix(&self, w: &CubeTensor<R>, x: &CubeTensor<R>) -> CubeTensor<R> {
        let Piece { b, p, .. } = self.piece;
        let HeadSizes { kv, g, hd } = self.heads;
        let out = empty(x, Shape::new([b, kv, g, p, hd]), DType::F32);
        let strides = [kv * g * p * hd, g * p * hd, p * hd, 0, hd, 1];
        let rows = Matrices::strided(out.clone(), &[b, kv, g, 1, p, hd], &strides);
        multiply(&self.against_prefix(w).transposed(), &self.queries(x)[1], &rows, &x.client);
        out
    }
}

/// Queries, keys and values of a block, gathered.
struct BlockRows<R: CubeRuntime> {
    q: CubeTensor<R>,
    k: CubeTensor<R>,
    v: CubeTensor<R>,
    prefix: Option<[CubeTensor<R>; 2]>,
}

impl<R: CubeRuntime> BlockRows<R> {
    fn new<B: Launch<Runtime = R>>(block: &Block<B>, [q, k, v]: &[Tensor<B, 3>; 3]) -> Self {
        let rows = |x: &Tensor<B, 3>| gathered(&block.rows, x);
        let prefix = block.prefix.as_ref().map(|prefix| [k, v].map(|x| gathered(prefix, x)));
        Self { q: rows(q), k: rows(k), v: rows(v), prefix }
    }

    /// Those of one piece.
    fn of(&self, piece: Piece, heads: HeadSizes) -> Parts<R> {
        let rows = |x: &CubeTensor<R>| narrow(x, piece.segment * piece.t, piece.b * piece.n * piece.t);
        let prefix = |x: &CubeTensor<R>| narrow(x, piece.unit * piece.p, piece.b * piece.p);
        let prefix = self.prefix.as_ref().map(|[k, v]| [prefix(k), prefix(v)]);
        Parts { heads, piece, q: rows(&self.q), k: rows(&self.k), v: rows(&self.v), prefix }
    }
}

/// Whether the kernels take these tensors and this plan.
fn covered<B: Launch, const I: usize>(tensors: [&Tensor<B, 3>; I], plan: &AttentionPlan<B>) -> bool {
    let dtype = tensors[0].dtype();
    let heads = tensors[0].dims()[1];
    let alike = tensors.iter().all(|t| t.dtype() == dtype && countable([t.shape()]));
    let largest = plan.blocks.iter().flat_map(|block| pieces(block, heads, plan.scores)).map(|piece| {
        let width = Piece::width(piece.t).max(Piece::width(piece.p));
        piece.rows() * width
    });
    float(dtype) && alike && largest.max().unwrap_or(0) < COUNTABLE
}

fn heads<B: Launch>(q: &Tensor<B, 3>, k: &Tensor<B, 3>) -> HeadSizes {
    let ([_, h, hd], [_, kv, _]) = (q.dims(), k.dims());
    HeadSizes { kv, g: h / kv, hd }
}

/// Row-major, as the views of this module need it.
fn packed<B: Launch>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    tensor(into_contiguous(held(x)))
}

/// A new packed tensor `[N, heads, hd]`: zeros in rows that get no result, which are at the front and at the end.
fn results<B: Launch>(like: &Tensor<B, 3>, plan: &AttentionPlan<B>, dtype: DType) -> CubeTensor<B::Runtime> {
    let ([n, heads, hd], like) = (like.dims(), held(like.clone()));
    let out = empty(&like, Shape::new([n, heads, hd]), dtype);
    for rows in [0..plan.looked_at, n - plan.idle..n] {
        if !rows.is_empty() {
            launch_clear(&out, rows.start * heads * hd, rows.len() * heads * hd);
        }
    }
    out
}

/// Lets `write` fill the rows of a piece in `all [N, heads, hd]`, where they lie if it can be.
fn into_rows<B: Launch>(
    block: &Block<B>,
    piece: &Piece,
    all: &CubeTensor<B::Runtime>,
    write: impl FnOnce(&CubeTensor<B::Runtime>),
) {
    let (first, count) = (piece.segment * piece.t, piece.b * piece.n * piece.t);
    if let Gather::Range(range) = &block.rows
        && let Some(rows) = narrow_mut(all, range.start + first, count)
    {
        return write(&rows);
    }
    let shape = all.meta.shape();
    let rows = empty(all, Shape::new([count, shape[1], shape[2]]), all.dtype);
    write(&rows);
    launch_scatter(&rows, all, &places(&block.rows, first, block.valid.as_ref(), 0.5));
}

/// See [`Kernels::packed_attention`](crate::Kernels::packed_attention). The default where types differ.
pub(super) fn forward<B: Launch>(
    q: Tensor<B, 3>,
    k: Tensor<B, 3>,
    v: Tensor<B, 3>,
    plan: &AttentionPlan<B>,
) -> (Tensor<B, 3>, AttentionSaved<B>) {
    if !covered([&q, &k, &v], plan) {
        return attention::forward(q, k, v, plan);
    }
    let heads = heads(&q, &k);
    let qkv = [q, k, v].map(packed);
    let o = results(&qkv[0], plan, qkv[0].dtype());
    let mut saved = AttentionSaved::default();
    for block in &plan.blocks {
        let rows = BlockRows::new(block, &qkv);
        let masks = masks(block, &rows.q);
        for piece in pieces(block, heads.kv * heads.g, plan.scores) {
            let parts = rows.of(piece, heads);
            let [kp, vp] = [0, 1].map(|i| parts.prefix.as_ref().map(|prefix| &prefix[i]));
            let [own, prefix] = parts.products(&parts.q, &parts.k, kp);
            let lse = launch_softmax([&own, &prefix], &masks, &piece, heads.scale(), seen(block, plan.causal));
            into_rows(block, &piece, &o, |rows| parts.mix([&own, &prefix], &parts.v, vp, rows));
            saved.lse.push(tensor::<B, 1>(lse).reshape([piece.rows(), 1, 1]));
        }
    }
    (tensor(o), saved)
}

/// See [`Kernels::packed_attention_backward`](crate::Kernels::packed_attention_backward). The default where types
/// differ.
pub(super) fn backward<B: Launch>(
    qkv: [Tensor<B, 3>; 3],
    o: Tensor<B, 3>,
    saved: &AttentionSaved<B>,
    d_o: Tensor<B, 3>,
    plan: &AttentionPlan<B>,
) -> [Tensor<B, 3>; 3] {
    if !covered([&qkv[0], &qkv[1], &qkv[2]], plan) {
        return attention::backward(qkv, o, saved, d_o, plan);
    }
    let (heads, dtype) = (heads(&qkv[0], &qkv[1]), qkv[0].dtype());
    let qkv = qkv.map(packed);
    let [o, d_o] = [o, cast_to(d_o, dtype)].map(packed);
    let dq = results(&qkv[0], plan, dtype);
    let [dk, dv] = [1, 2].map(|i| results(&qkv[i], plan, DType::F32));
    let mut lses = saved.lse.iter();
    for block in &plan.blocks {
        let rows = BlockRows::new(block, &qkv);
        let [o, d_o] = [&o, &d_o].map(|x| gathered(&block.rows, x));
        let masks = masks(block, &rows.q);
        for piece in pieces(block, heads.kv * heads.g, plan.scores) {
            let lse = lses.next().expect("what the forward pass saved is of this plan");
            let parts = rows.of(piece, heads);
            let at = [piece.segment * piece.t, piece.b * piece.n * piece.t];
            let [o, d_o] = [&o, &d_o].map(|x| narrow(x, at[0], at[1]));
            let [kp, vp] = [0, 1].map(|i| parts.prefix.as_ref().map(|prefix| &prefix[i]));
            let dot = launch_dots(&d_o, &o);
            let [own, prefix] = parts.products(&parts.q, &parts.k, kp);
            let [d_own, d_prefix] = parts.products(&d_o, &parts.v, vp);
            let between = [&own, &d_own, &prefix, &d_prefix];
            let lse = held(lse.clone());
            launch_slopes(between, [&lse, &dot], &masks, &piece, heads.scale(), seen(block, plan.causal));
            into_rows(block, &piece, &dq, |rows| parts.mix([&d_own, &d_prefix], &parts.k, kp, rows));
            let of_own = [parts.to_own(&d_own, &parts.q), parts.to_own(&own, &d_o)];
            let own_places = places(&block.rows, at[0], block.valid.as_ref(), 0.5);
            launch_sum_heads([&of_own[0], &of_own[1]], [&dk, &dv], &own_places, false);
            if let Some(gather) = &block.prefix {
                let of_prefix = [parts.to_prefix(&d_prefix, &parts.q), parts.to_prefix(&prefix, &d_o)];
                add_to_prefix(block, gather, &piece, of_prefix, [&dk, &dv]);
            }
        }
    }
    let [dk, dv] = [dk, dv].map(|d| cast_to(tensor(d), dtype));
    [tensor(dq), dk, dv]
}

/// Adds the parts `[b, Hkv, g, p, hd]` of a prefix to its packed rows: at once, or unit by unit where several have the
/// same prefix.
fn add_to_prefix<B: Launch>(
    block: &Block<B>,
    gather: &Gather<B>,
    piece: &Piece,
    parts: [CubeTensor<B::Runtime>; 2],
    to: [&CubeTensor<B::Runtime>; 2],
) {
    let add = |parts: [&CubeTensor<B::Runtime>; 2], unit: usize| {
        let places = places(gather, unit * piece.p, block.prefix_mask.as_ref(), -0.5);
        launch_sum_heads(parts, to, &places, true);
    };
    if block.own_prefixes || piece.b == 1 {
        return add([&parts[0], &parts[1]], piece.unit);
    }
    for i in 0..piece.b {
        let part = |x: &CubeTensor<B::Runtime>| {
            let d = x.meta.shape();
            into_contiguous(slice(x.clone(), &[i..i + 1, 0..d[1], 0..d[2], 0..d[3], 0..d[4]]))
        };
        let [k, v] = [part(&parts[0]), part(&parts[1])];
        add([&k, &v], piece.unit + i);
    }
}
