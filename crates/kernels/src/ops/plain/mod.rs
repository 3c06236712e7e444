//! The defaults of [`Kernels`](super::Kernels) in plain tensor operations: they run on every backend, are what autodiff
//! differentiates in tests, and what a specialisation is compared with. Shapes and meaning stand with the trait.

mod decode;

pub use decode::{decode_attention, decode_heads};

use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, activation, backend::Backend};

use super::{Activation, Kernels};
use crate::layers::{BlockShape, join_qkv, split_qkv};
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

/// See [`Kernels::matmul`](super::Kernels::matmul).
pub fn matmul<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    a.matmul(b)
}

/// See [`Kernels::weight_gradient`](super::Kernels::weight_gradient).
pub fn weight_gradient<B: Backend>(dy: Tensor<B, 2>, x: Tensor<B, 2>) -> Tensor<B, 2> {
    to_f32(dy.transpose().matmul(x))
}

/// The sum of `parts [s, N, out]`, rounded to `dtype`.
pub fn whole<B: Backend>(parts: Tensor<B, 3>, dtype: DType) -> Tensor<B, 2> {
    let [s, n, out] = parts.dims();
    let parts = if s == 1 { parts } else { parts.sum_dim(0) };
    cast_to(parts.reshape([n, out]), dtype)
}

/// See [`Kernels::take_rows`](super::Kernels::take_rows).
pub fn take_rows<B: Backend>(table: &Tensor<B, 2>, rows: Tensor<B, 1, Int>) -> Tensor<B, 2> {
    table.clone().select(0, rows)
}

/// See [`Kernels::rms_norm`](super::Kernels::rms_norm).
pub fn rms_norm<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    let dtype = x.dtype();
    let x = to_f32(x);
    // A division, not `recip`: burn-ndarray's is the processor's 14-bit estimate.
    let rms = x.clone().powi_scalar(2).mean_dim(1).add_scalar(eps).sqrt(); // [N, 1]
    cast_to(x.div(rms), dtype).mul(weight.unsqueeze())
}

/// See [`Kernels::add_rms_norm`](super::Kernels::add_rms_norm).
pub fn add_rms_norm<B: Kernels>(
    x: Tensor<B, 2>,
    residual: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let sum = x.add(residual);
    (sum.clone(), B::rms_norm(sum, weight, eps))
}

/// See [`Kernels::rms_norm_backward`](super::Kernels::rms_norm_backward).
pub fn rms_norm_backward<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
    dy: Tensor<B, 2>,
    residual: Option<Tensor<B, 2>>,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let dtype = x.dtype();
    let (x, dy) = (to_f32(x), to_f32(dy));
    let rms = x.clone().powi_scalar(2).mean_dim(1).add_scalar(eps).sqrt();
    let normed = x.div(rms.clone());
    let dweight = dy.clone().mul(normed.clone()).sum_dim(0);
    let g = dy.mul(to_f32(weight).unsqueeze());
    let dot = g.clone().mul(normed.clone()).mean_dim(1); // [N, 1]
    let dx = cast_to(g.sub(normed.mul(dot)).div(rms), dtype);
    (around(dx, residual), dweight)
}

/// `dx` and what went around.
pub(super) fn around<B: Backend>(dx: Tensor<B, 2>, residual: Option<Tensor<B, 2>>) -> Tensor<B, 2> {
    match residual {
        Some(residual) => residual.add(dx),
        None => dx,
    }
}

/// See [`Kernels::layer_norm`](super::Kernels::layer_norm).
pub fn layer_norm<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, bias: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    let dtype = x.dtype();
    let (normed, _) = standardised(to_f32(x), eps);
    cast_to(normed.mul(to_f32(weight).unsqueeze()).add(to_f32(bias).unsqueeze()), dtype)
}

/// `(x - mean) / sigma` and `sigma [N, 1]`. The mean is taken off before squares are summed: the difference of two sums
/// would lose what a large mean leaves.
fn standardised<B: Backend>(x: Tensor<B, 2>, eps: f64) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let centred = x.clone().sub(x.mean_dim(1));
    let sigma = centred.clone().powi_scalar(2).mean_dim(1).add_scalar(eps).sqrt();
    (centred.div(sigma.clone()), sigma)
}

/// See [`Kernels::layer_norm_backward`](super::Kernels::layer_norm_backward).
pub fn layer_norm_backward<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    eps: f64,
    dy: Tensor<B, 2>,
) -> (Tensor<B, 2>, Tensor<B, 1>, Tensor<B, 1>) {
    let dtype = x.dtype();
    let dy = to_f32(dy);
    let (normed, sigma) = standardised(to_f32(x), eps);
    let dweight = dy.clone().mul(normed.clone()).sum_dim(0).squeeze_dim::<1>(0);
    let dbias = dy.clone().sum_dim(0).squeeze_dim::<1>(0);
    let g = dy.mul(to_f32(weight).unsqueeze());
    let dot = g.clone().mul(normed.clone()).mean_dim(1); // [N, 1]
    let dx = g.clone().sub(g.mean_dim(1)).sub(normed.mul(dot)).div(sigma);
    (cast_to(dx, dtype), dweight, dbias)
}

/// `sqrt(2 / pi)`, of `x + TANH_CUBE x^3` in the hyperbolic tangent of [`Activation::GeluTanh`].
pub(crate) const TANH_SCALE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
/// Of `x^3` there.
pub(crate) const TANH_CUBE: f64 = 0.044715;
/// Of `x` in the sigmoid of [`Activation::QuickGelu`].
pub(crate) const QUICK: f64 = 1.702;

/// See [`Kernels::activate`](super::Kernels::activate).
pub fn activate<B: Backend>(x: Tensor<B, 2>, act: Activation) -> Tensor<B, 2> {
    let dtype = x.dtype();
    match act {
        Activation::Gelu => activation::gelu(x),
        Activation::QuickGelu => {
            let x = to_f32(x);
            cast_to(x.clone().mul(activation::sigmoid(x.mul_scalar(QUICK))), dtype)
        }
        Activation::GeluTanh => {
            let x = to_f32(x);
            cast_to(x.clone().mul(half_of_tanh(x)), dtype)
        }
    }
}

/// `(1 + tanh(u)) / 2 = sigmoid(2 u)` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`.
fn half_of_tanh<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let square = x.clone().powi_scalar(2);
    activation::sigmoid(square.mul_scalar(TANH_CUBE).add_scalar(1.0).mul(x).mul_scalar(2.0 * TANH_SCALE))
}

/// See [`Kernels::activate_backward`](super::Kernels::activate_backward).
pub fn activate_backward<B: Backend>(x: Tensor<B, 2>, act: Activation, dy: Tensor<B, 2>) -> Tensor<B, 2> {
    let dtype = x.dtype();
    let x = to_f32(x);
    // x s(z): s + x s (1 - s) z'
    let bend = |s: Tensor<B, 2>, x: Tensor<B, 2>| s.clone().neg().add_scalar(1.0).mul(s).mul(x);
    let slope = match act {
        // Phi(x) + x phi(x)
        Activation::Gelu => {
            let cdf = x.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5);
            let pdf = x.clone().powi_scalar(2).mul_scalar(-0.5).exp();
            cdf.add(x.mul(pdf.mul_scalar(1.0 / (2.0 * std::f64::consts::PI).sqrt())))
        }
        Activation::QuickGelu => {
            let s = activation::sigmoid(x.clone().mul_scalar(QUICK));
            bend(s.clone(), x).mul_scalar(QUICK).add(s)
        }
        Activation::GeluTanh => {
            let s = half_of_tanh(x.clone());
            let steep =
                x.clone().powi_scalar(2).mul_scalar(3.0 * TANH_CUBE).add_scalar(1.0).mul_scalar(2.0 * TANH_SCALE);
            bend(s.clone(), x).mul(steep).add(s)
        }
    };
    cast_to(to_f32(dy).mul(slope), dtype)
}

/// See [`Kernels::add_rows`](super::Kernels::add_rows).
pub fn add_rows<B: Backend>(x: Tensor<B, 2>, rows: Tensor<B, 1, Int>, values: Tensor<B, 2>) -> Tensor<B, 2> {
    x.select_assign(0, rows, values, IndexingUpdateOp::Add)
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

/// See [`Kernels::rotate_qkv`](super::Kernels::rotate_qkv).
pub fn rotate_qkv<B: Kernels>(qkv: Tensor<B, 2>, shape: BlockShape, rotary: &Rotary<B>) -> [Tensor<B, 3>; 3] {
    let [q, k, v] = split_qkv(qkv, shape);
    [B::rotate(q, rotary), B::rotate(k, rotary), v]
}

/// See [`Kernels::rotate_qkv_backward`](super::Kernels::rotate_qkv_backward).
pub fn rotate_qkv_backward<B: Kernels>([dq, dk, dv]: [Tensor<B, 3>; 3], rotary: &Rotary<B>) -> Tensor<B, 2> {
    join_qkv([B::rotate_backward(dq, rotary), B::rotate_backward(dk, rotary), dv])
}

/// See [`Kernels::swiglu`](super::Kernels::swiglu).
pub fn swiglu<B: Backend>(gate_up: Tensor<B, 2>) -> Tensor<B, 2> {
    let [gate, up] = halves(gate_up);
    activation::silu(gate).mul(up)
}

/// `[N, 2 m]` as two `[N, m]`.
fn halves<B: Backend>(x: Tensor<B, 2>) -> [Tensor<B, 2>; 2] {
    let m = x.dims()[1] / 2;
    [x.clone().narrow(1, 0, m), x.narrow(1, m, m)]
}

/// See [`Kernels::swiglu_backward`](super::Kernels::swiglu_backward).
pub fn swiglu_backward<B: Backend>(gate_up: Tensor<B, 2>, dy: Tensor<B, 2>) -> Tensor<B, 2> {
    let dtype = gate_up.dtype();
    let ([gate, up], dy) = (halves(to_f32(gate_up)), to_f32(dy));
    let sigmoid = activation::sigmoid(gate.clone());
    let silu = gate.clone().mul(sigmoid.clone());
    // d silu / d gate = s (1 + g (1 - s)) = s + silu (1 - s)
    let slope = sigmoid.clone().add(silu.clone().mul(sigmoid.neg().add_scalar(1.0)));
    let dup = dy.clone().mul(silu);
    let dgate = dy.mul(up).mul(slope);
    cast_to(Tensor::cat(vec![dgate, dup], 1), dtype)
}

/// See [`Kernels::accumulate`](super::Kernels::accumulate).
pub fn accumulate<B: Backend>(sum: Tensor<B, 1>, grad: Tensor<B, 1>) -> Tensor<B, 1> {
    let dtype = sum.dtype();
    cast_to(to_f32(sum).add(to_f32(grad)), dtype)
}

/// See [`Kernels::accumulate_columns`](super::Kernels::accumulate_columns).
pub fn accumulate_columns<B: Backend>(sum: Tensor<B, 1>, rows: Tensor<B, 2>) -> Tensor<B, 1> {
    let len = sum.dims();
    if rows.dims()[0] == 0 {
        return sum;
    }
    accumulate(sum, to_f32(rows).sum_dim(0).reshape(len))
}

/// See [`Kernels::accumulate_rows`](super::Kernels::accumulate_rows).
pub fn accumulate_rows<B: Backend>(table: Tensor<B, 1>, rows: Tensor<B, 1, Int>, values: Tensor<B, 2>) -> Tensor<B, 1> {
    let (dtype, [len], d) = (table.dtype(), table.dims(), values.dims()[1]);
    if rows.dims()[0] == 0 {
        return table;
    }
    let table = to_f32(table.reshape([len / d.max(1), d]));
    cast_to(table.select_assign(0, rows, to_f32(values), IndexingUpdateOp::Add).reshape([len]), dtype)
}

/// See [`Kernels::squared_norm`](super::Kernels::squared_norm).
pub fn squared_norm<B: Backend>(grads: Vec<Tensor<B, 1>>, device: &B::Device) -> Tensor<B, 1> {
    let parts: Vec<_> = grads.into_iter().map(|g| to_f32(g).powi_scalar(2).sum()).collect();
    if parts.is_empty() { Tensor::zeros([1], (device, DType::F32)) } else { Tensor::cat(parts, 0).sum() }
}
