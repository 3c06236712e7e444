//! We-Math's four-way diagnosis (arXiv 2407.01284, section 3.3): is a problem of several steps solved, and are its
//! steps?
//!
//! A composite problem comes with its sub-problems, one per step: rows that share `ID`, with `key` `2steps_1`,
//! `2steps_2`, `2steps_multi` (and three steps alike).
//!
//! | composite | all steps right | some right | none right |
//! |---|---|---|---|
//! | right | complete mastery | loose: complete mastery, strict: rote memorisation | rote memorisation |
//! | wrong | inadequate generalisation | insufficient knowledge | insufficient knowledge |
//!
//! The score is complete mastery plus half of inadequate generalisation, as shares of the composite problems; the rate
//! of rote memorisation is its share of the composites that were solved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::Record;

/// Shares of the composite problems, from 0 to 1, averaged over the samples.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct WeMath {
    /// Composite problems of which every row was answered.
    pub problems: usize,
    /// Composite problems with missing rows, which are left out.
    pub incomplete: usize,
    /// A step and the composite wrong.
    pub insufficient_knowledge: f64,
    /// All steps right, the composite wrong.
    pub inadequate_generalization: f64,
    /// All steps and the composite right.
    pub complete_mastery_strict: f64,
    /// At least one step and the composite right.
    pub complete_mastery_loose: f64,
    /// Strict share of rote memorisation among the composites that were solved; 0 when none was.
    pub rote_memorization_strict: f64,
    /// The same, loose.
    pub rote_memorization_loose: f64,
    /// Complete mastery (strict) plus half of inadequate generalisation.
    pub score_strict: f64,
    /// Complete mastery (loose) plus half of inadequate generalisation.
    pub score_loose: f64,
}

/// One composite problem in one sample: its steps, and itself.
#[derive(Default)]
struct CompositeProblem {
    steps: Vec<Option<bool>>,
    composite: Option<bool>,
}

/// `2steps_1` is (2, Some(1)), `3steps_multi` is (3, None).
fn parse_key(key: &str) -> Option<(usize, Option<usize>)> {
    let (steps, part) = key.split_once("steps_")?;
    let steps: usize = steps.parse().ok().filter(|n| (1..=9).contains(n))?;
    match part {
        "multi" => Some((steps, None)),
        part => Some((steps, Some(part.parse().ok().filter(|k| (1..=steps).contains(k))?))),
    }
}

/// The diagnosis, or why it is not defined for these rows.
///
/// # Errors
/// Rows without the columns `ID` and `key`, or without a composite problem.
pub(crate) fn diagnose<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<WeMath, String> {
    let mut problems: BTreeMap<(usize, &str, usize), CompositeProblem> = BTreeMap::new();
    let mut columns = false;
    for record in records {
        let (Some(id), Some(key)) = (record.columns.get("ID"), record.columns.get("key")) else { continue };
        columns = true;
        let Some((steps, part)) = parse_key(key) else { continue };
        let problem = problems.entry((record.sample, id.as_str(), steps)).or_default();
        problem.steps.resize(steps, None);
        let right = record.accuracy > 0.5;
        match part {
            Some(step) => problem.steps[step - 1] = Some(right),
            None => problem.composite = Some(right),
        }
    }
    if !columns {
        return Err("strict and loose scores are not defined: the rows have no columns `ID` and `key`".into());
    }
    let samples: std::collections::BTreeSet<usize> = problems.keys().map(|(sample, ..)| *sample).collect();
    let mut out = WeMath::default();
    let [mut ik, mut ig, mut cm_strict, mut cm_loose, mut solved] = [0usize; 5];
    let (mut complete, mut incomplete) = (0usize, 0usize);
    for problem in problems.values() {
        let steps: Option<Vec<bool>> = problem.steps.iter().copied().collect();
        let (Some(steps), Some(composite)) = (steps, problem.composite) else {
            incomplete += 1;
            continue;
        };
        complete += 1;
        let (all, any) = (steps.iter().all(|s| *s), steps.iter().any(|s| *s));
        solved += usize::from(composite);
        cm_strict += usize::from(composite && all);
        cm_loose += usize::from(composite && any);
        ig += usize::from(!composite && all);
        ik += usize::from(!composite && !all);
    }
    if complete == 0 {
        return Err("strict and loose scores are not defined: no composite problem has all of its steps".into());
    }
    let share = |n: usize| n as f64 / complete as f64;
    let rote = |mastered: usize| if solved == 0 { 0.0 } else { (solved - mastered) as f64 / solved as f64 };
    out.problems = complete / samples.len().max(1);
    out.incomplete = incomplete / samples.len().max(1);
    out.insufficient_knowledge = share(ik);
    out.inadequate_generalization = share(ig);
    out.complete_mastery_strict = share(cm_strict);
    out.complete_mastery_loose = share(cm_loose);
    out.rote_memorization_strict = rote(cm_strict);
    out.rote_memorization_loose = rote(cm_loose);
    out.score_strict = share(cm_strict) + 0.5 * share(ig);
    out.score_loose = share(cm_loose) + 0.5 * share(ig);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(row: usize, id: &str, key: &str, right: bool) -> Record {
        let columns = [("ID", id), ("key", key)].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Record { row, accuracy: f64::from(u8::from(right)), columns: columns.into(), ..Record::default() }
    }

    #[test]
    fn the_table_of_the_paper() {
        let mut records = Vec::new();
        // Steps and composite of five problems; the last lacks a step.
        for (id, steps, composite) in [
            ("a", vec![true, true], true),
            ("b", vec![true, false], true),
            ("c", vec![false, false, false], true),
            ("d", vec![true, true, true], false),
            ("e", vec![true, false], false),
        ] {
            let n = steps.len();
            for (k, right) in steps.into_iter().enumerate() {
                records.push(record(records.len(), id, &format!("{n}steps_{}", k + 1), right));
            }
            records.push(record(records.len(), id, &format!("{n}steps_multi"), composite));
        }
        records.push(record(99, "f", "2steps_1", true));
        let w = diagnose(&records).unwrap();
        assert_eq!((w.problems, w.incomplete), (5, 1));
        assert_eq!((w.complete_mastery_strict, w.complete_mastery_loose), (0.2, 0.4));
        assert_eq!((w.inadequate_generalization, w.insufficient_knowledge), (0.2, 0.2));
        assert!((w.rote_memorization_strict - 2.0 / 3.0).abs() < 1e-12);
        assert!((w.rote_memorization_loose - 1.0 / 3.0).abs() < 1e-12);
        assert!((w.score_strict - 0.3).abs() < 1e-12 && (w.score_loose - 0.5).abs() < 1e-12);
    }

    #[test]
    fn where_it_is_not_defined() {
        let plain = Record::default();
        assert!(diagnose([&plain]).unwrap_err().contains("`ID` and `key`"));
        let odd =
            [record(0, "a", "steps", true), record(1, "a", "2steps_3", true), record(2, "a", "2steps_multi", true)];
        assert!(diagnose(&odd).unwrap_err().contains("no composite problem"));
    }
}
