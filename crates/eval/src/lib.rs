//! Evaluation: benchmarks, how their answers are judged, how a model answers them, and the table at the end.
//!
//! | question | file |
//! |---|---|
//! | which benchmarks are there, and what is special about each | `benchmark` |
//! | is this answer right | `rule` |
//! | how does a model answer a file | [`session`], [`run`], [`task`] |
//! | what is written, and how does a run go on | `log`, `record` |
//! | accuracy and its standard error | `stats` |
//! | We-Math's strict and loose scores | `wemath` |
//! | DynaMath's worst case | `worst_case` |
//! | the table, the averages, the published rows | `results`, `published`, [`report`] |
//! | can the rows of a data set be trained on | [`check`] |
//! | answers that were made elsewhere | [`predictions`], `question` |
//!
//! ```
//! use eval::{Benchmark, Extract, Rule};
//!
//! let benchmark = Benchmark::find("Math-Vista")?; // letter case and signs do not matter
//! assert_eq!(benchmark.name, "mathvista");
//! let answer = Extract::Boxed.answer(r"so \boxed{\frac{1}{2}}").unwrap();
//! assert!(Rule::default().is_right(&answer, "0.5", &Default::default()));
//! # Ok::<(), eval::EvalError>(())
//! ```
//!
//! Nothing here draws on a terminal or reads a command line; `bin/eval.rs` does.

mod benchmark;
pub mod check;
pub(crate) mod error;
mod lines;
mod log;
pub mod predictions;
mod published;
mod question;
mod record;
pub mod report;
mod results;
mod rule;
pub mod run;
pub mod session;
mod stats;
pub mod task;
mod wemath;
mod worst_case;

pub use benchmark::{Average, Benchmark};
pub use error::EvalError;
pub use log::{AnswerLog, OutputFolder};
pub use record::Record;
pub use results::{AverageResult, BenchmarkResult, ResultGroup, Results, UnusedRows};
pub use rule::{Extract, Rule};
pub use stats::Accuracy;
pub use wemath::WeMath;
pub use worst_case::WorstCase;
