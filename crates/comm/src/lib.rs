//! The ranks of a run and what they say to each other: a run on one device has one, a run on many devices has one per
//! device. No tensor is known here; data of the device goes through [`Ranks`] only where the device is the host.
//!
//! [`Ranks`] is what a program talks to. Below it lies a [`Transport`]: nothing at all for one rank, [`threads`] of one
//! process in tests, MPI between processes. Every call is *collective*: all ranks make the same calls in the same
//! order, each with a name, which is what a person reads when one rank is stuck.
//!
//! ```
//! let sums = comm::threads::run(3, |ranks| {
//!     let mut values = [ranks.rank() as f64, 1.0];
//!     ranks.sum("values", &mut values).unwrap();
//!     values
//! });
//! assert_eq!(sums, [[3.0, 3.0]; 3]);
//! ```

mod attached;
pub mod deal;
mod error;
mod job;
mod launcher;
#[cfg(feature = "mpi")]
mod mpi;
mod ranks;
pub mod threads;
mod transport;

pub use error::CommError;
pub use job::{Fault, MpiJob, StartError, mpi_library, start, start_in_pieces};
pub use launcher::{Launched, launcher, launcher_variables};
pub use ranks::{Ranks, Traffic, Waiting};
pub use transport::Transport;
