//! The forward pass of block attention.

use burn::tensor::{Tensor, backend::Backend};

use super::AttentionSaved;
use super::plan::{AttentionPlan, Block};
use super::scores::{Causal, Mask, PLAIN_SCORES, Products, softmax};
use crate::ops::Kernels;
use crate::params::{cast_to, to_f32};

/// Queries `[b Hkv n, t G, hd]`, own keys and values `[b Hkv n, t, hd]` and the prefix's `[b Hkv, p, hd]` of one block.
pub(crate) struct Folded<B: Backend> {
    pub q: Tensor<B, 3>,
    pub k: Tensor<B, 3>,
    pub v: Tensor<B, 3>,
    pub prefix: Option<(Tensor<B, 3>, Tensor<B, 3>)>,
}

/// `[b n t, Hkv G, hd]` to `[b Hkv n, t G, hd]`: the query heads of one K/V head become rows of one matmul.
pub(crate) fn fold_queries<B: Backend>(x: Tensor<B, 3>, b: usize, n: usize, hkv: usize) -> Tensor<B, 3> {
    let [rows, h, hd] = x.dims();
    let (nt, g) = (rows / b, h / hkv);
    x.reshape([b, nt, hkv, g * hd]).swap_dims(1, 2).reshape([b * hkv * n, nt / n * g, hd])
}

/// The inverse of [`fold_queries`].
pub(crate) fn unfold_queries<B: Backend>(x: Tensor<B, 3>, b: usize, n: usize, hkv: usize, g: usize) -> Tensor<B, 3> {
    let [_, tg, hd] = x.dims();
    let nt = n * tg / g;
    x.reshape([b, hkv, nt, g * hd]).swap_dims(1, 2).reshape([b * nt, hkv * g, hd])
}

pub(crate) fn fold<B: Backend>(q: &Tensor<B, 3>, k: &Tensor<B, 3>, v: &Tensor<B, 3>, block: &Block<B>) -> Folded<B> {
    let hkv = k.dims()[1];
    let own = |x: &Tensor<B, 3>| fold_queries(block.rows.take(x), block.b, block.n, hkv);
    Folded {
        q: own(q),
        k: own(k),
        v: own(v),
        prefix: block.prefix.as_ref().map(|gather| {
            let fold = |x: &Tensor<B, 3>| fold_queries(gather.take(x), block.b, 1, hkv);
            (fold(k), fold(v))
        }),
    }
}

/// Repeats a per-group mask `[b x, 1, len]` for each K/V head, `[b Hkv x, 1, len]`.
pub(crate) fn mask_for_heads<B: Backend>(mask: &Tensor<B, 3>, b: usize, hkv: usize) -> Tensor<B, 3> {
    let [rows, _, len] = mask.dims();
    let x = rows / b;
    mask.clone().reshape([b, 1, x, len]).expand([b, hkv, x, len]).reshape([b * hkv * x, 1, len])
}

/// Everything about one block that does not change from chunk to chunk.
pub(crate) struct BlockRun<'a, B: Backend> {
    pub block: &'a Block<B>,
    pub folded: Folded<B>,
    own_mask: Option<Tensor<B, 3>>,
    prefix_mask: Mask<B>,
    causal: bool,
    pub g: usize,
    pub scale: f64,
}

impl<'a, B: Kernels> BlockRun<'a, B> {
    pub(super) fn new(q: &Tensor<B, 3>, k: &Tensor<B, 3>, v: &Tensor<B, 3>, block: &'a Block<B>, causal: bool) -> Self {
        let [_, h, hd] = q.dims();
        let hkv = k.dims()[1];
        Self {
            block,
            folded: fold(q, k, v, block),
            own_mask: block.own_mask.as_ref().map(|m| mask_for_heads(m, block.b, hkv)),
            prefix_mask: Mask {
                added: block.prefix_mask.as_ref().map(|m| mask_for_heads(m, block.b, hkv)),
                causal: None,
            },
            causal,
            g: h / hkv,
            scale: 1.0 / (hd as f64).sqrt(),
        }
    }

    /// Query positions `t0..t1` of each chunk, if `most` scores may be held at one time.
    pub(super) fn chunks(&self, most: usize) -> Vec<(usize, usize)> {
        let rows = self.folded.q.dims()[0] * self.g;
        let per_position = rows * (self.block.t + self.block.p);
        let step = (most / per_position.max(1)).clamp(1, self.block.t.max(1));
        (0..self.block.t).step_by(step).map(|t0| (t0, (t0 + step).min(self.block.t))).collect()
    }

    /// Rows of a folded query-like tensor that belong to positions `t0..t1`.
    pub(super) fn rows(&self, x: &Tensor<B, 3>, t0: usize, t1: usize) -> Tensor<B, 3> {
        let [a, _, hd] = x.dims();
        if (t0, t1) == (0, self.block.t) { x.clone() } else { x.clone().slice([0..a, t0 * self.g..t1 * self.g, 0..hd]) }
    }

    /// Keys that a query chunk ending at `t1` can see.
    pub(super) fn keys(&self, x: &Tensor<B, 3>, t1: usize) -> Tensor<B, 3> {
        let [a, t, hd] = x.dims();
        if !self.causal || t1 == t { x.clone() } else { x.clone().slice([0..a, 0..t1, 0..hd]) }
    }

    /// `[b Hkv n, rows, x]` seen as `[b Hkv, n rows, x]`, so that one matmul a K/V head serves all responses.
    pub(crate) fn fold_prefix(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [a, rows, x_dim] = x.dims();
        x.reshape([a / self.block.n, self.block.n * rows, x_dim])
    }

    /// The inverse of [`fold_prefix`](Self::fold_prefix).
    pub(crate) fn unfold_prefix(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [a, rows, x_dim] = x.dims();
        x.reshape([a * self.block.n, rows / self.block.n, x_dim])
    }

    /// The mask of a chunk whose first query is at position `t0`, against the segment itself.
    pub(crate) fn own_mask(&self, t0: usize) -> Mask<B> {
        let causal = (self.causal && self.block.t > 1).then_some(Causal { first: t0, g: self.g });
        Mask { added: self.own_mask.clone(), causal }
    }

    /// The products of queries `q [b Hkv n, c G, hd]` of positions up to `t1` with the keys of their segments.
    pub(super) fn own<'m>(&self, q: &Tensor<B, 3>, t1: usize, mask: &'m Mask<B>) -> Products<'m, B> {
        Products { scores: B::matmul(q.clone(), self.keys(&self.folded.k, t1).transpose()), mask }
    }

    /// The products of the same queries with the keys of the prefix, `[b Hkv, n c G, p]`.
    pub(super) fn prefix(&self, q: &Tensor<B, 3>) -> Option<Products<'_, B>> {
        let (k, _) = self.folded.prefix.as_ref()?;
        let scores = B::matmul(self.fold_prefix(q.clone()), k.clone().transpose());
        Some(Products { scores, mask: &self.prefix_mask })
    }
}

/// See [`Kernels::packed_attention`](crate::Kernels::packed_attention).
pub fn forward<B: Kernels>(
    q: Tensor<B, 3>,
    k: Tensor<B, 3>,
    v: Tensor<B, 3>,
    plan: &AttentionPlan<B>,
) -> (Tensor<B, 3>, AttentionSaved<B>) {
    let hkv = k.dims()[1];
    let dtype = q.dtype();
    let mut outputs = Vec::with_capacity(plan.blocks.len());
    let mut saved = AttentionSaved { lse: Vec::with_capacity(plan.blocks.len()) };
    for block in &plan.blocks {
        let run = BlockRun::new(&q, &k, &v, block, plan.causal);
        let mut parts = Vec::new();
        let mut lses = Vec::new();
        for (t0, t1) in run.chunks(PLAIN_SCORES) {
            let qc = run.rows(&run.folded.q, t0, t1);
            let weights = softmax(run.own(&qc, t1, &run.own_mask(t0)), run.prefix(&qc), run.scale);
            let mut out = B::matmul(weights.own, run.keys(&run.folded.v, t1));
            if let (Some(weights), Some((_, v))) = (weights.prefix, &run.folded.prefix) {
                out = out.add(run.unfold_prefix(B::matmul(weights, v.clone())));
            }
            parts.push(cast_to(to_f32(out).div(weights.sums), dtype));
            lses.push(weights.lse);
        }
        let out = concat(parts, 1);
        outputs.push(unfold_queries(out, block.b, block.n, hkv, run.g));
        saved.lse.push(concat(lses, 1));
    }
    (in_order(outputs, plan), saved)
}

pub(crate) fn concat<B: Backend, const D: usize>(mut parts: Vec<Tensor<B, D>>, dim: usize) -> Tensor<B, D> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, dim) }
}

/// Block outputs back to packed order; zeros for rows that are only looked at, and for idle ones.
pub(crate) fn in_order<B: Backend>(outputs: Vec<Tensor<B, 3>>, plan: &AttentionPlan<B>) -> Tensor<B, 3> {
    let all = concat(outputs, 0);
    let all = match &plan.inverse {
        Some(index) => all.select(0, index.clone()),
        None => all,
    };
    let all = behind(plan.looked_at, all);
    if plan.idle == 0 {
        return all;
    }
    let [_, heads, hd] = all.dims();
    let zeros = Tensor::zeros([plan.idle, heads, hd], (&all.device(), all.dtype()));
    Tensor::cat(vec![all, zeros], 0)
}

/// `x` behind `count` rows of zeros.
pub(crate) fn behind<B: Backend, const D: usize>(count: usize, x: Tensor<B, D>) -> Tensor<B, D> {
    if count == 0 {
        return x;
    }
    let mut shape = x.dims();
    shape[0] = count;
    let zeros = Tensor::zeros(shape, (&x.device(), x.dtype()));
    Tensor::cat(vec![zeros, x], 0)
}
