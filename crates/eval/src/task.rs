//! One benchmark of a run: its file, its prompt, its rule; and how a row of it becomes a question.

use std::path::PathBuf;
use std::sync::Arc;

use data::prompt::{IMAGE_PLACEHOLDER, names_pictures};
use data::{
    BadRow, DataSpec, Dataset, Encoded, FormatPrompt, KeyOptions, Processor, Sample, build_prompt, count_prompt_tokens,
};
use launch::RunSettings;
use serde_json::{Map, Value, json};

use crate::benchmark::{Benchmark, FORMAT_PROMPT};
use crate::error::EvalError;
use crate::rule::{Extract, Rule, choices};

/// What a user says about a benchmark; what is left out is the benchmark's own.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSpec {
    /// Name in files and in the table.
    pub name: String,
    /// What is known about it.
    pub benchmark: &'static Benchmark,
    /// A data source: file, folder, glob, `path@split`, `toy:NAME?key=value`.
    pub path: String,
    /// Column names, as far as they were given.
    pub keys: KeyOptions,
    /// Folder that picture paths are relative to.
    pub image_dir: Option<PathBuf>,
    /// Built-in prompt or `.jinja` file.
    pub format_prompt: Option<String>,
    /// System message.
    pub system_prompt: Option<String>,
    /// When an answer is right.
    pub grader: Option<Rule>,
    /// Where an answer stands.
    pub extract: Option<Extract>,
    /// Only the first rows.
    pub limit: Option<usize>,
}

impl TaskSpec {
    /// Asks as the run of the model did, where nothing else was said.
    pub fn after(mut self, run: &RunSettings) -> Self {
        self.format_prompt = self.format_prompt.or_else(|| run.format_prompt.clone());
        self.system_prompt = self.system_prompt.or_else(|| run.system_prompt.clone());
        self.keys = self.keys.or(&run.keys);
        self
    }

    /// From `NAME=PATH`, `custom:NAME=PATH`, or any name with a toy source.
    ///
    /// # Errors
    /// No `=`, an unknown benchmark, a name that is no file name.
    pub fn parse(text: &str) -> Result<Self, EvalError> {
        let Some((name, path)) = text.split_once('=').filter(|(name, path)| !name.is_empty() && !path.is_empty())
        else {
            return Err(EvalError::Input(format!("--benchmark {text:?} is not NAME=PATH")));
        };
        Self::new(name, path)
    }

    /// As [`parse`](Self::parse), from the two halves.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn new(name: &str, path: &str) -> Result<Self, EvalError> {
        let toy = path.starts_with("toy:");
        let (name, benchmark) = match name.strip_prefix("custom:") {
            Some(own) => (own.to_owned(), Benchmark::custom()),
            None => match Benchmark::find(name) {
                Ok(found) => (found.name.to_owned(), found),
                // A toy task is no benchmark that anybody knows; it may be called anything.
                Err(_) if toy => (name.to_owned(), Benchmark::custom()),
                Err(error) => return Err(error),
            },
        };
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || name == "results" || !name.chars().all(fit) {
            return Err(EvalError::Input(format!(
                "benchmark name {name:?}: it names files; use letters, digits, - and _ (and not \"results\")"
            )));
        }
        Ok(Self {
            name,
            benchmark,
            path: path.to_owned(),
            keys: KeyOptions::default(),
            image_dir: None,
            format_prompt: None,
            system_prompt: None,
            grader: None,
            extract: None,
            limit: None,
        })
    }
}

/// A benchmark, opened.
#[derive(Debug)]
pub struct Task {
    /// Name in files and in the table.
    pub name: String,
    /// What is known about it.
    pub benchmark: &'static Benchmark,
    /// When an answer is right.
    pub rule: Rule,
    /// Where an answer stands.
    pub extract: Extract,
    /// Rows that may be asked: all of the file, or the first of them.
    pub rows: usize,
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) asker: Arc<Asker>,
    spec: TaskSpec,
}

/// Turns samples into prompts, on any thread.
#[derive(Debug)]
pub(crate) struct Asker {
    benchmark: &'static Benchmark,
    processor: Arc<Processor>,
    format: FormatPrompt,
    system: Option<String>,
    max_prompt_length: Option<usize>,
}

/// A row, looked at.
pub(crate) enum Asked {
    /// Ready for the model.
    Question(Box<(Sample, Encoded)>),
    /// Not part of the benchmark.
    Other,
    /// Set aside.
    Bad(BadRow),
}

impl Task {
    /// Opens the file and the prompt.
    ///
    /// # Errors
    /// A file that cannot be read or has no rows, a bad template.
    pub(crate) fn open(
        spec: TaskSpec,
        processor: &Arc<Processor>,
        max_prompt_length: Option<usize>,
    ) -> Result<Self, EvalError> {
        let keys = spec.keys.clone().keys(spec.benchmark.columns());
        let dataset = Dataset::open(&[DataSpec::from(spec.path.as_str())], &keys, spec.image_dir.as_deref())?;
        // The toy model is trained on the bare problem.
        let usual = if spec.path.starts_with("toy:") { "none" } else { FORMAT_PROMPT };
        let format_prompt = spec.format_prompt.as_deref().unwrap_or(usual);
        let asker = Asker {
            benchmark: spec.benchmark,
            processor: processor.clone(),
            format: FormatPrompt::new(format_prompt)?,
            system: spec.system_prompt.clone(),
            max_prompt_length,
        };
        Ok(Self {
            name: spec.name.clone(),
            benchmark: spec.benchmark,
            rule: spec.grader.unwrap_or(spec.benchmark.rule),
            extract: spec.extract.unwrap_or_else(|| Extract::of_prompt(format_prompt)),
            rows: spec.limit.unwrap_or(usize::MAX).min(dataset.len()),
            dataset: Arc::new(dataset),
            asker: Arc::new(asker),
            spec,
        })
    }

    /// What the answers depend on, besides the model and the sampling.
    pub(crate) fn settings(&self) -> Map<String, Value> {
        // The size tells a file that was exchanged from the one that the answers belong to.
        let bytes = std::fs::metadata(&self.spec.path).ok().filter(|m| m.is_file()).map(|m| m.len());
        let keys = self.dataset.keys();
        let settings = json!({
            "benchmark": self.benchmark.name,
            "path": self.spec.path,
            "path_rows": self.dataset.len(),
            "path_bytes": bytes,
            "prompt_key": keys.prompt_key,
            "answer_key": keys.answer_key,
            "image_key": keys.image_key,
            "id_key": keys.id_key,
            "image_dir": self.spec.image_dir,
            "format_prompt": self.asker.format.name(),
            // A template file may change under its name.
            "format_prompt_text": self.asker.format.render("{problem}").unwrap_or_default(),
            "system_prompt": self.spec.system_prompt,
            "max_prompt_length": self.asker.max_prompt_length,
            "grader": self.rule,
            "extract": self.extract,
        });
        match settings {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// Rows of the file whose id is not theirs alone.
    pub(crate) fn rows_with_repeated_ids(&self) -> usize {
        self.dataset.rows_with_repeated_ids()
    }
}

impl Asker {
    pub(crate) fn ask(&self, row: Result<Sample, BadRow>) -> Asked {
        let mut sample = match row {
            Ok(sample) => sample,
            Err(bad) => return Asked::Bad(bad),
        };
        if !self.benchmark.has(&sample.extra) {
            return Asked::Other;
        }
        if let Some(task) = sample.task.clone() {
            sample.extra.insert("task".into(), task);
        }
        place_picture(&mut sample);
        if self.benchmark.choices {
            add_choices(&mut sample);
        }
        match self.build(&sample) {
            Ok(encoded) => Asked::Question(Box::new((sample, encoded))),
            Err(bad) => Asked::Bad(bad),
        }
    }

    fn build(&self, sample: &Sample) -> Result<Encoded, BadRow> {
        let system = self.system.as_deref();
        if sample.answer.trim().is_empty() {
            return Err(bad(sample, "the answer is empty"));
        }
        if let Some(most) = self.max_prompt_length {
            let tokens = count_prompt_tokens(sample, &self.format, &self.processor, system)?;
            if tokens > most {
                return Err(bad(
                    sample,
                    &format!("the prompt has {tokens} tokens, more than --max-prompt-length {most}"),
                ));
            }
        }
        build_prompt(sample, &self.format, &self.processor, system)
    }
}

pub(crate) fn bad(sample: &Sample, reason: &str) -> BadRow {
    BadRow { id: sample.id.clone(), index: sample.index, reason: reason.to_owned() }
}

/// MathVista's `query` and the like do not say where the picture stands. A single one stands in front.
fn place_picture(sample: &mut Sample) {
    if sample.images.len() == 1 && !names_pictures(&sample.problem) {
        sample.problem.insert_str(0, IMAGE_PLACEHOLDER);
    }
}

/// Writes the choices of a row below a problem that does not name them.
fn add_choices(sample: &mut Sample) {
    let Some(choices) = choices(&sample.extra) else { return };
    if names_choices(&sample.problem, &choices) {
        return;
    }
    sample.problem.push_str("\nChoices:");
    for (letter, choice) in ('A'..='Z').zip(choices) {
        sample.problem.push_str(&format!("\n({letter}) {}", choice.trim()));
    }
}

/// Whether all choices stand in the problem, each behind its letter and in order. That their texts occur in it says
/// nothing: most numbers and letters occur in a problem by chance.
fn names_choices(problem: &str, choices: &[String]) -> bool {
    let mut rest = problem;
    ('A'..='Z').zip(choices).all(|(letter, choice)| match after_choice(rest, letter, choice.trim()) {
        Some(after) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// What follows on `(A) choice`, `A. choice`, `A) choice` or `A: choice`.
fn after_choice<'a>(text: &'a str, letter: char, choice: &str) -> Option<&'a str> {
    text.match_indices(letter).find_map(|(at, _)| {
        if text[..at].ends_with(char::is_alphanumeric) {
            return None;
        }
        let after = text[at + 1..].strip_prefix(['.', ')', ':'])?.trim_start().strip_prefix(choice)?;
        // `(A) 35` is not the choice 3.
        let cut = choice.ends_with(char::is_alphanumeric) && after.starts_with(char::is_alphanumeric);
        (!cut).then_some(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(problem: &str, extra: &[(&str, &str)]) -> Sample {
        Sample {
            id: "a".into(),
            index: 0,
            problem: problem.into(),
            answer: "B".into(),
            images: vec![],
            task: None,
            solution: None,
            extra: extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn names_paths_and_their_mistakes() {
        let spec = TaskSpec::parse("Geo3K=a=b.parquet").unwrap();
        assert_eq!((spec.name.as_str(), spec.path.as_str()), ("geometry3k", "a=b.parquet"));
        assert_eq!(TaskSpec::parse("custom:mine=x.jsonl").unwrap().name, "mine");
        let toy = TaskSpec::parse("sums=toy:sum?rows=2").unwrap();
        assert_eq!((toy.name.as_str(), toy.format_prompt), ("sums", None));
        for (text, needle) in [
            ("geo3k", "not NAME=PATH"),
            ("=x", "not NAME=PATH"),
            ("mathvist=x.parquet", "did you mean mathvista?"),
            ("custom:a/b=x", "it names files"),
            ("custom:=x", "it names files"),
            ("custom:results=x", "it names files"),
        ] {
            let error = TaskSpec::parse(text).unwrap_err().to_string();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }

    #[test]
    fn choices_are_written_where_the_problem_lacks_them() {
        let mut row = sample("Which?", &[("options", "['3 cm', '5 cm']")]);
        add_choices(&mut row);
        assert_eq!(row.problem, "Which?\nChoices:\n(A) 3 cm\n(B) 5 cm");
        let again = row.clone();
        add_choices(&mut row);
        assert_eq!(row, again);
        let lists = [
            ("A. 3 cm; B. 5 cm?", true),
            ("A: 3 cm\nB) 5 cm", true),
            ("(A)3 cm (B)5 cm", true),
            ("Is it 3 cm or 5 cm?", false),
            ("(A) 5 cm (B) 3 cm", false),
            ("(A) 3 cm", false),
            ("(A) 3 cmm (B) 5 cm", false),
            ("É A. é", false),
        ];
        for (problem, named) in lists {
            let mut row = sample(problem, &[("options", "['3 cm', '5 cm']")]);
            add_choices(&mut row);
            assert_eq!(row.problem == problem, named, "{problem}");
        }
        // Their texts in the problem are chance.
        for (problem, options) in [
            ("Circle 1 has 35 points and 12 lines. How many arcs?", r#"["1","2","3","5"]"#),
            ("ABCD is a square. Which vertex is marked?", r#"["A","B","C","D"]"#),
        ] {
            let mut row = sample(problem, &[("options", options)]);
            add_choices(&mut row);
            assert!(row.problem.starts_with(&format!("{problem}\nChoices:\n(A) ")), "{}", row.problem);
        }
    }

    /// MathVista as it is released, asked as docs/evaluation.md shows.
    #[test]
    fn a_picture_without_a_place_stands_in_front() {
        let tmp = tempfile::tempdir().unwrap();
        data::toy::write_processor_files(tmp.path()).unwrap();
        let toy = Dataset::open(&["toy:sum?rows=1&cols=2&size=1".into()], &data::Keys::default(), None).unwrap();
        let picture = toy.get(0).unwrap().images[0].load().unwrap().into_owned();
        std::fs::write(tmp.path().join("a.png"), picture).unwrap();
        let query = "Question: Which?\nChoices:\n(A) 3\n(B) 5";
        let row = json!({"query": query, "choices": ["3", "5"], "answer": "5", "decoded_image": {"path": "a.png"}});
        let path = tmp.path().join("mathvista.jsonl");
        std::fs::write(&path, format!("{row}\n")).unwrap();
        let mut spec = TaskSpec::new("mathvista", &path.display().to_string()).unwrap();
        spec.keys.prompt_key = Some("query".into());
        spec.keys.image_key = Some("decoded_image".into());
        let processor = Arc::new(Processor::from_folder(tmp.path()).unwrap());
        let task = Task::open(spec, &processor, None).unwrap();
        let Asked::Question(question) = task.asker.ask(task.dataset.get(0)) else { panic!("not asked") };
        assert_eq!(question.0.problem, format!("<image>{query}"));
        assert_eq!(question.1.images.len(), 1);
        let mut placed = question.0.clone();
        place_picture(&mut placed);
        assert_eq!(placed, question.0);
    }
}
