//! `analyze`: the pilot study of visual forgetting on a model folder and a data set, for one model or two.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use analysis::pilot::{Pilot, PilotSession, Subject};
use burn::tensor::DType;
use clap::Parser;
use comm::{MpiJob, Ranks};
use model_qwen2vl::Kernels;
use rl::TrainError;
use rl::config::{Backend, Dtype};
use rl::sampler::Sampling;

use crate::common::ranks::{choose_card, share_folder};
use crate::common::{
    Failure, OnBackend, check_temperature, choice, interrupt_flag, on_backend, program_on_ranks, ranges, within,
    write_out,
};

/// Where do generated tokens look, and what does it say about their answer? Attention and visual focus by step, late
/// against early, correct against incorrect responses, for one model or two.
///
/// Writes analysis.json, responses.jsonl, plots (SVG) and heat maps over the pictures (PNG) into the output folder.
#[derive(Parser)]
#[command(
    name = "analyze",
    version,
    after_help = "Examples:
  analyze --model DIR --data toy:sum?split=test --out out data.format_prompt=none
  analyze --model Qwen2.5-VL-3B-Instruct --compare runs/vgpo_3b --data MMK12.parquet --limit 200 --out out
  analyze --model DIR --data rows.jsonl --samples 8 --temperature 1 --out out data.answer_key=ground_truth reward.reward_type=math

Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted."
)]
struct AnalyzeArgs {
    /// Model folder in the Hugging Face layout, the run folder of train (its newest checkpoint), or a checkpoint. A
    /// run's model is asked as it was trained: with the run's pixels, format prompt, system message, columns and
    /// grader, unless settings say otherwise.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A second model, after training, named in the same ways: everything is measured for both, and compared.
    #[arg(long, value_name = "DIR")]
    compare: Option<PathBuf>,
    /// Parquet, JSONL, a folder, a glob, or toy:NAME?key=value, as data.val_files of train.
    #[arg(long, value_name = "FILE")]
    data: String,
    /// Output folder; it must be empty or not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Responses a prompt.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<usize>(ranges::RESPONSES))]
    samples: usize,
    /// Only the first so many rows; 0: all.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = within::<usize>(ranges::ROWS))]
    limit: usize,
    /// 0 takes the likeliest token, always.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Length limit of a response.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = within::<usize>(ranges::TOKENS))]
    max_new_tokens: usize,
    /// Root of the random numbers.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Heat maps: the first so many responses to prompts with pictures.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = within::<usize>(ranges::ROWS))]
    maps: usize,
    /// Responses decoded at the same time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within::<usize>(ranges::RESPONSES))]
    max_batch_rows: usize,
    /// Device library, among what was compiled in.
    #[arg(long, value_name = "B", default_value = "auto", value_parser = choice::<Backend>())]
    backend: Backend,
    /// Number format of weights and activations.
    #[arg(long, value_name = "D", default_value = "auto", value_parser = choice::<Dtype>())]
    dtype: Dtype,
    /// Settings of how rows are read and graded, as of train: data.prompt_key, data.format_prompt, data.max_pixels,
    /// reward.reward_type and so on.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

impl AnalyzeArgs {
    fn check(&self) -> Result<(), Failure> {
        for (value, option) in [
            (self.samples, "--samples"),
            (self.max_new_tokens, "--max-new-tokens"),
            (self.max_batch_rows, "--max-batch-rows"),
        ] {
            if value == 0 {
                return Err(Failure::input(format!("{option} is 0; at least 1 is needed")));
            }
        }
        check_temperature(self.temperature)?;
        if self.samples > 1 && self.temperature == 0.0 {
            return Err(Failure::input(
                "--samples above 1 needs --temperature above 0: greedy responses to one prompt are all the same",
            ));
        }
        if std::fs::read_dir(&self.out).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::input(format!("--out {} is not empty; name a new folder", self.out.display())));
        }
        Ok(())
    }
}

struct Analyze {
    session: PilotSession,
    interrupt: Arc<AtomicBool>,
}

impl OnBackend for Analyze {
    type Output = Result<(), TrainError>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        let mut tell = |text: String| Ok(write_out(&text)?);
        self.session.run::<B>(&device, dtype, &self.interrupt, &mut |line| eprintln!("{line}"), &mut tell)
    }
}

fn run(args: AnalyzeArgs, job: Option<Arc<MpiJob>>) -> Result<(), Failure> {
    args.check()?;
    let ranks = job.map_or(Ranks::solo(), |job| job.ranks(false));
    let models = std::iter::once(&args.model).chain(&args.compare);
    let subjects = models.map(|path| Subject::open(path, &args.data, &args.overrides)).collect::<Result<_, _>>()?;
    let pilot = Pilot {
        samples: args.samples,
        limit: args.limit,
        sampling: Sampling { temperature: args.temperature, top_p: 1.0, seed: args.seed },
        max_new_tokens: args.max_new_tokens,
        max_batch_rows: args.max_batch_rows,
        maps: args.maps,
    };
    // All have found it empty before one writes to it.
    ranks.barrier("before the output folder is made")?;
    share_folder(&ranks, &args.out, "--out")?;
    choose_card(&ranks, args.backend)?;
    let session = PilotSession { pilot, data: args.data, out: args.out, subjects, ranks };
    Ok(on_backend(args.backend, args.dtype, Analyze { session, interrupt: interrupt_flag(None)? })??)
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "analyze",
    about: "Find out where generated tokens look, and what it says about their answer",
    main,
    command: <AnalyzeArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    let lowers = "--max-batch-rows, --max-new-tokens or data.max_pixels";
    program_on_ranks(lowers, |args: AnalyzeArgs, job| run(args, job).map(|()| ExitCode::SUCCESS))
}
