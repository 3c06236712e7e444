//! The command line of `data`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use data::{DataError, DataSpec, Dataset, KeyOptions, Keys};

use crate::common::{choice, ranges, within};

/// Look at data sets, check them, convert them, make toy ones.
///
/// A SOURCE is a .parquet, .jsonl or .json file, a folder, a glob, any of these with @split, or toy:NAME?key=value.
#[derive(Parser)]
#[command(name = "data", version)]
pub(super) struct DataCli {
    #[command(subcommand)]
    pub command: DataCommand,
}

#[derive(Subcommand)]
pub(super) enum DataCommand {
    /// Print columns, lengths, picture sizes, and the rows that would be set aside. Decodes no picture.
    Inspect(Inspect),
    /// Decode every picture, count placeholders, and grade every answer against itself. Exit code 1 if a row fails.
    Check(Check),
    /// Write sources as one parquet or JSON lines file. Further columns are kept as text, lists as JSON.
    Convert(Convert),
    /// Write a toy task as a file, for example 'sum?rows=2&cols=2&size=1000' as sum.parquet.
    Toy(Toy),
}

/// Toy rows that are looked at without having been asked for by number: some seconds.
const MOST_DRAWN: usize = 100_000;

#[derive(Args)]
pub(super) struct Sources {
    /// Files, folders, globs, path@split, toy:NAME?key=value.
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Column of the problem text. Default: problem, or with --model that of its run.
    #[arg(long, value_name = "COLUMN")]
    pub prompt_key: Option<String>,
    /// Column of the ground truth. Default: answer, or with --model that of its run.
    #[arg(long, value_name = "COLUMN")]
    pub answer_key: Option<String>,
    /// Column of the pictures. Default: images, or with --model that of its run.
    #[arg(long, value_name = "COLUMN")]
    pub image_key: Option<String>,
    /// Column of a response to imitate. Default: solution, or with --model that of its run.
    #[arg(long, value_name = "COLUMN")]
    pub solution_key: Option<String>,
    /// Column of the id. Default: id, or with --model that of its run.
    #[arg(long, value_name = "COLUMN")]
    pub id_key: Option<String>,
    /// Column of the task name. Default: task, or with --model that of its run.
    #[arg(long, value_name = "COLUMN")]
    pub task_key: Option<String>,
    /// Folder that picture paths are relative to; by default that of the file.
    #[arg(long)]
    pub image_dir: Option<PathBuf>,
    /// Only the first rows.
    #[arg(long, value_name = "ROWS", value_parser = within::<usize>(ranges::ROWS))]
    pub limit: Option<usize>,
}

impl Sources {
    pub(super) fn specs(&self) -> Vec<DataSpec> {
        self.sources.iter().map(|source| source.as_str().into()).collect()
    }

    /// The column names, where they were not given those of the model's run.
    pub(super) fn keys(&self, run: &KeyOptions) -> Keys {
        let given = KeyOptions {
            prompt_key: self.prompt_key.clone(),
            answer_key: self.answer_key.clone(),
            image_key: self.image_key.clone(),
            solution_key: self.solution_key.clone(),
            id_key: self.id_key.clone(),
            task_key: self.task_key.clone(),
        };
        given.or(run).keys(Vec::new())
    }

    pub(super) fn open(&self, run: &KeyOptions) -> Result<(Arc<Dataset>, usize), DataError> {
        let dataset = Dataset::open(&self.specs(), &self.keys(run), self.image_dir.as_deref())?;
        let rows = self.limit.unwrap_or(usize::MAX).min(dataset.len());
        let generated = dataset.sources().into_iter().filter(|(name, ..)| name.starts_with("toy:"));
        if let (None, Some((name, rows, _))) = (self.limit, generated.max_by_key(|(_, rows, _)| *rows))
            && rows > MOST_DRAWN
        {
            return Err(DataError::Prompt(format!(
                "{name}: its {rows} rows would be drawn one by one, which takes long; say with --limit how many are looked at"
            )));
        }
        Ok((Arc::new(dataset), rows))
    }
}

#[derive(Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    pub sources: Sources,
    /// Model whose tokenizer counts the prompts' tokens: a model folder in the Hugging Face layout, the run folder of
    /// train (its newest checkpoint), or a checkpoint. Rows become prompts as in its run, unless something else is
    /// given.
    #[arg(long, value_name = "FOLDER")]
    pub model: Option<PathBuf>,
    /// Built-in format prompt (math, math_perception, r1v, dapo, look_back, srpo, none) or a .jinja file.
    /// Default: the run's; math without one.
    #[arg(long, value_name = "NAME", requires = "model")]
    pub format_prompt: Option<String>,
    /// System message. Default: the run's, or the chat template's own.
    #[arg(long, requires = "model")]
    pub system_prompt: Option<String>,
    /// Prompts with more tokens are set aside.
    #[arg(long, requires = "model", value_parser = within::<usize>(ranges::TOKENS))]
    pub max_prompt_length: Option<usize>,
    /// As data.min_pixels of train; 0: no limit. Default: as the model folder was trained, or none.
    #[arg(long, requires = "model", value_parser = within::<u64>(ranges::PIXELS))]
    pub min_pixels: Option<u64>,
    /// As data.max_pixels of train; 0: no limit. Default: as the model folder was trained, or none.
    #[arg(long, requires = "model", value_parser = within::<u64>(ranges::PIXELS))]
    pub max_pixels: Option<u64>,
}

#[derive(Args)]
pub(super) struct Check {
    #[command(flatten)]
    pub sources: Sources,
    /// Grader of the answers.
    #[arg(long, value_name = "NAME", default_value = "mathruler", value_parser = choice::<answer::Grader>())]
    pub grader: answer::Grader,
    /// Read only the headers of pictures.
    #[arg(long)]
    pub headers_only: bool,
    /// Also compare the graders on every solution's boxed answer: a table of disagreements by kind, and a JSON line for
    /// each in this file (docs/grading.md).
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum PictureStorage {
    /// Files in a folder beside the JSON lines file.
    Files,
    /// Base64 in the rows.
    Base64,
}

#[derive(Args)]
pub(super) struct Convert {
    #[command(flatten)]
    pub sources: Sources,
    /// File to write: .parquet or .jsonl.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Where a .jsonl file keeps its pictures: files by default. A .parquet file always holds them itself.
    #[arg(long, value_enum)]
    pub pictures: Option<PictureStorage>,
}

#[derive(Args)]
pub(super) struct Toy {
    /// read, sum, compare, count, chart or multistep, with parameters after a question mark.
    pub task: String,
    /// File to write: .parquet or .jsonl.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}
