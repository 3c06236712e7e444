//! What `eval` is to do: its options, checked once.

use std::path::PathBuf;

use eval::predictions::Grading;
use eval::run::Answering;
use eval::session::Asking;
use eval::task::TaskSpec;
use eval::{Benchmark, Extract, Rule};
use launch::PictureOptions;
use rl::sampler::Sampling;

use super::options::{BenchmarkEntry, BenchmarkTable, Options, each_field};
use crate::common::{Failure, check_temperature, check_top_p, chosen, ranges};

/// What is to be done.
pub(super) enum EvalPlan {
    /// A model answers benchmarks.
    Answer(Box<AnswerPlan>),
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
pub(super) struct AnswerPlan {
    /// What is asked of which model.
    pub asking: Asking,
    /// Where disagreements of the graders go.
    pub audit: Option<PathBuf>,
    /// Where it is computed.
    pub backend: rl::config::Backend,
    /// In which numbers.
    pub dtype: rl::config::Dtype,
}

impl Options {
    /// Checks everything that can be checked without opening a file.
    pub(super) fn plan(self) -> Result<EvalPlan, Failure> {
        match self.from.clone() {
            Some(from) => self.grade(from),
            None => self.answer().map(|answer| EvalPlan::Answer(Box::new(answer))),
        }
    }

    fn grade(self, from: PathBuf) -> Result<EvalPlan, Failure> {
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
            self.benchmark.iter().cloned().chain(self.benchmarks.iter().map(BenchmarkEntry::text)).collect();
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
        Ok(EvalPlan::Grade { from, out: self.out, audit: self.audit, grading })
    }

    fn answer(self) -> Result<AnswerPlan, Failure> {
        let Some(model) = self.model.clone() else {
            return Err(Failure::input(
                "--model is missing; name a model folder, or grade answers made elsewhere with --from",
            ));
        };
        let Some(out) = self.out.clone() else {
            return Err(Failure::input("--out is missing; name a folder for answers and results"));
        };
        self.check_ranges()?;
        let answering = self.answering()?;
        let tasks = self.tasks()?;
        if tasks.is_empty() {
            return Err(Failure::input("--benchmark is missing; give NAME=PATH, for example geo3k=geometry3k.parquet"));
        }
        for (k, task) in tasks.iter().enumerate() {
            if tasks[..k].iter().any(|t| t.name.eq_ignore_ascii_case(&task.name)) {
                return Err(Failure::input(format!(
                    "the benchmark {} is given twice; use custom:OTHER_NAME=PATH for one",
                    task.name
                )));
            }
        }
        let pictures = PictureOptions {
            min_pixels: self.min_pixels,
            max_pixels: self.max_pixels,
            alpha: self.alpha,
            exif_orientation: self.exif_orientation,
        };
        let max_prompt_length = self.max_prompt_length;
        Ok(AnswerPlan {
            asking: Asking { model, out, tasks, answering, max_prompt_length, pictures },
            audit: self.audit.clone(),
            backend: chosen("backend", self.backend.as_deref().unwrap_or("auto"))?,
            dtype: chosen("dtype", self.dtype.as_deref().unwrap_or("auto"))?,
        })
    }

    /// Counts and pixels, each within its range.
    fn check_ranges(&self) -> Result<(), Failure> {
        let fail = |text: String| Err(Failure::input(text));
        for (name, value, most) in [
            ("--samples", self.samples, *ranges::RESPONSES.end()),
            ("--max-new-tokens", self.max_new_tokens, *ranges::TOKENS.end()),
            ("--batch-size", self.batch_size, *ranges::RESPONSES.end()),
            ("--limit", self.limit, *ranges::ROWS.end()),
            ("--max-prompt-length", self.max_prompt_length, *ranges::TOKENS.end()),
        ] {
            match value {
                Some(0) => return fail(format!("{name} 0 leaves nothing to do; use 1 or more")),
                Some(value) if value as u64 > most => {
                    return fail(format!("{name} {value} is out of range; it is 1 to {most}"));
                }
                _ => {}
            }
        }
        for (name, value) in [("--min-pixels", self.min_pixels), ("--max-pixels", self.max_pixels)] {
            if let Some(value) = value.filter(|value| !ranges::PIXELS.contains(value)) {
                let (least, most) = ranges::PIXELS.into_inner();
                return fail(format!("{name} {value} is out of range; it is {least} to {most}"));
            }
        }
        Ok(())
    }

    /// How answers are made.
    fn answering(&self) -> Result<Answering, Failure> {
        let samples = self.samples.unwrap_or(1);
        let temperature = self.temperature.unwrap_or(0.0);
        let top_p = self.top_p.unwrap_or(1.0);
        check_temperature(temperature)?;
        check_top_p(top_p)?;
        if temperature == 0.0 && samples > 1 {
            return Err(Failure::input(format!(
                "--samples {samples}: greedy answers are all the same; give --temperature 1.0, or one sample"
            )));
        }
        if temperature == 0.0 && self.top_p.is_some() {
            return Err(Failure::input("--top-p has no effect on greedy answers; give a --temperature above 0"));
        }
        Ok(Answering {
            samples,
            sampling: Sampling { temperature, top_p, seed: self.seed.unwrap_or(0) },
            max_new_tokens: self.max_new_tokens.unwrap_or(2048),
            batch_size: self.batch_size.unwrap_or(32),
            prefill_token_budget: rl::config::Rollout::default().prefill_token_budget,
        })
    }

    fn tasks(&self) -> Result<Vec<TaskSpec>, Failure> {
        let mut tasks = Vec::new();
        for text in &self.benchmark {
            tasks.push(self.complete(TaskSpec::parse(text)?, None)?);
        }
        for entry in &self.benchmarks {
            tasks.push(match entry {
                BenchmarkEntry::Short(text) => self.complete(TaskSpec::parse(text)?, None)?,
                BenchmarkEntry::Table(table) => self.complete(TaskSpec::new(&table.name, &table.path)?, Some(table))?,
            });
        }
        Ok(tasks)
    }

    /// Fills in what the run or the benchmark's own table says.
    fn complete(&self, mut task: TaskSpec, table: Option<&BenchmarkTable>) -> Result<TaskSpec, Failure> {
        macro_rules! pick {
            ($field:ident) => {
                table.and_then(|t| t.$field.clone()).or_else(|| self.$field.clone())
            };
        }
        task.keys = table.map(BenchmarkTable::keys).unwrap_or_default().or(&self.keys());
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

fn parse_rule(name: &str) -> Result<Rule, Failure> {
    name.parse().map_err(Failure::input)
}

fn parse_extract(name: &str) -> Result<Extract, Failure> {
    name.parse().map_err(Failure::input)
}
