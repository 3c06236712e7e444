//! On the GPU backends, in one program: each test program compiles the kernels anew.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

#[cfg(feature = "ndarray")]
mod decode;
#[cfg(feature = "ndarray")]
mod operations;
#[cfg(feature = "ndarray")]
mod products;
#[cfg(feature = "ndarray")]
#[path = "../common/random.rs"]
mod source;
#[cfg(all(feature = "wgpu", feature = "flex"))]
mod wgpu;
