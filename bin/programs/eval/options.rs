//! The options of `eval`: command line over configuration file over defaults, checked once.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use data::{Alpha, ExifOrientation};
use eval::predictions::Grading;
use eval::task::TaskSpec;
use eval::{Benchmark, Extract, Rule};
use rl::sampler::Sampling;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::common::model::PictureOptions;
use crate::common::{Failure, parse_backend, parse_dtype, ranges};

/// Everything that can be said on the command line or in a configuration file; what is left out has its default.
#[derive(Args, Deserialize, Debug, Clone, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Model folder in the Hugging Face layout, the run folder of `train` (its newest checkpoint), or a checkpoint. A run's model is
    /// asked as it was trained: with the run's pixels, format prompt and system message, unless others are given.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// A benchmark and its file: geo3k=FILE, mathverse=FOLDER@test, custom:mine=FILE, sums=toy:sum?split=test. Give it again
    /// for more. With --from: the benchmark alone.
    #[arg(long, value_name = "NAME=PATH")]
    #[serde(skip)]
    pub benchmark: Vec<String>,
    /// The same in a file, as text or as a table.
    #[arg(skip)]
    pub benchmarks: Vec<Entry>,
    /// Grade answers that were made elsewhere (JSON lines); no model is needed.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Folder for answers and results; the same command goes on where it was. Optional with --from.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Compare the graders on all answers: a table of disagreements by kind, and a JSON line for each in this file
    /// (docs/grading.md).
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Answers to each question. Default: 1.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub samples: Option<usize>,
    /// 0 takes the likeliest token, always. Default: 0.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Samples among the likeliest tokens that together have this probability. Default: 1.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Length limit of an answer in tokens. Default: 2048.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_new_tokens: Option<usize>,
    /// Prompts with more tokens are set aside. Default: those that do not fit the model.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_prompt_length: Option<usize>,
    /// Answers made at the same time; has no influence on what they are. Default: 32.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub batch_size: Option<usize>,
    /// Only the first rows of each benchmark.
    #[arg(long, value_name = "ROWS", allow_negative_numbers = true)]
    pub limit: Option<usize>,
    /// Root of the random numbers. Default: 0.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// Built-in format prompt (math, math_perception, r1v, dapo, look_back, srpo, none) or a .jinja file.
    /// Default: the run's; without one math_perception, none for toy tasks.
    #[arg(long, value_name = "NAME")]
    pub format_prompt: Option<String>,
    /// System message. Default: the run's, or the chat template's own.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system_prompt: Option<String>,
    /// either, mathruler, math, choice, exact or numeric. Default: the benchmark's own.
    #[arg(long, value_name = "NAME")]
    pub grader: Option<String>,
    /// Where the answer stands: boxed, tag, line or any. Default: where the format prompt asks for it. With --from: what eval
    /// found, in its own lines; boxed in those of train; any in others.
    #[arg(long, value_name = "PLACE")]
    pub extract: Option<String>,
    /// Column of the problem text. Default: problem.
    #[arg(long, value_name = "COLUMN")]
    pub prompt_key: Option<String>,
    /// Column of the truth. Default: answer.
    #[arg(long, value_name = "COLUMN")]
    pub answer_key: Option<String>,
    /// Column of the pictures. Default: images.
    #[arg(long, value_name = "COLUMN")]
    pub image_key: Option<String>,
    /// Column of the id. Default: id.
    #[arg(long, value_name = "COLUMN")]
    pub id_key: Option<String>,
    /// Column of the task. Default: task.
    #[arg(long, value_name = "COLUMN")]
    pub task_key: Option<String>,
    /// Folder that picture paths are relative to. Default: that of the file.
    #[arg(long, value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Smaller pictures are enlarged to about this many pixels first, as data.min_pixels of train; 0: none is. Default: as the model
    /// was trained, or none.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min_pixels: Option<u64>,
    /// Larger pictures are reduced to about this many pixels first, as data.max_pixels of train; 0: none is. Default: as the model
    /// was trained, or none.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_pixels: Option<u64>,
    /// white lays pictures with transparency on white, drop drops the alpha channel. Default: as the model was trained, or white.
    #[arg(long, value_name = "WHAT")]
    pub alpha: Option<Alpha>,
    /// apply turns pictures as their EXIF says, ignore leaves them as stored. Default: as the model was trained, or apply.
    #[arg(long, value_name = "WHAT")]
    pub exif_orientation: Option<ExifOrientation>,
    /// auto, flex, ndarray, wgpu, vulkan or cuda, among what was compiled in. Default: auto.
    #[arg(long, value_name = "B")]
    pub backend: Option<String>,
    /// auto, f32 or bf16. Default: auto.
    #[arg(long, value_name = "D")]
    pub dtype: Option<String>,
}

/// A benchmark in a configuration file.
#[derive(Debug, Clone)]
pub enum Entry {
    /// `"geo3k=FILE"`.
    Short(String),
    /// With settings of its own.
    Table(Box<Table>),
}

/// The long form: what differs from the options of the run.
#[derive(Deserialize, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct Table {
    name: String,
    path: String,
    prompt_key: Option<String>,
    answer_key: Option<String>,
    image_key: Option<String>,
    id_key: Option<String>,
    task_key: Option<String>,
    image_dir: Option<PathBuf>,
    format_prompt: Option<String>,
    system_prompt: Option<String>,
    grader: Option<String>,
    extract: Option<String>,
    limit: Option<usize>,
}

/// Not untagged: that would forget which key of a table is wrong.
impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("\"NAME=PATH\", or a table with `name` and `path`")
            }

            fn visit_str<E>(self, text: &str) -> Result<Entry, E> {
                Ok(Entry::Short(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(|table| Entry::Table(Box::new(table)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What is to be done.
pub enum Plan {
    /// A model answers benchmarks.
    Answer(Box<Answer>),
    /// Answers made elsewhere are graded.
    Grade {
        /// The file.
        from: PathBuf,
        /// Where the results go, besides the terminal.
        out: Option<PathBuf>,
        /// Where disagreements of the graders go.
        audit: Option<PathBuf>,
        /// How.
        grading: Grading,
    },
}

/// A model answers benchmarks.
pub struct Answer {
    /// As the user named it.
    pub model: PathBuf,
    /// The folder.
    pub out: PathBuf,
    /// Where disagreements of the graders go.
    pub audit: Option<PathBuf>,
    /// In order; names are distinct.
    pub tasks: Vec<TaskSpec>,
    /// Answers to each question.
    pub samples: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens.
    pub max_new_tokens: usize,
    /// Tokens.
    pub max_prompt_length: Option<usize>,
    /// Answers at a time.
    pub batch_size: usize,
    /// How pictures are seen, where that is said.
    pub pictures: PictureOptions,
    /// Where.
    pub backend: rl::config::Backend,
    /// In which numbers.
    pub dtype: rl::config::Dtype,
}

/// Below this the scaled logits leave the range of f32.
const MIN_TEMPERATURE: f64 = 1e-5;

macro_rules! each_field {
    ($do:ident) => {
        $do!(
            model,
            from,
            out,
            audit,
            samples,
            temperature,
            top_p,
            max_new_tokens,
            max_prompt_length,
            batch_size,
            limit,
            seed,
            format_prompt,
            system_prompt,
            grader,
            extract,
            prompt_key,
            answer_key,
            image_key,
            id_key,
            task_key,
            image_dir,
            min_pixels,
            max_pixels,
            alpha,
            exif_orientation,
            backend,
            dtype
        )
    };
}

impl Options {
    /// These over those of a file.
    pub fn over(mut self, file: Options) -> Self {
        macro_rules! merge {
            ($($field:ident),*) => { $( if self.$field.is_none() { self.$field = file.$field; } )* };
        }
        each_field!(merge);
        // Benchmarks on the command line replace those of the file: nobody wants to run more than was asked for.
        if self.benchmark.is_empty() {
            self.benchmarks = file.benchmarks;
        }
        self
    }

    /// Checks everything that can be checked without opening a file.
    pub fn plan(self) -> Result<Plan, Failure> {
        match self.from.clone() {
            Some(from) => self.grade(from),
            None => self.answer().map(|answer| Plan::Answer(Box::new(answer))),
        }
    }

    fn grade(self, from: PathBuf) -> Result<Plan, Failure> {
        let mut useless = Vec::new();
        macro_rules! note {
            ($($field:ident),*) => { $(
                if self.$field.is_some() && !["from", "out", "audit", "grader", "extract"].contains(&stringify!($field)) {
                    useless.push(format!("--{}", stringify!($field).replace('_', "-")));
                }
            )* };
        }
        each_field!(note);
        if !useless.is_empty() {
            return Err(Failure::input(format!(
                "{} say how answers are made; --from only grades them",
                useless.join(", ")
            )));
        }
        let names: Vec<String> =
            self.benchmark.iter().cloned().chain(self.benchmarks.iter().map(Entry::text)).collect();
        let benchmark = match names.as_slice() {
            [] => None,
            [name] if name.contains('=') => {
                return Err(Failure::input(format!(
                    "--benchmark {name}: with --from the answers are graded against their own truths; give the name alone"
                )));
            }
            [name] => Some(Benchmark::find(name)?),
            _ => {
                return Err(Failure::input(
                    "--from takes one --benchmark; rows may also name theirs under `benchmark`",
                ));
            }
        };
        let grading = Grading {
            benchmark,
            rule: self.grader.as_deref().map(parse_rule).transpose()?,
            extract: self.extract.as_deref().map(parse_extract).transpose()?,
        };
        Ok(Plan::Grade { from, out: self.out, audit: self.audit, grading })
    }

    fn answer(self) -> Result<Answer, Failure> {
        let fail = |text: String| Err(Failure::input(text));
        let Some(model) = self.model.clone() else {
            return fail("--model is missing; name a model folder, or grade answers made elsewhere with --from".into());
        };
        let Some(out) = self.out.clone() else {
            return fail("--out is missing; name a folder for answers and results".into());
        };
        let samples = self.samples.unwrap_or(1);
        let temperature = self.temperature.unwrap_or(0.0);
        let top_p = self.top_p.unwrap_or(1.0);
        let max_new_tokens = self.max_new_tokens.unwrap_or(2048);
        let batch_size = self.batch_size.unwrap_or(32);
        for (name, value) in [
            ("--samples", Some(samples)),
            ("--max-new-tokens", Some(max_new_tokens)),
            ("--batch-size", Some(batch_size)),
            ("--limit", self.limit),
            ("--max-prompt-length", self.max_prompt_length),
        ] {
            if value == Some(0) {
                return fail(format!("{name} 0 leaves nothing to do; use 1 or more"));
            }
            let most = match name {
                "--limit" => *ranges::ROWS.end(),
                "--samples" | "--batch-size" => *ranges::RESPONSES.end(),
                _ => *ranges::TOKENS.end(),
            };
            if let Some(value) = value.filter(|value| *value as u64 > most) {
                return fail(format!("{name} {value} is out of range; it is 1 to {most}"));
            }
        }
        if !(temperature == 0.0 || temperature.is_finite() && temperature >= MIN_TEMPERATURE) {
            return fail(format!(
                "--temperature {temperature} is neither 0 (greedy) nor a number from {MIN_TEMPERATURE} on"
            ));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return fail(format!("--top-p {top_p} is not above 0 and at most 1"));
        }
        for (name, value) in [("--min-pixels", self.min_pixels), ("--max-pixels", self.max_pixels)] {
            if let Some(value) = value.filter(|value| !ranges::PIXELS.contains(value)) {
                let (least, most) = ranges::PIXELS.into_inner();
                return fail(format!("{name} {value} is out of range; it is {least} to {most}"));
            }
        }
        if temperature == 0.0 && samples > 1 {
            return fail(format!(
                "--samples {samples}: greedy answers are all the same; give --temperature 1.0, or one sample"
            ));
        }
        if temperature == 0.0 && self.top_p.is_some() {
            return fail("--top-p has no effect on greedy answers; give a --temperature above 0".into());
        }
        let tasks = self.tasks()?;
        if tasks.is_empty() {
            return fail("--benchmark is missing; give NAME=PATH, for example geo3k=geometry3k.parquet".into());
        }
        for (k, task) in tasks.iter().enumerate() {
            if tasks[..k].iter().any(|t| t.name.eq_ignore_ascii_case(&task.name)) {
                return fail(format!("the benchmark {} is given twice; use custom:OTHER_NAME=PATH for one", task.name));
            }
        }
        Ok(Answer {
            model,
            out,
            audit: self.audit.clone(),
            tasks,
            samples,
            sampling: Sampling { temperature, top_p, seed: self.seed.unwrap_or(0) },
            max_new_tokens,
            max_prompt_length: self.max_prompt_length,
            batch_size,
            pictures: PictureOptions {
                min_pixels: self.min_pixels,
                max_pixels: self.max_pixels,
                alpha: self.alpha,
                exif_orientation: self.exif_orientation,
            },
            backend: parse_backend(self.backend.as_deref().unwrap_or("auto")).map_err(Failure::input)?,
            dtype: parse_dtype(self.dtype.as_deref().unwrap_or("auto")).map_err(Failure::input)?,
        })
    }

    fn tasks(&self) -> Result<Vec<TaskSpec>, Failure> {
        let mut tasks = Vec::new();
        for text in &self.benchmark {
            tasks.push(self.complete(TaskSpec::parse(text)?, None)?);
        }
        for entry in &self.benchmarks {
            tasks.push(match entry {
                Entry::Short(text) => self.complete(TaskSpec::parse(text)?, None)?,
                Entry::Table(table) => self.complete(TaskSpec::new(&table.name, &table.path)?, Some(table))?,
            });
        }
        Ok(tasks)
    }

    /// Fills in what the run or the benchmark's own table says.
    fn complete(&self, mut task: TaskSpec, table: Option<&Table>) -> Result<TaskSpec, Failure> {
        macro_rules! pick {
            ($field:ident) => {
                table.and_then(|t| t.$field.clone()).or_else(|| self.$field.clone())
            };
        }
        for (key, chosen) in [
            (&mut task.keys.prompt_key, pick!(prompt_key)),
            (&mut task.keys.answer_key, pick!(answer_key)),
            (&mut task.keys.image_key, pick!(image_key)),
            (&mut task.keys.id_key, pick!(id_key)),
            (&mut task.keys.task_key, pick!(task_key)),
        ] {
            if let Some(chosen) = chosen {
                *key = chosen;
            }
        }
        task.image_dir = pick!(image_dir);
        task.format_prompt = pick!(format_prompt).or(task.format_prompt);
        task.system_prompt = pick!(system_prompt);
        task.grader = pick!(grader).as_deref().map(parse_rule).transpose()?;
        task.extract = pick!(extract).as_deref().map(parse_extract).transpose()?;
        task.limit = pick!(limit);
        if task.limit == Some(0) {
            return Err(Failure::input(format!("limit 0 of {} leaves nothing to do; use 1 or more", task.name)));
        }
        Ok(task)
    }
}

impl Entry {
    fn text(&self) -> String {
        match self {
            Self::Short(text) => text.clone(),
            Self::Table(table) => format!("{}={}", table.name, table.path),
        }
    }
}

fn parse_rule(name: &str) -> Result<Rule, Failure> {
    name.parse().map_err(Failure::input)
}

fn parse_extract(name: &str) -> Result<Extract, Failure> {
    name.parse().map_err(Failure::input)
}
