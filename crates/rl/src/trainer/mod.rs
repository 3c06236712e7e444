//! The trainer: stages, steps, validation, checkpoints. It knows no algorithm by name.
//!
//! | file | what |
//! |---|---|
//! | [`resume`] | whether and how a run goes on from a checkpoint |
//! | [`stages`] | the loop over stages and steps |
//! | [`rl`] | a step of reinforcement learning |
//! | [`reference`](mod@reference) | the policy that a KL term compares with |
//! | [`rollouts`] | the log of what was sampled |
//! | [`sampled`] | curves of everything that a step sampled |
//! | [`sft`] | a step of supervised warm start |
//! | [`validate`] | greedy and sampled validation |
//! | [`warnings`] | what a step's metrics say that a person should hear |
//!
//! State changes only when a step is complete, so an interrupt or a crash at any moment loses that step and nothing
//! else.

mod reference;
mod resume;
mod rl;
mod rollouts;
mod sampled;
mod sft;
mod stages;
mod validate;
mod warnings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ::policy::Companions;
use ::policy::ModelError;
use ::policy::Prompt;
use data::{Cursor, Processor};
use kernels::Kernels;
use reward::Reward;
use serde_json::{Map, Value};

use crate::checkpoint::{self, Contents, KnownRow, Origin, TrainerState};
use crate::config::{Config, Resume, SftStage, Stage};
use crate::error::TrainError;
pub use crate::experience::Metrics;
use crate::image_cache::ImageCache;
use crate::learn::optimizer::AdamW;
use crate::policy::Policy;
use crate::progress::{Phase, Progress};
use crate::prompts::{Item, Prompts, SetAside};
use crate::recipe::Recipe;
use crate::rollout::{Job, RolloutConfig, generate, never_sampled};
use crate::run_folder::{MetricsLog, RunFolder};
use crate::sampler::Sampling;
use crate::shaping::Stream;
use crate::trajectory::ScoredGroup;
use resume::Loaded;

/// Rows by which a checkpoint knows its data again.
const ROWS_KNOWN: usize = 16;

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
    validation: Option<Prompts>,
    /// Since when `state.seconds` has not been counted on.
    clock: Instant,
    saved: Option<PathBuf>,
}

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Opens the run folder, resuming where the configuration says so, and loads the weights. Nothing on the disk
    /// changes before everything that can refuse has been asked: configuration, data of all stages to come, weights,
    /// checkpoint, reward, pictures.
    ///
    /// # Errors
    /// An occupied or locked folder, a checkpoint that is damaged or does not fit the configuration, weights or data
    /// that cannot be used.
    pub fn new(setup: Setup<P>) -> Result<Self, TrainError> {
        let config = &setup.config;
        let root = config.trainer.run_dir();
        let mut notes: Vec<String> = config.warnings().iter().map(|warning| format!("warning: {warning}")).collect();
        if let Resume::From(path) = config.trainer.resume() {
            checkpoint::read_state(&path)?; // before a folder is made for a run that cannot start
        }
        let folder = RunFolder::open(&root)?;
        let Start { from, again, mut state, policy, optimizer } = Start::find(&setup, &folder, &mut notes)?;
        let stages = config.stages();
        let validation = match config.data.val_files.is_empty() {
            true => None,
            false => Some(Prompts::open(&config.data.val_files, "data.val_files", config, setup.processor.clone())?),
        };
        let data = open_stages::<B>(config, &stages, state.stage, &setup.processor)?;
        let (mut carried, mut reference) = (vec![], None);
        if let Some(path) = &from {
            let prompts = &data[&state.stage];
            resume::check_data(path, &state, prompts, &mut notes)?;
            carried = resume::restore_carried(&mut state, prompts, &policy, config, &mut notes)?;
            if matches!(stages[state.stage], Stage::Rl(_))
                && Recipe::<B>::new(config)?.wants_reference()
                && state.stage_step > 0
            {
                let own = root.join("reference").join(reference::reference_name(&state));
                reference = Some(resume::load_reference(&own, path, &setup)?);
            }
            notes.push(format!("resumed at step {} from {}", state.step, path.display()));
        }
        // Nothing refuses from here on.
        let text = config.to_toml();
        match (&from, again) {
            (None, false) => folder.begin(&text)?,
            _ => folder.go_on(&text, state.step)?,
        }
        checkpoint::recover(&folder.checkpoints());
        if from.is_some() {
            checkpoint::supersede(&folder.checkpoints(), state.step)?;
        }
        let vocab = policy.head().0.dims()[0];
        let log = folder.metrics()?;
        let mut trainer = Self {
            never: never_sampled(policy.vision_token_ids(), &setup.processor, vocab),
            policy,
            reference,
            optimizer,
            state,
            carried,
            data,
            probe: None,
            folder,
            log,
            validation,
            clock: Instant::now(),
            saved: from,
            setup,
        };
        for note in notes {
            trainer.setup.progress.note(&note);
        }
        Ok(trainer)
    }

    /// Runs all stages to their end.
    ///
    /// # Errors
    /// [`TrainError::Interrupted`] after a checkpoint; otherwise what stopped the run. Everything up to the last
    /// checkpoint is kept.
    pub fn run(mut self) -> Result<Summary, TrainError> {
        let result = self.stages();
        match result {
            Ok(()) => {}
            Err(TrainError::Interrupted) => {
                let path = self.save();
                self.setup.progress.finish();
                let path = path?;
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
        let path = self.save();
        self.setup.progress.finish();
        let path = path?;
        self.tick();
        Ok(Summary {
            folder: self.folder.root().to_path_buf(),
            steps: self.state.step,
            before: self.state.before.clone(),
            after: self.state.validation.clone(),
            seconds: self.state.seconds,
            set_aside: self.state.set_aside.count(),
            checkpoint: Some(path),
        })
    }

    /// Counts on the seconds of training.
    fn tick(&mut self) {
        self.state.seconds += self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
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
        self.tick();
        let prompts = self.data.get(&self.state.stage);
        let state = TrainerState {
            carried: self.carried.iter().map(rl::carry).collect(),
            origin: resume::origin(&self.setup.config, prompts, &self.state.origin),
            ..self.state.clone()
        };
        let contents = Contents {
            state: &state,
            policy: &self.policy,
            optimizer: &self.optimizer,
            companions: &self.setup.companions,
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
        let config = RolloutConfig { max_new_tokens: 1, ..self.rollout_config(1, Sampling::greedy()) };
        // The run's own flag may be set: a checkpoint is what an interrupt waits for.
        let (never, none) = (AtomicBool::new(false), &mut ImageCache::default());
        let (responses, _) = generate(&self.policy, &[Job { prompt, key: 0 }], &config, none, &never, |_, _, _| {})?;
        match responses.iter().flatten().flat_map(|r| &r.log_probs).all(|p| p.is_finite()) {
            true => Ok(()),
            false => Err(self.diverged("the weights are finite, the model's outputs are not".into())),
        }
    }

    /// The error of a run whose policy is no use any more: from where to go on, and with which change.
    fn diverged(&self, what: String) -> TrainError {
        let config = &self.setup.config;
        let (key, lr) = match &config.stages()[self.state.stage] {
            Stage::Rl(_) => ("actor.optim.lr".to_string(), config.actor.optim.lr),
            Stage::Sft(stage) => (format!("stages.{}.lr", self.state.stage), stage.lr),
        };
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

    /// Remembers rows of a complete step, for its checkpoint.
    fn looked_at(&mut self, items: &[Item]) {
        if let Some(item) = items.first() {
            self.probe = Some(item.prompt.clone());
        }
        let known = items.iter().rev().map(|item| KnownRow { row: item.row, content: item.content() });
        // The newest first, each row once.
        let mut rows: Vec<KnownRow> = known.chain(std::mem::take(&mut self.state.origin.rows)).collect();
        let mut seen = std::collections::BTreeSet::new();
        rows.retain(|known| seen.insert(known.row));
        rows.truncate(ROWS_KNOWN);
        self.state.origin.rows = rows;
    }

    /// Validates after the update of a step. An interrupt leaves `metrics` in the state: the update is done and cannot
    /// be repeated, the validation can.
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
        line.insert("data/set_aside".into(), self.state.set_aside.count().into());
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
        RolloutConfig {
            n,
            sampling,
            max_new_tokens: config.data.max_response_length,
            min_new_tokens: 0,
            eos: self.setup.eos.clone(),
            suppress: self.never.clone(),
            focus: None,
            max_batch_rows: config.rollout.max_batch_rows,
            prefill_token_budget: config.rollout.prefill_token_budget,
        }
    }
}

/// Where a run begins.
fn beginning(config: &Config) -> TrainerState {
    TrainerState {
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
        origin: Origin::default(),
    }
}

/// What a run starts from.
struct Start<B: Kernels, P> {
    /// The checkpoint; none at the beginning.
    from: Option<PathBuf>,
    /// A run that was killed before its first checkpoint begins again.
    again: bool,
    state: TrainerState,
    policy: P,
    optimizer: AdamW<B>,
}

impl<B: Kernels, P: Policy<B>> Start<B, P> {
    /// The checkpoint that the configuration names or the newest that can be read, brought to agree with the
    /// configuration; or the beginning.
    fn find(setup: &Setup<P>, folder: &RunFolder, notes: &mut Vec<String>) -> Result<Self, TrainError> {
        let config = &setup.config;
        let loaded = match config.trainer.resume() {
            Resume::None => None,
            Resume::From(path) => Some(resume::load(&path, setup)?),
            Resume::Auto => resume::newest(&folder.checkpoints(), setup, notes)?,
        };
        if let Some(Loaded { path, mut state, policy, optimizer }) = loaded {
            resume::reconcile(&path, &mut state, setup, notes)?;
            return Ok(Self { from: Some(path), again: false, state, policy, optimizer });
        }
        let again = config.trainer.resume() == Resume::Auto && RunFolder::has_run(folder.root());
        if !again {
            folder.vacant()?;
        }
        let optimizer = optimizer_of(config, &config.stages()[0]);
        Ok(Self { from: None, again, state: beginning(config), policy: (setup.initial)()?, optimizer })
    }
}

/// The data of the stages from `first` on, by stage.
fn open_stages<B: Kernels>(
    config: &Config,
    stages: &[Stage],
    first: usize,
    processor: &Arc<Processor>,
) -> Result<BTreeMap<usize, Prompts>, TrainError> {
    let mut data = BTreeMap::new();
    for (index, stage) in stages.iter().enumerate().skip(first) {
        data.insert(index, Prompts::of_stage(stage, config, processor.clone())?);
    }
    check_pictures::<B>(config, stages, &data)?;
    Ok(data)
}

/// An algorithm that compares with a perturbed picture, or with none, needs pictures, in every RL stage to come.
fn check_pictures<B: Kernels>(
    config: &Config,
    stages: &[Stage],
    data: &BTreeMap<usize, Prompts>,
) -> Result<(), TrainError> {
    let recipe = Recipe::<B>::new(config)?;
    let compares = |streams: &[Stream]| streams.iter().any(Stream::compares_pictures);
    let name = if compares(&recipe.shaping.streams()) {
        format!("algorithm.shaping = \"{}\"", config.algorithm.shaping)
    } else if compares(&recipe.loss.streams()) {
        "the loss".to_string()
    } else {
        return Ok(());
    };
    for (_, prompts) in data.iter().filter(|(index, _)| matches!(stages[**index], Stage::Rl(_))) {
        if !prompts.have_pictures(PICTURE_PROBES) {
            return Err(TrainError::Input(format!(
                "{name} compares with a perturbed picture or with none, but no row of data.train_files was found \
                 to have one (column data.image_key = \"{}\"; looked at up to {PICTURE_PROBES} rows); take other \
                 data or another algorithm",
                config.data.image_key
            )));
        }
    }
    Ok(())
}

/// The cursor that a stage starts with; stages draw in different orders.
fn cursor(config: &Config, stage: usize) -> Cursor {
    let mut cursor = Cursor::new(crate::random_keys::stage_seed(config.data.seed, stage));
    cursor.shuffle = config.data.shuffle;
    cursor
}

fn optimizer_of<B: Kernels>(config: &Config, stage: &Stage) -> AdamW<B> {
    let optimizer = match stage {
        Stage::Rl(_) => AdamW::new(&config.actor.optim),
        Stage::Sft(stage) => AdamW::new(&sft_optim(config, stage)),
    };
    optimizer.check_device(config.trainer.check_device)
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
