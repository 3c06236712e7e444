//! What outcomes say about rows: differences over seeds and items with their tests.

use std::fmt::Write as _;

use ::report::svg::axis::Axis;
use ::report::svg::forest::{Forest, ForestRow};

use super::report::{Report, number, points};
use super::result::RunResult;
use super::rows::RowComparisons;
use crate::crossed::{Crossed, holm};
use crate::stats::{Interval, Paired, mean};

/// Level of intervals, tests and of the smallest effect.
const ALPHA: f64 = 0.05;

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
    pub(super) fn comparisons(&self) -> String {
        let Some(asked) = &self.study.rows.comparisons else { return String::new() };
        let mut out = format!("## {} against the others\n\n", self.label(&asked.row));
        out += &self.asked(asked);
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

    fn asked(&self, asked: &RowComparisons) -> String {
        let margin = 100.0 * asked.margin;
        let found: Vec<(&String, Option<Crossed>)> =
            asked.against.iter().map(|other| (other, self.crossed(&asked.row, other))).collect();
        let p: Vec<f64> = found.iter().map(|(_, c)| c.map_or(f64::NAN, |c| c.p())).collect();
        let adjusted = holm(&p);
        // What Holm asks of the smallest p: the strictest of the tests, so that what it can see all others can.
        let strictest = ALPHA / asked.against.len().max(1) as f64;
        let mut out = format!(
            "| {} minus | seeds | difference | p | p, Holm | p, within {margin:.0} points | smallest effect seen | reads as |\n\
             |---|---|---|---|---|---|---|---|\n",
            self.label(&asked.row)
        );
        for ((other, crossed), adjusted) in found.iter().zip(adjusted) {
            let Some(c) = crossed else {
                let _ = writeln!(out, "| {} | - | - | - | - | - | - | not yet |", self.label(other));
                continue;
            };
            let within = c.equivalence(asked.margin);
            let reads = match (adjusted < ALPHA, within < ALPHA) {
                (true, false) if c.difference > 0.0 => "better".to_owned(),
                (true, false) => "worse".to_owned(),
                (true, true) => format!("different, by less than {margin:.0} points"),
                (false, true) => format!("the same, within {margin:.0} points"),
                (false, false) => {
                    format!("none found; one of {:.1} points would have been", 100.0 * c.smallest(strictest))
                }
            };
            let half = Interval { n: c.seeds, mean: c.difference, half: c.half(1.0 - ALPHA) };
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {:.1} points | {reads} |",
                self.label(other),
                c.seeds,
                points(half),
                number(c.p(), 3),
                number(adjusted, 3),
                number(within, 3),
                100.0 * c.smallest(strictest),
            );
        }
        let _ = writeln!(
            out,
            "\nDifferences in accuracy on the same {} items after training from the same seed, in percentage points, with 95% \
             intervals: standard errors by a crossed bootstrap over seeds and items, Student's t with seeds - 1 degrees of \
             freedom. *p, Holm*: all of this table read together. *Within*: the larger p of two one-sided tests that the \
             difference is less than {margin:.0} points either way. *Smallest effect seen*: what 80 of 100 such studies \
             would find at the strictest level of Holm's.\n",
            self.items()
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
