//! A study: rows of settings, each trained from the same warm starts with the same budget of rollouts, and what can be
//! said about their differences.
//!
//! | file | what |
//! |---|---|
//! | `rows` | the file that names rows and tables |
//! | [`plan`] | the configuration of every run |
//! | [`result`] | what a finished run leaves: one JSON file |
//! | [`gate`] | what the warm start has to show before any row runs |
//! | [`outcomes`] | what is measured of a run's final weights |
//! | `comparisons` | rows against each other over seeds and items, and where each looks |
//! | [`child`] | a run as a child process |
//! | [`runner`] | runs what is missing, several at a time |
//! | [`report`] | tables, tests and plots as Markdown |
//! | [`published`] | the page and the records of its runs, to go on with elsewhere |
//!
//! A study's folder:
//!
//! ```text
//! OUT/
//!   study.md, study/*.svg       the report, written anew whenever a run ends
//!   gate.json, gate/SETTING/    the verdict of the gate, and a folder like this one for each setting that was tried
//!   results/ROW/seed_K.json     finished runs; `warm` is the warm start. A run whose file is here is not run again,
//!                               but for a warm start whose weights are gone and needed.
//!                               The first warm starts of a study with a gate are the gate's
//!   runs/ROW/seed_K/            run folders (docs/metrics.md) with the final weights, and log.txt
//!   sessions.jsonl              one line per call of the program: jobs, runs, seconds
//! ```

pub mod child;
mod comparisons;
pub mod gate;
mod looks;
pub mod outcomes;
pub mod plan;
pub mod published;
pub mod report;
pub(crate) mod result;
pub(crate) mod rows;
pub mod runner;
pub mod sessions;

use std::path::PathBuf;

pub use gate::{GateEnd, GateSpec, GateVerdict};
pub use outcomes::{Outcomes, OutcomesJob, OutcomesSpec};
pub use plan::{Study, WARM};
pub use result::{Point, RunResult};
pub use rows::{Quick, RowComparisons, RowsFile, StudyRow, Table};
pub use runner::{Ended, Outcome, RunToTrain};

/// What can go wrong around the runs of a study.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// The rows file cannot be used.
    #[error("{name}: {reason}")]
    Rows {
        /// The file.
        name: String,
        /// Why.
        reason: String,
    },
    /// The settings of a row cannot be used.
    #[error("row {row}: {source}")]
    StudyRow {
        /// Its name.
        row: String,
        /// Why.
        source: rl::config::ConfigError,
    },
    /// The base cannot be used.
    #[error(transparent)]
    Base(#[from] rl::config::ConfigError),
    /// What lies in the folder was made with other settings.
    #[error(
        "{} was made with other settings than this study's; choose another --out (and --publish), or delete it to run that row again",
        .path.display()
    )]
    OtherSettings {
        /// The file.
        path: PathBuf,
    },
    /// A file that the study wrote does not read.
    #[error("{}: {reason}; delete it to run that row again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Other ranks.
    #[error(transparent)]
    Ranks(#[from] comm::CommError),
    /// The file system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
}

impl StudyError {
    /// 2 for what the user gave, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Io { .. } | Self::Ranks(_)) { 1 } else { 2 }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
