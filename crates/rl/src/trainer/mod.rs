//! The trainer: stages, steps, validation, checkpoints. It knows no algorithm by name.
//!
//! | file | what |
//! |---|---|
//! | `start` | from a configuration to a trainer: everything that may refuse does so here |
//! | `resume` | from a checkpoint to a run that can go on |
//! | `stages` | the loop over stages and steps |
//! | `rl` | a step of reinforcement learning |
//! | `rows` | how many responses are generated at the same time |
//! | `collect` | its batch: sample, grade, select, until it is full |
//! | `sft` | a step of supervised warm start |
//! | `groups` | ranks by what they share |
//! | `reference` | the policy that a KL term compares with |
//! | `tokens` | what is kept of the tokens of some groups |
//! | `validate` | greedy and sampled validation |
//! | `worst` | the rows that cost most, before all others |
//! | `save` | checkpoints, written while training goes on; the proof that the policy still computes |
//!
//! State changes only when a step is complete, so an interrupt or a crash at any moment loses that step and nothing
//! else.

mod collect;
mod groups;
mod reference;
mod resume;
mod rl;
mod rows;
mod save;
mod sft;
mod stages;
mod start;
mod tokens;
mod validate;
mod worst;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ::policy::Companions;
use ::policy::ModelError;
use ::policy::Prompt;
use data::Processor;
use kernels::Kernels;
use kernels::zero::ZeroLayout;
use reward::Reward;
use run::record::{Keeper, RunStatus};

use crate::checkpoint::{TrainerState, Writing};
use crate::config::Config;
use crate::dealt;
use crate::error::TrainError;
pub use crate::experience::Metrics;
use crate::experience::grade;
use crate::learn::optimizer::AdamW;
use crate::policy::Policy;
use crate::progress::Progress;
use crate::prompts::{Item, Prompts};
use crate::rollout::{Response, RolloutConfig};
use crate::run_folder::{MetricsLog, RunFolder, TokenStore};
use crate::sampler::Sampling;
use crate::trajectory::ScoredGroup;
pub use groups::RankGroups;
pub use rows::{check_batch_rows, rows_that_fit};

/// How a policy's weights, or its adapters, are read from a folder.
pub(crate) type Loader<P> = Box<dyn Fn(&Path) -> Result<P, ModelError>>;

/// What says whether a folder's weights, or adapters, are of the form that a run learns.
pub(crate) type FitCheck = Box<dyn Fn(&Path) -> Result<(), TrainError>>;

/// What the trainer is made of.
pub struct Setup<P> {
    /// The resolved configuration.
    pub config: Config,
    /// Reads weights from a folder; asked for checkpoints and references.
    pub load: Loader<P>,
    /// Whether what was learned in a checkpoint's folder is what this run learns: weights, or adapters of the same
    /// form.
    pub fits: FitCheck,
    /// The weights to start from, where no checkpoint is.
    pub initial: Box<dyn Fn() -> Result<P, ModelError>>,
    /// Tokenizer and image processor.
    pub processor: Arc<Processor>,
    /// The model folder's tokenizer and processor files, which go into every checkpoint.
    pub companions: Companions,
    /// Ids that end a response.
    pub eos: Vec<u32>,
    /// What grades responses: [`crate::recipe::reward`], or a function of yours.
    pub reward: Reward,
    /// Where a person looks.
    pub progress: Progress,
    /// Set by SIGINT and SIGTERM.
    pub interrupt: Arc<AtomicBool>,
    /// The ranks of the run; each has a `Setup` of its own, all the same.
    pub ranks: RankGroups,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The run folder.
    pub folder: PathBuf,
    /// Steps of all stages.
    pub steps: u64,
    /// Validation before the first RL step; empty without one.
    pub before: Metrics,
    /// The last validation.
    pub after: Metrics,
    /// Seconds of training, resumed parts included.
    pub seconds: f64,
    /// Rows set aside, in resumed parts too.
    pub set_aside: usize,
    /// The last checkpoint.
    pub checkpoint: Option<PathBuf>,
}

/// A run at work.
pub struct Trainer<B: Kernels, P: Policy<B>> {
    setup: Setup<P>,
    policy: P,
    /// The reference of a KL term.
    reference: Option<P>,
    optimizer: AdamW<B>,
    /// How the ranks share out its state.
    layout: ZeroLayout,
    state: TrainerState,
    /// Groups that dynamic sampling kept for the next batch; [`TrainerState::carried`] is their form in a checkpoint
    /// alone.
    carried: Vec<ScoredGroup>,
    /// The data of this stage and of those to come, by stage.
    data: BTreeMap<usize, Prompts>,
    /// A prompt of the last step.
    probe: Option<Prompt>,
    /// Ids that are never sampled.
    never: Vec<u32>,
    folder: RunFolder,
    log: MetricsLog,
    tokens: TokenStore,
    /// None on ranks that write nothing.
    record: Option<Keeper>,
    validation: Option<Prompts>,
    /// Since when `state.seconds` has not been counted on.
    clock: Instant,
    /// The last checkpoint that is whole.
    saved: Option<PathBuf>,
    /// The checkpoint that is being written; the same one on all ranks.
    writing: Option<Writing>,
    traffic: dealt::TrafficMeter,
}

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Runs all stages to their end.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] after a checkpoint; otherwise what stopped the run. Everything up to the last
    /// checkpoint is kept.
    pub fn run(mut self) -> Result<Summary, TrainError> {
        let result = self.stages();
        let saved = match &result {
            Ok(()) | Err(TrainError::Interrupted) => self.save().and_then(|()| self.settle(true)),
            Err(error) => self.settle_after(error),
        };
        self.setup.progress.finish();
        self.tick();
        let (state, reason) = match (&result, &saved) {
            (Ok(()), Ok(())) => (RunStatus::Finished, None),
            (Err(TrainError::Interrupted), Ok(())) => (RunStatus::Interrupted, None),
            (_, Err(error)) | (Err(error), _) => (RunStatus::Failed, Some(error.to_string())),
        };
        let told = self.record.as_mut().map_or(Ok(()), |record| {
            record.reached(self.state.step, self.state.seconds)?;
            record.end(state, reason)
        });
        saved?;
        let checkpoint = self.saved.clone();
        if let (Err(TrainError::Interrupted), Some(path)) = (&result, &checkpoint) {
            let text = format!("interrupted: checkpoint of step {} in {}", self.state.step, path.display());
            self.setup.progress.note(&text);
        }
        result?;
        told?;
        Ok(Summary {
            folder: self.folder.root().to_path_buf(),
            steps: self.state.step,
            before: self.state.before,
            after: self.state.validation,
            seconds: self.state.seconds,
            set_aside: self.state.set_aside.count(),
            checkpoint,
        })
    }

    /// Counts on the seconds of training.
    fn tick(&mut self) {
        self.state.seconds += self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
    }

    /// Whether the run is to end with a checkpoint: all ranks hear the same, so all of them ask. A checkpoint that they
    /// have written meanwhile becomes whole here.
    ///
    /// # Errors
    /// A checkpoint that could not be written; a rank that is gone.
    fn interrupted(&mut self) -> Result<bool, TrainError> {
        self.settle(false)?;
        Ok(self.setup.ranks.world.any("interrupt", self.setup.interrupt.load(Ordering::Relaxed))?)
    }

    /// The flag that a rollout looks at between tokens. Of several ranks none may leave its rollout alone: they agree
    /// between rounds.
    fn rollout_interrupt(&self) -> Arc<AtomicBool> {
        if self.setup.ranks.world.is_solo() { self.setup.interrupt.clone() } else { Arc::default() }
    }

    /// Grades the responses to rows that this rank holds. Of the ranks of a copy of the model one does it: a reward
    /// command may be slow, or say two things.
    fn graded(&mut self, items: Vec<Item>, responses: Vec<Vec<Response>>) -> Result<Vec<ScoredGroup>, TrainError> {
        let (copy, processor) = (&self.setup.ranks.tensor, &self.setup.processor);
        if copy.is_solo() {
            return grade(items, responses, processor, &mut self.setup.reward);
        }
        let own = match copy.is_first() {
            true => grade(items.clone(), responses, processor, &mut self.setup.reward)?,
            false => vec![],
        };
        let told = || own.into_iter().map(|group| group.trajectories).collect::<Vec<_>>();
        let told = copy.from_first("grades", told)?;
        let group = |(item, trajectories)| ScoredGroup { item, trajectories, greedy: None, carried: false };
        Ok(std::iter::zip(items, told).map(group).collect())
    }

    /// Remembers rows of a complete step, for its checkpoint.
    fn looked_at(&mut self, items: &[Item]) {
        if let Some(place) = dealt::held(&self.setup.ranks.data, items).first() {
            self.probe = Some(items[*place].prompt.clone());
        }
        self.state.origin.remember(items);
    }

    /// How responses are generated with this sampling.
    ///
    /// # Errors
    /// As [`rows::batch_rows`].
    fn rollout_config(&self, n: usize, sampling: Sampling) -> Result<RolloutConfig, TrainError> {
        let config = &self.setup.config;
        // The ranks of a copy decode the same rows together, and may not have the same memory free.
        let rows = rows::batch_rows(config, &self.policy, n)?;
        let rows = self.setup.ranks.tensor.gather("rows at a time", &rows)?.into_iter().min();
        Ok(RolloutConfig {
            n,
            sampling,
            max_new_tokens: config.data.max_response_length,
            min_new_tokens: 0,
            eos: self.setup.eos.clone(),
            suppress: self.never.clone(),
            focus: None,
            max_batch_rows: rows.unwrap_or(1),
            prefill_token_budget: config.rollout.prefill_token_budget,
        })
    }
}
