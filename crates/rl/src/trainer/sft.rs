//! Supervised stages: cross-entropy on worked responses, by the same engine.

use burn::tensor::Tensor;
use kernels::{Kernels, host};

use super::{Metrics, Trainer};
use crate::config::{SftStage, Stage};
use crate::dealt;
use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::learn::optimizer::learning_rate;
use crate::learn::{GradientOptions, GroupRef, MicroGradients, accumulate};
use crate::policy::Policy;
use crate::progress::Phase;
use crate::prompts::Prompts;
use crate::random_keys::dropout_seed;
use crate::warnings;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// One step: its metrics, and the tokens that went through it.
    pub(super) fn sft_step(&mut self, stage: &SftStage, prompts: &Prompts) -> Result<(Metrics, u64), TrainError> {
        let mut cursor = self.state.cursor.clone();
        let (progress, aside) = (&mut self.setup.progress, &mut self.state.set_aside);
        let items =
            prompts.next(&mut cursor, stage.batch_size, &self.policy, aside, &mut |text| progress.note(&text))?;
        let end = self.setup.eos.first().copied();
        let targets: Vec<Vec<u32>> =
            items.iter().map(|item| item.solution.iter().flatten().copied().chain(end).collect()).collect();
        let ranks = &self.setup.ranks.data;
        let groups: Vec<GroupRef> = dealt::held(ranks, &items)
            .into_iter()
            .map(|place| GroupRef { prompt: &items[place].prompt, responses: vec![&targets[place]] })
            .collect();
        let count: usize = targets.iter().map(Vec::len).sum();
        let packed = count + items.iter().map(|i| i.prompt.len()).sum::<usize>();
        self.setup.progress.phase(Phase::Update, count as u64);
        let options = GradientOptions::of(&self.setup.config, &self.policy, 1.0, false);
        self.policy.begin_update(dropout_seed(self.setup.config.trainer.seed, self.state.optimizer_steps as u64 + 1));
        let mut grads = self.optimizer.gradients(&mut self.policy, &self.setup.config);
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
        let mut sums = [total, f64::from(u8::from(finite))];
        ranks.sum("supervised loss", &mut sums)?;
        let (total, finite) = (sums[0], sums[1] > 0.0);
        if !finite {
            return Err(
                self.diverged("the model gives no token of a whole batch a probability that is a number".into())
            );
        }
        let optim = self.setup.config.optim(&Stage::Sft(stage.clone()));
        let lr = learning_rate(&optim, self.state.optimizer_steps + 1, stage.steps);
        let outcome = self.optimizer.step(
            &mut self.policy,
            grads,
            lr,
            optim.weight_decay,
            self.setup.config.actor.max_grad_norm,
        )?;
        if !outcome.applied {
            self.setup.progress.warn_once("skipped", warnings::NOT_FINITE);
        }
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
