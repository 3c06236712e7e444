//! Worst-case accuracy (DynaMath, arXiv 2411.00836): a question counts only if all of its variants are answered right.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::benchmark::Benchmark;
use crate::record::Record;
use crate::stats::{Accuracy, GradedAnswer};

/// The worst case over the variants of each question.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WorstCase {
    /// Variants of a question.
    pub variants: usize,
    /// Questions of which variants are missing (set aside, or beyond a limit): they are not counted.
    pub incomplete: usize,
    /// Share of questions whose variants are all right, over questions and samples.
    #[serde(flatten)]
    pub score: Accuracy,
}

/// From the graded answers to a benchmark. With several answers to a row the k-th answers to all variants are one run,
/// and the score is the mean over runs.
///
/// # Errors
/// Why it is not defined, for the notes below the table.
pub(crate) fn worst_case(benchmark: &Benchmark, records: &[Record]) -> Result<WorstCase, String> {
    // Question, then row, then sample.
    let mut questions: BTreeMap<&str, BTreeMap<usize, BTreeMap<usize, f64>>> = BTreeMap::new();
    for record in records {
        let Some(question) = benchmark.question_of(&record.columns) else {
            return Err(format!(
                "no worst case: it needs a column that names the question of a variant ({})",
                benchmark.question.join(", ")
            ));
        };
        questions.entry(question).or_default().entry(record.row).or_default().insert(record.sample, record.accuracy);
    }
    let variants = questions.values().map(BTreeMap::len).max().unwrap_or(0);
    if variants < 2 {
        return Err("no worst case: every question has one variant only".into());
    }
    let mut answers = Vec::new();
    let mut incomplete = 0;
    for (number, rows) in questions.values().enumerate() {
        if rows.len() < variants {
            incomplete += 1;
            continue;
        }
        let runs = rows.values().map(BTreeMap::len).min().unwrap_or(0);
        for run in 0..runs {
            let right = rows.values().filter_map(|samples| samples.values().nth(run)).all(|&right| right >= 1.0);
            answers.push(GradedAnswer { row: number, cluster: None, right: f64::from(u8::from(right)) });
        }
    }
    Ok(WorstCase { variants, incomplete, score: Accuracy::of(answers) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows by question: the accuracy of each sample of each variant.
    fn records(column: &str, questions: &[&[&[f64]]]) -> Vec<Record> {
        let mut records = Vec::new();
        let mut row = 0;
        for (question, variants) in questions.iter().enumerate() {
            for samples in *variants {
                for (sample, &accuracy) in samples.iter().enumerate() {
                    let columns = [(column.to_owned(), format!("q{question}"))].into();
                    records.push(Record { row, sample, accuracy, columns, ..Record::default() });
                }
                row += 1;
            }
        }
        records
    }

    #[test]
    fn a_question_counts_only_with_all_of_its_variants() {
        let dynamath = Benchmark::find("dynamath").unwrap();
        for column in ["question_id", "qid", "id"] {
            let all =
                records(column, &[&[&[1.0], &[1.0], &[1.0]], &[&[1.0], &[0.0], &[1.0]], &[&[0.0], &[0.0], &[0.0]]]);
            let found = worst_case(dynamath, &all).unwrap();
            assert_eq!((found.variants, found.incomplete, found.score.questions), (3, 0, 3));
            assert_eq!(found.score.accuracy, Some(1.0 / 3.0));
        }
        // The mean over all answers is another number.
        let mixed = records("qid", &[&[&[1.0], &[0.0]], &[&[0.0], &[1.0]]]);
        assert_eq!(worst_case(dynamath, &mixed).unwrap().score.accuracy, Some(0.0));
        assert_eq!(crate::results::BenchmarkResult::new("dynamath", dynamath, &mixed).score.accuracy, Some(0.5));
    }

    #[test]
    fn runs_are_judged_one_by_one() {
        let dynamath = Benchmark::find("dynamath").unwrap();
        // The first run answers both variants right, the second one of them: half, not none and not three quarters.
        let found = worst_case(dynamath, &records("qid", &[&[&[1.0, 1.0], &[1.0, 0.0]]])).unwrap();
        assert_eq!((found.score.accuracy, found.score.questions, found.score.answers), (Some(0.5), 1, 2));
    }

    #[test]
    fn what_is_missing_is_said() {
        let dynamath = Benchmark::find("dynamath").unwrap();
        let found = worst_case(dynamath, &records("qid", &[&[&[1.0], &[1.0]], &[&[1.0]]])).unwrap();
        assert_eq!((found.incomplete, found.score.questions, found.score.accuracy), (1, 1, Some(1.0)));
        assert!(worst_case(dynamath, &records("other", &[&[&[1.0]]])).unwrap_err().contains("question_id, qid, id"));
        assert!(worst_case(dynamath, &records("id", &[&[&[1.0]], &[&[1.0]]])).unwrap_err().contains("one variant"));
    }
}
