//! Checkpoints of the last complete step, and the proof that the policy still computes numbers.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use kernels::Kernels;

use super::Trainer;
use crate::checkpoint::{self, Carried, Contents, TrainerState};
use crate::config::Stage;
use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::policy::Policy;
use crate::progress::Phase;
use crate::rollout::{Job, RolloutConfig, generate};
use crate::sampler::Sampling;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Writes a checkpoint of the last complete step, unless it exists.
    pub(super) fn save(&mut self) -> Result<PathBuf, TrainError> {
        let exists = |path: &PathBuf| checkpoint::read_state(path).is_ok_and(|saved| saved.is_at(&self.state));
        let found = self.setup.ranks.world.from_first("saved", || self.saved.as_ref().is_some_and(exists))?;
        if let Some(path) = self.saved.as_ref().filter(|_| found) {
            return Ok(path.clone());
        }
        self.setup.progress.phase(Phase::Save, 0);
        self.log.sync()?;
        self.tick();
        let prompts = self.data.get(&self.state.stage);
        let state = TrainerState {
            carried: self.carried.iter().map(Carried::of).collect(),
            origin: self.state.origin.with(&self.setup.config, prompts),
            ..self.state.clone()
        };
        let contents = Contents {
            state: &state,
            policy: &self.policy,
            save: self.setup.config.trainer.save,
            optimizer: &self.optimizer,
            companions: &self.setup.companions,
            ranks: &self.setup.ranks,
        };
        let limit = self.setup.config.trainer.save_limit;
        let path = match checkpoint::save(&self.folder.checkpoints(), contents, limit, || self.prove()) {
            Err(TrainError::Diverged { what, .. }) => return Err(self.diverged(what)),
            result => result?,
        };
        self.saved = Some(path.clone());
        Ok(path)
    }

    /// Whether the policy still computes numbers: one token after a prompt of the last step. Weights may be finite and
    /// overflow.
    fn prove(&self) -> Result<(), TrainError> {
        let Some(prompt) = &self.probe else { return Ok(()) };
        let config = RolloutConfig { max_new_tokens: 1, ..self.rollout_config(1, Sampling::greedy())? };
        // The run's own flag may be set: a checkpoint is what an interrupt waits for.
        let (never, none) = (AtomicBool::new(false), &mut ImageCache::default());
        let (responses, _) = generate(&self.policy, &[Job { prompt, key: 0 }], &config, none, &never, |_, _, _| {})?;
        match responses.iter().flatten().flat_map(|r| &r.log_probs).all(|p| p.is_finite()) {
            true => Ok(()),
            false => Err(self.diverged("the weights are finite, the model's outputs are not".into())),
        }
    }

    /// The error of a run whose policy is no use any more: from where to go on, and with which change.
    pub(super) fn diverged(&self, what: String) -> TrainError {
        let config = &self.setup.config;
        let stage = &config.stages()[self.state.stage];
        let key = match stage {
            Stage::Rl(_) => "actor.optim.lr".to_string(),
            Stage::Sft(_) => format!("stages.{}.lr", self.state.stage),
        };
        let lr = config.optim(stage).lr;
        let change = format!("a smaller learning rate ({key} is {lr:e}, try {:e})", lr / 10.0);
        let way = match checkpoint::list(&self.folder.checkpoints()).pop() {
            Some((step, path)) => format!(
                " Checkpoints up to step {step} are good: go on with trainer.resume={} and {change}",
                path.display()
            ),
            None => format!(" There is no checkpoint before it: start again with {change}"),
        };
        TrainError::Diverged { what, way }
    }
}
