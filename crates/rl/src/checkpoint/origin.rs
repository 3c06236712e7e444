//! What a checkpoint refers to outside of it: stages, rows, settings. They are compared by what they are (a stage by
//! its name, a row by its content) with what the configuration names now.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::config::{Config, StageName};
use crate::prompts::{DataFile, Item, Prompts};

/// Rows by which a checkpoint knows its data again.
const ROWS_KNOWN: usize = 16;

/// The configuration and the data that a checkpoint is from. An older checkpoint has none of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Every key of the configuration with its value, stages by their names.
    pub settings: BTreeMap<String, String>,
    /// All stages in their order.
    pub stages: Vec<StageName>,
    /// The files of the stage's data.
    pub data: Vec<DataFile>,
    /// Rows drawn in an epoch of it.
    pub epoch_len: usize,
    /// The last rows that were trained on: their numbers and contents.
    pub rows: Vec<KnownRow>,
    /// Folder in `reference/` of the policy that the stage began with.
    pub reference: Option<String>,
}

/// A row by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownRow {
    /// Row in the stage's data.
    pub row: usize,
    /// [`crate::prompts::Item::content`].
    pub content: u64,
}

impl Origin {
    /// What a checkpoint is to remember of configuration and data; the rows and the reference policy are its own.
    #[must_use]
    pub fn with(&self, config: &Config, prompts: Option<&Prompts>) -> Self {
        Self {
            settings: config.flat(),
            stages: StageName::of(&config.stages()),
            data: prompts.map(Prompts::sources).unwrap_or_default(),
            epoch_len: prompts.map_or(0, Prompts::epoch_len),
            rows: self.rows.clone(),
            reference: self.reference.clone(),
        }
    }

    /// Remembers rows of a complete step: the newest first, each row once.
    pub(crate) fn remember(&mut self, items: &[Item]) {
        let new = items.iter().rev().map(|item| KnownRow { row: item.row, content: item.content() });
        let mut rows: Vec<KnownRow> = new.chain(std::mem::take(&mut self.rows)).collect();
        let mut seen = BTreeSet::new();
        rows.retain(|known| seen.insert(known.row));
        rows.truncate(ROWS_KNOWN);
        self.rows = rows;
    }

    /// The index in `now` of the stage `stage`, at its step `step`: found by its name, with all stages before it done
    /// and none after it.
    ///
    /// # Errors
    /// What cannot be right, for a message that names the checkpoint.
    pub fn place(&self, stage: usize, step: u64, now: &[StageName]) -> Result<usize, String> {
        let Some(own) = self.stages.get(stage) else {
            // A checkpoint of an earlier version knows the number alone.
            return match stage < now.len() {
                true => Ok(stage),
                false => Err(format!("it stands in stage {}, the configuration has {} stages", stage + 1, now.len())),
            };
        };
        let done = &self.stages[..stage];
        let Some(index) = now.iter().position(|name| name == own) else {
            return Err(format!(
                "it stands in stage {own} at its step {step}, and the configuration has no such stage (it has {})",
                StageName::list(now)
            ));
        };
        if let Some(new) = now[..index].iter().find(|name| !done.contains(name)) {
            return Err(format!(
                "it stands in stage {own}, and stage {new} stands before that one without having been run: it never \
                 would be; put it after {own}"
            ));
        }
        if let Some(again) = now[index + 1..].iter().find(|name| done.contains(name)) {
            return Err(format!(
                "it stands in stage {own}, and stage {again} stands after that one, but has been run: it would run \
                 again; put it before {own}, drop it, or give it another name"
            ));
        }
        Ok(index)
    }

    /// Compares the data of the stage with the rows that were trained on: what has changed goes to `notes`. `begun` is
    /// whether the stage stands in the middle of an epoch.
    ///
    /// # Errors
    /// Other data in the middle of an epoch, for a message that names the checkpoint.
    pub(crate) fn compare_data(&self, begun: bool, prompts: &Prompts, notes: &mut Vec<String>) -> Result<(), String> {
        if self.data.is_empty() {
            return Ok(()); // of an earlier version
        }
        for (old, new) in std::iter::zip(&self.data, &prompts.sources()).filter(|(old, new)| old != new) {
            notes.push(format!("changed since the checkpoint: the data: {old} -> {new}"));
        }
        let differs = |known: &&KnownRow| prompts.content(known.row) != Some(known.content);
        let changed: Vec<usize> = self.rows.iter().filter(differs).map(|known| known.row).collect();
        if begun && self.epoch_len != prompts.epoch_len() {
            return Err(format!("an epoch had {} rows and has {} now", self.epoch_len, prompts.epoch_len()));
        }
        if begun && 2 * changed.len() > self.rows.len() {
            return Err(format!(
                "of the last {} rows that were trained on, {} have another problem or answer now (row {} is one)",
                self.rows.len(),
                changed.len(),
                changed[0]
            ));
        }
        if !changed.is_empty() {
            let rows = changed.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            notes.push(format!("changed since the checkpoint: problem or answer of rows {rows} of the data"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(names: &[(&str, &str)]) -> Vec<StageName> {
        names.iter().map(|(kind, name)| StageName { kind: (*kind).into(), name: (*name).into(), twin: 0 }).collect()
    }

    #[test]
    fn a_stage_is_found_by_its_name() {
        let (a, b, c, d) = (("sft", "a"), ("sft", "b"), ("rl", "c"), ("rl", "d"));
        let then = Origin { stages: stages(&[a, b, c, d]), ..Origin::default() };
        let order = |names: &[(&str, &str)]| then.place(2, 1, &stages(names));
        assert_eq!(order(&[a, b, c, d]), Ok(2));
        assert_eq!(order(&[b, c]), Ok(1), "a stage that is done may be dropped, one to come, too");
        assert_eq!(order(&[c, ("rl", "new")]), Ok(0));
        assert!(order(&[a, b, d, c]).unwrap_err().contains("\"d\" (rl) stands before"), "reversed");
        assert!(order(&[c, a]).unwrap_err().contains("would run again"), "reversed");
        assert!(order(&[a, ("sft", "new"), b, c]).unwrap_err().contains("never would be"), "inserted");
        assert!(order(&[a, b, ("rl", "other"), d]).unwrap_err().contains("no such stage"), "renamed");
        assert!(order(&[a, b, ("sft", "c"), d]).unwrap_err().contains("no such stage"), "another kind");
        let earlier = Origin::default();
        assert_eq!(earlier.place(1, 1, &stages(&[a, b])), Ok(1));
        assert!(earlier.place(2, 1, &stages(&[a, b])).unwrap_err().contains("it stands in stage 3"));
    }
}
