//! `study`: trains the rows of a study from shared warm starts, several at a time, and reports what can be said about
//! them.

mod options;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use analysis::study::report::{self, Session};
use analysis::study::{StudyError, child, runner};
use rl::TrainError;
use rl::config::{Source, resolve};

use crate::common::{Failure, Train, interrupt_flag, on_backend, print};
use options::{StudyArgs, default_jobs};

impl From<StudyError> for Failure {
    fn from(error: StudyError) -> Self {
        match error.exit_code() {
            2 => Self::input(error),
            _ => Self::other(error),
        }
    }
}

/// The child: trains what `file` says, and stops with a checkpoint on a signal or when the parent is gone.
fn train(file: &Path) -> Result<(), Failure> {
    let config = resolve(&[Source::read(file)?], &[])?;
    let interrupt = Arc::new(AtomicBool::new(false));
    let flag = interrupt.clone();
    // A second signal does not end it: the parent passes on what it is sent.
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).map_err(Failure::other)?;
    child::stop_with_parent(interrupt.clone()).map_err(|e| Failure::other(guard::stack::no_thread(e)))?;
    let (backend, dtype) = (config.trainer.backend, config.trainer.dtype);
    on_backend(
        backend,
        dtype,
        Train { config, interrupt, ranks: comm::Ranks::solo(), progress: rl::progress::Progress::new() },
    )??;
    Ok(())
}

fn run(args: StudyArgs) -> Result<(), Failure> {
    if let Some(file) = &args.run {
        return train(file);
    }
    if args.jobs == Some(0) {
        return Err(Failure::input("--jobs 0: at least one run at a time is needed"));
    }
    let study = args.study()?;
    if args.plan {
        return print(&report::plan(&study)?);
    }
    let base = study.base_config()?;
    if base.data.val_files.is_empty() {
        return Err(Failure::input("data.val_files is empty; a study compares accuracies on it"));
    }
    let name = if study.quick { "runs/study_quick" } else { "runs/study" };
    let out = args.out.clone().unwrap_or_else(|| name.into());
    std::fs::create_dir_all(&out).map_err(|e| Failure::input(format!("--out {}: {e}", out.display())))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or_else(|| default_jobs(base.trainer.backend, cores));
    let threads = (cores / jobs).max(1);

    let stop = interrupt_flag(Some("stopping: the runs write checkpoints first (again to stop at once)"))?;
    if study.quick {
        eprintln!("the quick form: few rows, seeds and steps; it shows that everything runs, not which row is better");
    }
    let clock = Instant::now();
    let outcome =
        runner::run(&study, &out, jobs, &stop, |job| child::train(job, threads, &stop), |text| eprintln!("{text}"))?;
    let session = Session {
        command: std::env::args()
            .map(|a| a.rsplit('/').next().unwrap_or(&a).to_string())
            .take(1)
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
        jobs,
        cores,
        finished: outcome.finished,
        seconds: clock.elapsed().as_secs_f64(),
    };
    if outcome.finished > 0 {
        session.append(&study, &out)?;
    }
    print(&report::outcome(&outcome, &out))?;
    if outcome.interrupted {
        return Err(TrainError::Interrupted.into());
    }
    if !outcome.failed.is_empty() {
        return Err(Failure::other(format!("{} runs failed", outcome.failed.len())));
    }
    if let Some(folder) = &args.publish {
        report::publish(&out, folder)?;
    }
    Ok(())
}

/// The program.
pub fn main() -> ExitCode {
    crate::common::alone(|| {
        crate::common::device_program(crate::train::LOWERS, |args: StudyArgs| run(args).map(|()| ExitCode::SUCCESS))
    })
}
