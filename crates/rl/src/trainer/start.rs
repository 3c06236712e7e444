//! From a configuration to a trainer. Nothing on the disk changes before everything that can refuse has been asked:
//! configuration, data of all stages to come, weights, checkpoint, reward, pictures.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use kernels::Kernels;
use kernels::zero::ZeroLayout;
use run::record::RunRecord;

use super::{Setup, Trainer, resume};
use crate::checkpoint::{self, TrainerState};
use crate::config::{Resume, Stage};
use crate::dealt;
use crate::error::TrainError;
use crate::learn::optimizer::AdamW;
use crate::policy::Policy;
use crate::prompts::Prompts;
use crate::recipe::Recipe;
use crate::rollout::never_sampled;
use crate::run_folder::RunFolder;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Opens the run folder, resuming where the configuration says so, and loads the weights.
    ///
    /// # Errors
    /// An occupied or locked folder, a checkpoint that is damaged or does not fit the configuration, weights or data
    /// that cannot be used.
    pub fn new(setup: Setup<P>) -> Result<Self, TrainError> {
        let config = &setup.config;
        let mut notes: Vec<String> = config.warnings().iter().map(|warning| format!("warning: {warning}")).collect();
        if let Resume::From(path) = config.trainer.resume() {
            checkpoint::read_state(&path)?; // before a folder is made for a run that cannot start
        }
        let folder = match setup.ranks.world.is_first() {
            true => RunFolder::open(&config.trainer.run_dir())?,
            false => RunFolder::follow(&config.trainer.run_dir()),
        };
        let layout = ZeroLayout::of(&setup.ranks.data, &setup.ranks.tensor)?;
        let Start { from, again, mut state, policy, optimizer } = Start::find(&setup, &layout, &folder, &mut notes)?;
        let validation = match config.data.val_files.is_empty() {
            true => None,
            false => {
                let prompts = Prompts::open(&config.data.val_files, "data.val_files", config, setup.processor.clone())?;
                Some(prompts.dealt_to(&setup.ranks.data))
            }
        };
        let data = open_stages::<B, P>(&setup, state.stage)?;
        let (mut carried, mut reference) = (vec![], None);
        if let Some(path) = &from {
            let prompts = &data[&state.stage];
            resume::check_data(path, &state, prompts, &mut notes)?;
            let kept = std::mem::take(&mut state.carried);
            carried = checkpoint::restore(kept, &state.origin, prompts, &policy, config, &mut notes)?;
            dealt::take_turns(&setup.ranks.data, &mut carried);
            reference = resume::reference::<B, P>(path, &state, &folder, &setup)?;
            notes.push(format!("resumed at step {} from {}", state.step, path.display()));
        }
        // Nothing refuses from here on; what is on the disk changes when all ranks have read it.
        setup.ranks.world.barrier("all is read")?;
        let text = config.to_toml();
        match (&from, again) {
            (None, false) => folder.begin(&text)?,
            _ => folder.go_on(&text, state.step)?,
        }
        if folder.is_writer() {
            checkpoint::recover(&folder.checkpoints());
            if from.is_some() {
                checkpoint::supersede(&folder.checkpoints(), state.step)?;
            }
        }
        setup.ranks.world.barrier("the run folder is ready")?;
        let vocab = policy.head().0.vocab();
        let record = folder.record(description::<B, P>(&setup, &policy), from.is_some() || again)?;
        let mut trainer = Self {
            never: never_sampled(policy.vision_token_ids(), &setup.processor, vocab),
            policy,
            reference,
            optimizer,
            layout,
            state,
            carried,
            data,
            probe: None,
            log: folder.metrics()?,
            tokens: folder.tokens((setup.config.trainer.log_tokens_mib as u64) << 20)?,
            record,
            folder,
            validation,
            clock: Instant::now(),
            saved: from,
            writing: None,
            traffic: Default::default(),
            setup,
        };
        notes.iter().for_each(|note| trainer.setup.progress.note(note));
        Ok(trainer)
    }
}

/// What a run is, for its record; when and where it runs is added there.
fn description<B: Kernels, P: Policy<B>>(setup: &Setup<P>, policy: &P) -> RunRecord {
    let (config, device) = (&setup.config, policy.device());
    let algorithm = &config.algorithm;
    let name = match algorithm.name.is_empty() {
        true => format!("{} + {}", algorithm.adv_estimator, algorithm.shaping),
        false => algorithm.name.clone(),
    };
    RunRecord {
        backend: B::name(&device),
        device: format!("{device:?}"),
        dtype: format!("{:?}", policy.head().0.weight.dtype()).to_lowercase(),
        seed: config.trainer.seed,
        init_seed: config.model.init_seed,
        data_seed: config.data.seed,
        ranks: setup.ranks.world.size(),
        algorithm: name,
        model: config.model.path.clone(),
        ..RunRecord::default()
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
    fn find(
        setup: &Setup<P>,
        layout: &ZeroLayout,
        folder: &RunFolder,
        notes: &mut Vec<String>,
    ) -> Result<Self, TrainError> {
        let config = &setup.config;
        let wanted = match config.trainer.resume() {
            Resume::None => None,
            Resume::From(path) => Some(path),
            Resume::Auto => checkpoint::list(&folder.checkpoints()).pop().map(|(_, path)| path),
        };
        if let Some(path) = wanted {
            (setup.fits)(&checkpoint::learned(&path))?;
        }
        let loaded = match config.trainer.resume() {
            Resume::None => None,
            Resume::From(path) => Some(resume::load(&path, setup, layout)?),
            Resume::Auto => resume::newest(&folder.checkpoints(), setup, layout, notes)?,
        };
        if let Some(resume::Loaded { path, mut state, policy, optimizer }) = loaded {
            resume::reconcile(&path, &mut state, setup, notes)?;
            return Ok(Self { from: Some(path), again: false, state, policy, optimizer });
        }
        let again = config.trainer.resume() == Resume::Auto && RunFolder::has_run(folder.root());
        if !again {
            folder.vacant()?;
        }
        let optimizer =
            AdamW::new(&config.optim(&config.stages()[0])).check_device(config.trainer.check_device).over(layout);
        Ok(Self { from: None, again, state: TrainerState::beginning(config), policy: (setup.initial)()?, optimizer })
    }
}

/// The data of the stages from `first` on, by stage. Every RL stage to come has pictures where the algorithm compares
/// with them.
fn open_stages<B: Kernels, P>(setup: &Setup<P>, first: usize) -> Result<BTreeMap<usize, Prompts>, TrainError> {
    let config = &setup.config;
    let reader = Recipe::<B>::new(config)?.picture_reader();
    let mut data = BTreeMap::new();
    for (index, stage) in config.stages().iter().enumerate().skip(first) {
        let prompts = Prompts::of_stage(stage, config, setup.processor.clone())?.dealt_to(&setup.ranks.data);
        if let (Stage::Rl(_), Some(reader)) = (stage, &reader) {
            prompts.check_pictures(reader, &config.data.image_key)?;
        }
        data.insert(index, prompts);
    }
    Ok(data)
}
