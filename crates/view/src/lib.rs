//! What a run looks like: its curves, its rollouts with their pictures, its answers to validation rows, what was set
//! aside, its configuration. All of it is one page (`assets/`, plain HTML, CSS and JavaScript), which a server shows
//! ([`PageAsset`], [`Ask`]) or which is written with its data as one file ([`write_report`]). No server is in here, so
//! that training can write its report without one.
//!
//! What a run holds is foreign text: a dataset chose the problems, a model the responses. It goes to the page as JSON
//! and is shown as text; files are read only inside the run's folder.
//!
//! ```
//! use std::fs;
//!
//! let place = tempfile::tempdir()?;
//! let run = place.path().join("run");
//! fs::create_dir(&run)?;
//! fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"reward\":0.5}\n")?;
//! let out = place.path().join("report.html");
//! let report = view::write_report(&[run], &out)?;
//! assert!(report.left_out.is_empty());
//! assert!(fs::read_to_string(&out)?.starts_with("<!doctype html>"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod ask;
mod curves;
mod error;
mod file;
mod lines;
mod page;
mod rollouts;
mod settings;
mod viewed;

pub use ask::Ask;
pub use error::ViewError;
pub use file::{WrittenReport, write_report};
pub use page::{PageAsset, asset, index};
pub use viewed::ViewedRun;
