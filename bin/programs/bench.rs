//! `bench`: what a training step costs, phase by phase, on random prompts of given sizes.
//!
//! `gemm` times the products alone.
//!
//! `step` does what the PyTorch peer of docs/performance.md does: the same prompt layout and lengths, every response
//! exactly as long as asked, old log-probs recomputed, one AdamW update over the whole batch.

mod gemm;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::common::{Failure, OnBackend, on_backend, parse_backend, parse_dtype, print, ranges, within};
use burn::tensor::DType;
use clap::{Args, Parser, Subcommand};
use launch::ModelFolder;
use model_qwen2vl::config::FAMILIES;
use model_qwen2vl::{Kernels, QwenVl, QwenVlConfig};
use report::svg::axis::Axis;
use report::svg::chart::{Chart, Mark, Series};
use rl::config::{GradsDtype, MomentsDtype, OldLogProbs, Optim};
use rl::learn::optimizer::check_formats;
use workload::{Bench, BenchRow, Sizes};

/// Measure a training step.
#[derive(Parser)]
#[command(
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
        /// What grows: words of the prompt, tokens of a response, responses per prompt, side of the picture, or the
        /// model.
        #[arg(value_parser = ["prompt", "response", "rollouts", "image", "model"])]
        over: String,
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

#[derive(Args, Clone)]
struct Shared {
    /// Model folder in the Hugging Face layout, the run folder of `train` or a checkpoint of it.
    #[arg(long, value_name = "DIR", required_unless_present = "preset", conflicts_with = "preset")]
    model: Option<PathBuf>,
    /// Random weights of a built-in size: toy, small, 3b, 7b, 32b, qwen2vl-2b, qwen3vl-8b, ...
    #[arg(long)]
    preset: Option<String>,
    /// Prompts a step.
    #[arg(long, default_value_t = 2, value_parser = within::<usize>(ranges::RESPONSES))]
    prompts: usize,
    /// Responses a prompt.
    #[arg(long, default_value_t = 8, value_parser = within::<usize>(ranges::RESPONSES))]
    rollouts: usize,
    /// Side of the picture in pixels; 0 leaves it out.
    #[arg(long, default_value_t = 336, value_parser = within::<usize>(0..=1 << 14))]
    image: usize,
    /// Words of the prompt around the picture.
    #[arg(long, default_value_t = 48, value_parser = within::<usize>(ranges::TOKENS))]
    text_tokens: usize,
    /// Length of every response.
    #[arg(long, default_value_t = 96, value_parser = within::<usize>(ranges::TOKENS))]
    response_tokens: usize,
    /// Responses in one forward and backward pass, their prompts not counted. Default: as many as train takes.
    #[arg(long, value_name = "K", value_parser = within::<usize>(ranges::RESPONSES))]
    micro_batch: Option<usize>,
    /// Steps to time.
    #[arg(long, default_value_t = 3, value_parser = within::<usize>(0..=1 << 20))]
    steps: usize,
    /// Root of the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// vgpo, dapo or grpo.
    #[arg(long, default_value = "dapo", value_parser = ["vgpo", "dapo", "grpo"])]
    algorithm: String,
    /// Log-probs of the sampling policy: recompute (as the peer does) or rollout.
    #[arg(long, default_value = "recompute", value_parser = ["recompute", "rollout"])]
    old_log_probs: String,
    /// Number format of the optimizer's moments: f32 or bf16 (as PyTorch keeps them for a bf16 model).
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    moments_dtype: String,
    /// Number format that gradients are kept in: f32 or bf16 (as PyTorch keeps them for a bf16 model).
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    grads_dtype: String,
    /// Keep f32 weights beside a bf16 model: true or false (as in PyTorch's AdamW over bf16 weights).
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    master_weights: bool,
    /// Read a number in each optimizer step that shows lost work: true or false (for a stand-in of a driver, which
    /// computes nothing; docs/gpu.md).
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    check_device: bool,
    /// Compute each layer again in its backward: auto, always or never.
    #[arg(long, default_value = "auto", value_parser = ["auto", "always", "never"])]
    recompute: String,
    /// auto, flex, ndarray, wgpu, vulkan or cuda, among what was compiled in.
    #[arg(long, value_name = "B", default_value = "auto", value_parser = parse_backend)]
    backend: rl::config::Backend,
    /// auto, f32 or bf16.
    #[arg(long, value_name = "D", default_value = "auto", value_parser = parse_dtype)]
    dtype: rl::config::Dtype,
}

/// Tokens of a step, responses included: several times the largest published runs', and far below what overflows.
const MOST_TOKENS: usize = 1 << 26;

/// A built-in size.
fn preset(name: &str) -> Result<QwenVlConfig, Failure> {
    QwenVlConfig::preset(name).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().flat_map(|family| family.presets).copied().collect();
        Failure::input(format!("there is no preset {name:?}; there are {}", known.join(", ")))
    })
}

impl Shared {
    fn sizes(&self) -> Sizes {
        Sizes {
            prompts: self.prompts,
            rollouts: self.rollouts,
            image: self.image,
            text_tokens: self.text_tokens,
            response_tokens: self.response_tokens,
            micro_batch: self.micro_batch,
        }
    }

    fn check(&self) -> Result<(), Failure> {
        for (name, value) in [
            ("--prompts", self.prompts),
            ("--rollouts", self.rollouts),
            ("--response-tokens", self.response_tokens),
            ("--steps", self.steps),
            ("--micro-batch", self.micro_batch.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Failure::input(format!("{name} is 0; give 1 or more")));
            }
        }
        if self.text_tokens == 0 && self.image == 0 {
            return Err(Failure::input("a prompt without a picture needs words: --text-tokens 1 or more"));
        }
        if self.image > 0 && self.image < 28 {
            return Err(Failure::input(format!(
                "--image {} is less than one merged patch of 28 pixels; give 28 or more, or 0 for none",
                self.image
            )));
        }
        let side = self.image / 28;
        let prompt = side.saturating_mul(side).saturating_add(self.text_tokens);
        let responses = self.rollouts.saturating_mul(self.response_tokens);
        let tokens = prompt.saturating_add(responses).saturating_mul(self.prompts);
        if tokens > MOST_TOKENS {
            return Err(Failure::input(format!(
                "{} prompts of {prompt} tokens with {} responses of {} each are more than the {MOST_TOKENS} tokens that a \
                 step may have; lower --prompts, --rollouts, --image, --text-tokens or --response-tokens",
                self.prompts, self.rollouts, self.response_tokens
            )));
        }
        if self.algorithm == "vgpo" && self.rollouts < 2 {
            return Err(Failure::input("vgpo compares the responses of a group: --rollouts 2 or more"));
        }
        Ok(())
    }

    fn model<B: Kernels>(&self, dtype: DType, device: &B::Device) -> Result<QwenVl<B>, Failure> {
        if let Some(dir) = &self.model {
            return Ok(ModelFolder::open(dir)?.load(dtype, device)?);
        }
        let config = preset(self.preset.as_deref().unwrap_or_default())?;
        Ok(QwenVl::random(config, self.seed, dtype, device))
    }
}

impl Shared {
    /// The model and the settings of its steps.
    fn bench<B: Kernels>(&self, dtype: DType, device: &B::Device) -> Result<Bench<B>, Failure> {
        let optim = Optim {
            lr: 1e-6,
            moments_dtype: if self.moments_dtype == "bf16" { MomentsDtype::Bf16 } else { MomentsDtype::F32 },
            grads_dtype: if self.grads_dtype == "bf16" { GradsDtype::Bf16 } else { GradsDtype::F32 },
            master_weights: self.master_weights,
            ..Optim::default()
        };
        check_formats::<B>(&optim, device)?;
        let folder = self.model.as_deref().map(ModelFolder::open).transpose()?;
        let folder = folder.as_ref().map(ModelFolder::path);
        let mut bench = Bench::<B>::new(self.model(dtype, device)?, folder, self.seed, optim)?;
        bench.config.algorithm.shaping = if self.algorithm == "vgpo" { "vgpo" } else { "none" }.to_string();
        bench.config.actor.clip_ratio_high = if self.algorithm == "grpo" { 0.2 } else { 0.28 };
        bench.config.actor.old_log_probs =
            if self.old_log_probs == "rollout" { OldLogProbs::Rollout } else { OldLogProbs::Recompute };
        bench.check_device(self.check_device);
        bench.recompute = match self.recompute.as_str() {
            "always" => Some(true),
            "never" => Some(false),
            _ => None,
        };
        Ok(bench)
    }
}

struct BenchJob(Command);

impl OnBackend for BenchJob {
    type Output = Result<ExitCode, Failure>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        match self.0 {
            Command::Gemm(args) => gemm::GemmJob(args).run::<B>(device, dtype),
            Command::Step { shared, json } => {
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
                sweep::<B>(&shared, &over, &values, plot, dtype, &device).map(|()| ExitCode::SUCCESS)
            }
        }
    }
}

/// Medians of the steps at each value; one value after the other, so that the highest memory is that value's own.
fn sweep<B: Kernels>(
    shared: &Shared,
    over: &str,
    values: &[String],
    plot: Option<PathBuf>,
    dtype: DType,
    device: &B::Device,
) -> Result<(), Failure> {
    let number = |value: &String| {
        value
            .parse::<usize>()
            .ok()
            .filter(|v| *v > 0 || matches!(over, "image" | "prompt"))
            .ok_or_else(|| Failure::input(format!("--values {value:?}: {over} takes whole numbers of 1 or more")))
    };
    let of_model = over == "model";
    if of_model && plot.is_some() {
        return Err(Failure::input("--plot needs numbers on its axis; models have none"));
    }
    if !of_model {
        values.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    }
    print(&format!("| {over} {}\n|---{}|\n", BenchRow::header(), "|---".repeat(BenchRow::COLUMNS)))?;
    let mut points = Vec::new();
    let mut bench = None;
    for value in values {
        let mut shared = shared.clone();
        if of_model {
            let folder = PathBuf::from(value);
            (shared.model, shared.preset) = match folder.is_dir() {
                true => (Some(folder), None),
                false => (None, Some(value.clone())),
            };
            bench = None;
        } else {
            let value = number(value)?;
            match over {
                "prompt" => shared.text_tokens = value,
                "response" => shared.response_tokens = value,
                "image" => shared.image = value,
                _ => shared.rollouts = value,
            }
        }
        shared.check()?;
        workload::reset_peak();
        let bench = match &mut bench {
            Some(bench) => bench,
            none => none.insert(shared.bench::<B>(dtype, device)?),
        };
        let sizes = shared.sizes();
        let rows = (0..shared.steps).map(|s| bench.step(&sizes, s as u64)).collect::<Result<Vec<_>, _>>()?;
        let row = BenchRow::median(rows);
        print(&format!("| {value} {}\n", row.line()))?;
        points.push((value.parse().unwrap_or(0.0), row));
    }
    match plot {
        Some(file) => draw(over, &points, &file),
        None => Ok(()),
    }
}

/// Seconds by phase and the highest memory over the values, as two pictures.
fn draw(over: &str, points: &[(f64, BenchRow)], file: &std::path::Path) -> Result<(), Failure> {
    let series = |name: &str, value: &dyn Fn(&BenchRow) -> f64| Series {
        name: name.into(),
        points: points.iter().map(|(x, row)| (*x, value(row))).collect(),
        mark: Mark::Line { half: vec![] },
    };
    let label = match over {
        "prompt" => "words of the prompt",
        "response" => "tokens of a response",
        "image" => "side of the picture, pixels",
        _ => "responses a prompt",
    };
    let chart = |title: &str, y: &str, series: Vec<Series>| Chart {
        title: title.into(),
        note: String::new(),
        x: Axis::new(label),
        y: Axis::new(y),
        series,
    };
    let seconds = chart(
        "Seconds of a training step",
        "seconds",
        vec![
            series("total", &|r| r.phases().total),
            series("update", &|r| r.phases().update),
            series("generate", &|r| r.phases().generate),
            series("old log-probs", &|r| r.phases().old_log_probs),
        ],
    );
    let memory =
        chart("Highest resident memory", "GiB", vec![series("peak", &|r| r.phases().peak_gib.unwrap_or(f64::NAN))]);
    for (name, chart) in [("seconds", seconds), ("memory", memory)] {
        let path =
            file.with_file_name(format!("{}-{name}.svg", file.file_stem().unwrap_or_default().to_string_lossy()));
        std::fs::write(&path, chart.draw()).map_err(|e| Failure::other(format!("{}: {e}", path.display())))?;
    }
    Ok(())
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

/// The program.
pub fn main() -> ExitCode {
    crate::common::program(|args: BenchArgs| run(args))
}
