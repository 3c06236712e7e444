//! A step of reinforcement learning: sample, grade, select, make experience, update.

use std::collections::HashMap;
use std::time::Instant;

use data::Cursor;
use kernels::Kernels;

use super::sampled::Sampled;
use super::{Metrics, Trainer, warnings};
use crate::checkpoint::Carried;
use crate::config::{Config, OldLogProbs};
use crate::error::TrainError;
use crate::experience::{Experience, ExperienceTimes, StepContext, grade, make, select};
use crate::image_cache::ImageCache;
use crate::learn::update::{Learner, UpdateSchedule, UpdateSettings, UpdateTimes, update};
use crate::loss::{KlController, KlType};
use crate::mismatch;
use crate::policy::Policy;
use crate::progress::Phase;
use crate::prompts::{Item, Prompts};
use crate::random_keys::{self, RolloutDraw};
use crate::recipe::Recipe;
use crate::rollout::{Job, Response, RolloutConfig, RolloutStats, generate};
use crate::sampler::Sampling;
use crate::shaping::{Stream, Training};
use crate::trajectory::{ScoredGroup, Trajectory};

/// A kept group in a checkpoint.
pub(super) fn carry(group: &ScoredGroup) -> Carried {
    Carried {
        row: group.item.row,
        content: group.item.whole_content(),
        responses: group.trajectories.iter().map(Trajectory::response).collect(),
        scores: group.trajectories.iter().map(|t| (&t.score).into()).collect(),
        greedy: group.greedy,
    }
}

/// The prompts of a step and what it took to find them.
struct Batch {
    groups: Vec<ScoredGroup>,
    surplus: Vec<ScoredGroup>,
    cursor: Cursor,
    stats: RolloutStats,
    rollout_s: f64,
    reward_s: f64,
    rounds: usize,
    /// All sampled groups, kept or not.
    sampled: Sampled,
    kept: usize,
    /// The rows of the last round.
    drawn: Vec<Item>,
}

impl Batch {
    /// What finding the batch took.
    fn metrics(&self) -> Metrics {
        let mut metrics: Metrics = [
            ("filter/rounds", self.rounds as f64),
            ("filter/kept_share", self.kept as f64 / self.sampled.groups.max(1) as f64),
            ("filter/carried", self.surplus.len() as f64),
            ("time/rollout_s", self.rollout_s),
            ("time/rollout_vision_s", self.stats.vision_s),
            ("time/rollout_prefill_s", self.stats.prefill_s),
            ("time/rollout_decode_s", self.stats.decode_s),
            ("time/reward_s", self.reward_s),
            ("perf/rollout_tokens_per_s", self.stats.response_tokens as f64 / self.rollout_s.max(1e-9)),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into();
        metrics.extend(self.sampled.metrics());
        metrics
    }
}

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// One step of a stage of `steps`: its metrics, and the response tokens that were learned from.
    pub(super) fn rl_step(
        &mut self,
        recipe: &mut Recipe<B>,
        steps: u64,
        prompts: &Prompts,
    ) -> Result<(Metrics, u64), TrainError> {
        recipe.loss.kl.kl_coef = self.state.kl_coef;
        let mut images = match reads_images(&self.setup.config, recipe) {
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
        self.state.optimizer_steps += optimizer_steps(&self.setup.config, experience.groups.len());
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
        metrics.extend(timings(&times, &update_times));
        Ok((metrics, tokens as u64))
    }

    /// What a complete step leaves behind, beside the weights.
    fn complete(&mut self, batch: Batch) {
        self.state.cursor = batch.cursor;
        self.looked_at(&batch.drawn);
        self.carried = batch.surplus;
        self.carried.iter_mut().for_each(|group| group.carried = true);
    }

    /// Samples, grades and selects until the batch is full.
    fn collect(
        &mut self,
        prompts: &Prompts,
        recipe: &Recipe<B>,
        images: &mut ImageCache<B>,
    ) -> Result<Batch, TrainError> {
        let config = &self.setup.config;
        let size = config.data.rollout_batch_size;
        let sampling = Sampling {
            temperature: config.rollout.temperature,
            top_p: config.rollout.top_p,
            seed: config.trainer.seed,
        };
        let mut rollout = self.rollout_config(config.rollout.n, sampling);
        rollout.focus = recipe.focus().filter(|_| config.actor.old_log_probs == OldLogProbs::Rollout);
        let mut batch = Batch {
            groups: self.carried.clone(),
            surplus: vec![],
            cursor: self.state.cursor.clone(),
            stats: RolloutStats::default(),
            rollout_s: 0.0,
            reward_s: 0.0,
            rounds: 0,
            sampled: Sampled::default(),
            kept: 0,
            drawn: vec![],
        };
        while batch.groups.len() < size {
            let most = self.setup.config.trainer.max_try_make_batch;
            if most > 0 && batch.rounds >= most {
                let note = gives_up(&self.setup.config, batch.groups.len(), batch.rounds);
                self.setup.progress.note(&note);
                break;
            }
            self.round(&mut batch, &rollout, prompts, images)?;
        }
        batch.surplus = batch.groups.split_off(size.min(batch.groups.len()));
        Ok(batch)
    }

    /// One round of dynamic sampling; the only one without it.
    fn round(
        &mut self,
        batch: &mut Batch,
        rollout: &RolloutConfig,
        prompts: &Prompts,
        images: &mut ImageCache<B>,
    ) -> Result<(), TrainError> {
        let size = self.setup.config.data.rollout_batch_size;
        let progress = &mut self.setup.progress;
        let (cursor, aside) = (&mut batch.cursor, &mut self.state.set_aside);
        let items = prompts.next(cursor, size, &self.policy, aside, &mut |text| progress.note(&text))?;
        let clock = Instant::now();
        let (responses, greedy) = self.sample(&items, rollout, batch, images)?;
        batch.rollout_s += clock.elapsed().as_secs_f64();
        batch.drawn.clone_from(&items);

        let clock = Instant::now();
        let (processor, reward) = (&self.setup.processor, &mut self.setup.reward);
        let greedy: Option<Vec<f64>> = match greedy {
            Some(greedy) => {
                Some(grade(items.clone(), greedy, processor, reward)?.iter().map(ScoredGroup::reward).collect())
            }
            None => None,
        };
        let mut groups = grade(items, responses, processor, reward)?;
        batch.reward_s += clock.elapsed().as_secs_f64();
        for (index, group) in groups.iter_mut().enumerate() {
            group.greedy = greedy.as_ref().map(|rewards| rewards[index]);
        }
        batch.rounds += 1;
        batch.sampled.add(&groups);
        let groups = select(groups, &self.setup.config.algorithm)?;
        if groups.is_empty() {
            let round = batch.rounds;
            self.setup.progress.note(&format!("warning: round {round} kept no prompt (algorithm.online_filtering)"));
        }
        batch.kept += groups.len();
        batch.groups.extend(groups);
        Ok(())
    }

    /// Responses to some rows, and greedy ones where the estimator compares with those.
    #[allow(clippy::type_complexity)]
    fn sample(
        &mut self,
        items: &[Item],
        rollout: &RolloutConfig,
        batch: &mut Batch,
        images: &mut ImageCache<B>,
    ) -> Result<(Vec<Vec<Response>>, Option<Vec<Vec<Response>>>), TrainError> {
        let jobs = jobs(items, self.state.step, batch.rounds as u64);
        let interrupt = &self.setup.interrupt;
        let progress = &mut self.setup.progress;
        progress.phase(Phase::Rollout, (items.len() * rollout.n) as u64);
        let mut lengths = HashMap::new();
        let (responses, stats) = generate(&self.policy, &jobs, rollout, images, interrupt, |job, response, id| {
            let length: &mut usize = lengths.entry((job, response)).or_default();
            *length += 1;
            if rollout.eos.contains(&id) || *length == rollout.max_new_tokens {
                progress.advance(1);
            }
        })?;
        add(&mut batch.stats, &stats);
        let greedy = match self.setup.config.algorithm.needs_greedy() {
            true => {
                let greedy = self.rollout_config(1, Sampling::greedy());
                Some(generate(&self.policy, &jobs, &greedy, images, interrupt, |_, _, _| {})?.0)
            }
            false => None,
        };
        if !responses.iter().flatten().flat_map(|r| &r.log_probs).any(|p| p.is_finite()) {
            return Err(self.diverged("not one token of a whole batch of responses has a finite log-prob".into()));
        }
        Ok((responses, greedy))
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
        };
        let made = make(&self.policy, self.reference.as_ref(), groups, &context, images)?;
        if self.interrupted() {
            return Err(TrainError::Interrupted);
        }
        if self.setup.config.trainer.log_rollouts {
            self.log_rollouts(&made.0)?;
        }
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
        let options = self.gradient_options(config.rollout.temperature, recipe.loss.needs_full_entropy());
        // The learning rate follows the training steps, so that a step that kept fewer prompts does not move it.
        let updates = optimizer_steps(config, config.data.rollout_batch_size);
        let mut schedule =
            UpdateSchedule { done: self.state.stage_step as usize * updates, total: steps as usize * updates };
        let settings = UpdateSettings { config, loss: &recipe.loss, options: &options };
        let learner = Learner { policy: &mut self.policy, optimizer: &mut self.optimizer, images };
        update(learner, experience, settings, &mut schedule)
    }
}

/// Optimizer steps that an experience of so many groups takes.
fn optimizer_steps(config: &Config, groups: usize) -> usize {
    groups.div_ceil(config.update_batch_size()) * config.actor.ppo_epochs
}

/// Seconds and tokens per second of a step, as they are logged.
fn timings(times: &ExperienceTimes, update: &UpdateTimes) -> Metrics {
    let seconds = update.gradients_s + update.optimizer_s;
    [
        ("time/old_log_probs_s", times.old_log_probs_s),
        ("time/streams_s", times.streams_s),
        ("time/advantages_s", times.advantages_s),
        ("time/gradients_s", update.gradients_s),
        ("time/optimizer_s", update.optimizer_s),
        ("perf/update_tokens_per_s", update.tokens as f64 / seconds.max(1e-9)),
    ]
    .map(|(k, v)| (k.to_string(), v))
    .into()
}

/// The rows of a round as the sampler takes them; each key names a stream of random numbers.
fn jobs(items: &[Item], step: u64, round: u64) -> Vec<Job<'_>> {
    let key = |i: usize, item: &Item| {
        // A row that comes twice in one batch gets two streams of random numbers.
        let twin = items[..i].iter().filter(|other| other.row == item.row).count() as u64;
        random_keys::rollout(RolloutDraw { step, round, twin, row: item.row as u64 })
    };
    items.iter().enumerate().map(|(i, item)| Job { prompt: &item.prompt, key: key(i, item) }).collect()
}

/// What is said when the last round that is allowed has not filled the batch.
fn gives_up(config: &Config, kept: usize, rounds: usize) -> String {
    let algorithm = &config.algorithm;
    match kept {
        0 => format!(
            "warning: no prompt had a mean {} between {} and {} in {rounds} rounds, so this step updates nothing; the task \
             is too hard or too easy for this model, or trainer.max_try_make_batch is too small",
            algorithm.filter_key, algorithm.filter_low, algorithm.filter_high
        ),
        kept => format!(
            "warning: only {kept} of {} prompts were kept in {rounds} rounds (trainer.max_try_make_batch)",
            config.data.rollout_batch_size
        ),
    }
}

/// Whether anything after the first rollout asks for image embeddings of this policy.
fn reads_images<B: Kernels>(config: &Config, recipe: &Recipe<B>) -> bool {
    config.model.freeze_vision_tower
        || config.actor.old_log_probs == OldLogProbs::Recompute
        || config.algorithm.needs_greedy()
        || recipe.shaping.streams().iter().any(|stream| !matches!(stream, Stream::VisualFocus { .. }))
}

fn add(sum: &mut RolloutStats, part: &RolloutStats) {
    sum.vision_s += part.vision_s;
    sum.prefill_s += part.prefill_s;
    sum.decode_s += part.decode_s;
    sum.prompt_tokens += part.prompt_tokens;
    sum.response_tokens += part.response_tokens;
    sum.decode_steps += part.decode_steps;
}
