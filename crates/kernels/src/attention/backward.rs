//! The backward pass of block attention, written by hand: `p` is recomputed from the log-sum-exp, so nothing of size
//! queries x keys outlives its chunk.
//!
//! With `p = exp(s - lse)`, `o = p v`, `D = rowsum(do o)`: `dv = p^T do`, `ds = p (do v^T - D) scale`, `dq = ds k`, `dk
//! = ds^T q`.

use burn::tensor::{IndexingUpdateOp, Tensor, backend::Backend};

use super::AttentionSaved;
use super::forward::{BlockRun, concat, fold_queries, in_order, unfold_queries};
use super::plan::{AttentionPlan, Gather};
use super::scores::{PLAIN_SCORES, gradient};
use crate::ops::Kernels;
use crate::params::{cast_to, to_f32};

/// See [`Kernels::packed_attention_backward`](crate::Kernels::packed_attention_backward).
pub fn backward<B: Kernels>(
    [q, k, v]: [Tensor<B, 3>; 3],
    o: Tensor<B, 3>,
    saved: &AttentionSaved<B>,
    d_o: Tensor<B, 3>,
    plan: &AttentionPlan<B>,
) -> [Tensor<B, 3>; 3] {
    let hkv = k.dims()[1];
    let dtype = q.dtype();
    let (mut dqs, mut dks, mut dvs) = (Vec::new(), Vec::new(), Vec::new());
    let mut prefixes = Vec::new();
    for (block, lse) in plan.blocks.iter().zip(&saved.lse) {
        let run = BlockRun::new(&q, &k, &v, block, plan.causal);
        let mut d_o_rows = block.rows.take(&d_o);
        if let Some(valid) = &block.valid {
            d_o_rows = d_o_rows.mul(cast_to(valid.clone(), dtype)); // padding repeats row 0: its gradient must not count
        }
        let d_out = fold_queries(d_o_rows, block.b, block.n, hkv);
        let out = fold_queries(block.rows.take(&o), block.b, block.n, hkv);
        let dot = to_f32(d_out.clone()).mul(to_f32(out)).sum_dim(2); // D, [b Hkv n, t G, 1]
        let mut dq = Vec::new();
        let mut own: Option<(Tensor<B, 3>, Tensor<B, 3>)> = None;
        let mut pre: Option<(Tensor<B, 3>, Tensor<B, 3>)> = None;
        // The last chunk sees all keys, so going backwards lets the sums start at full size.
        for (t0, t1) in run.chunks(PLAIN_SCORES).into_iter().rev() {
            let qc = run.rows(&run.folded.q, t0, t1);
            let dc = run.rows(&d_out, t0, t1);
            let (dot, lse) = (run.rows(&dot, t0, t1), run.rows(lse, t0, t1));
            let own_mask = run.own_mask(t0);
            let dp = B::matmul(dc.clone(), run.keys(&run.folded.v, t1).transpose());
            let own_products = run.own(&qc, t1, &own_mask);
            let [p, ds] = gradient(own_products, dp, lse.clone(), dot.clone(), run.scale);
            let mut dq_chunk = B::matmul(ds.clone(), run.keys(&run.folded.k, t1));
            let dv = to_f32(B::matmul(p.transpose(), dc.clone()));
            let dk = to_f32(B::matmul(ds.transpose(), qc.clone()));
            own = Some(match own {
                None => (dk, dv),
                Some((k_sum, v_sum)) => (add_front(k_sum, dk), add_front(v_sum, dv)),
            });
            if let (Some(products), Some((kp, vp))) = (run.prefix(&qc), &run.folded.prefix) {
                let [qc, dc, lse, dot] = [qc, dc, lse, dot].map(|x| run.fold_prefix(x));
                let dp = B::matmul(dc.clone(), vp.clone().transpose());
                let [p, ds] = gradient(products, dp, lse, dot, run.scale);
                dq_chunk = dq_chunk.add(run.unfold_prefix(B::matmul(ds.clone(), kp.clone())));
                let dv = to_f32(B::matmul(p.transpose(), dc));
                let dk = to_f32(B::matmul(ds.transpose(), qc));
                pre = Some(match pre {
                    None => (dk, dv),
                    Some((k_sum, v_sum)) => (k_sum.add(dk), v_sum.add(dv)),
                });
            }
            dq.push(dq_chunk);
        }
        dq.reverse();
        dqs.push(unfold_queries(concat(dq, 1), block.b, block.n, hkv, run.g));
        if let Some((dk, dv)) = own {
            dks.push(unfold_queries(dk, block.b, block.n, hkv, 1));
            dvs.push(unfold_queries(dv, block.b, block.n, hkv, 1));
        }
        if let (Some((dk, dv)), Some(gather)) = (pre, &block.prefix) {
            prefixes.push((gather, unfold_queries(dk, block.b, 1, hkv, 1), unfold_queries(dv, block.b, 1, hkv, 1)));
        }
    }
    let dq = in_order(dqs, plan);
    let (mut dk, mut dv) = (in_order(dks, plan), in_order(dvs, plan));
    for (gather, k_part, v_part) in prefixes {
        dk = add_rows(dk, gather, k_part);
        dv = add_rows(dv, gather, v_part);
    }
    [dq, cast_to(dk, dtype), cast_to(dv, dtype)]
}

/// Adds `part [a, t1, hd]` to the first `t1` rows of `sum [a, t, hd]`.
fn add_front<B: Backend>(sum: Tensor<B, 3>, part: Tensor<B, 3>) -> Tensor<B, 3> {
    let [a, t1, hd] = part.dims();
    if sum.dims()[1] == t1 {
        return sum.add(part);
    }
    let front = sum.clone().slice([0..a, 0..t1, 0..hd]).add(part);
    sum.slice_assign([0..a, 0..t1, 0..hd], front)
}

/// Adds the rows of a block back to the packed rows they came from. Padded rows carry zeros.
fn add_rows<B: Backend>(sum: Tensor<B, 3>, gather: &Gather<B>, part: Tensor<B, 3>) -> Tensor<B, 3> {
    match gather {
        Gather::Range(r) => {
            let [_, h, hd] = part.dims();
            let front = sum.clone().slice([r.clone(), 0..h, 0..hd]).add(part);
            sum.slice_assign([r.clone(), 0..h, 0..hd], front)
        }
        Gather::Index(index) => sum.select_assign(0, index.clone(), part, IndexingUpdateOp::Add),
    }
}
