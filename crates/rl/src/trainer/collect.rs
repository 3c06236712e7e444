//! The batch of an RL step: rows are sampled, graded and selected until it is full.

use std::collections::HashMap;
use std::time::Instant;

use data::Cursor;
use kernels::Kernels;

use super::{Metrics, Trainer};
use crate::config::OldLogProbs;
use crate::dealt;
use crate::error::TrainError;
use crate::experience::select;
use crate::image_cache::ImageCache;
use crate::policy::Policy;
use crate::progress::Phase;
use crate::prompts::{Item, Prompts};
use crate::random_keys::{self, RolloutDraw};
use crate::recipe::Recipe;
use crate::rollout::{Job, Response, RolloutConfig, RolloutStats, generate};
use crate::sampler::Sampling;
use crate::tally::Sampled;
use crate::trajectory::ScoredGroup;
use crate::warnings;

/// The responses to each row.
type RowResponses = Vec<Vec<Response>>;

/// The prompts of a step and what it took to find them.
pub(super) struct Batch {
    /// As many as the step takes, or fewer where it gave up.
    pub groups: Vec<ScoredGroup>,
    /// Kept for the next step.
    pub surplus: Vec<ScoredGroup>,
    /// Where the data stands after it.
    pub cursor: Cursor,
    stats: RolloutStats,
    response_tokens: usize,
    rollout_s: f64,
    reward_s: f64,
    rounds: usize,
    /// All sampled groups, kept or not.
    pub sampled: Sampled,
    kept: usize,
    /// The rows of the last round.
    pub drawn: Vec<Item>,
}

impl Batch {
    /// What finding the batch took.
    pub(super) fn metrics(&self) -> Metrics {
        let mut metrics: Metrics = [
            ("filter/rounds", self.rounds as f64),
            ("filter/kept_share", self.kept as f64 / self.sampled.groups.max(1) as f64),
            ("filter/carried", self.surplus.len() as f64),
            ("time/rollout_s", self.rollout_s),
            ("time/rollout_vision_s", self.stats.vision_s),
            ("time/rollout_prefill_s", self.stats.prefill_s),
            ("time/rollout_decode_s", self.stats.decode_s),
            ("time/reward_s", self.reward_s),
            ("perf/rollout_tokens_per_s", self.response_tokens as f64 / self.rollout_s.max(1e-9)),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into();
        metrics.extend(self.sampled.metrics());
        metrics
    }
}

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Samples, grades and selects until the batch is full.
    pub(super) fn collect(
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
        let mut rollout = self.rollout_config(config.rollout.n, sampling)?;
        rollout.focus = recipe.focus().filter(|_| config.actor.old_log_probs == OldLogProbs::Rollout);
        let mut batch = Batch {
            groups: self.carried.clone(),
            surplus: vec![],
            cursor: self.state.cursor.clone(),
            stats: RolloutStats::default(),
            response_tokens: 0,
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
                let note = warnings::not_filled(&self.setup.config, batch.groups.len(), batch.rounds);
                self.setup.progress.note(&note);
                break;
            }
            self.round(&mut batch, &rollout, prompts, images)?;
        }
        batch.surplus = batch.groups.split_off(size.min(batch.groups.len()));
        let size = self.setup.config.update_batch_size();
        dealt::place(&self.setup.ranks.data, &mut batch.groups, size, prompts, &self.policy)?;
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
        let held = dealt::held(&self.setup.ranks.data, &items);
        let clock = Instant::now();
        let (responses, greedy) = self.sample(&items, &held, rollout, batch, images)?;
        batch.rollout_s += clock.elapsed().as_secs_f64();

        let clock = Instant::now();
        let own = dealt::at(&items, &held);
        let greedy: Option<Vec<f64>> = match greedy {
            Some(greedy) => Some(self.graded(own.clone(), greedy)?.iter().map(ScoredGroup::reward).collect()),
            None => None,
        };
        let mut groups = self.graded(own, responses)?;
        batch.reward_s += clock.elapsed().as_secs_f64();
        for (index, group) in groups.iter_mut().enumerate() {
            group.greedy = greedy.as_ref().map(|rewards| rewards[index]);
        }
        batch.drawn.clone_from(&items);
        let groups = dealt::groups(&self.setup.ranks.data, items, groups)?;
        if self.interrupted()? {
            return Err(TrainError::Interrupted);
        }
        let sampled = groups.iter().flat_map(|group| &group.trajectories);
        batch.response_tokens += sampled.clone().map(|trajectory| trajectory.ids.len()).sum::<usize>();
        if !sampled.flat_map(|trajectory| &trajectory.rollout_log_probs).any(|p| p.is_finite()) {
            return Err(self.diverged("not one token of a whole batch of responses has a finite log-prob".into()));
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

    /// Responses to the rows at `held`, and greedy ones where the estimator compares with those.
    fn sample(
        &mut self,
        items: &[Item],
        held: &[usize],
        rollout: &RolloutConfig,
        batch: &mut Batch,
        images: &mut ImageCache<B>,
    ) -> Result<(RowResponses, Option<RowResponses>), TrainError> {
        let all = jobs(items, self.state.step, batch.rounds as u64);
        let jobs: Vec<Job> = held.iter().map(|&place| all[place]).collect();
        let interrupt = &*self.rollout_interrupt();
        let progress = &mut self.setup.progress;
        progress.phase(Phase::Rollout, (held.len() * rollout.n) as u64);
        let mut lengths = HashMap::new();
        let (responses, stats) = generate(&self.policy, &jobs, rollout, images, interrupt, |job, response, id| {
            let length: &mut usize = lengths.entry((job, response)).or_default();
            *length += 1;
            if rollout.eos.contains(&id) || *length == rollout.max_new_tokens {
                progress.advance(1);
            }
        })?;
        batch.stats += stats;
        let greedy = match self.setup.config.algorithm.needs_greedy() {
            true => {
                let greedy = self.rollout_config(1, Sampling::greedy())?;
                Some(generate(&self.policy, &jobs, &greedy, images, interrupt, |_, _, _| {})?.0)
            }
            false => None,
        };
        Ok((responses, greedy))
    }
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
