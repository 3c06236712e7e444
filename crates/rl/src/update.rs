//! The policy update: experience to gradients to AdamW, in mini-batches of whole groups.

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use model_qwen2vl::{Kernels, host};

use crate::config::Config;
use crate::engine::{GradientOptions, MicroGradients, MicroScores, Ragged, accumulate};
use crate::error::TrainError;
use crate::experience::Experience;
use crate::image_cache::ImageCache;
use crate::loss::{Denominators, LossConfig, LossInputs, MetricSums, padding, policy_loss};
use crate::optimizer::{AdamW, gradients};
use crate::policy::Policy;

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

/// The loss closure of a micro-batch: ragged streams to padded tensors, the loss under autodiff, its gradient back to ragged.
struct LossOf<'a> {
    loss: &'a LossConfig,
    experience: &'a Experience,
    /// Index of the first response of each group of the mini-batch.
    first: &'a [usize],
    denominators: Denominators,
}

impl LossOf<'_> {
    fn gradients<B: Kernels>(
        &self,
        micro: MicroScores<B>,
        sums: &mut MetricSums,
    ) -> Result<MicroGradients<B>, TrainError> {
        let device = micro.log_probs.device();
        let rows: Vec<usize> = micro.micro.iter().flat_map(|(g, rs)| rs.iter().map(|r| self.first[*g] + r)).collect();
        let ragged = Ragged::new(&micro.lengths);
        let width = ragged.width();
        let e = self.experience;
        let padded = |list: &[Vec<f32>]| {
            let picked: Vec<&[f32]> = rows.iter().map(|&r| &list[r][..]).collect();
            padding::pad::<Autodiff<B>, _>(&picked, width, &device)
        };
        let leaf = |x: Tensor<B, 1>| Tensor::<Autodiff<B>, 2>::from_inner(ragged.pad(x)).require_grad();
        let log_probs = leaf(micro.log_probs);
        let entropy = micro.entropy.map(leaf);
        let policy_mask = e.shaped.policy_mask_values();
        let pictured = e.masked_log_probs.as_ref().filter(|_| !e.has_image.iter().all(|has| *has)).map(|_| {
            std::iter::zip(&e.has_image, &e.lengths)
                .map(|(&has, &n)| vec![f32::from(u8::from(has)); n])
                .collect::<Vec<_>>()
        });
        let inputs = LossInputs {
            log_probs: log_probs.clone(),
            old_log_probs: padded(&e.old_log_probs),
            advantages: padded(&e.shaped.advantages),
            mask: padding::mask(&micro.lengths, width, &device),
            policy_mask: policy_mask.as_deref().map(padded),
            ref_log_probs: e.ref_log_probs.as_deref().map(padded),
            masked_log_probs: e.masked_log_probs.as_deref().map(padded),
            pictured: pictured.as_deref().map(padded),
            entropy: entropy.clone(),
            rollout_log_probs: Some(padded(&e.rollout_log_probs)),
        };
        let output = policy_loss(self.loss, &inputs, self.denominators)?;
        sums.add(&output.metrics).map_err(TrainError::Device)?;
        let grads = output.loss.backward();
        let of = |x: &Tensor<Autodiff<B>, 2>| match x.grad(&grads) {
            Some(g) => ragged.flatten(g),
            None => Tensor::zeros([micro.lengths.iter().sum::<usize>()], &device),
        };
        Ok(MicroGradients { log_probs: of(&log_probs), entropy: entropy.as_ref().map(of) })
    }
}

/// How far a stage's optimizer has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
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
}

/// All optimizer steps of one experience; the metrics of the update. `schedule.done` grows.
///
/// # Errors
/// Loss settings and streams that do not fit; a device that cannot be read or waited for.
pub fn update<B: Kernels, P: Policy<B>>(
    Learner { policy, optimizer, images }: Learner<B, P>,
    experience: &Experience,
    config: &Config,
    loss: &LossConfig,
    options: &GradientOptions,
    schedule: &mut Schedule,
) -> Result<(BTreeMap<String, f64>, UpdateTimes), TrainError> {
    if options.train_vision {
        images.clear();
    }
    let mut times = UpdateTimes::default();
    let mut metrics: BTreeMap<String, f64> = BTreeMap::new();
    let refs = experience.refs();
    let mut first = vec![0];
    for group in &refs {
        first.push(first[first.len() - 1] + group.responses.len());
    }
    let (mut steps, mut norms, mut skipped) = (0usize, 0f64, 0usize);
    for _ in 0..config.actor.ppo_epochs {
        let mut start = 0;
        for groups in refs.chunks(config.update_batch_size()) {
            let clock = std::time::Instant::now();
            let end = start + groups.len();
            let lengths = &experience.lengths[first[start]..first[end]];
            let closure = LossOf { loss, experience, first: &first[start..], denominators: Denominators::of(lengths) };
            let mut sums = MetricSums::default();
            let mut grads = gradients(&config.actor.optim);
            accumulate(policy, images, groups, options, &mut grads, |micro| closure.gradients(micro, &mut sums))?;
            times.tokens += groups.iter().map(|g| g.prompt.len()).sum::<usize>() + lengths.iter().sum::<usize>();
            // What is queued belongs to the part that queued it.
            host::sync::<B>(&policy.device())?;
            times.gradients_s += clock.elapsed().as_secs_f64();
            let clock = std::time::Instant::now();
            let optim = &config.actor.optim;
            let lr = crate::optimizer::learning_rate(optim, schedule.done + 1, schedule.total);
            let outcome = optimizer.step(policy, grads, lr, optim.weight_decay, config.actor.max_grad_norm)?;
            host::sync::<B>(&policy.device())?;
            times.optimizer_s += clock.elapsed().as_secs_f64();
            schedule.done += 1;
            steps += 1;
            if outcome.applied {
                norms += outcome.grad_norm;
            } else {
                skipped += 1;
            }
            for (name, value) in sums.means() {
                *metrics.entry(name.to_string()).or_default() += value;
            }
            metrics.insert("actor/lr".into(), lr);
            start = end;
        }
    }
    // Means over the optimizer steps of this batch.
    for (name, value) in &mut metrics {
        if name != "actor/lr" {
            *value /= steps.max(1) as f64;
        }
    }
    metrics.insert("actor/grad_norm".into(), norms / (steps - skipped).max(1) as f64);
    metrics.insert("actor/skipped_steps".into(), skipped as f64 / steps.max(1) as f64);
    Ok((metrics, times))
}
