//! The loop over stages and their steps, one for both kinds of training: a supervised stage differs in what a step
//! does, in when it validates, and in that it may end early.

use std::time::Instant;

use kernels::Kernels;
use serde_json::{Map, Value};

use super::{Metrics, Trainer};
use crate::config::{Config, SftStage, Stage};
use crate::error::TrainError;
use crate::learn::optimizer::AdamW;
use crate::policy::Policy;
use crate::progress::StepReport;
use crate::prompts::Prompts;
use crate::recipe::Recipe;
use crate::response_log;

/// What the steps of a stage do.
enum StageKind<B: Kernels> {
    /// Cross-entropy on worked responses.
    Sft(SftStage),
    /// Reinforcement learning by a recipe.
    Rl(Box<Recipe<B>>),
}

/// A stage that is about to run.
struct StagePlan<B: Kernels> {
    name: String,
    steps: u64,
    kind: StageKind<B>,
}

impl<B: Kernels> StagePlan<B> {
    fn new(stage: &Stage, config: &Config, prompts: &Prompts) -> Result<Self, TrainError> {
        let (steps, kind) = match stage {
            Stage::Sft(stage) => (stage.steps, StageKind::Sft(stage.clone())),
            Stage::Rl(stage) => {
                (config.rl_steps(stage, prompts.epoch_len()), StageKind::Rl(Box::new(Recipe::new(config)?)))
            }
        };
        Ok(Self { name: stage.name().to_string(), steps: steps as u64, kind })
    }

    /// Rows that a step takes.
    fn batch(&self, config: &Config) -> usize {
        match &self.kind {
            StageKind::Sft(stage) => stage.batch_size,
            StageKind::Rl(_) => config.data.rollout_batch_size,
        }
    }

    /// The number that a person watches.
    fn score(&self, metrics: &Metrics) -> (&'static str, f64) {
        let (label, key) = match self.kind {
            StageKind::Sft(_) => ("loss", "sft/loss"),
            StageKind::Rl(_) => ("reward", "reward"),
        };
        (label, metrics.get(key).copied().unwrap_or(f64::NAN))
    }

    /// Whether to validate after the `next`-th step.
    fn validates(&self, next: u64, config: &Config, has_validation: bool) -> bool {
        let due = |freq: usize| freq > 0 && next.is_multiple_of(freq as u64);
        match &self.kind {
            StageKind::Sft(stage) => stage.until_accuracy > 0.0 && due(stage.check_freq),
            StageKind::Rl(_) => has_validation && (due(config.trainer.val_freq) || next == self.steps),
        }
    }

    /// Whether this validation ends the stage.
    fn is_over(&self, accuracy: f64) -> bool {
        matches!(&self.kind, StageKind::Sft(stage) if accuracy >= stage.until_accuracy)
    }
}

fn accuracy(found: &Metrics) -> f64 {
    found.get("val/accuracy").copied().unwrap_or(0.0)
}

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// All stages from the current one on.
    pub(super) fn stages(&mut self) -> Result<(), TrainError> {
        let stages = self.setup.config.stages();
        loop {
            let index = self.state.stage;
            let prompts = self.data[&index].clone();
            let mut plan = StagePlan::new(&stages[index], &self.setup.config, &prompts)?;
            self.stage(&mut plan, &prompts)?;
            if index + 1 == stages.len() {
                return Ok(());
            }
            self.state.enter_stage(index + 1, &self.setup.config);
            self.carried.clear();
            self.data.remove(&index);
            // A KL term refers to the policy that its own stage begins with.
            self.reference = None;
            // Consecutive supervised stages are one warm start: their moments go on, as only the data changes.
            if !matches!((&stages[index], &stages[index + 1]), (Stage::Sft(_), Stage::Sft(_))) {
                let config = &self.setup.config;
                self.optimizer = AdamW::new(&config.optim(&stages[index + 1]))
                    .check_device(config.trainer.check_device)
                    .over(&self.layout);
            }
        }
    }

    /// The steps of one stage: step, validate, finish.
    fn stage(&mut self, plan: &mut StagePlan<B>, prompts: &Prompts) -> Result<(), TrainError> {
        let mut before = self.begin(plan)?;
        self.put_worst_first(plan.batch(&self.setup.config), prompts)?;
        while self.state.unvalidated.is_some() || !self.state.stage_over && self.state.stage_step < plan.steps {
            if self.interrupted()? {
                return Err(TrainError::Interrupted);
            }
            let clock = Instant::now();
            let (mut metrics, tokens) = match self.state.take_unvalidated() {
                Some(metrics) => (metrics, 0),
                None => match &mut plan.kind {
                    StageKind::Sft(stage) => self.sft_step(stage, prompts)?,
                    StageKind::Rl(recipe) => self.rl_step(recipe, plan.steps, prompts)?,
                },
            };
            let score = plan.score(&metrics);
            if !before.is_empty() {
                metrics.extend(before.iter().map(|(k, v)| (k.replacen("val/", "val_before/", 1), *v)));
                self.state.before = std::mem::take(&mut before);
            }
            let next = self.state.stage_step + 1;
            if plan.validates(next, &self.setup.config, self.validation.is_some()) {
                let found = self.validate(self.state.step + 1).inspect_err(|error| {
                    if matches!(error, TrainError::Interrupted) {
                        self.state.leave_unvalidated(&metrics);
                    }
                })?;
                self.note_accuracy(&format!("{} {next}", plan.name), &found);
                self.state.stage_over = plan.is_over(accuracy(&found));
                self.state.validation.clone_from(&found);
                metrics.extend(found);
            }
            metrics.extend(self.traffic.metrics(&self.setup.ranks.world));
            let time = clock.elapsed();
            metrics.insert("time/step_s".into(), time.as_secs_f64());
            metrics.insert("perf/tokens_per_s".into(), tokens as f64 / time.as_secs_f64());
            let result = self.finish_step(metrics, &plan.name);
            self.setup.progress.step(StepReport { step: self.state.stage_step, score, tokens, time });
            result?;
        }
        Ok(())
    }

    /// What comes before the first step of a stage: the reference policy and a validation, where they are asked for.
    fn begin(&mut self, plan: &StagePlan<B>) -> Result<Metrics, TrainError> {
        if matches!(&plan.kind, StageKind::Rl(recipe) if recipe.wants_reference()) {
            self.load_reference()?;
        }
        self.setup.progress.stage(&plan.name, plan.steps, self.state.stage_step);
        let asked = matches!(plan.kind, StageKind::Rl(_)) && self.setup.config.trainer.val_before_train;
        if !asked || self.state.stage_step > 0 || self.validation.is_none() {
            return Ok(Metrics::new());
        }
        let before = self.validate(self.state.step)?;
        self.note_accuracy(&format!("before {}", plan.name), &before);
        Ok(before)
    }

    fn note_accuracy(&mut self, when: &str, found: &Metrics) {
        self.setup.progress.note(&format!("{when}: validation accuracy {:.1}%", 100.0 * accuracy(found)));
    }

    /// The end of a step: its line in the log, and a checkpoint where one is due.
    fn finish_step(&mut self, metrics: Metrics, stage: &str) -> Result<(), TrainError> {
        self.state.count_step();
        let aside = self.state.set_aside.take_fresh();
        if !aside.is_empty() {
            let mut log = self.folder.set_aside()?;
            aside.iter().try_for_each(|row| log.append(&response_log::of_aside(self.state.step, row)))?;
        }
        let mut line = Map::new();
        line.insert("stage".into(), stage.into());
        line.insert("data/set_aside".into(), self.state.set_aside.count().into());
        line.extend(
            metrics.into_iter().map(|(k, v)| (k, serde_json::Number::from_f64(v).map_or(Value::Null, Value::Number))),
        );
        self.log.append(self.state.step, &line)?;
        let freq = self.setup.config.trainer.save_freq as u64;
        if freq > 0 && self.state.step.is_multiple_of(freq) {
            self.save()?;
        }
        if self.interrupted()? { Err(TrainError::Interrupted) } else { Ok(()) }
    }
}
