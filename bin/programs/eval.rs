//! `eval`: a model answers benchmarks, or answers made elsewhere are graded; a table with standard errors at the end.

mod options;
mod plan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use clap::Parser;
use comm::{MpiJob, Ranks};
use eval::predictions::grade_into;
use eval::session::{EvalWatcher, Evaluation};
use eval::{EvalError, Record, report};
use model_qwen2vl::Kernels;

use crate::common::progress::RowProgress;
use crate::common::ranks::{choose_card, share_folder};
use crate::common::{Failure, OnBackend, interrupt_flag, on_backend, print, program_on_ranks};
use answer::audit::{AuditLog, Compared};
use options::Options;
use plan::EvalPlan;

/// Evaluate a Qwen-VL model on benchmarks, or grade answers that were made elsewhere.
///
/// Greedy with one answer per question by default, as VGPO reports; --samples 8 --temperature 1 as VPPO does. Answers
/// do not depend on the batch size. A killed or interrupted run goes on where it was when the same command is given
/// again.
#[derive(Parser)]
#[command(
    name = "eval",
    version,
    after_help = "Examples:
  eval --model DIR --benchmark geo3k=geometry3k@test --benchmark mathvista=mathvista.parquet --out results/mine
  eval --model runs/toy --benchmark 'sums=toy:sum?rows=2&cols=2&split=test&size=200' --max-new-tokens 64 --out results/toy
  eval --config evaluation.toml --model DIR --out results/mine
  eval --from predictions.jsonl --benchmark mathverse

Benchmarks: mathvista, mathverse, wemath, mmk12, geomath, geometry3k, logicvista, superclevr-counting, mmmu-pro, mathverse-v,
mathverse-testmini, mathvision, dynamath, custom:NAME. docs/evaluation.md has their prompts, answer rules and groups.
Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted."
)]
struct EvalArgs {
    /// Options in a TOML file, under the same names with underscores; benchmarks = ["NAME=PATH"] or [[benchmarks]]
    /// tables.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        Self::with_code(error.exit_code(), error)
    }
}

struct Evaluate {
    session: Evaluation,
    is_first: bool,
    audit: Option<PathBuf>,
    interrupt: Arc<AtomicBool>,
}

/// Shows how far each benchmark is, and keeps what is audited.
struct Watched {
    /// Whether a person is told; of several ranks the first one speaks.
    speaks: bool,
    progress: Option<RowProgress>,
    audited: Option<Vec<Record>>,
}

impl EvalWatcher for Watched {
    fn begin(&mut self, name: &str, rows: usize) {
        self.progress = self.speaks.then(|| RowProgress::new(name, rows));
    }
    fn at(&mut self, rows: usize) {
        self.progress.iter_mut().for_each(|progress| progress.at(rows));
    }
    fn end(&mut self, records: Vec<Record>) {
        self.progress = None;
        self.audited.iter_mut().for_each(|audited| audited.extend_from_slice(&records));
    }
}

impl OnBackend for Evaluate {
    type Output = Result<(), Failure>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        let audited = self.audit.is_some().then(Vec::new);
        let mut watched = Watched { speaks: self.is_first, audited, progress: None };
        let results = self.session.run::<B>(&device, dtype, &self.interrupt, &mut watched)?;
        if self.is_first {
            print(&report::markdown(&results))?;
            audit(self.audit.as_deref(), watched.audited.iter().flatten())?;
        }
        results.unusable().map_or(Ok(()), |reason| Err(Failure::input(reason)))
    }
}

/// Where the graders disagree on answers, when that was asked for.
fn audit<'r>(path: Option<&Path>, records: impl IntoIterator<Item = &'r Record>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let failed = |e: std::io::Error| Failure::input(format!("--audit {}: cannot be written: {e}", path.display()));
    let mut log = AuditLog::create(path).map_err(failed)?;
    for record in records {
        let Some(given) = &record.extracted else { continue };
        let id = format!("{}/{}/{}", record.benchmark, record.id, record.sample);
        log.add(&Compared::new(id, given.clone(), record.answer.clone())).map_err(failed)?;
    }
    print(&format!("\n{}", log.finish().map_err(failed)?))
}

fn options(args: EvalArgs) -> Result<Options, Failure> {
    let Some(path) = args.config else { return Ok(args.options) };
    let fail = |reason: String| Failure::input(format!("--config {}: {reason}", path.display()));
    let text = guard::file::read_text(&path, guard::limits().config_bytes)
        .map_err(|e| fail(format!("cannot be read: {e}")))?;
    let file: Options = toml::from_str(&text).map_err(|e| fail(e.to_string().trim().to_owned()))?;
    Ok(args.options.over(file))
}

fn run(args: EvalArgs, job: Option<Arc<MpiJob>>) -> Result<(), Failure> {
    let ranks = job.map_or(Ranks::solo(), |job| job.ranks(false));
    match options(args)?.plan()? {
        EvalPlan::Grade { from, out, audit: to_audit, grading } => {
            if !ranks.is_first() {
                return Ok(()); // it is done before the others would have begun
            }
            let (results, records) = grade_into(&from, out.as_deref(), &grading)?;
            print(&report::markdown(&results))?;
            audit(to_audit.as_deref(), &records)
        }
        EvalPlan::Answer(plan) => {
            let (backend, dtype) = (plan.backend, plan.dtype);
            share_folder(&ranks, &plan.asking.out, "--out")?;
            choose_card(&ranks, backend)?;
            let is_first = ranks.is_first();
            let session = Evaluation::open(plan.asking, ranks)?;
            let interrupt = interrupt_flag(None)?;
            on_backend(backend, dtype, Evaluate { session, is_first, audit: plan.audit, interrupt })?
        }
    }
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "eval",
    about: "Evaluate a model on benchmarks, or grade answers that were made elsewhere",
    main,
    command: <EvalArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    program_on_ranks("--batch-size, --max-new-tokens or --max-pixels", |args: EvalArgs, job| {
        run(args, job).map(|()| ExitCode::SUCCESS)
    })
}
