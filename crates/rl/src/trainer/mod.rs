//! The trainer: stages, steps, validation, checkpoints. It knows no algorithm by name.
//!
//! | file | what |
//! |---|---|
//! | [`rl`] | a step of reinforcement learning |
//! | [`sft`] | a step of supervised warm start |
//! | [`validate`] | greedy and sampled validation |
//!
//! State changes only when a step is complete, so an interrupt or a crash at any moment loses that step and nothing else.

mod rl;
mod sft;
mod validate;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use data::{Cursor, Processor};
use model_qwen2vl::{Kernels, ModelError};
use reward::Reward;
use serde_json::{Map, Value};

use crate::checkpoint::{self, TrainerState};
use crate::config::field::Choice;
use crate::config::{Config, Resume, SftStage, Stage};
use crate::error::TrainError;
use crate::experience::Group;
use crate::optimizer::AdamW;
use crate::policy::Policy;
use crate::progress::{Phase, Progress};
use crate::prompts::{Prompts, SetAside};
use crate::rollout::RolloutConfig;
use crate::run_folder::{MetricsLog, RunFolder};
use crate::sampler::Sampling;
use crate::shaping::Stream;

/// What one training step or validation measured.
pub type Metrics = BTreeMap<String, f64>;

/// Rows that are looked at for a picture before training starts.
const PICTURE_PROBES: usize = 64;

/// How a policy's weights are read from a Hugging Face folder.
pub type Loader<P> = Box<dyn Fn(&Path) -> Result<P, ModelError>>;

/// What the trainer is made of.
pub struct Setup<P> {
    /// The resolved configuration.
    pub config: Config,
    /// Reads weights from a folder; asked for checkpoints and references.
    pub load: Loader<P>,
    /// The weights to start from, where no checkpoint is.
    pub initial: Box<dyn Fn() -> Result<P, ModelError>>,
    /// Tokenizer and image processor.
    pub processor: Arc<Processor>,
    /// The model folder, whose tokenizer files go into every checkpoint.
    pub source: PathBuf,
    /// Ids that end a response.
    pub eos: Vec<u32>,
    /// Where a person looks.
    pub progress: Progress,
    /// Set by SIGINT and SIGTERM.
    pub interrupt: Arc<AtomicBool>,
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
    state: TrainerState,
    /// Groups that dynamic sampling kept for the next batch.
    carried: Vec<Group>,
    folder: RunFolder,
    log: MetricsLog,
    reward: Reward,
    validation: Option<Prompts>,
    aside: SetAside,
    started: Instant,
    seconds_before: f64,
    saved: Option<PathBuf>,
}

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Opens the run folder, resuming where the configuration says so, and loads the weights.
    ///
    /// # Errors
    /// An occupied or locked folder, a damaged checkpoint, weights or validation data that cannot be used.
    pub fn new(setup: Setup<P>) -> Result<Self, TrainError> {
        let config = &setup.config;
        let root = config.trainer.run_dir();
        let text = config.to_toml();
        RunFolder::recover(&root);
        let from = match config.trainer.resume() {
            Resume::None => None,
            Resume::From(path) => Some(path),
            Resume::Auto => checkpoint::list(&root.join("checkpoints")).pop().map(|(_, path)| path),
        };
        let state = from.as_deref().map(checkpoint::read_state).transpose()?;
        let folder = match (&state, config.trainer.resume()) {
            (Some(state), _) => RunFolder::resume(&root, &text, state.step)?,
            (None, Resume::Auto) if RunFolder::has_run(&root) => RunFolder::resume(&root, &text, 0)?,
            (None, _) => RunFolder::create(&root, &text)?,
        };
        if let Some(state) = &state {
            checkpoint::supersede(&folder.checkpoints(), state.step)?;
        }
        let reward = Reward::new(&config.to_reward_config())?;
        let validation = match config.data.val_files.is_empty() {
            true => None,
            false => Some(Prompts::open(&config.data.val_files, "data.val_files", config, setup.processor.clone())?),
        };
        let mut policy = match &from {
            Some(path) => (setup.load)(&path.join("hf"))?,
            None => (setup.initial)()?,
        };
        let stages = config.stages();
        let state = match state {
            Some(state) if state.stage >= stages.len() => {
                return Err(TrainError::Checkpoint {
                    path: from.unwrap_or_default(),
                    reason: format!(
                        "it stands in stage {}, the configuration has {} stages",
                        state.stage + 1,
                        stages.len()
                    ),
                });
            }
            Some(state) => state,
            None => TrainerState {
                step: 0,
                stage: 0,
                stage_step: 0,
                optimizer_steps: 0,
                cursor: cursor(config, 0),
                kl_coef: config.algorithm.kl_coef,
                carried: vec![],
                stage_over: false,
                seconds: 0.0,
                validation: BTreeMap::new(),
                before: BTreeMap::new(),
                set_aside: SetAside::default(),
                unvalidated: None,
            },
        };
        let mut optimizer = optimizer_of::<B>(config, &stages[state.stage]);
        if let Some(path) = &from {
            optimizer.load(&path.join("optimizer.safetensors"), &mut policy)?;
        }
        let log = folder.metrics()?;
        let mut trainer = Self {
            policy,
            reference: None,
            optimizer,
            seconds_before: state.seconds,
            aside: state.set_aside.clone(),
            state,
            carried: vec![],
            folder,
            log,
            reward,
            validation,
            started: Instant::now(),
            saved: from.clone(),
            setup,
        };
        for warning in trainer.setup.config.warnings() {
            trainer.setup.progress.note(&format!("warning: {warning}"));
        }
        if let Some(path) = from {
            trainer.setup.progress.note(&format!("resumed at step {} from {}", trainer.state.step, path.display()));
        }
        Ok(trainer)
    }

    /// Runs all stages to their end.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] after a checkpoint; otherwise what stopped the run. Everything up to the last checkpoint is kept.
    pub fn run(mut self) -> Result<Summary, TrainError> {
        let result = self.stages();
        match result {
            Ok(()) => {}
            Err(TrainError::Interrupted) => {
                let path = self.save()?;
                self.setup.progress.finish();
                self.setup.progress.note(&format!(
                    "interrupted: checkpoint of step {} in {}",
                    self.state.step,
                    path.display()
                ));
                return Err(TrainError::Interrupted);
            }
            Err(error) => {
                self.setup.progress.finish();
                return Err(error);
            }
        }
        let path = self.save()?;
        self.setup.progress.finish();
        Ok(Summary {
            folder: self.folder.root().to_path_buf(),
            steps: self.state.step,
            before: self.state.before.clone(),
            after: self.state.validation.clone(),
            seconds: self.seconds(),
            set_aside: self.aside.count(),
            checkpoint: Some(path),
        })
    }

    /// An algorithm that compares with a perturbed picture needs pictures.
    fn check_pictures(&self) -> Result<(), TrainError> {
        let config = &self.setup.config;
        let shaping = config.to_shaping_config().build::<B>();
        let perturbed = |streams: &[Stream]| streams.iter().any(|s| matches!(s, Stream::PerturbedLogProbs { .. }));
        let name = if perturbed(&shaping.streams()) {
            format!("algorithm.shaping = \"{}\"", config.algorithm.shaping.as_str())
        } else if perturbed(&config.to_loss_config().streams()) {
            "the loss".to_string()
        } else {
            return Ok(());
        };
        for stage in config.stages().iter().filter(|s| matches!(s, Stage::Rl(_))) {
            let files = config.train_files(stage);
            let prompts = Prompts::open(files, "data.train_files", config, self.setup.processor.clone())?;
            if !prompts.have_pictures(PICTURE_PROBES) {
                return Err(TrainError::Input(format!(
                    "{name} compares with a perturbed picture, but no row of data.train_files was found to have one \
                     (column data.image_key = \"{}\"; looked at up to {PICTURE_PROBES} rows); take other data or another algorithm",
                    config.data.image_key
                )));
            }
        }
        Ok(())
    }

    fn stages(&mut self) -> Result<(), TrainError> {
        self.check_pictures()?;
        let stages = self.setup.config.stages();
        loop {
            let index = self.state.stage;
            let files = self.setup.config.train_files(&stages[index]).to_vec();
            let prompts = Prompts::open(&files, "data.train_files", &self.setup.config, self.setup.processor.clone())?;
            match &stages[index] {
                Stage::Sft(stage) => self.sft(stage, &prompts)?,
                Stage::Rl(stage) => self.rl(stage, &prompts)?,
            }
            if index + 1 == stages.len() {
                return Ok(());
            }
            self.state.stage += 1;
            self.state.stage_step = 0;
            self.state.optimizer_steps = 0;
            self.state.stage_over = false;
            self.state.cursor = cursor(&self.setup.config, self.state.stage);
            self.state.kl_coef = self.setup.config.algorithm.kl_coef;
            self.carried.clear();
            self.state.carried.clear();
            // A KL term refers to the policy that its own stage begins with.
            self.reference = None;
            // Consecutive supervised stages are one warm start: their moments go on, as only the data changes.
            if !matches!((&stages[index], &stages[index + 1]), (Stage::Sft(_), Stage::Sft(_))) {
                self.optimizer = optimizer_of(&self.setup.config, &stages[index + 1]);
            }
        }
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn interrupted(&self) -> bool {
        self.setup.interrupt.load(Ordering::Relaxed)
    }

    /// Writes a checkpoint of the last complete step, unless it exists.
    fn save(&mut self) -> Result<PathBuf, TrainError> {
        if let Some(path) = &self.saved
            && checkpoint::read_state(path).is_ok_and(|s| {
                (s.step, s.stage, &s.validation, &s.before, &s.unvalidated)
                    == (
                        self.state.step,
                        self.state.stage,
                        &self.state.validation,
                        &self.state.before,
                        &self.state.unvalidated,
                    )
            })
        {
            return Ok(path.clone());
        }
        self.setup.progress.phase(Phase::Save, 0);
        self.log.sync()?;
        self.state.carried = self.carried.iter().map(rl::carry).collect();
        self.state.seconds = self.seconds();
        self.state.set_aside = self.aside.clone();
        let path = checkpoint::save(
            &self.folder.checkpoints(),
            &self.state,
            &self.policy,
            &self.optimizer,
            &self.setup.source,
            self.setup.processor.limits(),
            self.setup.config.trainer.save_limit,
        )?;
        self.saved = Some(path.clone());
        Ok(path)
    }

    /// Validates after the update of a step. An interrupt leaves `metrics` in the state: the update is done and cannot be
    /// repeated, the validation can.
    fn validate_step(&mut self, metrics: &Metrics) -> Result<Metrics, TrainError> {
        let found = self.validate(self.state.step + 1);
        if matches!(found, Err(TrainError::Interrupted)) {
            self.state.step += 1;
            self.state.stage_step += 1;
            self.state.unvalidated =
                Some(metrics.iter().map(|(k, v)| (k.clone(), v.is_finite().then_some(*v))).collect());
        }
        found
    }

    /// What [`validate_step`](Self::validate_step) left behind when it was interrupted; the step is not complete again.
    fn unvalidated_step(&mut self) -> Option<Metrics> {
        let metrics = self.state.unvalidated.take()?;
        self.state.step -= 1;
        self.state.stage_step -= 1;
        Some(metrics.into_iter().map(|(k, v)| (k, v.unwrap_or(f64::NAN))).collect())
    }

    /// The end of a step: its line in the log, and a checkpoint where one is due.
    fn finish_step(&mut self, metrics: Metrics, stage: &str) -> Result<(), TrainError> {
        self.state.step += 1;
        self.state.stage_step += 1;
        let mut line = Map::new();
        line.insert("stage".into(), stage.into());
        line.insert("data/set_aside".into(), self.aside.count().into());
        line.extend(
            metrics.into_iter().map(|(k, v)| (k, serde_json::Number::from_f64(v).map_or(Value::Null, Value::Number))),
        );
        self.log.append(self.state.step, &line)?;
        let freq = self.setup.config.trainer.save_freq as u64;
        if freq > 0 && self.state.step.is_multiple_of(freq) {
            self.save()?;
        }
        if self.interrupted() { Err(TrainError::Interrupted) } else { Ok(()) }
    }

    /// How responses are generated with this sampling.
    fn rollout_config(&self, n: usize, sampling: Sampling) -> RolloutConfig {
        let config = &self.setup.config;
        let processor = &self.setup.processor;
        let mut suppress = self.policy.vision_token_ids();
        suppress.extend([
            processor.vision_start_id(),
            processor.vision_end_id(),
            processor.image_pad_id(),
            processor.video_pad_id(),
        ]);
        suppress.extend(processor.token_id("<|vision_pad|>"));
        suppress.sort_unstable();
        suppress.dedup();
        RolloutConfig {
            n,
            sampling,
            max_new_tokens: config.data.max_response_length,
            min_new_tokens: 0,
            eos: self.setup.eos.clone(),
            suppress,
            focus: None,
            max_batch_rows: config.rollout.max_batch_rows,
            prefill_token_budget: config.rollout.prefill_token_budget,
        }
    }
}

/// The cursor that a stage starts with; stages draw in different orders.
fn cursor(config: &Config, stage: usize) -> Cursor {
    let mut cursor = Cursor::new(config.data.seed.wrapping_add(stage as u64 * 0x9E37_79B9));
    cursor.shuffle = config.data.shuffle;
    cursor
}

fn optimizer_of<B: Kernels>(config: &Config, stage: &Stage) -> AdamW<B> {
    match stage {
        Stage::Rl(_) => AdamW::new(&config.actor.optim),
        Stage::Sft(stage) => AdamW::new(&sft_optim(config, stage)),
    }
}

/// A supervised stage has its own learning rate, warm-up and decay; the rest is `[actor.optim]`'s.
fn sft_optim(config: &Config, stage: &SftStage) -> crate::config::Optim {
    crate::config::Optim {
        lr: stage.lr,
        lr_warmup_steps: stage.lr_warmup_steps,
        lr_warmup_ratio: 0.0,
        lr_scheduler_type: crate::config::LrScheduler::Constant,
        weight_decay: stage.weight_decay,
        ..config.actor.optim.clone()
    }
}
