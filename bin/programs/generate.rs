//! `generate`: one response of a Qwen2.5-VL folder to pictures and a question, streamed; its numbers and its visual focus on request.

mod dump;
mod output;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::focus_map::{FocusMap, Panel, Picture, highest};
use crate::common::model::{Model, PictureOptions};
use crate::common::{Failure, OnBackend, on_backend, parse_backend, parse_dtype, ranges, within};
use burn::tensor::DType;
use clap::Parser;
use data::prompt::{IMAGE_PLACEHOLDER, names_pictures, split_at_images};
use data::{Alpha, Content, Encoded, ExifOrientation, FormatPrompt, ImageSource, Processor};
use dump::{States, values};
use model_qwen2vl::model::{Prompt, int_tensor};
use model_qwen2vl::{Kernels, QwenVl, QwenVlConfig};
use output::Output;
use rl::TrainError;
use rl::image_cache::ImageCache;
use rl::launch::{check_folder, end_tokens};
use rl::rollout::{Job, Response, RolloutConfig, RolloutError, generate, never_sampled};
use rl::sampler::Sampling;

/// Answer a question about pictures with a Qwen2.5-VL model; the text is written as it is generated.
///
/// Pictures come before the prompt, unless the prompt says with <image>, or with <image 1> and <image 2>, where each one stands.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  generate --model DIR --image chart.png --prompt 'Which bar is the tallest?'
  generate --model DIR --image a.png --image b.png --prompt 'Is <image> larger than <image>?' --temperature 1 --seed 7
  generate --model DIR --image a.png --prompt 'Sum?' --focus-map focus.png --dump numbers.safetensors

Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted."
)]
struct Args {
    /// Model folder in the Hugging Face layout, the run folder of `train` (its newest checkpoint), or a checkpoint. A run's model is
    /// asked as it was trained: with the run's pixels, format prompt and system message, unless others are given.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A picture (PNG, JPEG, WebP, GIF, BMP, TIFF); give it again for more.
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// The question.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: String,
    /// Built-in format prompt (math, math_perception, r1v, dapo, look_back, srpo, none) or a .jinja file around the question.
    /// Default: the run's; none without one.
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
    /// Smaller pictures are enlarged to about this many pixels first, as data.min_pixels of train; 0: none is. Default: as the model
    /// was trained, or none.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = within::<u64>(ranges::PIXELS))]
    min_pixels: Option<u64>,
    /// Larger pictures are reduced to about this many pixels first, as data.max_pixels of train; 0: none is. Default: as the model
    /// was trained, or none.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = within::<u64>(ranges::PIXELS))]
    max_pixels: Option<u64>,
    /// white lays pictures with transparency on white, drop drops the alpha channel. Default: as the model was trained, or white.
    #[arg(long, value_name = "WHAT")]
    alpha: Option<Alpha>,
    /// apply turns pictures as their EXIF says, ignore leaves them as stored. Default: as the model was trained, or apply.
    #[arg(long, value_name = "WHAT")]
    exif_orientation: Option<ExifOrientation>,
    /// auto, flex, ndarray, wgpu, vulkan or cuda, among what was compiled in.
    #[arg(long, value_name = "B", default_value = "auto", value_parser = parse_backend)]
    backend: rl::config::Backend,
    /// auto, f32 or bf16.
    #[arg(long, value_name = "D", default_value = "auto", value_parser = parse_dtype)]
    dtype: rl::config::Dtype,
    /// Write inputs, hidden states, logits, tokens, log-probs and visual focus to this file.
    #[arg(long, value_name = "FILE.safetensors")]
    dump: Option<PathBuf>,
    /// Draw where the response looked: heat over the pictures, and the tokens coloured by visual focus.
    #[arg(long, value_name = "FILE.png")]
    focus_map: Option<PathBuf>,
}

/// Below this the scaled logits leave the range of f32.
const MIN_TEMPERATURE: f64 = 1e-5;

impl Args {
    /// What can be said against the arguments without opening a file.
    fn check(&self) -> Result<(), Failure> {
        let fail = |text: String| Err(Failure::input(text));
        if self.prompt.trim().is_empty() {
            return fail("--prompt is empty; ask something".into());
        }
        if !(self.temperature == 0.0 || self.temperature.is_finite() && self.temperature >= MIN_TEMPERATURE) {
            return fail(format!(
                "--temperature {} is neither 0 (greedy) nor a number from {MIN_TEMPERATURE} on",
                self.temperature
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return fail(format!("--top-p {} is not above 0 and at most 1", self.top_p));
        }
        if self.min_new_tokens > self.max_new_tokens {
            return fail(format!(
                "--min-new-tokens {} is more than --max-new-tokens {}",
                self.min_new_tokens, self.max_new_tokens
            ));
        }
        if self.focus_map.is_some() && self.image.is_empty() {
            return fail("--focus-map draws where a response looks at a picture; give one with --image".into());
        }
        if self.focus_map.is_some() && self.max_new_tokens == 0 {
            return fail("--focus-map needs at least one generated token; raise --max-new-tokens".into());
        }
        Ok(())
    }

    /// The user's message: pictures first, or where the prompt says; inside the format prompt.
    fn content(&self, format_prompt: &str) -> Result<Vec<Content>, Failure> {
        let mut question = self.prompt.clone();
        if !names_pictures(&question) {
            question.insert_str(0, &IMAGE_PLACEHOLDER.repeat(self.image.len()));
        }
        let split = |text: &str| {
            split_at_images(text, self.image.len()).map_err(|reason| {
                Failure::input(format!("--prompt: {reason} ({} pictures are given with --image)", self.image.len()))
            })
        };
        // Of the question itself first: what is wrong with it is not the fault of a template.
        split(&question)?;
        split(&FormatPrompt::new(format_prompt)?.render(&question)?)
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

/// Everything that is settled before the weights are read.
struct Generate {
    args: Args,
    folder: PathBuf,
    processor: Processor,
    config: QwenVlConfig,
    encoded: Encoded,
    prompt: Prompt,
    dump: Option<Output>,
    focus_map: Option<Output>,
}

impl Generate {
    fn new(args: Args) -> Result<Self, Failure> {
        args.check()?;
        let model = Model::find(&args.model)?;
        let processor = model.processor(args.pictures())?;
        let Model { folder, run } = model;
        let run = run.unwrap_or_default();
        let content = args.content(args.format_prompt.as_deref().or(run.format_prompt.as_deref()).unwrap_or("none"))?;
        let config = QwenVlConfig::from_folder(&folder)?;
        check_folder(&folder, &processor, &config)?;
        let images: Vec<ImageSource> = args.image.iter().cloned().map(ImageSource::Path).collect();
        let system = args.system.as_deref().or(run.system_prompt.as_deref());
        let encoded = processor.encode(system, &content, &images)?;
        let pixels: Vec<f32> = encoded.images.iter().flat_map(|i| i.values.iter().copied()).collect();
        let grids = encoded.images.iter().map(|i| i.grid_thw).collect();
        let prompt = config.prompt(encoded.input_ids.clone(), pixels, grids)?;
        let most = config.text.max_position_embeddings;
        let first = prompt.next_position() as usize;
        if first.saturating_add(args.max_new_tokens) > most {
            return Err(Failure::input(format!(
                "the prompt takes {first} positions; with --max-new-tokens {} that is more than the model's max_position_embeddings of {most}; \
                 lower --max-new-tokens or --max-pixels",
                args.max_new_tokens
            )));
        }
        let open = |option, path: &Option<PathBuf>| path.as_deref().map(|p| Output::open(option, p)).transpose();
        let (dump, focus_map) = (open("--dump", &args.dump)?, open("--focus-map", &args.focus_map)?);
        if let (Some(a), Some(b)) = (&dump, &focus_map)
            && a.path == b.path
        {
            return Err(Failure::input(format!("--dump and --focus-map both name {}", a.path.display())));
        }
        Ok(Self { args, folder, processor, config, encoded, prompt, dump, focus_map })
    }

    /// Generates, writing the text to standard output as it comes. `None` if nobody reads it and nothing else was asked for.
    fn respond<B: Kernels>(&self, model: &QwenVl<B>) -> Result<Option<Response>, Failure> {
        let wants_files = self.dump.is_some() || self.focus_map.is_some();
        let config = RolloutConfig {
            n: 1,
            sampling: Sampling { temperature: self.args.temperature, top_p: self.args.top_p, seed: self.args.seed },
            max_new_tokens: self.args.max_new_tokens,
            min_new_tokens: self.args.min_new_tokens,
            eos: end_tokens(&self.folder, &self.config, &self.processor)?,
            suppress: never_sampled(self.config.vision_token_ids(), &self.processor, self.config.text.vocab_size),
            focus: wants_files.then_some(vgpo::PrototypeMode::Mean),
            max_batch_rows: 1,
            prefill_token_budget: usize::MAX,
        };
        let stop = AtomicBool::new(false);
        let mut decoder = self.processor.stream();
        let mut failure = None;
        // A closed pipe is no error, but the end unless a file is still to be written.
        let mut show = |text: Result<String, data::DataError>| {
            let shown = text.map_err(Failure::from).and_then(|text| print(&text));
            match shown {
                Ok(Reader::Listening) => {}
                Ok(Reader::Gone) => stop.store(!wants_files, Ordering::Relaxed),
                Err(error) => {
                    failure.get_or_insert(error);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        let job = Job { prompt: &self.prompt, key: 0 };
        let result =
            generate(model, &[job], &config, &mut ImageCache::default(), &stop, |_, _, id| show(decoder.push(id)));
        show(decoder.finish().map(|rest| rest + "\n"));
        match (failure, result) {
            (Some(failure), _) => Err(failure),
            (None, Ok((mut responses, _))) => Ok(responses.pop().and_then(|mut group| group.pop())),
            (None, Err(RolloutError::Interrupted)) => Ok(None),
            (None, Err(error)) => Err(TrainError::from(error).into()),
        }
    }
}

/// Whether somebody still reads standard output.
enum Reader {
    Listening,
    Gone,
}

fn print(text: &str) -> Result<Reader, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::Listening),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(e) => Err(Failure::other(format!("standard output: {e}"))),
    }
}

impl OnBackend for Generate {
    type Output = Result<(), Failure>;
    fn run<B: Kernels>(mut self, device: B::Device, dtype: DType) -> Self::Output {
        let model = QwenVl::<B>::load(&self.folder, dtype, &device)?;
        let Some(response) = self.respond(&model)? else {
            return Ok(());
        };
        if response.log_probs.iter().any(|p| !p.is_finite()) {
            return Err(Failure::other(
                "the model's outputs are not numbers (NaN or infinite); its weights or its config.json are damaged",
            ));
        }
        let (dump, map) = (self.dump.take(), self.focus_map.take());
        if dump.is_none() && map.is_none() {
            return Ok(());
        }
        let states = States::new(&model, &self.prompt, &response);
        if let Some(file) = dump {
            file.finish(&dump::to_bytes(&model, &self.prompt, &states, &response)?)?;
        }
        if let Some(file) = map {
            file.finish(&self.draw(&states, &response)?)?;
        }
        Ok(())
    }
}

impl Generate {
    /// The PNG of `--focus-map`.
    fn draw<B: Kernels>(&self, states: &States<B>, response: &Response) -> Result<Vec<u8>, Failure> {
        let focus = response.visual_focus.as_deref().unwrap_or_default();
        let chosen = highest(focus);
        let device = states.hidden.device();
        let rows = |rows: Vec<usize>| {
            let x = states.hidden.clone().select(0, int_tensor(rows, &device));
            let x = model_qwen2vl::params::to_f32(x);
            let norm = x.clone().powi_scalar(2).sum_dim(1).sqrt().add_scalar(rl::focus::EPS);
            x.div(norm)
        };
        let tokens = rows(chosen.iter().map(|t| self.prompt.len() + t).collect());
        let images = rows(self.prompt.image_rows(&self.config));
        let cosines = values(tokens.matmul(images.transpose()))?; // [chosen, M]
        let count = cosines.len() / chosen.len().max(1);
        let panels: Vec<Panel> = chosen
            .iter()
            .zip(cosines.chunks_exact(count.max(1)))
            .map(|(&token, cosines)| Panel { token, cosines: cosines.to_vec() })
            .collect();
        let texts =
            response.ids.iter().map(|&id| self.processor.decode(&[id], false)).collect::<Result<Vec<_>, _>>()?;
        let pictures: Vec<Picture> =
            self.encoded.images.iter().map(|p| Picture::from_patches(p, self.processor.limits())).collect();
        let map = FocusMap { prompt: &self.args.prompt, pictures: &pictures, texts: &texts, focus, panels: &panels };
        let mut png = std::io::Cursor::new(Vec::new());
        map.draw()
            .write_to(&mut png, image::ImageFormat::Png)
            .map_err(|e| Failure::other(format!("--focus-map: {e}")))?;
        Ok(png.into_inner())
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let (backend, dtype) = (args.backend, args.dtype);
    let job = Generate::new(args)?;
    let unfinished: Vec<PathBuf> =
        [&job.dump, &job.focus_map].into_iter().flatten().filter_map(|o| o.temporary.clone()).collect();
    ctrlc::set_handler(move || {
        for path in &unfinished {
            let _ = std::fs::remove_file(path); // it may be complete already
        }
        std::process::exit(130);
    })
    .map_err(Failure::other)?;
    on_backend(backend, dtype, job)?
}

/// The program.
pub fn main() -> ExitCode {
    crate::common::program(|args: Args| run(args).map(|()| ExitCode::SUCCESS))
}
