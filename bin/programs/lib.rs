//! The programs as one library: the model and the trainer are compiled once for all of them. `bin/NAME.rs` is the main
//! function of each.

mod common;
mod forecast;

/// How a program in a crate of its own begins, finds its device and ends, as those here do.
pub use common::{Failure, OnBackend, choice, device_program, on_backend};

pub mod analyze;
pub mod bench;
pub mod data;
pub mod doctor;
pub mod estimate;
pub mod eval;
pub mod generate;
pub mod study;
pub mod train;

/// The programs, in the order in which a person meets them.
pub const PROGRAMS: [cli::Program; 9] = [
    train::PROGRAM,
    generate::PROGRAM,
    eval::PROGRAM,
    data::PROGRAM,
    analyze::PROGRAM,
    study::PROGRAM,
    doctor::PROGRAM,
    estimate::PROGRAM,
    bench::PROGRAM,
];
