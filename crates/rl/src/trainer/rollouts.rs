//! What a step sampled, for a person to read.

use kernels::Kernels;
use serde_json::{Map, Value, json};

use super::Trainer;
use crate::error::TrainError;
use crate::experience::Experience;
use crate::policy::Policy;
use crate::rollout::FinishReason;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// One JSON line per response in `rollouts/step_N.jsonl`.
    pub(super) fn log_rollouts(&self, experience: &Experience) -> Result<(), TrainError> {
        let mut log = self.folder.rollout_log(self.state.step + 1)?;
        for group in &experience.groups {
            for trajectory in &group.trajectories {
                let tokens = &trajectory.advantages;
                let mut line = Map::new();
                for (key, value) in [
                    ("id", json!(group.item.id)),
                    ("row", json!(group.item.row)),
                    ("task", json!(group.item.task)),
                    ("problem", json!(group.item.problem)),
                    ("answer", json!(group.item.answer)),
                    ("response", json!(trajectory.text)),
                    ("extracted", json!(trajectory.score.extracted)),
                    ("reward", json!(trajectory.score.overall)),
                    ("accuracy", json!(trajectory.score.accuracy)),
                    ("format", json!(trajectory.score.format)),
                    ("tokens", json!(trajectory.ids.len())),
                    (
                        "finish",
                        json!(match trajectory.finish {
                            FinishReason::Stop => "stop",
                            FinishReason::Length => "length",
                        }),
                    ),
                    ("advantage_mean", json!(tokens.iter().sum::<f32>() / tokens.len().max(1) as f32)),
                ] {
                    line.insert(key.into(), value);
                }
                for (key, value) in &trajectory.score.extra {
                    // Named as in metrics.jsonl: a reward command may call a metric `id` or `tokens`.
                    line.insert(format!("reward/{key}"), Value::from(*value));
                }
                log.append(&line)?;
            }
        }
        Ok(())
    }
}
