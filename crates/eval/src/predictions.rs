//! Answers that were made elsewhere: JSON lines (or one JSON list) of answers with their truths.
//!
//! | form | answer | truth | question |
//! |---|---|---|---|
//! | PAPO-Eval | `predict` | `label` | `id` and `idx` |
//! | EasyR1, verl | `response` (or a list, or `responses`) | `ground_truth` | `id` or `uid` |
//! | this program | `response` | `answer` | `benchmark` and `row` |
//!
//! Answers with the same question are several samples of it. A `row` says which question it is, and its truth must be
//! the same everywhere. Ids are often not unique: lines with one id are one question only when their `idx`, prompt and
//! truth agree, too.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::benchmark::Benchmark;
use crate::error::EvalError;
use crate::lines;
use crate::log::OutputFolder;
use crate::question::{Identity, PROBLEMS, Question, first, identity, text};
use crate::record::Record;
use crate::results::{BenchmarkResult, Results, UnusedRows};
use crate::rule::{Extract, Rule};

/// How a file of predictions is graded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grading {
    /// All rows are of this benchmark; otherwise each row's own `benchmark`, else `custom`.
    pub benchmark: Option<&'static Benchmark>,
    /// In place of the benchmark's rule.
    pub rule: Option<Rule>,
    /// Where an answer stands. By default `eval`'s own lines keep the answer that the run found, those of `train` are
    /// boxed, and in others it is anywhere, as answers made elsewhere may be bare.
    pub extract: Option<Extract>,
}

const ANSWERS: [&str; 5] = ["predict", "prediction", "response", "responses", "model_response"];
const TRUTHS: [&str; 4] = ["label", "ground_truth", "answer", "gt"];

/// The answers of one benchmark in a file.
#[derive(Debug)]
pub struct Graded {
    /// Name in files.
    pub name: String,
    /// The numbers.
    pub result: BenchmarkResult,
    /// The lines, graded.
    pub records: Vec<Record>,
}

/// Grades a file, and writes answers and results into `out` if it is given.
///
/// # Errors
/// As [`grade_file`], and a folder that cannot be written or holds the answers of a model.
pub fn grade_into(path: &Path, out: Option<&Path>, grading: &Grading) -> Result<(Results, Vec<Record>), EvalError> {
    let output = out.map(OutputFolder::open).transpose()?;
    let graded = grade_file(path, grading)?;
    let mut settings = Map::new();
    settings.insert("from".into(), json!(path));
    settings.insert("grader".into(), json!(grading.rule));
    settings.insert("extract".into(), json!(grading.extract));
    if let Some(output) = &output {
        for file in &graded {
            // Such answers must not be taken for those of a model that goes on here.
            if output.path(&format!("{}.settings.json", file.name)).exists() {
                return Err(EvalError::Input(format!(
                    "--out {}: holds answers to {} that a model gave; choose another folder",
                    output.path("").display(),
                    file.name
                )));
            }
            let lines = file.records.iter().map(|record| json!(record).to_string() + "\n").collect::<String>();
            output.write(&format!("{}.jsonl", file.name), &lines)?;
        }
    }
    let (results, records): (Vec<_>, Vec<_>) = graded.into_iter().map(|file| (file.result, file.records)).unzip();
    let results = Results::new(settings, results);
    if let Some(output) = &output {
        results.write(output)?;
    }
    Ok((results, records.into_iter().flatten().collect()))
}

/// Reads and grades a file.
///
/// # Errors
/// A file that cannot be read, or without any line that can be used.
pub fn grade_file(path: &Path, grading: &Grading) -> Result<Vec<Graded>, EvalError> {
    let mut files: BTreeMap<String, Collected> = BTreeMap::new();
    let mut unknown = Vec::new();
    let add = |place: String, row: Result<Map<String, Value>, String>| {
        let named = row.and_then(|row| named(&row, grading).map(|(name, benchmark)| (row, name, benchmark)));
        match named {
            Ok((row, name, benchmark)) => {
                let file = files.entry(name).or_insert_with(|| Collected::new(benchmark));
                if let Err(reason) = file.add(&row, grading) {
                    file.set_aside.push(UnusedRows { place, reason });
                }
            }
            Err(reason) => unknown.push(UnusedRows { place, reason }),
        }
    };
    lines::each(path, add).map_err(|reason| EvalError::Input(format!("--from {}: {reason}", path.display())))?;
    // Lines that do not even say what they belong to are shown with the first benchmark.
    let mut unknown = Some(unknown);
    let mut out = Vec::new();
    for (name, mut file) in files {
        if let Some(lines) = unknown.take() {
            file.set_aside.splice(0..0, lines);
        }
        out.push(file.finish(name));
    }
    if out.iter().any(|file| !file.records.is_empty()) {
        return Ok(out);
    }
    let unknown = unknown.unwrap_or_default();
    let first = out.iter().flat_map(|file| &file.result.set_aside).chain(&unknown).next();
    Err(EvalError::Input(match (first, out.first()) {
        (Some(UnusedRows { place, reason }), _) => {
            format!("--from {}: no line can be graded; {place}: {reason}", path.display())
        }
        (None, Some(file)) => format!("--from {}: no line belongs to {}", path.display(), file.name),
        (None, None) => format!("--from {}: has no lines", path.display()),
    }))
}

fn named(row: &Map<String, Value>, grading: &Grading) -> Result<(String, &'static Benchmark), String> {
    if let Some(benchmark) = grading.benchmark {
        return Ok((benchmark.name.to_owned(), benchmark));
    }
    match row.get("benchmark") {
        None | Some(Value::Null) => Ok(("custom".to_owned(), Benchmark::custom())),
        // A name of a user's own, as this program writes for custom benchmarks.
        Some(Value::String(name)) => match Benchmark::find(name) {
            Ok(found) => Ok((found.name.to_owned(), found)),
            Err(_) => {
                let safe = !name.is_empty()
                    && !name.starts_with('.')
                    && name != "results"
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
                match safe {
                    true => Ok((name.clone(), Benchmark::custom())),
                    false => Err(format!("`benchmark` {name:?} is neither known nor a name for a file")),
                }
            }
        },
        Some(_) => Err("`benchmark` is not text".to_owned()),
    }
}

/// The answer in a response. `eval` writes what it found beside each response: without other orders that is kept, since
/// it knew where its prompt had asked for the answer, and an answer that it did not find must not be found now.
fn extracted(row: &Map<String, Value>, response: &str, grading: &Grading) -> Option<String> {
    if let Some(extract) = grading.extract {
        return extract.answer(response);
    }
    match (row.get("extracted"), row.contains_key("row") && row.contains_key("sample")) {
        (Some(Value::Null), true) => None,
        (Some(Value::String(found)), true) => Some(found.clone()),
        (None, _) if !row.contains_key("finish") => Extract::Any.answer(response),
        _ => Extract::Boxed.answer(response),
    }
}

/// What is known of one benchmark so far.
struct Collected {
    benchmark: &'static Benchmark,
    questions: HashMap<Vec<String>, Question>,
    records: Vec<Record>,
    set_aside: Vec<UnusedRows>,
    other_rows: usize,
}

impl Collected {
    fn new(benchmark: &'static Benchmark) -> Self {
        Self { benchmark, questions: HashMap::new(), records: Vec::new(), set_aside: Vec::new(), other_rows: 0 }
    }

    fn add(&mut self, row: &Map<String, Value>, grading: &Grading) -> Result<(), String> {
        let columns = columns(row, self.benchmark);
        if !self.benchmark.has(&columns) {
            self.other_rows += 1;
            return Ok(());
        }
        let missing = |what: &str, keys: &[&str]| format!("no {what}: none of {} is there", keys.join(", "));
        let (key, answer) = first(row, &ANSWERS).ok_or_else(|| missing("answer", &ANSWERS))?;
        let answers: Vec<String> = match answer {
            Value::Array(items) if !items.is_empty() => items
                .iter()
                .map(|item| text(item).ok_or_else(|| format!("`{key}` holds something that is not text")))
                .collect::<Result<_, _>>()?,
            value => vec![text(value).ok_or_else(|| format!("`{key}` is not text"))?],
        };
        let (key, truth) = first(row, &TRUTHS).ok_or_else(|| missing("truth", &TRUTHS))?;
        let truth = text(truth).ok_or_else(|| format!("`{key}` is not text"))?;
        if truth.trim().is_empty() {
            return Err(format!("`{key}` is empty"));
        }
        let next = self.questions.len();
        let identity = identity(row, &truth, self.benchmark)?.unwrap_or_else(|| Identity {
            // Without an id of any kind every line is a question of its own.
            key: vec![next.to_string()],
            id: None,
            by_row: false,
        });
        let id = identity.id.unwrap_or_else(|| next.to_string());
        let question = match self.questions.entry(identity.key) {
            Entry::Occupied(found) => {
                let found = found.into_mut();
                if identity.by_row && found.truth != truth {
                    return Err(format!(
                        "the truth {truth:?} differs from {:?} of an earlier line with this `row`",
                        found.truth
                    ));
                }
                found
            }
            Entry::Vacant(new) => new.insert(Question { row: next, truth: truth.clone(), samples: BTreeSet::new() }),
        };
        let stated = row.get("sample").and_then(Value::as_u64).map(|k| k as usize);
        let rule = grading.rule.unwrap_or(self.benchmark.rule);
        let problem = first(row, &PROBLEMS).and_then(|(_, v)| text(v)).unwrap_or_default();
        for response in answers {
            let extracted = extracted(row, &response, grading);
            let right = extracted.as_deref().is_some_and(|given| rule.is_right(given, &truth, &columns));
            self.records.push(Record {
                benchmark: self.benchmark.name.to_owned(),
                row: question.row,
                id: id.clone(),
                sample: question.sample(stated),
                problem: problem.clone(),
                answer: truth.clone(),
                response,
                extracted,
                accuracy: f64::from(u8::from(right)),
                tokens: row.get("tokens").and_then(Value::as_u64).map(|n| n as usize),
                finish: row.get("finish").and_then(|f| serde_json::from_value(f.clone()).ok()),
                columns: columns.clone(),
            });
        }
        Ok(())
    }

    /// Questions whose id is not theirs alone are called by their number, as rows of a data set are; how many there
    /// are.
    fn number_repeated_ids(&mut self) -> usize {
        let mut rows: HashMap<&str, BTreeSet<usize>> = HashMap::new();
        for record in &self.records {
            rows.entry(&record.id).or_default().insert(record.row);
        }
        let repeated: BTreeSet<usize> = rows.into_values().filter(|rows| rows.len() > 1).flatten().collect();
        for record in self.records.iter_mut().filter(|r| repeated.contains(&r.row)) {
            record.id = record.row.to_string();
        }
        repeated.len()
    }

    fn finish(mut self, name: String) -> Graded {
        self.records.sort_by_key(|r| (r.row, r.sample));
        self.records.iter_mut().for_each(|r| r.benchmark.clone_from(&name));
        let repeated = self.number_repeated_ids();
        let mut result = BenchmarkResult::new(&name, self.benchmark, &self.records);
        result.set_aside = self.set_aside;
        result.other_rows = self.other_rows;
        if repeated > 0 {
            result.notes.push(format!("{repeated} questions share their id with another; they are named by number"));
        }
        let (questions, answers) = (result.score.questions, result.score.answers);
        let most = self.questions.values().map(|q| q.samples.len()).max().unwrap_or(0);
        let least = self.questions.values().map(|q| q.samples.len()).min().unwrap_or(0);
        if most != least {
            result
                .notes
                .push(format!("{questions} questions have between {least} and {most} answers each ({answers} in all)"));
        }
        Graded { name, result, records: self.records }
    }
}

/// The columns that the benchmark needs: of the row itself, or of its `columns`.
fn columns(row: &Map<String, Value>, benchmark: &Benchmark) -> BTreeMap<String, String> {
    let inner = row.get("columns").and_then(Value::as_object);
    let mut wanted = benchmark.columns();
    wanted.push("task".to_owned());
    let find = |column: &String| {
        let value = row.get(column).or_else(|| inner?.get(column)).filter(|v| !v.is_null())?;
        Some((column.clone(), text(value).unwrap_or_else(|| value.to_string())))
    };
    wanted.iter().filter_map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grade(text: &[u8], grading: &Grading) -> Result<Vec<Graded>, EvalError> {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("p.jsonl");
        std::fs::write(&path, text).unwrap();
        grade_file(&path, grading)
    }

    #[test]
    fn the_forms_of_others() {
        let text = br#"
            {"idx": 0, "id": "a", "prompt": "q", "predict": "<think>x</think>\\boxed{3}", "label": "\\boxed{3}"}
            {"idx": 1, "id": "b", "prompt": "q", "predict": "\\boxed{3}", "label": 4.0}
            {"id": "c", "response": ["1", "\\boxed{2}"], "ground_truth": "2"}
            {"id": "c", "response": "Answer: 2", "answer": ["2"]}
        "#;
        let graded = grade(text, &Grading::default()).unwrap();
        assert_eq!(graded.len(), 1);
        let score = graded[0].result.score;
        assert_eq!((score.questions, score.answers, score.accuracy), (3, 5, Some(0.6)));
        assert!(graded[0].result.notes[0].contains("between 1 and 3 answers"));
        let list = br#"[{"predict": "1", "label": "1"}, {"predict": "2", "label": "1"}]"#;
        assert_eq!(grade(list, &Grading::default()).unwrap()[0].result.score.accuracy, Some(0.5));
    }

    #[test]
    fn bad_lines_are_counted_and_named() {
        let mut text = b"{\"predict\": \"1\", \"label\": \"1\", \"id\": 7}\nbroken\n[1]\n{\"predict\": \"1\"}\n{\"label\": \"1\"}\n".to_vec();
        text.extend(b"{\"predict\": {}, \"label\": 1}\n{\"predict\": \"2\", \"label\": \"2\", \"id\": 7}\n\xFF\xFE\n{\"predict\": \"1\", \"label\": \" \"}\n");
        let graded = grade(&text, &Grading::default()).unwrap();
        // One id, two truths: two questions.
        assert_eq!(graded[0].result.score.questions, 2);
        let said: Vec<String> =
            graded[0].result.set_aside.iter().map(|s| format!("{}: {}", s.place, s.reason)).collect();
        let said = said.join("\n");
        for needle in [
            "line 2: not JSON",
            "line 3: JSON, but not an object",
            "line 4: no truth: none of label",
            "line 5: no answer: none of predict",
            "line 6: `predict` is not text",
            "line 8: not UTF-8",
            "line 9: `label` is empty",
        ] {
            assert!(said.contains(needle), "{needle}\n{said}");
        }
        for (text, needle) in
            [(&b""[..], "has no lines"), (b"x\ny", "no line can be graded; line 1"), (b"[1", "JSON list")]
        {
            let error = grade(text, &Grading::default()).unwrap_err();
            assert!(error.to_string().contains(needle) && error.exit_code() == 2, "{error}");
        }
    }

    #[test]
    fn rows_name_their_benchmark_or_are_told() {
        let text = br#"
            {"benchmark": "geo3k", "id": 1, "response": "2", "answer": "2"}
            {"benchmark": "mine", "id": 1, "response": "2", "answer": "2"}
            {"benchmark": "MathVerse", "id": 1, "response": "2", "answer": "2", "columns": {"problem_version": "Vision Only"}}
        "#;
        let names = |g: Vec<Graded>| g.into_iter().map(|g| g.name).collect::<Vec<_>>();
        assert_eq!(names(grade(text, &Grading::default()).unwrap()), ["geometry3k", "mathverse", "mine"]);
        let benchmark = Benchmark::find("mmk12").unwrap();
        let grading = Grading { benchmark: Some(benchmark), ..Grading::default() };
        assert_eq!(names(grade(text, &grading).unwrap()), ["mmk12"]);
        let error =
            grade(b"{\"benchmark\": \"../x\", \"response\": 1, \"answer\": 1}", &Grading::default()).unwrap_err();
        assert!(error.to_string().contains("neither known nor a name"), "{error}");
    }
}
