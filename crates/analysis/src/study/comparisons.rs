//! What outcomes say about rows: differences over seeds and items with their tests.

use std::fmt::Write as _;

use ::report::svg::axis::Axis;
use ::report::svg::forest::{Forest, ForestRow};

use super::plan::WARM;
use super::report::{Report, number, points};
use super::result::RunResult;
use super::rows::RowComparisons;
use crate::crossed::{Crossed, holm};
use crate::stats::{Interval, Paired, mean};

/// Level of intervals.
const ALPHA: f64 = 0.05;

/// A comparison that the study was made for.
pub(super) struct RowCompared<'a> {
    /// The row that is compared with.
    other: &'a String,
    crossed: Crossed,
    /// p after Holm's correction.
    adjusted: f64,
    /// p of a difference within the margin.
    within: f64,
    /// The smallest difference that 80 of 100 such studies would find.
    smallest: f64,
    margin: f64,
    level: f64,
}

impl RowCompared<'_> {
    fn interval(&self) -> Interval {
        let Crossed { seeds, difference, .. } = self.crossed;
        Interval { n: seeds, mean: difference, half: self.crossed.half(1.0 - ALPHA) }
    }

    /// The difference in words.
    fn reads(&self) -> String {
        let margin = 100.0 * self.margin;
        match (self.adjusted < self.level, self.within < self.level) {
            (true, false) if self.crossed.difference > 0.0 => "better".to_owned(),
            (true, false) => "worse".to_owned(),
            (true, true) => format!("different, by less than {margin:.0} points"),
            (false, true) => format!("the same, within {margin:.0} points"),
            (false, false) => format!("none found; one of {:.1} points would have been", 100.0 * self.smallest),
        }
    }
}

impl Report<'_> {
    /// Differences of two rows: a list per seed that both have, with a number per item.
    fn differences_by_item(&self, row: &str, other: &str) -> Vec<Vec<f64>> {
        let (Some(a), Some(b)) = (self.results.get(row), self.results.get(other)) else { return vec![] };
        let each = |result: &RunResult| Some(result.outcomes.as_ref()?.each());
        a.iter()
            .filter_map(|(seed, a)| Some((each(a)?, each(b.get(seed)?)?)))
            .map(|(a, b)| a.iter().zip(&b).map(|(a, b)| a - b).collect())
            .collect()
    }

    fn crossed(&self, row: &str, other: &str) -> Option<Crossed> {
        Crossed::of(&self.differences_by_item(row, other))
    }

    /// The section of the comparisons that the study was made for, and of all rows against the reference.
    pub(super) fn comparisons(&self, compared: &[RowCompared<'_>]) -> String {
        let Some(asked) = &self.study.rows.comparisons else { return String::new() };
        let mut out = format!("## {} against the others\n\n", self.label(&asked.row));
        out += &self.asked(asked, compared);
        out += "![differences over seeds and items](study/comparisons.svg)\n\n";
        out += &self.beside(asked);
        out += &self.looks();
        out
    }

    /// The same rows by what else was measured: how soon they learn, which digits they misread, where they attend.
    fn beside(&self, asked: &RowComparisons) -> String {
        type Of = fn(&RunResult) -> Option<f64>;
        // Name, factor, decimals, value.
        let measures: [(&str, f64, usize, Of); 5] = [
            ("mean of curve", 100.0, 2, RunResult::mean_accuracy),
            ("fresh error, early", 100.0, 2, |r| r.forgetting()?.early.rate()),
            ("fresh error, late", 100.0, 2, |r| r.forgetting()?.late.rate()),
            ("answered, late", 100.0, 2, |r| r.outcomes.as_ref()?.answered_late()),
            ("attention late/early", 1.0, 4, |r| Some(r.forgetting()?.attention.as_ref()?.ratio())),
        ];
        let mut out = format!("| {} minus |", self.label(&asked.row));
        out += &measures.map(|(name, ..)| format!(" {name} | p |")).concat();
        out += "\n|---|";
        out += &"---|".repeat(2 * measures.len());
        for other in &asked.against {
            let _ = write!(out, "\n| {} |", self.label(other));
            for (_, scale, digits, of) in measures {
                let (a, b) = self.pairs(&asked.row, other, of);
                let _ = match Paired::of(&a, &b) {
                    Some(Paired { difference: d, p_t, .. }) => {
                        let half =
                            if d.half.is_finite() { format!(" ± {:.digits$}", scale * d.half) } else { String::new() };
                        write!(out, " {:+.digits$}{half} | {} |", scale * d.mean, number(p_t, 3))
                    }
                    None => write!(out, " - | - |"),
                };
            }
        }
        out += "\n\nThe same rows by what else was measured: means of the differences on the same seed with 95% intervals and the \
                paired t test, over seeds alone and not corrected. Accuracies and errors in percentage points.\n\n";
        out
    }

    /// The comparisons that the study was made for, as far as they have run, read together.
    pub(super) fn compared(&self) -> Vec<RowCompared<'_>> {
        let Some(asked) = &self.study.rows.comparisons else { return vec![] };
        let found: Vec<(&String, Option<Crossed>)> =
            asked.against.iter().map(|other| (other, self.crossed(&asked.row, other))).collect();
        let p: Vec<f64> = found.iter().map(|(_, c)| c.map_or(f64::NAN, |c| c.p())).collect();
        // What Holm asks of the smallest p: the strictest of the tests, so that what it can see all others can.
        let strictest = asked.level / asked.against.len().max(1) as f64;
        let both = found.into_iter().zip(holm(&p));
        let each = both.filter_map(|((other, crossed), adjusted)| {
            let crossed = crossed?;
            let (within, smallest) = (crossed.equivalence(asked.margin), crossed.smallest(strictest));
            Some(RowCompared { other, crossed, adjusted, within, smallest, margin: asked.margin, level: asked.level })
        });
        each.collect()
    }

    /// The answer in short, all of it computed; nothing before there is one, and nothing of the quick form, whose
    /// differences say nothing.
    pub(super) fn in_short(&self, compared: &[RowCompared<'_>]) -> String {
        let Some(asked) = &self.study.rows.comparisons else { return String::new() };
        if compared.is_empty() || self.study.quick {
            return String::new();
        }
        let share =
            |values: Vec<f64>| if values.is_empty() { "-".into() } else { format!("{:.1}%", 100.0 * mean(&values)) };
        let late = |row: &str| share(self.values(row, |r| r.forgetting()?.late.rate()));
        let own = self.label(&asked.row);
        let mut out = format!(
            "**In short** (the figures are explained below):\n\n\
             | | right of {} items | late digits misread | {own} minus it, points | reads as |\n|---|---|---|---|---|\n\
             | before | {} | {} | | |\n",
            self.items(),
            share(self.starts()),
            late(WARM)
        );
        let rows = std::iter::once((&asked.row, None)).chain(compared.iter().map(|c| (c.other, Some(c))));
        for (row, c) in rows {
            let (right, late) = (share(self.values(row, RunResult::accuracy)), late(row));
            let (difference, reads) = c.map(|c| (points(c.interval()), c.reads())).unwrap_or_default();
            let _ = writeln!(out, "| {} | {right} | {late} | {difference} | {reads} |", self.label(row));
        }
        out.trim_end().into()
    }

    fn asked(&self, asked: &RowComparisons, compared: &[RowCompared<'_>]) -> String {
        let margin = 100.0 * asked.margin;
        let mut out = format!(
            "| {} minus | seeds | difference | p | p, Holm | p, within {margin:.0} points | smallest effect seen | reads as |\n\
             |---|---|---|---|---|---|---|---|\n",
            self.label(&asked.row)
        );
        for other in &asked.against {
            let Some(c) = compared.iter().find(|c| c.other == other) else {
                let _ = writeln!(out, "| {} | - | - | - | - | - | - | not yet |", self.label(other));
                continue;
            };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {:.1} points | {} |",
                self.label(other),
                c.crossed.seeds,
                points(c.interval()),
                number(c.crossed.p(), 3),
                number(c.adjusted, 3),
                number(c.within, 3),
                100.0 * c.smallest,
                c.reads()
            );
        }
        let _ = writeln!(
            out,
            "\nDifferences in accuracy on the same {} items after training from the same seed, in percentage points, with 95% \
             intervals: standard errors by a crossed bootstrap over seeds and items, Student's t with seeds - 1 degrees of \
             freedom. *p, Holm*: all of this table read together. *Within*: the larger p of two one-sided tests that the \
             difference is less than {margin:.0} points either way. *Smallest effect seen*: what 80 of 100 such studies \
             would find at the strictest level of Holm's. A p counts below {}.\n",
            self.items(),
            asked.level
        );
        out
    }

    /// Items that the runs were asked.
    fn items(&self) -> usize {
        self.results
            .values()
            .flat_map(|seeds| seeds.values())
            .find_map(|r| Some(r.outcomes.as_ref()?.items))
            .unwrap_or(0)
    }

    /// Every row against the reference, by the same bootstrap, uncorrected.
    pub(super) fn comparison_plot(&self) -> Option<(String, String)> {
        self.study.rows.comparisons.as_ref()?;
        let reference = &self.study.rows.reference;
        let rows = self.study.rows.rows.iter().filter(|row| row.name != *reference);
        let rows: Vec<ForestRow> = rows
            .filter_map(|row| {
                let c = self.crossed(&row.name, reference)?;
                let values = self.differences_by_item(&row.name, reference).iter().map(|seed| mean(seed)).collect();
                Some(ForestRow { label: row.label.clone(), mean: c.difference, half: c.half(1.0 - ALPHA), values })
            })
            .collect();
        let forest = Forest {
            title: format!(
                "Accuracy on {} fixed items, minus {}'s on the same seed",
                self.items(),
                self.label(reference)
            ),
            note: "large dot: mean; line: 95% interval over seeds and items, not corrected; small dots: seeds".into(),
            x: Axis::new("difference in greedy accuracy (percentage points)").percent(),
            rows,
            mark: Some(0.0),
        };
        Some(("comparisons".into(), forest.draw()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rl::config::Source;

    use super::super::plan::Study;
    use super::super::{Outcomes, Point, RowsFile};
    use super::*;
    use crate::forgetting::figures::{DECILES, LateEarlyMeans};
    use crate::forgetting::{Forgetting, PartErrors};

    /// The nth of 50 items is right where `right` says so; of a hundred late digits so many are misread, and the late
    /// half attends so much.
    fn run(row: &str, seed: u64, right: impl Fn(usize) -> bool, late: usize, attention: f64) -> RunResult {
        let digits = (0..50).collect::<Vec<_>>();
        let nibble = |four: &[usize]| four.iter().fold(0, |sum, n| 2 * sum + u32::from(right(*n))) << (4 - four.len());
        let right: String = digits.chunks(4).filter_map(|four| char::from_digit(nibble(four), 16)).collect();
        let errors = [PartErrors::default(); DECILES];
        let forgetting = Forgetting {
            rows: 10,
            fresh: errors,
            copied: errors,
            early: PartErrors { parts: 100, wrong: 5 },
            late: PartErrors { parts: 100, wrong: late },
            attention: Some(LateEarlyMeans { early: 0.5, late: attention }),
            late_early_cosine: None,
            exchanged_fresh: None,
            exchanged_copied: None,
        };
        let outcomes = Outcomes { items: 50, right, tokens: 100.0, answered: None, forgetting: Some(forgetting) };
        let point = |step, accuracy| Point { step, accuracy, late_early: None, focus: None };
        RunResult {
            row: row.into(),
            seed,
            fingerprint: String::new(),
            steps: 1,
            seconds: 1.0,
            rollouts: 1,
            weights: String::new(),
            curve: if row == WARM { vec![] } else { vec![point(0, 0.1), point(1, 0.01 * late as f64)] },
            reward: vec![],
            phi_length: None,
            clipped: None,
            outcomes: Some(outcomes),
        }
    }

    #[test]
    fn what_is_read_follows_the_level() {
        let crossed = Crossed { seeds: 14, items: 2000, difference: -0.017, error: 0.006 };
        let other = "dapo".to_owned();
        let reads = |adjusted, within, level| {
            RowCompared { other: &other, crossed, adjusted, within, smallest: 0.024, margin: 0.02, level }.reads()
        };
        assert_eq!(reads(0.04, 0.3, 0.05), "worse");
        assert_eq!(reads(0.04, 0.3, 0.0294), "none found; one of 2.4 points would have been");
        assert_eq!(reads(0.9, 0.03, 0.05), "the same, within 2 points");
        assert_eq!(reads(0.9, 0.03, 0.0294), "none found; one of 2.4 points would have been");
    }

    #[test]
    fn differences_are_the_row_minus_the_others_in_words_and_tables() {
        let base = Source::new("base", include_str!("../../../../configs/study.toml"));
        let rows = RowsFile::parse("rows", include_str!("../../../../configs/study_rows.toml")).unwrap();
        let study = Study::new(vec![base], rows, &[], false, None).unwrap();
        let mut results: BTreeMap<String, BTreeMap<u64, RunResult>> = BTreeMap::new();
        for seed in 1..=4 {
            let one = seed as usize % 2;
            let mut add = |run: RunResult| results.entry(run.row.clone()).or_default().insert(seed, run);
            add(run(WARM, seed, |n| n < 10, 20, 0.25));
            add(run("dapo", seed, |n| n < 10 + one, 15 + one, 0.30));
            add(run("vgpo", seed, |n| n < 40, 10, 0.35 + 0.01 * one as f64));
            add(run("vgpo_permuted", seed, |n| n < 40, 10, 0.35));
        }
        let report = Report { study: &study, results: &results, gate: None };
        let compared = report.compared();
        let text = report.comparisons(&compared);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("| DAPO |")).collect();
        let [difference, beside, _] = lines[..] else { panic!("{text}") };
        assert!(
            difference.starts_with("| DAPO | 4 | +59.0 ± ") && difference.ends_with(" points | better |"),
            "{difference}"
        );
        // Fewer late errors, and more attention, half of it in the difference of ratios.
        assert!(beside.starts_with(
            "| DAPO | -5.50 ± 0.92 | 0.000 | +0.00 ± 0.00 | - | -5.50 ± 0.92 | 0.000 | - | - | +0.1100 ± "
        ));
        assert!(text.contains(
            "| VGPO, focus permuted | 4 | +0.0 ± 0.0 | 1.000 | 1.000 | 0.000 | 0.0 points | the same, within 2 points |"
        ));
        assert!(text.contains("| VGPO, early for late | - | - | - | - | - | - | not yet |"), "{text}");
        let short = report.in_short(&compared);
        let lines: Vec<&str> = short.lines().skip(2).collect();
        assert_eq!(lines[0], "| | right of 50 items | late digits misread | VGPO minus it, points | reads as |");
        assert_eq!(lines[2..4], ["| before | 20.0% | 20.0% | | |", "| VGPO | 80.0% | 10.0% |  |  |"]);
        assert!(
            lines[4].starts_with("| DAPO | 21.0% | 15.5% | +59.0 ± ") && lines[4].ends_with(" | better |"),
            "{short}"
        );
        assert_eq!(lines[5], "| VGPO, focus permuted | 80.0% | 10.0% | +0.0 ± 0.0 | the same, within 2 points |");
        assert_eq!(lines.len(), 6, "the row that has not run is not there");
        // Before anything is compared there is no answer.
        results.remove("vgpo");
        let report = Report { study: &study, results: &results, gate: None };
        assert_eq!(report.in_short(&report.compared()), "");
    }
}
