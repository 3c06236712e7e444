//! `estimate`: will a run fit, and how long will a step of it take?

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rl::config::resolve;

use crate::common::{Failure, print, program};
use crate::forecast::{ForecastOptions, PlannedRun};
use crate::train::sources;

/// The numbers of ranks that are set side by side where none is given.
const RANKS: [usize; 6] = [1, 2, 4, 8, 16, 32];

/// Say what a run will ask of its devices, before it starts: memory, the time of a step part by part, hours.
///
/// No weights are loaded, no device is needed, and no file stays. `train --dry-run` says the same under the
/// configuration.
#[derive(Parser)]
#[command(
    name = "estimate",
    version,
    after_help = "Examples:
  estimate --config configs/qwen2_5_vl_7b.toml algorithm.name=vgpo --ranks 8 --card a100
  estimate --config mine.toml --worst-first --response-tokens 600       with the rows as they are
  bench step --preset small --json > figures.jsonl
  estimate --figures figures.jsonl --worst-first --response-tokens 12   the toy world on this machine

Exit codes: 0 done, 1 failed, 2 bad usage or input."
)]
struct EstimateArgs {
    /// Configuration files, composed left to right, as `train` takes them. Default: the embedded configs/toy.toml.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Settings that come last, as `train` takes them.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Look at the rows of the data: name the worst, and count with them. Same as data.worst_first=true.
    #[arg(long)]
    worst_first: bool,
    #[command(flatten)]
    forecast: ForecastOptions,
}

fn run(args: EstimateArgs) -> Result<ExitCode, Failure> {
    let (files, mut overrides) = sources(&args.config, &args.overrides)?;
    overrides.extend(args.worst_first.then(|| "data.worst_first=true".to_string()));
    let config = resolve(&files, &overrides)?;
    launch::check_model_names(&config)?;
    let planned = PlannedRun::new(&config, &args.forecast).map_err(Failure::input)?;
    let ranks = args.forecast.ranks;
    let mut text = planned.forecast(ranks.unwrap_or(1))?.text();
    if ranks.is_none() {
        text += &planned.by_ranks(&RANKS)?;
    }
    // Not under a configuration, lines need not be comments.
    let plain = |line: &str| line.strip_prefix("# ").or(line.strip_prefix('#')).unwrap_or(line).to_string() + "\n";
    print(&text.lines().map(plain).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "estimate",
    about: "Say whether a run will fit, and how long a step of it will take",
    main,
    command: <EstimateArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    program(run)
}
