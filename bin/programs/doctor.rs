//! `doctor`: whether a run will run: what stands around the device, and whether it computes what it should: its
//! products, its operations and whole steps beside the CPU's, at the widths of a model, and whether its failures are
//! noticed.

mod children;
mod lines;
mod surroundings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use self::lines::{FindingLines, configuration};
use crate::common::ranks::choose_card;
use crate::common::{Failure, OnBackend, choice, on_backend, print, program_on_ranks};
use burn::tensor::DType;
use clap::Parser;
use comm::{Fault, MpiJob, Ranks};
use doctor::{Examined, Finding, Verdict, examine, examine_briefly};
use launch::{ModelFolder, configured};
use model_qwen2vl::{Kernels, QwenVlConfig};
use plan::{MemoryPlan, ModelShapes, RankGrid, ZeroStage};
use rl::config::{Backend, Config, Dtype, Source, resolve};

/// Longest that several ranks may take together.
const RANKS_LIMIT: Duration = Duration::from_secs(900);

/// Check a machine before a long run: processors, memory, disks, driver, NVRTC, NCCL, MPI, ports, the hub; and what its
/// device computes: products, operations, two layers of the model, decoding, memory, speed, and that failures end a
/// program.
///
/// One line a check: ok, warn or ERROR (with what to do in the next line), WRONG (of the device, with what to do),
/// slow, or - where there is nothing to check. Under mpirun every rank checks its own. `train` runs the short form by
/// itself on a GPU (trainer.check_device).
#[derive(Parser)]
#[command(
    name = "doctor",
    version,
    after_help = "Examples:
  doctor                                                   the toy model's widths
  mpirun -np 8 doctor --preset 7b                          every rank's card, and whether the ranks reach each other
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
    /// What `train` looks at before a run, and nothing around the device: seconds.
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
struct DoctorJob<'a> {
    architecture: QwenVlConfig,
    run: Option<Config>,
    backend: Backend,
    short: bool,
    lines: &'a mut FindingLines,
}

impl OnBackend for DoctorJob<'_> {
    type Output = Result<Vec<Finding>, Failure>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        let lines = self.lines;
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
        Ok(findings)
    }
}

/// What the run will hold on this device, if it is alone.
fn planned<B: Kernels>(run: &Config, examined: &Examined<B>) -> Result<MemoryPlan, Failure> {
    let shapes = ModelShapes::of_run(run, &examined.config, examined.dtype)?;
    let free = B::free_memory(&examined.device).unwrap_or(0) as usize;
    Ok(MemoryPlan::new(run, &shapes, RankGrid::ALONE, ZeroStage::Off, free)?)
}

/// Ends all ranks where one does not answer: a rank may hang in its driver, and the others wait for it.
fn watch(job: &Arc<MpiJob>) {
    let job = job.clone();
    std::thread::spawn(move || {
        std::thread::sleep(RANKS_LIMIT);
        let text = format!("not all ranks have answered in {} s; run `doctor` on each machine", RANKS_LIMIT.as_secs());
        job.end(Fault { code: 75, text, of_rank: false });
    });
}

/// Of all ranks: what is bad elsewhere is said here, and how many findings are bad and how many are warnings.
fn of_all_ranks(ranks: &Ranks, findings: &[Finding]) -> Result<[usize; 3], Failure> {
    let bad: Vec<String> = findings.iter().filter(|f| f.verdict.is_bad()).map(Finding::line).collect();
    let warnings = findings.iter().filter(|finding| finding.verdict == Verdict::Warning).count();
    let all = ranks.gather("findings", &(bad, warnings, findings.len()))?;
    for (rank, (lines, ..)) in all.iter().enumerate().filter(|(rank, _)| ranks.is_first() && *rank > 0) {
        for line in lines {
            eprintln!("rank {rank}: {}", guard::printable(line));
        }
    }
    let sum = |of: fn(&(Vec<String>, usize, usize)) -> usize| all.iter().map(of).sum();
    Ok([sum(|(bad, ..)| bad.len()), sum(|(_, warnings, _)| *warnings), sum(|(.., count)| *count)])
}

fn run(args: DoctorArgs, job: Option<Arc<MpiJob>>) -> Result<ExitCode, Failure> {
    let run = args.run()?;
    let backend = args.backend.or(run.as_ref().map(|run| run.trainer.backend)).unwrap_or(Backend::Auto);
    let dtype = args.dtype.or(run.as_ref().map(|run| run.trainer.dtype)).unwrap_or(Dtype::Auto);
    if let Some(child) = args.child {
        return on_backend(backend, dtype, children::ChildJob { child, bytes: args.bytes })?;
    }
    let ranks = job.as_ref().map_or_else(Ranks::solo, |job| job.ranks(false));
    job.iter().for_each(watch);
    let architecture = args.architecture(run.as_ref())?;
    let mut lines = FindingLines::new(args.json, ranks.is_first());
    choose_card(&ranks, backend)?;
    let mut findings = Vec::new();
    if !args.short {
        let asked = surroundings::RunNeeds::of(run.as_ref(), &architecture)?;
        let of = (job.as_deref(), &ranks);
        findings.extend(surroundings::examine(&asked, of, |finding| lines.say(finding))?);
    }
    let on_device = DoctorJob { architecture, run, backend, short: args.short, lines: &mut lines };
    findings.extend(on_backend(backend, dtype, on_device)??);
    if let Some(failure) = lines.failed {
        return Err(failure);
    }
    let [bad, warnings, count] = of_all_ranks(&ranks, &findings)?;
    if !args.json && ranks.is_first() {
        let warned = match warnings {
            0 => String::new(),
            1 => ", with 1 warning".into(),
            many => format!(", with {many} warnings"),
        };
        print(&match bad {
            0 => format!("all of {count} checks are well{warned}\n"),
            bad => format!("{bad} of {count} checks found something WRONG or missing{warned}\n"),
        })?;
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "doctor",
    about: "Check a machine, and that its device computes what it should",
    main,
    command: <DoctorArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    program_on_ranks(crate::train::LOWERS, run)
}
