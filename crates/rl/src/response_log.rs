//! The lines of `rollouts/`: what was sampled, for a person to read.

use serde_json::{Map, Value, json};

use crate::prompts::AsideRow;
use crate::rollout::FinishReason;
use crate::trajectory::{ScoredGroup, Trajectory};

/// A line of `rollouts/step_N.jsonl`: one response, with its advantages.
pub(crate) fn of_training(group: &ScoredGroup, trajectory: &Trajectory) -> Map<String, Value> {
    let (item, score, advantages) = (&group.item, &trajectory.score, &trajectory.advantages);
    let finish = match trajectory.finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    };
    let mut line = object([
        ("id", json!(item.id)),
        ("row", json!(item.row)),
        ("task", json!(item.task)),
        ("problem", json!(item.problem)),
        ("answer", json!(item.answer)),
        ("response", json!(trajectory.text)),
        ("extracted", json!(score.extracted)),
        ("reward", json!(score.overall)),
        ("accuracy", json!(score.accuracy)),
        ("format", json!(score.format)),
        ("tokens", json!(trajectory.ids.len())),
        ("finish", json!(finish)),
        ("advantage_mean", json!(advantages.iter().sum::<f32>() / advantages.len().max(1) as f32)),
    ]);
    // Named as in metrics.jsonl: a reward command may call a metric `id` or `tokens`.
    line.extend(score.extra.iter().map(|(key, value)| (format!("reward/{key}"), Value::from(*value))));
    line
}

/// A line of `rollouts/validation_step_N.jsonl`: the greedy response to a row.
pub(crate) fn of_validation(group: &ScoredGroup) -> Map<String, Value> {
    object([
        ("id", json!(group.item.id)),
        ("problem", json!(group.item.problem)),
        ("answer", json!(group.item.answer)),
        ("response", json!(group.trajectories.first().map(|t| &t.text))),
        ("accuracy", json!(group.accuracy())),
    ])
}

/// A line of `set_aside.jsonl`: a row that could not be used.
pub(crate) fn of_aside(step: u64, aside: &AsideRow) -> Map<String, Value> {
    object([
        ("step", json!(step)),
        ("file", json!(aside.file)),
        ("row", json!(aside.row)),
        ("id", json!(aside.id)),
        ("reason", json!(aside.reason)),
    ])
}

fn object<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}
