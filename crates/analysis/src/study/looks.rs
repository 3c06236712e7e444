//! Where the models of each row look: errors at digits that only the picture tells, attention, and what follows an
//! exchanged picture.

use std::fmt::Write as _;

use ::report::svg::axis::Axis;
use ::report::svg::chart::{Chart, Mark, Series};
use ::report::svg::forest::{Forest, ForestRow};

use super::plan::WARM;
use super::report::{Report, number, percent};
use super::result::RunResult;
use crate::forgetting::{Followed, Forgetting, LateEarlyMeans, PartErrors};
use crate::stats::{Interval, mean};

impl Report<'_> {
    fn forgetting(&self, row: &str) -> Vec<&Forgetting> {
        self.runs(row).into_iter().filter_map(RunResult::forgetting).collect()
    }

    /// Rows of the looking table and of its plots: the warm start first.
    fn lookers(&self) -> Vec<(String, String)> {
        let warm = (WARM.to_owned(), "warm start".to_owned());
        let rows = self.study.rows.rows.iter().map(|row| (row.name.clone(), row.label.clone()));
        std::iter::once(warm).chain(rows).filter(|(name, _)| !self.forgetting(name).is_empty()).collect()
    }

    /// The section on where the models of each row look.
    pub(super) fn looks(&self) -> String {
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
            let answered = self.values(&name, |r| r.outcomes.as_ref()?.answered_late());
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

    /// Of the lookers, those that are drawn as lines, no more than can be told apart: what the study compares, where it
    /// says so.
    fn lines(&self, mut lookers: Vec<(String, String)>) -> Vec<(String, String)> {
        if let Some(asked) = &self.study.rows.comparisons {
            lookers.retain(|(name, _)| name == WARM || *name == asked.row || asked.against.contains(name));
        }
        lookers
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
            series: self.lines(lookers.clone()).iter().map(series).collect(),
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
