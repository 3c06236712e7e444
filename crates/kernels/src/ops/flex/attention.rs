//! Packed attention over ragged segments: no padding, one task a segment, K/V head and run of queries. The query heads
//! of a K/V head are the rows of one matmul; scores live in a buffer that fits the cache.
//!
//! Results do not depend on the number of threads: a task computes its rows alone, and what several tasks add to (the
//! gradients of a shared prompt) is collected by runs of responses of fixed size and added in order.

use std::ops::Range;

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::host::{F, Host, Matrix, PARALLEL, SharedOutput, matmul, tensor, zeros};
use super::rows::exp_row;
use super::simd::{dot, exp, vectorised};
use crate::attention::{AttentionPlan, AttentionSaved};

/// Elements of a buffer of scores.
const SCORES: usize = 1 << 16;
/// Rows (queries times heads) of one matmul, at most.
const ROWS: usize = 256;
/// Responses of one group in one task of the backward.
const MEMBERS: usize = 4;

/// Sizes that all tasks share.
#[derive(Clone, Copy)]
struct Heads {
    /// Query heads.
    h: usize,
    /// Query heads a K/V head.
    g: usize,
    kv: usize,
    hd: usize,
    scale: f32,
    causal: bool,
}

impl Heads {
    fn new(q: &Tensor<F, 3>, k: &Tensor<F, 3>, causal: bool) -> Self {
        let ([_, h, hd], kv) = (q.dims(), k.dims()[1]);
        Self { h, g: h / kv, kv, hd, scale: 1.0 / (hd as f32).sqrt(), causal }
    }

    /// Where token `row`'s keys or values of K/V head `j` begin.
    fn key(&self, row: usize, j: usize) -> usize {
        (row * self.kv + j) * self.hd
    }

    /// Where token `row`'s first query head of K/V head `j` begins; the others follow it.
    fn query(&self, row: usize, j: usize) -> usize {
        (row * self.h + j * self.g) * self.hd
    }

    /// Keys or values of consecutive tokens from `row` as a matrix.
    fn keys<'a>(&self, values: &'a [f32], row: usize, j: usize) -> Matrix<'a> {
        Matrix::rows(&values[self.key(row, j)..], self.kv * self.hd)
    }

    /// Queries in one buffer of scores.
    fn run(&self, keys: usize) -> usize {
        ((SCORES / keys.max(1)).min(ROWS) / self.g).max(8)
    }
}

/// Copies the query heads of K/V head `j` of tokens `rows` to `[tokens G, hd]`, times `scale`.
fn gather(out: &mut Vec<f32>, x: &[f32], heads: Heads, rows: Range<usize>, j: usize, scale: f32) {
    out.clear();
    for row in rows {
        out.extend(x[heads.query(row, j)..][..heads.g * heads.hd].iter().map(|v| v * scale));
    }
}

/// Keys that query token `i` of its segment sees, of `prefix` and `own` ones in the buffer.
fn visible(heads: Heads, prefix: usize, own: usize, i: usize) -> usize {
    prefix + if heads.causal { (i + 1).min(own) } else { own }
}

/// Buffers of a task, used again by the next one.
#[derive(Default)]
struct Scratch {
    q: Vec<f32>,
    d_o: Vec<f32>,
    o: Vec<f32>,
    scores: Vec<f32>,
    d_scores: Vec<f32>,
    out: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

fn sized(v: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if v.len() < len {
        v.resize(len, 0.0);
    }
    &mut v[..len]
}

/// `out [rows, prefix + own] = q k^T` over the prefix's keys and the segment's own.
#[allow(clippy::too_many_arguments)] // two products of one shape each, told apart by the ranges
fn products(
    out: &mut [f32],
    q: &[f32],
    keys: &[f32],
    heads: Heads,
    rows: usize,
    prefix: &Range<usize>,
    own: Range<usize>,
    j: usize,
) {
    let (p, t, hd) = (prefix.len(), own.len(), heads.hd);
    let width = p + t;
    if p > 0 {
        matmul(
            out,
            width,
            false,
            Matrix::rows(q, hd),
            heads.keys(keys, prefix.start, j).transposed(),
            rows,
            p,
            hd,
            false,
        );
    }
    matmul(
        &mut out[p..],
        width,
        false,
        Matrix::rows(q, hd),
        heads.keys(keys, own.start, j).transposed(),
        rows,
        t,
        hd,
        false,
    );
}

/// `out [rows, hd] = s v` over both.
#[allow(clippy::too_many_arguments)] // as `products`
fn mix(
    out: &mut [f32],
    s: &[f32],
    values: &[f32],
    heads: Heads,
    rows: usize,
    prefix: &Range<usize>,
    own: Range<usize>,
    j: usize,
) {
    let (p, t, hd) = (prefix.len(), own.len(), heads.hd);
    let width = p + t;
    if p > 0 {
        matmul(out, hd, false, Matrix::rows(s, width), heads.keys(values, prefix.start, j), rows, hd, p, false);
    }
    matmul(out, hd, p > 0, Matrix::rows(&s[p..], width), heads.keys(values, own.start, j), rows, hd, t, false);
}

/// Runs `f` over the tasks, on all threads if there is work for them.
fn each<T: Send, R: Send>(tasks: Vec<T>, work: usize, f: impl Fn(&mut Scratch, T) -> R + Sync + Send) -> Vec<R> {
    if work < PARALLEL * 16 {
        let mut scratch = Scratch::default();
        return tasks.into_iter().map(|t| f(&mut scratch, t)).collect();
    }
    tasks.into_par_iter().map_init(Scratch::default, f).collect()
}

/// Scores of a whole plan, times the head size: a measure of its work.
fn work(plan: &AttentionPlan<F>, heads: Heads) -> usize {
    plan.segments.iter().map(|(r, p)| r.len() * (r.len() + p.as_ref().map_or(0, |p| p.len()))).sum::<usize>()
        * heads.h
        * heads.hd
}

pub(super) fn forward(
    q: Tensor<F, 3>,
    k: Tensor<F, 3>,
    v: Tensor<F, 3>,
    plan: &AttentionPlan<F>,
) -> (Tensor<F, 3>, AttentionSaved<F>) {
    let heads = Heads::new(&q, &k, plan.causal);
    let dims = q.dims();
    let (q, k, v) = (Host::new(&q), Host::new(&k), Host::new(&v));
    let (q, k, v) = (q.values(), k.values(), v.values());
    let mut tasks = Vec::new();
    for (rows, prefix) in &plan.segments {
        let prefix = prefix.clone().unwrap_or(0..0);
        let run = heads.run(prefix.len() + rows.len());
        for j in 0..heads.kv {
            for t0 in (0..rows.len()).step_by(run) {
                tasks.push((rows.clone(), prefix.clone(), j, t0..(t0 + run).min(rows.len())));
            }
        }
    }
    let mut o = zeros(q.len());
    let mut lse = zeros(dims[0] * heads.h);
    let (o_out, lse_out) = (SharedOutput::new(&mut o), SharedOutput::new(&mut lse));
    each(tasks, work(plan, heads), |scratch, (segment, prefix, j, t)| {
        let Heads { g, hd, .. } = heads;
        let own = segment.start..segment.start + if heads.causal { t.end } else { segment.len() };
        let (p, width) = (prefix.len(), prefix.len() + own.len());
        let rows = t.len() * g;
        let first = segment.start + t.start;
        gather(&mut scratch.q, q, heads, first..segment.start + t.end, j, heads.scale);
        let s = sized(&mut scratch.scores, rows * width);
        products(s, &scratch.q, k, heads, rows, &prefix, own.clone(), j);
        let out = sized(&mut scratch.out, rows * hd);
        let sums = sized(&mut scratch.d_scores, rows);
        for (r, row) in s.chunks_exact_mut(width).enumerate() {
            let (top, sum) = exp_row(row, visible(heads, p, own.len(), t.start + r / g));
            sums[r] = sum;
            // SAFETY: this row and these heads are this task's alone.
            unsafe { lse_out.slice((first + r / g) * heads.h + j * g + r % g, 1)[0] = top + sum.ln() };
        }
        mix(out, s, v, heads, rows, &prefix, own, j);
        for (i, token) in out.chunks_exact(g * hd).enumerate() {
            // SAFETY: as above.
            let to = unsafe { o_out.slice(heads.query(first + i, j), g * hd) };
            for (x, (to, from)) in to.chunks_exact_mut(hd).zip(token.chunks_exact(hd)).enumerate() {
                let scale = 1.0 / sums[i * g + x];
                to.iter_mut().zip(from).for_each(|(a, b)| *a = b * scale);
            }
        }
    });
    (tensor(o, dims), AttentionSaved { lse: vec![tensor(lse, [dims[0], heads.h, 1])] })
}

vectorised! {
    /// From scores to `p` and from `dp` to `ds` of one row, zeros where the query does not look.
    fn row_backward(s: &mut [f32], ds: &mut [f32], valid: usize, lse: f32, d_o: &[f32], o: &[f32]) {
        let d = dot(d_o, o);
        let (live, dead) = s.split_at_mut(valid);
        let (d_live, d_dead) = ds.split_at_mut(valid);
        for (s, ds) in live.iter_mut().zip(d_live) {
            let p = exp(*s - lse);
            *s = p;
            *ds = (*ds - d) * p;
        }
        dead.fill(0.0);
        d_dead.fill(0.0);
    }
}

/// Segments of one task: one that stands alone, or some responses of a group.
struct SharingTask {
    prefix: Range<usize>,
    segments: Vec<Range<usize>>,
    j: usize,
}

/// What a task adds to the prompt that its segments share.
struct PrefixGradients {
    prefix: Range<usize>,
    j: usize,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

fn sharing_tasks(plan: &AttentionPlan<F>, kv: usize) -> Vec<SharingTask> {
    let mut sharing: Vec<(Range<usize>, Vec<Range<usize>>)> = Vec::new();
    for (rows, prefix) in &plan.segments {
        match (prefix, sharing.last_mut()) {
            (Some(p), Some((prefix, segments))) if prefix == p && segments.len() < MEMBERS => {
                segments.push(rows.clone())
            }
            _ => sharing.push((prefix.clone().unwrap_or(0..0), vec![rows.clone()])),
        }
    }
    sharing
        .into_iter()
        .flat_map(|(prefix, segments)| {
            (0..kv).map(move |j| SharingTask { prefix: prefix.clone(), segments: segments.clone(), j })
        })
        .collect()
}

pub(super) fn backward(
    [q, k, v]: [Tensor<F, 3>; 3],
    o: Tensor<F, 3>,
    saved: &AttentionSaved<F>,
    d_o: Tensor<F, 3>,
    plan: &AttentionPlan<F>,
) -> [Tensor<F, 3>; 3] {
    let heads = Heads::new(&q, &k, plan.causal);
    let (dims, kv_dims) = (q.dims(), k.dims());
    let (q, k, v, o, d_o) = (Host::new(&q), Host::new(&k), Host::new(&v), Host::new(&o), Host::new(&d_o));
    let (q, k, v, o, d_o) = (q.values(), k.values(), v.values(), o.values(), d_o.values());
    let lse = saved.lse.first().map(Host::new);
    let lse = lse.as_ref().map_or(&[][..], Host::values);
    let (mut dq, mut dk, mut dv) = (zeros(q.len()), zeros(k.len()), zeros(k.len()));
    let (dq_out, dk_out, dv_out) = (SharedOutput::new(&mut dq), SharedOutput::new(&mut dk), SharedOutput::new(&mut dv));
    let parts =
        each(sharing_tasks(plan, heads.kv), work(plan, heads) * 2, |scratch, SharingTask { prefix, segments, j }| {
            let Heads { g, hd, .. } = heads;
            let p = prefix.len();
            let mut part = PrefixGradients { dk: zeros(p * hd), dv: zeros(p * hd), prefix: prefix.clone(), j };
            for segment in segments {
                let run = heads.run(p + segment.len());
                sized(&mut scratch.dk, segment.len() * hd).fill(0.0);
                sized(&mut scratch.dv, segment.len() * hd).fill(0.0);
                for t0 in (0..segment.len()).step_by(run) {
                    let t1 = (t0 + run).min(segment.len());
                    let (first, rows) = (segment.start + t0, (t1 - t0) * g);
                    let own = segment.start..segment.start + if heads.causal { t1 } else { segment.len() };
                    let width = p + own.len();
                    let tokens = first..segment.start + t1;
                    gather(&mut scratch.q, q, heads, tokens.clone(), j, heads.scale);
                    gather(&mut scratch.d_o, d_o, heads, tokens.clone(), j, 1.0);
                    gather(&mut scratch.o, o, heads, tokens, j, 1.0);
                    let s = sized(&mut scratch.scores, rows * width);
                    let ds = sized(&mut scratch.d_scores, rows * width);
                    products(s, &scratch.q, k, heads, rows, &prefix, own.clone(), j);
                    products(ds, &scratch.d_o, v, heads, rows, &prefix, own.clone(), j);
                    for r in 0..rows {
                        let lse = lse[(first + r / g) * heads.h + j * g + r % g];
                        let (row, head) = (r * width..(r + 1) * width, r * hd..(r + 1) * hd);
                        let valid = visible(heads, p, own.len(), t0 + r / g);
                        row_backward(
                            &mut s[row.clone()],
                            &mut ds[row],
                            valid,
                            lse,
                            &scratch.d_o[head.clone()],
                            &scratch.o[head],
                        );
                    }
                    let out = sized(&mut scratch.out, rows * hd);
                    mix(out, ds, k, heads, rows, &prefix, own.clone(), j);
                    for (i, token) in out.chunks_exact(g * hd).enumerate() {
                        // SAFETY: the queries of a segment belong to one task a K/V head.
                        let to = unsafe { dq_out.slice(heads.query(first + i, j), g * hd) };
                        to.iter_mut().zip(token).for_each(|(a, b)| *a = b * heads.scale);
                    }
                    // dk += ds^T q (q carries the scale), dv += p^T do
                    let (qm, dm) = (Matrix::rows(&scratch.q, hd), Matrix::rows(&scratch.d_o, hd));
                    let columns = |m, at: usize| Matrix::rows(m, width).from(at).transposed();
                    let t = own.len();
                    matmul(&mut scratch.dk, hd, true, columns(ds, p), qm, t, hd, rows, false);
                    matmul(&mut scratch.dv, hd, true, columns(s, p), dm, t, hd, rows, false);
                    if p > 0 {
                        matmul(&mut part.dk, hd, true, columns(ds, 0), qm, p, hd, rows, false);
                        matmul(&mut part.dv, hd, true, columns(s, 0), dm, p, hd, rows, false);
                    }
                }
                for (i, row) in segment.clone().enumerate() {
                    // SAFETY: the keys of a segment belong to one task a K/V head.
                    unsafe {
                        dk_out.slice(heads.key(row, j), hd).copy_from_slice(&scratch.dk[i * hd..(i + 1) * hd]);
                        dv_out.slice(heads.key(row, j), hd).copy_from_slice(&scratch.dv[i * hd..(i + 1) * hd]);
                    }
                }
            }
            part
        });
    for PrefixGradients { prefix, j, dk: k_part, dv: v_part } in parts {
        for (i, row) in prefix.enumerate() {
            let at = heads.key(row, j);
            for c in 0..heads.hd {
                dk[at + c] += k_part[i * heads.hd + c];
                dv[at + c] += v_part[i * heads.hd + c];
            }
        }
    }
    [tensor(dq, dims), tensor(dk, kv_dims), tensor(dv, kv_dims)]
}
