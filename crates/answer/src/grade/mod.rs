//! `grade`: grades answers in JSON lines, as training does.
//!
//! Lines are read in chunks, graded on all cores and written in their order, so that a file of any length passes
//! through a bounded amount of memory. No model and no tensor is involved.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Parser};
use cli::{Exit, ranges, within, word};
use rayon::prelude::*;

use crate::{Grader, OverlongConfig, Request, RewardConfig, RewardError, RewardType, Score, Scorer};

mod audit;
mod row;

use row::{GradedLine, LineKeys};

/// Longest line that is read, in bytes. A longer one is a bad line.
const MAX_LINE: usize = 1 << 26;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// A chunk ends at so many lines or bytes.
const CHUNK_LINES: usize = 8192;
const CHUNK_BYTES: usize = 1 << 24;
/// So many bad lines are named on stderr; the rest is counted.
const NAMED: u64 = 20;

/// Grade answers in JSON lines.
///
/// A line is an object with `ground_truth` and either `given`, an answer as it would stand in the box, or `response`, a
/// model's whole text. The same lines are written, in the same order, with `accuracy`, `format`, `overall` and
/// `extracted`, and with `reward/NAME` for further numbers of the rule. A line that cannot be graded gets `error`
/// instead.
///
/// `given` counts as the answer of a response in the right form (format 1). A line with both is graded by `given`.
/// Numbers, true and false are taken as their JSON text. Empty lines are skipped.
#[derive(Parser)]
#[command(
    name = "grade",
    version,
    group(ArgGroup::new("program").args(["command", "function"])),
    after_help = "Exit codes: 0 all lines graded; 1 some lines could not be graded, or the work failed; 2 bad usage, an \
                  unreadable file, or not one line that could be graded."
)]
struct GradeArgs {
    /// JSON lines; - is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// File to write; standard output by default. It appears when all is graded, and may be FILE itself.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Compare the graders instead: a table of the answers on which mathruler, math and multiple_choice disagree, by
    /// kind, and a JSON line for each in this file (docs/grading.md). FILE may be a run folder, whose rollouts are
    /// read.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "grader", "accuracy_weight", "format_weight",
          "numeric_tolerance", "max_response_length", "command", "function"])]
    audit: Option<PathBuf>,
    /// What decides: mathruler or math compare mathematical answers; the name of another rule is short for
    /// --reward-type.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(graders()))]
    grader: Option<String>,
    /// Where a response's answer is and what the reward is; math by default.
    #[arg(long, value_name = "NAME", value_parser = word::<RewardType>(RewardType::NAMES.iter().copied()))]
    reward_type: Option<RewardType>,
    /// Weight of a right answer in `overall`; .9 by default.
    #[arg(long, value_name = "NUMBER")]
    accuracy_weight: Option<f64>,
    /// Weight of the right format in `overall`; .1 by default.
    #[arg(long, value_name = "NUMBER")]
    format_weight: Option<f64>,
    /// numeric: largest |given - truth| / |truth|, and largest |given| where the truth is 0; 1e-4 by default.
    #[arg(long, value_name = "NUMBER")]
    numeric_tolerance: Option<f64>,
    /// Length in tokens from which the whole overlong penalty counts; needs `response_length` in each line.
    #[arg(long, value_name = "TOKENS", requires = "overlong_buffer_length", value_parser = within::<usize>(ranges::TOKENS))]
    max_response_length: Option<usize>,
    /// Tokens before that over which the penalty grows.
    #[arg(long, value_name = "TOKENS", requires = "max_response_length", value_parser = within::<usize>(ranges::TOKENS))]
    overlong_buffer_length: Option<usize>,
    /// Weight of the penalty; 1 by default.
    #[arg(long, value_name = "NUMBER", requires = "max_response_length")]
    overlong_penalty_factor: Option<f64>,
    /// A reward command (docs/grading.md) and its arguments; the last option, or end it with `--`.
    #[arg(long, value_name = "PROGRAM", num_args = 1.., allow_hyphen_values = true, value_terminator = "--",
          conflicts_with_all = ["grader", "reward_type", "accuracy_weight", "format_weight", "numeric_tolerance", "max_response_length"])]
    command: Vec<String>,
    /// A reward function of Python's, FILE.py:NAME, as `reward.function` takes it (docs/grading.md). It sees the other
    /// keys of a line as the row's columns, `prompt` or `problem` as its prompt.
    #[arg(long, value_name = "FILE.py:NAME",
          conflicts_with_all = ["grader", "reward_type", "accuracy_weight", "format_weight", "numeric_tolerance", "max_response_length"])]
    function: Option<String>,
    /// The Python that runs the function; python3 by default.
    #[arg(long, value_name = "PROGRAM", requires = "function")]
    python: Option<String>,
    /// Seconds that the command or function has for a batch; 60 by default.
    #[arg(long, value_name = "SECONDS", requires = "program")]
    command_timeout_s: Option<f64>,
    /// Most lines that are sent to the command at once; 256 by default.
    #[arg(long, value_name = "LINES", requires = "program", value_parser = within::<usize>(0..=1 << 20))]
    command_batch_size: Option<usize>,
    /// Key of the extracted answer.
    #[arg(long, value_name = "KEY", default_value = "given")]
    given_key: String,
    /// Key of the whole response.
    #[arg(long, value_name = "KEY", default_value = "response")]
    response_key: String,
    /// Key of the right answer.
    #[arg(long, value_name = "KEY", default_value = "ground_truth")]
    truth_key: String,
}

/// Graders, and the rules that are no grader's.
fn graders() -> impl Iterator<Item = &'static str> {
    let rules = RewardType::NAMES.iter().filter(|name| !Grader::NAMES.contains(name));
    Grader::NAMES.iter().chain(rules).copied()
}

/// An exit code and one line for stderr.
struct GradeFailure(u8, String);

impl From<RewardError> for GradeFailure {
    fn from(error: RewardError) -> Self {
        let input = matches!(
            error,
            RewardError::Config { .. } | RewardError::FunctionLoad { .. } | RewardError::CommandStart { .. }
        );
        Self(if input { 2 } else { 1 }, error.to_string())
    }
}

impl GradeArgs {
    /// The configuration of the reward; options that would do nothing are refused.
    fn config(&self) -> Result<RewardConfig, GradeFailure> {
        let default = RewardConfig::default();
        let bad = |text: String| GradeFailure(2, text);
        let (mut grader, mut rule) = (default.grader, self.reward_type);
        if let Some(name) = &self.grader {
            match (name.parse::<Grader>(), name.parse::<RewardType>()) {
                (Ok(named), _) => grader = named,
                (Err(_), Ok(named)) => match rule {
                    Some(other) if other != named => {
                        return Err(bad(format!(
                            "--grader {name} and --reward-type {other} name two rules; leave one out"
                        )));
                    }
                    _ => rule = Some(named),
                },
                (Err(_), Err(unknown)) => return Err(bad(format!("--grader {name}: {unknown}"))),
            }
        }
        let rule = rule.unwrap_or_default();
        let named_grader = self.grader.as_ref().is_some_and(|name| name.parse::<Grader>().is_ok());
        for (given, means_something, option) in [
            (named_grader, rule.has_grader(), "--grader"),
            (self.accuracy_weight.is_some(), rule.has_weights(), "--accuracy-weight"),
            (self.format_weight.is_some(), rule.has_weights(), "--format-weight"),
            (self.numeric_tolerance.is_some(), rule.has_tolerance(), "--numeric-tolerance"),
        ] {
            if given && !means_something {
                return Err(bad(format!(
                    "{option} means nothing to the rule `{rule}`; leave it out or choose another"
                )));
            }
        }
        let overlong = OverlongConfig {
            max_response_length: self.max_response_length.unwrap_or(0),
            overlong_buffer_length: self.overlong_buffer_length.unwrap_or(0),
            overlong_penalty_factor: self.overlong_penalty_factor.unwrap_or(default.overlong.overlong_penalty_factor),
        };
        Ok(RewardConfig {
            reward_type: rule,
            grader,
            accuracy_weight: self.accuracy_weight.unwrap_or(default.accuracy_weight),
            format_weight: self.format_weight.unwrap_or(default.format_weight),
            numeric_tolerance: self.numeric_tolerance.unwrap_or(default.numeric_tolerance),
            overlong,
            command: self.command.clone(),
            command_timeout_s: self.command_timeout_s.unwrap_or(default.command_timeout_s),
            command_batch_size: self.command_batch_size.unwrap_or(default.command_batch_size),
            functions: self.function.iter().cloned().collect(),
            python: self.python.clone().unwrap_or(default.python.clone()),
            ..default
        })
    }
}

/// The program, as `visual-rl` knows it.
pub const PROGRAM: cli::Program = cli::Program {
    name: "grade",
    about: "Grade answers in JSON lines, as training does",
    main,
    command: <GradeArgs as clap::CommandFactory>::command,
};

/// The program.
pub fn main() -> ExitCode {
    cli::program(|cli: GradeArgs| run(&cli).map_err(|GradeFailure(code, message)| Exit { code, message }))
}

fn run(cli: &GradeArgs) -> Result<ExitCode, GradeFailure> {
    if let Some(path) = &cli.audit {
        return audit::run(cli, path);
    }
    let config = cli.config()?;
    let mut reward = Scorer::new(&config)?;
    let mut input = Lines::open(&cli.file)?;
    let mut output = Sink::open(cli.out.as_deref())?;
    let keys = LineKeys {
        given: &cli.given_key,
        response: &cli.response_key,
        truth: &cli.truth_key,
        length_needed: config.overlong.max_response_length > 0,
        row_wanted: !config.functions.is_empty(),
    };
    let begun = Instant::now();
    let mut totals = Totals::default();
    loop {
        let (lines, last) = input.chunk()?;
        let rows: Vec<Result<GradedLine, String>> =
            lines.par_iter().map(|line| GradedLine::parse(&line.bytes, &keys)).collect();
        let scores = score(&mut reward, &config, &rows)?;
        let written: Vec<String> = rows
            .par_iter()
            .zip(&scores)
            .zip(&lines)
            .map(|((row, score), line)| match (row, score) {
                (Ok(row), Ok(score)) => row.with_score(score),
                (Ok(row), Err(problem)) => row.with_error(problem),
                (Err(problem), _) => row::unread(line.number, problem, &line.bytes),
            })
            .collect();
        for ((row, score), line) in rows.iter().zip(&scores).zip(&lines) {
            match (row, score) {
                (Err(problem), _) | (_, Err(problem)) => totals.bad(&input.name, line.number, problem),
                (_, Ok(score)) => totals.add(score),
            }
        }
        for line in written {
            if !output.line(&line)? {
                return Ok(ExitCode::SUCCESS); // nobody reads on
            }
        }
        if last {
            break;
        }
    }
    if totals.graded + totals.bad == 0 {
        return Err(GradeFailure(2, format!("{}: no lines to grade", input.name)));
    }
    reward.finish().map_err(|e| GradeFailure(1, e.to_string()))?;
    output.finish()?;
    let how = match config.command.first().or(config.functions.first()) {
        Some(program) => program.clone(),
        None if !config.reward_type.has_grader() => config.reward_type.to_string(),
        None => format!("{}, {}", config.reward_type, config.grader),
    };
    totals.report(&how, begun.elapsed().as_secs_f64());
    Ok(ExitCode::from(match (totals.graded, totals.bad) {
        (_, 0) => 0,
        (0, _) => 2,
        _ => 1,
    }))
}

/// A score, or why there is none, for each row.
fn score(
    reward: &mut Scorer,
    config: &RewardConfig,
    rows: &[Result<GradedLine, String>],
) -> Result<Vec<Result<Score, String>>, GradeFailure> {
    if !config.is_own() {
        let reward = &*reward;
        let one = |row: &GradedLine| match row.fields.as_ref().map_err(String::clone)? {
            fields if fields.extracted => Ok(reward.score_given(&fields.request())),
            fields => Ok(reward.score_one(&fields.request())),
        };
        return Ok(rows.par_iter().map(|row| row.as_ref().map_err(String::clone).and_then(one)).collect());
    }
    let fields = |row: &Result<GradedLine, String>| match row {
        Ok(row) => row.fields.as_ref().map(|_| ()).map_err(String::clone),
        Err(problem) => Err(problem.clone()),
    };
    let requests: Vec<Request> =
        rows.iter().flatten().filter_map(|row| row.fields.as_ref().ok()).map(|fields| fields.request()).collect();
    let mut scores = reward.score(&requests)?.into_iter();
    Ok(rows
        .iter()
        .map(|row| fields(row).and_then(|()| scores.next().ok_or_else(|| "the command gave no score".to_owned())))
        .collect())
}

/// A line of the input and its number, from 1.
struct InputLine {
    number: u64,
    bytes: Result<Vec<u8>, String>,
}

/// The input, chunk by chunk.
struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, GradeFailure> {
        if path == Path::new("-") {
            if std::io::stdin().is_terminal() {
                return Err(GradeFailure(
                    2,
                    "standard input is a terminal; name a file of JSON lines, or pipe one in".into(),
                ));
            }
            let reader = Box::new(BufReader::with_capacity(1 << 16, std::io::stdin()));
            return Ok(Self { name: "standard input".into(), reader, number: 0 });
        }
        let name = path.display().to_string();
        let fail = |reason: String| GradeFailure(2, format!("{name}: {reason}"));
        let file = File::open(path).map_err(|e| fail(format!("cannot be opened: {e}")))?;
        if file.metadata().is_ok_and(|kind| kind.is_dir()) {
            return Err(fail("is a folder; name a file of JSON lines".into()));
        }
        Ok(Self { reader: Box::new(BufReader::with_capacity(1 << 16, file)), number: 0, name })
    }

    /// Some lines that are not empty, and whether they are the last.
    fn chunk(&mut self) -> Result<(Vec<InputLine>, bool), GradeFailure> {
        let fail = |name: &str, e: std::io::Error| GradeFailure(1, format!("{name}: cannot be read: {e}"));
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < CHUNK_LINES && bytes < CHUNK_BYTES {
            let mut line = Vec::new();
            let read = (&mut self.reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
            if read.map_err(|e| fail(&self.name, e))? == 0 {
                return Ok((lines, true));
            }
            self.number += 1;
            if self.number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
            }
            bytes += line.len();
            if line.len() > MAX_LINE {
                skip_line(&mut self.reader).map_err(|e| fail(&self.name, e))?;
                let problem = format!("the line is longer than {} MiB", MAX_LINE >> 20);
                lines.push(InputLine { number: self.number, bytes: Err(problem) });
            } else if !line.trim_ascii().is_empty() {
                lines.push(InputLine { number: self.number, bytes: Ok(line) });
            }
        }
        Ok((lines, false))
    }
}

/// Reads on behind the next line break.
fn skip_line(reader: &mut dyn BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|&b| b == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// Where the lines go. A file is written under a temporary name, and renamed when it is complete.
struct Sink {
    writer: BufWriter<Box<dyn Write>>,
    name: String,
    rename: Option<(PathBuf, PathBuf)>,
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self, GradeFailure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            let writer = BufWriter::new(Box::new(std::io::stdout()) as Box<dyn Write>);
            return Ok(Self { writer, name: "standard output".into(), rename: None });
        };
        let name = format!("--out {}", path.display());
        let fail = |reason: String| GradeFailure(2, format!("{name}: cannot be written: {reason}"));
        // A link keeps pointing to its target.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let kind = path.metadata().ok();
        if kind.as_ref().is_some_and(|kind| kind.is_dir()) {
            return Err(fail("it is a folder; name a file".into()));
        }
        let (target, rename) = match (kind, path.file_name()) {
            // A pipe or a device has no name to give away.
            (Some(kind), _) if !kind.is_file() => (path, None),
            (_, None) => return Err(fail("it names no file".into())),
            (_, Some(file)) => {
                let temporary = path.with_file_name(format!(".{}.{}.tmp", file.to_string_lossy(), std::process::id()));
                (temporary.clone(), Some((temporary, path)))
            }
        };
        let file = match rename {
            Some(_) => File::create(&target),
            None => File::options().write(true).open(&target),
        };
        let file = file.map_err(|e| fail(e.to_string()))?;
        Ok(Self { writer: BufWriter::new(Box::new(file)), name, rename })
    }

    /// False when the reader of a pipe has gone.
    fn line(&mut self, line: &str) -> Result<bool, GradeFailure> {
        match self.writer.write_all(line.as_bytes()).and_then(|()| self.writer.write_all(b"\n")) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(e) => Err(GradeFailure(1, format!("{}: cannot be written: {e}", self.name))),
        }
    }

    fn finish(mut self) -> Result<(), GradeFailure> {
        let done = match self.writer.flush() {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other,
        };
        let done = done.and_then(|()| match self.rename.take() {
            Some((temporary, path)) => std::fs::rename(&temporary, &path).inspect_err(|_| {
                let _ = std::fs::remove_file(&temporary); // the rename's error is the one to report
            }),
            None => Ok(()),
        });
        done.map_err(|e| GradeFailure(1, format!("{}: cannot be written: {e}", self.name)))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.rename {
            let _ = std::fs::remove_file(temporary); // on the way out after an error that is reported
        }
    }
}

/// What the summary says.
#[derive(Default)]
struct Totals {
    graded: u64,
    bad: u64,
    accuracy: f64,
    format: f64,
    overall: f64,
}

impl Totals {
    fn add(&mut self, score: &Score) {
        self.graded += 1;
        self.accuracy += score.accuracy;
        self.format += score.format;
        self.overall += score.overall;
    }

    fn bad(&mut self, name: &str, number: u64, problem: &str) {
        self.bad += 1;
        if self.bad <= NAMED {
            eprintln!("{}", guard::printable(&format!("{name}:{number}: {problem}")));
        }
    }

    fn report(&self, how: &str, seconds: f64) {
        if self.bad > NAMED {
            eprintln!("... and {} more lines that could not be graded", self.bad - NAMED);
        }
        let bad = match self.bad {
            0 => String::new(),
            1 => "; 1 line could not be graded".into(),
            n => format!("; {n} lines could not be graded"),
        };
        let mean = |sum: f64| sum / self.graded.max(1) as f64;
        let means = match self.graded {
            0 => String::new(),
            _ => format!(
                ": mean accuracy {:.4}, format {:.4}, overall {:.4}",
                mean(self.accuracy),
                mean(self.format),
                mean(self.overall)
            ),
        };
        let rows = if self.graded == 1 { "row" } else { "rows" };
        eprintln!("{} {rows} graded by {how} in {seconds:.2} s{means}{bad}", self.graded);
    }
}
