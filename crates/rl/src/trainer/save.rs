//! Checkpoints of the last complete step, and the proof that the policy still computes numbers.
//!
//! A checkpoint is written while training goes on (`trainer.save_async`), one at a time. It becomes whole between
//! steps or rounds, where all ranks have written theirs ([`Trainer::settle`]); who needs it to be whole waits.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use ::policy::{Hold, ModelError};
use kernels::Kernels;

use super::Trainer;
use crate::checkpoint::{self, Carried, Contents, TrainerState, Writing, WritingPlan};
use crate::config::Stage;
use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::policy::Policy;
use crate::progress::Phase;
use crate::rollout::{Job, RolloutConfig, generate};
use crate::sampler::Sampling;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Begins to write a checkpoint of the last complete step, unless it exists, when the one before it is whole; it is
    /// whole when it has been [settled](Self::settle).
    ///
    /// # Errors
    /// Weights or optimizer state that no run can go on from; anything the file system refuses, of this checkpoint or
    /// of the one before; ranks that are gone.
    pub(super) fn save(&mut self) -> Result<(), TrainError> {
        self.settle(true)?;
        let exists = |path: &PathBuf| checkpoint::read_state(path).is_ok_and(|saved| saved.is_at(&self.state));
        if self.setup.ranks.world.from_first("saved", || self.saved.as_ref().is_some_and(exists))? {
            return Ok(());
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
        checkpoint::check_state(&state).map_err(|what| self.diverged(what))?;
        let config = &self.setup.config.trainer;
        let (in_thread, limit) = (config.save_async, config.save_limit);
        let contents = Contents {
            policy: &self.policy,
            save: self.setup.config.trainer.save,
            optimizer: &self.optimizer,
            companions: &self.setup.companions,
            ranks: &self.setup.ranks,
        };
        let hold = if in_thread { Hold::while_training::<B>(&self.policy.device()) } else { Hold::Tensors };
        let staged = checkpoint::stage(&contents, hold)?;
        self.prove().map_err(|unproved| match staged.check() {
            // What the outputs are not because a weight is not is said of the weight.
            Err(error @ ModelError::NotFinite { .. }) => self.diverged(error.to_string()),
            _ => unproved,
        })?;
        let plan = WritingPlan { dir: self.folder.checkpoints(), state, limit };
        self.writing = Some(Writing::start(plan, staged, &self.setup.ranks.world, in_thread)?);
        self.settle(!in_thread)
    }

    /// Makes the checkpoint that is being written whole, if all ranks have written theirs; with `wait` however long
    /// that takes. All ranks call this, at the same places.
    ///
    /// # Errors
    /// What [`Writing::finish`] says.
    pub(super) fn settle(&mut self, wait: bool) -> Result<(), TrainError> {
        let world = &self.setup.ranks.world;
        let Some(writing) = &self.writing else { return Ok(()) };
        if !wait && world.any("a checkpoint is being written", !writing.is_done())? {
            return Ok(());
        }
        match self.writing.take().map(|writing| writing.finish(world)) {
            Some(Ok(path)) => {
                self.saved = Some(path);
                if let Some(record) = &mut self.record {
                    record.reached(self.state.step, self.state.seconds)?;
                }
            }
            Some(Err(TrainError::Diverged { what, .. })) => return Err(self.diverged(what)),
            Some(Err(error)) => return Err(error),
            None => {}
        }
        Ok(())
    }

    /// Waits for what this rank writes, when `error` has ended the run.
    ///
    /// # Errors
    /// A checkpoint that could not be written, where `error` is of the run folder, too: a disk that is full.
    pub(super) fn settle_after(&mut self, error: &TrainError) -> Result<(), TrainError> {
        let written = self.writing.take().map_or(Ok(()), |writing| writing.after_error(&self.setup.ranks.world));
        if matches!(error, TrainError::RunFolder(_)) { written } else { Ok(()) }
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
        // It may be the one to go on from, or may remove that one.
        self.writing.iter().for_each(Writing::wait);
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
