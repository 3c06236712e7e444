//! The programs as one library: the model and the trainer are compiled once for all of them. `bin/NAME.rs` is the main
//! function of each.

mod common;

pub mod analyze;
pub mod bench;
pub mod data;
pub mod doctor;
pub mod eval;
pub mod generate;
pub mod study;
pub mod train;
