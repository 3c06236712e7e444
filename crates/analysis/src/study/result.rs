//! What a finished run leaves: one JSON file.

use std::fs;
use std::path::{Path, PathBuf};

use run::folder::RunFolderError;
use run::layout;
use run::metrics::MetricsReader;
use serde::{Deserialize, Serialize};

use super::StudyError;
use super::outcomes::{self, Outcomes};
use crate::forgetting::Forgetting;
use crate::stats::mean;

/// Accuracy and visual focus at one validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// RL steps done; 0 before the first.
    pub step: u64,
    /// Greedy accuracy on the validation data, 0 to 1.
    pub accuracy: f64,
    /// Visual focus of the late half of a response over that of the early half; none without images.
    pub late_early: Option<f64>,
    /// Mean visual focus; none without images.
    pub focus: Option<f64>,
}

/// A finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Its row.
    pub row: String,
    /// Its seed.
    pub seed: u64,
    /// What its settings are known by ([`Study::fingerprint`](super::Study::fingerprint)).
    pub fingerprint: String,
    /// Training steps.
    pub steps: u64,
    /// Seconds of its steps.
    pub seconds: f64,
    /// Responses that were sampled for training, those that dynamic sampling dropped included.
    pub rollouts: u64,
    /// Final weights, relative to the study's folder.
    pub weights: String,
    /// Validations in order, the one before training first; empty for a warm start.
    pub curve: Vec<Point>,
    /// Mean reward of each training step; empty for a warm start.
    pub reward: Vec<f64>,
    /// Mean over training steps of the correlation of VGPO's `phi` with length; none of rows without it.
    #[serde(default)]
    pub phi_length: Option<f64>,
    /// Mean over training steps of the share of tokens whose ratio was clipped; none for a warm start.
    #[serde(default)]
    pub clipped: Option<f64>,
    /// What was measured of the final weights, where the study asks for it.
    #[serde(default)]
    pub outcomes: Option<Outcomes>,
}

/// Folder of the results in the study's.
pub(super) const FOLDER: &str = "results";

/// The file of a row and seed in the study's folder.
pub(crate) fn path(out: &Path, row: &str, seed: u64) -> PathBuf {
    out.join(FOLDER).join(row).join(format!("seed_{seed}.json"))
}

impl RunResult {
    /// The result of a run, if it is finished.
    ///
    /// # Errors
    /// A file that does not read, or one that was made with other settings than `fingerprint` stands for.
    pub fn read(out: &Path, row: &str, seed: u64, fingerprint: &str) -> Result<Option<Self>, StudyError> {
        let path = path(out, row, seed);
        let text = match guard::file::read_text(&path, guard::limits().record_bytes) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StudyError::io(path)(e)),
        };
        let result: Self = serde_json::from_str(&text)
            .map_err(|e| StudyError::Damaged { path: path.clone(), reason: e.to_string() })?;
        if result.fingerprint != fingerprint {
            return Err(StudyError::OtherSettings { path });
        }
        Ok(Some(result))
    }

    /// Writes the file under a temporary name and renames it, so that it is whole or not there.
    ///
    /// # Errors
    /// Anything the file system refuses.
    pub fn write(&self, out: &Path) -> Result<(), StudyError> {
        let path = path(out, &self.row, self.seed);
        write(&path, &serde_json::to_string_pretty(self).unwrap_or_default())
    }

    /// Accuracy after training: on the fixed items where there are any, else of the last validation.
    pub fn accuracy(&self) -> Option<f64> {
        self.outcomes.as_ref().map(Outcomes::accuracy).or_else(|| self.curve.last().map(|p| p.accuracy))
    }

    /// The teacher-forced figures, where they were measured.
    pub(super) fn forgetting(&self) -> Option<&Forgetting> {
        self.outcomes.as_ref()?.forgetting.as_ref()
    }

    /// The validation before the first step of training.
    pub fn before(&self) -> Option<&Point> {
        self.curve.first().filter(|point| point.step == 0)
    }

    /// Mean accuracy of all validations after the first step: less noisy than the last one alone, and higher for a row
    /// that learns sooner.
    pub(crate) fn mean_accuracy(&self) -> Option<f64> {
        let later: Vec<f64> = self.curve.iter().filter(|p| p.step > 0).map(|p| p.accuracy).collect();
        (!later.is_empty()).then(|| mean(&later))
    }

    /// Reads a finished run's folder.
    ///
    /// # Errors
    /// A folder without metrics or without weights.
    pub fn collect(
        out: &Path,
        folder: &Path,
        row: &str,
        seed: u64,
        fingerprint: &str,
        rollouts_a_round: u64,
    ) -> Result<Self, StudyError> {
        let path = folder.join(layout::METRICS);
        let damaged = |reason: String| StudyError::Damaged { path: path.clone(), reason };
        let log = MetricsReader::read(&path).map_err(|error| match error {
            RunFolderError::Io { path, source } => StudyError::io(path)(source),
            other => damaged(other.to_string()),
        })?;
        if let Some(reason) = log.torn {
            return Err(damaged(reason)); // a finished run leaves whole lines
        }
        let mut result = Self {
            row: row.into(),
            seed,
            fingerprint: fingerprint.into(),
            steps: 0,
            seconds: 0.0,
            rollouts: 0,
            weights: String::new(),
            curve: vec![],
            reward: vec![],
            phi_length: None,
            clipped: None,
            outcomes: outcomes(folder)?,
        };
        let (mut by_length, mut clipped) = (vec![], vec![]);
        for line in log.steps {
            let number = |key: &str| line.number(key);
            let step = line.step().ok_or_else(|| damaged("a line has no step".into()))?;
            result.steps = step;
            result.seconds += number("time/step_s").unwrap_or(0.0);
            let Some(reward) = number("reward") else { continue }; // a supervised step
            result.reward.push(reward);
            by_length.extend(number("vgpo/phi_length_correlation"));
            clipped.extend(CLIPPED.iter().map(|key| number(key)).sum::<Option<f64>>());
            result.rollouts += number("filter/rounds").unwrap_or(1.0) as u64 * rollouts_a_round;
            let point = |prefix: &str, step: u64| {
                let of = |key: &str| number(&format!("{prefix}/{key}"));
                let accuracy = of("accuracy")?;
                Some(Point { step, accuracy, late_early: of("late_early_halves"), focus: of("focus_mean") })
            };
            // The validation before a later stage repeats the last one of the stage before it.
            if result.reward.len() == 1 {
                result.curve.extend(point("val_before", 0));
            }
            result.curve.extend(point("val", step));
        }
        result.phi_length = (!by_length.is_empty()).then(|| mean(&by_length));
        result.clipped = (!clipped.is_empty()).then(|| mean(&clipped));
        let (_, checkpoint) = run::checkpoint::list(&folder.join(layout::CHECKPOINTS))
            .pop()
            .ok_or_else(|| damaged("the run left no checkpoint".into()))?;
        let weights = checkpoint.join(layout::MODEL);
        result.weights = weights.strip_prefix(out).unwrap_or(&weights).display().to_string();
        Ok(result)
    }
}

/// The shares of tokens that were clipped, which exclude each other.
const CLIPPED: [&str; 2] = ["actor/clip_fraction_low", "actor/clip_fraction_high"];

/// What was measured of the run in `folder`; nothing where nothing was to be.
fn outcomes(folder: &Path) -> Result<Option<Outcomes>, StudyError> {
    let path = folder.join(outcomes::FOUND);
    match guard::file::read_text(&path, guard::limits().record_bytes) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| StudyError::Damaged { path: path.clone(), reason: e.to_string() }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StudyError::io(path)(e)),
    }
}

/// Writes a file as a whole, its folder included.
///
/// # Errors
/// Anything the file system refuses.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), StudyError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(StudyError::io(folder))?;
    }
    guard::file::replace(path, text.as_bytes()).map_err(StudyError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of a run with these lines in its log.
    fn collected(lines: &[&str]) -> Result<RunResult, StudyError> {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("runs/dapo");
        let last = run.join("checkpoints/global_step_9");
        fs::create_dir_all(&last).unwrap();
        fs::write(last.join("trainer.json"), "{}").unwrap();
        fs::write(run.join("metrics.jsonl"), lines.join("\n")).unwrap();
        RunResult::collect(dir.path(), &run, "dapo", 3, "f", 8)
    }

    fn curve(result: &RunResult) -> Vec<(u64, f64)> {
        result.curve.iter().map(|point| (point.step, point.accuracy)).collect()
    }

    const FIRST: &str =
        r#"{"step": 1, "reward": 0.2, "val_before/accuracy": 0.1, "val_before/focus_mean": 0.7, "time/step_s": 2}"#;

    #[test]
    fn a_second_stage_does_not_begin_anew() {
        let result = collected(&[
            FIRST,
            r#"{"step": 2, "reward": 0.3, "val/accuracy": 0.4, "filter/rounds": 3, "time/step_s": 1}"#,
            r#"{"step": 3, "reward": 0.4, "val_before/accuracy": 0.4}"#,
            r#"{"step": 4, "reward": 0.5, "val/accuracy": 0.6, "val/late_early_halves": 0.9}"#,
        ])
        .unwrap();
        assert_eq!(curve(&result), [(0, 0.1), (2, 0.4), (4, 0.6)]);
        assert_eq!((result.curve[0].focus, result.curve[2].late_early), (Some(0.7), Some(0.9)));
        assert_eq!((result.steps, result.seconds, result.rollouts), (4, 3.0, 6 * 8));
        assert_eq!(result.reward, [0.2, 0.3, 0.4, 0.5]);
        assert_eq!(result.weights, "runs/dapo/checkpoints/global_step_9/hf");
        assert_eq!((result.before().map(|p| p.accuracy), result.accuracy()), (Some(0.1), Some(0.6)));
        assert!((result.mean_accuracy().unwrap() - 0.5).abs() < 1e-12);
    }

    #[test]
    fn without_a_validation_before_training() {
        let sft = r#"{"step": 1, "sft/loss": 2.0}"#;
        let result = collected(&[
            sft,
            r#"{"step": 2, "reward": 0.3}"#,
            // Not the first step of training: what it validates is no start.
            r#"{"step": 3, "reward": 0.4, "val_before/accuracy": 0.4, "val/accuracy": 0.5}"#,
        ])
        .unwrap();
        assert_eq!(curve(&result), [(3, 0.5)]);
        assert!(result.before().is_none() && result.reward.len() == 2);
        let warm = collected(&[sft]).unwrap();
        assert!(warm.curve.is_empty() && warm.accuracy().is_none() && warm.steps == 1);
    }

    #[test]
    fn logs_that_are_damaged() {
        for (lines, reason) in [(&[FIRST, "{"][..], "EOF"), (&[r#"{"reward": 1}"#], "no step")] {
            let error = collected(lines).unwrap_err().to_string();
            assert!(error.contains("metrics.jsonl") && error.contains(reason), "{error}");
        }
    }
}
