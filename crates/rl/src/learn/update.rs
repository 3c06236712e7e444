//! The policy update: experience to gradients to AdamW, in mini-batches of whole groups.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use comm::Ranks;
use kernels::{Kernels, host};

use super::optimizer::{AdamW, StepOutcome, learning_rate};
use super::{GradientOptions, GroupRef, MicroGradients, MicroScores, Ragged, accumulate};
use crate::config::{Config, OldLogProbs};
use crate::error::TrainError;
use crate::experience::{Experience, Metrics};
use crate::image_cache::ImageCache;
use crate::loss::{Denominators, LossConfig, LossInputs, MetricSums, padding, policy_loss};
use crate::mismatch;
use crate::policy::Policy;
use crate::random_keys::dropout_seed;
use crate::rollout::FinishReason;
use crate::trajectory::{ScoredGroup, Trajectory};

/// Seconds of an update.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UpdateTimes {
    /// Forward and backward.
    pub gradients_s: f64,
    /// Optimizer.
    pub optimizer_s: f64,
    /// Packed tokens that went through forward and backward.
    pub tokens: usize,
}

impl UpdateTimes {
    /// As they are logged.
    pub fn metrics(&self) -> [(&'static str, f64); 3] {
        let seconds = self.gradients_s + self.optimizer_s;
        [
            ("time/gradients_s", self.gradients_s),
            ("time/optimizer_s", self.optimizer_s),
            ("perf/update_tokens_per_s", self.tokens as f64 / seconds.max(1e-9)),
        ]
    }
}

/// What one optimizer step learns from: groups, and of each the responses that are in the loss.
#[derive(Default)]
struct MiniBatch<'a> {
    /// Those that this rank holds.
    groups: Vec<GroupRef<'a>>,
    /// The records of the responses in `groups`.
    trajectories: Vec<Vec<&'a Trajectory>>,
    /// Tokens of each response of all ranks.
    lengths: Vec<usize>,
}

impl<'a> MiniBatch<'a> {
    /// Cuts an experience after every `size` groups. With `mask_truncated`, responses that did not end are in no
    /// mini-batch, so they are neither in the sums of the loss nor in its denominators, and cost no pass; a mini-batch
    /// may be left empty.
    fn cut(experience: &'a Experience, size: usize, mask_truncated: bool, ranks: &Ranks) -> Vec<Self> {
        let is_in = |t: &&Trajectory| !(mask_truncated && t.finish == FinishReason::Length);
        let mini = |groups: &'a [ScoredGroup]| {
            let mut mini = Self::default();
            for group in groups {
                let kept: Vec<&Trajectory> = group.trajectories.iter().filter(is_in).collect();
                mini.lengths.extend(kept.iter().map(|t| t.ids.len()));
                if !kept.is_empty() && group.item.holder == ranks.rank() {
                    let responses = kept.iter().map(|t| &t.ids[..]).collect();
                    mini.groups.push(GroupRef { prompt: &group.item.prompt, responses });
                    mini.trajectories.push(kept);
                }
            }
            mini
        };
        experience.groups.chunks(size).map(mini).collect()
    }

    /// Packed tokens of this rank, prompts included.
    fn tokens(&self) -> usize {
        let responses = self.trajectories.iter().flatten().map(|t| t.ids.len()).sum::<usize>();
        self.groups.iter().map(|g| g.prompt.len()).sum::<usize>() + responses
    }
}

/// Burn's autodiff loses gradients where two threads of a process go backward at once, as ranks that are threads would.
static BACKWARD: Mutex<()> = Mutex::new(());

/// The loss closure of a micro-batch: records to padded tensors, the loss under autodiff, its gradient back to ragged.
struct LossOf<'a> {
    loss: &'a LossConfig,
    mini: &'a MiniBatch<'a>,
    /// Whether some prompt of the experience has no image, so that PAPO's terms need to know which have one.
    some_blind: bool,
    /// Whether these are the weights that sampled, and no pass has compared the log-probs with the sampler's yet.
    compare_sampler: bool,
    denominators: Denominators,
}

impl LossOf<'_> {
    fn gradients<B: Kernels>(
        &self,
        micro: MicroScores<B>,
        sums: &mut MetricSums,
    ) -> Result<MicroGradients<B>, TrainError> {
        let _alone = BACKWARD.lock().unwrap_or_else(PoisonError::into_inner);
        let device = micro.log_probs.device();
        let ragged = Ragged::new(&micro.lengths);
        let leaf = |x: Tensor<B, 1>| Tensor::<Autodiff<B>, 2>::from_inner(ragged.pad(x)).require_grad();
        let log_probs = leaf(micro.log_probs);
        let entropy = micro.entropy.map(leaf);
        let padded = Padded {
            trajectories: micro
                .micro
                .iter()
                .flat_map(|(g, rs)| rs.iter().map(|r| self.mini.trajectories[*g][*r]))
                .collect(),
            width: ragged.width(),
            device: &device,
        };
        let masked_log_probs = padded.some(|t| t.streams.masked_log_probs.as_deref());
        let has_image =
            |(g, rs): &(usize, Vec<usize>)| vec![!self.mini.groups[*g].prompt.image_grid_thw.is_empty(); rs.len()];
        let has_image: Vec<bool> = micro.micro.iter().flat_map(has_image).collect();
        let pictured = (self.some_blind && masked_log_probs.is_some()).then(|| padded.filled(&has_image));
        let inputs = LossInputs {
            log_probs: log_probs.clone(),
            old_log_probs: padded.all(|t| &t.old_log_probs),
            advantages: padded.all(|t| &t.advantages),
            mask: padding::mask(&micro.lengths, ragged.width(), &device),
            policy_mask: padded.mask(),
            ref_log_probs: match self.loss.kl.in_loss() {
                true => padded.some(|t| t.streams.ref_log_probs.as_deref()),
                false => None,
            },
            masked_log_probs,
            pictured,
            entropy: entropy.clone(),
            rollout_log_probs: Some(padded.all(|t| &t.rollout_log_probs)),
        };
        let mut output = policy_loss(self.loss, &inputs, self.denominators)?;
        if self.compare_sampler {
            output.metrics.push((mismatch::METRIC, sampler_gap(&inputs)));
        }
        sums.add(&output.metrics).map_err(TrainError::Device)?;
        let grads = output.loss.backward();
        let of = |x: &Tensor<Autodiff<B>, 2>| match x.grad(&grads) {
            Some(g) => ragged.flatten(g),
            None => Tensor::zeros([micro.lengths.iter().sum::<usize>()], &device),
        };
        Ok(MicroGradients { log_probs: of(&log_probs), entropy: entropy.as_ref().map(of) })
    }
}

/// The sum over tokens of how far the log-probs are from the sampler's, `[1]`.
fn sampler_gap<B: Backend>(inputs: &LossInputs<B>) -> Tensor<B, 1> {
    let sampled = inputs.rollout_log_probs.as_ref().unwrap_or(&inputs.old_log_probs);
    let gap = inputs.log_probs.clone().detach().sub(sampled.clone()).abs();
    gap.mask_fill(inputs.mask.clone().equal_elem(0.0), 0.0).sum()
}

/// The records of a micro-batch as tables `[R, T]` on the device.
struct Padded<'a, B: Kernels> {
    trajectories: Vec<&'a Trajectory>,
    width: usize,
    device: &'a B::Device,
}

impl<B: Kernels> Padded<'_, B> {
    fn table<R: AsRef<[f32]>>(&self, rows: &[R]) -> Tensor<Autodiff<B>, 2> {
        padding::pad(rows, self.width, self.device)
    }

    /// Of what every record has.
    fn all(&self, of: fn(&Trajectory) -> &Vec<f32>) -> Tensor<Autodiff<B>, 2> {
        self.table(&self.trajectories.iter().map(|t| of(t)).collect::<Vec<_>>())
    }

    /// Of a stream; none where a record lacks it.
    fn some(&self, of: fn(&Trajectory) -> Option<&[f32]>) -> Option<Tensor<Autodiff<B>, 2>> {
        Some(self.table(&self.trajectories.iter().map(|t| of(t)).collect::<Option<Vec<_>>>()?))
    }

    /// The policy mask as 0 and 1; none where all tokens count.
    fn mask(&self) -> Option<Tensor<Autodiff<B>, 2>> {
        let row =
            |t: &&Trajectory| Some(t.policy_mask.as_ref()?.iter().map(|kept| f32::from(u8::from(*kept))).collect());
        Some(self.table(&self.trajectories.iter().map(row).collect::<Option<Vec<Vec<f32>>>>()?))
    }

    /// One value per response, on each of its tokens, as 0 or 1.
    fn filled(&self, values: &[bool]) -> Tensor<Autodiff<B>, 2> {
        let row = |(t, value): (&&Trajectory, &bool)| vec![f32::from(u8::from(*value)); t.ids.len()];
        self.table(&std::iter::zip(&self.trajectories, values).map(row).collect::<Vec<_>>())
    }
}

/// How far a stage's optimizer has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateSchedule {
    /// Optimizer steps of this stage that lie behind, had every training step kept all of its prompts.
    pub done: usize,
    /// Optimizer steps of this stage.
    pub total: usize,
}

/// What an update changes.
pub struct Learner<'a, B: Kernels, P> {
    /// The policy.
    pub policy: &'a mut P,
    /// Its optimizer.
    pub optimizer: &'a mut AdamW<B>,
    /// Image embeddings of the policy's tower: read where it is frozen, forgotten where it learns.
    pub images: &'a mut ImageCache<B>,
    /// The ranks that learn together, each from the groups that it holds.
    pub ranks: &'a Ranks,
}

/// The settings of an update.
#[derive(Clone, Copy)]
pub struct UpdateSettings<'a> {
    /// The run's configuration: batch sizes, optimizer, clipping.
    pub config: &'a Config,
    /// The loss.
    pub loss: &'a LossConfig,
    /// How gradients are computed.
    pub options: &'a GradientOptions,
}

/// All optimizer steps of one experience; the metrics of the update. `schedule.done` grows.
///
/// # Errors
/// Loss settings and streams that do not fit; a device that cannot be read or waited for; a sampler that disagrees
/// (`mismatch::check`).
pub fn update<B: Kernels, P: Policy<B>>(
    mut learner: Learner<B, P>,
    experience: &Experience,
    settings: UpdateSettings,
    schedule: &mut UpdateSchedule,
) -> Result<(Metrics, UpdateTimes), TrainError> {
    let actor = &settings.config.actor;
    // Pages that sampling and scoring left, of sizes that are none of an update's.
    B::memory_cleanup(&learner.policy.device());
    if settings.options.train_vision {
        learner.images.clear();
    }
    let mut times = UpdateTimes::default();
    let mut metrics = Metrics::new();
    let some_blind = !experience.groups.iter().all(ScoredGroup::has_image);
    let minis = MiniBatch::cut(experience, settings.config.update_batch_size(), actor.mask_truncated, learner.ranks);
    // Optimizer steps, those with a loss, and those that were taken.
    let (mut steps, mut computed, mut applied, mut norms) = (0usize, 0usize, 0usize, 0f64);
    let mut gap = None;
    for mini in std::iter::repeat_n(&minis, actor.ppo_epochs).flatten() {
        steps += 1;
        schedule.done += 1;
        let denominators = Denominators::of(&mini.lengths);
        if denominators.is_empty() {
            continue;
        }
        // Before the first update of the batch; what was carried over was sampled by an earlier policy.
        let compare_sampler = computed == 0
            && actor.old_log_probs == OldLogProbs::Rollout
            && !experience.groups.iter().any(|group| group.carried);
        let closure = LossOf { loss: settings.loss, mini, some_blind, compare_sampler, denominators };
        let lr = learning_rate(&actor.optim, schedule.done, schedule.total);
        learner.policy.begin_update(dropout_seed(settings.config.trainer.seed, schedule.done as u64));
        let (outcome, sums) = learner.step(&closure, settings, lr, &mut times)?;
        computed += 1;
        if outcome.applied {
            norms += outcome.grad_norm;
            applied += 1;
        }
        let mut means = sums.means();
        gap = means.remove(mismatch::METRIC).or(gap);
        for (name, value) in means {
            *metrics.entry(name.to_string()).or_default() += value;
        }
        metrics.insert("actor/lr".into(), lr);
    }
    // Means over the optimizer steps of this batch that had a loss.
    for (name, value) in &mut metrics {
        if name != "actor/lr" {
            *value /= computed as f64;
        }
    }
    metrics.extend(gap.map(|gap| (mismatch::METRIC.into(), gap)));
    // Of no step at all the norm is not a number, which is null in the log: a 0 would look like a policy at rest.
    metrics.insert("actor/grad_norm".into(), norms / applied as f64);
    metrics.insert("actor/skipped_steps".into(), (steps - applied) as f64 / steps.max(1) as f64);
    Ok((metrics, times))
}

impl<B: Kernels, P: Policy<B>> Learner<'_, B, P> {
    /// One optimizer step.
    fn step(
        &mut self,
        closure: &LossOf,
        settings: UpdateSettings,
        lr: f64,
        times: &mut UpdateTimes,
    ) -> Result<(StepOutcome, MetricSums), TrainError> {
        let (actor, mini) = (&settings.config.actor, closure.mini);
        let clock = Instant::now();
        let mut sums = MetricSums::default();
        let mut grads = self.optimizer.gradients(self.policy, settings.config);
        accumulate(self.policy, self.images, &mini.groups, settings.options, &mut grads, |micro| {
            closure.gradients(micro, &mut sums)
        })?;
        times.tokens += mini.tokens();
        let sums = sums.over(self.ranks)?;
        if let Some(gap) = sums.means().get(mismatch::METRIC) {
            mismatch::check(*gap, settings.config)?;
        }
        // What is queued belongs to the part that queued it.
        host::sync::<B>(&self.policy.device())?;
        times.gradients_s += clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        let outcome = self.optimizer.step(self.policy, grads, lr, actor.optim.weight_decay, actor.max_grad_norm)?;
        host::sync::<B>(&self.policy.device())?;
        times.optimizer_s += clock.elapsed().as_secs_f64();
        Ok((outcome, sums))
    }
}
