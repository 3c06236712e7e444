//! `[[stages]]`: supervised warm-ups and RL, one after the other, in one run.

use ::data::DataSpec;
use toml::Value;

use super::checks::Checks;
use super::field::{Field, mismatch, not_a_choice};
use super::section::{KeyDoc, KeyError, Node, SectionDoc, join, paragraph, section, write_comment};

section! {
    /// A supervised stage: learns the `data.solution_key` column by cross-entropy.
    pub struct SftStage {
        /// Name in logs.
        name: String = String::from("sft"),
        /// Optimizer steps. Required.
        steps: usize = 0 => 1..=1_000_000_000_000,
        /// Training data of this stage. Empty: `data.train_files`.
        train_files: Vec<DataSpec> = Vec::new(),
        /// Samples in one optimizer step.
        batch_size: usize = 48 => 1..=65_536,
        /// Longest worked response in tokens, its end token included; a row with a longer one is set aside.
        max_response_length: usize = 8192 => 1..=1_048_576,
        /// Learning rate.
        lr: f64 = 1e-3 => ..=1e38,
        /// Optimizer steps of linear warm-up.
        lr_warmup_steps: usize = 0 => 0..=1_000_000_000_000,
        /// Decoupled weight decay.
        weight_decay: f64 = 0.0 => ..=1e6,
        /// Stop when the greedy accuracy on `data.val_files` reaches this. 0: run all steps.
        until_accuracy: f64 = 0.0 => ..=1.0,
        /// With `until_accuracy`: steps between two looks.
        check_freq: usize = 20 => 1..=1_000_000_000_000,
    }
}

section! {
    /// A stage of reinforcement learning, with the settings of the other sections.
    pub struct RlStage {
        /// Name in logs.
        name: String = String::from("rl"),
        /// Training steps. 0: as `trainer.max_steps` and `trainer.total_epochs` say.
        steps: usize = 0 => 0..=1_000_000_000_000,
        /// Training data of this stage. Empty: `data.train_files`.
        train_files: Vec<DataSpec> = Vec::new(),
    }
}

/// One stage of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Supervised.
    Sft(SftStage),
    /// Reinforcement learning.
    Rl(RlStage),
}

/// The key that says which kind a stage is.
const KIND: &str = "stage";
const KINDS: &[&str] = &["sft", "rl"];
const KIND_DOC: &str = "\"sft\": supervised, \"rl\": reinforcement learning. Required.";

impl Stage {
    /// The stage's name in logs.
    pub fn name(&self) -> &str {
        match self {
            Self::Sft(stage) => &stage.name,
            Self::Rl(stage) => &stage.name,
        }
    }

    /// `sft` or `rl`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sft(_) => "sft",
            Self::Rl(_) => "rl",
        }
    }

    /// The stage's own training data; empty where it has none.
    pub fn train_files(&self) -> &[DataSpec] {
        match self {
            Self::Sft(stage) => &stage.train_files,
            Self::Rl(stage) => &stage.train_files,
        }
    }

    fn from_value(path: &str, value: &Value) -> Result<Self, KeyError> {
        let Value::Table(table) = value else {
            return Err(KeyError::wrong(path, mismatch("a table [[stages]]", value)));
        };
        let place = join(path, KIND);
        let kind = table
            .get(KIND)
            .ok_or_else(|| KeyError::wrong(&place, "is missing; write stage = \"sft\" or stage = \"rl\""))?;
        let kind = String::from_value(kind).map_err(|reason| KeyError::wrong(&place, reason))?;
        let mut stage = match kind.as_str() {
            "sft" => Self::Sft(SftStage::default()),
            "rl" => Self::Rl(RlStage::default()),
            other => return Err(KeyError::wrong(&place, not_a_choice(other, KINDS))),
        };
        let mut rest = table.clone();
        rest.remove(KIND);
        match &mut stage {
            Self::Sft(stage) => stage.apply(path, &Value::Table(rest))?,
            Self::Rl(stage) => stage.apply(path, &Value::Table(rest))?,
        }
        Ok(stage)
    }
}

impl Node for Vec<Stage> {
    /// Replaces the list: stages of two files are not mixed.
    fn apply(&mut self, path: &str, value: &Value) -> Result<(), KeyError> {
        let Value::Array(stages) = value else {
            return Err(KeyError::wrong(path, mismatch("a list of tables [[stages]]", value)));
        };
        *self = stages
            .iter()
            .enumerate()
            .map(|(index, stage)| Stage::from_value(&join(path, &index.to_string()), stage))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn apply_text(&mut self, path: &str, rest: &[&str], text: &str) -> Result<(), KeyError> {
        let Some((index, below)) = rest.split_first() else {
            // `stages=[]` drops the stages of a file.
            let value = super::field::parse_value(text).unwrap_or_else(|| Value::String(text.to_string()));
            return self.apply(path, &value);
        };
        let count = self.len();
        let place = join(path, index);
        let stage = index.parse::<usize>().ok().and_then(|index| self.get_mut(index)).ok_or_else(|| {
            KeyError::wrong(
                &place,
                match count {
                    0 => "names a stage, but there are no stages".to_string(),
                    1 => "is no stage; there is one, 0".to_string(),
                    count => format!("is no stage; there are {count}, 0 to {}", count - 1),
                },
            )
        })?;
        if below == [KIND] {
            return Err(KeyError::wrong(
                &join(&place, KIND),
                "cannot be changed by an override; write the stage in a file",
            ));
        }
        match stage {
            Stage::Sft(stage) => stage.apply_text(&place, below, text),
            Stage::Rl(stage) => stage.apply_text(&place, below, text),
        }
    }

    fn write(&self, path: &str, out: &mut String) {
        for stage in self {
            let doc = match stage {
                Stage::Sft(_) => SftStage::DOC,
                Stage::Rl(_) => RlStage::DOC,
            };
            out.push('\n');
            write_comment(&paragraph(doc), out);
            out.push_str(&format!("[[{path}]]\n"));
            write_comment(KIND_DOC, out);
            out.push_str(&format!("{KIND} = \"{}\"\n", stage.kind()));
            match stage {
                Stage::Sft(stage) => stage.write_keys(out),
                Stage::Rl(stage) => stage.write_keys(out),
            }
        }
    }

    fn check(&self, path: &str, checks: &mut Checks) {
        for (index, stage) in self.iter().enumerate() {
            let path = join(path, &index.to_string());
            match stage {
                Stage::Sft(stage) => stage.check(&path, checks),
                Stage::Rl(stage) => stage.check(&path, checks),
            }
        }
    }

    fn describe(&self, path: &str, out: &mut Vec<SectionDoc>) {
        for (kind, doc, keys) in
            [("sft", SftStage::DOC, SftStage::key_docs()), ("rl", RlStage::DOC, RlStage::key_docs())]
        {
            let mut all = vec![KeyDoc {
                name: KIND,
                kind: format!("\"{kind}\""),
                default: String::new(),
                range: String::new(),
                schema: super::schema::words([kind]),
                doc: KIND_DOC.to_string(),
            }];
            all.extend(keys);
            out.push(SectionDoc { header: format!("[[{path}]]"), doc: paragraph(doc), keys: all });
        }
    }
}
