//! Several sources as one indexed list of samples, read lazily.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::cursor::{EpochPart, EpochRows};
use crate::error::{BadRow, DataError};
use crate::prompt;
use crate::sample::{ImageSource, Keys, Sample};
use crate::source::{self, Column, RawRow, RowSource};

/// One entry of `data.train_files`: a spec string, or one with a weight.
///
/// Specs: a `.parquet`, `.jsonl` or `.json` file; a folder; a glob; any of these with `@split`;
/// `toy:NAME?key=value&...`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DataSpec {
    /// `"train.parquet"`.
    Path(String),
    /// `{ path = "train.parquet", weight = 2.0 }`.
    Weighted(WeightedSpec),
}

/// The long form of [`DataSpec`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedSpec {
    /// The spec string.
    pub path: String,
    /// Times that each row is seen in an epoch.
    #[serde(default = "one")]
    pub weight: f64,
}

fn one() -> f64 {
    1.0
}

impl DataSpec {
    /// The spec string.
    pub fn path(&self) -> &str {
        match self {
            Self::Path(path) => path,
            Self::Weighted(spec) => &spec.path,
        }
    }

    /// Times that each row is seen in an epoch.
    pub fn weight(&self) -> f64 {
        match self {
            Self::Path(_) => 1.0,
            Self::Weighted(spec) => spec.weight,
        }
    }
}

impl From<&str> for DataSpec {
    fn from(path: &str) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<String> for DataSpec {
    fn from(path: String) -> Self {
        Self::Path(path)
    }
}

/// Ids that name more than one row, and how many rows they name.
struct Repeated {
    ids: HashSet<String>,
    rows: usize,
}

struct DatasetPart {
    source: Arc<dyn RowSource>,
    start: usize,
}

/// Times that a row may be seen in an epoch.
pub const LARGEST_WEIGHT: f64 = 1e6;
/// Rows of one epoch, weights included: every product of them with epochs and responses stays within 64 bits.
const LARGEST_EPOCH: f64 = 1e12;

/// Rows of one or several sources. `Send + Sync`; a row is read when it is asked for.
pub struct Dataset {
    parts: Vec<DatasetPart>,
    epoch: Vec<EpochPart>,
    total: usize,
    keys: Keys,
    repeated_ids: OnceLock<Repeated>,
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.parts.iter().map(|p| p.source.name()).collect();
        f.debug_struct("Dataset").field("sources", &names).field("len", &self.total).finish()
    }
}

impl Dataset {
    /// Opens every source without reading rows: parquet footers, line offsets, toy parameters.
    ///
    /// Image paths in a source are relative to `image_dir`, or to the source's own folder when it is `None`.
    ///
    /// # Errors
    /// A spec that names nothing, an unreadable or empty file, a file without the columns that `keys` names.
    pub fn open(specs: &[DataSpec], keys: &Keys, image_dir: Option<&Path>) -> Result<Self, DataError> {
        if specs.is_empty() {
            return Err(DataError::spec("", "no data source is given; name a file, a folder or toy:NAME"));
        }
        let mut parts = Vec::new();
        let mut epoch = Vec::new();
        let mut total = 0;
        for spec in specs {
            let weight = spec.weight();
            if !(0.0..=LARGEST_WEIGHT).contains(&weight) {
                let reason = format!("weight {weight} must be a number of at least 0 and at most {LARGEST_WEIGHT}");
                return Err(DataError::spec(spec.path(), reason));
            }
            let start = total;
            for source in source::open(spec.path(), keys, image_dir)? {
                let len = source.len();
                parts.push(DatasetPart { source, start: total });
                total += len;
            }
            if (total - start) as f64 * weight > LARGEST_EPOCH {
                let reason =
                    format!("{} rows with weight {weight} are more than {LARGEST_EPOCH} an epoch", total - start);
                return Err(DataError::spec(spec.path(), reason));
            }
            epoch.push(EpochPart { start, len: total - start, weight });
        }
        Ok(Self { parts, epoch, total, keys: keys.clone(), repeated_ids: OnceLock::new() })
    }

    /// Rows, weights not counted.
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The names of the columns that were looked for.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Name, rows and columns of each file or generator, in row order.
    pub fn sources(&self) -> Vec<(String, usize, Vec<Column>)> {
        self.parts.iter().map(|p| (p.source.name(), p.source.len(), p.source.columns())).collect()
    }

    /// Row `index`.
    ///
    /// # Errors
    /// A row without a problem, with neither answer nor solution, or with an image cell that makes no sense.
    pub fn get(&self, index: usize) -> Result<Sample, BadRow> {
        let Some((part, row)) = self.locate(index) else {
            return Err(BadRow {
                id: index.to_string(),
                index,
                reason: format!("row {index} does not exist; there are {} rows", self.total),
            });
        };
        self.sample(index, part.source.row(row))
    }

    /// Several rows, in the order asked for. Rows of one parquet row group are read together, so that a shuffled batch
    /// costs one pass over the groups it touches.
    pub fn get_many(&self, indices: &[usize]) -> Vec<Result<Sample, BadRow>> {
        let mut order: Vec<usize> = (0..indices.len()).collect();
        order.sort_by_key(|&k| indices[k]);
        let mut out: Vec<Option<Result<Sample, BadRow>>> = indices.iter().map(|_| None).collect();
        let mut rest = &order[..];
        while let Some(&first) = rest.first() {
            let Some((part, _)) = self.locate(indices[first]) else {
                out[first] = Some(self.get(indices[first]));
                rest = &rest[1..];
                continue;
            };
            let end = part.start + part.source.len();
            let n = rest.iter().take_while(|&&k| indices[k] < end).count();
            let rows: Vec<usize> = rest[..n].iter().map(|&k| indices[k] - part.start).collect();
            for (&k, row) in rest[..n].iter().zip(part.source.rows(&rows)) {
                out[k] = Some(self.sample(indices[k], row));
            }
            rest = &rest[n..];
        }
        out.into_iter().zip(indices).map(|(row, &i)| row.unwrap_or_else(|| self.get(i))).collect()
    }

    /// The file or generator of row `index`, and the row there: the same row of the same file in every data set.
    pub fn place(&self, index: usize) -> Option<(String, usize)> {
        self.locate(index).map(|(part, row)| (part.source.name(), row))
    }

    /// Where row `index` stands, for a person: `FILE line 8`, or where there are no lines `FILE row 7, from 0`.
    pub fn place_text(&self, index: usize) -> String {
        match self.locate(index) {
            None => format!("row {index}, from 0"),
            Some((part, row)) => match part.source.line(row) {
                Some(line) => format!("{} line {line}", part.source.name()),
                None => format!("{} row {row}, from 0", part.source.name()),
            },
        }
    }

    fn locate(&self, index: usize) -> Option<(&DatasetPart, usize)> {
        if index >= self.total {
            return None;
        }
        let k = self.parts.partition_point(|p| p.start <= index) - 1;
        Some((&self.parts[k], index - self.parts[k].start))
    }

    fn sample(&self, index: usize, row: Result<RawRow, String>) -> Result<Sample, BadRow> {
        let bad =
            |id: Option<String>, reason: String| BadRow { id: id.unwrap_or_else(|| index.to_string()), index, reason };
        let row = row.map_err(|reason| bad(None, reason))?;
        let id = row.id.filter(|id| is_name(id) && !self.repeated().ids.contains(id));
        let Some(problem) = row.problem else {
            return Err(bad(id, format!("`{}` is missing or null", self.keys.prompt_key)));
        };
        if row.answer.is_none() && row.solution.is_none() {
            return Err(bad(id, format!("`{}` is missing or null", self.keys.answer_key)));
        }
        let images = match row.images {
            Ok(images) => images,
            Err(reason) => return Err(bad(id, format!("`{}`: {reason}", self.keys.image_key))),
        };
        let (mut problem, mut extra) = (problem, row.extra);
        for text in std::iter::once(&mut problem).chain(extra.values_mut()) {
            match without_holes(text, &images) {
                Ok(None) => {}
                Ok(Some(changed)) => *text = changed,
                Err(reason) => return Err(bad(id, reason)),
            }
        }
        let images = images.into_iter().flatten().collect();
        Ok(Sample {
            id: id.unwrap_or_else(|| index.to_string()),
            index,
            problem,
            answer: row.answer.unwrap_or_default(),
            images,
            task: row.task,
            solution: row.solution,
            extra,
        })
    }

    /// Rows whose id names another row as well. They are named by their row index instead. Reads the id column once.
    pub fn rows_with_repeated_ids(&self) -> usize {
        self.repeated().rows
    }

    /// Ids that name more than one row. Reads the id column once, when the first row is read.
    fn repeated(&self) -> &Repeated {
        self.repeated_ids.get_or_init(|| {
            let mut seen = HashSet::new();
            let mut repeated = Repeated { ids: HashSet::new(), rows: 0 };
            for id in self.parts.iter().flat_map(|p| p.source.ids()).flatten().filter(|id| is_name(id)) {
                if repeated.ids.contains(&id) {
                    repeated.rows += 1;
                    continue;
                }
                if let Some(id) = seen.replace(id) {
                    repeated.ids.insert(id);
                    repeated.rows += 2;
                }
            }
            repeated
        })
    }
}

/// A text whose placeholders count the pictures that are there, if nulls stand between these; nothing where it stays as
/// it is.
fn without_holes(text: &str, images: &[Option<ImageSource>]) -> Result<Option<String>, String> {
    if images.iter().all(Option::is_some) || !prompt::names_pictures(text) {
        return Ok(None);
    }
    let renumber = |number: usize| match number.checked_sub(1).and_then(|k| images.get(k)) {
        Some(Some(_)) => Ok(images[..number].iter().flatten().count()),
        Some(None) => Err(format!("placeholder count differs: image {number} is named, but it is null")),
        // Said of the text that it is part of in the end.
        None => Ok(number),
    };
    prompt::renumbered(text, renumber).map(Some)
}

/// Whether an id can name a row: it is kept for every row, and printed.
pub(crate) fn is_name(id: &str) -> bool {
    id.len() as u64 <= guard::limits().id_bytes.value
}

impl EpochRows for Dataset {
    fn epoch_parts(&self) -> Vec<EpochPart> {
        self.epoch.clone()
    }
}
