//! The options of `study`, and the study that they name.

use std::path::PathBuf;

use analysis::study::{RowsFile, Study};
use clap::Parser;
use rl::config::{Backend, Dtype, Source};

use crate::common::{Failure, choice, within};

/// Compare algorithms and their settings: rows x seeds of training runs on one task, with paired tests, tables and
/// plots.
///
/// Without arguments it trains the rows of configs/study_rows.toml on the toy world (hours on a small machine); --quick
/// is a small form of it. Finished runs are kept: the same command goes on where it was stopped.
#[derive(Parser)]
#[command(
    name = "study",
    version,
    after_help = "Examples:
  study --quick                                    a small form, in minutes
  study --plan                                     print the grid and stop
  study --out runs/study --jobs 2                  the whole study, two runs at a time
  study --out runs/study --publish docs            go on with what is published, on any machine
  study --rows-only dapo,vgpo --seeds 10           two rows, more seeds
  study data.val_max_samples=1000                  another setting for all runs

Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted (the same command goes on)."
)]
pub(super) struct StudyArgs {
    /// Configuration files (TOML) that all rows share, composed left to right. Default: the embedded
    /// configs/study.toml.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// File of rows and tables. Default: the embedded configs/study_rows.toml.
    #[arg(long, value_name = "FILE")]
    pub rows: Option<PathBuf>,
    /// Only these rows; the reference of the paired tests must be among them.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub rows_only: Vec<String>,
    /// Warm starts, on each of which every row runs. Default: as the rows file says.
    #[arg(long, value_name = "N", value_parser = within::<usize>(1..=1000))]
    pub seeds: Option<usize>,
    /// The quick form: fewer rows, seeds and steps.
    #[arg(long)]
    pub quick: bool,
    /// Measure the gate, write its verdict and stop.
    #[arg(long)]
    pub gate: bool,
    /// Print the grid and stop.
    #[arg(long)]
    pub plan: bool,
    /// Folder of the study. Default: runs/study, or runs/study_quick with --quick.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Runs at a time; each gets its share of the cores. Default: one a core, at most 4; 1 on a GPU.
    #[arg(long, value_name = "N", value_parser = within::<usize>(1..=1024))]
    pub jobs: Option<usize>,
    /// Copy study.md, its plots and the records of its runs to this folder at the end, for example docs; runs whose
    /// records are there are taken over at the start and not run again.
    #[arg(long, value_name = "DIR")]
    pub publish: Option<PathBuf>,
    /// Device library, among what was compiled in. Same as trainer.backend.
    #[arg(long, value_name = "B", value_parser = choice::<Backend>())]
    pub backend: Option<Backend>,
    /// Number format of weights and activations. Same as trainer.dtype.
    #[arg(long, value_name = "D", value_parser = choice::<Dtype>())]
    pub dtype: Option<Dtype>,
    /// Settings of all runs, for example rollout.n=4.
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Train one run of a study; how this program calls itself.
    #[arg(long, value_name = "FILE", hide = true)]
    pub run: Option<PathBuf>,
}

impl StudyArgs {
    /// The study that is asked for.
    ///
    /// # Errors
    /// Files that cannot be read, rows and settings that cannot be used.
    pub(super) fn study(&self) -> Result<Study, Failure> {
        let base = if self.config.is_empty() {
            vec![Source::new("the embedded configs/study.toml", include_str!("../../../configs/study.toml"))]
        } else {
            self.config.iter().map(|path| Source::read(path)).collect::<Result<Vec<_>, _>>()?
        };
        let mut rows = match &self.rows {
            None => RowsFile::parse(
                "the embedded configs/study_rows.toml",
                include_str!("../../../configs/study_rows.toml"),
            )?,
            Some(path) => {
                let source = Source::read(path)?;
                RowsFile::parse(&source.name, &source.text)?
            }
        };
        if !self.rows_only.is_empty() {
            if let (true, Some(quick)) = (self.quick, &mut rows.quick) {
                quick.rows.clone_from(&self.rows_only);
            } else {
                rows.keep(&self.rows_only).map_err(|e| Failure::input(format!("--rows-only: {e}")))?;
            }
        }
        if self.seeds == Some(0) {
            return Err(Failure::input("--seeds 0: a study needs at least one"));
        }
        let mut overrides = self.overrides.clone();
        overrides.extend(self.backend.map(|backend| format!("trainer.backend={backend}")));
        overrides.extend(self.dtype.map(|dtype| format!("trainer.dtype={dtype}")));
        Ok(Study::new(base, rows, &overrides, self.quick, self.seeds)?)
    }
}

/// Runs at a time where the command line does not say.
pub(super) fn default_jobs(backend: Backend, cores: usize) -> usize {
    let backend = match backend {
        Backend::Auto => crate::common::compiled().first().copied().unwrap_or(Backend::Flex),
        other => other,
    };
    match backend {
        Backend::Flex | Backend::Ndarray => cores.min(4),
        _ => 1,
    }
}
