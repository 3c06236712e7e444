//! From the arguments of `generate` to its prompt, its response and its files.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use analysis::dump::{self, States};
use analysis::focus_map::{self, Drawn};
use burn::tensor::DType;
use data::prompt::{IMAGE_PLACEHOLDER, names_pictures, split_at_images};
use data::{Content, FormatPrompt, ImageSource, Processor};
use launch::ModelFolder;
use model_qwen2vl::model::Prompt;
use model_qwen2vl::{Kernels, QwenVl};
use report::focus_map::MapFormat;
use report::missing_note;
use rl::TrainError;
use rl::image_cache::ImageCache;
use rl::rollout::{Job, Response, RolloutConfig, RolloutError, generate};
use rl::sampler::Sampling;

use super::GenerateArgs;
use crate::common::output::OutputFile;
use crate::common::{Failure, OnBackend};

/// The user's message: pictures first, or where the prompt says; inside the format prompt.
fn content(args: &GenerateArgs, format_prompt: &str) -> Result<Vec<Content>, Failure> {
    let mut question = args.prompt.clone();
    if !names_pictures(&question) {
        question.insert_str(0, &IMAGE_PLACEHOLDER.repeat(args.image.len()));
    }
    let split = |text: &str| {
        split_at_images(text, args.image.len()).map_err(|reason| {
            Failure::input(format!("--prompt: {reason} ({} pictures are given with --image)", args.image.len()))
        })
    };
    // Of the question itself first: what is wrong with it is not the fault of a template.
    split(&question)?;
    split(&FormatPrompt::new(format_prompt)?.render(&question)?)
}

/// Everything that is settled before the weights are read.
pub(super) struct Generate {
    args: GenerateArgs,
    folder: ModelFolder,
    processor: Processor,
    prompt: Prompt,
    dump: Option<OutputFile>,
    focus_map: Option<OutputFile>,
}

impl Generate {
    /// Checks the arguments, opens everything but the weights, and makes the prompt.
    ///
    /// # Errors
    /// Whatever of it cannot be used.
    pub(super) fn new(args: GenerateArgs) -> Result<Self, Failure> {
        args.check()?;
        let folder = ModelFolder::open(&args.model)?;
        let processor = folder.processor(args.pictures())?;
        let run = folder.run();
        let content = content(&args, args.format_prompt.as_deref().or(run.format_prompt.as_deref()).unwrap_or("none"))?;
        let config = folder.config()?;
        let images: Vec<ImageSource> = args.image.iter().cloned().map(ImageSource::Path).collect();
        let system = args.system.as_deref().or(run.system_prompt.as_deref());
        let encoded = processor.encode(system, &content, &images)?;
        let grids = encoded.images.iter().map(|i| i.grid_thw).collect();
        let pixels: Vec<f32> = encoded.images.into_iter().flat_map(|i| i.values).collect();
        let prompt = config.prompt(encoded.input_ids, pixels, grids)?;
        let most = config.text.max_position_embeddings;
        let first = prompt.next_position() as usize;
        if first.saturating_add(args.max_new_tokens) > most {
            return Err(Failure::input(format!(
                "the prompt takes {first} positions; with --max-new-tokens {} that is more than the model's max_position_embeddings of {most}; \
                 lower --max-new-tokens or --max-pixels",
                args.max_new_tokens
            )));
        }
        let open = |option, path: &Option<PathBuf>| path.as_deref().map(|p| OutputFile::open(option, p)).transpose();
        let (dump, focus_map) = (open("--dump", &args.dump)?, open("--focus-map", &args.focus_map)?);
        if let (Some(a), Some(b)) = (&dump, &focus_map)
            && a.path == b.path
        {
            return Err(Failure::input(format!("--dump and --focus-map both name {}", a.path.display())));
        }
        Ok(Self { args, folder, processor, prompt, dump, focus_map })
    }

    /// Files that an interrupt has to remove.
    pub(super) fn unfinished(&self) -> Vec<PathBuf> {
        [&self.dump, &self.focus_map].into_iter().flatten().filter_map(|output| output.temporary.clone()).collect()
    }

    /// Generates, writing the text to standard output as it comes. `None` if nobody reads it and nothing else was asked
    /// for.
    fn respond<B: Kernels>(&self, model: &QwenVl<B>) -> Result<Option<Response>, Failure> {
        let wants_files = self.dump.is_some() || self.focus_map.is_some();
        let config = RolloutConfig {
            n: 1,
            sampling: Sampling { temperature: self.args.temperature, top_p: self.args.top_p, seed: self.args.seed },
            max_new_tokens: self.args.max_new_tokens,
            min_new_tokens: self.args.min_new_tokens,
            eos: self.folder.end_tokens(&self.processor)?,
            suppress: self.folder.never_sampled(&self.processor)?,
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
                Ok(Listener::Listening) => {}
                Ok(Listener::Gone) => stop.store(!wants_files, Ordering::Relaxed),
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
enum Listener {
    Listening,
    Gone,
}

fn print(text: &str) -> Result<Listener, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Listener::Listening),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(Listener::Gone),
        Err(e) => Err(Failure::other(format!("standard output: {e}"))),
    }
}

impl OnBackend for Generate {
    type Output = Result<(), Failure>;
    fn run<B: Kernels>(mut self, device: B::Device, dtype: DType) -> Self::Output {
        let model = self.folder.load::<B>(dtype, &device)?;
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
            let focus = response.visual_focus.as_deref().unwrap_or_default();
            let images = self.prompt.image_rows(&model.config);
            let panels =
                focus_map::panels(&states.hidden, self.prompt.len(), &images, focus).map_err(TrainError::from)?;
            let drawn =
                Drawn { title: &self.args.prompt, prompt: &self.prompt, ids: &response.ids, focus, panels: &panels };
            let map = drawn.draw(&self.processor)?;
            let format = self.args.focus_map.as_deref().map_or(Ok(MapFormat::Png), MapFormat::of);
            let format = format.map_err(Failure::input)?;
            // What shows a drawing has fonts of its own.
            if let (MapFormat::Png, Some(note)) = (format, missing_note(map.missing())) {
                eprintln!("note: {}: {note}", file.path.display());
            }
            file.finish(&map.file(format).map_err(focus_map::cannot_be_drawn)?)?;
        }
        Ok(())
    }
}
