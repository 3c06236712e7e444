//! One program: each test program compiles the model and Burn's operations anew.

mod common;
mod engine;
mod images;
mod learn;
mod rollout;
