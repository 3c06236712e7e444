//! Specialisations for the Flex CPU backend: each operation one pass over memory on all cores, with wide instructions.
//! Every one gives the same numbers on every run, whatever the number of threads. Other types than f32 take the
//! defaults.

mod activations;
mod attention;
mod decode;
mod head;
mod host;
mod layer_norm;
mod linear;
mod rows;
mod sample;
mod simd;
#[cfg(test)]
mod tests;

use burn::tensor::{DType, Int, Tensor};
use burn_flex::{Flex, FlexTensor};

use super::adamw::adamw_by;
use super::{AdamWParameter, AdamWStep, Kernels, plain};
use crate::attention::decode::{DecodeKv, NewTokens, OwnKv};
use crate::attention::{AttentionPlan, AttentionSaved};
use crate::head::{HeadOutput, plain_log_probs, plain_log_probs_backward};
use crate::layers::BlockShape;
use crate::ops::Activation;
use crate::rope::Rotary;
use crate::sampling::{self, RowChoice};

type F = Flex<f32, i32>;

fn f32s<const D: usize>(x: &Tensor<F, D>) -> bool {
    x.dtype() == DType::F32
}

/// What Flex makes of a tensor, sharing its values.
fn flat<const D: usize>(x: &Tensor<F, D>) -> FlexTensor {
    x.clone().into_primitive().tensor()
}

impl Kernels for F {
    fn matmul<const D: usize>(a: Tensor<F, D>, b: Tensor<F, D>) -> Tensor<F, D> {
        let whole = (D == 2 && f32s(&a) && f32s(&b)).then(|| linear::multiply(flat(&a), flat(&b))).flatten();
        whole.map_or_else(|| plain::matmul(a, b), |y| Tensor::from_primitive(y.into_primitive()))
    }

    fn weight_gradient(dy: Tensor<F, 2>, x: Tensor<F, 2>) -> Tensor<F, 2> {
        let whole =
            (f32s(&dy) && f32s(&x)).then(|| linear::multiply(flat(&dy.clone().transpose()), flat(&x))).flatten();
        whole.unwrap_or_else(|| plain::weight_gradient(dy, x))
    }

    fn affine(x: Tensor<F, 2>, weight: &Tensor<F, 2>, bias: Option<&Tensor<F, 1>>) -> Tensor<F, 2> {
        if f32s(&x) && f32s(weight) { linear::affine(x, weight, bias) } else { plain::affine(x, weight, bias) }
    }

    fn rms_norm(x: Tensor<F, 2>, weight: Tensor<F, 1>, eps: f64) -> Tensor<F, 2> {
        if f32s(&x) && f32s(&weight) { rows::rms_norm(x, weight, eps) } else { plain::rms_norm(x, weight, eps) }
    }

    fn add_rms_norm(x: Tensor<F, 2>, y: Tensor<F, 2>, weight: Tensor<F, 1>, eps: f64) -> (Tensor<F, 2>, Tensor<F, 2>) {
        match f32s(&x) && f32s(&y) && f32s(&weight) {
            true => rows::add_rms_norm(x, y, weight, eps),
            false => plain::add_rms_norm(x, y, weight, eps),
        }
    }

    fn rms_norm_backward(
        x: Tensor<F, 2>,
        weight: Tensor<F, 1>,
        eps: f64,
        dy: Tensor<F, 2>,
        residual: Option<Tensor<F, 2>>,
    ) -> (Tensor<F, 2>, Tensor<F, 2>) {
        if f32s(&x) && f32s(&weight) && f32s(&dy) {
            let (dx, dweight) = rows::rms_norm_backward(x, weight, eps, dy);
            (plain::around(dx, residual), dweight.unsqueeze())
        } else {
            plain::rms_norm_backward(x, weight, eps, dy, residual)
        }
    }

    fn layer_norm(x: Tensor<F, 2>, weight: Tensor<F, 1>, bias: Tensor<F, 1>, eps: f64) -> Tensor<F, 2> {
        if f32s(&x) && f32s(&weight) && f32s(&bias) {
            layer_norm::layer_norm(x, weight, bias, eps)
        } else {
            plain::layer_norm(x, weight, bias, eps)
        }
    }

    fn layer_norm_backward(
        x: Tensor<F, 2>,
        weight: Tensor<F, 1>,
        eps: f64,
        dy: Tensor<F, 2>,
    ) -> (Tensor<F, 2>, Tensor<F, 1>, Tensor<F, 1>) {
        if f32s(&x) && f32s(&weight) && f32s(&dy) {
            layer_norm::layer_norm_backward(x, weight, eps, dy)
        } else {
            plain::layer_norm_backward(x, weight, eps, dy)
        }
    }

    fn activate(x: Tensor<F, 2>, act: Activation) -> Tensor<F, 2> {
        match activations::sigmoid_of(act) {
            Some(z) if f32s(&x) => activations::activate(x, z),
            _ => plain::activate(x, act),
        }
    }

    fn activate_backward(x: Tensor<F, 2>, act: Activation, dy: Tensor<F, 2>) -> Tensor<F, 2> {
        match activations::sigmoid_of(act) {
            Some(z) if f32s(&x) && f32s(&dy) => activations::activate_backward(x, z, dy),
            _ => plain::activate_backward(x, act, dy),
        }
    }

    fn rotate(x: Tensor<F, 3>, rotary: &Rotary<F>) -> Tensor<F, 3> {
        if f32s(&x) { rows::rotate(x, rotary, 1.0) } else { plain::rotate(x, rotary) }
    }

    fn rotate_backward(dy: Tensor<F, 3>, rotary: &Rotary<F>) -> Tensor<F, 3> {
        if f32s(&dy) { rows::rotate(dy, rotary, -1.0) } else { plain::rotate_backward(dy, rotary) }
    }

    fn rotate_qkv(qkv: Tensor<F, 2>, shape: BlockShape, rotary: &Rotary<F>) -> [Tensor<F, 3>; 3] {
        if f32s(&qkv) { rows::rotate_qkv(qkv, shape, rotary) } else { plain::rotate_qkv(qkv, shape, rotary) }
    }

    fn rotate_qkv_backward(d_qkv: [Tensor<F, 3>; 3], rotary: &Rotary<F>) -> Tensor<F, 2> {
        match d_qkv.iter().all(f32s) {
            true => rows::rotate_qkv_backward(d_qkv, rotary),
            false => plain::rotate_qkv_backward(d_qkv, rotary),
        }
    }

    fn swiglu(gate_up: Tensor<F, 2>) -> Tensor<F, 2> {
        if f32s(&gate_up) { rows::swiglu(gate_up) } else { plain::swiglu(gate_up) }
    }

    fn swiglu_backward(gate_up: Tensor<F, 2>, dy: Tensor<F, 2>) -> Tensor<F, 2> {
        match f32s(&gate_up) && f32s(&dy) {
            true => rows::swiglu_backward(gate_up, dy),
            false => plain::swiglu_backward(gate_up, dy),
        }
    }

    fn packed_attention(
        q: Tensor<F, 3>,
        k: Tensor<F, 3>,
        v: Tensor<F, 3>,
        plan: &AttentionPlan<F>,
    ) -> (Tensor<F, 3>, AttentionSaved<F>) {
        if f32s(&q) { attention::forward(q, k, v, plan) } else { crate::attention::forward(q, k, v, plan) }
    }

    fn packed_attention_backward(
        qkv: [Tensor<F, 3>; 3],
        o: Tensor<F, 3>,
        saved: &AttentionSaved<F>,
        d_o: Tensor<F, 3>,
        plan: &AttentionPlan<F>,
    ) -> [Tensor<F, 3>; 3] {
        if f32s(&o) {
            attention::backward(qkv, o, saved, d_o, plan)
        } else {
            crate::attention::backward(qkv, o, saved, d_o, plan)
        }
    }

    fn decode_heads(
        projected: Tensor<F, 3>,
        tokens: NewTokens<'_, F>,
        own: Vec<OwnKv<F>>,
    ) -> (Tensor<F, 3>, Vec<OwnKv<F>>) {
        match f32s(&projected) && own.iter().all(|kv| f32s(&kv.k) && f32s(&kv.v)) {
            true => decode::heads(projected, tokens, own),
            false => plain::decode_heads(projected, tokens, own),
        }
    }

    fn decode_attention(q: Tensor<F, 3>, past: &[DecodeKv<F>]) -> Tensor<F, 3> {
        if f32s(&q) { decode::attention(q, past) } else { plain::decode_attention(q, past) }
    }

    fn sample(
        logits: Tensor<F, 2>,
        choices: &[RowChoice],
        forbidden: Option<&Tensor<F, 2>>,
    ) -> (Tensor<F, 1, Int>, Tensor<F, 1>) {
        if f32s(&logits) && forbidden.is_none_or(f32s) && logits.dims()[1] > 0 {
            sample::sample(logits, choices, forbidden)
        } else {
            sampling::sample(logits, choices, forbidden)
        }
    }

    fn log_probs(
        hidden: Tensor<F, 2>,
        weight: &Tensor<F, 2>,
        targets: Tensor<F, 1, Int>,
        temperature: f64,
        with_entropy: bool,
    ) -> HeadOutput<F> {
        if f32s(&hidden) {
            head::log_probs(hidden, weight, targets, temperature, with_entropy)
        } else {
            plain_log_probs(hidden, weight, targets, temperature, with_entropy)
        }
    }

    fn log_probs_backward(
        hidden: Tensor<F, 2>,
        weight: &Tensor<F, 2>,
        targets: Tensor<F, 1, Int>,
        temperature: f64,
        d_log_probs: Tensor<F, 1>,
        d_entropy: Option<Tensor<F, 1>>,
        learns: bool,
    ) -> (Tensor<F, 2>, Option<Tensor<F, 2>>) {
        if f32s(&hidden) {
            head::log_probs_backward(hidden, weight, targets, temperature, d_log_probs, d_entropy, learns)
        } else {
            plain_log_probs_backward(hidden, weight, targets, temperature, d_log_probs, d_entropy, learns)
        }
    }

    fn adamw(p: AdamWParameter<F>, grad: Tensor<F, 1>, h: &AdamWStep) -> AdamWParameter<F> {
        adamw_by(p, grad, h, rows::adamw)
    }
}
