//! From rows of a data set to prompts of the policy. A row that cannot be used is set aside: named once, counted always.

use std::collections::BTreeSet;
use std::sync::Arc;

use data::{BadRow, Cursor, DataSpec, Dataset, EpochRows, FormatPrompt, Processor, build_prompt, count_prompt_tokens};
use model_qwen2vl::Kernels;
use model_qwen2vl::model::Prompt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::TrainError;
use crate::policy::Policy;

/// A row, ready to be answered.
#[derive(Debug, Clone)]
pub struct Item {
    /// Row index in its data set.
    pub row: usize,
    /// The row's name.
    pub id: String,
    /// The problem as it stands in the data.
    pub problem: String,
    /// The reference answer.
    pub answer: String,
    /// A worked response, for supervised stages.
    pub solution: Option<String>,
    /// Name of the task.
    pub task: Option<String>,
    /// The prompt.
    pub prompt: Prompt,
}

/// A data set with everything that turns its rows into prompts.
#[derive(Debug, Clone)]
pub struct Prompts {
    dataset: Arc<Dataset>,
    processor: Arc<Processor>,
    format: Arc<FormatPrompt>,
    system: Option<String>,
    max_prompt_length: usize,
    filter_overlong: bool,
    /// What it is called in messages.
    name: &'static str,
}

/// Rows set aside so far in a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetAside {
    rows: BTreeSet<(String, usize)>,
}

impl SetAside {
    /// Distinct rows.
    pub fn count(&self) -> usize {
        self.rows.len()
    }
}

/// Rows set aside that are named one by one; further ones are only counted.
const NAMED: usize = 10;

impl Prompts {
    /// Opens `specs`; `name` is the key they came from.
    ///
    /// # Errors
    /// Files that cannot be read, a bad template, no rows.
    pub fn open(
        specs: &[DataSpec],
        name: &'static str,
        config: &Config,
        processor: Arc<Processor>,
    ) -> Result<Self, TrainError> {
        let image_dir = (!config.data.image_dir.is_empty()).then(|| std::path::PathBuf::from(&config.data.image_dir));
        let dataset = Dataset::open(specs, &config.to_keys(), image_dir.as_deref())?;
        if dataset.is_empty() {
            return Err(TrainError::Input(format!("{name}: the data has no rows")));
        }
        Ok(Self {
            dataset: Arc::new(dataset),
            processor,
            format: Arc::new(FormatPrompt::new(&config.data.format_prompt)?),
            system: (!config.data.system_prompt.is_empty()).then(|| config.data.system_prompt.clone()),
            max_prompt_length: config.data.max_prompt_length,
            filter_overlong: config.data.filter_overlong_prompts,
            name,
        })
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.dataset.len()
    }

    /// Whether there are no rows; never true after [`open`](Self::open).
    pub fn is_empty(&self) -> bool {
        self.dataset.is_empty()
    }

    /// Whether any of up to `probes` rows, spread evenly over the data, has a picture.
    pub fn have_pictures(&self, probes: usize) -> bool {
        let step = self.len().div_ceil(probes.max(1)).max(1);
        (0..self.len()).step_by(step).any(|row| self.dataset.get(row).is_ok_and(|sample| !sample.images.is_empty()))
    }

    /// Rows drawn in one epoch, the weights of the files included.
    pub fn epoch_len(&self) -> usize {
        Cursor::epoch_len(&*self.dataset)
    }

    /// The tokenizer and image processor.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// The weights of the files, for a cursor.
    pub fn rows(&self) -> impl EpochRows + '_ {
        &*self.dataset
    }

    /// One row as a prompt. The outer error ends the run, the inner one sets the row aside.
    ///
    /// # Errors
    /// An over-long prompt while `data.filter_overlong_prompts` is off.
    pub fn load<B: Kernels, P: Policy<B>>(&self, row: usize, policy: &P) -> Result<Result<Item, BadRow>, TrainError> {
        let sample = match self.dataset.get(row) {
            Ok(sample) => sample,
            Err(bad) => return Ok(Err(bad)),
        };
        let bad = |reason: String| BadRow { id: sample.id.clone(), index: row, reason };
        let system = self.system.as_deref();
        match count_prompt_tokens(&sample, &self.format, &self.processor, system) {
            Ok(tokens) if tokens > self.max_prompt_length => {
                let reason = format!(
                    "the prompt has {tokens} tokens, more than data.max_prompt_length = {}",
                    self.max_prompt_length
                );
                if self.filter_overlong {
                    return Ok(Err(bad(reason)));
                }
                return Err(TrainError::Input(format!(
                    "{}: row {row}: {reason}; raise it, or set data.filter_overlong_prompts = true",
                    self.name
                )));
            }
            Ok(_) => {}
            Err(row) => return Ok(Err(row)),
        }
        let encoded = match build_prompt(&sample, &self.format, &self.processor, system) {
            Ok(encoded) => encoded,
            Err(row) => return Ok(Err(row)),
        };
        let grids = encoded.images.iter().map(|i| i.grid_thw).collect();
        let pixels = encoded.images.into_iter().flat_map(|i| i.values).collect();
        Ok(match policy.prompt(encoded.input_ids, pixels, grids) {
            Ok(prompt) => Ok(Item {
                row,
                id: sample.id,
                problem: sample.problem,
                answer: sample.answer,
                solution: sample.solution,
                task: sample.task,
                prompt,
            }),
            Err(error) => Err(bad(error.to_string())),
        })
    }

    /// Loads rows in parallel; those set aside go to `aside`, and the first few to `note`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_many<B: Kernels, P: Policy<B> + Sync>(
        &self,
        rows: &[usize],
        policy: &P,
        aside: &mut SetAside,
        note: &mut dyn FnMut(String),
    ) -> Result<Vec<Item>, TrainError> {
        let loaded: Vec<_> = rows.par_iter().map(|&row| self.load(row, policy)).collect();
        let mut items = Vec::with_capacity(rows.len());
        for result in loaded {
            match result? {
                Ok(item) => items.push(item),
                Err(bad) => {
                    if aside.rows.insert((self.name.to_string(), bad.index)) {
                        match aside.count() {
                            n if n <= NAMED => note(format!("set aside: {}: {bad}", self.name)),
                            n if n == NAMED + 1 => {
                                note("further rows that are set aside are only counted (metric data/set_aside)".into())
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        Ok(items)
    }

    /// The next `n` usable rows of `cursor`.
    ///
    /// # Errors
    /// As [`load`](Self::load), and a data set of which no row is usable.
    pub fn next<B: Kernels, P: Policy<B> + Sync>(
        &self,
        cursor: &mut Cursor,
        n: usize,
        policy: &P,
        aside: &mut SetAside,
        note: &mut dyn FnMut(String),
    ) -> Result<Vec<Item>, TrainError> {
        let mut items = Vec::with_capacity(n);
        let mut barren = 0;
        while items.len() < n {
            let rows = cursor.next(&*self.dataset, n - items.len());
            if rows.is_empty() {
                return Err(TrainError::Input(format!("{}: no rows have a weight above 0", self.name)));
            }
            let more = self.load_many(&rows, policy, aside, note)?;
            barren = if more.is_empty() { barren + rows.len() } else { 0 };
            if barren >= self.epoch_len() {
                return Err(TrainError::Input(format!(
                    "{}: none of its {} rows can be used; the reasons are above",
                    self.name,
                    self.len()
                )));
            }
            items.extend(more);
        }
        Ok(items)
    }
}
