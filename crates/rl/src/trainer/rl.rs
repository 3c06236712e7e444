//! A step of reinforcement learning: collect a batch, make experience, update.

use std::time::Instant;

use kernels::Kernels;

use super::collect::Batch;
use super::{Metrics, Trainer};
use crate::error::TrainError;
use crate::experience::{Experience, ExperienceTimes, StepContext, make};
use crate::image_cache::ImageCache;
use crate::learn::GradientOptions;
use crate::learn::update::{Learner, UpdateSchedule, UpdateSettings, UpdateTimes, update};
use crate::loss::{KlController, KlType};
use crate::mismatch;
use crate::policy::Policy;
use crate::progress::Phase;
use crate::prompts::Prompts;
use crate::recipe::Recipe;
use crate::shaping::Training;
use crate::trajectory::ScoredGroup;
use crate::{response_log, warnings};

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// One step of a stage of `steps`: its metrics, and the response tokens that were learned from.
    pub(super) fn rl_step(
        &mut self,
        recipe: &mut Recipe<B>,
        steps: u64,
        prompts: &Prompts,
    ) -> Result<(Metrics, u64), TrainError> {
        recipe.loss.kl.kl_coef = self.state.kl_coef;
        let mut images = match recipe.reads_images(&self.setup.config, self.policy.trains_vision()) {
            true => ImageCache::new(self.setup.config.rollout.image_cache_gib),
            false => ImageCache::default(),
        };
        let mut batch = self.collect(prompts, recipe, &mut images)?;
        images.prune();
        let collected = batch.metrics();
        let groups = std::mem::take(&mut batch.groups);
        if groups.is_empty() {
            let mut metrics = collected;
            metrics.insert("reward".into(), batch.sampled.reward / batch.sampled.groups.max(1) as f64);
            self.complete(batch);
            return Ok((metrics, 0));
        }
        let (experience, times) = self.make_experience(groups, recipe, steps, &mut images)?;
        if let Some(gap) = experience.metrics.get(mismatch::METRIC) {
            mismatch::check(*gap, &self.setup.config)?;
        }
        let (updated, update_times) = self.learn(&experience, recipe, steps, &mut images)?;
        // From here on the step is complete.
        self.complete(batch);
        self.state.optimizer_steps += self.setup.config.optimizer_steps(experience.groups.len());
        let tokens: usize = experience.trajectories().map(|t| t.ids.len()).sum();
        let responses = experience.trajectories().count();
        let mut metrics = experience.metrics;
        if recipe.loss.kl.kl_type == KlType::Adaptive
            && let Some(kl) = updated.get("actor/kl").or(metrics.get("critic/kl")).copied()
        {
            let mut controller = KlController::new(&recipe.loss.kl);
            controller.update(kl, responses);
            self.state.kl_coef = controller.coef;
        }
        metrics.extend(collected);
        metrics.extend(updated);
        for (kind, text) in warnings::of_step(&metrics, &self.setup.config) {
            self.setup.progress.warn_once(kind, &text);
        }
        let clock = times.metrics().into_iter().chain(update_times.metrics());
        metrics.extend(clock.map(|(key, value)| (key.to_string(), value)));
        Ok((metrics, tokens as u64))
    }

    /// What a complete step leaves behind, beside the weights.
    fn complete(&mut self, batch: Batch) {
        self.state.cursor = batch.cursor;
        self.looked_at(&batch.drawn);
        self.carried = batch.surplus;
        self.carried.iter_mut().for_each(|group| group.carried = true);
    }

    /// From graded groups to advantages; they are logged where that is asked for.
    fn make_experience(
        &mut self,
        groups: Vec<ScoredGroup>,
        recipe: &Recipe<B>,
        steps: u64,
        images: &mut ImageCache<B>,
    ) -> Result<(Experience, ExperienceTimes), TrainError> {
        self.setup.progress.phase(Phase::Score, groups.len() as u64);
        let context = StepContext {
            config: &self.setup.config,
            recipe,
            processor: Some(&self.setup.processor),
            step: self.state.step,
            training: Training { step: self.state.stage_step, max_steps: steps },
            ranks: &self.setup.ranks.data,
        };
        let mut made = make(&self.policy, self.reference.as_ref(), groups, &context, images)?;
        if self.interrupted()? {
            return Err(TrainError::Interrupted);
        }
        if self.setup.config.trainer.log_rollouts {
            let mut log = self.folder.rollout_log(self.state.step + 1)?;
            for group in &made.0.groups {
                for trajectory in &group.trajectories {
                    log.append(&response_log::of_training(group, trajectory))?;
                }
            }
        }
        let clock = Instant::now();
        self.log_histograms(&made.0.groups)?;
        self.log_tokens(&made.0.groups, images)?;
        made.1.token_log_s = clock.elapsed().as_secs_f64();
        Ok(made)
    }

    /// The optimizer steps of a training step.
    fn learn(
        &mut self,
        experience: &Experience,
        recipe: &Recipe<B>,
        steps: u64,
        images: &mut ImageCache<B>,
    ) -> Result<(Metrics, UpdateTimes), TrainError> {
        self.setup.progress.phase(Phase::Update, experience.trajectories().count() as u64);
        let config = &self.setup.config;
        let entropy = recipe.loss.needs_full_entropy();
        let options = GradientOptions::of(config, &self.policy, config.rollout.temperature, entropy);
        // The learning rate follows the training steps, so that a step that kept fewer prompts does not move it.
        let updates = config.optimizer_steps(config.data.rollout_batch_size);
        let mut schedule =
            UpdateSchedule { done: self.state.stage_step as usize * updates, total: steps as usize * updates };
        let settings = UpdateSettings { config, loss: &recipe.loss, options: &options };
        let ranks = &self.setup.ranks.data;
        let learner = Learner { policy: &mut self.policy, optimizer: &mut self.optimizer, images, ranks };
        update(learner, experience, settings, &mut schedule)
    }
}
