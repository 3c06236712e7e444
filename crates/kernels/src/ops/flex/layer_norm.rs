//! LayerNorm in one pass over memory.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::host::{F, Host, PARALLEL, for_rows, tensor, zeros};
use super::simd::{sum, vectorised};

/// The mean of a row and one over its standard deviation. The mean is taken off before squares are summed.
#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let d = x.len() as f32;
    let mean = sum(x.len(), |i| x[i]) / d;
    let squares = sum(x.len(), |i| (x[i] - mean) * (x[i] - mean));
    (mean, 1.0 / (squares / d + eps).sqrt())
}

vectorised! {
    fn norm_rows(y: &mut [f32], x: &[f32], w: &[f32], b: &[f32], eps: f32) {
        let d = w.len();
        let b = &b[..d];
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            let (mean, scale) = moments(x, eps);
            for i in 0..d {
                y[i] = (x[i] - mean) * scale * w[i] + b[i];
            }
        }
    }
}

pub(super) fn layer_norm(x: Tensor<F, 2>, weight: Tensor<F, 1>, bias: Tensor<F, 1>, eps: f64) -> Tensor<F, 2> {
    let dims = x.dims();
    let (x, w, b) = (Host::new(&x), Host::new(&weight), Host::new(&bias));
    let (x, w, b) = (x.values(), w.values(), b.values());
    let mut y = zeros(x.len());
    for_rows(&mut y, dims[1], |first, y| norm_rows(y, &x[first * dims[1]..][..y.len()], w, b, eps as f32));
    tensor(y, dims)
}

vectorised! {
    /// `sums` holds the gradients of weight and bias, one behind the other.
    fn norm_rows_backward(dx: &mut [f32], sums: &mut [f32], x: &[f32], dy: &[f32], w: &[f32], eps: f32) {
        let d = w.len();
        let (dw, db) = sums.split_at_mut(d);
        let db = &mut db[..d];
        for ((dx, x), dy) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(dy.chunks_exact(d)) {
            let (mean, scale) = moments(x, eps);
            let shift = sum(d, |i| dy[i] * w[i]) / d as f32;
            let back = sum(d, |i| dy[i] * w[i] * (x[i] - mean)) * scale / d as f32;
            for i in 0..d {
                let normed = (x[i] - mean) * scale;
                dx[i] = (dy[i] * w[i] - shift - normed * back) * scale;
                dw[i] += dy[i] * normed;
                db[i] += dy[i];
            }
        }
    }
}

/// Rows whose weight gradients are added up before the sums of all runs are added in order.
const RUN: usize = 64;

pub(super) fn layer_norm_backward(
    x: Tensor<F, 2>,
    weight: Tensor<F, 1>,
    eps: f64,
    dy: Tensor<F, 2>,
) -> (Tensor<F, 2>, Tensor<F, 1>, Tensor<F, 1>) {
    let dims = x.dims();
    let d = dims[1];
    let (x, w, dy) = (Host::new(&x), Host::new(&weight), Host::new(&dy));
    let (x, w, dy) = (x.values(), w.values(), dy.values());
    let mut dx = zeros(x.len());
    let mut parts = zeros(dims[0].div_ceil(RUN) * 2 * d);
    let run = |(i, (dx, sums)): (usize, (&mut [f32], &mut [f32]))| {
        let at = i * RUN * d;
        let len = dx.len();
        norm_rows_backward(dx, sums, &x[at..at + len], &dy[at..at + len], w, eps as f32);
    };
    if x.len() < PARALLEL {
        dx.chunks_mut(RUN * d).zip(parts.chunks_mut(2 * d)).enumerate().for_each(run);
    } else {
        dx.par_chunks_mut(RUN * d).zip(parts.par_chunks_mut(2 * d)).enumerate().for_each(run);
    }
    let mut sums = zeros(2 * d);
    for part in parts.chunks_exact(2 * d) {
        sums.iter_mut().zip(part).for_each(|(sum, p)| *sum += p);
    }
    let db = sums.split_off(d);
    (tensor(dx, dims), tensor(sums, [d]), tensor(db, [d]))
}
