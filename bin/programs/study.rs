//! `study`: trains the rows of a study from shared warm starts, several at a time, and reports what can be said about
//! them.

mod options;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use analysis::study::child::ChildPlace;
use analysis::study::report;
use analysis::study::sessions::Session;
use analysis::study::{
    Ended, GateEnd, Outcome, OutcomesJob, RunToTrain, Study, StudyError, child, gate, published, runner,
};
use burn::tensor::DType;
use comm::{MpiJob, Ranks};
use model_qwen2vl::Kernels;
use rl::TrainError;
use rl::config::{Backend, Source, resolve};

use crate::common::ranks::{choose_card, share_folder};
use crate::common::{Failure, OnBackend, Train, interrupt_flag, on_backend, print, program_on_ranks};
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
    let outcomes = OutcomesJob::ordered(&config.trainer.run_dir())?;
    let train = Train { config, interrupt, ranks: comm::Ranks::solo(), progress: rl::progress::Progress::new() };
    Ok(on_backend(backend, dtype, TrainAndMeasure { train, outcomes })??)
}

/// A run of the study, and what is to be known of the weights that it ends with.
struct TrainAndMeasure {
    train: Train,
    outcomes: Option<OutcomesJob>,
}

impl OnBackend for TrainAndMeasure {
    type Output = Result<(), TrainError>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        let interrupt = self.train.interrupt.clone();
        self.train.run::<B>(device.clone(), dtype)?;
        match self.outcomes {
            Some(outcomes) => outcomes.run::<B>(&device, dtype, &interrupt, &mut |line| eprintln!("{line}")),
            None => Ok(()),
        }
    }
}

/// The card of this rank, as its children see it.
fn card(ranks: &Ranks, backend: Backend) -> Result<Option<String>, Failure> {
    let Some(chosen) = choose_card(ranks, backend)? else { return Ok(None) };
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    Ok(Some(visible.split(',').nth(chosen).filter(|card| !card.is_empty()).map_or(chosen.to_string(), str::to_owned)))
}

fn run(args: StudyArgs, job: Option<Arc<MpiJob>>) -> Result<(), Failure> {
    if let Some(file) = &args.run {
        return train(file);
    }
    if args.jobs == Some(0) {
        return Err(Failure::input("--jobs 0: at least one run at a time is needed"));
    }
    let ranks = job.map_or(Ranks::solo(), |job| job.ranks(false));
    let study = args.study()?;
    if args.plan {
        return if ranks.is_first() { print(&study.text()?) } else { Ok(()) };
    }
    let base = study.base_config()?;
    if base.data.val_files.is_empty() {
        return Err(Failure::input("data.val_files is empty; a study compares accuracies on it"));
    }
    let name = if study.quick { "runs/study_quick" } else { "runs/study" };
    let out = args.out.clone().unwrap_or_else(|| name.into());
    std::fs::create_dir_all(&out).map_err(|e| Failure::input(format!("--out {}: {e}", out.display())))?;
    share_folder(&ranks, &out, "--out")?;
    if let Some(folder) = &args.publish
        && ranks.is_first()
    {
        match published::take_over(folder, &out)? {
            0 => {}
            runs => eprintln!("{runs} runs taken over from {}", folder.join("study").display()),
        }
    }
    ranks.barrier("records of earlier runs")?;
    let cores = match ranks.is_solo() {
        true => std::thread::available_parallelism().map_or(1, usize::from),
        false => rayon::current_num_threads(),
    };
    let jobs = args.jobs.unwrap_or_else(|| default_jobs(base.trainer.backend, cores));
    let place = ChildPlace {
        threads: (cores / jobs).max(1),
        cores,
        cards: card(&ranks, base.trainer.backend)?,
        program: cli::this_program,
    };

    let note = ranks.is_solo().then_some("stopping: the runs write checkpoints first (again to stop at once)");
    let stop = interrupt_flag(note)?;
    if study.quick && ranks.is_first() {
        eprintln!("the quick form: few rows, seeds and steps; it shows that everything runs, not which row is better");
    }
    let clock = Instant::now();
    let train = |job: &RunToTrain| child::train(job, &place, &stop);
    let Some(study) = gated(&ranks, study, &args, &out, jobs, &stop, &train)? else { return Ok(()) };
    let outcome = runner::run(&ranks, &study, &out, jobs, &stop, train, |text| eprintln!("{text}"))?;
    if ranks.is_first() {
        let all = jobs * ranks.size();
        finish(&args, &study, &out, session(all, cores, outcome.finished, clock.elapsed().as_secs_f64()), &outcome)?;
    }
    ranks.barrier("end of the study")?;
    if outcome.interrupted {
        return Err(TrainError::Interrupted.into());
    }
    match outcome.failed.len() {
        0 => Ok(()),
        failed => Err(Failure::other(format!("{failed} runs failed"))),
    }
}

/// The study with the setting of the warm start that its gate lets through; none where the study ends here.
fn gated(
    ranks: &Ranks,
    study: Study,
    args: &StudyArgs,
    out: &Path,
    jobs: usize,
    stop: &AtomicBool,
    train: &(impl Fn(&RunToTrain) -> Ended + Sync),
) -> Result<Option<Study>, Failure> {
    let Some(spec) = study.rows.gate.clone() else {
        return if args.gate { Err(Failure::input("--gate: the rows file has no [gate]")) } else { Ok(Some(study)) };
    };
    let verdict = match gate::measure(ranks, (&study, &spec), out, jobs, stop, train, |text| eprintln!("{text}"))? {
        GateEnd::Measured(verdict) => verdict,
        GateEnd::Stopped(outcome) => {
            if ranks.is_first() {
                report::write(&gate::as_decided(&study, out)?, out)?;
                published(args, out)?;
            }
            return match outcome.failed.first() {
                Some((run, reason)) => Err(Failure::other(format!("gate: {run}: {reason}"))),
                None => Err(TrainError::Interrupted.into()),
            };
        }
    };
    let chosen = spec.settings.iter().find(|setting| verdict.chosen.as_ref() == Some(&setting.name));
    let setting = match (chosen, spec.settings.first()) {
        (None, Some(first)) if study.quick && !args.gate => {
            eprintln!("the quick form goes on with the gate's first setting: it shows that everything runs");
            Some(first)
        }
        _ => chosen,
    };
    let passed = setting.map(|setting| gate::on(ranks, &study, setting, out)).transpose()?;
    if ranks.is_first() {
        // Not that of the study without a setting: what earlier calls have found belongs to the one that passed.
        report::write(passed.as_ref().unwrap_or(&study), out)?;
        published(args, out)?;
        print(&verdict.text())?;
    }
    Ok(passed.filter(|_| !args.gate))
}

fn session(jobs: usize, cores: usize, finished: usize, seconds: f64) -> Session {
    let command = std::env::args()
        .map(|a| a.rsplit('/').next().unwrap_or(&a).to_string())
        .take(1)
        .chain(std::env::args().skip(1))
        .collect::<Vec<_>>()
        .join(" ");
    Session { command, jobs, cores, finished, seconds }
}

/// Copies what there is to where it is to be published; of a study that is not finished, too, which the page says.
fn published(args: &StudyArgs, out: &Path) -> Result<(), Failure> {
    args.publish.as_ref().map_or(Ok(()), |folder| Ok(published::publish(out, folder)?))
}

/// What is written and said at the end.
fn finish(args: &StudyArgs, study: &Study, out: &Path, session: Session, outcome: &Outcome) -> Result<(), Failure> {
    if outcome.finished > 0 {
        session.append(study, out)?;
    }
    print(&outcome.text(out))?;
    published(args, out)
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "study",
    about: "Compare algorithms and their settings over several seeds",
    main,
    command: <StudyArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    program_on_ranks(crate::train::LOWERS, |args: StudyArgs, job| run(args, job).map(|()| ExitCode::SUCCESS))
}
