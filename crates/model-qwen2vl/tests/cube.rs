//! Every GPU kernel against its default in plain tensor operations, on wgpu with Burn's fusion and without. Where the default
//! multiplies matrices it runs on the CPU: on the GPU it would first try out every way to do so.
#![cfg(all(feature = "wgpu", feature = "ndarray"))]

use burn::tensor::{DType, Distribution, Tensor};
use model_qwen2vl::Kernels;
use model_qwen2vl::ops::plain;
use model_qwen2vl::params::cast_to;

type Cpu = burn_ndarray::NdArray<f32>;

fn random<B: Kernels, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
}

fn values<B: Kernels, const D: usize>(t: Tensor<B, D>) -> Vec<f32> {
    t.into_data().convert::<f32>().to_vec().unwrap()
}

/// Each value within `tolerance` of the largest, and of the expected type.
fn within<B: Kernels, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>, tolerance: f32, what: &str) {
    assert_eq!((a.dims(), a.dtype()), (b.dims(), b.dtype()), "{what}");
    let (a, b) = (values(a), values(b));
    let largest = b.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}: {a}, not {b}, at {i}; largest {largest}");
    }
}

fn close<B: Kernels, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>, what: &str) {
    within(a, b, 1e-5, what);
}

/// The same numbers on the CPU.
fn host<B: Kernels, const D: usize>(t: &Tensor<B, D>) -> Tensor<Cpu, D> {
    Tensor::from_data(t.to_data(), &Default::default())
}

/// As [`close`], of a tensor that the CPU made.
fn as_host<B: Kernels, const D: usize>(a: Tensor<B, D>, b: Tensor<Cpu, D>, what: &str) {
    close(host(&a), b, what);
}

/// Half precision where the device has it.
fn half<B: Kernels>() -> Option<DType> {
    B::supports_dtype(&Default::default(), DType::F16).then_some(DType::F16)
}

fn rms_norm<B: Kernels>() {
    for (n, d) in [(1, 8), (3, 17), (70, 128), (300, 384), (2, 8192), (0, 16)] {
        let what = format!("rms_norm {n} x {d}");
        let (x, dy, w): (Tensor<B, 2>, Tensor<B, 2>, Tensor<B, 1>) = (random([n, d]), random([n, d]), random([d]));
        if n == 0 {
            assert_eq!(B::rms_norm(x.clone(), w.clone(), 1e-6).dims(), [0, d]);
            let (dx, dw) = B::rms_norm_backward(x, w, 1e-6, dy);
            assert_eq!((dx.dims(), values(dw)), ([0, d], vec![0.0; d]));
            continue;
        }
        close(B::rms_norm(x.clone(), w.clone(), 1e-6), plain::rms_norm(x.clone(), w.clone(), 1e-6), &what);
        let (dx, dw) = B::rms_norm_backward(x.clone(), w.clone(), 1e-6, dy.clone());
        let (px, pw) = plain::rms_norm_backward(x, w, 1e-6, dy);
        close(dx, px, &what);
        close(dw, pw, &what);
    }
    // A column block of a transposed matrix, and a weight that is one row of another.
    let x = random::<B, 2>([40, 90]).transpose().slice([3..80, 2..35]);
    let dy = random::<B, 2>([33, 77]).transpose();
    let w = random::<B, 2>([4, 33]).slice([2..3, 0..33]).reshape([33]);
    close(B::rms_norm(x.clone(), w.clone(), 1e-5), plain::rms_norm(x.clone(), w.clone(), 1e-5), "view");
    let (dx, dw) = B::rms_norm_backward(x.clone(), w.clone(), 1e-5, dy.clone());
    let (px, pw) = plain::rms_norm_backward(x, w, 1e-5, dy);
    close(dx, px, "view, dx");
    close(dw, pw, "view, dweight");
    if let Some(half) = half::<B>() {
        let (x, dy, w) = (random::<B, 2>([5, 96]), random::<B, 2>([5, 96]), random::<B, 1>([96]));
        let (x, dy, w) = (cast_to(x, half), cast_to(dy, half), cast_to(w, half));
        within(B::rms_norm(x.clone(), w.clone(), 1e-6), plain::rms_norm(x.clone(), w.clone(), 1e-6), 1e-3, "half");
        let (dx, dw) = B::rms_norm_backward(x.clone(), w.clone(), 1e-6, dy.clone());
        let (px, pw) = plain::rms_norm_backward(x, w, 1e-6, dy);
        within(dx, px, 1e-3, "half, dx");
        close(dw, pw, "half, dweight");
    }
}

/// More rows than one dimension of a grid may have cubes.
fn many_rows<B: Kernels>() {
    let (x, w) = (random::<B, 2>([70_001, 4]), random::<B, 1>([4]));
    close(B::rms_norm(x.clone(), w.clone(), 1e-6), plain::rms_norm(x, w, 1e-6), "rms_norm of 70,001 rows");
}

macro_rules! on {
    ($module:ident, $backend:ty, [$($test:ident),*]) => {
        mod $module {
            $(#[test]
            fn $test() {
                super::super::$test::<$backend>();
            })*
        }
    };
}
mod wgpu {
    macro_rules! all {
        ($module:ident, $backend:ty) => {
            on!($module, $backend, [rms_norm, many_rows]);
        };
    }
    all!(fused, burn_wgpu::Wgpu<f32, i32>);
    all!(bare, burn_wgpu::CubeBackend<burn_wgpu::WgpuRuntime, f32, i32, u32>);
}
