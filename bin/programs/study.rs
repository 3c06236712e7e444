//! `study`: trains the rows of a study from shared warm starts, several at a time, and reports what can be said about
//! them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Failure, Train, interrupt_flag, on_backend, print, within};
use analysis::study::report::{self, Session};
use analysis::study::{Ended, RowsFile, RunToTrain, Study, StudyError, runner};
use clap::Parser;
use rl::TrainError;
use rl::config::{Backend, Source, resolve};

/// Compare algorithms and their settings: rows x seeds of training runs on one task, with paired tests, tables and
/// plots.
///
/// Without arguments it trains the rows of configs/study_rows.toml on the toy world (hours on a small machine); --quick
/// is a small form of it. Finished runs are kept: the same command goes on where it was stopped.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  study --quick                                    a small form, in minutes
  study --plan                                     print the grid and stop
  study --out runs/study --jobs 2                  the whole study, two runs at a time
  study --rows-only dapo,vgpo --seeds 10           two rows, more seeds
  study data.val_max_samples=1000                  another setting for all runs

Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted (the same command goes on)."
)]
struct StudyArgs {
    /// Configuration files (TOML) that all rows share, composed left to right. Default: the embedded
    /// configs/study.toml.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// File of rows and tables. Default: the embedded configs/study_rows.toml.
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Only these rows; the reference of the paired tests must be among them.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    rows_only: Vec<String>,
    /// Warm starts. Default: as the rows file says.
    #[arg(long, value_name = "N", value_parser = within::<usize>(1..=1000))]
    seeds: Option<usize>,
    /// The quick form: fewer rows, seeds and steps.
    #[arg(long)]
    quick: bool,
    /// Print the grid and stop.
    #[arg(long)]
    plan: bool,
    /// Folder of the study. Default: runs/study, or runs/study_quick with --quick.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Runs at a time; each gets its share of the cores. Default: one a core, at most 4; 1 on a GPU.
    #[arg(long, value_name = "N", value_parser = within::<usize>(1..=1024))]
    jobs: Option<usize>,
    /// Copy study.md and its plots to this folder at the end, for example docs.
    #[arg(long, value_name = "DIR")]
    publish: Option<PathBuf>,
    /// auto, flex, ndarray, wgpu, vulkan or cuda, among what was compiled in. Same as trainer.backend.
    #[arg(long)]
    backend: Option<String>,
    /// auto, f32 or bf16. Same as trainer.dtype.
    #[arg(long)]
    dtype: Option<String>,
    /// Settings of all runs, for example rollout.n=4.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Train one run of a study; how this program calls itself.
    #[arg(long, value_name = "FILE", hide = true)]
    run: Option<PathBuf>,
}

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
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).map_err(Failure::other)?;
    let flag = interrupt.clone();
    let watch = move || {
        // The parent writes nothing: reading ends when its end of the pipe is closed, however it ended.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().spawn(watch).map_err(|e| Failure::other(guard::stack::no_thread(e)))?;
    let (backend, dtype) = (config.trainer.backend, config.trainer.dtype);
    on_backend(backend, dtype, Train { config, interrupt })??;
    Ok(())
}

/// The parent's side of one run.
fn child(job: &RunToTrain, threads: usize, stop: &AtomicBool) -> Ended {
    let start = || -> std::io::Result<std::process::Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&job.log)?;
        Command::new(std::env::current_exe()?)
            .arg("--run")
            .arg(&job.config_file)
            .env("RAYON_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    };
    let mut child = match start() {
        Ok(child) => child,
        Err(error) => return Ended::Failed(format!("cannot be started: {error}")),
    };
    let mut pipe = child.stdin.take();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Ended::Failed(format!("cannot be waited for: {error}")),
        }
        if stop.load(Ordering::Relaxed) {
            pipe = None; // closing it asks the child for a checkpoint
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(pipe);
    match status.code() {
        Some(0) => Ended::Done,
        Some(130) => Ended::Interrupted,
        _ if stop.load(Ordering::Relaxed) => Ended::Interrupted,
        _ => {
            let text = guard::file::read_text(&job.log, guard::limits().record_bytes).unwrap_or_default();
            let reason = text.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it says nothing");
            Ended::Failed(format!("{status}: {reason} (see {})", job.log.display()))
        }
    }
}

/// Runs at a time where the command line does not say.
fn default_jobs(backend: Backend, cores: usize) -> usize {
    let backend = match backend {
        Backend::Auto => crate::common::compiled().first().copied().unwrap_or(Backend::Flex),
        other => other,
    };
    match backend {
        Backend::Flex | Backend::Ndarray => cores.min(4),
        _ => 1,
    }
}

fn study(args: &StudyArgs) -> Result<Study, Failure> {
    let base = if args.config.is_empty() {
        vec![Source::new("the embedded configs/study.toml", include_str!("../../configs/study.toml"))]
    } else {
        args.config.iter().map(|path| Source::read(path)).collect::<Result<Vec<_>, _>>()?
    };
    let mut rows = match &args.rows {
        None => RowsFile::parse("the embedded configs/study_rows.toml", include_str!("../../configs/study_rows.toml"))?,
        Some(path) => {
            let source = Source::read(path)?;
            RowsFile::parse(&source.name, &source.text)?
        }
    };
    if !args.rows_only.is_empty() {
        if let (true, Some(quick)) = (args.quick, &mut rows.quick) {
            quick.rows.clone_from(&args.rows_only);
        } else {
            rows.keep(&args.rows_only).map_err(|e| Failure::input(format!("--rows-only: {e}")))?;
        }
    }
    if args.seeds == Some(0) {
        return Err(Failure::input("--seeds 0: a study needs at least one"));
    }
    let mut overrides = args.overrides.clone();
    for (key, value) in [("backend", &args.backend), ("dtype", &args.dtype)] {
        overrides.extend(value.as_ref().map(|v| format!("trainer.{key}={v}")));
    }
    Ok(Study::new(base, rows, &overrides, args.quick, args.seeds)?)
}

fn run(args: StudyArgs) -> Result<(), Failure> {
    if let Some(file) = &args.run {
        return train(file);
    }
    if args.jobs == Some(0) {
        return Err(Failure::input("--jobs 0: at least one run at a time is needed"));
    }
    let study = study(&args)?;
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
    let outcome = runner::run(&study, &out, jobs, &stop, |job| child(job, threads, &stop), |text| eprintln!("{text}"))?;
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
        publish(&out, folder)?;
    }
    Ok(())
}

/// Copies the report and its plots.
fn publish(out: &Path, folder: &Path) -> Result<(), Failure> {
    let copy = |from: PathBuf, to: PathBuf| {
        std::fs::copy(&from, &to).map_err(|e| Failure::other(format!("{}: {e}", to.display()))).map(|_| ())
    };
    let plots = folder.join("study");
    std::fs::create_dir_all(&plots).map_err(|e| Failure::input(format!("--publish {}: {e}", plots.display())))?;
    copy(out.join("study.md"), folder.join("study.md"))?;
    let entries = std::fs::read_dir(out.join("study")).map_err(Failure::other)?;
    for entry in entries.flatten() {
        if entry.path().extension().is_some_and(|e| e == "svg") {
            copy(entry.path(), plots.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The program.
pub fn main() -> ExitCode {
    crate::common::device_program(crate::train::LOWERS, |args: StudyArgs| run(args).map(|()| ExitCode::SUCCESS))
}
