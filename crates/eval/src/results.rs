//! From graded answers to the numbers of the table.

use std::collections::BTreeMap;

use rl::rollout::FinishReason;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::benchmark::{Average, Benchmark, CHOICES_GROUP};
use crate::error::EvalError;
use crate::log::OutputFolder;
use crate::record::Record;
use crate::report;
use crate::rule::choices;
use crate::stats::{Accuracy, GradedAnswer};
use crate::wemath::{self, WeMath};
use crate::worst_case::{WorstCase, worst_case};

/// The accuracy of the rows that have one value in one column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultGroup {
    /// The column.
    pub column: String,
    /// Its value.
    pub value: String,
    /// Of these rows.
    #[serde(flatten)]
    pub score: Accuracy,
}

/// A row or line that was not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnusedRows {
    /// `row 3 (id "x")` or `line 12`.
    pub place: String,
    /// Why, in one line.
    pub reason: String,
}

impl From<&data::BadRow> for UnusedRows {
    fn from(row: &data::BadRow) -> Self {
        // The row writes itself as `place: reason`.
        let text = row.to_string();
        let reason = row.reason.split_whitespace().collect::<Vec<_>>().join(" ");
        let place = text.strip_suffix(&reason).and_then(|t| t.strip_suffix(": ")).unwrap_or("row").to_owned();
        Self { place, reason }
    }
}

/// What came out of one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchmarkResult {
    /// Name in files.
    pub name: String,
    /// Name in the table.
    pub title: String,
    /// The benchmark's name in the registry.
    pub benchmark: &'static str,
    /// All rows.
    #[serde(flatten)]
    pub score: Accuracy,
    /// By the values of the benchmark's columns.
    pub groups: Vec<ResultGroup>,
    /// We-Math's diagnosis, where it is defined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wemath: Option<WeMath>,
    /// The worst case over the variants of a question, where it is defined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_case: Option<WorstCase>,
    /// A benchmark that is a part of this one: MathVerse-V of MathVerse.
    #[serde(skip)]
    pub part: Option<Box<BenchmarkResult>>,
    /// Mean length of an answer in tokens, where it is known.
    pub mean_tokens: Option<f64>,
    /// Share of answers that ran into the length limit, where it is known.
    pub cut_off: Option<f64>,
    /// Share of answers in which no answer was found.
    pub without_answer: Option<f64>,
    /// Rows that were not used.
    pub set_aside: Vec<UnusedRows>,
    /// Rows of the file that are not part of the benchmark.
    pub other_rows: usize,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// One of VGPO's averages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AverageResult {
    /// Its name.
    pub title: &'static str,
    /// Mean of its benchmarks' accuracies, from 0 to 1; none while one is missing.
    pub accuracy: Option<f64>,
    /// Standard error, the benchmarks taken as independent.
    pub standard_error: Option<f64>,
    /// Benchmarks that were not evaluated.
    pub missing: Vec<&'static str>,
}

/// Everything that the report shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// Model and sampling.
    pub settings: Map<String, Value>,
    /// In the order of the command line.
    pub benchmarks: Vec<BenchmarkResult>,
    /// Where a benchmark of theirs was evaluated.
    pub averages: Vec<AverageResult>,
}

impl BenchmarkResult {
    /// From the answers to a benchmark, in order of rows.
    pub(crate) fn new(name: &str, benchmark: &'static Benchmark, records: &[Record]) -> Self {
        let all: Vec<&Record> = records.iter().collect();
        let title = if benchmark == Benchmark::custom() { name } else { benchmark.title };
        let mut result = Self {
            name: name.to_owned(),
            title: title.to_owned(),
            benchmark: benchmark.name,
            score: score(benchmark, all.iter().copied()),
            groups: Vec::new(),
            wemath: None,
            worst_case: None,
            part: part(benchmark, records).map(Box::new),
            mean_tokens: mean(all.iter().map(|r| r.tokens.map(|t| t as f64))),
            cut_off: mean(all.iter().map(|r| r.finish.map(|f| f64::from(u8::from(f == FinishReason::Length))))),
            without_answer: mean(all.iter().map(|r| Some(f64::from(u8::from(r.extracted.is_none()))))),
            set_aside: Vec::new(),
            other_rows: 0,
            notes: Vec::new(),
        };
        for column in benchmark.groups {
            result.groups.extend(groups(benchmark, column, &all));
        }
        if benchmark.name == "wemath" && !records.is_empty() {
            match wemath::diagnose(records) {
                Ok(found) => result.wemath = Some(found),
                Err(why) => result.notes.push(why),
            }
        }
        if benchmark.worst_case && !records.is_empty() {
            match worst_case(benchmark, records) {
                Ok(found) => result.worst_case = Some(found),
                Err(why) => result.notes.push(why),
            }
        }
        result
    }

    /// Rows of the benchmark in its file, whether they could be asked or not.
    pub(crate) fn rows(&self) -> usize {
        self.score.questions + self.set_aside.len()
    }
}

/// MathVerse-V, of the rows of MathVerse: those that say which version they are.
fn part(benchmark: &'static Benchmark, records: &[Record]) -> Option<BenchmarkResult> {
    let part = Benchmark::find("mathverse-v").ok().filter(|_| benchmark.name == "mathverse")?;
    let says = |r: &Record| {
        part.only.iter().any(|(column, _)| *column == "problem_version" && r.columns.contains_key(*column))
    };
    let records: Vec<Record> = records.iter().filter(|r| says(r) && part.has(&r.columns)).cloned().collect();
    let mut result = (!records.is_empty()).then(|| BenchmarkResult::new(part.name, part, &records))?;
    result.notes.push("the rows of MathVerse whose version is Vision Intensive, Vision Dominant or Vision Only".into());
    Some(result)
}

fn score<'a>(benchmark: &Benchmark, records: impl IntoIterator<Item = &'a Record>) -> Accuracy {
    Accuracy::of(records.into_iter().map(|r| GradedAnswer {
        row: r.row,
        cluster: benchmark.question_of(&r.columns),
        right: r.accuracy,
    }))
}

/// Mean of what is known; nothing if anything is not.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Option<Vec<f64>> = values.collect();
    values.filter(|v| !v.is_empty()).map(|v| v.iter().sum::<f64>() / v.len() as f64)
}

/// More values than this make a list of the rows, not groups.
const MOST_GROUPS: usize = 40;

fn groups(benchmark: &Benchmark, column: &str, records: &[&Record]) -> Vec<ResultGroup> {
    let mut by_value: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records {
        let value = match column {
            CHOICES_GROUP => choices(&record.columns).map(|c| format!("{:2}", c.len())),
            column => record.columns.get(column).cloned(),
        };
        if let Some(value) = value {
            by_value.entry(value).or_default().push(record);
        }
    }
    if by_value.len() > MOST_GROUPS {
        return Vec::new();
    }
    let group = |(value, records): (String, Vec<&Record>)| ResultGroup {
        column: column.to_owned(),
        value: value.trim().to_owned(),
        score: score(benchmark, records),
    };
    by_value.into_iter().map(group).collect()
}

impl Results {
    /// Writes `results.md`, `results.csv` and `results.json`.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, folder: &OutputFolder) -> Result<(), EvalError> {
        folder.write("results.md", &report::markdown(self))?;
        folder.write("results.csv", &report::csv(self))?;
        let json = serde_json::to_string_pretty(self).map_err(|e| EvalError::Input(format!("the results: {e}")))?;
        folder.write("results.json", &(json + "\n"))?;
        Ok(())
    }

    /// The first benchmark of which nothing could be asked, and why.
    pub fn unusable(&self) -> Option<String> {
        let empty = self.benchmarks.iter().find(|b| b.score.answers == 0)?;
        let first = empty.set_aside.first();
        let first =
            first.map_or("all rows belong to other benchmarks".to_owned(), |s| format!("{}: {}", s.place, s.reason));
        Some(format!("{}: no row can be used: {first}", empty.name))
    }

    /// Adds what follows from the benchmarks together: MathVerse-V as a part of MathVerse, and the averages.
    pub fn new(settings: Map<String, Value>, mut benchmarks: Vec<BenchmarkResult>) -> Self {
        let has = |all: &[BenchmarkResult], name: &str| all.iter().any(|b| b.benchmark == name);
        if let Some(at) = benchmarks.iter().position(|b| b.part.is_some())
            && let Some(part) = benchmarks[at].part.take()
            && !has(&benchmarks, part.benchmark)
        {
            benchmarks.insert(at + 1, *part);
        }
        let averages = [Average::Math, Average::Vision]
            .into_iter()
            .filter(|a| a.members().any(|m| has(&benchmarks, m.name)))
            .map(|a| average(a, &benchmarks))
            .collect();
        Self { settings, benchmarks, averages }
    }
}

fn average(which: Average, benchmarks: &[BenchmarkResult]) -> AverageResult {
    let found: Vec<(&'static str, Option<Accuracy>)> = which
        .members()
        .map(|m| (m.title, benchmarks.iter().find(|b| b.benchmark == m.name).map(|b| b.score)))
        .collect();
    let n = found.len() as f64;
    let all = |value: fn(&Accuracy) -> Option<f64>| -> Option<Vec<f64>> {
        found.iter().map(|(_, score)| score.as_ref().and_then(value)).collect()
    };
    AverageResult {
        title: which.title(),
        accuracy: all(|s| s.accuracy).map(|v| v.iter().sum::<f64>() / n),
        standard_error: all(|s| s.standard_error).map(|v| v.iter().map(|e| e * e).sum::<f64>().sqrt() / n),
        missing: found
            .iter()
            .filter(|(_, s)| s.is_none_or(|s| s.accuracy.is_none()))
            .map(|(title, _)| *title)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn answers(n: usize, right: usize, columns: &[(&str, &str)]) -> Vec<Record> {
        let columns: BTreeMap<String, String> =
            columns.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let record = |row| Record {
            row,
            accuracy: f64::from(u8::from(row < right)),
            extracted: Some("x".into()),
            columns: columns.clone(),
            ..Record::default()
        };
        (0..n).map(record).collect()
    }

    /// MathVerse-V are three of MathVerse's five versions; the versions of one problem are one cluster there, too.
    #[test]
    fn mathverse_gives_its_vision_part() {
        let benchmark = Benchmark::find("mathverse").unwrap();
        let mut records = Vec::new();
        for (k, (version, right)) in
            [("Text Lite", 8), ("Vision Intensive", 6), ("Vision Dominant", 4), ("Vision Only", 1)].iter().enumerate()
        {
            for mut record in answers(10, *right, &[("problem_version", version), ("question_type", "multi-choice")]) {
                record.columns.insert("problem_index".into(), record.row.to_string());
                record.row += 10 * k;
                records.push(record);
            }
        }
        let result = BenchmarkResult::new("mathverse", benchmark, &records);
        assert_eq!(result.score.accuracy, Some(19.0 / 40.0));
        assert_eq!(result.groups.len(), 4);
        let results = Results::new(Map::new(), vec![result]);
        let part = &results.benchmarks[1];
        assert_eq!((part.title.as_str(), part.score.questions), ("MathVerse-V", 30));
        assert_eq!(part.score.accuracy, Some(11.0 / 30.0));
        let vision = records.iter().filter(|r| !r.columns["problem_version"].starts_with("Text"));
        let answers =
            vision.map(|r| GradedAnswer { row: r.row, cluster: Some(&r.columns["problem_index"]), right: r.accuracy });
        assert_eq!(part.score.standard_error, Accuracy::of(answers).standard_error);
        assert_eq!(results.averages.len(), 2);
        assert_eq!(results.averages[1].missing, ["LogicVista", "SuperCLEVR-Counting", "MMMU-Pro"]);
        // Asked for by itself it stands for itself; rows that do not say their version give no part.
        let own = BenchmarkResult::new("mathverse-v", Benchmark::find("mathverse-v").unwrap(), &records[30..]);
        let both = Results::new(Map::new(), vec![BenchmarkResult::new("mathverse", benchmark, &records), own]);
        assert_eq!(both.benchmarks.iter().map(|b| b.score.questions).collect::<Vec<_>>(), [40, 10]);
        assert!(BenchmarkResult::new("mathverse", benchmark, &answers_without_columns()).part.is_none());
    }

    fn answers_without_columns() -> Vec<Record> {
        answers(5, 2, &[])
    }

    #[test]
    fn averages_by_hand() {
        let mut results = Vec::new();
        for (k, member) in Average::Vision.members().enumerate() {
            results.push(BenchmarkResult::new(member.name, member, &answers(10, 2 * k, &[])));
        }
        let results = Results::new(Map::new(), results);
        let vision = &results.averages[0];
        assert!((vision.accuracy.unwrap() - 0.3).abs() < 1e-12 && vision.missing.is_empty());
        // Standard errors of 0, 2, 4, 6 of 10: sqrt(p (1 - p) / 9).
        let squares: f64 = [0.0, 0.16, 0.24, 0.24].iter().map(|v| v / 9.0).sum();
        assert!((vision.standard_error.unwrap() - squares.sqrt() / 4.0).abs() < 1e-12);
        let toy = BenchmarkResult::new("sums", Benchmark::custom(), &answers(3, 1, &[]));
        assert!(Results::new(Map::new(), vec![toy]).averages.is_empty());
    }

    #[test]
    fn groups_by_number_of_choices_and_none_by_names_of_rows() {
        let pro = Benchmark::find("MMMU-Pro").unwrap();
        let mut records = answers(4, 2, &[("options", r#"["a","b","c","d"]"#)]);
        let ten: Vec<String> = (0..10).map(|k| format!("text {k}")).collect();
        records.extend(answers(6, 2, &[("options", &serde_json::to_string(&ten).unwrap())]).into_iter().map(
            |mut r| {
                r.row += 4;
                r
            },
        ));
        let result = BenchmarkResult::new("mmmu-pro", pro, &records);
        let seen: Vec<(&str, usize)> = result.groups.iter().map(|g| (g.value.as_str(), g.score.questions)).collect();
        assert_eq!(seen, [("4", 4), ("10", 6)]);
        for (k, record) in records.iter_mut().enumerate() {
            record.columns.insert("subject".into(), format!("row {k}"));
        }
        let many: Vec<Record> = (0..50)
            .map(|row| Record { row, columns: [("subject".into(), row.to_string())].into(), ..Record::default() })
            .collect();
        assert!(BenchmarkResult::new("mmmu-pro", pro, &many).groups.is_empty());
    }

    #[test]
    fn set_aside_rows_have_a_place_and_a_reason() {
        let row = data::BadRow { id: "x".into(), index: 3, reason: "no\n  picture".into() };
        assert_eq!(
            UnusedRows::from(&row),
            UnusedRows { place: "row 3 (id \"x\")".into(), reason: "no picture".into() }
        );
    }
}
