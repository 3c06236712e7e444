//! RMSNorm and its backward against the defaults, with residual connections and without.

use burn::tensor::Tensor;
use kernels::Kernels;
use kernels::ops::plain;
use kernels::params::cast_to;

use crate::operations::{close, halves, values, within};
use crate::source::random;

/// What the parts of the weight's gradient sum up to.
fn summed<B: Kernels>(parts: Tensor<B, 2>) -> Tensor<B, 1> {
    parts.sum_dim(0).squeeze_dim(0)
}

/// All kernels of one norm, `tolerance` being that of tensors of the input's type.
fn check<B: Kernels>([x, dy, around]: [Tensor<B, 2>; 3], w: Tensor<B, 1>, eps: f64, tolerance: f32, what: &str) {
    within(B::rms_norm(x.clone(), w.clone(), eps), plain::rms_norm(x.clone(), w.clone(), eps), tolerance, what);
    let (sum, normed) = B::add_rms_norm(x.clone(), around.clone(), w.clone(), eps);
    let total = x.clone().add(around.clone());
    within(normed, plain::rms_norm(total.clone(), w.clone(), eps), tolerance, &format!("{what}: norm of a sum"));
    within(sum, total, tolerance, &format!("{what}: sum"));
    for residual in [None, Some(around)] {
        let what = format!("{what}, residual {}", residual.is_some());
        let (dx, dw) = B::rms_norm_backward(x.clone(), w.clone(), eps, dy.clone(), residual.clone());
        let (px, pw) = plain::rms_norm_backward(x.clone(), w.clone(), eps, dy.clone(), residual);
        within(dx, px, tolerance, &format!("{what}: dx"));
        close(summed(dw), summed(pw), &format!("{what}: dweight"));
    }
}

fn rms_norm<B: Kernels>() {
    for (n, d) in [(1, 8), (3, 17), (70, 128), (300, 384), (259, 36), (2, 8192), (2, 2048), (3, 2049), (2, 8196)] {
        let x = [(); 3].map(|()| random([n, d]));
        check::<B>(x, random([d]), 1e-6, 3e-5, &format!("rms_norm {n} x {d}"));
    }
    let none = || random::<B, 2>([0, 16]);
    assert_eq!(B::rms_norm(none(), random([16]), 1e-6).dims(), [0, 16]);
    assert_eq!(B::add_rms_norm(none(), none(), random([16]), 1e-6).1.dims(), [0, 16]);
    let (dx, dw) = B::rms_norm_backward(none(), random([16]), 1e-6, none(), None);
    // No rows, whose column sums are zeros, or rows of zeros.
    assert_eq!((dx.dims(), dw.dims()[1]), ([0, 16], 16));
    assert!(values(dw).iter().all(|x| *x == 0.0));
}

fn rms_norm_of_views<B: Kernels>() {
    // A column block of a transposed matrix, and a weight that is one row of another.
    let x = random::<B, 2>([40, 90]).transpose().slice([3..80, 2..35]);
    let dy = random::<B, 2>([33, 77]).transpose();
    let w = random::<B, 2>([4, 33]).slice([2..3, 0..33]).reshape([33]);
    check([x.clone(), dy.clone(), dy], w, 1e-5, 3e-5, "views");
    // Rows that begin where no vector does.
    let x = random::<B, 1>([5 * 32 + 3]).slice([3..163]).reshape([5, 32]);
    check([x.clone(), x.clone(), x], random::<B, 1>([33]).slice([1..33]), 1e-5, 3e-5, "beside vectors");
}

fn rms_norm_of_halves<B: Kernels>() {
    for (half, loose) in halves::<B>() {
        for d in [96, 97] {
            let x = [(); 3].map(|()| cast_to(random([5, d]), half));
            check::<B>(x, cast_to(random([d]), half), 1e-6, 2e-3 * loose, &format!("{half:?}, {d}"));
        }
    }
}

/// More rows than one dimension of a grid may have cubes.
fn many_rows<B: Kernels>() {
    let (x, w) = (random::<B, 2>([70_001, 4]), random::<B, 1>([4]));
    close(B::rms_norm(x.clone(), w.clone(), 1e-6), plain::rms_norm(x, w, 1e-6), "rms_norm of 70,001 rows");
}

on_backends!([rms_norm, rms_norm_of_views, rms_norm_of_halves, many_rows]);
