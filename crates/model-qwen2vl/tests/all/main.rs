//! One program: each test program compiles the model and Burn's operations anew.

#[path = "../common/mod.rs"]
mod common;
mod gradients;
mod parity;
mod roundtrip;
