//! From rows of a data set to prompts of the policy. A row that cannot be used is set aside: named once, counted
//! always.

mod sizes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use ::policy::Prompt;
use comm::Ranks;
use data::{
    BadRow, Cursor, DataSpec, Dataset, EpochRows, FormatPrompt, ImageSource, Prefetcher, Processor, Sample,
    build_prompt, count_prompt_tokens,
};
use kernels::Kernels;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Stage};
use crate::dealt::{self, DealtRow};
use crate::error::TrainError;
use crate::policy::Policy;
pub use sizes::{EpochSizes, RowSize};

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
    /// Token ids of the worked response, without an end token; in supervised stages only, never empty there.
    pub solution: Option<Vec<u32>>,
    /// Name of the task.
    pub task: Option<String>,
    /// Its further columns, where a reward of the user's may look at them; empty on ranks that do not grade it.
    pub columns: BTreeMap<String, String>,
    /// The prompt.
    pub prompt: Prompt,
    /// Its pictures as they are stored, for perturbations that follow their pixels.
    pub images: Vec<ImageSource>,
    /// The rank that has the pictures; on others `images` and the prompt's pixels are empty.
    pub holder: usize,
    /// Names everything that responses depend on, where the pictures are elsewhere.
    pub known_content: Option<u64>,
}

/// Hashes parts one after the other (FNV-1a over words), each with its length, so that no two lists of parts run
/// together.
struct RowContent(u64);

impl RowContent {
    fn new() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }

    fn word(&mut self, word: u64) {
        // The rotation carries high bits down, which a product never does.
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(29);
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u64);
        text.bytes().for_each(|byte| self.word(u64::from(byte)));
    }

    /// What a row asks and what is right: the two that a reward depends on.
    fn of_row(problem: &str, answer: &str) -> u64 {
        let mut content = Self::new();
        content.text(problem);
        content.text(answer);
        content.0
    }
}

impl Item {
    /// Names problem and answer by what they are, not by where they stand.
    pub fn content(&self) -> u64 {
        RowContent::of_row(&self.problem, &self.answer)
    }

    /// Names everything that responses and their rewards depend on: problem, answer, task, the prompt's tokens and its
    /// pictures' pixels as the model sees them.
    pub(crate) fn whole_content(&self) -> u64 {
        if let Some(known) = self.known_content {
            return known;
        }
        let mut content = RowContent(self.content());
        content.text(self.task.as_deref().unwrap_or_default());
        content.word(self.prompt.input_ids.len() as u64);
        self.prompt.input_ids.iter().for_each(|id| content.word(u64::from(*id)));
        self.prompt.image_grid_thw.iter().flatten().for_each(|side| content.word(*side as u64));
        self.prompt.pixel_values.iter().for_each(|value| content.word(u64::from(value.to_bits())));
        content.0
    }

    /// Lets the pictures go to another rank.
    pub(crate) fn let_go(&mut self) {
        self.known_content = Some(self.whole_content());
        self.prompt.pixel_values = Arc::default();
        self.images.clear();
    }
}

/// A data set with everything that turns its rows into prompts.
#[derive(Debug, Clone)]
pub struct Prompts {
    dataset: Arc<Dataset>,
    encoder: Arc<Encoder>,
    ahead: Arc<Mutex<Option<Ahead>>>,
    ranks: Ranks,
}

/// Rows that are read, decoded and encoded while the trainer is busy.
struct Ahead {
    rows: Prefetcher<ReadRow>,
    /// Where the next of `rows` stands: rows that were made ahead and not taken are made again after a resume.
    next: Cursor,
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ahead").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Rows made ahead: bounds the memory of decoded pictures.
const MOST_AHEAD: usize = 64;

/// What turns samples into token ids and patches, on any thread.
#[derive(Debug)]
struct Encoder {
    processor: Arc<Processor>,
    format: Arc<FormatPrompt>,
    system: Option<String>,
    max_prompt_length: usize,
    filter_overlong: bool,
    /// What it is called in messages.
    name: &'static str,
    /// What supervised stages need of a row besides its prompt.
    supervised: Option<Supervised>,
}

/// The worked responses of a supervised stage.
#[derive(Debug)]
struct Supervised {
    /// The column, for messages.
    key: String,
    /// Longest response in tokens, its end included.
    max_tokens: usize,
}

/// Bytes that no token of a tokenizer stands for; the longest of Qwen's has 128. A text of more bytes than this for
/// each token that it may have is too long without being tokenized, which takes time and memory by its length.
const MOST_TOKEN_BYTES: usize = 512;

impl Supervised {
    /// The ids of a row's worked response, or why it has none that can be learned.
    fn ids(&self, sample: &Sample, processor: &Processor) -> Result<Vec<u32>, String> {
        let Self { key, max_tokens } = self;
        let Some(text) = sample.solution.as_deref().filter(|text| !text.trim().is_empty()) else {
            return Err(format!(
                "`{key}` is missing or empty; a supervised stage needs a worked response in each row (data.solution_key)"
            ));
        };
        let long = |what: String| {
            format!("`{key}` has {what}, more than the stage's max_response_length = {max_tokens} (with the end token)")
        };
        if text.len() > max_tokens.saturating_mul(MOST_TOKEN_BYTES) {
            return Err(long(format!("{} bytes", text.len())));
        }
        let ids = processor.encode_text(text).map_err(|error| format!("`{key}`: {error}"))?;
        match ids.len() {
            0 => Err(format!("`{key}` has no tokens")),
            tokens if tokens + 1 > *max_tokens => Err(long(format!("{tokens} tokens"))),
            _ => Ok(ids),
        }
    }
}

/// A sample with everything that needs no model.
struct EncodedRow {
    sample: Sample,
    input_ids: Vec<u32>,
    /// `[N * 1176]`, all pictures after one another.
    pixels: Vec<f32>,
    grids: Vec<[usize; 3]>,
    solution: Option<Vec<u32>>,
    /// The pictures as they stand in the prompt, one for each grid.
    images: Vec<ImageSource>,
}

/// A row, encoded; or set aside; or the end of the run.
type ReadRow = Result<Result<Box<EncodedRow>, BadRow>, TrainError>;

/// Rows set aside so far in a run, each by its file and its row there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetAside {
    rows: BTreeSet<(String, usize)>,
    /// Those of them that no log has yet.
    #[serde(skip)]
    fresh: Vec<AsideRow>,
}

/// A row that was set aside, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AsideRow {
    pub file: String,
    /// In its file, from 0.
    pub row: usize,
    pub id: String,
    pub reason: String,
}

impl SetAside {
    /// Distinct rows.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Those that were set aside since this was asked last.
    pub(crate) fn take_fresh(&mut self) -> Vec<AsideRow> {
        std::mem::take(&mut self.fresh)
    }
}

/// A file or generator of a data set, as far as one is told from another by looking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Its path, or how it is generated.
    pub name: String,
    /// Its rows.
    pub rows: usize,
    /// Bytes of a file.
    pub bytes: Option<u64>,
}

impl std::fmt::Display for DataFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {} rows", self.name, self.rows)?;
        self.bytes.map_or(Ok(()), |bytes| write!(f, " in {bytes} bytes"))
    }
}

/// Rows that are looked at for a picture before training starts.
const PICTURE_PROBES: usize = 64;

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
        Self::open_for(specs, name, config, processor, None)
    }

    /// The training data of a stage; rows of a supervised one need a worked response that can be learned.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of_stage(stage: &Stage, config: &Config, processor: Arc<Processor>) -> Result<Self, TrainError> {
        let supervised = match stage {
            Stage::Rl(_) => None,
            Stage::Sft(stage) => {
                Some(Supervised { key: config.data.solution_key.clone(), max_tokens: stage.max_response_length })
            }
        };
        Self::open_for(config.train_files(stage), "data.train_files", config, processor, supervised)
    }

    fn open_for(
        specs: &[DataSpec],
        name: &'static str,
        config: &Config,
        processor: Arc<Processor>,
        supervised: Option<Supervised>,
    ) -> Result<Self, TrainError> {
        let image_dir = (!config.data.image_dir.is_empty()).then(|| std::path::PathBuf::from(&config.data.image_dir));
        let dataset = match config.reward.is_own() {
            // A reward of the user's sees every column that is text; what cannot be is left out of its rows.
            true => data::convert::open_all(specs, config.to_keys(), image_dir.as_deref(), |_| {})?,
            false => Dataset::open(specs, &config.to_keys(), image_dir.as_deref())?,
        };
        if dataset.is_empty() {
            return Err(TrainError::Input(format!("{name}: the data has no rows")));
        }
        let encoder = Encoder {
            processor,
            format: Arc::new(FormatPrompt::new(&config.data.format_prompt)?),
            system: (!config.data.system_prompt.is_empty()).then(|| config.data.system_prompt.clone()),
            max_prompt_length: config.data.max_prompt_length,
            filter_overlong: config.data.filter_overlong_prompts,
            name,
            supervised,
        };
        let ranks = Ranks::solo();
        Ok(Self { dataset: Arc::new(dataset), encoder: Arc::new(encoder), ahead: Arc::default(), ranks })
    }

    /// The same for a run on many devices: each rank reads its share of the rows, and all have the records of all.
    #[must_use]
    pub fn dealt_to(self, ranks: &Ranks) -> Self {
        Self { ranks: ranks.clone(), ..self }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.dataset.len()
    }

    /// Whether there are no rows; never true after [`open`](Self::open).
    pub fn is_empty(&self) -> bool {
        self.dataset.is_empty()
    }

    /// Looks for a picture in rows that are spread evenly over the data; `reader` is what needs them, and `image_key`
    /// their column.
    ///
    /// # Errors
    /// None of those rows has one.
    pub fn check_pictures(&self, reader: &str, image_key: &str) -> Result<(), TrainError> {
        let step = self.len().div_ceil(PICTURE_PROBES).max(1);
        let has_picture = |row| self.dataset.get(row).is_ok_and(|sample| !sample.images.is_empty());
        if (0..self.len()).step_by(step).any(has_picture) {
            return Ok(());
        }
        Err(TrainError::Input(format!(
            "{reader} compares with a perturbed picture or with none, but no row of data.train_files was found to \
             have one (column data.image_key = \"{image_key}\"; looked at up to {PICTURE_PROBES} rows); take other \
             data or another algorithm"
        )))
    }

    /// Rows drawn in one epoch, the weights of the files included.
    pub fn epoch_len(&self) -> usize {
        Cursor::epoch_len(&*self.dataset)
    }

    /// Files and generators, with the rows and, of files, the bytes of each.
    pub fn sources(&self) -> Vec<DataFile> {
        let of = |(name, rows, _): (String, usize, _)| {
            let bytes = std::fs::metadata(&name).ok().filter(|file| file.is_file()).map(|file| file.len());
            DataFile { name, rows, bytes }
        };
        self.dataset.sources().into_iter().map(of).collect()
    }

    /// [`Item::content`] of a row; none where it cannot be read.
    pub fn content(&self, row: usize) -> Option<u64> {
        self.dataset.get(row).ok().map(|sample| RowContent::of_row(&sample.problem, &sample.answer))
    }

    /// The tokenizer and image processor.
    pub fn processor(&self) -> &Processor {
        &self.encoder.processor
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
        Ok(match self.encoder.encode(self.dataset.get(row))? {
            Ok(encoded) => encoded.item(policy),
            Err(bad) => Err(bad),
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
        let places = (0..rows.len()).filter(|place| place % self.ranks.size() == self.ranks.rank());
        let places: Vec<usize> = places.collect();
        let loaded: Vec<_> = places.par_iter().map(|&place| Ok((place, self.load(rows[place], policy)?))).collect();
        let own = loaded.into_iter().collect::<Result<_, TrainError>>()?;
        let mut items = Vec::with_capacity(rows.len());
        for row in dealt::rows(&self.ranks, own, rows.len())? {
            match row {
                Ok(item) => items.push(item),
                Err(bad) => self.set_aside(&bad, aside, note),
            }
        }
        Ok(items)
    }

    /// Gives this rank the pictures of a row that another rank has read.
    ///
    /// # Errors
    /// A row that is not what it was.
    pub(crate) fn fetch<B: Kernels, P: Policy<B>>(&self, item: &mut Item, policy: &P) -> Result<(), TrainError> {
        let reason = match self.load(item.row, policy)? {
            Ok(again) if again.prompt.input_ids == item.prompt.input_ids => {
                (item.prompt, item.images, item.known_content) = (again.prompt, again.images, None);
                return Ok(());
            }
            Ok(_) => "it is not what it was a moment ago on another rank".to_string(),
            Err(bad) => bad.to_string(),
        };
        Err(TrainError::Input(format!("{}: row {} cannot be read again: {reason}", self.encoder.name, item.row)))
    }

    /// Counts a row once in a run, though it may stand in the training and in the validation data.
    fn set_aside(&self, bad: &BadRow, aside: &mut SetAside, note: &mut dyn FnMut(String)) {
        let name = self.encoder.name;
        let place = self.dataset.place(bad.index).unwrap_or_else(|| (name.to_owned(), bad.index));
        if aside.rows.insert(place.clone()) {
            let (file, row) = place;
            aside.fresh.push(AsideRow { file, row, id: bad.id.clone(), reason: bad.reason.clone() });
            match aside.count() {
                n if n <= NAMED => note(format!("set aside: {name}: {bad}")),
                n if n == NAMED + 1 => {
                    note("further rows that are set aside are only counted (metric data/set_aside)".into())
                }
                _ => {}
            }
        }
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
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = match ahead.take() {
            Some(ahead) if ahead.next == *cursor => ahead.rows,
            _ => self.read_ahead(cursor.clone(), n),
        };
        let mut items = Vec::with_capacity(n);
        let mut barren = 0;
        while items.len() < n {
            // As many as are missing and no more: so the last one that is drawn is the last one that is taken.
            for row in self.draw(cursor, n - items.len(), &mut rows, policy)? {
                match row {
                    Ok(item) => {
                        items.push(item);
                        barren = 0;
                    }
                    Err(bad) => {
                        self.set_aside(&bad, aside, note);
                        barren += 1;
                    }
                }
                // Two epochs may have their only good row at their far ends.
                if barren >= 2 * self.epoch_len() {
                    return Err(TrainError::Input(format!(
                        "{}: none of its {} rows can be used; the reasons are above",
                        self.encoder.name,
                        self.len()
                    )));
                }
            }
        }
        *ahead = Some(Ahead { rows, next: cursor.clone() });
        Ok(items)
    }

    /// The next `count` rows of `cursor`, usable or not: this rank's come out of `rows`, the others' from theirs.
    fn draw<B: Kernels, P: Policy<B>>(
        &self,
        cursor: &mut Cursor,
        count: usize,
        rows: &mut Prefetcher<ReadRow>,
        policy: &P,
    ) -> Result<Vec<DealtRow>, TrainError> {
        let none = || TrainError::Input(format!("{}: no rows have a weight above 0", self.encoder.name));
        let (epoch_len, mut own) = (self.epoch_len(), Vec::new());
        for place in 0..count {
            let reader = reader(cursor, epoch_len, &self.ranks);
            // The cursor moves with what is taken, not with what is made ahead.
            cursor.next(&*self.dataset, 1).pop().ok_or_else(none)?;
            if reader == self.ranks.rank() {
                let (_, loaded) = rows.next().ok_or_else(none)?;
                own.push((place, loaded?.and_then(|encoded| encoded.item(policy))));
            }
        }
        Ok(dealt::rows(&self.ranks, own, count)?)
    }

    /// Starts to read this rank's rows from `cursor` on, for batches of `n`.
    fn read_ahead(&self, mut cursor: Cursor, n: usize) -> Prefetcher<ReadRow> {
        let (dataset, encoder, ranks) = (self.dataset.clone(), self.encoder.clone(), self.ranks.clone());
        let (epoch_len, n) = (self.epoch_len(), n.div_ceil(ranks.size()));
        let rows = std::iter::from_fn(move || {
            loop {
                let reader = reader(&cursor, epoch_len, &ranks);
                let row = cursor.next(&*dataset, 1).pop()?;
                if reader == ranks.rank() {
                    return Some(row);
                }
            }
        });
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Prefetcher::new(self.dataset.clone(), rows, workers, n.clamp(1, MOST_AHEAD), move |row| encoder.encode(row))
    }
}

/// The rank that reads the row at a cursor: all in turn.
fn reader(cursor: &Cursor, epoch_len: usize, ranks: &Ranks) -> usize {
    let drawn = cursor.epoch * epoch_len as u64 + cursor.position as u64;
    (drawn % ranks.size() as u64) as usize
}

impl Encoder {
    /// Tokens of a sample's prompt, counted without a pixel. The outer error ends the run, the inner one sets the row
    /// aside.
    fn prompt_tokens(&self, sample: &Sample) -> Result<Result<usize, BadRow>, TrainError> {
        let tokens = match count_prompt_tokens(sample, &self.format, &self.processor, self.system.as_deref()) {
            Ok(tokens) if tokens > self.max_prompt_length => tokens,
            counted => return Ok(counted),
        };
        let reason =
            format!("the prompt has {tokens} tokens, more than data.max_prompt_length = {}", self.max_prompt_length);
        if self.filter_overlong {
            return Ok(Err(BadRow { id: sample.id.clone(), index: sample.index, reason }));
        }
        Err(TrainError::Input(format!(
            "{}: row {}: {reason}; raise it, or set data.filter_overlong_prompts = true",
            self.name, sample.index
        )))
    }

    /// The outer error ends the run, the inner one sets the row aside.
    fn encode(&self, row: Result<Sample, BadRow>) -> ReadRow {
        let sample = match row {
            Ok(sample) => sample,
            Err(bad) => return Ok(Err(bad)),
        };
        let (row, system) = (sample.index, self.system.as_deref());
        if let Err(bad) = self.prompt_tokens(&sample)? {
            return Ok(Err(bad));
        }
        let solution = match self.supervised.as_ref().map(|wanted| wanted.ids(&sample, &self.processor)).transpose() {
            Ok(solution) => solution,
            Err(reason) => return Ok(Err(BadRow { id: sample.id, index: row, reason })),
        };
        Ok(build_prompt(&sample, &self.format, &self.processor, system).map(|encoded| {
            let grids = encoded.images.iter().map(|i| i.grid_thw).collect();
            let pixels = encoded.images.into_iter().flat_map(|i| i.values).collect();
            let images = encoded.sources.iter().map(|k| sample.images[*k].clone()).collect();
            Box::new(EncodedRow { sample, input_ids: encoded.input_ids, pixels, grids, solution, images })
        }))
    }
}

impl EncodedRow {
    fn item<B: Kernels, P: Policy<B>>(self, policy: &P) -> Result<Item, BadRow> {
        let sample = self.sample;
        match policy.prompt(self.input_ids, self.pixels, self.grids) {
            Ok(prompt) => Ok(Item {
                row: sample.index,
                id: sample.id,
                problem: sample.problem,
                answer: sample.answer,
                solution: self.solution,
                task: sample.task,
                columns: sample.extra,
                prompt,
                images: self.images,
                holder: 0,
                known_content: None,
            }),
            Err(error) => Err(BadRow { id: sample.id, index: sample.index, reason: error.to_string() }),
        }
    }
}
