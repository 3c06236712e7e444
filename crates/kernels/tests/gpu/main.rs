//! On the GPU backends, in one program: each test program compiles the kernels anew.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

/// The functions of a file, each generic over the backend, as tests in modules `cuda` and `wgpu`.
#[cfg(feature = "ndarray")]
macro_rules! on_backends {
    ([$($test:ident),*]) => {
        #[cfg(feature = "cuda")]
        mod cuda {
            $(#[test]
            fn $test() {
                super::$test::<burn_cuda::Cuda<f32, i32>>();
            })*
        }
        #[cfg(feature = "wgpu")]
        mod wgpu {
            $(#[test]
            fn $test() {
                super::$test::<burn_wgpu::Wgpu<f32, i32>>();
            })*
        }
    };
}

#[cfg(feature = "ndarray")]
mod decode;
#[cfg(feature = "ndarray")]
mod norm;
#[cfg(feature = "ndarray")]
mod operations;
#[cfg(feature = "ndarray")]
mod optimizer;
#[cfg(feature = "ndarray")]
mod products;
#[cfg(feature = "ndarray")]
#[path = "../common/random.rs"]
mod source;
#[cfg(all(feature = "wgpu", feature = "flex"))]
mod wgpu;
