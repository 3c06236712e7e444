//! RMSNorm, rotation, SwiGLU and AdamW in one pass over memory each.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::host::{F, Host, Owned, PARALLEL, for_rows, for_rows2, rows_per_task, tensor, zeros};
use super::simd::{dot, exp, sigmoid, sum, vectorised};
use crate::layers::BlockShape;
use crate::ops::AdamWStep;
use crate::rope::Rotary;

vectorised! {
    pub(super) fn norm_rows(y: &mut [f32], x: &[f32], w: &[f32], eps: f32) {
        let d = w.len();
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            let scale = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * scale * w;
            }
        }
    }
}

pub(super) fn rms_norm(x: Tensor<F, 2>, weight: Tensor<F, 1>, eps: f64) -> Tensor<F, 2> {
    let dims = x.dims();
    let (x, w) = (Host::new(&x), Host::new(&weight));
    let (x, w) = (x.values(), w.values());
    let mut y = zeros(x.len());
    for_rows(&mut y, dims[1], |first, y| norm_rows(y, &x[first * dims[1]..][..y.len()], w, eps as f32));
    tensor(y, dims)
}

/// See [`Kernels::add_rms_norm`](crate::Kernels::add_rms_norm).
pub(super) fn add_rms_norm(
    x: Tensor<F, 2>,
    y: Tensor<F, 2>,
    weight: Tensor<F, 1>,
    eps: f64,
) -> (Tensor<F, 2>, Tensor<F, 2>) {
    let dims = x.dims();
    let (x, y, w) = (Host::new(&x), Host::new(&y), Host::new(&weight));
    let (x, y, w) = (x.values(), y.values(), w.values());
    let (mut sum, mut normed) = (zeros(x.len()), zeros(x.len()));
    for_rows2(&mut sum, &mut normed, dims[1], |first, sum, normed| {
        let at = first * dims[1]..first * dims[1] + sum.len();
        sum.iter_mut().zip(&x[at.clone()]).zip(&y[at]).for_each(|((sum, x), y)| *sum = x + y);
        norm_rows(normed, sum, w, eps as f32);
    });
    (tensor(sum, dims), tensor(normed, dims))
}

vectorised! {
    fn norm_rows_backward(dx: &mut [f32], dw: &mut [f32], x: &[f32], dy: &[f32], w: &[f32], eps: f32) {
        let d = w.len();
        for ((dx, x), dy) in dx.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(dy.chunks_exact(d)) {
            let scale = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            let mean = sum(d, |i| dy[i] * w[i] * x[i]) * scale / d as f32; // of g * normed
            let back = mean * scale;
            for i in 0..d {
                dx[i] = (dy[i] * w[i] - x[i] * back) * scale;
                dw[i] += dy[i] * x[i] * scale;
            }
        }
    }
}

/// Rows whose weight gradients are added up before the sums of all runs are added in order.
const RUN: usize = 64;

pub(super) fn rms_norm_backward(
    x: Tensor<F, 2>,
    weight: Tensor<F, 1>,
    eps: f64,
    dy: Tensor<F, 2>,
) -> (Tensor<F, 2>, Tensor<F, 1>) {
    let dims = x.dims();
    let d = dims[1];
    let (x, w, dy) = (Host::new(&x), Host::new(&weight), Host::new(&dy));
    let (x, w, dy) = (x.values(), w.values(), dy.values());
    let mut dx = zeros(x.len());
    let mut parts = zeros(dims[0].div_ceil(RUN) * d);
    let run = |(i, (dx, dw)): (usize, (&mut [f32], &mut [f32]))| {
        let at = i * RUN * d;
        let len = dx.len();
        norm_rows_backward(dx, dw, &x[at..at + len], &dy[at..at + len], w, eps as f32);
    };
    if x.len() < PARALLEL {
        dx.chunks_mut(RUN * d).zip(parts.chunks_mut(d)).enumerate().for_each(run);
    } else {
        dx.par_chunks_mut(RUN * d).zip(parts.par_chunks_mut(d)).enumerate().for_each(run);
    }
    let mut dw = zeros(d);
    for part in parts.chunks_exact(d) {
        dw.iter_mut().zip(part).for_each(|(sum, p)| *sum += p);
    }
    (tensor(dx, dims), tensor(dw, [d]))
}

vectorised! {
    pub(super) fn rotate_rows(y: &mut [f32], x: &[f32], cos: &[f32], sin: &[f32], heads: usize, hd: usize, sign: f32) {
        let half = hd / 2;
        let rows = y.chunks_exact_mut(heads * hd).zip(x.chunks_exact(heads * hd));
        for ((y, x), (cos, sin)) in rows.zip(cos.chunks_exact(hd).zip(sin.chunks_exact(hd))) {
            let ((c1, c2), (s1, s2)) = (cos.split_at(half), sin.split_at(half));
            for (y, x) in y.chunks_exact_mut(hd).zip(x.chunks_exact(hd)) {
                let ((y1, y2), (x1, x2)) = (y.split_at_mut(half), x.split_at(half));
                for i in 0..half {
                    y1[i] = x1[i] * c1[i] - sign * s1[i] * x2[i];
                    y2[i] = x2[i] * c2[i] + sign * s2[i] * x1[i];
                }
            }
        }
    }
}

/// `sign` -1 turns the other way.
pub(super) fn rotate(x: Tensor<F, 3>, rotary: &Rotary<F>, sign: f32) -> Tensor<F, 3> {
    let [n, heads, hd] = x.dims();
    let (x, cos, sin) = (Host::new(&x), Host::new(&rotary.cos), Host::new(&rotary.sin));
    let (x, cos, sin) = (x.values(), cos.values(), sin.values());
    let width = heads * hd;
    let mut y = zeros(x.len());
    for_rows(&mut y, width, |first, y| {
        let rows = y.len() / width;
        let table = first * hd..(first + rows) * hd;
        rotate_rows(y, &x[first * width..][..rows * width], &cos[table.clone()], &sin[table], heads, hd, sign);
    });
    tensor(y, [n, heads, hd])
}

/// See [`Kernels::rotate_qkv`](crate::Kernels::rotate_qkv).
pub(super) fn rotate_qkv(qkv: Tensor<F, 2>, shape: BlockShape, rotary: &Rotary<F>) -> [Tensor<F, 3>; 3] {
    let BlockShape { heads, kv_heads, head_dim: hd } = shape;
    let [n, width] = qkv.dims();
    let (x, cos, sin) = (Host::new(&qkv), Host::new(&rotary.cos), Host::new(&rotary.sin));
    let (x, cos, sin) = (x.values(), cos.values(), sin.values());
    let part = |first: usize, heads: usize, turned: bool| {
        let (own, mut y) = (heads * hd, zeros(n * heads * hd));
        for_rows(&mut y, own, |row, y| {
            for (i, y) in y.chunks_exact_mut(own).enumerate() {
                let (at, x) = ((row + i) * hd, &x[(row + i) * width + first * hd..][..own]);
                match turned {
                    true => rotate_rows(y, x, &cos[at..at + hd], &sin[at..at + hd], heads, hd, 1.0),
                    false => y.copy_from_slice(x),
                }
            }
        });
        tensor(y, [n, heads, hd])
    };
    [part(0, heads, true), part(heads, kv_heads, true), part(heads + kv_heads, kv_heads, false)]
}

/// See [`Kernels::rotate_qkv_backward`](crate::Kernels::rotate_qkv_backward).
pub(super) fn rotate_qkv_backward([dq, dk, dv]: [Tensor<F, 3>; 3], rotary: &Rotary<F>) -> Tensor<F, 2> {
    let ([n, heads, hd], kv_heads) = (dq.dims(), dk.dims()[1]);
    let (dq, dk, dv) = (Host::new(&dq), Host::new(&dk), Host::new(&dv));
    let (cos, sin) = (Host::new(&rotary.cos), Host::new(&rotary.sin));
    let (dq, dk, dv, cos, sin) = (dq.values(), dk.values(), dv.values(), cos.values(), sin.values());
    let (q, kv) = (heads * hd, kv_heads * hd);
    let width = q + 2 * kv;
    let mut y = zeros(n * width);
    for_rows(&mut y, width, |first, y| {
        for (i, y) in y.chunks_exact_mut(width).enumerate() {
            let row = first + i;
            let (cos, sin) = (&cos[row * hd..][..hd], &sin[row * hd..][..hd]);
            let (yq, rest) = y.split_at_mut(q);
            let (yk, yv) = rest.split_at_mut(kv);
            rotate_rows(yq, &dq[row * q..][..q], cos, sin, heads, hd, -1.0);
            rotate_rows(yk, &dk[row * kv..][..kv], cos, sin, kv_heads, hd, -1.0);
            yv.copy_from_slice(&dv[row * kv..][..kv]);
        }
    });
    tensor(y, [n, width])
}

vectorised! {
    /// `y [m] = silu(gate) up` for each row of `x [2 m]`.
    fn swiglu_run(y: &mut [f32], x: &[f32], m: usize) {
        for (y, x) in y.chunks_exact_mut(m).zip(x.chunks_exact(2 * m)) {
            let (gate, up) = x.split_at(m);
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = g * sigmoid(*g) * u;
            }
        }
    }
}

pub(super) fn swiglu(gate_up: Tensor<F, 2>) -> Tensor<F, 2> {
    let [n, wide] = gate_up.dims();
    let m = wide / 2;
    let x = Host::new(&gate_up);
    let x = x.values();
    let mut y = zeros(n * m);
    for_rows(&mut y, m, |first, y| swiglu_run(y, &x[first * wide..][..y.len() * 2], m));
    tensor(y, [n, m])
}

vectorised! {
    /// The gradient of [`swiglu_run`]: `dx [2 m]` of each row.
    fn swiglu_backward_run(dx: &mut [f32], x: &[f32], dy: &[f32], m: usize) {
        for ((dx, x), dy) in dx.chunks_exact_mut(2 * m).zip(x.chunks_exact(2 * m)).zip(dy.chunks_exact(m)) {
            let ((dgate, dup), (gate, up)) = (dx.split_at_mut(m), x.split_at(m));
            for i in 0..m {
                let s = sigmoid(gate[i]);
                let silu = gate[i] * s;
                dup[i] = dy[i] * silu;
                dgate[i] = dy[i] * up[i] * (s + silu * (1.0 - s));
            }
        }
    }
}

pub(super) fn swiglu_backward(gate_up: Tensor<F, 2>, dy: Tensor<F, 2>) -> Tensor<F, 2> {
    let dims = gate_up.dims();
    let m = dims[1] / 2;
    let (x, dy) = (Host::new(&gate_up), Host::new(&dy));
    let (x, dy) = (x.values(), dy.values());
    let mut dx = zeros(x.len());
    for_rows(&mut dx, dims[1], |first, dx| {
        swiglu_backward_run(dx, &x[first * dims[1]..][..dx.len()], &dy[first * m..][..dx.len() / 2], m);
    });
    tensor(dx, dims)
}

/// The numbers of an AdamW step as the loop takes them.
#[derive(Clone, Copy)]
struct AdamWFactors {
    grad_scale: f32,
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    root: f32,
    eps: f32,
    rate: f32,
    keep: f32,
}

vectorised! {
    fn adamw_run(param: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32], h: AdamWFactors) {
        let n = param.len();
        let (m, v, grad) = (&mut m[..n], &mut v[..n], &grad[..n]);
        for i in 0..n {
            let g = grad[i] * h.grad_scale;
            m[i] = m[i] * h.beta1 + g * h.rest1;
            v[i] = v[i] * h.beta2 + g * g * h.rest2;
            let denominator = v[i].sqrt() / h.root + h.eps;
            param[i] = param[i] * h.keep - m[i] / denominator * h.rate;
        }
    }
}

pub(super) fn adamw([param, grad, m, v]: [Tensor<F, 1>; 4], h: &AdamWStep) -> [Tensor<F, 1>; 3] {
    let (mut param, mut m, mut v) = (Owned::new(param), Owned::new(m), Owned::new(v));
    let grad = Host::new(&grad);
    let step = AdamWFactors {
        grad_scale: h.grad_scale as f32,
        beta1: h.beta1 as f32,
        beta2: h.beta2 as f32,
        rest1: (1.0 - h.beta1) as f32,
        rest2: (1.0 - h.beta2) as f32,
        root: (1.0 - h.beta2.powf(h.step as f64)).sqrt() as f32,
        eps: h.eps as f32,
        rate: (h.lr / (1.0 - h.beta1.powf(h.step as f64))) as f32,
        keep: (1.0 - h.lr * h.weight_decay) as f32,
    };
    {
        let (p, m, v, g) = (param.values_mut(), m.values_mut(), v.values_mut(), grad.values());
        if p.len() < PARALLEL {
            adamw_run(p, m, v, g, step);
        } else {
            let run = rows_per_task(1);
            let states = p.par_chunks_mut(run).zip(m.par_chunks_mut(run)).zip(v.par_chunks_mut(run));
            states.zip(g.par_chunks(run)).for_each(|(((p, m), v), g)| adamw_run(p, m, v, g, step));
        }
    }
    [param.tensor(), m.tensor(), v.tensor()]
}

vectorised! {
    /// Softmax numerators of one row in place over its first `valid` values, zeros after; `(max, sum)`.
    pub(super) fn exp_row(row: &mut [f32], valid: usize) -> (f32, f32) {
        let (live, dead) = row.split_at_mut(valid);
        let top = super::simd::max(live);
        for v in live.iter_mut() {
            *v = exp(*v - top);
        }
        dead.fill(0.0);
        (top, sum(live.len(), |i| live[i]))
    }
}
