//! What stands between the program and files that a stranger made: limits with their reasons, files that are opened
//! only where they are files, panics of foreign code, work on a stack of its own, and the echo of foreign text.
//!
//! No other crate of the workspace is used here; every one may use it.

pub mod caught;
mod echo;
pub mod file;
pub mod limits;
pub mod stack;

pub use caught::caught;
pub use echo::{echo, harmless, printable};
pub use limits::{Limit, Limits, limits};
pub use stack::on_stack;
