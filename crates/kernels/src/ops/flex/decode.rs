//! One new token a row: its queries, keys and values, and attention over a shared prompt and the row's own columns.

use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use super::host::{F, Host, Matrix, Owned, PARALLEL, SharedOutput, matmul, tensor, zeros};
use super::rows::{exp_row, norm_rows, rotate_rows};
use super::simd::{dot, vectorised};
use crate::attention::decode::{DecodeKv, NewTokens, OwnKv};
use crate::layers::BlockShape;
use crate::ops::plain;

/// `s [G, len]` (row stride `stride`) `= q [G, hd] k [len, hd]^T`, a key every `step` values, the last `hd` of `k` its
/// last.
fn own_scores(s: &mut [f32], stride: usize, q: &[f32], k: &[f32], step: usize, hd: usize) {
    #[cfg(target_arch = "x86_64")]
    if hd.is_multiple_of(16) && std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has these instructions.
        return unsafe { wide::scores(s, stride, q, k, step, hd) };
    }
    scores(s, stride, q, k, step, hd);
}

/// Sixteen scores at a time: the products of each column lie in a register of their own, and sixteen registers are
/// added up across in 45 instructions, where one by one they would take ten times as many.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    /// As [`super::own_scores`], for heads of whole registers.
    #[target_feature(enable = "avx512f")]
    pub(super) fn scores(s: &mut [f32], stride: usize, q: &[f32], k: &[f32], step: usize, hd: usize) {
        for (g, q) in q.chunks_exact(hd).enumerate() {
            for (block, k) in k.chunks(16 * step).enumerate() {
                let columns = (k.len() - hd) / step + 1;
                let mut products = [_mm512_setzero_ps(); 16];
                for (c, sum) in products.iter_mut().enumerate().take(columns) {
                    for (q, k) in q.chunks_exact(16).zip(k[c * step..][..hd].chunks_exact(16)) {
                        // SAFETY: both are 16 values.
                        let (q, k) = unsafe { (_mm512_loadu_ps(q.as_ptr()), _mm512_loadu_ps(k.as_ptr())) };
                        *sum = _mm512_fmadd_ps(q, k, *sum);
                    }
                }
                let mut scores = [0f32; 16];
                // SAFETY: 16 values.
                unsafe { _mm512_storeu_ps(scores.as_mut_ptr(), across(products)) };
                s[g * stride + block * 16..][..columns].copy_from_slice(&scores[..columns]);
            }
        }
    }

    /// The sum of each register, in order.
    #[target_feature(enable = "avx512f")]
    fn across(v: [__m512; 16]) -> __m512 {
        let mut pairs = [_mm512_setzero_ps(); 8];
        for (i, sum) in pairs.iter_mut().enumerate() {
            let (a, b) = (v[2 * i], v[2 * i + 1]);
            *sum = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        }
        let mut fours = [_mm512_setzero_ps(); 4];
        for (i, sum) in fours.iter_mut().enumerate() {
            let (a, b) = (_mm512_castps_pd(pairs[2 * i]), _mm512_castps_pd(pairs[2 * i + 1]));
            let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
            *sum = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
        }
        // Each register now holds four sums in quarters; quarters are added in two steps.
        let halves = |a, b| {
            _mm512_add_ps(_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b))
        };
        halves(halves(fours[0], fours[1]), halves(fours[2], fours[3]))
    }
}

vectorised! {
    /// As [`own_scores`], for any processor and head size.
    fn scores(s: &mut [f32], stride: usize, q: &[f32], k: &[f32], step: usize, hd: usize) {
        for (c, k) in k.chunks(step).enumerate() {
            for (g, q) in q.chunks_exact(hd).enumerate() {
                s[g * stride + c] = dot(q, &k[..hd]);
            }
        }
    }
}

vectorised! {
    /// `out [G, hd] += p [G, len] v [len, hd]`, a value every `step` values.
    fn own_mix(out: &mut [f32], p: &[f32], stride: usize, v: &[f32], step: usize, hd: usize) {
        for (g, out) in out.chunks_exact_mut(hd).enumerate() {
            for (c, v) in v.chunks(step).enumerate() {
                let w = p[g * stride + c];
                for (o, v) in out.iter_mut().zip(&v[..hd]) {
                    *o += w * v;
                }
            }
        }
    }
}

/// See [`Kernels::decode_heads`](crate::Kernels::decode_heads). In place: Flex's own `slice_assign` copies the whole
/// cache, whoever holds it.
pub(super) fn heads(
    projected: Tensor<F, 3>,
    tokens: NewTokens<'_, F>,
    own: Vec<OwnKv<F>>,
) -> (Tensor<F, 3>, Vec<OwnKv<F>>) {
    let BlockShape { heads, kv_heads, head_dim: hd } = tokens.shape;
    let projected = plain::whole(projected, DType::F32);
    let [rows, width] = projected.dims();
    let (wide, kv) = (heads * hd, kv_heads * hd);
    let positions: Vec<i32> = tokens.positions.to_data().iter::<i32>().collect();
    let (cos, sin, x) = (Host::new(&tokens.angles.cos), Host::new(&tokens.angles.sin), Host::new(&projected));
    let (cos, sin) = (cos.values(), sin.values());
    let bias = tokens.bias.map(Host::new);
    let norms = tokens.qk_norm.map(|norms| norms.map(|(weight, eps)| (Host::new(weight), eps as f32)));
    let mut x = x.values().to_vec();
    let mut q = zeros(rows * wide);
    let mut normed = zeros(wide + kv);
    for ((row, q), position) in x.chunks_exact_mut(width).zip(q.chunks_exact_mut(wide)).zip(positions) {
        if let Some(bias) = &bias {
            row.iter_mut().zip(bias.values()).for_each(|(x, b)| *x += b);
        }
        if let Some([(q_norm, q_eps), (k_norm, k_eps)]) = &norms {
            let (nq, nk) = normed.split_at_mut(wide);
            norm_rows(nq, &row[..wide], q_norm.values(), *q_eps);
            norm_rows(nk, &row[wide..wide + kv], k_norm.values(), *k_eps);
        } else {
            normed.copy_from_slice(&row[..wide + kv]);
        }
        let at = position as usize * hd;
        let (cos, sin) = (&cos[at..at + hd], &sin[at..at + hd]);
        rotate_rows(q, &normed[..wide], cos, sin, heads, hd, 1.0);
        rotate_rows(&mut row[wide..wide + kv], &normed[wide..], cos, sin, kv_heads, hd, 1.0);
    }
    let mut new = x.chunks_exact(width);
    let written = own.into_iter().map(|OwnKv { k, v, len }| {
        let [count, capacity, ..] = k.dims();
        let (mut k, mut v) = (Owned::new(k), Owned::new(v));
        let caches = k.values_mut().chunks_exact_mut(capacity * kv).zip(v.values_mut().chunks_exact_mut(capacity * kv));
        for ((k, v), row) in caches.zip(new.by_ref().take(count)) {
            k[len * kv..(len + 1) * kv].copy_from_slice(&row[wide..wide + kv]);
            v[len * kv..(len + 1) * kv].copy_from_slice(&row[wide + kv..]);
        }
        OwnKv { k: k.tensor(), v: v.tensor(), len: len + 1 }
    });
    let written = written.collect();
    (tensor(q, [rows, heads, hd]), written)
}

/// See [`Kernels::decode_attention`](crate::Kernels::decode_attention).
pub(super) fn attention(q: Tensor<F, 3>, past: &[DecodeKv<F>]) -> Tensor<F, 3> {
    let dims = q.dims();
    let q = Host::new(&q);
    let mut out = zeros(q.values().len());
    let wide = dims[1] * dims[2];
    let mut start = 0;
    for kv in past {
        let rows = kv.prompts.ranges.len() * kv.n;
        let part = start * wide..(start + rows) * wide;
        lane(&q.values()[part.clone()], &mut out[part], [dims[1], dims[2]], kv);
        start += rows;
    }
    tensor(out, dims)
}

/// Attention of the rows of one lane: `q, out [rows, H, hd]`.
fn lane(q: &[f32], out: &mut [f32], [heads, hd]: [usize; 2], kv: &DecodeKv<F>) {
    let (hkv, capacity) = (kv.prefix.0.dims()[1], kv.own.k.dims()[1]);
    let (n, len, g) = (kv.n, kv.own.len, heads / hkv);
    let (pk, pv) = (Host::new(&kv.prefix.0), Host::new(&kv.prefix.1));
    let (k, v) = (Host::new(&kv.own.k), Host::new(&kv.own.v));
    let (pk, pv, k, v) = (pk.values(), pv.values(), k.values(), v.values());
    let (scale, rows, step) = (1.0 / (hd as f32).sqrt(), n * g, hkv * hd);
    let shared = SharedOutput::new(out);
    // One K/V head of one group: its n G queries meet the prompt in one product.
    let task = |(s, mix): &mut (Vec<f32>, Vec<f32>), a: usize| {
        let (group, head) = (a / hkv, a % hkv);
        let prompt = kv.prompts.ranges[group].clone();
        let (p, width) = (prompt.len(), prompt.len() + len);
        // Where the queries of response `i` begin.
        let at = |i: usize| ((group * n + i) * heads + head * g) * hd;
        let queries: Vec<f32> = (0..n).flat_map(|i| q[at(i)..][..g * hd].iter().map(|x| x * scale)).collect();
        let first = (prompt.start * hkv + head) * hd;
        s.resize(rows * width, 0.0);
        mix.resize(rows * hd, 0.0);
        let keys = Matrix::rows(pk.get(first..).unwrap_or(&[]), step).transposed();
        matmul(s, width, false, Matrix::rows(&queries, hd), keys, rows, p, hd, false);
        // The columns of response `i` that are written.
        let own = |cache: &'_ [f32], i: usize| {
            let first = ((group * n + i) * capacity * hkv + head) * hd;
            first..(first + (len.max(1) - 1) * step + hd).min(cache.len())
        };
        for i in 0..n {
            let columns = &k[own(k, i)];
            own_scores(&mut s[i * g * width + p..], width, &queries[i * g * hd..][..g * hd], columns, step, hd);
        }
        let sums: Vec<f32> = s.chunks_exact_mut(width).take(rows).map(|row| exp_row(row, width).1).collect();
        let values = Matrix::rows(pv.get(first..).unwrap_or(&[]), step);
        match p {
            0 => mix.fill(0.0),
            _ => matmul(mix, hd, false, Matrix::rows(s, width), values, rows, hd, p, false),
        }
        for i in 0..n {
            let mix = &mut mix[i * g * hd..][..g * hd];
            own_mix(mix, &s[i * g * width + p..], width, &v[own(v, i)], step, hd);
            // SAFETY: these heads of this response are this task's.
            let out = unsafe { shared.slice(at(i), g * hd) };
            for ((out, mix), sum) in out.chunks_exact_mut(hd).zip(mix.chunks_exact(hd)).zip(&sums[i * g..]) {
                out.iter_mut().zip(mix).for_each(|(o, m)| *o = m / sum);
            }
        }
    };
    let tasks = kv.prompts.ranges.len() * hkv;
    if tasks * rows * (kv.prompts.longest() + len) * hd < PARALLEL * 16 {
        let mut buffers = (Vec::new(), Vec::new());
        (0..tasks).for_each(|a| task(&mut buffers, a));
    } else {
        (0..tasks).into_par_iter().for_each_init(Default::default, task);
    }
}
