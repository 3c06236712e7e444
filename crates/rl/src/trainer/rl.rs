//! A step of reinforcement learning: sample, grade, select, make experience, update.

use std::path::{Path, PathBuf};
use std::time::Instant;

use data::Cursor;
use model_qwen2vl::{Kernels, ModelError};
use serde_json::{Map, Value, json};

use super::sampled::Sampled;
use super::{Metrics, Trainer, warnings};
use crate::checkpoint::{Carried, TrainerState};
use crate::config::{Config, OldLogProbs, RlStage};
use crate::engine::GradientOptions;
use crate::error::TrainError;
use crate::experience::{Experience, Group, Recipe, grade, make};
use crate::image_cache::ImageCache;
use crate::loss::{KlController, KlType, LossConfig};
use crate::policy::Policy;
use crate::progress::{Phase, StepReport};
use crate::prompts::{Item, Prompts};
use crate::rollout::{FinishReason, Job, RolloutStats, generate};
use crate::sampler::Sampling;
use crate::shaping::{AdvantageShaping, Stream, Training};
use crate::update::{Learner, Schedule, update};

/// A kept group in a checkpoint.
pub(super) fn carry(group: &Group) -> Carried {
    Carried {
        row: group.item.row,
        content: group.item.whole_content(),
        responses: group.responses.clone(),
        scores: group.scores.iter().map(Into::into).collect(),
        greedy: group.greedy,
    }
}

/// The prompts of a step and what it took to find them.
struct Batch {
    groups: Vec<Group>,
    surplus: Vec<Group>,
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
    pub(super) fn rl(&mut self, stage: &RlStage, prompts: &Prompts) -> Result<(), TrainError> {
        let config = self.setup.config.clone();
        let steps = if stage.steps > 0 {
            stage.steps
        } else if config.trainer.max_steps > 0 {
            config.trainer.max_steps
        } else {
            (config.trainer.total_epochs * prompts.epoch_len() / config.data.rollout_batch_size).max(1)
        };
        let shaping = config.algorithm.build_shaping::<B>()?;
        let mut loss = config.to_loss_config();
        if wants_reference(&config) {
            self.load_reference()?;
        }
        self.setup.progress.stage(&stage.name, steps as u64, self.state.stage_step);
        let mut before = Metrics::new();
        if self.state.stage_step == 0 && config.trainer.val_before_train && self.validation.is_some() {
            before = self.validate(self.state.step)?;
            self.setup.progress.note(&format!(
                "before {}: validation accuracy {:.1}%",
                stage.name,
                100.0 * before.get("val/accuracy").copied().unwrap_or(0.0)
            ));
        }
        while self.state.unvalidated.is_some() || self.state.stage_step < steps as u64 {
            if self.interrupted() {
                return Err(TrainError::Interrupted);
            }
            let clock = Instant::now();
            loss.kl.kl_coef = self.state.kl_coef;
            let (mut metrics, reward, tokens) = match self.unvalidated_step() {
                Some(metrics) => {
                    let reward = metrics.get("reward").copied().unwrap_or(f64::NAN);
                    (metrics, reward, 0)
                }
                None => self.rl_step(prompts, shaping.as_ref(), &loss, steps)?,
            };
            if !before.is_empty() {
                metrics.extend(before.iter().map(|(k, v)| (k.replacen("val/", "val_before/", 1), *v)));
                self.state.before = std::mem::take(&mut before);
            }
            let next = self.state.stage_step + 1;
            let last = next == steps as u64;
            let due = config.trainer.val_freq > 0 && next.is_multiple_of(config.trainer.val_freq as u64);
            if self.validation.is_some() && (due || last) {
                let found = self.validate_step(&metrics)?;
                self.setup.progress.note(&format!(
                    "{} {next}: validation accuracy {:.1}%",
                    stage.name,
                    100.0 * found.get("val/accuracy").copied().unwrap_or(0.0)
                ));
                self.state.validation.clone_from(&found);
                metrics.extend(found);
            }
            let time = clock.elapsed();
            metrics.insert("time/step_s".into(), time.as_secs_f64());
            metrics.insert("perf/tokens_per_s".into(), tokens as f64 / time.as_secs_f64());
            let result = self.finish_step(metrics, &stage.name);
            self.setup.progress.step(StepReport {
                step: self.state.stage_step,
                score: ("reward", reward),
                tokens,
                time,
            });
            result?;
        }
        Ok(())
    }

    /// Samples and grades until the batch is full.
    fn collect(
        &mut self,
        prompts: &Prompts,
        shaping: &dyn AdvantageShaping<B>,
        images: &mut ImageCache<B>,
    ) -> Result<Batch, TrainError> {
        let config = self.setup.config.clone();
        let (algorithm, size) = (&config.algorithm, config.data.rollout_batch_size);
        let sampling = Sampling {
            temperature: config.rollout.temperature,
            top_p: config.rollout.top_p,
            seed: config.trainer.seed,
        };
        let mut rollout = self.rollout_config(config.rollout.n, sampling);
        if config.actor.old_log_probs == OldLogProbs::Rollout {
            rollout.focus = shaping.streams().iter().find_map(|s| match s {
                Stream::VisualFocus { prototype } => Some(*prototype),
                _ => None,
            });
        }
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
            if batch.rounds > 0
                && config.trainer.max_try_make_batch > 0
                && batch.rounds >= config.trainer.max_try_make_batch
            {
                self.setup.progress.note(&match batch.groups.len() {
                    0 => format!(
                        "warning: no prompt had a mean {} between {} and {} in {} rounds, so this step updates nothing; the task \
                         is too hard or too easy for this model, or trainer.max_try_make_batch is too small",
                        algorithm.filter_key, algorithm.filter_low, algorithm.filter_high, batch.rounds
                    ),
                    kept => format!(
                        "warning: only {kept} of {size} prompts were kept in {} rounds (trainer.max_try_make_batch)",
                        batch.rounds
                    ),
                });
                break;
            }
            let progress = &mut self.setup.progress;
            let items = prompts
                .next(&mut batch.cursor, size, &self.policy, &mut self.aside, &mut |text| progress.note(&text))?;
            let clock = Instant::now();
            let jobs: Vec<Job> = items
                .iter()
                .enumerate()
                .map(|(i, item)| {
                    // A row that comes twice in one batch gets two streams of random numbers.
                    let twin = items[..i].iter().filter(|other| other.row == item.row).count() as u64;
                    let key = (self.state.step << 24)
                        ^ ((batch.rounds as u64) << 16)
                        ^ (twin << 56)
                        ^ ((item.row as u64) << 32).rotate_left(7)
                        ^ item.row as u64;
                    Job { prompt: &item.prompt, key }
                })
                .collect();
            progress.phase(Phase::Rollout, (items.len() * config.rollout.n) as u64);
            let eos = &rollout.eos;
            let max = rollout.max_new_tokens;
            let mut lengths = std::collections::HashMap::new();
            let (responses, stats) =
                generate(&self.policy, &jobs, &rollout, images, &self.setup.interrupt, |job, response, id| {
                    let length: &mut usize = lengths.entry((job, response)).or_default();
                    *length += 1;
                    if eos.contains(&id) || *length == max {
                        progress.advance(1);
                    }
                })?;
            let greedy = match algorithm.needs_greedy() {
                true => Some(
                    generate(
                        &self.policy,
                        &jobs,
                        &self.rollout_config(1, Sampling::greedy()),
                        images,
                        &self.setup.interrupt,
                        |_, _, _| {},
                    )?
                    .0,
                ),
                false => None,
            };
            if !responses.iter().flatten().flat_map(|r| &r.log_probs).any(|p| p.is_finite()) {
                return Err(self.diverged("not one token of a whole batch of responses has a finite log-prob".into()));
            }
            batch.rollout_s += clock.elapsed().as_secs_f64();
            add(&mut batch.stats, &stats);
            batch.drawn.clone_from(&items);
            let clock = Instant::now();
            let greedy = match greedy {
                Some(greedy) => grade(items.clone(), greedy, &self.setup.processor, &mut self.reward)?
                    .iter()
                    .map(|g| Some(g.reward()))
                    .collect(),
                None => vec![None; items.len()],
            };
            let mut groups: Vec<Group> = grade(items, responses, &self.setup.processor, &mut self.reward)?;
            batch.reward_s += clock.elapsed().as_secs_f64();
            groups.iter_mut().zip(greedy).for_each(|(group, greedy)| group.greedy = greedy);
            batch.rounds += 1;
            batch.sampled.add(&groups);
            if algorithm.online_filtering {
                let key = algorithm.filter_key.as_str();
                if groups.iter().all(|g| g.mean(key).is_none()) {
                    return Err(TrainError::Input(format!(
                        "algorithm.filter_key: the reward command gave no response a metric \"{key}\""
                    )));
                }
                groups.retain(|g| g.mean(key).is_some_and(|m| m > algorithm.filter_low && m < algorithm.filter_high));
                groups.retain(|g| !(algorithm.filter_zero_variance && g.is_flat()));
                if groups.is_empty() {
                    self.setup
                        .progress
                        .note(&format!("warning: round {} kept no prompt (algorithm.online_filtering)", batch.rounds));
                }
            }
            batch.kept += groups.len();
            batch.groups.extend(groups);
        }
        batch.surplus = batch.groups.split_off(size.min(batch.groups.len()));
        Ok(batch)
    }

    fn rl_step(
        &mut self,
        prompts: &Prompts,
        shaping: &dyn AdvantageShaping<B>,
        loss: &LossConfig,
        steps: usize,
    ) -> Result<(Metrics, f64, u64), TrainError> {
        let config = self.setup.config.clone();
        let mut images = match reads_images(&config, shaping) {
            true => ImageCache::new(config.rollout.image_cache_gib),
            false => ImageCache::default(),
        };
        let batch = self.collect(prompts, shaping, &mut images)?;
        images.prune();
        let collected = batch.metrics();
        let reward = batch.sampled.reward / batch.sampled.groups.max(1) as f64;
        let Batch { groups, surplus, cursor, drawn, .. } = batch;
        if groups.is_empty() {
            self.state.cursor = cursor;
            self.looked_at(&drawn);
            let mut metrics = collected;
            metrics.insert("reward".into(), reward);
            return Ok((metrics, reward, 0));
        }
        self.setup.progress.phase(Phase::Score, groups.len() as u64);
        let recipe = Recipe {
            config: &config,
            loss,
            shaping,
            processor: &self.setup.processor,
            kl_coef: self.state.kl_coef,
            step: self.state.step,
            training: Training { step: self.state.stage_step, max_steps: steps as u64 },
        };
        let (experience, times) = make(&self.policy, self.reference.as_ref(), groups, &recipe, &mut images)?;
        if self.interrupted() {
            return Err(TrainError::Interrupted);
        }
        if config.trainer.log_rollouts {
            self.log_rollouts(&experience)?;
        }
        self.setup.progress.phase(Phase::Update, experience.lengths.len() as u64);
        let options = GradientOptions {
            temperature: config.rollout.temperature,
            entropy: loss.needs_full_entropy(),
            token_budget: config.actor.micro_batch_tokens,
            train_vision: !config.model.freeze_vision_tower,
            recompute: self.recompute(),
        };
        // The learning rate follows the training steps, so that a step that kept fewer prompts does not move it.
        let updates = config.data.rollout_batch_size.div_ceil(config.update_batch_size()) * config.actor.ppo_epochs;
        let mut schedule = Schedule { done: self.state.stage_step as usize * updates, total: steps * updates };
        let learner = Learner { policy: &mut self.policy, optimizer: &mut self.optimizer, images: &mut images };
        let (updated, update_times) = update(learner, &experience, &config, loss, &options, &mut schedule)?;

        // From here on the step is complete.
        self.state.optimizer_steps +=
            experience.groups.len().div_ceil(config.update_batch_size()) * config.actor.ppo_epochs;
        self.state.cursor = cursor;
        self.looked_at(&drawn);
        self.carried = surplus;
        self.carried.iter_mut().for_each(|group| group.carried = true);
        if loss.kl.kl_type == KlType::Adaptive {
            let kl = updated.get("actor/kl").or(experience.metrics.get("critic/kl")).copied();
            let mut controller = KlController::new(&loss.kl);
            if let Some(kl) = kl {
                controller.update(kl, experience.lengths.len());
                self.state.kl_coef = controller.coef;
            }
        }
        let mut metrics = experience.metrics.clone();
        metrics.extend(collected);
        metrics.extend(updated);
        for (kind, text) in warnings::of_step(&metrics, &config) {
            self.setup.progress.warn_once(kind, &text);
        }
        let response_tokens: usize = experience.lengths.iter().sum();
        metrics.extend(
            [
                ("time/old_log_probs_s", times.old_log_probs_s),
                ("time/streams_s", times.streams_s),
                ("time/advantages_s", times.advantages_s),
                ("time/gradients_s", update_times.gradients_s),
                ("time/optimizer_s", update_times.optimizer_s),
                (
                    "perf/update_tokens_per_s",
                    update_times.tokens as f64 / (update_times.gradients_s + update_times.optimizer_s).max(1e-9),
                ),
            ]
            .map(|(k, v)| (k.to_string(), v)),
        );
        let reward = metrics["reward"];
        Ok((metrics, reward, response_tokens as u64))
    }

    /// One JSON line a response in `rollouts/step_N.jsonl`.
    fn log_rollouts(&self, experience: &Experience) -> Result<(), TrainError> {
        let mut log = self.folder.rollout_log(self.state.step + 1)?;
        let mut index = 0;
        for group in &experience.groups {
            for ((response, text), score) in group.responses.iter().zip(&group.texts).zip(&group.scores) {
                let tokens = &experience.shaped.advantages[index];
                index += 1;
                let mut line = Map::new();
                for (key, value) in [
                    ("id", json!(group.item.id)),
                    ("row", json!(group.item.row)),
                    ("task", json!(group.item.task)),
                    ("problem", json!(group.item.problem)),
                    ("answer", json!(group.item.answer)),
                    ("response", json!(text)),
                    ("extracted", json!(score.extracted)),
                    ("reward", json!(score.overall)),
                    ("accuracy", json!(score.accuracy)),
                    ("format", json!(score.format)),
                    ("tokens", json!(response.ids.len())),
                    (
                        "finish",
                        json!(match response.finish {
                            FinishReason::Stop => "stop",
                            FinishReason::Length => "length",
                        }),
                    ),
                    ("advantage_mean", json!(tokens.iter().sum::<f32>() / tokens.len().max(1) as f32)),
                ] {
                    line.insert(key.into(), value);
                }
                for (key, value) in &score.extra {
                    // Named as in metrics.jsonl: a reward command may call a metric `id` or `tokens`.
                    line.insert(format!("reward/{key}"), Value::from(*value));
                }
                log.append(&line)?;
            }
        }
        Ok(())
    }

    /// The policy at the beginning of this stage, kept in the run folder so that a resumed run has the same.
    fn load_reference(&mut self) -> Result<(), TrainError> {
        let name = reference_name(&self.state);
        let path = self.folder.root().join("reference").join(&name);
        self.state.origin.reference = Some(name);
        // Under another name until it is whole.
        let partial = path.with_extension("partial");
        if self.state.stage_step == 0 {
            let io = io_error(&path);
            match self.policy.save(&partial, Some(&self.setup.companions)) {
                Err(error @ ModelError::NotFinite { .. }) => return Err(self.diverged(error.to_string())),
                result => result?,
            }
            if path.exists() {
                std::fs::remove_dir_all(&path).map_err(&io)?;
            }
            std::fs::rename(&partial, &path).map_err(io)?;
            self.reference = Some(self.policy.clone());
        } else if !path.exists() {
            // A run that goes on from the checkpoint of another folder takes that one's reference policy along.
            let checkpoint = self.saved.clone().unwrap_or_default();
            let source = reference_elsewhere(&path, &checkpoint)?;
            std::fs::create_dir_all(&partial).map_err(io_error(&partial))?;
            for entry in std::fs::read_dir(&source).map_err(io_error(&source))? {
                let from = entry.map_err(io_error(&source))?.path();
                std::fs::copy(&from, partial.join(from.file_name().unwrap_or_default())).map_err(io_error(&from))?;
            }
            std::fs::rename(&partial, &path).map_err(io_error(&path))?;
        }
        if self.reference.is_none() {
            self.reference = Some((self.setup.load)(&path)?);
        }
        Ok(())
    }
}

/// Whether the KL term of a configuration compares with the policy that a stage began with.
pub(super) fn wants_reference(config: &Config) -> bool {
    let loss = config.to_loss_config();
    loss.kl.in_loss() || loss.kl.in_reward()
}

/// The folder in `reference/` of the current stage's reference policy; one that was named keeps its name when stages are dropped.
pub(super) fn reference_name(state: &TrainerState) -> String {
    state.origin.reference.clone().unwrap_or_else(|| format!("stage_{}", state.stage))
}

/// Where the reference policy `path` is that this run does not have: beside the checkpoint.
pub(super) fn reference_elsewhere(path: &Path, checkpoint: &Path) -> Result<PathBuf, TrainError> {
    let name = path.file_name().unwrap_or_default();
    let run = checkpoint.parent().and_then(Path::parent);
    run.map(|run| run.join("reference").join(name)).filter(|source| source.is_dir()).ok_or_else(|| {
        TrainError::Input(format!(
            "{}: the reference policy of this stage is gone, and its KL term needs it; copy the folder reference/ of the run that the \
             checkpoint is from, or set algorithm.disable_kl = true",
            path.display()
        ))
    })
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> TrainError + use<> {
    let path = path.to_path_buf();
    move |source| TrainError::Model(ModelError::Io { path: path.clone(), source })
}

/// Whether anything after the first rollout asks for image embeddings of this policy.
fn reads_images<B: Kernels>(config: &Config, shaping: &dyn AdvantageShaping<B>) -> bool {
    config.model.freeze_vision_tower
        || config.actor.old_log_probs == OldLogProbs::Recompute
        || config.algorithm.needs_greedy()
        || shaping.streams().iter().any(|stream| !matches!(stream, Stream::VisualFocus { .. }))
}

fn add(sum: &mut RolloutStats, part: &RolloutStats) {
    sum.vision_s += part.vision_s;
    sum.prefill_s += part.prefill_s;
    sum.decode_s += part.decode_s;
    sum.prompt_tokens += part.prompt_tokens;
    sum.response_tokens += part.response_tokens;
    sum.decode_steps += part.decode_steps;
}
