//! `data`: look at data sets, check them, convert them, make toy ones.

use std::collections::HashSet;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use crate::common::{Failure, ranges, within};
use answer::{Request, RewardConfig, Scorer};
use clap::{Args, Parser, Subcommand, ValueEnum};
use data::inspect::{PromptSettings, inspect};
use data::write::{JsonImages, SampleWriter};
use data::{BadRow, DataError, DataSpec, Dataset, FormatPrompt, Keys, Prefetcher, Processor, Sample, image, prompt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use answer::audit::{AuditLog, Compared};

/// Look at data sets, check them, convert them, make toy ones.
///
/// A SOURCE is a .parquet, .jsonl or .json file, a folder, a glob, any of these with @split, or toy:NAME?key=value.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print columns, lengths, picture sizes, and the rows that would be set aside. Decodes no picture.
    Inspect(Inspect),
    /// Decode every picture, count placeholders, and grade every answer against itself. Exit code 1 if a row fails.
    Check(Check),
    /// Write sources as one parquet or JSON lines file. Further columns are kept as text, lists as JSON.
    Convert(Convert),
    /// Write a toy task as a file: `data toy 'sum?rows=2&cols=2&size=1000' -o sum.parquet`.
    Toy(Toy),
}

#[derive(Args)]
struct Sources {
    /// Files, folders, globs, path@split, toy:NAME?key=value.
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<String>,
    /// Column of the problem text.
    #[arg(long, default_value = "problem")]
    prompt_key: String,
    /// Column of the ground truth.
    #[arg(long, default_value = "answer")]
    answer_key: String,
    /// Column of the pictures.
    #[arg(long, default_value = "images")]
    image_key: String,
    /// Column of a response to imitate.
    #[arg(long, default_value = "solution")]
    solution_key: String,
    /// Column of the id.
    #[arg(long, default_value = "id")]
    id_key: String,
    /// Column of the task name.
    #[arg(long, default_value = "task")]
    task_key: String,
    /// Folder that picture paths are relative to; by default that of the file.
    #[arg(long)]
    image_dir: Option<PathBuf>,
    /// Only the first rows.
    #[arg(long, value_name = "ROWS", value_parser = within::<usize>(ranges::ROWS))]
    limit: Option<usize>,
}

impl Sources {
    fn keys(&self) -> Keys {
        Keys {
            prompt_key: self.prompt_key.clone(),
            answer_key: self.answer_key.clone(),
            image_key: self.image_key.clone(),
            solution_key: self.solution_key.clone(),
            id_key: self.id_key.clone(),
            task_key: self.task_key.clone(),
            extra: Vec::new(),
        }
    }

    fn open(&self) -> Result<(Arc<Dataset>, usize), DataError> {
        self.open_with(&self.keys())
    }

    fn open_with(&self, keys: &Keys) -> Result<(Arc<Dataset>, usize), DataError> {
        let specs: Vec<DataSpec> = self.sources.iter().map(|s| s.as_str().into()).collect();
        let dataset = Arc::new(Dataset::open(&specs, keys, self.image_dir.as_deref())?);
        let rows = self.limit.unwrap_or(usize::MAX).min(dataset.len());
        Ok((dataset, rows))
    }

    /// With all columns that can be read as text; names those that cannot.
    fn open_all(&self) -> Result<(Arc<Dataset>, usize), DataError> {
        let mut keys = self.keys();
        let taken =
            [&keys.id_key, &keys.prompt_key, &keys.answer_key, &keys.task_key, &keys.solution_key, &keys.image_key]
                .map(String::clone);
        let mut left_out = Vec::new();
        // What else there is shows only once the sources are open.
        for (source, _, columns) in self.open()?.0.sources() {
            for column in columns.into_iter().filter(|c| !c.used) {
                match taken.contains(&column.name) {
                    true => left_out.push((source.clone(), column)),
                    false if keys.extra.contains(&column.name) => {}
                    false => keys.extra.push(column.name),
                }
            }
        }
        let (mut dataset, mut rows) = self.open_with(&keys)?;
        let mut readable = HashSet::new();
        for (source, _, columns) in dataset.sources() {
            for column in columns {
                match column.used {
                    true => drop(readable.insert(column.name)),
                    false if taken.contains(&column.name) => {}
                    false => left_out.push((source.clone(), column)),
                }
            }
        }
        for (source, column) in left_out {
            let (name, kind) = (guard::echo(&column.name), guard::echo(&column.kind));
            eprintln!("{}: the column {name:?} ({kind}) cannot be carried over as text", guard::echo(&source));
        }
        // A column that no source can deliver would be written empty.
        let wanted = keys.extra.len();
        keys.extra.retain(|key| readable.contains(key));
        if keys.extra.len() < wanted {
            (dataset, rows) = self.open_with(&keys)?;
        }
        Ok((dataset, rows))
    }
}

#[derive(Args)]
struct Inspect {
    #[command(flatten)]
    sources: Sources,
    /// Model folder whose tokenizer counts the prompts' tokens.
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Built-in format prompt (math, math_perception, r1v, dapo, look_back, srpo, none) or a .jinja file.
    #[arg(long, default_value = "math", requires = "model")]
    format_prompt: String,
    /// System message.
    #[arg(long, requires = "model")]
    system_prompt: Option<String>,
    /// Prompts with more tokens are set aside.
    #[arg(long, requires = "model", value_parser = within::<usize>(ranges::TOKENS))]
    max_prompt_length: Option<usize>,
    /// As data.min_pixels of train; 0: no limit. Default: as the model folder was trained, or none.
    #[arg(long, requires = "model", value_parser = within::<u64>(ranges::PIXELS))]
    min_pixels: Option<u64>,
    /// As data.max_pixels of train; 0: no limit. Default: as the model folder was trained, or none.
    #[arg(long, requires = "model", value_parser = within::<u64>(ranges::PIXELS))]
    max_pixels: Option<u64>,
}

#[derive(Args)]
struct Check {
    #[command(flatten)]
    sources: Sources,
    /// Grader of the answers: mathruler or math.
    #[arg(long, default_value = "mathruler")]
    grader: answer::Grader,
    /// Read only the headers of pictures.
    #[arg(long)]
    headers_only: bool,
    /// Also compare the graders on every solution's boxed answer: a table of disagreements by kind, and a JSON line for each in
    /// this file (docs/grading.md).
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Pictures {
    /// Files in a folder beside the JSON lines file.
    Files,
    /// Base64 in the rows.
    Base64,
}

#[derive(Args)]
struct Convert {
    #[command(flatten)]
    sources: Sources,
    /// File to write: .parquet or .jsonl.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Where a .jsonl file keeps its pictures: files by default. A .parquet file always holds them itself.
    #[arg(long, value_enum)]
    pictures: Option<Pictures>,
}

#[derive(Args)]
struct Toy {
    /// read, sum, compare, count, chart or multistep, with parameters after a question mark.
    task: String,
    /// File to write: .parquet or .jsonl.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// The program.
pub fn main() -> ExitCode {
    crate::common::program(|cli: Cli| {
        let done = match cli.command {
            Command::Inspect(args) => run_inspect(&args),
            Command::Check(args) => run_check(&args),
            Command::Convert(args) => run_convert(&args),
            Command::Toy(args) => {
                let spec = args.task.strip_prefix("toy:").unwrap_or(&args.task);
                Dataset::open(&[format!("toy:{spec}").into()], &Keys::default(), None)
                    .and_then(|d| convert(&Arc::new(d), usize::MAX, &args.output, JsonImages::Files))
            }
        };
        done.map_err(|e| Failure::with_code(e.exit_code(), e))
    })
}

/// Standard output may be a pipe that is closed early, which is no error.
fn print(text: &str) -> Result<(), DataError> {
    // Names of columns and ids stand in it as a file has them.
    match std::io::stdout().lock().write_all(guard::harmless(text).as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(DataError::Write { path: "standard output".into(), source: e })
        }
        _ => Ok(()),
    }
}

fn progress(rows: usize) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(rows as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} rows, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn run_inspect(args: &Inspect) -> Result<ExitCode, DataError> {
    let (dataset, rows) = args.sources.open()?;
    let mut text = String::new();
    for (name, rows, columns) in dataset.sources() {
        text += &format!("{name}: {rows} rows\n");
        for column in columns {
            let note = if column.used { "" } else { " (not read)" };
            text += &format!("  {}: {}{note}\n", column.name, column.kind);
        }
    }
    let settings = match &args.model {
        None => None,
        Some(folder) => {
            let processor = Processor::from_folder(folder)?;
            let own = processor.limits().run;
            let (min, max) = (args.min_pixels.unwrap_or(own.min_pixels), args.max_pixels.unwrap_or(own.max_pixels));
            let mut processor = processor.with_limits(min, max)?;
            if let Some(tokens) = args.max_prompt_length {
                processor = processor.with_max_prompt_length(tokens);
            }
            Some(Arc::new(PromptSettings {
                processor,
                format: FormatPrompt::new(&args.format_prompt)?,
                system: args.system_prompt.clone(),
                max_prompt_length: args.max_prompt_length,
            }))
        }
    };
    let bar = progress(rows);
    let found = inspect(&dataset, rows, settings, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    print(&(text + &found.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// The first thing wrong with a row.
fn fault(sample: &Sample, scorer: &Scorer, headers_only: bool) -> Result<(), BadRow> {
    let bad = |reason: String| BadRow { id: sample.id.clone(), index: sample.index, reason };
    prompt::check_row(sample)?;
    for (k, picture) in sample.images.iter().enumerate() {
        let readable = match headers_only {
            true => picture.header_size().map(|_| ()),
            false => picture.load().and_then(|bytes| image::decode(&bytes).map(|_| ())),
        };
        readable.map_err(|e| bad(format!("image {}: {e}", k + 1)))?;
    }
    let answer = sample.answer.trim();
    if answer.is_empty() {
        return Ok(());
    }
    let grade = |response: &str| {
        let request = Request { response, ground_truth: &sample.answer, response_length: 0, id: &sample.id };
        scorer.score_one(&request).accuracy == 1.0
    };
    // The way a right response takes: through the box and the grader.
    if !grade(&format!("<think></think>\\boxed{{{answer}}}")) {
        return Err(bad(format!("the answer {answer:?} is graded wrong against itself")));
    }
    match &sample.solution {
        Some(solution) if solution.contains("\\boxed{") && !grade(solution) => {
            Err(bad(format!("the solution is graded wrong against the answer {answer:?}")))
        }
        _ => Ok(()),
    }
}

/// The answer of a row's solution, compared with the row's own.
fn solution_answer(sample: &Sample) -> Option<Compared> {
    let given = answer::extract_boxed(sample.solution.as_deref()?)?;
    Some(Compared::new(sample.id.clone(), given.to_owned(), sample.answer.trim().to_owned()))
}

fn run_check(args: &Check) -> Result<ExitCode, DataError> {
    let failed = |source: std::io::Error| DataError::Write { path: args.audit.clone().unwrap_or_default(), source };
    let mut log = args.audit.as_deref().map(AuditLog::create).transpose().map_err(failed)?;
    let audited = log.is_some();
    let (dataset, rows) = args.sources.open()?;
    let config = RewardConfig { grader: args.grader, ..RewardConfig::default() };
    let scorer = Scorer::new(&config).map_err(|e| DataError::Prompt(e.to_string()))?;
    let headers_only = args.headers_only;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let check = move |row: Result<Sample, BadRow>| {
        let compared = row.as_ref().ok().filter(|_| audited).and_then(solution_answer);
        (row.and_then(|sample| fault(&sample, &scorer, headers_only)), compared)
    };
    let bar = progress(rows);
    let mut faults = 0;
    for (_, (row, compared)) in Prefetcher::new(dataset, 0..rows, workers, workers * 8, check) {
        bar.inc(1);
        if let (Some(log), Some(compared)) = (&mut log, compared) {
            log.add(&compared).map_err(failed)?;
        }
        if let Err(bad) = row {
            faults += 1;
            bar.suspend(|| print(&format!("{bad}\n")))?;
        }
    }
    bar.finish_and_clear();
    print(&format!("{} of {rows} rows are good\n", rows - faults))?;
    if let Some(log) = log {
        print(&log.finish().map_err(failed)?)?;
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn run_convert(args: &Convert) -> Result<ExitCode, DataError> {
    if args.pictures.is_some() && args.output.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet")) {
        let reason = "a parquet file always holds its pictures; leave --pictures out, or write a .jsonl file";
        return Err(DataError::File { path: args.output.clone(), reason: reason.into() });
    }
    let images = match args.pictures {
        None | Some(Pictures::Files) => JsonImages::Files,
        Some(Pictures::Base64) => JsonImages::Base64,
    };
    let (dataset, rows) = args.sources.open_all()?;
    convert(&dataset, rows, &args.output, images)
}

fn convert(
    dataset: &Arc<Dataset>,
    rows: usize,
    output: &std::path::Path,
    images: JsonImages,
) -> Result<ExitCode, DataError> {
    let rows = rows.min(dataset.len());
    let mut writer = SampleWriter::create(output, dataset.keys(), images)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let bar = progress(rows);
    let mut left_out = 0;
    for (_, row) in Prefetcher::new(dataset.clone(), 0..rows, workers, workers * 8, |row| row) {
        bar.inc(1);
        let bad = match row {
            Ok(sample) => match writer.write(&sample) {
                Ok(()) => continue,
                // A picture that is gone costs its row; a disk that is full costs the file.
                Err(e @ DataError::Image { .. }) => {
                    BadRow { id: sample.id, index: sample.index, reason: e.to_string() }
                }
                Err(e) => return Err(e),
            },
            Err(bad) => bad,
        };
        left_out += 1;
        bar.suspend(|| eprintln!("{}", guard::printable(&format!("left out: {bad}"))));
    }
    bar.finish_and_clear();
    let written = writer.finish()?;
    print(&format!("{}: {written} rows, {left_out} left out\n", output.display()))?;
    Ok(ExitCode::SUCCESS)
}
