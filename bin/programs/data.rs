//! `data`: look at data sets, check them, convert them, make toy ones.

mod options;
mod write;

use std::process::ExitCode;
use std::sync::Arc;

use answer::{RewardConfig, Scorer};
use data::convert::open_all;
use data::inspect::{PromptSettings, inspect};
use data::write::JsonImages;
use data::{BadRow, DataError, Dataset, FormatPrompt, KeyOptions, Keys, Prefetcher, Sample};
use launch::{ModelFolder, PictureOptions};

use crate::common::{Failure, progress, write_out};
use answer::audit::{AuditLog, Compared};
use options::{Check, Convert, DataCli, DataCommand, Inspect, PictureStorage};
use write::write;

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "data",
    about: "Look at data sets, check them, convert them, make toy ones",
    main,
    command: <DataCli as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    crate::common::program(|cli: DataCli| match cli.command {
        DataCommand::Inspect(args) => run_inspect(&args),
        DataCommand::Check(args) => run_check(&args),
        DataCommand::Convert(args) => run_convert(&args),
        DataCommand::Toy(args) => {
            let spec = args.task.strip_prefix("toy:").unwrap_or(&args.task);
            let dataset = Dataset::open(&[format!("toy:{spec}").into()], &Keys::default(), None)?;
            write(dataset, usize::MAX, &args.output, JsonImages::Files)
        }
    })
}

/// Names of columns and ids stand in a text as a file has them.
fn print(text: &str) -> Result<(), DataError> {
    write_out(&guard::harmless(text))
}

fn run_inspect(args: &Inspect) -> Result<ExitCode, Failure> {
    let model = args.model.as_deref().map(ModelFolder::open).transpose()?;
    let run = model.as_ref().map(|model| model.run().clone()).unwrap_or_default();
    let (dataset, rows) = args.sources.open(&run.keys)?;
    let mut text = String::new();
    for (name, rows, columns) in dataset.sources() {
        text += &format!("{name}: {rows} rows\n");
        for column in columns {
            let note = if column.used { "" } else { " (not read)" };
            text += &format!("  {}: {}{note}\n", column.name, column.kind);
        }
    }
    let pictures =
        PictureOptions { min_pixels: args.min_pixels, max_pixels: args.max_pixels, ..PictureOptions::default() };
    let settings = |model: ModelFolder| -> Result<_, Failure> {
        let mut processor = model.processor(pictures)?;
        if let Some(tokens) = args.max_prompt_length {
            processor = processor.with_max_prompt_length(tokens);
        }
        let format = args.format_prompt.as_deref().or(run.format_prompt.as_deref()).unwrap_or("math");
        Ok(Arc::new(PromptSettings {
            processor,
            format: FormatPrompt::new(format)?,
            system: args.system_prompt.clone().or(run.system_prompt.clone()),
            max_prompt_length: args.max_prompt_length,
        }))
    };
    let settings = model.map(settings).transpose()?;
    let bar = progress::bar(rows);
    let found = inspect(&dataset, rows, settings, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    print(&(text + &found.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// The answer of a row's solution, compared with the row's own.
fn solution_answer(sample: &Sample) -> Option<Compared> {
    let given = answer::extract_boxed(sample.solution.as_deref()?)?;
    Some(Compared::new(sample.id.clone(), given.to_owned(), sample.answer.trim().to_owned()))
}

fn run_check(args: &Check) -> Result<ExitCode, Failure> {
    let failed = |source: std::io::Error| DataError::Write { path: args.audit.clone().unwrap_or_default(), source };
    let mut log = args.audit.as_deref().map(AuditLog::create).transpose().map_err(failed)?;
    let audited = log.is_some();
    let (dataset, rows) = args.sources.open(&KeyOptions::default())?;
    let config = RewardConfig { grader: args.grader, ..RewardConfig::default() };
    let scorer = Scorer::new(&config).map_err(|e| DataError::Prompt(e.to_string()))?;
    let headers_only = args.headers_only;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let look = move |row: Result<Sample, BadRow>| {
        let compared = row.as_ref().ok().filter(|_| audited).and_then(solution_answer);
        (row.and_then(|sample| eval::check::check(&sample, &scorer, headers_only)), compared)
    };
    let bar = progress::bar(rows);
    let mut faults = 0;
    for (_, (row, compared)) in Prefetcher::new(dataset, 0..rows, workers, workers * 8, look) {
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

fn run_convert(args: &Convert) -> Result<ExitCode, Failure> {
    if args.pictures.is_some() && args.output.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet")) {
        let reason = "a parquet file always holds its pictures; leave --pictures out, or write a .jsonl file";
        return Err(DataError::File { path: args.output.clone(), reason: reason.into() }.into());
    }
    let images = match args.pictures {
        None | Some(PictureStorage::Files) => JsonImages::Files,
        Some(PictureStorage::Base64) => JsonImages::Base64,
    };
    let sources = &args.sources;
    let keys = sources.keys(&KeyOptions::default());
    let dataset = open_all(&sources.specs(), keys, sources.image_dir.as_deref(), |line| eprintln!("{line}"))?;
    write(dataset, sources.limit.unwrap_or(usize::MAX), &args.output, images)
}
