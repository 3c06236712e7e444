//! Attention of one new token a row over a shared prompt and the row's own columns.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::host::{F, Host, Matrix, Owned, PARALLEL, matmul, tensor};
use super::rows::exp_row;
use super::simd::{dot, vectorised};
use crate::attention::decode::DecodeKv;

/// `s [G, len]` (row stride `stride`) `= q [G, hd] k [len, hd]^T`.
fn own_scores(s: &mut [f32], stride: usize, q: &[f32], k: &[f32], len: usize, hd: usize) {
    #[cfg(target_arch = "x86_64")]
    if hd.is_multiple_of(16) && std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has these instructions.
        return unsafe { wide::scores(s, stride, q, k, len, hd) };
    }
    scores(s, stride, q, k, len, hd);
}

/// Sixteen scores at a time: the products of each column lie in a register of their own, and sixteen registers are
/// added up across in 45 instructions, where one by one they would take ten times as many.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::*;

    /// As [`super::own_scores`], for heads of whole registers.
    #[target_feature(enable = "avx512f")]
    pub(super) fn scores(s: &mut [f32], stride: usize, q: &[f32], k: &[f32], len: usize, hd: usize) {
        let k = &k[..len * hd];
        for (g, q) in q.chunks_exact(hd).enumerate() {
            for (block, k) in k.chunks(16 * hd).enumerate() {
                let columns = k.len() / hd;
                let mut products = [_mm512_setzero_ps(); 16];
                for (c, sum) in products.iter_mut().enumerate().take(columns) {
                    for (q, k) in q.chunks_exact(16).zip(k[c * hd..][..hd].chunks_exact(16)) {
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
    fn scores(s: &mut [f32], stride: usize, q: &[f32], k: &[f32], len: usize, hd: usize) {
        for (c, k) in k.chunks_exact(hd).take(len).enumerate() {
            for (g, q) in q.chunks_exact(hd).enumerate() {
                s[g * stride + c] = dot(q, k);
            }
        }
    }
}

vectorised! {
    /// `out [G, hd] += p [G, len] v [len, hd]`.
    fn own_mix(out: &mut [f32], p: &[f32], stride: usize, v: &[f32], len: usize, hd: usize) {
        for (g, out) in out.chunks_exact_mut(hd).enumerate() {
            for (c, v) in v.chunks_exact(hd).take(len).enumerate() {
                let w = p[g * stride + c];
                for (o, v) in out.iter_mut().zip(v) {
                    *o += w * v;
                }
            }
        }
    }
}

/// In place: Flex's own `slice_assign` copies the whole cache, whoever holds it.
pub(super) fn write_column(cache: Tensor<F, 3>, at: usize, value: Tensor<F, 3>) -> Tensor<F, 3> {
    let [_, columns, hd] = cache.dims();
    let value = Host::new(&value);
    let mut cache = Owned::new(cache);
    let rows = cache.values_mut().chunks_exact_mut(columns * hd);
    for (row, value) in rows.zip(value.values().chunks_exact(hd)) {
        row[at * hd..(at + 1) * hd].copy_from_slice(value);
    }
    cache.tensor()
}

pub(super) fn attention(q: Tensor<F, 3>, kv: DecodeKv<F>) -> Tensor<F, 3> {
    let dims = q.dims();
    let [all, g, hd] = dims;
    let (p, capacity) = (kv.prefix.0.dims()[1], kv.own.0.dims()[1]);
    let (n, len) = (kv.n, kv.len);
    let (q, pk, pv) = (Host::new(&q), Host::new(&kv.prefix.0), Host::new(&kv.prefix.1));
    let (k, v) = (Host::new(&kv.own.0), Host::new(&kv.own.1));
    let mask = kv.prefix_mask.as_ref().map(Host::new);
    let (q, pk, pv, k, v) = (q.values(), pk.values(), pv.values(), k.values(), v.values());
    let mask = mask.as_ref().map(Host::values);
    let scale = 1.0 / (hd as f32).sqrt();
    let mut out = vec![0f32; q.len()];
    let (rows, width) = (n * g, p + len);
    // One K/V head of one group: its n G queries meet the prompt in one matmul.
    let task = |s: &mut Vec<f32>, (a, out): (usize, &mut [f32])| {
        let q: Vec<f32> = q[a * rows * hd..][..rows * hd].iter().map(|x| x * scale).collect();
        s.resize(rows * width, 0.0);
        matmul(
            s,
            width,
            false,
            Matrix::rows(&q, hd),
            Matrix::rows(&pk[a * p * hd..], hd).transposed(),
            rows,
            p,
            hd,
            false,
        );
        for i in 0..n {
            let own = &k[(a * n + i) * capacity * hd..][..len * hd];
            own_scores(&mut s[i * g * width + p..], width, &q[i * g * hd..][..g * hd], own, len, hd);
        }
        let mut sums = Vec::with_capacity(rows);
        for row in s.chunks_exact_mut(width) {
            if let Some(mask) = mask {
                row.iter_mut().zip(&mask[a * p..(a + 1) * p]).for_each(|(s, m)| *s += m);
            }
            sums.push(exp_row(row, width).1);
        }
        matmul(out, hd, false, Matrix::rows(s, width), Matrix::rows(&pv[a * p * hd..], hd), rows, hd, p, false);
        for i in 0..n {
            let own = &v[(a * n + i) * capacity * hd..][..len * hd];
            own_mix(&mut out[i * g * hd..][..g * hd], &s[i * g * width + p..], width, own, len, hd);
        }
        for (row, sum) in out.chunks_exact_mut(hd).zip(sums) {
            row.iter_mut().for_each(|x| *x /= sum);
        }
    };
    if all * g * width * hd < PARALLEL * 16 {
        let mut s = Vec::new();
        out.chunks_exact_mut(rows * hd).enumerate().for_each(|t| task(&mut s, t));
    } else {
        out.par_chunks_exact_mut(rows * hd).enumerate().for_each_init(Vec::new, task);
    }
    tensor(out, dims)
}
