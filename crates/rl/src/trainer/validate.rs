//! Validation: one greedy response per row, and `rollout.val_n` sampled ones where `rollout.val_temperature` is above
//! 0.

use std::collections::BTreeMap;
use std::time::Instant;

use ::vgpo::{FocusMetrics, PrototypeMode};
use kernels::Kernels;
use serde_json::{Map, json};

use super::{Metrics, Trainer};
use crate::error::TrainError;
use crate::experience::grade;
use crate::image_cache::ImageCache;
use crate::policy::Policy;
use crate::progress::Phase;
use crate::random_keys;
use crate::rollout::{Job, generate};
use crate::sampler::Sampling;
use crate::trajectory::ScoredGroup;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Metrics `val/...` of the current policy; `step` names the log of responses.
    pub(super) fn validate(&mut self, step: u64) -> Result<Metrics, TrainError> {
        let Some(prompts) = self.validation.clone() else { return Ok(Metrics::new()) };
        let config = self.setup.config.clone();
        let clock = Instant::now();
        let limit = match config.data.val_max_samples {
            0 => prompts.len(),
            n => n.min(prompts.len()),
        };
        let mut greedy = self.rollout_config(1, Sampling::greedy())?;
        greedy.focus = Some(PrototypeMode::Mean);
        let sampled = (config.rollout.val_temperature > 0.0).then(|| {
            let sampling = Sampling {
                temperature: config.rollout.val_temperature,
                top_p: config.rollout.val_top_p,
                seed: random_keys::validation_seed(config.trainer.seed),
            };
            self.rollout_config(config.rollout.val_n, sampling)
        });
        let sampled = sampled.transpose()?;
        self.setup.progress.phase(Phase::Validate, limit as u64);
        let mut tally = Tally::default();
        let mut log = self.folder.validation_log(step)?;
        let mut logged = 0;
        let rows: Vec<usize> = (0..limit).collect();
        for rows in rows.chunks(config.data.val_batch_size) {
            let progress = &mut self.setup.progress;
            let items =
                prompts.load_many(rows, &self.policy, &mut self.state.set_aside, &mut |text| progress.note(&text))?;
            let jobs: Vec<Job> = items.iter().map(|item| Job { prompt: &item.prompt, key: item.row as u64 }).collect();
            let images = &mut match &sampled {
                Some(_) => ImageCache::new(config.rollout.image_cache_gib),
                None => ImageCache::default(),
            };
            let (responses, _) = generate(&self.policy, &jobs, &greedy, images, &self.setup.interrupt, |_, _, _| {})?;
            let many = match &sampled {
                Some(config) => {
                    Some(generate(&self.policy, &jobs, config, images, &self.setup.interrupt, |_, _, _| {})?.0)
                }
                None => None,
            };
            progress.advance(rows.len() as u64);
            if let Some(many) = many {
                for group in grade(items.clone(), many, &self.setup.processor, &mut self.setup.reward)? {
                    tally.sampled(&group);
                }
            }
            for group in grade(items, responses, &self.setup.processor, &mut self.setup.reward)? {
                if logged < config.trainer.val_generations_to_log {
                    log.append(&line(&group))?;
                    logged += 1;
                }
                tally.greedy(&group);
            }
        }
        if tally.greedy.is_empty() {
            return Err(TrainError::Input(
                "data.val_files: none of its rows can be used; the reasons are above".into(),
            ));
        }
        let mut metrics = tally.metrics();
        metrics.insert("time/validation_s".into(), clock.elapsed().as_secs_f64());
        Ok(metrics)
    }
}

fn line(group: &ScoredGroup) -> Map<String, serde_json::Value> {
    let mut line = Map::new();
    line.insert("id".into(), json!(group.item.id));
    line.insert("problem".into(), json!(group.item.problem));
    line.insert("answer".into(), json!(group.item.answer));
    line.insert("response".into(), json!(group.trajectories.first().map(|t| &t.text)));
    line.insert("accuracy".into(), json!(group.accuracy()));
    line
}

#[derive(Default)]
struct Tally {
    greedy: Vec<(f64, f64)>,
    by_task: BTreeMap<String, Vec<f64>>,
    lengths: Vec<f64>,
    focus: Vec<Vec<f32>>,
    sampled: Vec<f64>,
    best: Vec<f64>,
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len().max(1) as f64;
    values.sum::<f64>() / n
}

impl Tally {
    fn greedy(&mut self, group: &ScoredGroup) {
        let accuracy = group.accuracy();
        self.greedy.push((accuracy, group.reward()));
        if let Some(task) = &group.item.task {
            self.by_task.entry(task.clone()).or_default().push(accuracy);
        }
        self.lengths.extend(group.trajectories.iter().map(|t| t.ids.len() as f64));
        self.focus.extend(group.trajectories.iter().filter_map(|t| t.streams.visual_focus.clone()));
    }

    fn sampled(&mut self, group: &ScoredGroup) {
        self.sampled.push(group.accuracy());
        self.best.push(group.trajectories.iter().map(|t| t.score.accuracy).fold(f64::NEG_INFINITY, f64::max));
    }

    fn metrics(self) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.insert("val/accuracy".into(), mean(self.greedy.iter().map(|v| v.0)));
        metrics.insert("val/reward".into(), mean(self.greedy.iter().map(|v| v.1)));
        metrics.insert("val/samples".into(), self.greedy.len() as f64);
        metrics.insert("val/response_length".into(), mean(self.lengths.iter().copied()));
        for (task, values) in &self.by_task {
            metrics.insert(format!("val/accuracy/{task}"), mean(values.iter().copied()));
        }
        if !self.sampled.is_empty() {
            metrics.insert("val/sampled_accuracy".into(), mean(self.sampled.iter().copied()));
            metrics.insert("val/pass_at_n".into(), mean(self.best.iter().copied()));
        }
        let focus: Vec<&Vec<f32>> = self.focus.iter().collect();
        let focus = FocusMetrics::new(&focus);
        for (name, value) in [
            ("val/focus_mean", focus.focus_mean),
            ("val/late_early_halves", focus.late_early_halves),
            ("val/late_early_cosine_halves", focus.late_early_cosine_halves),
        ] {
            if value.is_finite() {
                metrics.insert(name.into(), value);
            }
        }
        metrics
    }
}
