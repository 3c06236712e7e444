//! Supervised stages: cross-entropy on worked responses, by the same engine.

use std::time::Instant;

use burn::tensor::Tensor;
use model_qwen2vl::{Kernels, host};

use super::{Metrics, Trainer, sft_optim};
use crate::config::{Recompute, SftStage};
use crate::engine::{GradientOptions, GroupRef, MicroGradients, accumulate, recompute_for};
use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::optimizer::{gradients, learning_rate};
use crate::policy::Policy;
use crate::progress::{Phase, StepReport};
use crate::prompts::Prompts;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Whether the backward computes layers again.
    pub(super) fn recompute(&self) -> bool {
        let actor = &self.setup.config.actor;
        match actor.recompute {
            Recompute::Always => true,
            Recompute::Never => false,
            Recompute::Auto => recompute_for(&self.policy, actor.micro_batch_tokens, actor.activation_memory_gib),
        }
    }

    pub(super) fn sft(&mut self, stage: &SftStage, prompts: &Prompts) -> Result<(), TrainError> {
        self.setup.progress.stage(&stage.name, stage.steps as u64, self.state.stage_step);
        while self.state.unvalidated.is_some() || !self.state.stage_over && self.state.stage_step < stage.steps as u64 {
            if self.interrupted() {
                return Err(TrainError::Interrupted);
            }
            let clock = Instant::now();
            let (mut metrics, tokens) = match self.unvalidated_step() {
                Some(metrics) => (metrics, 0),
                None => self.sft_step(stage, prompts)?,
            };
            let next = self.state.stage_step + 1;
            if stage.until_accuracy > 0.0 && stage.check_freq > 0 && next.is_multiple_of(stage.check_freq as u64) {
                let found = self.validate_step(&metrics)?;
                let accuracy = found.get("val/accuracy").copied().unwrap_or(0.0);
                self.setup.progress.note(&format!(
                    "{} {next}: validation accuracy {:.1}%",
                    stage.name,
                    100.0 * accuracy
                ));
                self.state.stage_over = accuracy >= stage.until_accuracy;
                self.state.validation.clone_from(&found);
                metrics.extend(found);
            }
            let loss = metrics.get("sft/loss").copied().unwrap_or(f64::NAN);
            let time = clock.elapsed();
            metrics.insert("time/step_s".into(), time.as_secs_f64());
            metrics.insert("perf/tokens_per_s".into(), tokens as f64 / time.as_secs_f64());
            let result = self.finish_step(metrics, &stage.name);
            self.setup.progress.step(StepReport { step: self.state.stage_step, score: ("loss", loss), tokens, time });
            result?;
        }
        Ok(())
    }

    fn sft_step(&mut self, stage: &SftStage, prompts: &Prompts) -> Result<(Metrics, u64), TrainError> {
        let mut cursor = self.state.cursor.clone();
        let progress = &mut self.setup.progress;
        let items = prompts
            .next(&mut cursor, stage.batch_size, &self.policy, &mut self.aside, &mut |text| progress.note(&text))?;
        let end = self.setup.eos.first().copied();
        let targets: Vec<Vec<u32>> =
            items.iter().map(|item| item.solution.iter().flatten().copied().chain(end).collect()).collect();
        let groups: Vec<GroupRef> = items
            .iter()
            .zip(&targets)
            .map(|(item, ids)| GroupRef { prompt: &item.prompt, responses: vec![ids] })
            .collect();
        let count: usize = targets.iter().map(Vec::len).sum();
        let packed = count + items.iter().map(|i| i.prompt.len()).sum::<usize>();
        self.setup.progress.phase(Phase::Update, count as u64);
        let options = GradientOptions {
            temperature: 1.0,
            entropy: false,
            token_budget: self.setup.config.actor.micro_batch_tokens,
            train_vision: !self.setup.config.model.freeze_vision_tower,
            recompute: self.recompute(),
        };
        let mut grads = gradients(&self.setup.config.actor.optim);
        let (mut total, mut finite) = (0f64, false);
        let none = &mut ImageCache::default();
        accumulate(&self.policy, none, &groups, &options, &mut grads, |micro| -> Result<_, TrainError> {
            let log_probs = host::floats(micro.log_probs.clone())?;
            finite |= log_probs.iter().any(|p| p.is_finite());
            total += log_probs.iter().map(|p| f64::from(*p)).sum::<f64>();
            // loss = -mean log p over all tokens of the step
            let gradient = Tensor::full(micro.log_probs.dims(), -1.0 / count as f64, &micro.log_probs.device());
            Ok(MicroGradients { log_probs: gradient, entropy: None })
        })?;
        if !finite {
            return Err(
                self.diverged("the model gives no token of a whole batch a probability that is a number".into())
            );
        }
        let optim = sft_optim(&self.setup.config, stage);
        let lr = learning_rate(&optim, self.state.optimizer_steps + 1, stage.steps);
        let outcome = self.optimizer.step(
            &mut self.policy,
            grads,
            lr,
            optim.weight_decay,
            self.setup.config.actor.max_grad_norm,
        )?;
        self.state.cursor = cursor;
        self.looked_at(&items);
        self.state.optimizer_steps += 1;
        let metrics = Metrics::from([
            ("sft/loss".into(), -total / count as f64),
            ("actor/grad_norm".into(), outcome.grad_norm),
            ("actor/skipped_steps".into(), f64::from(u8::from(!outcome.applied))),
            ("actor/lr".into(), lr),
        ]);
        Ok((metrics, packed as u64))
    }
}
