//! `generate`: one response of a Qwen-VL folder to pictures and a question, streamed; its numbers and its visual
//! focus on request.

mod answer;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use data::{Alpha, ExifOrientation};
use launch::PictureOptions;
use report::focus_map::MapFormat;
use rl::config::{Backend, Dtype};

use crate::common::{Failure, check_temperature, check_top_p, choice, on_backend, ranges, within};
use answer::Generate;

/// Answer a question about pictures with a Qwen-VL model; the text is written as it is generated.
///
/// Pictures come before the prompt, unless the prompt says with <image>, or with <image 1> and <image 2>, where each
/// one stands.
#[derive(Parser)]
#[command(
    name = "generate",
    version,
    after_help = "Examples:
  generate --model DIR --image chart.png --prompt 'Which bar is the tallest?'
  generate --model DIR --image a.png --image b.png --prompt 'Is <image> larger than <image>?' --temperature 1 --seed 7
  generate --model DIR --image a.png --prompt 'Sum?' --focus-map focus.png --dump numbers.safetensors

Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted."
)]
struct GenerateArgs {
    /// Model folder in the Hugging Face layout, the run folder of `train` (its newest checkpoint), or a checkpoint. A
    /// run's model is asked as it was trained: with the run's pixels, format prompt and system message, unless others
    /// are given.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A picture (PNG, JPEG, WebP, GIF, BMP, TIFF); give it again for more.
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// The question.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Built-in format prompt (math, math_perception, r1v, dapo, look_back, srpo, none) or a .jinja file around the
    /// question. Default: the run's; none without one.
    #[arg(long, value_name = "NAME")]
    format_prompt: Option<String>,
    /// System message. Default: the run's, or the chat template's own.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Length limit of the response.
    #[arg(long, value_name = "N", default_value_t = 128, allow_negative_numbers = true, value_parser = within::<usize>(ranges::TOKENS))]
    max_new_tokens: usize,
    /// The response does not end before this many tokens.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = within::<usize>(ranges::TOKENS))]
    min_new_tokens: usize,
    /// 0 takes the likeliest token, always.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Samples among the likeliest tokens that together have this probability; 1 among all.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f64,
    /// Root of the random numbers; the same seed gives the same response.
    #[arg(long, value_name = "S", default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// Smaller pictures are enlarged to about this many pixels first, as data.min_pixels of train; 0: none is. Default:
    /// as the model was trained, or none.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = within::<u64>(ranges::PIXELS))]
    min_pixels: Option<u64>,
    /// Larger pictures are reduced to about this many pixels first, as data.max_pixels of train; 0: none is. Default:
    /// as the model was trained, or none.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = within::<u64>(ranges::PIXELS))]
    max_pixels: Option<u64>,
    /// What becomes of transparency. Default: as the model was trained, or white.
    #[arg(long, value_name = "WHAT", value_parser = choice::<Alpha>())]
    alpha: Option<Alpha>,
    /// What becomes of the turn that EXIF names. Default: as the model was trained, or apply.
    #[arg(long, value_name = "WHAT", value_parser = choice::<ExifOrientation>())]
    exif_orientation: Option<ExifOrientation>,
    /// Device library, among what was compiled in.
    #[arg(long, value_name = "B", default_value = "auto", value_parser = choice::<Backend>())]
    backend: Backend,
    /// Number format of weights and activations.
    #[arg(long, value_name = "D", default_value = "auto", value_parser = choice::<Dtype>())]
    dtype: Dtype,
    /// Write inputs, hidden states, logits, tokens, log-probs and visual focus to this file.
    #[arg(long, value_name = "FILE.safetensors")]
    dump: Option<PathBuf>,
    /// Draw where the response looked: heat over the pictures, and the tokens coloured by visual focus. The name says
    /// how: .svg and .html leave the text to the browser, whatever its script; .png (or no ending) draws it with the
    /// fonts of this machine, and a note names the characters that none of them has.
    #[arg(long, value_name = "FILE")]
    focus_map: Option<PathBuf>,
}

impl GenerateArgs {
    /// What can be said against the arguments without opening a file.
    fn check(&self) -> Result<(), Failure> {
        let fail = |text: String| Err(Failure::input(text));
        if self.prompt.trim().is_empty() {
            return fail("--prompt is empty; ask something".into());
        }
        check_temperature(self.temperature)?;
        check_top_p(self.top_p)?;
        if self.min_new_tokens > self.max_new_tokens {
            return fail(format!(
                "--min-new-tokens {} is more than --max-new-tokens {}",
                self.min_new_tokens, self.max_new_tokens
            ));
        }
        if let Some(Err(reason)) = self.focus_map.as_deref().map(MapFormat::of) {
            return fail(format!("--focus-map: {reason}"));
        }
        if self.focus_map.is_some() && self.image.is_empty() {
            return fail("--focus-map draws where a response looks at a picture; give one with --image".into());
        }
        if self.focus_map.is_some() && self.max_new_tokens == 0 {
            return fail("--focus-map needs at least one generated token; raise --max-new-tokens".into());
        }
        Ok(())
    }

    fn pictures(&self) -> PictureOptions {
        PictureOptions {
            min_pixels: self.min_pixels,
            max_pixels: self.max_pixels,
            alpha: self.alpha,
            exif_orientation: self.exif_orientation,
        }
    }
}

fn run(args: GenerateArgs) -> Result<(), Failure> {
    let (backend, dtype) = (args.backend, args.dtype);
    let job = Generate::new(args)?;
    let unfinished = job.unfinished();
    ctrlc::set_handler(move || {
        for path in &unfinished {
            let _ = std::fs::remove_file(path); // it may be complete already
        }
        std::process::exit(130);
    })
    .map_err(Failure::other)?;
    on_backend(backend, dtype, job)?
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "generate",
    about: "Answer a question about pictures",
    main,
    command: <GenerateArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    crate::common::device_program("--max-pixels, --max-new-tokens or the number of pictures", |args: GenerateArgs| {
        run(args).map(|()| ExitCode::SUCCESS)
    })
}
