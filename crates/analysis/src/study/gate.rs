//! The gate: what a warm start has to show before any row runs. A study of forgetting on a model that does not forget,
//! or that reinforcement learning cannot get off the ground, would say nothing whatever its rows say.
//!
//! Which settings of the warm start are tried, and in which order, is written down in the rows file beforehand. The
//! first that passes is the study's; if none does, no row runs, and that is the result.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use comm::Ranks;
use serde::{Deserialize, Serialize};

use super::plan::{Study, WARM};
use super::result::{self, RunResult};
use super::runner::{self, Ended, RunToTrain};
use super::{Outcome, StudyError};
use crate::forgetting::PartErrors;
use crate::stats::mean;

/// `[gate]` of a rows file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSpec {
    /// What a reader of the report has to know of how the settings came about; Markdown.
    #[serde(default)]
    pub note: String,
    /// Warm starts of each setting; those of the setting that passes are the study's first.
    pub seeds: usize,
    /// The teacher-forced error on fresh digits of the late half has to be at least so many times that of the early
    /// half, on average over the seeds.
    pub error_ratio: f64,
    /// Attention on the picture, late half over early half, has to be below this on average.
    pub attention_ratio: f64,
    /// Greedy accuracy has to lie between these two on average: below, all groups of responses would be wrong, and
    /// above there would be nothing to learn.
    pub accuracy: [f64; 2],
    /// What is tried, in this order.
    pub settings: Vec<GateSetting>,
}

/// A setting of the warm start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSetting {
    /// Name in folders.
    pub name: String,
    /// `section.key=value`, for warm starts and rows alike.
    #[serde(default)]
    pub set: Vec<String>,
    /// So many supervised stages are trained once, and the warm starts of all seeds go on from there, as the runs of a
    /// paper begin from one published model.
    #[serde(default)]
    pub shared: usize,
}

/// What one warm start shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateMeasure {
    /// Its setting.
    pub setting: String,
    /// Its seed.
    pub seed: u64,
    /// Fresh digits of the early half.
    pub early: PartErrors,
    /// Fresh digits of the late half.
    pub late: PartErrors,
    /// Error of the late ones over that of the early ones.
    pub error_ratio: f64,
    /// Attention on the picture, late over early.
    pub attention_ratio: f64,
    /// Greedy accuracy on the fixed items.
    pub accuracy: f64,
}

/// `gate.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateVerdict {
    /// What was asked.
    pub gate: GateSpec,
    /// What was measured.
    pub measured: Vec<GateMeasure>,
    /// The first setting that passes.
    pub chosen: Option<String>,
}

/// Where seeds begin in a study with a gate: away from those of a study without one.
pub(super) const FIRST_SEED: u64 = 1001;

/// Folder of the gate's warm starts in the study's, a folder a setting.
pub(super) const FOLDER: &str = "gate";

/// File of the verdict in the study's folder.
pub(super) const FILE: &str = "gate.json";

impl GateSpec {
    /// Whether the warm starts of a setting pass.
    pub(super) fn passes(&self, measured: &[&GateMeasure]) -> bool {
        let of = |value: fn(&GateMeasure) -> f64| mean(&measured.iter().map(|m| value(m)).collect::<Vec<_>>());
        let [low, high] = self.accuracy;
        of(|m| m.error_ratio) >= self.error_ratio
            && of(|m| m.attention_ratio) < self.attention_ratio
            && (low..=high).contains(&of(|m| m.accuracy))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        match (self.seeds, self.settings.is_empty()) {
            (0, _) => Err("gate: seeds is 0; at least one warm start is needed".into()),
            (_, true) => Err("gate: there are no settings to try".into()),
            _ => Ok(()),
        }
    }
}

impl GateVerdict {
    /// The verdict in a study's folder; none where no gate was measured.
    pub(super) fn read(out: &Path) -> Option<Self> {
        let text = guard::file::read_text(&out.join(FILE), guard::limits().record_bytes).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn write(&self, out: &Path) -> Result<(), StudyError> {
        result::write(&out.join(FILE), &format!("{:#}\n", serde_json::to_value(self).unwrap_or_default()))
    }

    /// How many of the settings have been measured, on all their seeds.
    pub(super) fn tried(&self) -> usize {
        let whole = |setting: &&GateSetting| {
            self.measured.iter().filter(|m| m.setting == setting.name).count() == self.gate.seeds
        };
        self.gate.settings.iter().filter(whole).count()
    }

    /// A line a setting for a person.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for setting in &self.gate.settings {
            let own: Vec<&GateMeasure> = self.measured.iter().filter(|m| m.setting == setting.name).collect();
            if own.is_empty() {
                continue;
            }
            let of = |value: fn(&GateMeasure) -> f64| mean(&own.iter().map(|m| value(m)).collect::<Vec<_>>());
            let error = |value: fn(&GateMeasure) -> &PartErrors| {
                100.0 * PartErrors::sum(own.iter().map(|m| value(m))).rate().unwrap_or(f64::NAN)
            };
            text += &format!(
                "| {} | {} | {:.1}% | {:.1}% | {:.2} | {:.3} | {:.1}% | {} |\n",
                setting.name,
                own.len(),
                error(|m| &m.early),
                error(|m| &m.late),
                of(|m| m.error_ratio),
                of(|m| m.attention_ratio),
                100.0 * of(|m| m.accuracy),
                if self.gate.passes(&own) { "passes" } else { "does not" }
            );
        }
        text
    }

    /// The verdict of a gate for a person.
    pub fn text(&self) -> String {
        let chosen = self.chosen.as_deref().map_or("no setting passes".to_owned(), |name| format!("{name} passes"));
        format!("gate: {chosen}\n{}", self.table())
    }

    /// The gate of a study as a section of its report.
    pub(super) fn section(&self) -> String {
        let spec = &self.gate;
        let mut out = format!(
            "\n## The gate\n\nBefore any row runs, a warm start has to show that it forgets: an error on fresh digits of the late half \
             at least {} times that of the early half, attention on the picture that falls (late/early below {}), and a greedy \
             accuracy between {:.0}% and {:.0}%, without which no row could learn. {} settings are tried in this order, {} warm \
             starts each; the first that passes is the study's.\n\n",
            spec.error_ratio,
            spec.attention_ratio,
            100.0 * spec.accuracy[0],
            100.0 * spec.accuracy[1],
            spec.settings.len(),
            spec.seeds
        );
        if !spec.note.is_empty() {
            out += spec.note.trim();
            out += "\n\n";
        }
        out += "| setting | seeds | fresh error, early | late | ratio | attention late/early | accuracy | gate |\n|---|---|---|---|---|---|---|---|\n";
        out += &self.table();
        let _ = match &self.chosen {
            Some(name) => writeln!(out, "\nThe study runs on `{name}`.\n"),
            None if self.tried() < spec.settings.len() => {
                let (tried, all) = (self.tried(), spec.settings.len());
                writeln!(out, "\n**Not decided**: {tried} of {all} settings are measured, and none of them passes.\n")
            }
            None => writeln!(out, "\n**No setting passes, so no row runs**: that is the result.\n"),
        };
        out
    }
}

/// How the gate ended.
#[derive(Debug, Clone, PartialEq)]
pub enum GateEnd {
    /// All that had to be measured was.
    Measured(GateVerdict),
    /// Warm starts were interrupted or failed.
    Stopped(Outcome),
}

/// Measures the settings of the gate in turn until one passes, in `out/gate/SETTING`, and writes `out/gate.json` after
/// each. Warm starts that were measured before are not run again.
///
/// # Errors
/// As [`runner::run`].
pub fn measure(
    ranks: &Ranks,
    (study, gate): (&Study, &GateSpec),
    out: &Path,
    jobs: usize,
    stop: &AtomicBool,
    train: impl Fn(&RunToTrain) -> Ended + Sync,
    note: impl Fn(&str) + Sync,
) -> Result<GateEnd, StudyError> {
    let mut verdict = GateVerdict { gate: gate.clone(), measured: vec![], chosen: None };
    for setting in &gate.settings {
        note(&format!("gate: {}", setting.name));
        let warm = study.gate(gate, setting)?;
        let folder = out.join(FOLDER).join(&setting.name);
        let outcome = runner::run(ranks, &warm, &folder, jobs, stop, &train, &note)?;
        if outcome.interrupted || stop.load(Ordering::Relaxed) || !outcome.failed.is_empty() {
            return Ok(GateEnd::Stopped(outcome));
        }
        ranks.barrier("warm starts of the gate")?;
        let mut own = Vec::new();
        for seed in warm.seeds() {
            let found = RunResult::read(&folder, WARM, seed, &warm.fingerprint(None, seed)?)?;
            own.extend(found.and_then(|run| measured(&setting.name, &run)));
        }
        let passes = own.len() == gate.seeds && gate.passes(&own.iter().collect::<Vec<_>>());
        verdict.measured.extend(own);
        verdict.chosen = passes.then(|| setting.name.clone());
        if ranks.is_first() {
            verdict.write(out)?;
        }
        if passes {
            break;
        }
    }
    Ok(GateEnd::Measured(verdict))
}

/// The study with a setting of its gate. Its first warm starts are those that the gate has measured in `out`: they are
/// not trained again, and their weights stay where they lie.
///
/// # Errors
/// As [`Study::with`], results that do not read, and anything the file system refuses.
pub fn on(ranks: &Ranks, study: &Study, setting: &GateSetting, out: &Path) -> Result<Study, StudyError> {
    let place = place(setting);
    let study = study.with(setting, &place)?;
    for seed in study.seeds().filter(|_| ranks.is_first()) {
        let fingerprint = study.fingerprint(None, seed)?;
        if RunResult::read(out, WARM, seed, &fingerprint)?.is_none()
            && let Some(warm) = RunResult::read(&out.join(&place), WARM, seed, &fingerprint)?
        {
            RunResult { weights: format!("{place}/{}", warm.weights), ..warm }.write(out)?;
        }
    }
    ranks.barrier("warm starts of the gate, taken over")?;
    Ok(study)
}

/// The study as a report shows it where the gate was not measured to its end: on the setting that an earlier call has
/// chosen in `out`, if it chose among the same ones. Else it is the study as it is, which has no results.
///
/// # Errors
/// As [`Study::with`].
pub fn as_decided(study: &Study, out: &Path) -> Result<Study, StudyError> {
    let verdict =
        GateVerdict::read(out).filter(|v| study.rows.gate.as_ref().map(|g| &g.settings) == Some(&v.gate.settings));
    let chosen = verdict.as_ref().and_then(|v| v.gate.settings.iter().find(|s| v.chosen.as_ref() == Some(&s.name)));
    chosen.map_or_else(|| Ok(study.clone()), |setting| study.with(setting, &place(setting)))
}

/// Where the warm starts of a setting lie in the study's folder.
fn place(setting: &GateSetting) -> String {
    format!("{FOLDER}/{}", setting.name)
}

fn measured(setting: &str, run: &RunResult) -> Option<GateMeasure> {
    let outcomes = run.outcomes.as_ref()?;
    let forgetting = outcomes.forgetting.as_ref()?;
    Some(GateMeasure {
        setting: setting.into(),
        seed: run.seed,
        early: forgetting.early,
        late: forgetting.late,
        error_ratio: forgetting.error_ratio()?,
        attention_ratio: forgetting.attention?.ratio(),
        accuracy: outcomes.accuracy(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_conditions_count() {
        let setting = GateSetting { name: "a".into(), set: vec![], shared: 0 };
        let gate = GateSpec {
            note: String::new(),
            seeds: 2,
            error_ratio: 1.5,
            attention_ratio: 1.0,
            accuracy: [0.02, 0.6],
            settings: vec![setting],
        };
        let of = |error_ratio, attention_ratio, accuracy| GateMeasure {
            setting: "a".into(),
            seed: 1001,
            early: PartErrors { parts: 100, wrong: 10 },
            late: PartErrors { parts: 100, wrong: 20 },
            error_ratio,
            attention_ratio,
            accuracy,
        };
        let (good, blind) = (of(1.6, 0.8, 0.1), of(1.4, 0.8, 0.1));
        assert!(gate.passes(&[&good]) && gate.passes(&[&good, &blind]) && !gate.passes(&[&blind]));
        assert!(!gate.passes(&[&of(1.6, 1.0, 0.1)]) && !gate.passes(&[&of(1.6, 0.8, 0.01)]));
        assert!(!gate.passes(&[&of(1.6, 0.8, 0.7)]) && !gate.passes(&[&of(f64::NAN, 0.8, 0.1)]));
        let verdict = GateVerdict { gate: gate.clone(), measured: vec![good.clone()], chosen: Some("a".into()) };
        let whole = GateVerdict { measured: vec![good.clone(), good], ..verdict.clone() };
        assert_eq!((verdict.tried(), whole.tried()), (0, 1), "a setting is measured on all its seeds");
        assert!(verdict.table().contains("| a | 1 | 10.0% | 20.0% | 1.60 | 0.800 | 10.0% | passes |"));
        let dir = tempfile::tempdir().unwrap();
        verdict.write(dir.path()).unwrap();
        assert_eq!(GateVerdict::read(dir.path()), Some(verdict));
        assert!(GateSpec { settings: vec![], ..gate.clone() }.check().is_err());
        assert!(GateSpec { seeds: 0, ..gate }.check().is_err());
    }

    #[test]
    fn a_report_within_a_gate_is_of_what_was_chosen_before() {
        let base = rl::config::Source::new("base", include_str!("../../../../configs/study.toml"));
        let rows = super::super::RowsFile::parse("rows", include_str!("../../../../configs/study_rows.toml")).unwrap();
        let study = Study::new(vec![base], rows, &[], false, None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let first = || as_decided(&study, dir.path()).unwrap().seeds().start;
        assert_eq!(first(), 1, "no verdict");
        let gate = study.rows.gate.clone().unwrap();
        let chosen = gate.settings[0].clone();
        let other = GateSpec { settings: vec![GateSetting { shared: 3, ..chosen.clone() }], ..gate.clone() };
        let verdict = |gate| GateVerdict { gate, measured: vec![], chosen: Some(chosen.name.clone()) };
        verdict(other).write(dir.path()).unwrap();
        assert_eq!(first(), 1, "a verdict on other settings");
        verdict(gate).write(dir.path()).unwrap();
        assert_eq!(first(), FIRST_SEED);
        let on = on(&Ranks::solo(), &study, &chosen, dir.path()).unwrap();
        let print = |study: &Study| study.fingerprint(None, FIRST_SEED).unwrap();
        assert_eq!(print(&as_decided(&study, dir.path()).unwrap()), print(&on));
    }
}
