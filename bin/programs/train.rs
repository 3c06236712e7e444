//! `train`: supervised warm start and reinforcement learning of a Qwen-VL policy, as a configuration says.

#[cfg(feature = "cuda")]
mod check_devices;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::common::ranks::{choose_card, join};
use crate::common::watch::{Watch, WatchedRun, clear};
use crate::common::{Failure, Train, choice, interrupt_flag, on_backend, print, program_on_ranks};
use crate::forecast::{ForecastOptions, dry_run};
use clap::Parser;
use comm::{MpiJob, Ranks};
use rl::TrainError;
use rl::config::{Backend, Dtype, Source, convert_easyr1, easyr1_message, resolve};
use rl::progress::Progress;
use rl::trainer::Summary;

/// Train Qwen2-VL, Qwen2.5-VL and Qwen3-VL with reinforcement learning from verifiable rewards: GRPO, DAPO, VGPO, VPPO,
/// PAPO and relatives.
///
/// Without arguments it runs the embedded toy world: a supervised warm start, then VGPO, in minutes on a laptop's CPU.
#[derive(Parser)]
#[command(
    name = "train",
    version,
    after_help = "Examples:
  train                                                   the toy world
  train stages.4.steps=50 trainer.output_dir=runs/mine    the same with other settings
  train --config configs/qwen2_5_vl_3b.toml algorithm.name=vgpo model.path=DIR data.train_files=FILE.parquet data.val_files=FILE.parquet
  train --config configs/qwen2_5_vl_3b.toml algorithm.name=vgpo --dry-run  print every key with its meaning and value
  train --config configs/qwen2_5_vl_7b.toml algorithm.name=vgpo --dry-run --ranks 8  what each of 8 devices has to hold
  train config=examples/config.yaml worker.actor.model.model_path=DIR  a file of EasyR1's, as its own command has it
  train --convert config.yaml > config.toml               the same as TOML

Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted after a checkpoint; on
several ranks (docs/many-gpus.md) 75 where they wait in vain, 101 a fault of the program."
)]
struct TrainArgs {
    /// Configuration files, composed left to right: TOML, or EasyR1's YAML, which comes first and takes overrides in
    /// EasyR1's spelling (docs/easyr1.md). Default: the embedded configs/toy.toml.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Print EasyR1's file, with the overrides that are given, as TOML and stop: the same configuration.
    #[arg(long, value_name = "FILE.yaml", conflicts_with_all = ["config", "dry_run", "check_devices"])]
    convert: Option<PathBuf>,
    /// Settings that come last, for example algorithm.vgpo.beta=0.3 or data.train_files=[a.parquet,b.parquet].
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Where to start: auto (the newest checkpoint of the run folder), none, or a checkpoint's folder. Same as
    /// trainer.resume.
    #[arg(long, value_name = "auto|none|DIR")]
    resume: Option<String>,
    /// Device library, among what was compiled in. Same as trainer.backend.
    #[arg(long, value_name = "B", value_parser = choice::<Backend>())]
    backend: Option<Backend>,
    /// Number format of weights and activations. Same as trainer.dtype.
    #[arg(long, value_name = "D", value_parser = choice::<Dtype>())]
    dtype: Option<Dtype>,
    /// Print the resolved configuration and, as its last comments, what each device's memory has to hold and how long a
    /// step takes, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Check what the CUDA devices of all ranks tell each other, and how fast, and stop: values, order, seconds by
    /// size.
    #[arg(long, conflicts_with = "dry_run")]
    check_devices: bool,
    /// Let the first step of each stage take the rows that cost most. Same as data.worst_first=true; with --dry-run the
    /// worst row is named.
    #[arg(long)]
    worst_first: bool,
    #[command(flatten, next_help_heading = "With --dry-run")]
    forecast: ForecastOptions,
}

/// What needs less of the device's memory.
pub(crate) const LOWERS: &str = "actor.micro_batch_tokens, rollout.max_batch_rows, rollout.prefill_token_budget, \
    rollout.image_cache_gib, data.max_pixels or data.max_response_length, or set actor.recompute=always, \
    actor.optim.moments_dtype=bf16, actor.optim.grads_dtype=bf16 and actor.optim.master_weights=false";

/// The files and overrides of a command line; without a file the embedded one. `config=FILE` names a file, as EasyR1's
/// commands do.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn sources(files: &[PathBuf], overrides: &[String]) -> Result<(Vec<Source>, Vec<String>), Failure> {
    let (named, overrides): (Vec<String>, Vec<String>) =
        overrides.iter().cloned().partition(|text| text.starts_with("config="));
    let named = named.iter().filter_map(|text| text.strip_prefix("config=")).map(PathBuf::from);
    let files: Vec<PathBuf> = files.iter().cloned().chain(named).collect();
    let sources = if files.is_empty() {
        vec![Source::new("the embedded configs/toy.toml", include_str!("../../configs/toy.toml"))]
    } else {
        files.iter().map(|path| Source::read(path)).collect::<Result<Vec<_>, _>>()?
    };
    Ok((sources, overrides))
}

/// What the arguments say, with those that stand for a key.
fn given(args: &TrainArgs) -> Result<(Vec<Source>, Vec<String>), Failure> {
    let files: Vec<PathBuf> = args.config.iter().cloned().chain(args.convert.clone()).collect();
    let (sources, mut overrides) = sources(&files, &args.overrides)?;
    overrides.extend(args.resume.as_ref().map(|folder| format!("trainer.resume={folder}")));
    overrides.extend(args.backend.map(|backend| format!("trainer.backend={backend}")));
    overrides.extend(args.dtype.map(|dtype| format!("trainer.dtype={dtype}")));
    overrides.extend(args.worst_first.then(|| "data.worst_first=true".to_string()));
    Ok((sources, overrides))
}

fn run(args: TrainArgs, job: Option<Arc<MpiJob>>) -> Result<(), Failure> {
    let (sources, overrides) = given(&args)?;
    let is_first = job.as_ref().is_none_or(|job| job.rank() == 0);
    if args.convert.is_some() {
        let text = convert_easyr1(&sources, &overrides)?;
        return if is_first { print(&text) } else { Ok(()) };
    }
    let config = resolve(&sources, &overrides)?;
    launch::check_model_names(&config)?;
    if let Some(message) = easyr1_message(&sources, &overrides)?.filter(|_| is_first) {
        eprintln!("{}", guard::printable(&message));
    }
    if args.dry_run {
        let ranks = args.forecast.ranks.unwrap_or(job.as_ref().map_or(1, |job| job.ranks(false).size()));
        let text = dry_run(&config, &args.forecast, ranks)?;
        return if is_first { print(&text) } else { Ok(()) };
    }
    if args.forecast != ForecastOptions::default() {
        return Err(Failure::input("--ranks, --memory-gib, --figures, --card and --response-tokens need --dry-run"));
    }
    if args.check_devices {
        let ranks = job.as_ref().map_or_else(Ranks::solo, |job| job.ranks(config.parallel.check));
        choose_card(&ranks, Backend::Cuda)?;
        return check(&ranks);
    }
    // A launcher sends SIGTERM to all ranks when one has died, and then the note would not be true.
    let note = job.is_none().then_some("stopping: a checkpoint is written first (again to stop at once)");
    let interrupt = interrupt_flag(note)?;
    let (backend, dtype) = (config.trainer.backend, config.trainer.dtype);
    let ranks = join(job.as_deref(), &config)?;
    choose_card(&ranks, backend)?;
    let progress = if is_first { Progress::new() } else { Progress::silent() };
    let root = config.trainer.run_dir();
    let watched = WatchedRun {
        ranks: ranks.clone(),
        root: root.clone(),
        whereabouts: progress.whereabouts(),
        interrupt: interrupt.clone(),
        timeout: Duration::from_secs_f64(config.parallel.timeout_s),
    };
    let watch = Watch::start(watched, job)?;
    let done = on_backend(backend, dtype, Train { config, interrupt, ranks: ranks.clone(), progress })?;
    if matches!(done, Ok(_) | Err(TrainError::Interrupted)) {
        // Nobody leaves while another one may still write.
        ranks.barrier("end of the run")?;
    }
    drop(watch);
    let summary = done?;
    ranks.barrier("end of the watch")?;
    if is_first {
        if !ranks.is_solo() {
            clear(&root);
        }
        print(&(table(&summary) + &report(&summary.folder)))?;
    }
    Ok(())
}

/// Writes the run as one page. A run that is done stays done where that fails, which is said.
fn report(folder: &Path) -> String {
    let file = folder.join(rl::run_folder::layout::REPORT);
    match view::write_report(&[folder.to_path_buf()], &file) {
        Ok(_) => format!("report:     {}\n", file.display()),
        Err(reason) => format!("report:     none, as it could not be written: {reason}\n"),
    }
}

/// `--check-devices`: rank 0 says what was found.
#[cfg(feature = "cuda")]
fn check(ranks: &Ranks) -> Result<(), Failure> {
    let job = check_devices::CheckDevices { ranks: ranks.clone() };
    let (report, right) = on_backend(Backend::Cuda, Dtype::F32, job)?.map_err(Failure::other)?;
    if ranks.is_first() {
        print(&report)?;
    }
    match right {
        true => Ok(()),
        false => Err(Failure::other("the devices do not tell each other what they should")),
    }
}

#[cfg(not(feature = "cuda"))]
fn check(_: &Ranks) -> Result<(), Failure> {
    Err(Failure::input("--check-devices is for CUDA devices, and this program was built without --features cuda"))
}

/// What a person wants to see at the end: accuracy before and after by task, the visual ratio, and where everything is.
fn table(summary: &Summary) -> String {
    let mut out = String::new();
    let width =
        summary.after.keys().filter_map(|k| k.strip_prefix("val/accuracy/")).map(str::len).max().unwrap_or(0).max(22);
    let percent = |m: &rl::trainer::Metrics, key: &str| m.get(key).map_or("-".into(), |v| format!("{:.1}%", 100.0 * v));
    let number = |m: &rl::trainer::Metrics, key: &str| m.get(key).map_or("-".into(), |v| format!("{v:.3}"));
    if !summary.after.is_empty() {
        out += &format!("\n{:width$}  {:>10}  {:>9}\n", "held-out validation", "before RL", "after RL");
        let mut rows = vec![("accuracy, greedy".to_string(), "val/accuracy".to_string())];
        rows.extend(
            summary.after.keys().filter_map(|k| Some((format!("  {}", k.strip_prefix("val/accuracy/")?), k.clone()))),
        );
        if summary.after.contains_key("val/sampled_accuracy") {
            rows.push(("accuracy, sampled".into(), "val/sampled_accuracy".into()));
        }
        for (name, key) in rows {
            out += &format!(
                "{name:width$}  {:>10}  {:>9}\n",
                percent(&summary.before, &key),
                percent(&summary.after, &key)
            );
        }
        let key = "val/late_early_halves";
        out += &format!(
            "{:width$}  {:>10}  {:>9}\n",
            "visual late/early ratio",
            number(&summary.before, key),
            number(&summary.after, key)
        );
    }
    out += &format!("\n{} steps in {:.0} s", summary.steps, summary.seconds);
    if summary.set_aside > 0 {
        out += &format!(", {} rows set aside", summary.set_aside);
    }
    out += &format!("\nrun folder: {}\n", summary.folder.display());
    if let Some(checkpoint) = &summary.checkpoint {
        out += &format!("model:      {}\n", checkpoint.join(rl::run_folder::layout::MODEL).display());
    }
    out
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "train",
    about: "Train a model with reinforcement learning from verifiable rewards",
    main,
    command: <TrainArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    program_on_ranks(LOWERS, |args: TrainArgs, job| run(args, job).map(|()| ExitCode::SUCCESS))
}
