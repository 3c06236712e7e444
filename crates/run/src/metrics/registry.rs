//! What a metric is: its name, unit, mean, meaning. `DECLARED` lists them.

use std::fmt::Write;

use super::declared::DECLARED;

/// How the values of tokens, responses, micro-batches and ranks become the one number of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Summed over everything.
    Sum,
    /// Sum over tokens divided by their number, both over all micro-batches and ranks.
    TokenMean,
    /// Mean over responses, each with the same weight.
    ResponseMean,
    /// Mean over prompts (groups), each with the same weight.
    PromptMean,
    /// Each optimizer step's micro-batches are summed; then the mean over the optimizer steps that had a loss.
    StepMean,
    /// Sum over tokens divided by their number in each optimizer step; then the mean over those that had a loss.
    StepTokenMean,
    /// A number of a whole optimizer step, as the norm of its gradient is: equal on all ranks. Then the mean over the
    /// steps that its meaning names.
    WholeStepMean,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Computed once from all responses of the batch, as a correlation is.
    Batch,
    /// The last value; equal on all ranks.
    Last,
    /// Measured by the clock: the slowest rank's. Differs from run to run.
    Clock,
    /// Units of all ranks together over the seconds of the slowest. Differs from run to run.
    Rate,
}

impl Reduction {
    /// As the documentation says it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::TokenMean => "mean over tokens",
            Self::ResponseMean => "mean over responses",
            Self::PromptMean => "mean over prompts",
            Self::StepMean => "mean over optimizer steps",
            Self::StepTokenMean => "mean over tokens, then optimizer steps",
            Self::WholeStepMean => "of whole optimizer steps, then their mean",
            Self::Max => "max",
            Self::Min => "min",
            Self::Batch => "of the batch",
            Self::Last => "last",
            Self::Clock => "clock",
            Self::Rate => "rate",
        }
    }
}

/// A metric that is written to `metrics.jsonl`.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its key. `{...}` stands for any text that is not empty: `reward/{metric}`.
    pub name: &'static str,
    /// Of its value: `tokens`, `nats`, `share` (0 to 1), `s`; `-` for a plain number, `text` for the one that is none.
    pub unit: &'static str,
    /// How it becomes one number per step.
    pub reduction: Reduction,
    /// What it says, and when it is there.
    pub meaning: &'static str,
}

impl Metric {
    /// Whether its name holds a placeholder.
    pub(crate) fn is_pattern(&self) -> bool {
        self.name.contains('{')
    }

    /// Whether `key` is this metric.
    pub fn is(&self, key: &str) -> bool {
        match self.name.split_once('{') {
            None => self.name == key,
            Some((prefix, _)) => key.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()),
        }
    }
}

/// Metrics that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Heading.
    pub title: &'static str,
    /// What holds for all of them; may be empty.
    pub note: &'static str,
    /// In the order of the documentation.
    pub metrics: &'static [Metric],
}

/// All declared metrics by subject, in the order of the documentation.
pub fn sections() -> &'static [Section] {
    DECLARED
}

/// All declared metrics.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    DECLARED.iter().flat_map(|section| section.metrics)
}

/// A validation metric before the first step of a stage, and after one.
const VALIDATIONS: [&str; 2] = ["val_before/", "val/"];

/// The declaration of a key: that with its very name, else the pattern that it fits. What was validated before the
/// first step must be declared as what is validated after one.
pub fn declared(key: &str) -> Option<&'static Metric> {
    if let Some(rest) = key.strip_prefix(VALIDATIONS[0]) {
        declared(&format!("{}{rest}", VALIDATIONS[1]))?;
    }
    let found = || metrics().filter(|metric| metric.is(key));
    found().find(|metric| !metric.is_pattern()).or_else(|| found().next())
}

/// The part of a key before its first `/`.
fn space(key: &str) -> Option<&str> {
    key.split_once('/').map(|(space, _)| space)
}

/// Whether an undeclared `key` is another's own (`mine/loss`): it stands under a prefix that no declared metric has. A
/// shaping, loss or reward from outside this project chooses such a prefix and declares nothing.
pub(crate) fn is_foreign(key: &str) -> bool {
    space(key).is_some_and(|own| !own.is_empty() && metrics().all(|metric| space(metric.name) != Some(own)))
}

/// `docs/metrics.md`.
pub fn reference() -> String {
    let mut out = INTRODUCTION.to_string();
    for section in DECLARED {
        let _ = write!(out, "\n## {}\n\n", section.title);
        if !section.note.is_empty() {
            let _ = write!(out, "{}\n\n", section.note);
        }
        out.push_str("| key | unit | reduction | meaning |\n|---|---|---|---|\n");
        for metric in section.metrics {
            let Metric { name, unit, reduction, meaning } = metric;
            let _ = writeln!(out, "| `{name}` | {unit} | {} | {meaning} |", reduction.text());
        }
    }
    out
}

const INTRODUCTION: &str = "# Metrics

(This page is written by the registry in `crates/run`: `UPDATE_DOCS=1 cargo test -p run`. The other files of a run are described in
[run-folder.md](run-folder.md).)

`trainer.json` holds a checksum of each `.safetensors` file of its checkpoint. A file that is not what was written is refused when
training goes on from it; `trainer.resume = \"auto\"` then takes the newest checkpoint that is whole, and says so.

`metrics.jsonl` holds one JSON object a step, `step` counting over all stages. A number that is not finite is `null`. Keys that
start with `time/` (seconds) and `perf/` (tokens a second) differ from run to run; all others are the same for the same
configuration and seed on the CPU, whatever was interrupted and resumed.

A share lies between 0 and 1; log-probs, entropies and divergences are in nats. The reduction says how the values of tokens, responses,
micro-batches and ranks become the one number of a step. A shaping, loss or reward from outside may write metrics of its own under a
prefix of its own (`mine/weight_max`); a key under a prefix of this page must be declared here.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).unwrap_or_default() == reference(),
            "docs/metrics.md is out of date; run UPDATE_DOCS=1 cargo test -p run"
        );
    }

    #[test]
    fn a_key_is_declared_once() {
        let mut names: Vec<_> = metrics().map(|metric| metric.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(metrics().all(|metric| !metric.meaning.is_empty() && !metric.unit.is_empty()));
    }

    #[test]
    fn whose_a_key_is() {
        assert_eq!(declared("reward/overlong").unwrap().name, "reward/{metric}");
        assert_eq!(declared("val_before/accuracy").unwrap().name, "val_before/{metric}");
        assert_eq!(declared("val/accuracy").unwrap().name, "val/accuracy");
        assert_eq!(declared("val_before/accuracy/geometry").unwrap().name, "val_before/{metric}");
        for wrong in
            ["reward/", "actor/los", "loss", "vgpo/new", "", "val_before/new", "val_before/accuracy/", "val/new"]
        {
            assert!(declared(wrong).is_none() && !is_foreign(wrong), "{wrong}");
        }
        assert!(is_foreign("mine/weight_max") && declared("mine/weight_max").is_none());
    }

    /// The text of all sources below `folder`.
    fn sources(folder: &std::path::Path, out: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                out.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    /// The sources of every crate but this one.
    fn others() -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() != "run" && path.join("src").is_dir() {
                sources(&path.join("src"), &mut text);
            }
        }
        text
    }

    #[test]
    fn what_is_declared_is_written_somewhere() {
        let text = others();
        let missing: Vec<_> = metrics()
            .filter(|metric| !metric.is_pattern() && metric.name != "step")
            .filter(|metric| !text.contains(&format!("\"{}\"", metric.name)))
            .map(|metric| metric.name)
            .collect();
        assert!(missing.is_empty(), "declared and written nowhere: {missing:?}");
    }

    /// Literals of the sources that look like a metric of ours: `"actor/loss"`.
    #[test]
    fn what_is_written_is_declared() {
        let text = others();
        let spaces: Vec<_> = metrics().filter_map(|metric| space(metric.name)).collect();
        let name = |part: &str| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_/".contains(c));
        let found: Vec<_> = text
            .split('"')
            .filter(|part| !part.ends_with('/') && name(part) && space(part).is_some_and(|own| spaces.contains(&own)))
            .collect();
        assert!(found.len() > 50, "the sources are not where they were");
        let undeclared: Vec<_> =
            found.into_iter().filter(|key| declared(key).is_none() && !INVENTED.contains(key)).collect();
        assert!(undeclared.is_empty(), "written and not declared: {undeclared:?}");
    }

    /// Keys that tests make up.
    const INVENTED: &[&str] = &["val/odd"];
}
