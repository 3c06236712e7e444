//! `bench`: what a training step costs, phase by phase, on random prompts of given sizes.
//!
//! `gemm` times the products alone.
//!
//! `step` does what the PyTorch peer of docs/performance.md does: the same prompt layout and lengths, every response
//! exactly as long as asked, old log-probs recomputed, one AdamW update over the whole batch.

mod gemm;
mod options;
mod row;
mod sweep;
mod work;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use burn::tensor::DType;
use clap::{Parser, Subcommand};
use model_qwen2vl::Kernels;

use crate::common::{Failure, OnBackend, on_backend, print};
use options::Shared;
pub(crate) use options::{preset, presets};
use row::BenchRow;
use sweep::Over;

/// Measure a training step.
#[derive(Parser)]
#[command(
    name = "bench",
    version,
    after_help = "Examples:
  bench step --preset small --json
  bench step --model DIR --image 672 --rollouts 16 --steps 5
  bench sweep --preset small response --values 64,128,256,512 --plot response
  bench sweep --preset toy model --values toy,small
  bench gemm --preset 7b --backend cuda

Exit codes: 0 done, 1 failed, 2 bad usage or input."
)]
struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare the products of a model with sums in f64, and time them; exit code 1 where one is wrong.
    Gemm(gemm::GemmArgs),
    /// Time whole steps: generate, old log-probs, update.
    Step {
        #[command(flatten)]
        shared: Shared,
        /// One JSON object per step instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Time steps while one size grows; a Markdown table, and a picture of it.
    Sweep {
        /// What grows.
        over: Over,
        /// Its values: numbers, or presets and folders for `model`.
        #[arg(long, value_delimiter = ',', required = true)]
        values: Vec<String>,
        /// Draw seconds and memory over the values (numbers only): FILE-seconds.svg and FILE-memory.svg.
        #[arg(long, value_name = "FILE")]
        plot: Option<PathBuf>,
        #[command(flatten)]
        shared: Shared,
    },
}

/// What needs less of the device's memory.
const LOWERS: &str = "--micro-batch, --prompts, --rollouts, --image or --response-tokens, or give --recompute always, \
    --moments-dtype bf16, --grads-dtype bf16 and --master-weights false";

struct BenchJob(Command);

impl OnBackend for BenchJob {
    type Output = Result<ExitCode, Failure>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        match self.0 {
            Command::Gemm(args) => gemm::GemmJob(args).run::<B>(device, dtype),
            Command::Step { json, shared } => {
                let mut bench = shared.bench::<B>(dtype, &device)?;
                if !json {
                    print(&format!("{}\n{}|\n", BenchRow::header(), "|---".repeat(BenchRow::COLUMNS)))?;
                }
                for step in 0..shared.steps {
                    let row = bench.step(&shared.sizes(), step as u64)?;
                    print(&format!("{}\n", if json { row.json().to_string() } else { row.line() }))?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Command::Sweep { over, values, plot, shared } => {
                sweep::sweep::<B>(&shared, over, &values, plot, dtype, &device).map(|()| ExitCode::SUCCESS)
            }
        }
    }
}

fn run(cli: BenchArgs) -> Result<ExitCode, Failure> {
    let (backend, dtype) = match &cli.command {
        Command::Gemm(args) => (args.backend, args.dtype),
        Command::Step { shared, .. } | Command::Sweep { shared, .. } => {
            shared.check()?;
            (shared.backend, shared.dtype)
        }
    };
    on_backend(backend, dtype, BenchJob(cli.command))?
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "bench",
    about: "Measure a training step",
    main,
    command: <BenchArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    crate::common::device_program(LOWERS, run)
}
