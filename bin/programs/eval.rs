//! `eval`: a model answers benchmarks, or answers made elsewhere are graded; a table with standard errors at the end.

mod options;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::common::model::Model;
use crate::common::{Failure, OnBackend, interrupt_flag, on_backend, print};
use answer::audit::{AuditLog, Compared};
use burn::tensor::DType;
use clap::Parser;
use data::Processor;
use eval::log::{AnswerLog, OutputFolder};
use eval::predictions::{Grading, grade_file};
use eval::results::{BenchmarkResult, SetAside};
use eval::run::{Answering, Context, answer, fingerprint};
use eval::task::Task;
use eval::{EvalError, Record, Results, report};
use indicatif::{ProgressBar, ProgressStyle};
use model_qwen2vl::{Kernels, QwenVl, QwenVlConfig};
use options::{Answer, Options, Plan};
use rl::launch::{check_folder, end_tokens};
use serde_json::{Map, Value, json};

/// Evaluate a Qwen2.5-VL model on benchmarks, or grade answers that were made elsewhere.
///
/// Greedy with one answer a question by default, as VGPO reports; --samples 8 --temperature 1 as VPPO does. Answers do not
/// depend on the batch size. A killed or interrupted run goes on where it was when the same command is given again.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  eval --model DIR --benchmark geo3k=geometry3k@test --benchmark mathvista=mathvista.parquet --out results/mine
  eval --model runs/toy --benchmark 'sums=toy:sum?rows=2&cols=2&split=test&size=200' --max-new-tokens 64 --out results/toy
  eval --config evaluation.toml --model DIR --out results/mine
  eval --from predictions.jsonl --benchmark mathverse

Benchmarks: mathvista, mathverse, wemath, mmk12, geomath, geometry3k, logicvista, superclevr-counting, mmmu-pro, mathverse-v,
mathverse-testmini, mathvision, dynamath, custom:NAME. docs/evaluation.md has their prompts, answer rules and groups.
Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted."
)]
struct Args {
    /// Options in a TOML file, under the same names with underscores; benchmarks = ["NAME=PATH"] or [[benchmarks]] tables.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        Self::with_code(error.exit_code(), error)
    }
}

/// Everything that is settled before the weights are read.
struct Evaluate {
    plan: Answer,
    folder: PathBuf,
    config: QwenVlConfig,
    processor: Arc<Processor>,
    tasks: Vec<Task>,
    output: OutputFolder,
    fingerprint: String,
    interrupt: Arc<AtomicBool>,
}

impl Evaluate {
    fn new(plan: Answer, interrupt: Arc<AtomicBool>) -> Result<Self, Failure> {
        let model = Model::find(&plan.model)?;
        let config = QwenVlConfig::from_folder(&model.folder)?;
        let processor = model.processor(plan.pictures)?;
        let Model { folder, run } = model;
        check_folder(&folder, &processor, &config)?;
        // A prompt that does not fit the model is set aside anyway.
        let most = plan.max_prompt_length.unwrap_or(config.text.max_position_embeddings);
        let processor = Arc::new(processor.with_max_prompt_length(most));
        // A model is asked as it was trained, unless the user says otherwise.
        let run = run.unwrap_or_default();
        let tasks = plan.tasks.iter().cloned().map(|mut spec| {
            spec.format_prompt = spec.format_prompt.or_else(|| run.format_prompt.clone());
            spec.system_prompt = spec.system_prompt.or_else(|| run.system_prompt.clone());
            Task::open(spec, &processor, plan.max_prompt_length)
        });
        let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
        let output = OutputFolder::open(&plan.out)?;
        let fingerprint = fingerprint(&folder)?;
        Ok(Self { plan, folder, config, processor, tasks, output, fingerprint, interrupt })
    }

    fn answering(&self) -> Answering {
        Answering {
            samples: self.plan.samples,
            sampling: self.plan.sampling.clone(),
            max_new_tokens: self.plan.max_new_tokens,
            batch_size: self.plan.batch_size,
            prefill_token_budget: rl::config::Rollout::default().prefill_token_budget,
        }
    }

    /// What all answers of the run depend on.
    fn settings<B: Kernels>(&self, device: &B::Device, dtype: DType) -> Map<String, Value> {
        let limits = self.processor.limits();
        let mut map = Map::new();
        map.insert("model_fingerprint".into(), json!(self.fingerprint));
        map.extend(self.answering().settings());
        map.insert("min_pixels".into(), json!(limits.min_pixels));
        map.insert("max_pixels".into(), json!(limits.max_pixels));
        map.insert("run_min_pixels".into(), json!(limits.run.min_pixels));
        map.insert("run_max_pixels".into(), json!(limits.run.max_pixels));
        map.insert("alpha".into(), json!(limits.alpha));
        map.insert("exif_orientation".into(), json!(limits.exif_orientation));
        map.insert("backend".into(), json!(B::name(device)));
        map.insert("dtype".into(), json!(format!("{dtype:?}").to_lowercase()));
        map
    }
}

impl OnBackend for Evaluate {
    type Output = Result<(), Failure>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        let shared = self.settings::<B>(&device, dtype);
        let answering = self.answering();
        // Settings that differ are known before the weights are read.
        let mut logs = Vec::new();
        for task in &self.tasks {
            let mut settings = shared.clone();
            settings.extend(task.settings());
            logs.push(AnswerLog::open(&self.output, &task.name, &settings, answering.samples)?);
        }
        let model = QwenVl::<B>::load(&self.folder, dtype, &device)?;
        let context = Context {
            processor: &self.processor,
            eos: end_tokens(&self.folder, &self.config, &self.processor)?,
            max_positions: self.config.text.max_position_embeddings,
            interrupt: &self.interrupt,
        };
        let mut results = Vec::new();
        let mut audited = Vec::new();
        for (task, mut log) in self.tasks.iter().zip(logs) {
            let mut progress = Progress::new(&task.name, task.rows);
            let aside = answer(&model, task, &answering, &context, &mut log, |done| progress.at(done))?;
            drop(progress);
            let mut records = log.finish(&self.output)?;
            // An earlier run may have had a higher limit.
            records.retain(|r| r.row < task.rows);
            let mut result = BenchmarkResult::new(&task.name, task.benchmark, &records);
            result.set_aside = aside.rows.iter().map(SetAside::from).collect();
            result.other_rows = aside.others;
            let repeated = task.rows_with_repeated_ids();
            if repeated > 0 {
                result.notes.push(format!("{repeated} rows share their id with another; they are named by row number"));
            }
            results.push(result);
            if self.plan.audit.is_some() {
                audited.extend(records);
            }
        }
        let mut settings = Map::new();
        settings.insert("model".into(), json!(self.plan.model));
        settings.extend(shared);
        let tasks = self.tasks.iter().map(|t| (t.name.clone(), Value::Object(t.settings())));
        settings.insert("benchmarks".into(), Value::Object(tasks.collect()));
        let results = Results::new(settings, results);
        write(&self.output, &results)?;
        print(&report::markdown(&results))?;
        audit(self.plan.audit.as_deref(), &audited)?;
        match results.benchmarks.iter().find(|b| b.score.answers == 0) {
            None => Ok(()),
            Some(empty) => {
                let first = empty
                    .set_aside
                    .first()
                    .map_or("all rows belong to other benchmarks".to_owned(), |s| format!("{}: {}", s.place, s.reason));
                Err(Failure::input(format!("{}: no row can be used: {first}", empty.name)))
            }
        }
    }
}

fn write(folder: &OutputFolder, results: &Results) -> Result<(), Failure> {
    folder.write("results.md", &report::markdown(results))?;
    folder.write("results.csv", &report::csv(results))?;
    folder.write("results.json", &(serde_json::to_string_pretty(results).map_err(Failure::other)? + "\n"))?;
    Ok(())
}

/// Rows done, on standard error: a moving line on a terminal, now and then a line otherwise.
struct Progress {
    bar: Option<ProgressBar>,
    name: String,
    rows: usize,
    said: Instant,
}

/// Without a terminal, this often.
const QUIET: Duration = Duration::from_secs(30);

impl Progress {
    fn new(name: &str, rows: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(rows as u64);
            if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} rows, {eta} left") {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar
        });
        Self { bar, name: name.to_owned(), rows, said: Instant::now() }
    }

    fn at(&mut self, done: usize) {
        match &self.bar {
            Some(bar) => bar.set_position(done as u64),
            None if self.said.elapsed() >= QUIET => {
                self.said = Instant::now();
                eprintln!("{}: {done} of {} rows", self.name, self.rows);
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Where the graders disagree on answers, when that was asked for.
fn audit<'r>(path: Option<&Path>, records: impl IntoIterator<Item = &'r Record>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let failed = |e: std::io::Error| Failure::input(format!("--audit {}: cannot be written: {e}", path.display()));
    let mut log = AuditLog::create(path).map_err(failed)?;
    for record in records {
        let Some(given) = &record.extracted else { continue };
        let id = format!("{}/{}/{}", record.benchmark, record.id, record.sample);
        log.add(&Compared::new(id, given.clone(), record.answer.clone())).map_err(failed)?;
    }
    print(&format!("\n{}", log.finish().map_err(failed)?))
}

/// Answers made elsewhere.
fn grade(from: &Path, out: Option<&Path>, to_audit: Option<&Path>, grading: &Grading) -> Result<(), Failure> {
    let output = out.map(OutputFolder::open).transpose()?;
    let graded = grade_file(from, grading)?;
    let mut settings = Map::new();
    settings.insert("from".into(), json!(from));
    settings.insert("grader".into(), json!(grading.rule));
    settings.insert("extract".into(), json!(grading.extract));
    if let Some(output) = &output {
        for file in &graded {
            // Such answers must not be taken for those of a model that goes on here.
            if output.path(&format!("{}.settings.json", file.name)).exists() {
                return Err(Failure::input(format!(
                    "--out {}: holds answers to {} that a model gave; choose another folder",
                    output.path("").display(),
                    file.name
                )));
            }
            let line = |r: &Record| serde_json::to_string(r).map(|l| l + "\n").map_err(Failure::other);
            let lines = file.records.iter().map(line).collect::<Result<String, _>>()?;
            output.write(&format!("{}.jsonl", file.name), &lines)?;
        }
    }
    let records: Vec<Record> = match to_audit {
        Some(_) => graded.iter().flat_map(|file| file.records.iter().cloned()).collect(),
        None => Vec::new(),
    };
    let results = Results::new(settings, graded.into_iter().map(|g| g.result).collect());
    if let Some(output) = &output {
        write(output, &results)?;
    }
    print(&report::markdown(&results))?;
    audit(to_audit, &records)
}

fn options(args: Args) -> Result<Options, Failure> {
    let Some(path) = args.config else { return Ok(args.options) };
    let fail = |reason: String| Failure::input(format!("--config {}: {reason}", path.display()));
    let text = guard::file::read_text(&path, guard::limits().config_bytes)
        .map_err(|e| fail(format!("cannot be read: {e}")))?;
    let file: Options = toml::from_str(&text).map_err(|e| fail(e.to_string().trim().to_owned()))?;
    Ok(args.options.over(file))
}

fn run(args: Args) -> Result<(), Failure> {
    match options(args)?.plan()? {
        Plan::Grade { from, out, audit, grading } => grade(&from, out.as_deref(), audit.as_deref(), &grading),
        Plan::Answer(plan) => {
            let (backend, dtype) = (plan.backend, plan.dtype);
            on_backend(backend, dtype, Evaluate::new(*plan, interrupt_flag(None)?)?)?
        }
    }
}

/// The program.
pub fn main() -> ExitCode {
    crate::common::program(|args: Args| run(args).map(|()| ExitCode::SUCCESS))
}
