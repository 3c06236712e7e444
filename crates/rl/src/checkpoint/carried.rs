//! Groups that dynamic sampling kept for the next batch, as a checkpoint holds them.

use std::collections::BTreeMap;

use data::Processor;
use kernels::Kernels;
use reward::Score;
use serde::{Deserialize, Serialize};

use super::origin::Origin;
use crate::config::Config;
use crate::config::flat::remade;
use crate::error::TrainError;
use crate::policy::Policy;
use crate::prompts::{Item, Prompts};
use crate::rollout::Response;
use crate::trajectory::{ScoredGroup, Trajectory};

/// A kept group: its row and everything that was sampled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Carried {
    /// Row in the stage's data.
    pub row: usize,
    /// `crate::prompts::Item::whole_content` of that row: its number alone may name another row after a resume.
    #[serde(default)]
    pub content: u64,
    /// Its responses.
    pub responses: Vec<Response>,
    /// Overall, accuracy and format of each, then the extra metrics.
    pub scores: Vec<CarriedScore>,
    /// Score of the greedy response.
    pub greedy: Option<f64>,
}

/// A score in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CarriedScore {
    overall: f64,
    accuracy: f64,
    format: f64,
    extracted: Option<String>,
    extra: BTreeMap<String, f64>,
}

impl Carried {
    /// Of a group that was kept.
    pub fn of(group: &ScoredGroup) -> Self {
        Self {
            row: group.item.row,
            content: group.item.whole_content(),
            responses: group.trajectories.iter().map(Trajectory::response).collect(),
            scores: group.trajectories.iter().map(|t| (&t.score).into()).collect(),
            greedy: group.greedy,
        }
    }

    /// The group again, with the row that it answers.
    ///
    /// # Errors
    /// Responses that do not decode.
    pub(crate) fn restore(self, item: Item, processor: &Processor) -> Result<ScoredGroup, TrainError> {
        // As many scores as responses: the state was checked when it was read.
        let trajectory = |(response, score): (Response, CarriedScore)| -> Result<Trajectory, TrainError> {
            let text = processor.decode(&response.ids, true)?;
            Ok(Trajectory::new(response, text, score.into()))
        };
        let trajectories = std::iter::zip(self.responses, self.scores).map(trajectory).collect::<Result<_, _>>()?;
        Ok(ScoredGroup { item, trajectories, greedy: self.greedy, carried: true })
    }

    /// What no run can go on from.
    pub(super) fn check(&self) -> Result<(), String> {
        let row = self.row;
        if self.scores.len() != self.responses.len() {
            return Err(format!(
                "{} scores of {} carried responses to row {row}",
                self.scores.len(),
                self.responses.len()
            ));
        }
        for response in &self.responses {
            if response.ids.is_empty() || response.log_probs.len() != response.ids.len() {
                return Err(format!("a carried response to row {row} has no log-prob for each token"));
            }
            let focus = response.visual_focus.iter().flatten();
            if !response.log_probs.iter().chain(focus).all(|v| v.is_finite()) {
                return Err(format!("log-probs of a carried response to row {row} are not finite"));
            }
        }
        let numbers = self
            .scores
            .iter()
            .flat_map(|s| [s.overall, s.accuracy, s.format].into_iter().chain(s.extra.values().copied()));
        if !numbers.chain(self.greedy).all(f64::is_finite) {
            return Err(format!("a reward of a carried response to row {row} is not finite"));
        }
        Ok(())
    }
}

/// The groups that the checkpoint holds for the next batch, as far as they are still what they were; the others are
/// dropped with a note.
///
/// # Errors
/// Data that ends the run, responses that do not decode.
pub(crate) fn restore<B: Kernels, P: Policy<B>>(
    all: Vec<Carried>,
    origin: &Origin,
    prompts: &Prompts,
    policy: &P,
    config: &Config,
    notes: &mut Vec<String>,
) -> Result<Vec<ScoredGroup>, TrainError> {
    if let Some(key) = remade(&origin.settings, &config.flat()).filter(|_| !all.is_empty()) {
        notes.push(format!("{} carried groups are dropped: they were made with another {key}", all.len()));
        return Ok(vec![]);
    }
    let mut groups = Vec::with_capacity(all.len());
    for carried in all {
        let row = carried.row;
        let reason = match prompts.load(row, policy)? {
            Ok(item) if item.whole_content() == carried.content => {
                groups.push(carried.restore(item, prompts.processor())?);
                continue;
            }
            Ok(_) => "problem, answer, pictures or prompt of that row are not those that were answered".to_string(),
            Err(bad) => format!("the row cannot be used: {bad}"),
        };
        notes.push(format!("the carried group of row {row} is dropped: {reason}"));
    }
    Ok(groups)
}

impl From<&Score> for CarriedScore {
    fn from(s: &Score) -> Self {
        Self {
            overall: s.overall,
            accuracy: s.accuracy,
            format: s.format,
            extracted: s.extracted.clone(),
            extra: s.extra.clone(),
        }
    }
}

impl From<CarriedScore> for Score {
    fn from(s: CarriedScore) -> Self {
        Self { overall: s.overall, accuracy: s.accuracy, format: s.format, extracted: s.extracted, extra: s.extra }
    }
}
