//! `doctor`: whether a device computes what it should: its products, its operations and whole steps beside the CPU's,
//! at the widths of a model, and whether a failure of the device is noticed.

mod children;
mod lines;

use std::path::PathBuf;
use std::process::ExitCode;

use self::lines::{FindingLines, configuration};
use crate::common::{Failure, OnBackend, choice, on_backend, print};
use burn::tensor::DType;
use clap::Parser;
use doctor::{Examined, Verdict, examine, examine_briefly};
use launch::{ModelFolder, configured};
use model_qwen2vl::{Kernels, QwenVlConfig};
use plan::{MemoryPlan, ModelShapes, RankGrid, ZeroStage};
use rl::config::{Backend, Config, Dtype, Source, resolve};

/// Check a device before a long run: products, operations, two layers of the model, decoding, memory, speed, and that
/// failures end a program.
///
/// One line a check: ok, WRONG (with what to do), slow, or - where it means nothing on this backend. `train` runs the
/// short form by itself on a GPU (trainer.check_device).
#[derive(Parser)]
#[command(
    name = "doctor",
    version,
    after_help = "Examples:
  doctor                                                   the toy model's widths
  doctor --config configs/qwen2_5_vl_7b.toml model.path=DIR    those of a run, and its memory
  doctor --preset 7b --backend cuda --json
  doctor --model DIR --short

Exit codes: 0 all is well, 1 something is wrong, 2 bad usage or input."
)]
struct DoctorArgs {
    /// Configuration files of a run (TOML), composed left to right: its model, number formats and memory.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "preset"])]
    config: Vec<PathBuf>,
    /// Settings that come last, with --config.
    #[arg(value_name = "KEY=VALUE", requires = "config")]
    overrides: Vec<String>,
    /// Model folder in the Hugging Face layout, the run folder of `train` or a checkpoint of it; no weights are read.
    #[arg(long, value_name = "DIR", conflicts_with = "preset")]
    model: Option<PathBuf>,
    /// A built-in size.
    #[arg(long, value_name = "SIZE", default_value = "toy", value_parser = crate::bench::presets())]
    preset: String,
    /// Device library, among what was compiled in. Default: the run's, or auto.
    #[arg(long, value_name = "B", value_parser = choice::<Backend>())]
    backend: Option<Backend>,
    /// Number format of weights and activations. Default: the run's, or auto.
    #[arg(long, value_name = "D", value_parser = choice::<Dtype>())]
    dtype: Option<Dtype>,
    /// What `train` looks at before a run: seconds.
    #[arg(long)]
    short: bool,
    /// One JSON object a check instead of a line.
    #[arg(long)]
    json: bool,
    /// A process of its own that has to fail, or to succeed; started by the long form.
    #[arg(long, hide = true, value_enum)]
    child: Option<children::Child>,
    /// Bytes of memory that the child takes.
    #[arg(long, hide = true, default_value_t = 0)]
    bytes: usize,
}

impl DoctorArgs {
    /// The run that is to be checked, if it was named.
    fn run(&self) -> Result<Option<Config>, Failure> {
        if self.config.is_empty() {
            return Ok(None);
        }
        let sources = self.config.iter().map(|path| Source::read(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(resolve(&sources, &self.overrides)?))
    }

    fn architecture(&self, run: Option<&Config>) -> Result<QwenVlConfig, Failure> {
        if let Some(run) = run {
            return Ok(configured(run)?);
        }
        if let Some(dir) = &self.model {
            return Ok(ModelFolder::open(dir)?.config()?.clone());
        }
        crate::bench::preset(&self.preset)
    }
}

/// The checks on whichever backend was chosen.
struct DoctorJob {
    architecture: QwenVlConfig,
    run: Option<Config>,
    backend: Backend,
    short: bool,
    json: bool,
}

impl OnBackend for DoctorJob {
    type Output = Result<ExitCode, Failure>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        let mut lines = FindingLines::new(self.json);
        let examined = Examined::<B> { config: self.architecture, dtype, device };
        let mut findings = vec![configuration(&examined)];
        findings.iter().for_each(|finding| lines.say(finding));
        if self.short {
            findings.extend(examine_briefly(&examined, |finding| lines.say(finding)));
        } else {
            let plan = self.run.as_ref().map(|run| planned(run, &examined)).transpose()?;
            for finding in children::all(&examined, self.backend, plan) {
                lines.say(&finding);
                findings.push(finding);
            }
            findings.extend(examine(&examined, |finding| lines.say(finding)));
        }
        if let Some(failure) = lines.failed {
            return Err(failure);
        }
        let wrong = findings.iter().filter(|finding| finding.verdict == Verdict::Wrong).count();
        if !self.json {
            print(&match wrong {
                0 => format!("all of {} checks are well\n", findings.len()),
                wrong => format!("{wrong} of {} checks found something WRONG\n", findings.len()),
            })?;
        }
        Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What the run will hold on this device, if it is alone.
fn planned<B: Kernels>(run: &Config, examined: &Examined<B>) -> Result<MemoryPlan, Failure> {
    let shapes = ModelShapes::of_run(run, &examined.config, examined.dtype)?;
    let free = B::free_memory(&examined.device).unwrap_or(0) as usize;
    Ok(MemoryPlan::new(run, &shapes, RankGrid::ALONE, ZeroStage::Off, free)?)
}

fn run(args: DoctorArgs) -> Result<ExitCode, Failure> {
    let run = args.run()?;
    let backend = args.backend.or(run.as_ref().map(|run| run.trainer.backend)).unwrap_or(Backend::Auto);
    let dtype = args.dtype.or(run.as_ref().map(|run| run.trainer.dtype)).unwrap_or(Dtype::Auto);
    if let Some(child) = args.child {
        return on_backend(backend, dtype, children::ChildJob { child, bytes: args.bytes })?;
    }
    let architecture = args.architecture(run.as_ref())?;
    on_backend(backend, dtype, DoctorJob { architecture, run, backend, short: args.short, json: args.json })?
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "doctor",
    about: "Check that a device computes what it should",
    main,
    command: <DoctorArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    crate::common::device_program(crate::train::LOWERS, run)
}
