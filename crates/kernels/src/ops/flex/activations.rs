//! The activations that are `x sigmoid(z(x))` in one pass over memory. (The exact GELU takes the default.)

use burn::tensor::Tensor;

use super::host::{F, Host, for_rows, tensor, zeros};
use super::simd::{sigmoid, vectorised};
use crate::ops::Activation;
use crate::ops::plain::{QUICK, TANH_CUBE, TANH_SCALE};

/// `z = line x + cube x^3` of an activation; none if it is not of this kind.
pub(super) fn sigmoid_of(act: Activation) -> Option<[f32; 2]> {
    match act {
        Activation::QuickGelu => Some([QUICK as f32, 0.0]),
        Activation::GeluTanh => Some([2.0 * TANH_SCALE as f32, (2.0 * TANH_SCALE * TANH_CUBE) as f32]),
        Activation::Gelu => None,
    }
}

vectorised! {
    fn run(y: &mut [f32], x: &[f32], line: f32, cube: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x * sigmoid(x * (line + cube * x * x));
        }
    }
}

vectorised! {
    fn run_backward(dx: &mut [f32], x: &[f32], dy: &[f32], line: f32, cube: f32) {
        for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
            let square = x * x;
            let s = sigmoid(x * (line + cube * square));
            *dx = dy * (s + x * s * (1.0 - s) * (line + 3.0 * cube * square));
        }
    }
}

pub(super) fn activate(x: Tensor<F, 2>, [line, cube]: [f32; 2]) -> Tensor<F, 2> {
    let dims = x.dims();
    let x = Host::new(&x);
    let x = x.values();
    let mut y = zeros(x.len());
    for_rows(&mut y, dims[1], |first, y| run(y, &x[first * dims[1]..][..y.len()], line, cube));
    tensor(y, dims)
}

pub(super) fn activate_backward(x: Tensor<F, 2>, [line, cube]: [f32; 2], dy: Tensor<F, 2>) -> Tensor<F, 2> {
    let dims = x.dims();
    let (x, dy) = (Host::new(&x), Host::new(&dy));
    let (x, dy) = (x.values(), dy.values());
    let mut dx = zeros(x.len());
    for_rows(&mut dx, dims[1], |first, dx| {
        let at = first * dims[1]..first * dims[1] + dx.len();
        run_backward(dx, &x[at.clone()], &dy[at], line, cube);
    });
    tensor(dx, dims)
}
