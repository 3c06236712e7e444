//! A model and its benchmarks, from the folder that was named to the table.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use comm::Ranks;
use data::Processor;
use launch::{ModelFolder, PictureOptions};
use model_qwen2vl::Kernels;
use serde_json::{Map, Value, json};

use crate::error::EvalError;
use crate::log::{AnswerLog, OutputFolder};
use crate::record::Record;
use crate::results::{BenchmarkResult, Results, UnusedRows};
use crate::run::{Answering, Context, answer, fingerprint};
use crate::task::{Task, TaskSpec};

/// What is asked of which model.
#[derive(Debug, Clone)]
pub struct Asking {
    /// As the user named it.
    pub model: PathBuf,
    /// The output folder.
    pub out: PathBuf,
    /// In order; names are distinct.
    pub tasks: Vec<TaskSpec>,
    /// How answers are made.
    pub answering: Answering,
    /// Longer prompts are set aside, in tokens. None: those that do not fit the model.
    pub max_prompt_length: Option<usize>,
    /// How pictures are seen, where that is said.
    pub pictures: PictureOptions,
}

/// Whoever looks at an evaluation.
pub trait EvalWatcher {
    /// A benchmark of so many rows begins.
    fn begin(&mut self, name: &str, rows: usize);
    /// So many of its rows are done.
    fn at(&mut self, rows: usize);
    /// It ends, with these answers.
    fn end(&mut self, records: Vec<Record>);
}

/// Everything that is settled before the weights are read.
///
/// ```no_run
/// use burn::tensor::DType;
/// use eval::Record;
/// use eval::run::Answering;
/// use eval::session::{Asking, EvalWatcher, Evaluation};
/// use eval::task::TaskSpec;
///
/// struct Silent;
/// impl EvalWatcher for Silent {
///     fn begin(&mut self, _: &str, _: usize) {}
///     fn at(&mut self, _: usize) {}
///     fn end(&mut self, _: Vec<Record>) {}
/// }
///
/// fn evaluate(answering: Answering) -> Result<(), eval::EvalError> {
///     let asking = Asking {
///         model: "runs/toy".into(),
///         out: "runs/toy/eval".into(),
///         tasks: vec![TaskSpec::parse("mathvista=testmini.parquet")?],
///         answering,
///         max_prompt_length: None,
///         pictures: Default::default(),
///     };
///     let evaluation = Evaluation::open(asking, comm::Ranks::solo())?;
///     let stop = Default::default();
///     let results = evaluation.run::<burn_flex::Flex>(&Default::default(), DType::F32, &stop, &mut Silent)?;
///     println!("{}", eval::report::markdown(&results));
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Evaluation {
    asking: Asking,
    ranks: Ranks,
    folder: ModelFolder,
    processor: Arc<Processor>,
    tasks: Vec<Task>,
    output: OutputFolder,
    fingerprint: String,
}

impl Evaluation {
    /// Opens the model, the benchmarks and the output folder. A model is asked as it was trained, where the specs say
    /// nothing else. Each of `ranks` does so, with the same questions.
    ///
    /// # Errors
    /// Whatever of them cannot be used.
    pub fn open(asking: Asking, ranks: Ranks) -> Result<Self, EvalError> {
        let folder = ModelFolder::open(&asking.model)?;
        let positions = folder.config()?.text.max_position_embeddings;
        // A prompt that does not fit the model is set aside anyway.
        let most = asking.max_prompt_length.unwrap_or(positions);
        let processor = Arc::new(folder.processor(asking.pictures)?.with_max_prompt_length(most));
        let open = |spec: &TaskSpec| Task::open(spec.clone().after(folder.run()), &processor, asking.max_prompt_length);
        let tasks = asking.tasks.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let output = match ranks.is_first() {
            true => OutputFolder::open(&asking.out)?,
            false => OutputFolder::follow(&asking.out),
        };
        let fingerprint = fingerprint(folder.path())?;
        Ok(Self { asking, ranks, folder, processor, tasks, output, fingerprint })
    }

    /// What all answers of the run depend on.
    fn settings<B: Kernels>(&self, device: &B::Device, dtype: DType) -> Map<String, Value> {
        let limits = self.processor.limits();
        let mut map = Map::new();
        map.insert("model_fingerprint".into(), json!(self.fingerprint));
        map.extend(self.asking.answering.settings());
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

    /// Answers what is not answered yet, and writes the results; a benchmark of which no row could be used is among
    /// them.
    ///
    /// # Errors
    /// Answers of other settings in the output folder, weights that cannot be used, an interrupt.
    pub fn run<B: Kernels>(
        &self,
        device: &B::Device,
        dtype: DType,
        interrupt: &AtomicBool,
        watcher: &mut dyn EvalWatcher,
    ) -> Result<Results, EvalError> {
        let shared = self.settings::<B>(device, dtype);
        let answering = &self.asking.answering;
        // Settings that differ are known before the weights are read.
        let logs = self.logs(&shared)?;
        let model = self.folder.load::<B>(dtype, device)?;
        let context = Context {
            processor: &self.processor,
            eos: self.folder.end_tokens(&self.processor)?,
            max_positions: self.folder.config()?.text.max_position_embeddings,
            interrupt,
            ranks: &self.ranks,
        };
        let mut results = Vec::new();
        for (task, mut log) in self.tasks.iter().zip(logs) {
            watcher.begin(&task.name, task.rows);
            let aside = answer(&model, task, answering, &context, &mut log, |done| watcher.at(done))?;
            let aside = aside.of_all(&self.ranks)?;
            let mut records = log.finish(&self.output, &self.ranks)?;
            // An earlier run may have had a higher limit.
            records.retain(|r| r.row < task.rows);
            let mut result = BenchmarkResult::new(&task.name, task.benchmark, &records);
            result.set_aside = aside.rows.iter().map(UnusedRows::from).collect();
            result.other_rows = aside.others;
            let repeated = task.rows_with_repeated_ids();
            if repeated > 0 {
                result.notes.push(format!("{repeated} rows share their id with another; they are named by row number"));
            }
            results.push(result);
            watcher.end(records);
        }
        let mut settings = Map::new();
        settings.insert("model".into(), json!(self.asking.model));
        settings.extend(shared);
        let tasks = self.tasks.iter().map(|t| (t.name.clone(), Value::Object(t.settings())));
        settings.insert("benchmarks".into(), Value::Object(tasks.collect()));
        let results = Results::new(settings, results);
        if self.ranks.is_first() {
            results.write(&self.output)?;
        }
        self.ranks.barrier("results")?;
        Ok(results)
    }

    /// The logs of all benchmarks: the first rank's, and then those of the others.
    fn logs(&self, shared: &Map<String, Value>) -> Result<Vec<AnswerLog>, EvalError> {
        let open = |task: &Task| {
            let mut settings = shared.clone();
            settings.extend(task.settings());
            AnswerLog::open(&self.output, &task.name, &settings, self.asking.answering.samples)
        };
        let first = match self.ranks.is_first() {
            true => self.tasks.iter().map(open).collect::<Result<Vec<_>, _>>()?,
            false => vec![],
        };
        self.ranks.barrier("answers so far")?;
        match self.ranks.is_first() {
            true => Ok(first),
            false => {
                let part = |task: &Task| AnswerLog::part(&self.output, &task.name, self.ranks.rank());
                self.tasks.iter().map(part).collect()
            }
        }
    }
}
