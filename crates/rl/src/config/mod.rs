//! The configuration of a run: TOML files composed left to right, then overrides from the command line.
//!
//! Every key is declared once, with its type, its default and its meaning; the reader, the printed file
//! ([`Config::to_toml`]) and `docs/configuration.md` ([`reference`](fn@reference)) all come from that
//! declaration. Names follow EasyR1's, without its `worker.` prefix.

mod actor;
mod algorithm;
pub(crate) mod bundles;
pub mod checks;
mod data;
mod easyr1_files;
mod error;
pub mod field;
pub(crate) mod flat;
mod model;
mod moved;
mod parallel;
mod reference;
mod resolve;
mod reward;
mod rollout;
mod schema;
pub mod section;
mod stages;
#[cfg(test)]
mod tests;
mod trainer;
mod validate;

pub use self::reward::{FunctionArguments, JudgeSection, RewardSection};
pub use actor::{Actor, GradsDtype, LrScheduler, MomentsDtype, OldLogProbs, Optim, Recompute};
pub use algorithm::Algorithm;
pub use checks::{Checks, Problem};
pub use data::Data;
pub use easyr1_files::{convert_easyr1, easyr1_message};
pub use error::ConfigError;
pub use field::Choice;
pub use flat::StageName;
pub use model::{LoraSection, Model};
pub use moved::present_key;
pub use parallel::Parallel;
pub use reference::reference;
pub(crate) use resolve::resolve_with;
pub use resolve::{Source, resolve};
pub use rollout::Rollout;
pub use schema::{override_words, schema};
pub use section::{KeyDoc, SectionDoc, Settings};
pub use stages::{RlStage, SftStage, Stage};
pub use trainer::{Backend, Dtype, Resume, SaveFormat, TrainerSection};

use crate::registry::MethodKind;
use ::data::DataSpec;
use section::{KeyError, Node};
use toml::Value;

/// The resolved configuration of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// `[model]`.
    pub model: Model,
    /// `[data]`.
    pub data: Data,
    /// `[rollout]`.
    pub rollout: Rollout,
    /// `[algorithm]`.
    pub algorithm: Algorithm,
    /// `[actor]`.
    pub actor: Actor,
    /// `[reward]`.
    pub reward: RewardSection,
    /// `[trainer]`.
    pub trainer: TrainerSection,
    /// `[parallel]`.
    pub parallel: Parallel,
    /// `[[stages]]`, as written; [`Config::stages`] says what is run.
    pub stages: Vec<Stage>,
}

impl Config {
    const SECTIONS: &'static [&'static str] =
        &["model", "data", "rollout", "algorithm", "actor", "reward", "trainer", "parallel", "stages"];

    /// The resolved file: every key with its value under its documentation. Reads back to an equal value.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        self.write("", &mut out);
        out.trim_start().to_string()
    }

    /// Every section and key, in order, those of the algorithms that this configuration knows included.
    pub(crate) fn sections(&self) -> Vec<SectionDoc> {
        let mut sections = Vec::new();
        self.describe("", &mut sections);
        for (kind, _) in self.named() {
            let (section, name) = kind.key().rsplit_once('.').unwrap_or_default();
            let header = format!("[{section}]");
            let keys = sections.iter_mut().filter(|found| found.header == header).flat_map(|found| &mut found.keys);
            for key in keys.filter(|key| key.name == name) {
                let names: Vec<String> = self.algorithm.methods.of_kind(kind).into_iter().map(field::quote).collect();
                key.kind = names.join(" | ");
                key.schema = schema::words(self.algorithm.methods.of_kind(kind));
            }
        }
        let algorithm = sections.iter_mut().filter(|found| found.header == "[algorithm]");
        for key in algorithm.flat_map(|found| &mut found.keys).filter(|key| key.name == "name") {
            key.schema = schema::words(std::iter::once("").chain(bundles::BUNDLES.iter().map(|bundle| bundle.name)));
        }
        sections
    }

    /// The keys that name an algorithm, with their values.
    fn named(&self) -> [(MethodKind, &str); 3] {
        [
            (MethodKind::Estimator, &self.algorithm.adv_estimator),
            (MethodKind::Shaping, &self.algorithm.shaping),
            (MethodKind::Loss, &self.actor.loss_type),
        ]
    }

    /// Refuses a name that no algorithm has.
    fn check_names(&self) -> Result<(), KeyError> {
        for (kind, name) in self.named() {
            let names = self.algorithm.methods.of_kind(kind);
            if !names.contains(&name) {
                return Err(KeyError::wrong(kind.key(), field::not_a_choice(name, &names)));
            }
        }
        bundles::check_name(&self.algorithm.name)
    }

    /// The stages to run: those written, or one RL stage as long as `trainer` says.
    pub fn stages(&self) -> Vec<Stage> {
        if self.stages.is_empty() { vec![Stage::Rl(RlStage::default())] } else { self.stages.clone() }
    }

    /// The training data of a stage: its own, or `data.train_files`.
    pub fn train_files<'a>(&'a self, stage: &'a Stage) -> &'a [DataSpec] {
        match stage.train_files() {
            [] => &self.data.train_files,
            own => own,
        }
    }

    /// Prompts in one optimizer step: `actor.global_batch_size`, at most `data.rollout_batch_size`.
    pub fn update_batch_size(&self) -> usize {
        self.actor.global_batch_size.min(self.data.rollout_batch_size)
    }

    /// Steps of an RL stage whose data has `epoch_len` rows an epoch: its own, the run's, or as many as the epochs
    /// have.
    pub fn rl_steps(&self, stage: &RlStage, epoch_len: usize) -> usize {
        match (stage.steps, self.trainer.max_steps) {
            (0, 0) => (self.trainer.total_epochs * epoch_len / self.data.rollout_batch_size).max(1),
            (0, max) => max,
            (own, _) => own,
        }
    }

    /// The optimizer of a stage. A supervised one has its own learning rate, warm-up and decay; the rest is
    /// `[actor.optim]`'s.
    pub fn optim(&self, stage: &Stage) -> Optim {
        let optim = self.actor.optim.clone();
        match stage {
            Stage::Rl(_) => optim,
            Stage::Sft(stage) => Optim {
                lr: stage.lr,
                lr_warmup_steps: stage.lr_warmup_steps,
                lr_warmup_ratio: 0.0,
                lr_scheduler_type: LrScheduler::Constant,
                weight_decay: stage.weight_decay,
                ..optim
            },
        }
    }

    /// Optimizer steps that a training step over so many prompts takes.
    pub fn optimizer_steps(&self, prompts: usize) -> usize {
        prompts.div_ceil(self.update_batch_size()) * self.actor.ppo_epochs
    }

    /// Packed tokens of one pass of scoring or training; 0: each group by itself.
    pub fn pass_tokens(&self) -> usize {
        if self.parallel.exact_sums { 0 } else { self.actor.micro_batch_tokens }
    }

    /// The section that `name` names.
    fn node(&mut self, name: &str) -> Option<&mut dyn NodeMut> {
        Some(match name {
            "model" => &mut self.model,
            "data" => &mut self.data,
            "rollout" => &mut self.rollout,
            "algorithm" => &mut self.algorithm,
            "actor" => &mut self.actor,
            "reward" => &mut self.reward,
            "trainer" => &mut self.trainer,
            "parallel" => &mut self.parallel,
            "stages" => &mut self.stages,
            _ => return None,
        })
    }
}

/// The half of [`Node`] that can be a trait object.
trait NodeMut {
    fn apply_value(&mut self, path: &str, value: &Value) -> Result<(), KeyError>;
    fn apply_override(&mut self, path: &str, rest: &[&str], text: &str) -> Result<(), KeyError>;
}

impl<N: Node> NodeMut for N {
    fn apply_value(&mut self, path: &str, value: &Value) -> Result<(), KeyError> {
        self.apply(path, value)
    }
    fn apply_override(&mut self, path: &str, rest: &[&str], text: &str) -> Result<(), KeyError> {
        self.apply_text(path, rest, text)
    }
}

fn unknown_section(path: &str) -> KeyError {
    KeyError::unknown(path.to_string(), Config::SECTIONS.iter().map(|name| name.to_string()).collect())
}

impl Node for Config {
    fn apply(&mut self, _path: &str, value: &Value) -> Result<(), KeyError> {
        if let Value::Table(table) = value {
            for (name, value) in table {
                self.node(name).ok_or_else(|| unknown_section(name))?.apply_value(name, value)?;
            }
        }
        Ok(())
    }

    fn apply_text(&mut self, _path: &str, rest: &[&str], text: &str) -> Result<(), KeyError> {
        let (name, below) = rest.split_first().ok_or_else(|| unknown_section(""))?;
        self.node(name).ok_or_else(|| unknown_section(&rest.join(".")))?.apply_override(name, below, text)
    }

    fn write(&self, _path: &str, out: &mut String) {
        self.model.write("model", out);
        self.data.write("data", out);
        self.rollout.write("rollout", out);
        self.algorithm.write("algorithm", out);
        self.actor.write("actor", out);
        self.reward.write("reward", out);
        self.trainer.write("trainer", out);
        self.parallel.write("parallel", out);
        self.stages.write("stages", out);
    }

    fn check(&self, _path: &str, checks: &mut checks::Checks) {
        self.model.check("model", checks);
        self.data.check("data", checks);
        self.rollout.check("rollout", checks);
        self.algorithm.check("algorithm", checks);
        self.actor.check("actor", checks);
        self.reward.check("reward", checks);
        self.trainer.check("trainer", checks);
        self.parallel.check("parallel", checks);
        self.stages.check("stages", checks);
    }

    fn describe(&self, _path: &str, out: &mut Vec<SectionDoc>) {
        self.model.describe("model", out);
        self.data.describe("data", out);
        self.rollout.describe("rollout", out);
        self.algorithm.describe("algorithm", out);
        self.actor.describe("actor", out);
        self.reward.describe("reward", out);
        self.trainer.describe("trainer", out);
        self.parallel.describe("parallel", out);
        self.stages.describe("stages", out);
    }
}
