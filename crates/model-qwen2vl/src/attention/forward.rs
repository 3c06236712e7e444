//! The forward pass of block attention.

use burn::tensor::{Int, Tensor, backend::Backend};

use super::AttentionSaved;
use super::plan::{AttentionPlan, Block};
use crate::ops::Kernels;
use crate::params::{cast_to, to_f32};

/// Scores held at one time, in elements: above it the queries of a block are taken in chunks.
pub(crate) const SCORE_BUDGET: usize = 1 << 22;

/// Queries `[b Hkv n, t G, hd]`, own keys and values `[b Hkv n, t, hd]` and the prefix's `[b Hkv, p, hd]` of one block.
pub(crate) struct Folded<B: Backend> {
    pub q: Tensor<B, 3>,
    pub k: Tensor<B, 3>,
    pub v: Tensor<B, 3>,
    pub prefix: Option<(Tensor<B, 3>, Tensor<B, 3>)>,
}

/// `[b n t, Hkv G, hd]` to `[b Hkv n, t G, hd]`: the query heads of one K/V head become rows of one matmul.
pub(crate) fn fold_queries<B: Kernels>(x: Tensor<B, 3>, b: usize, n: usize, hkv: usize) -> Tensor<B, 3> {
    let [rows, h, hd] = x.dims();
    let (nt, g) = (rows / b, h / hkv);
    x.reshape([b, nt, hkv, g * hd]).swap_dims(1, 2).reshape([b * hkv * n, nt / n * g, hd])
}

/// The inverse of [`fold_queries`].
pub(crate) fn unfold_queries<B: Kernels>(x: Tensor<B, 3>, b: usize, n: usize, hkv: usize, g: usize) -> Tensor<B, 3> {
    let [_, tg, hd] = x.dims();
    let nt = n * tg / g;
    x.reshape([b, hkv, nt, g * hd]).swap_dims(1, 2).reshape([b * nt, hkv * g, hd])
}

pub(crate) fn fold<B: Kernels>(q: &Tensor<B, 3>, k: &Tensor<B, 3>, v: &Tensor<B, 3>, block: &Block<B>) -> Folded<B> {
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
pub(crate) fn mask_for_heads<B: Kernels>(mask: &Tensor<B, 3>, b: usize, hkv: usize) -> Tensor<B, 3> {
    let [rows, _, len] = mask.dims();
    let x = rows / b;
    mask.clone().reshape([b, 1, x, len]).expand([b, hkv, x, len]).reshape([b * hkv * x, 1, len])
}

/// -1e30 above the diagonal, for query positions `t0..t1` (each `g` rows) against keys `0..t1`. `[1, (t1 - t0) g, t1]`
pub(crate) fn causal_mask<B: Kernels>(t0: usize, t1: usize, g: usize, device: &B::Device) -> Tensor<B, 3> {
    let rows =
        Tensor::<B, 1, Int>::arange(t0 as i64..t1 as i64, device).reshape([t1 - t0, 1, 1]).expand([t1 - t0, g, 1]);
    let rows = rows.reshape([(t1 - t0) * g, 1]).expand([(t1 - t0) * g, t1]);
    let columns = Tensor::<B, 1, Int>::arange(0..t1 as i64, device).reshape([1, t1]).expand([(t1 - t0) * g, t1]);
    Tensor::<B, 2>::zeros([(t1 - t0) * g, t1], device).mask_fill(columns.greater(rows), -1e30).unsqueeze()
}

/// Scores of one chunk of queries in f32, against the segment and against the prefix; both as `[b Hkv n, c G, keys]`.
pub(crate) struct Scores<B: Backend> {
    pub own: Tensor<B, 3>,
    pub prefix: Option<Tensor<B, 3>>,
}

/// Everything about one block that does not change from chunk to chunk.
pub(crate) struct BlockRun<'a, B: Backend> {
    pub block: &'a Block<B>,
    pub folded: Folded<B>,
    pub own_mask: Option<Tensor<B, 3>>,
    pub prefix_mask: Option<Tensor<B, 3>>,
    pub causal: bool,
    pub g: usize,
    pub scale: f64,
}

impl<'a, B: Kernels> BlockRun<'a, B> {
    pub fn new(q: &Tensor<B, 3>, k: &Tensor<B, 3>, v: &Tensor<B, 3>, block: &'a Block<B>, causal: bool) -> Self {
        let [_, h, hd] = q.dims();
        let hkv = k.dims()[1];
        Self {
            block,
            folded: fold(q, k, v, block),
            own_mask: block.own_mask.as_ref().map(|m| mask_for_heads(m, block.b, hkv)),
            prefix_mask: block.prefix_mask.as_ref().map(|m| mask_for_heads(m, block.b, hkv)),
            causal,
            g: h / hkv,
            scale: 1.0 / (hd as f64).sqrt(),
        }
    }

    /// Query positions `t0..t1` of each chunk.
    pub fn chunks(&self) -> Vec<(usize, usize)> {
        let rows = self.folded.q.dims()[0] * self.g;
        let per_position = rows * (self.block.t + self.block.p);
        let step = (SCORE_BUDGET / per_position.max(1)).clamp(1, self.block.t.max(1));
        (0..self.block.t).step_by(step).map(|t0| (t0, (t0 + step).min(self.block.t))).collect()
    }

    /// Rows of a folded query-like tensor that belong to positions `t0..t1`.
    pub fn rows(&self, x: &Tensor<B, 3>, t0: usize, t1: usize) -> Tensor<B, 3> {
        let [a, _, hd] = x.dims();
        if (t0, t1) == (0, self.block.t) { x.clone() } else { x.clone().slice([0..a, t0 * self.g..t1 * self.g, 0..hd]) }
    }

    /// Keys that a query chunk ending at `t1` can see.
    pub fn keys(&self, x: &Tensor<B, 3>, t1: usize) -> Tensor<B, 3> {
        let [a, t, hd] = x.dims();
        if !self.causal || t1 == t { x.clone() } else { x.clone().slice([0..a, 0..t1, 0..hd]) }
    }

    /// `[b Hkv n, rows, x]` seen as `[b Hkv, n rows, x]`, so that one matmul a K/V head serves all responses.
    pub fn fold_prefix(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [a, rows, x_dim] = x.dims();
        x.reshape([a / self.block.n, self.block.n * rows, x_dim])
    }

    /// The inverse of [`fold_prefix`](Self::fold_prefix).
    pub fn unfold_prefix(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [a, rows, x_dim] = x.dims();
        x.reshape([a * self.block.n, rows / self.block.n, x_dim])
    }

    pub fn scores(&self, q: &Tensor<B, 3>, t0: usize, t1: usize) -> Scores<B> {
        let device = q.device();
        let k = self.keys(&self.folded.k, t1);
        let mut own = to_f32(B::product(q.clone(), k.transpose())).mul_scalar(self.scale);
        if self.causal && self.block.t > 1 {
            own = own.add(causal_mask(t0, t1, self.g, &device));
        } else if let Some(mask) = &self.own_mask {
            own = own.add(mask.clone());
        }
        let prefix = self.folded.prefix.as_ref().map(|(k, _)| {
            let mut s = to_f32(B::product(self.fold_prefix(q.clone()), k.clone().transpose())).mul_scalar(self.scale);
            if let Some(mask) = &self.prefix_mask {
                s = s.add(mask.clone());
            }
            self.unfold_prefix(s)
        });
        Scores { own, prefix }
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
        for (t0, t1) in run.chunks() {
            let s = run.scores(&run.rows(&run.folded.q, t0, t1), t0, t1);
            let mut max = s.own.clone().max_dim(2);
            if let Some(p) = &s.prefix {
                max = max.max_pair(p.clone().max_dim(2));
            }
            let e_own = s.own.sub(max.clone()).exp();
            let mut sum = e_own.clone().sum_dim(2);
            let mut out = B::product(cast_to(e_own, dtype), run.keys(&run.folded.v, t1));
            if let (Some(p), Some((_, v))) = (s.prefix, &run.folded.prefix) {
                let e = p.sub(max.clone()).exp();
                sum = sum.add(e.clone().sum_dim(2));
                out = out.add(run.unfold_prefix(B::product(run.fold_prefix(cast_to(e, dtype)), v.clone())));
            }
            parts.push(cast_to(to_f32(out).div(sum.clone()), dtype));
            lses.push(max.add(sum.log()));
        }
        let out = concat(parts, 1);
        outputs.push(unfold_queries(out, block.b, block.n, hkv, run.g));
        saved.lse.push(concat(lses, 1));
    }
    (in_order(outputs, plan), saved)
}

pub(crate) fn concat<B: Kernels, const D: usize>(mut parts: Vec<Tensor<B, D>>, dim: usize) -> Tensor<B, D> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, dim) }
}

/// Block outputs back to packed order.
pub(crate) fn in_order<B: Kernels>(outputs: Vec<Tensor<B, 3>>, plan: &AttentionPlan<B>) -> Tensor<B, 3> {
    let all = concat(outputs, 0);
    match &plan.inverse {
        Some(index) => all.select(0, index.clone()),
        None => all,
    }
}
