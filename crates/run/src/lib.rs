//! The folder of a run: what is written where, and the readers of it. No tensor is known here.

#![warn(missing_docs)]

pub mod checkpoint;
pub mod folder;
pub mod layout;
pub mod lines;
pub mod metrics;
