//! Rows of a data set with a worked response whose parts can be located.

use std::collections::BTreeMap;
use std::path::Path;

use data::{Dataset, Keys, Sample, parts};
use model_qwen2vl::{Kernels, QwenVl};
use rl::TrainError;
use rl::prompts::{Item, SetAside};

use crate::pilot::Subject;

/// A part of a worked response.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkedPart {
    /// Its token, from 0 in the response.
    pub token: usize,
    /// The response did not have it yet.
    pub fresh: bool,
    /// The first token that an exchanged picture would have had there.
    pub was: Option<u32>,
}

/// A row with its worked response.
#[derive(Debug, Clone)]
pub struct WorkedRow {
    /// The row.
    pub item: Item,
    /// The worked response `[T]`, with the end token.
    pub ids: Vec<u32>,
    /// Its parts, in order.
    pub parts: Vec<WorkedPart>,
}

/// Tokens of a worked response, and its parts.
type Located = (Vec<u32>, Vec<WorkedPart>);

/// The rows of a data set that have a worked response and a column [`parts::COLUMN`].
#[derive(Debug)]
pub struct WorkedRows<'a> {
    subject: &'a Subject,
    dataset: Dataset,
    /// Rows that may be asked for.
    count: usize,
}

impl<'a> WorkedRows<'a> {
    /// The first `limit` rows of the data that `subject` is asked; 0: all.
    ///
    /// # Errors
    /// Data that cannot be read.
    pub fn open(subject: &'a Subject, limit: usize) -> Result<Self, TrainError> {
        let config = &subject.config;
        let keys = Keys { extra: vec![parts::COLUMN.to_owned()], ..config.to_keys() };
        let folder = (!config.data.image_dir.is_empty()).then(|| Path::new(&config.data.image_dir));
        let dataset = Dataset::open(&config.data.val_files, &keys, folder)?;
        let count = if limit == 0 { dataset.len() } else { limit.min(dataset.len()) };
        Ok(Self { subject, dataset, count })
    }

    /// Rows that may be asked for, located or not.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those of `rows` that can be used and whose parts can be located.
    ///
    /// # Errors
    /// A column that is there and is no list of parts; a tokenizer that fails.
    pub fn load<B: Kernels>(
        &self,
        rows: &[usize],
        model: &QwenVl<B>,
        note: &mut dyn FnMut(String),
    ) -> Result<Vec<WorkedRow>, TrainError> {
        let mut located = BTreeMap::new();
        for row in rows {
            let Ok(sample) = self.dataset.get(*row) else { continue };
            if let Some(found) = self.located(&sample, note)? {
                located.insert(*row, found);
            }
        }
        let rows: Vec<usize> = located.keys().copied().collect();
        let items = self.subject.prompts.load_many(&rows, model, &mut SetAside::default(), note)?;
        let worked = items.into_iter().filter_map(|item| {
            let (ids, parts) = located.remove(&item.row)?;
            Some(WorkedRow { item, ids, parts })
        });
        Ok(worked.collect())
    }

    /// Tokens and parts of a row's worked response; none where it has no response or no column, or where the tokenizer
    /// does not give the text back, in which no byte of a token is known.
    fn located(&self, sample: &Sample, note: &mut dyn FnMut(String)) -> Result<Option<Located>, TrainError> {
        let processor = self.subject.prompts.processor();
        let (Some(solution), Some(column)) = (&sample.solution, sample.extra.get(parts::COLUMN)) else {
            return Ok(None);
        };
        let named = |reason: String| TrainError::Input(format!("row {}: {reason}", sample.id));
        let parts = parts::parse(column, solution.len()).map_err(named)?;
        let mut ids = processor.encode_text(solution)?;
        let text = processor.decode(&ids, true)?;
        if text != *solution {
            note(format!("row {}: the tokenizer does not give its worked response back; it is left out", sample.id));
            return Ok(None);
        }
        let mut ends = Vec::with_capacity(ids.len());
        processor.pieces(&ids, &text)?.iter().fold(0, |start, piece| {
            ends.push(start + piece.len());
            start + piece.len()
        });
        let mut located = Vec::with_capacity(parts.len());
        for part in parts {
            let token = ends.partition_point(|end| *end <= part.at);
            let was = match &part.was {
                Some(text) => processor.encode_text(text)?.first().copied(),
                None => None,
            };
            located.push(WorkedPart { token, fresh: part.fresh, was });
        }
        ids.extend(self.subject.eos.first());
        Ok((!located.is_empty()).then_some((ids, located)))
    }
}
