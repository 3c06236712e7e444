//! The programs as one library: the model and the trainer are compiled once for all of them. `bin/NAME.rs` is the main
//! function of each.

mod common;
mod forecast;

/// How a program in a crate of its own begins, finds its device and ends, as those here do.
pub use common::{Failure, OnBackend, device_program, on_backend, parse_backend, parse_dtype};

pub mod analyze;
pub mod bench;
pub mod data;
pub mod doctor;
pub mod estimate;
pub mod eval;
pub mod generate;
pub mod study;
pub mod train;
