//! The options of `eval`: command line over configuration file over defaults.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use data::{Alpha, ExifOrientation, KeyOptions};
use eval::{Extract, Rule};
use rl::config::{Backend, Dtype};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::common::{choice, words};

/// Everything that can be said on the command line or in a configuration file; what is left out has its default.
#[derive(Args, Deserialize, Debug, Clone, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    /// Model folder in the Hugging Face layout, the run folder of `train` (its newest checkpoint), or a checkpoint. A
    /// run's model is asked as it was trained: with the run's pixels, format prompt, system message and columns, unless
    /// others are given.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// A benchmark and its file: geo3k=FILE, mathverse=FOLDER@test, custom:mine=FILE, sums=toy:sum?split=test. Give it
    /// again for more. With --from: the benchmark alone.
    #[arg(long, value_name = "NAME=PATH")]
    #[serde(skip)]
    pub benchmark: Vec<String>,
    /// The same in a file, as text or as a table.
    #[arg(skip)]
    pub benchmarks: Vec<BenchmarkEntry>,
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
    /// When an answer is right. Default: as the benchmark says.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Rule::NAMES))]
    pub grader: Option<String>,
    /// Where the answer stands. Default: where the format prompt asks for it. With --from: what eval found, in its own
    /// lines; boxed in those of train; any in others.
    #[arg(long, value_name = "PLACE", value_parser = PossibleValuesParser::new(Extract::NAMES))]
    pub extract: Option<String>,
    /// Column of the problem text. Default: the run's, or problem.
    #[arg(long, value_name = "COLUMN")]
    pub prompt_key: Option<String>,
    /// Column of the truth. Default: the run's, or answer.
    #[arg(long, value_name = "COLUMN")]
    pub answer_key: Option<String>,
    /// Column of the pictures. Default: the run's, or images.
    #[arg(long, value_name = "COLUMN")]
    pub image_key: Option<String>,
    /// Column of the id. Default: the run's, or id.
    #[arg(long, value_name = "COLUMN")]
    pub id_key: Option<String>,
    /// Column of the task. Default: the run's, or task.
    #[arg(long, value_name = "COLUMN")]
    pub task_key: Option<String>,
    /// Folder that picture paths are relative to. Default: that of the file.
    #[arg(long, value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Smaller pictures are enlarged to about this many pixels first, as data.min_pixels of train; 0: none is. Default:
    /// as the model was trained, or none.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub min_pixels: Option<u64>,
    /// Larger pictures are reduced to about this many pixels first, as data.max_pixels of train; 0: none is. Default:
    /// as the model was trained, or none.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_pixels: Option<u64>,
    /// What becomes of transparency. Default: as the model was trained, or white.
    #[arg(long, value_name = "WHAT", value_parser = choice::<Alpha>())]
    pub alpha: Option<Alpha>,
    /// What becomes of the turn that EXIF names. Default: as the model was trained, or apply.
    #[arg(long, value_name = "WHAT", value_parser = choice::<ExifOrientation>())]
    pub exif_orientation: Option<ExifOrientation>,
    /// Device library, among what was compiled in. Default: auto.
    #[arg(long, value_name = "B", value_parser = words::<Backend>())]
    pub backend: Option<String>,
    /// Number format of weights and activations. Default: auto.
    #[arg(long, value_name = "D", value_parser = words::<Dtype>())]
    pub dtype: Option<String>,
}

/// A benchmark in a configuration file.
#[derive(Debug, Clone)]
pub(super) enum BenchmarkEntry {
    /// `"geo3k=FILE"`.
    Short(String),
    /// With settings of its own.
    Table(Box<BenchmarkTable>),
}

/// The long form: what differs from the options of the run.
#[derive(Deserialize, Debug, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct BenchmarkTable {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) prompt_key: Option<String>,
    pub(super) answer_key: Option<String>,
    pub(super) image_key: Option<String>,
    pub(super) id_key: Option<String>,
    pub(super) task_key: Option<String>,
    pub(super) image_dir: Option<PathBuf>,
    pub(super) format_prompt: Option<String>,
    pub(super) system_prompt: Option<String>,
    pub(super) grader: Option<String>,
    pub(super) extract: Option<String>,
    pub(super) limit: Option<usize>,
}

/// Not untagged: that would forget which key of a table is wrong.
impl<'de> Deserialize<'de> for BenchmarkEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = BenchmarkEntry;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("\"NAME=PATH\", or a table with `name` and `path`")
            }

            fn visit_str<E>(self, text: &str) -> Result<BenchmarkEntry, E> {
                Ok(BenchmarkEntry::Short(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BenchmarkEntry, A::Error> {
                BenchmarkTable::deserialize(MapAccessDeserializer::new(map))
                    .map(|table| BenchmarkEntry::Table(Box::new(table)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

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
pub(super) use each_field;

impl Options {
    /// These over those of a file.
    pub(super) fn over(mut self, file: Options) -> Self {
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

    /// The column names that were given.
    pub(super) fn keys(&self) -> KeyOptions {
        KeyOptions {
            prompt_key: self.prompt_key.clone(),
            answer_key: self.answer_key.clone(),
            image_key: self.image_key.clone(),
            solution_key: None,
            id_key: self.id_key.clone(),
            task_key: self.task_key.clone(),
        }
    }
}

impl BenchmarkEntry {
    /// As on the command line.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Short(text) => text.clone(),
            Self::Table(table) => format!("{}={}", table.name, table.path),
        }
    }
}

impl BenchmarkTable {
    /// The column names that were given.
    pub(super) fn keys(&self) -> KeyOptions {
        KeyOptions {
            prompt_key: self.prompt_key.clone(),
            answer_key: self.answer_key.clone(),
            image_key: self.image_key.clone(),
            solution_key: None,
            id_key: self.id_key.clone(),
            task_key: self.task_key.clone(),
        }
    }
}
