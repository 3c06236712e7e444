//! On the GPU backends, in one program: each test program compiles the kernels anew.
#![cfg(feature = "wgpu")]

#[path = "../common/mod.rs"]
mod common;
mod model;
