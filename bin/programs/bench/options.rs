//! The options of `bench`, and what they are set up to.

use std::path::PathBuf;

use burn::tensor::DType;
use clap::Args;
use clap::builder::PossibleValuesParser;
use launch::ModelFolder;
use model_qwen2vl::config::FAMILIES;
use model_qwen2vl::{Kernels, QwenVl, QwenVlConfig};
use rl::config::{Backend, Dtype, GradsDtype, MomentsDtype, OldLogProbs, Optim, Recompute};
use rl::learn::optimizer::check_formats;

use super::workload::{Bench, Sizes, copied_bytes, matmul_flops, reset_peak};
use crate::common::{Failure, above_zero, choice, ranges, within};

/// The model, the sizes of a step, its settings.
#[derive(Args, Clone)]
pub(super) struct Shared {
    /// Model folder in the Hugging Face layout, the run folder of `train` or a checkpoint of it.
    #[arg(long, value_name = "DIR", required_unless_present = "preset", conflicts_with = "preset")]
    pub model: Option<PathBuf>,
    /// Random weights of a built-in size.
    #[arg(long, value_name = "SIZE", value_parser = presets())]
    pub preset: Option<String>,
    /// Who draws a preset's weights.
    #[arg(long, value_name = "WHO", value_enum, default_value_t = WeightsFrom::Host, conflicts_with = "model")]
    weights: WeightsFrom,
    /// Peak of the device in TFLOP/s, of which shares are reported, instead of a measured matmul: a data sheet's
    /// number, or any where nothing is computed (docs/gpu.md).
    #[arg(long, value_name = "X", value_parser = above_zero)]
    peak_tflops: Option<f64>,
    /// Prompts a step.
    #[arg(long, default_value_t = 2, value_parser = within::<usize>(ranges::RESPONSES))]
    prompts: usize,
    /// Responses a prompt.
    #[arg(long, default_value_t = 8, value_parser = within::<usize>(ranges::RESPONSES))]
    pub rollouts: usize,
    /// Side of the picture in pixels; 0 leaves it out.
    #[arg(long, default_value_t = 336, value_parser = within::<usize>(0..=1 << 14))]
    pub image: usize,
    /// Words of the prompt around the picture.
    #[arg(long, default_value_t = 48, value_parser = within::<usize>(ranges::TOKENS))]
    pub text_tokens: usize,
    /// Length of every response.
    #[arg(long, default_value_t = 96, value_parser = within::<usize>(ranges::TOKENS))]
    pub response_tokens: usize,
    /// Responses in one forward and backward pass, their prompts not counted. Default: as many as train takes.
    #[arg(long, value_name = "K", value_parser = within::<usize>(ranges::RESPONSES))]
    micro_batch: Option<usize>,
    /// Steps to time.
    #[arg(long, default_value_t = 3, value_parser = within::<usize>(0..=1 << 20))]
    pub steps: usize,
    /// Root of the random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What is learned by.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = BenchAlgorithm::Dapo)]
    algorithm: BenchAlgorithm,
    /// Log-probs of the sampling policy (the peer recomputes them).
    #[arg(long, value_name = "FROM", default_value = "recompute", value_parser = choice::<OldLogProbs>())]
    old_log_probs: OldLogProbs,
    /// Number format of the optimizer's moments (PyTorch keeps them in bf16 for a bf16 model).
    #[arg(long, value_name = "D", default_value = "f32", value_parser = choice::<MomentsDtype>())]
    moments_dtype: MomentsDtype,
    /// Number format that gradients are kept in (PyTorch keeps them in bf16 for a bf16 model).
    #[arg(long, value_name = "D", default_value = "f32", value_parser = choice::<GradsDtype>())]
    grads_dtype: GradsDtype,
    /// Keep f32 weights beside a bf16 model: true or false (as in PyTorch's AdamW over bf16 weights).
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    master_weights: bool,
    /// Read a number in each optimizer step that shows lost work: true or false (for a stand-in of a driver, which
    /// computes nothing; docs/gpu.md).
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    check_device: bool,
    /// Compute each layer again in its backward.
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = choice::<Recompute>())]
    recompute: Recompute,
    /// Device library, among what was compiled in.
    #[arg(long, value_name = "B", default_value = "auto", value_parser = choice::<Backend>())]
    pub backend: Backend,
    /// Number format of weights and activations.
    #[arg(long, value_name = "D", default_value = "auto", value_parser = choice::<Dtype>())]
    pub dtype: Dtype,
}

/// Who draws the weights of a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum WeightsFrom {
    /// The same for every backend; minutes and a copy of the model in the memory of the host for 7b.
    Host,
    /// The device itself, in moments: for sizes that are to be timed or counted.
    Fill,
}

/// What a measured step learns by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BenchAlgorithm {
    Vgpo,
    Dapo,
    Grpo,
}

/// Tokens of a step, responses included: several times the largest published runs', and far below what overflows.
const MOST_TOKENS: usize = 1 << 26;

/// A built-in size.
///
/// # Errors
/// A name that is none, with those that are.
pub(crate) fn preset(name: &str) -> Result<QwenVlConfig, Failure> {
    QwenVlConfig::preset(name).ok_or_else(|| {
        let known: Vec<&str> = preset_names().collect();
        Failure::input(format!("there is no preset {name:?}; there are {}", known.join(", ")))
    })
}

/// The parser of the name of a built-in size.
pub(crate) fn presets() -> PossibleValuesParser {
    PossibleValuesParser::new(preset_names())
}

fn preset_names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.presets).copied()
}

impl Shared {
    /// The sizes of a step.
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            prompts: self.prompts,
            rollouts: self.rollouts,
            image: self.image,
            text_tokens: self.text_tokens,
            response_tokens: self.response_tokens,
            micro_batch: self.micro_batch,
        }
    }

    /// Refuses sizes that no step can have.
    ///
    /// # Errors
    /// Names the option, and what to give it.
    pub(super) fn check(&self) -> Result<(), Failure> {
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
        if self.algorithm == BenchAlgorithm::Vgpo && self.rollouts < 2 {
            return Err(Failure::input("vgpo compares the responses of a group: --rollouts 2 or more"));
        }
        Ok(())
    }

    fn model<B: Kernels>(&self, dtype: DType, device: &B::Device) -> Result<QwenVl<B>, Failure> {
        if let Some(dir) = &self.model {
            return Ok(ModelFolder::open(dir)?.load(dtype, device)?);
        }
        let config = preset(self.preset.as_deref().unwrap_or_default())?;
        let random = if self.weights == WeightsFrom::Fill { QwenVl::random_on_device } else { QwenVl::random };
        Ok(random(config, self.seed, dtype, device))
    }

    /// The model and the settings of its steps.
    ///
    /// # Errors
    /// A model that cannot be read, a number format that the device does not have.
    pub(super) fn bench<B: Kernels>(&self, dtype: DType, device: &B::Device) -> Result<Bench<B>, Failure> {
        let optim = Optim {
            lr: 1e-6,
            moments_dtype: self.moments_dtype,
            grads_dtype: self.grads_dtype,
            master_weights: self.master_weights,
            ..Optim::default()
        };
        check_formats::<B>(&optim, device)?;
        let folder = self.model.as_deref().map(ModelFolder::open).transpose()?;
        let folder = folder.as_ref().map(ModelFolder::path);
        let model = self.model::<B>(dtype, device)?;
        let speeds = match self.peak_tflops {
            Some(peak) => (peak * 1e12, None),
            None => (matmul_flops(&model)?, Some(copied_bytes(&model)?)),
        };
        // What was measured is no part of a step's memory.
        reset_peak();
        let mut bench = Bench::<B>::new(model, folder, self.seed, optim, speeds)?;
        bench.config.algorithm.shaping =
            if self.algorithm == BenchAlgorithm::Vgpo { "vgpo" } else { "none" }.to_string();
        bench.config.actor.clip_ratio_high = if self.algorithm == BenchAlgorithm::Grpo { 0.2 } else { 0.28 };
        bench.config.actor.old_log_probs = self.old_log_probs;
        bench.check_device(self.check_device);
        bench.recompute = match self.recompute {
            Recompute::Always => Some(true),
            Recompute::Never => Some(false),
            Recompute::Auto => None,
        };
        Ok(bench)
    }
}
