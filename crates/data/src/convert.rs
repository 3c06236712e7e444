//! One data set as another file.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::dataset::{DataSpec, Dataset};
use crate::error::{BadRow, DataError};
use crate::prefetch::Prefetcher;
use crate::sample::Keys;
use crate::source::Column;
use crate::write::{JsonImages, SampleWriter};

/// Opens a data set with all columns that can be read as text; `note` is told of those that cannot.
///
/// # Errors
/// As [`Dataset::open`].
pub fn open_all(
    specs: &[DataSpec],
    mut keys: Keys,
    image_dir: Option<&Path>,
    mut note: impl FnMut(&str),
) -> Result<Dataset, DataError> {
    let taken = [&keys.id_key, &keys.prompt_key, &keys.answer_key, &keys.task_key, &keys.solution_key, &keys.image_key]
        .map(String::clone);
    let mut left_out: Vec<(String, Column)> = Vec::new();
    // What else there is shows only once the sources are open.
    for (source, _, columns) in Dataset::open(specs, &keys, image_dir)?.sources() {
        for column in columns.into_iter().filter(|c| !c.used) {
            match taken.contains(&column.name) {
                true => left_out.push((source.clone(), column)),
                false if keys.extra.contains(&column.name) => {}
                false => keys.extra.push(column.name),
            }
        }
    }
    let dataset = Dataset::open(specs, &keys, image_dir)?;
    let mut readable = HashSet::new();
    for (source, _, columns) in dataset.sources() {
        for column in columns {
            match column.used {
                true => drop(readable.insert(column.name)),
                false if taken.contains(&column.name) => {}
                false => left_out.push((source.clone(), column)),
            }
        }
    }
    for (source, column) in left_out {
        let (name, kind) = (guard::echo(&column.name), guard::echo(&column.kind));
        note(&format!("{}: the column {name:?} ({kind}) cannot be carried over as text", guard::echo(&source)));
    }
    // A column that no source can deliver would be written empty.
    let wanted = keys.extra.len();
    keys.extra.retain(|key| readable.contains(key));
    match keys.extra.len() < wanted {
        true => Dataset::open(specs, &keys, image_dir),
        false => Ok(dataset),
    }
}

/// Whoever looks at a conversion.
pub trait ConvertWatcher {
    /// One more row is done.
    fn row(&mut self);
    /// A row that cannot be written is left out.
    fn left_out(&mut self, row: &BadRow);
}

/// Writes the first `rows` rows to a file; returns the number of rows written.
///
/// # Errors
/// A file that cannot be written.
pub fn convert(
    dataset: &Arc<Dataset>,
    rows: usize,
    output: &Path,
    images: JsonImages,
    watcher: &mut dyn ConvertWatcher,
) -> Result<usize, DataError> {
    let mut writer = SampleWriter::create(output, dataset.keys(), images)?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    for (_, row) in Prefetcher::new(dataset.clone(), 0..rows.min(dataset.len()), workers, workers * 8, |row| row) {
        watcher.row();
        let bad = match row {
            Ok(sample) => match writer.write(&sample) {
                Ok(()) => continue,
                // A picture that is gone costs its row; a disk that is full costs the file.
                Err(e @ DataError::Image { .. }) => {
                    BadRow { id: sample.id, index: sample.index, reason: e.to_string() }
                }
                Err(e) => return Err(e),
            },
            Err(bad) => bad,
        };
        watcher.left_out(&bad);
    }
    writer.finish()
}
