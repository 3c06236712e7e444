//! The operations worth specialising for a backend: each has a default in plain tensor operations (which is also what
//! autodiff differentiates in tests) and may be overridden.
//!
//! Backward functions are written by hand: the engine never builds an autodiff graph over the model.

mod backends;
#[cfg(feature = "flex")]
mod flex;

use burn::tensor::{Tensor, activation, backend::Backend};

use crate::attention::{self, AttentionPlan, AttentionSaved};
use crate::params::{cast_to, to_f32};
use crate::rope::Rotary;

/// A backend that can run the model. Implemented for Burn's CPU, wgpu and CUDA backends and for `Autodiff` over them.
pub trait Kernels: Backend {
    /// RMSNorm as Hugging Face computes it: in f32, rounded to the input's type, then scaled. `x [N, d]`, `weight [d]`.
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        let dtype = x.dtype();
        let x = to_f32(x);
        // A division, not `recip`: burn-ndarray's is the processor's 14-bit estimate.
        let rms = x.clone().powi_scalar(2).mean_dim(1).add_scalar(eps).sqrt(); // [N, 1]
        cast_to(x.div(rms), dtype).mul(weight.unsqueeze())
    }

    /// Gradients of [`rms_norm`](Self::rms_norm): `(dx [N, d], dweight [d] in f32)`.
    fn rms_norm_backward(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64, dy: Tensor<Self, 2>) -> (Tensor<Self, 2>, Tensor<Self, 1>) {
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

    /// Rotate-half: `x cos + (-x2, x1) sin` over `x [N, heads, hd]`, computed in f32.
    fn rotate(x: Tensor<Self, 3>, rotary: &Rotary<Self>) -> Tensor<Self, 3> {
        let dtype = x.dtype();
        let [n, h, hd] = x.dims();
        let x = to_f32(x);
        let x1 = x.clone().slice([0..n, 0..h, 0..hd / 2]);
        let x2 = x.clone().slice([0..n, 0..h, hd / 2..hd]);
        let turned = Tensor::cat(vec![x2.neg(), x1], 2);
        cast_to(x.mul(rotary.cos.clone()).add(turned.mul(rotary.sin.clone())), dtype)
    }

    /// Gradient of [`rotate`](Self::rotate): the rotation the other way.
    fn rotate_backward(dy: Tensor<Self, 3>, rotary: &Rotary<Self>) -> Tensor<Self, 3> {
        let back = Rotary { cos: rotary.cos.clone(), sin: rotary.sin.clone().neg() };
        Self::rotate(dy, &back)
    }

    /// `silu(gate) * up`, both `[N, m]`.
    fn swiglu(gate: Tensor<Self, 2>, up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        activation::silu(gate).mul(up)
    }

    /// Gradients of [`swiglu`](Self::swiglu): `(dgate, dup)`.
    fn swiglu_backward(gate: Tensor<Self, 2>, up: Tensor<Self, 2>, dy: Tensor<Self, 2>) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
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

    /// Attention of packed tokens under a [`AttentionPlan`]: `q [N, H, hd]`, `k, v [N, Hkv, hd]` to `o [N, H, hd]`, with
    /// what the backward pass needs. Memory is linear in `N`: scores exist one block at a time.
    fn packed_attention(q: Tensor<Self, 3>, k: Tensor<Self, 3>, v: Tensor<Self, 3>, plan: &AttentionPlan<Self>) -> (Tensor<Self, 3>, AttentionSaved<Self>) {
        attention::forward(q, k, v, plan)
    }

    /// Gradients of [`packed_attention`](Self::packed_attention): `(dq, dk, dv)`. The scores are computed again block by block.
    fn packed_attention_backward(
        qkv: [Tensor<Self, 3>; 3],
        o: Tensor<Self, 3>,
        saved: &AttentionSaved<Self>,
        d_o: Tensor<Self, 3>,
        plan: &AttentionPlan<Self>,
    ) -> [Tensor<Self, 3>; 3] {
        attention::backward(qkv, o, saved, d_o, plan)
    }

    /// One AdamW update, all operands flat and f32 except the parameter, which keeps its own type. Decoupled weight decay; `step` counts from 1.
    /// Returns `(parameter, m, v)`.
    fn adamw(param: Tensor<Self, 1>, grad: Tensor<Self, 1>, m: Tensor<Self, 1>, v: Tensor<Self, 1>, h: &AdamWStep) -> [Tensor<Self, 1>; 3] {
        let dtype = param.dtype();
        let grad = grad.mul_scalar(h.grad_scale);
        let m = m.mul_scalar(h.beta1).add(grad.clone().mul_scalar(1.0 - h.beta1));
        let v = v.mul_scalar(h.beta2).add(grad.powi_scalar(2).mul_scalar(1.0 - h.beta2));
        let denominator = v.clone().sqrt().div_scalar((1.0 - h.beta2.powf(h.step as f64)).sqrt()).add_scalar(h.eps);
        let step = m.clone().div(denominator).mul_scalar(h.lr / (1.0 - h.beta1.powf(h.step as f64)));
        let param = to_f32(param).mul_scalar(1.0 - h.lr * h.weight_decay).sub(step);
        [cast_to(param, dtype), m, v]
    }
}

/// Settings of one AdamW step for one parameter.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of this parameter.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub step: usize,
    /// Factor that clips the gradient to the global norm.
    pub grad_scale: f64,
}
