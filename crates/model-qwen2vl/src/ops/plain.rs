//! The defaults of [`Kernels`](super::Kernels) in plain tensor operations: they run on every backend, are what autodiff
//! differentiates in tests, and what a specialisation is compared with. Shapes and meaning stand with the trait.

use burn::tensor::{Tensor, activation, backend::Backend};

use super::AdamWStep;
use crate::params::{cast_to, to_f32};
use crate::rope::Rotary;

/// See [`Kernels::affine`](super::Kernels::affine).
pub fn affine<B: Backend>(x: Tensor<B, 2>, weight: &Tensor<B, 2>, bias: Option<&Tensor<B, 1>>) -> Tensor<B, 2> {
    let y = x.matmul(weight.clone().transpose());
    match bias {
        Some(bias) => y.add(bias.clone().unsqueeze()),
        None => y,
    }
}

/// See [`Kernels::write_column`](super::Kernels::write_column).
pub fn write_column<B: Backend>(cache: Tensor<B, 3>, at: usize, value: Tensor<B, 3>) -> Tensor<B, 3> {
    let [rows, _, hd] = cache.dims();
    cache.slice_assign([0..rows, at..at + 1, 0..hd], value)
}

/// See [`Kernels::rms_norm`](super::Kernels::rms_norm).
pub fn rms_norm<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    let dtype = x.dtype();
    let x = to_f32(x);
    // A division, not `recip`: burn-ndarray's is the processor's 14-bit estimate.
    let rms = x.clone().powi_scalar(2).mean_dim(1).add_scalar(eps).sqrt(); // [N, 1]
    cast_to(x.div(rms), dtype).mul(weight.unsqueeze())
}

/// See [`Kernels::rms_norm_backward`](super::Kernels::rms_norm_backward).
pub fn rms_norm_backward<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
    dy: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 1>) {
    let dtype = x.dtype();
    let (x, dy) = (to_f32(x), to_f32(dy));
    let rms = x.clone().powi_scalar(2).mean_dim(1).add_scalar(eps).sqrt();
    let normed = x.div(rms.clone());
    let dweight = dy.clone().mul(normed.clone()).sum_dim(0).squeeze_dim::<1>(0);
    let g = dy.mul(to_f32(weight).unsqueeze());
    let dot = g.clone().mul(normed.clone()).mean_dim(1); // [N, 1]
    let dx = g.sub(normed.mul(dot)).div(rms);
    (cast_to(dx, dtype), dweight)
}

/// See [`Kernels::rotate`](super::Kernels::rotate).
pub fn rotate<B: Backend>(x: Tensor<B, 3>, rotary: &Rotary<B>) -> Tensor<B, 3> {
    let dtype = x.dtype();
    let [n, h, hd] = x.dims();
    let x = to_f32(x);
    let x1 = x.clone().slice([0..n, 0..h, 0..hd / 2]);
    let x2 = x.clone().slice([0..n, 0..h, hd / 2..hd]);
    let turned = Tensor::cat(vec![x2.neg(), x1], 2);
    cast_to(x.mul(rotary.cos.clone()).add(turned.mul(rotary.sin.clone())), dtype)
}

/// See [`Kernels::rotate_backward`](super::Kernels::rotate_backward).
pub fn rotate_backward<B: Backend>(dy: Tensor<B, 3>, rotary: &Rotary<B>) -> Tensor<B, 3> {
    rotate(dy, &Rotary { cos: rotary.cos.clone(), sin: rotary.sin.clone().neg() })
}

/// See [`Kernels::swiglu`](super::Kernels::swiglu).
pub fn swiglu<B: Backend>(gate: Tensor<B, 2>, up: Tensor<B, 2>) -> Tensor<B, 2> {
    activation::silu(gate).mul(up)
}

/// See [`Kernels::swiglu_backward`](super::Kernels::swiglu_backward).
pub fn swiglu_backward<B: Backend>(
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
    dy: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let dtype = gate.dtype();
    let (gate, up, dy) = (to_f32(gate), to_f32(up), to_f32(dy));
    let sigmoid = activation::sigmoid(gate.clone());
    let silu = gate.clone().mul(sigmoid.clone());
    // d silu / d gate = s (1 + g (1 - s)) = s + silu (1 - s)
    let slope = sigmoid.clone().add(silu.clone().mul(sigmoid.neg().add_scalar(1.0)));
    let dup = dy.clone().mul(silu);
    let dgate = dy.mul(up).mul(slope);
    (cast_to(dgate, dtype), cast_to(dup, dtype))
}

/// See [`Kernels::adamw`](super::Kernels::adamw).
pub fn adamw<B: Backend>(
    param: Tensor<B, 1>,
    grad: Tensor<B, 1>,
    m: Tensor<B, 1>,
    v: Tensor<B, 1>,
    h: &AdamWStep,
) -> [Tensor<B, 1>; 3] {
    let dtype = param.dtype();
    let grad = grad.mul_scalar(h.grad_scale);
    let m = m.mul_scalar(h.beta1).add(grad.clone().mul_scalar(1.0 - h.beta1));
    let v = v.mul_scalar(h.beta2).add(grad.powi_scalar(2).mul_scalar(1.0 - h.beta2));
    let denominator = v.clone().sqrt().div_scalar((1.0 - h.beta2.powf(h.step as f64)).sqrt()).add_scalar(h.eps);
    let step = m.clone().div(denominator).mul_scalar(h.lr / (1.0 - h.beta1.powf(h.step as f64)));
    let param = to_f32(param).mul_scalar(1.0 - h.lr * h.weight_decay).sub(step);
    [cast_to(param, dtype), m, v]
}
