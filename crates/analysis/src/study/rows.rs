//! The file that names the rows and tables of a study.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::gate::GateSpec;
use super::outcomes::OutcomesSpec;
use super::{StudyError, WARM};

/// Each seed is a run of every row.
const MOST_SEEDS: usize = 1000;

/// Rows, tables, seeds, and what the quick form takes of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsFile {
    /// The row that paired tests compare with.
    pub reference: String,
    /// Warm starts; every row runs on each, or on the first ones where it says how many.
    pub seeds: usize,
    /// The quick form.
    pub quick: Option<Quick>,
    /// What is trained.
    pub rows: Vec<StudyRow>,
    /// What is compared.
    pub tables: Vec<Table>,
    /// What is measured of each run's final weights; nothing but its own validation without it.
    pub outcomes: Option<OutcomesSpec>,
    /// What the warm start has to show before any row runs; nothing without it.
    pub gate: Option<GateSpec>,
    /// The comparisons that the study was made for; they need outcomes.
    pub comparisons: Option<RowComparisons>,
    /// Markdown before the figures of the report. Its first paragraph is the question, which the comparisons' answer in
    /// short follows; the others are the design.
    #[serde(default)]
    pub preface: String,
    /// Markdown behind them: what they do not show.
    #[serde(default)]
    pub closing: String,
}

/// One row against some others, all read together.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowComparisons {
    /// The row in question.
    pub row: String,
    /// What it is compared with; Holm's correction is over these.
    pub against: Vec<String>,
    /// Rows whose accuracies differ by less are equivalent, as a share (0.02: 2 points).
    pub margin: f64,
    /// p below which a test counts; lower than 0.05 where results were looked at before all seeds had run.
    #[serde(default = "level")]
    pub level: f64,
}

fn level() -> f64 {
    0.05
}

/// The quick form of a study.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quick {
    /// Warm starts.
    pub seeds: usize,
    /// Names of the rows that it keeps.
    pub rows: Vec<String>,
    /// Settings of all its runs, warm starts included.
    #[serde(default)]
    pub set: Vec<String>,
    /// Outcomes in its stead; without it those of the whole study.
    pub outcomes: Option<OutcomesSpec>,
    /// A gate in its stead; without it that of the whole study.
    pub gate: Option<GateSpec>,
}

/// A row: settings in which it differs from the base.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyRow {
    /// Name in folders: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// Name in tables.
    pub label: String,
    /// `section.key=value`, as on the command line of `train`.
    #[serde(default)]
    pub set: Vec<String>,
    /// It runs on the first so many seeds; without it on all.
    pub seeds: Option<usize>,
}

/// Rows under one heading.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Name in files.
    pub name: String,
    /// Heading.
    pub title: String,
    /// Names of its rows, in order.
    pub rows: Vec<String>,
    /// For a sweep: the key that is varied; its values become a plot's axis.
    #[serde(default)]
    pub key: Option<String>,
}

impl RowsFile {
    /// Reads the text of the file `name`.
    ///
    /// # Errors
    /// Syntax, names that are missing, doubled or unfit for a folder.
    pub fn parse(name: &str, text: &str) -> Result<Self, StudyError> {
        let fail = |reason: String| StudyError::Rows { name: name.to_string(), reason };
        let file: Self = toml::from_str(text).map_err(|e| fail(e.to_string()))?;
        file.check().map_err(fail)?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for row in &self.rows {
            let fit = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            if row.name.is_empty() || row.name.starts_with('.') || !row.name.chars().all(fit) {
                return Err(format!("row {:?}: a name has letters, digits, `_`, `-` and `.`", row.name));
            }
            if row.name == WARM {
                return Err(format!("row {WARM:?}: this name is the warm start's"));
            }
            if !names.insert(row.name.as_str()) {
                return Err(format!("row {:?} is there twice", row.name));
            }
            if let Some(seeds) = row.seeds.filter(|seeds| !(1..=self.seeds).contains(seeds)) {
                return Err(format!("row {:?}: seeds is {seeds}; the study has {}", row.name, self.seeds));
            }
        }
        let known = |name: &str, place: &str| match names.contains(name) {
            true => Ok(()),
            false => Err(format!("{place} names the row {name:?}, which is not among the rows")),
        };
        known(&self.reference, "reference")?;
        for table in &self.tables {
            table.rows.iter().try_for_each(|row| known(row, &format!("table {:?}", table.name)))?;
        }
        if let Some(comparisons) = &self.comparisons {
            known(&comparisons.row, "comparisons")?;
            comparisons.against.iter().try_for_each(|row| known(row, "comparisons"))?;
            if self.outcomes.is_none() {
                return Err("comparisons need [outcomes]: answers to the same items".into());
            }
            if !(comparisons.level > 0.0 && comparisons.level < 1.0) {
                return Err(format!("comparisons: level is {}; it lies between 0 and 1", comparisons.level));
            }
        }
        for gate in self.gate.iter().chain(self.quick.iter().filter_map(|q| q.gate.as_ref())) {
            gate.check()?;
            if self.outcomes.is_none() {
                return Err("a gate needs [outcomes]: it is decided by them".into());
            }
        }
        let quick = self.quick.as_ref();
        quick.iter().flat_map(|q| &q.rows).try_for_each(|row| known(row, "quick"))?;
        if quick.is_some_and(|q| !q.rows.contains(&self.reference)) {
            return Err(format!("quick leaves out the reference {:?}", self.reference));
        }
        if self.seeds > MOST_SEEDS || quick.is_some_and(|q| q.seeds > MOST_SEEDS) {
            return Err(format!("seeds is {}; a study has at most {MOST_SEEDS}", self.seeds));
        }
        if self.seeds == 0 || quick.is_some_and(|q| q.seeds == 0) {
            return Err("seeds is 0; a study needs at least one".into());
        }
        Ok(())
    }

    /// Keeps the rows named, and of each table what is left of it.
    ///
    /// # Errors
    /// A name that is no row's, or a choice without the reference.
    pub fn keep(&mut self, names: &[String]) -> Result<(), String> {
        if let Some(unknown) = names.iter().find(|n| !self.rows.iter().any(|r| r.name == **n)) {
            let all: Vec<&str> = self.rows.iter().map(|r| r.name.as_str()).collect();
            return Err(format!("there is no row {unknown:?}; there are {}", all.join(", ")));
        }
        if !names.contains(&self.reference) {
            return Err(format!("paired tests need the row {:?}; name it, too", self.reference));
        }
        self.rows.retain(|r| names.contains(&r.name));
        for table in &mut self.tables {
            table.rows.retain(|r| names.contains(r));
        }
        if let Some(comparisons) = &mut self.comparisons {
            comparisons.against.retain(|r| names.contains(r));
        }
        if self.comparisons.as_ref().is_some_and(|c| !names.contains(&c.row) || c.against.is_empty()) {
            self.comparisons = None;
        }
        // A table of one row compares nothing.
        self.tables.retain(|t| t.rows.len() > 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        reference = "a"
        seeds = 2
        rows = [{ name = "a", label = "A" }, { name = "b", label = "B", set = ["rollout.n=4"] }]
        tables = [{ name = "t", title = "T", rows = ["a", "b"] }]
    "#;

    #[test]
    fn bad_files_are_refused() {
        assert!(RowsFile::parse("f", FILE).is_ok());
        for (from, to, expected) in [
            ("seeds = 2", "seeds = 0", "seeds is 0"),
            ("seeds = 2", "seed = 2", "unknown field"),
            ("label = \"B\"", "label = \"B\", seeds = 3", "row \"b\": seeds is 3; the study has 2"),
            ("label = \"A\"", "label = \"A\", seeds = 0", "row \"a\": seeds is 0"),
            ("reference = \"a\"", "reference = \"c\"", "reference names the row \"c\""),
            ("rows = [\"a\", \"b\"]", "rows = [\"a\", \"x\"]", "table \"t\" names the row \"x\""),
            ("name = \"b\"", "name = \"a\"", "twice"),
            ("name = \"b\"", "name = \"../b\"", "a name has"),
            ("name = \"b\"", "name = \"warm\"", "warm start's"),
        ] {
            let error = RowsFile::parse("f", &FILE.replace(from, to)).unwrap_err().to_string();
            assert!(error.starts_with("f: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_choice_keeps_its_tables() {
        let mut file = RowsFile::parse("f", FILE).unwrap();
        assert!(file.keep(&["c".into()]).unwrap_err().contains("there are a, b"));
        assert!(file.keep(&["b".into()]).unwrap_err().contains("\"a\""));
        file.keep(&["a".into()]).unwrap();
        assert!(file.rows.len() == 1 && file.tables.is_empty());
    }
}
