//! What outcomes say about rows: differences over seeds and items with their tests, and where each row's models look.

use std::fmt::Write as _;

use ::report::svg::axis::Axis;
use ::report::svg::chart::{Chart, Mark, Series};
use ::report::svg::forest::{Forest, ForestRow};

use super::outcomes::Outcomes;
use super::plan::WARM;
use super::report::{Report, number, percent, points};
use super::result::RunResult;
use super::rows::RowComparisons;
use crate::crossed::{Crossed, holm};
use crate::forgetting::{Followed, Forgetting, LateEarlyMeans, PartErrors};
use crate::stats::{Interval, mean};

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
        out += &self.looks();
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

    fn outcomes(&self, row: &str) -> Vec<&Outcomes> {
        self.runs(row).into_iter().filter_map(|run| run.outcomes.as_ref()).collect()
    }

    fn forgetting(&self, row: &str) -> Vec<&Forgetting> {
        self.outcomes(row).into_iter().filter_map(|outcomes| outcomes.forgetting.as_ref()).collect()
    }

    /// Rows of the looking table and of its plots: the warm start first.
    fn lookers(&self) -> Vec<(String, String)> {
        let warm = (WARM.to_owned(), "warm start".to_owned());
        let rows = self.study.rows.rows.iter().map(|row| (row.name.clone(), row.label.clone()));
        std::iter::once(warm).chain(rows).filter(|(name, _)| !self.forgetting(name).is_empty()).collect()
    }

    /// Where the models of each row look.
    fn looks(&self) -> String {
        let lookers = self.lookers();
        if lookers.is_empty() {
            return String::new(); // nothing is drawn either
        }
        let mut out = String::from(
            "## Where they look\n\n\
             | row | fresh error, early | late | late/early | answered, late | exchanged, fresh | exchanged, copied | attention late/early | cosine late/early | phi and length | clipped |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for (name, label) in lookers {
            let all = self.forgetting(&name);
            let of = |value: &dyn Fn(&Forgetting) -> Option<f64>| {
                Interval::of(&all.iter().filter_map(|f| value(f)).collect::<Vec<_>>())
            };
            let runs = |value: &dyn Fn(&RunResult) -> Option<f64>| number(mean(&self.values(&name, value)), 3);
            let late = |o: &Outcomes| PartErrors::sum(&o.answered?[5..]).rate();
            let answered: Vec<f64> = self.outcomes(&name).into_iter().filter_map(late).collect();
            let _ = writeln!(
                out,
                "| {label} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                percent(of(&|f| f.early.rate())),
                percent(of(&|f| f.late.rate())),
                number(of(&Forgetting::error_ratio).mean, 2),
                percent(Interval::of(&answered)),
                percent(of(&|f| f.exchanged_fresh.as_ref().and_then(Followed::share))),
                percent(of(&|f| f.exchanged_copied.as_ref().and_then(Followed::share))),
                number(of(&|f| f.attention.as_ref().map(LateEarlyMeans::ratio)).mean, 3),
                number(of(&|f| f.late_early_cosine).mean, 3),
                runs(&|r| r.phi_length),
                runs(&|r| r.clipped),
            );
        }
        out += "\n*Fresh error*: share of digits that were not written before at which the likeliest token is wrong, reading a \
                worked response (teacher-forced), in its early and late half. *Answered, late*: the same in the late half of \
                the model's own greedy answers, as far as they have the form of a worked response. *Exchanged*: the prompt \
                has another picture, every digit of which differs, and all keys and values are computed with it; the worked \
                response follows the first picture in its early terms. Share of late digits at which the likeliest token is \
                the new picture's: *fresh* ones stand in the picture alone, *copied* ones also in the text, as the first \
                picture had them. *Attention*: last layer, mean over heads, mass on the picture. *Phi and length*, \
                *clipped* (tokens whose ratio was outside): means over training steps.\n\n\
                ![errors at fresh digits](study/fresh_error.svg)\n\n![attention](study/attention.svg)\n\n";
        out
    }

    /// Errors by tenth of the response, and attention in the two halves.
    pub(super) fn looking_plots(&self) -> Vec<(String, String)> {
        let lookers = self.lookers();
        if lookers.is_empty() {
            return vec![];
        }
        let by_decile = |name: &str| -> Vec<(f64, f64)> {
            let all = self.forgetting(name);
            (0..crate::forgetting::figures::DECILES)
                .filter_map(|d| Some((10.0 * d as f64 + 5.0, PartErrors::sum(all.iter().map(|f| &f.fresh[d])).rate()?)))
                .map(|(at, rate)| (at / 100.0, rate))
                .collect()
        };
        let series = |(name, label): &(String, String)| Series {
            name: label.clone(),
            points: by_decile(name),
            mark: if name == WARM { Mark::Dashed } else { Mark::Line { half: vec![] } },
        };
        let errors = Chart {
            title: "Errors at digits that were not written before".into(),
            note: "teacher-forced, all seeds together".into(),
            x: Axis::new("share of the response").percent().range(0.0, 1.0),
            y: Axis::new("wrong digits").percent(),
            series: lookers.iter().map(series).collect(),
        };
        let attention = lookers
            .iter()
            .map(|(name, label)| {
                let ratios: Vec<f64> =
                    self.forgetting(name).iter().filter_map(|f| Some(f.attention?.ratio())).collect();
                let Interval { mean, half, .. } = Interval::of(&ratios);
                ForestRow { label: label.clone(), mean, half, values: ratios }
            })
            .collect();
        let attention = Forest {
            title: "Attention on the picture, late half over early half".into(),
            note: "large dot: mean; line: 95% interval; small dots: seeds".into(),
            x: Axis::new("late/early"),
            rows: attention,
            mark: Some(1.0),
        };
        vec![("fresh_error".into(), errors.draw()), ("attention".into(), attention.draw())]
    }
}
