//! The report of a study: tables, paired tests and plots as one Markdown file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use ::report::svg::axis::Axis;
use ::report::svg::chart::{Chart, Mark, Series};
use ::report::svg::forest::{Forest, ForestRow};

use super::StudyError;
use super::gate::GateVerdict;
use super::plan::{Study, WARM};
use super::result::{self, Point, RunResult};
use super::rows::Table;
use super::sessions::Session;
use crate::stats::{Interval, Paired, mean};

/// Finished runs by row, then seed.
type ResultsByRow = BTreeMap<String, BTreeMap<u64, RunResult>>;

/// Reads every result and writes `study.md` and `study/*.svg`.
///
/// # Errors
/// As [`RunResult::read`], and whatever the file system refuses.
pub fn write(study: &Study, out: &Path) -> Result<(), StudyError> {
    let mut results = ResultsByRow::new();
    let grid = study.grid()?;
    for (row, seed) in &grid {
        if let Some(found) = RunResult::read(out, row, *seed, &study.fingerprint(study.row(row), *seed)?)? {
            results.entry(row.clone()).or_default().insert(*seed, found);
        }
    }
    let report = Report { study, results: &results, gate: GateVerdict::read(out) };
    let plots = report.plots();
    for (name, svg) in &plots {
        result::write(&out.join("study").join(format!("{name}.svg")), svg)?;
    }
    result::write(&out.join("study.md"), &report.markdown(grid.len(), &Session::read(out), &plots)?)
}

/// What the tables and plots of a study are made of.
pub(super) struct Report<'a> {
    pub study: &'a Study,
    pub results: &'a ResultsByRow,
    pub gate: Option<GateVerdict>,
}

/// `62.9% ± 3.1`, or without the interval where there is none.
pub(super) fn percent(i: Interval) -> String {
    match (i.mean.is_finite(), i.half.is_finite()) {
        (false, _) => "-".into(),
        (true, false) => format!("{:.1}%", 100.0 * i.mean),
        (true, true) => format!("{:.1}% ± {:.1}", 100.0 * i.mean, 100.0 * i.half),
    }
}

/// `+2.3 ± 1.1` points.
pub(super) fn points(i: Interval) -> String {
    match (i.mean.is_finite(), i.half.is_finite()) {
        (false, _) => "-".into(),
        (true, false) => format!("{:+.1}", 100.0 * i.mean),
        (true, true) => format!("{:+.1} ± {:.1}", 100.0 * i.mean, 100.0 * i.half),
    }
}

/// Seeds from which on intervals are drawn: that of two seeds is wider than any plot.
const DRAWN: usize = 3;

fn drawn(i: Interval) -> Interval {
    Interval { half: if i.n < DRAWN { f64::NAN } else { i.half }, ..i }
}

pub(super) fn number(v: f64, digits: usize) -> String {
    if v.is_finite() { format!("{v:.digits$}") } else { "-".into() }
}

impl Report<'_> {
    pub(super) fn runs(&self, row: &str) -> Vec<&RunResult> {
        self.results.get(row).map(|seeds| seeds.values().collect()).unwrap_or_default()
    }

    pub(super) fn values(&self, row: &str, of: impl Fn(&RunResult) -> Option<f64>) -> Vec<f64> {
        self.runs(row).into_iter().filter_map(of).collect()
    }

    /// `of` of two rows on the seeds that both have.
    pub(super) fn pairs(&self, row: &str, other: &str, of: impl Fn(&RunResult) -> Option<f64>) -> (Vec<f64>, Vec<f64>) {
        let (Some(a), Some(b)) = (self.results.get(row), self.results.get(other)) else { return (vec![], vec![]) };
        a.iter().filter_map(|(seed, a)| Some((of(a)?, of(b.get(seed)?)?))).unzip()
    }

    /// Accuracy of the warm starts: that before the first step of any row of a seed, which is the same in all.
    fn base(&self) -> BTreeMap<u64, Point> {
        let mut base = BTreeMap::new();
        for result in self.results.values().flat_map(BTreeMap::values) {
            if let Some(first) = result.before() {
                base.entry(result.seed).or_insert(*first);
            }
        }
        base
    }

    /// Accuracy that the rows of a seed begin with, of the same items as their accuracy afterwards.
    fn start(&self, seed: u64) -> Option<f64> {
        let warm = self.results.get(WARM).and_then(|seeds| seeds.get(&seed)?.accuracy());
        warm.or_else(|| self.base().get(&seed).map(|point| point.accuracy))
    }

    /// [`start`](Self::start) of all seeds that have one.
    pub(super) fn starts(&self) -> Vec<f64> {
        self.study.seeds().filter_map(|seed| self.start(seed)).collect()
    }

    pub(super) fn label(&self, row: &str) -> String {
        self.study.row(row).map_or_else(|| row.to_string(), |r| r.label.clone())
    }

    fn table(&self, table: &Table) -> String {
        let reference = &self.study.rows.reference;
        let mut out = format!(
            "| row | seeds | accuracy | gain | against {} | p (t) | p (sign flips) | mean of curve | late/early | s a run |\n|---|---|---|---|---|---|---|---|---|---|\n",
            self.label(reference)
        );
        if table.name == "main" {
            let (starts, before) = (self.starts(), self.base().into_values());
            let _ = writeln!(
                out,
                "| base (warm start) | {} | {} | | | | | | {} | |",
                starts.len(),
                percent(Interval::of(&starts)),
                number(mean(&before.filter_map(|p| p.late_early).collect::<Vec<_>>()), 3),
            );
        }
        for row in &table.rows {
            let accuracy = self.values(row, RunResult::accuracy);
            let gain = self.values(row, |r| Some(r.accuracy()? - self.start(r.seed)?));
            let (a, b) = self.pairs(row, reference, RunResult::accuracy);
            let paired = (row != reference).then(|| Paired::of(&a, &b)).flatten();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                self.label(row),
                accuracy.len(),
                percent(Interval::of(&accuracy)),
                points(Interval::of(&gain)),
                paired.map_or(String::new(), |p| points(p.difference)),
                paired.map_or(String::new(), |p| number(p.p_t, 3)),
                paired.map_or(String::new(), |p| number(p.p_flip, 3)),
                percent(Interval::of(&self.values(row, RunResult::mean_accuracy))),
                number(mean(&self.values(row, |r| r.curve.last()?.late_early)), 3),
                number(mean(&self.values(row, |r| Some(r.seconds))), 0),
            );
        }
        out
    }

    /// Mean over these seeds at each validation, with its interval.
    fn curve(&self, row: &str, seeds: &BTreeSet<u64>, of: impl Fn(&Point) -> Option<f64>) -> Series {
        let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for run in self.runs(row).iter().filter(|run| seeds.contains(&run.seed)) {
            for point in &run.curve {
                by_step.entry(point.step).or_default().extend(of(point));
            }
        }
        let all: Vec<(f64, Interval)> =
            by_step.into_iter().map(|(step, values)| (step as f64, Interval::of(&values))).collect();
        Series {
            name: self.label(row),
            points: all.iter().map(|(step, i)| (*step, i.mean)).collect(),
            mark: Mark::Line { half: all.iter().map(|(_, i)| drawn(*i).half).collect() },
        }
    }

    fn plots(&self) -> Vec<(String, String)> {
        let mut plots = Vec::new();
        for table in &self.study.rows.tables {
            let rows = || table.rows.iter().filter(|r| !self.runs(r).is_empty());
            // Means of other seeds would differ by what these are, not by what the rows do.
            let each = rows().map(|r| self.runs(r).iter().map(|run| run.seed).collect::<BTreeSet<_>>());
            let seeds = each.reduce(|all, own| &all & &own).unwrap_or_default();
            if seeds.is_empty() {
                continue;
            }
            let band = if seeds.len() < DRAWN { "" } else { "; band: 95% interval" };
            let note = format!("mean of the {} seeds that all have{band}", seeds.len());
            if table.name == "main" || table.name == "parts" {
                let curves = Chart {
                    title: format!("{}: accuracy on held-out pictures", table.title),
                    note: note.clone(),
                    x: Axis::new("training steps"),
                    y: Axis::new("greedy accuracy").percent(),
                    series: rows().map(|r| self.curve(r, &seeds, |p| Some(p.accuracy))).collect(),
                };
                plots.push((format!("{}_accuracy", table.name), curves.draw()));
                let ratios = Chart {
                    title: format!("{}: visual focus, late half over early half", table.title),
                    note: note.clone(),
                    x: Axis::new("training steps"),
                    y: Axis::new("late/early ratio of visual focus"),
                    series: rows().map(|r| self.curve(r, &seeds, |p| p.late_early)).collect(),
                };
                plots.push((format!("{}_late_early", table.name), ratios.draw()));
            }
            if let Some(key) = &table.key {
                plots.push((format!("{}_sweep", table.name), self.sweep(table, key, &seeds, note)));
            }
        }
        plots.push(("differences".into(), self.differences()));
        plots.extend(self.comparison_plot());
        plots.extend(self.looking_plots());
        plots
    }

    fn sweep(&self, table: &Table, key: &str, seeds: &BTreeSet<u64>, note: String) -> String {
        let accuracy = |row: &str| self.values(row, |run| run.accuracy().filter(|_| seeds.contains(&run.seed)));
        let rows: Vec<(f64, Interval)> = table
            .rows
            .iter()
            .filter_map(|name| {
                let x = self.study.number(self.study.row(name)?, key)?;
                Some((x, Interval::of(&accuracy(name)))).filter(|(_, i)| i.n > 0)
            })
            .collect();
        let reference = mean(&accuracy(&self.study.rows.reference));
        let ends = [rows.first(), rows.last()].into_iter().flatten().map(|r| (r.0, reference)).collect();
        Chart {
            title: table.title.clone(),
            note,
            x: Axis::new(key),
            y: Axis::new("greedy accuracy after training").percent(),
            series: vec![
                Series {
                    name: "VGPO".into(),
                    points: rows.iter().map(|(x, i)| (*x, i.mean)).collect(),
                    mark: Mark::Line { half: rows.iter().map(|(_, i)| drawn(*i).half).collect() },
                },
                Series { name: self.label(&self.study.rows.reference), points: ends, mark: Mark::Dashed },
            ],
        }
        .draw()
    }

    /// Every row against the reference, seed by seed.
    fn differences(&self) -> String {
        let reference = &self.study.rows.reference;
        let rows = self
            .study
            .rows
            .rows
            .iter()
            .filter(|r| r.name != *reference)
            .map(|row| {
                let (a, b) = self.pairs(&row.name, reference, RunResult::accuracy);
                let values: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
                let Interval { mean, half, .. } = drawn(Interval::of(&values));
                ForestRow { label: row.label.clone(), mean, half, values }
            })
            .collect();
        Forest {
            title: format!("Accuracy after training, minus {}'s on the same seed", self.label(reference)),
            note: "large dot: mean; line: 95% interval (from three seeds on); small dots: seeds".into(),
            x: Axis::new("difference in greedy accuracy (percentage points)").percent(),
            rows,
            mark: Some(0.0),
        }
        .draw()
    }

    fn markdown(&self, planned: usize, sessions: &[Session], plots: &[(String, String)]) -> Result<String, StudyError> {
        let compared = self.compared();
        let finished: usize = self.results.values().map(BTreeMap::len).sum();
        let base = self.study.base_config()?;
        let mut out = String::from("# Study\n\n");
        let (question, design) =
            self.study.rows.preface.trim().split_once("\n\n").unwrap_or((&self.study.rows.preface, ""));
        for part in [question.trim(), &self.in_short(&compared), design] {
            out += part;
            out += if part.is_empty() { "" } else { "\n\n" };
        }
        if self.study.quick {
            out += "**This is the quick form**: few rows, seeds and steps on an easier task. It shows that everything runs; with so few \
                    seeds its differences say nothing about the algorithms.\n\n";
        }
        if finished < planned {
            let _ =
                writeln!(out, "**Incomplete**: {finished} of {planned} runs are finished; the same command goes on.\n");
        }
        let _ = writeln!(
            out,
            "{}. The rows of a seed start from the same weights (a supervised warm start), see the same prompts and \
             draw with the same random numbers; each trains on {} prompts x {} responses a step.\n",
            self.study.size(),
            base.data.rollout_batch_size,
            base.rollout.n
        );
        let files =
            |files: &[data::DataSpec]| files.iter().map(|f| format!("`{}`", f.path())).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "- trained on {}", files(&base.data.train_files));
        let asked = |rows: usize, of: String| match rows {
            0 => format!("greedy, on all rows of {of}"),
            rows => format!("greedy, on the first {rows} rows of {of}"),
        };
        let validated = asked(base.data.val_max_samples, files(&base.data.val_files));
        let _ = match &self.study.rows.outcomes {
            None => writeln!(out, "- accuracy: {validated}"),
            Some(o) => {
                let items = asked(o.items, format!("`{}`", o.data));
                writeln!(out, "- accuracy: {items}\n- curves and their means: {validated}")
            }
        };
        let rollouts: Vec<u64> =
            self.results.values().flat_map(BTreeMap::values).map(|r| r.rollouts).filter(|r| *r > 0).collect();
        if let (Some(low), Some(high)) = (rollouts.iter().min(), rollouts.iter().max()) {
            let _ = match low == high {
                true => writeln!(out, "- sampled responses of a run: {low}, the same in every row"),
                false => writeln!(out, "- sampled responses of a run: {low} to {high}; **the budgets differ**"),
            };
        }
        if finished > 0 {
            let steps: f64 = self.results.values().flat_map(BTreeMap::values).map(|r| r.seconds).sum();
            let _ = writeln!(out, "- time: {steps:.0} s of training, all runs together");
        }
        for s in sessions {
            let _ = writeln!(
                out,
                "- `{}`: {} runs in {:.0} s, {} at a time, on {} cores",
                s.command, s.finished, s.seconds, s.jobs, s.cores
            );
        }
        if let Some(verdict) = &self.gate {
            out += &verdict.section();
        }
        // Of warm starts alone there is nothing to compare.
        if self.study.rows.rows.iter().all(|row| self.runs(&row.name).is_empty()) {
            out += "No row has run yet.\n\n## What this shows, and what not\n\n";
            out += &self.study.rows.closing;
            return Ok(out);
        }
        out += &self.comparisons(&compared);
        out += &self.tables(plots);
        out += "## All rows\n\n![differences](study/differences.svg)\n\n";
        out += &self.limits();
        out += &self.study.rows.closing;
        Ok(out)
    }

    /// Each table of the rows file, with its plots.
    fn tables(&self, plots: &[(String, String)]) -> String {
        let mut out = String::from(
            "\nAccuracies are means over seeds with 95% intervals (Student's t); those of rows with other numbers of seeds are not \
                to be compared, *against* is, which is of the seeds that both have. *gain*: over the warm start of the same seed. *against*: mean of \
                the differences on the same seed, in percentage points, with the paired t test and the exact sign-flip test, both two-sided and \
                not corrected for the number of rows.",
        );
        let seeds: BTreeSet<usize> = self.study.rows.rows.iter().map(|row| self.study.seeds_of(row).count()).collect();
        let floors: Vec<(usize, String)> =
            seeds.iter().map(|n| (*n, number(2.0 / 2f64.powi((*n).min(60) as i32), 4 + n / 8))).collect();
        let _ = writeln!(
            out,
            " With {} the sign-flip p cannot fall below {}. *mean of curve*: mean accuracy of all validations after the first. \
             *late/early*: visual focus of the late half of the validation responses over that of the early half.\n",
            floors.iter().map(|(seeds, _)| format!("{seeds}")).collect::<Vec<_>>().join(" or ") + " seeds",
            floors.iter().map(|(_, floor)| floor.clone()).collect::<Vec<_>>().join(" or "),
        );
        for table in &self.study.rows.tables {
            let _ = writeln!(out, "## {}\n\n{}", table.title, self.table(table));
            for plot in ["accuracy", "late_early", "sweep"] {
                let name = format!("{}_{plot}", table.name);
                if plots.iter().any(|(n, _)| *n == name) {
                    let _ = writeln!(out, "![{}: {}](study/{name}.svg)\n", table.title, plot.replace('_', "/"));
                }
            }
        }
        out
    }

    /// What a reader may not conclude.
    fn limits(&self) -> String {
        let base = self.starts();
        let mut out = String::from("## What this shows, and what not\n\n");
        let reference = &self.study.rows.reference;
        let (mut sure, mut intervals) = (Vec::new(), 0);
        for row in self.study.rows.rows.iter().filter(|r| r.name != *reference) {
            let (a, b) = self.pairs(&row.name, reference, RunResult::accuracy);
            let paired = Paired::of(&a, &b).filter(|p| p.difference.half.is_finite());
            intervals += usize::from(paired.is_some());
            if let Some(p) = paired.filter(|p| p.difference.mean.abs() > p.difference.half) {
                sure.push(format!("{} ({})", row.label, points(p.difference)));
            }
        }
        let _ = writeln!(
            out,
            "- Rows whose 95% interval of the difference to {} leaves out 0: {}. Of {} such intervals one in twenty does so by chance.",
            self.label(reference),
            if sure.is_empty() { "none".into() } else { sure.join(", ") },
            intervals
        );
        let _ = writeln!(
            out,
            "- One model size, one family of problems, one learning rate that was not tuned row by row. The base starts at {}.",
            percent(Interval::of(&base))
        );
        out += "- Visual focus and its late/early ratio are read from the validation responses; for every row, also those that do not use it.\n";
        let ratio: Vec<f64> = self.base().values().filter_map(|p| p.late_early).collect();
        if !ratio.is_empty() {
            let errors = self.values(WARM, |r| r.forgetting()?.error_ratio());
            let beside = match errors.is_empty() {
                true => "where it is near 1 there is little visual forgetting for VGPO to undo".to_owned(),
                false => format!(
                    "their errors at fresh digits have one of {}. Where the first is near 1 and the second is not, visual focus \
                     does not show what is forgotten",
                    number(mean(&errors), 2)
                ),
            };
            let _ = writeln!(
                out,
                "- The visual focus of the warm starts has a late/early ratio of {}; {beside}.",
                number(mean(&ratio), 3)
            );
        }
        out
    }
}
