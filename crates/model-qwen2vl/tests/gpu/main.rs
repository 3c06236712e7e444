//! On the GPU backends, in one program: each test program compiles the kernels anew.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

#[cfg(feature = "wgpu")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "ndarray")]
mod kernels;
#[cfg(feature = "wgpu")]
mod model;
#[cfg(feature = "ndarray")]
#[path = "../common/random.rs"]
mod source;
