//! Parquet: opened by its footer, read row by row.
//!
//! A small row group is decoded whole and kept (least recently used out, within the limit `parquet_cache_bytes`); of a
//! large one only the pages with the wanted rows are read, by the file's page index or by one found at the first touch
//! ([`super::pages`]). Only the columns that [`Keys`] names are ever touched.
//!
//! Texts and bytes are decoded to views: a value that a dictionary holds once and a thousand rows name is in memory
//! once, so that the size of a group in memory follows from its size in the file, and the cache is charged with what it
//! really holds.

use std::collections::VecDeque;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema};
use guard::limits;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};

use super::{Column, RawRow, RowSource, cell, numbered, pages};
use crate::dataset::is_name;
use crate::error::DataError;
use crate::lfs;
use crate::sample::Keys;
use guard::caught as guarded;

/// Row groups above this many bytes (uncompressed, wanted columns) are not decoded whole for one row,
const WHOLE_GROUP_BYTES: u64 = 32 << 20;
/// unless their pages are nearly as large as they are, up to the limit `parquet_group_bytes`.
fn whole_group_at_most() -> u64 {
    limits().parquet_group_bytes.value
}

/// What a value takes beside its bytes: a view of 16 bytes, its part of offsets and validity.
const VALUE_BYTES: u64 = 24;

pub(super) struct ParquetSource {
    path: PathBuf,
    root: PathBuf,
    metadata: ArrowReaderMetadata,
    /// First row of each row group, and the total.
    starts: Vec<usize>,
    groups: Vec<RowGroup>,
    projection: ProjectionMask,
    columns: Vec<Column>,
    id_column: Option<usize>,
    keys: Keys,
    /// Names this file in the cache.
    number: u64,
}

/// One row group.
#[derive(Default)]
struct RowGroup {
    /// Size of the wanted columns in memory: uncompressed, with the views of their values.
    bytes: u64,
    /// Found when a row of the group is first read.
    access: OnceLock<Access>,
    /// Held while the whole group is decoded, so that two threads do not do it twice.
    decoding: Mutex<()>,
}

/// How rows of a group are read.
enum Access {
    /// All at once.
    Whole,
    /// Page by page, with a page index if there is one.
    Pages(Box<ArrowReaderMetadata>),
}

/// Decoded row groups: file, group, bytes, rows; the most recently used last.
type RecentBatches = VecDeque<(u64, usize, u64, Arc<RecordBatch>)>;

fn cache() -> MutexGuard<'static, RecentBatches> {
    static CACHE: Mutex<RecentBatches> = Mutex::new(VecDeque::new());
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cached(number: u64, group: usize) -> Option<Arc<RecordBatch>> {
    let mut cache = cache();
    let at = cache.iter().position(|entry| (entry.0, entry.1) == (number, group))?;
    let hit = cache.remove(at)?;
    let batch = hit.3.clone();
    cache.push_back(hit);
    Some(batch)
}

fn keep(number: u64, group: usize, bytes: u64, batch: Arc<RecordBatch>) {
    let mut cache = cache();
    cache.push_back((number, group, bytes, batch));
    let mut kept: u64 = cache.iter().map(|entry| entry.2).sum();
    while kept > limits().parquet_cache_bytes.value && cache.len() > 1 {
        kept -= cache.pop_front().map_or(0, |entry| entry.2);
    }
}

/// Types are those of the parquet schema: the copy of the writer's Arrow schema adds nothing that is needed here, and
/// may be damaged or of an Arrow that this one does not know.
fn options() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_skip_arrow_metadata(true)
}

/// The same file with texts and bytes as views, in lists and structs too.
fn with_views(metadata: &ArrowReaderMetadata) -> ArrowReaderMetadata {
    fn view(field: &Field) -> Field {
        let kind = match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
            DataType::Binary | DataType::LargeBinary => DataType::BinaryView,
            DataType::List(item) => DataType::List(Arc::new(view(item))),
            DataType::LargeList(item) => DataType::LargeList(Arc::new(view(item))),
            DataType::FixedSizeList(item, n) => DataType::FixedSizeList(Arc::new(view(item)), *n),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| view(field)).collect()),
            kind => kind.clone(),
        };
        field.clone().with_data_type(kind)
    }
    let schema = metadata.schema();
    let fields: Vec<Field> = schema.fields().iter().map(|field| view(field)).collect();
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let options = options().with_schema(Arc::new(schema));
    // A type that the reader has no view of is read as it is, and charged as what it takes.
    let viewed = guarded(|| ArrowReaderMetadata::try_new(metadata.metadata().clone(), options).ok());
    viewed.ok().flatten().unwrap_or_else(|| metadata.clone())
}

/// Rows before each row group, and at the end all of them.
fn starts_of_groups(path: &Path, metadata: &ArrowReaderMetadata) -> Result<Vec<usize>, DataError> {
    let mut starts: Vec<usize> = vec![0];
    for group in metadata.metadata().row_groups() {
        let rows = usize::try_from(group.num_rows())
            .map_err(|_| DataError::file(path, "a row group states a negative number of rows"))?;
        let end = starts[starts.len() - 1].checked_add(rows);
        starts.push(end.ok_or_else(|| DataError::file(path, "the row groups state too many rows"))?);
    }
    if starts[starts.len() - 1] == 0 {
        return Err(DataError::file(path, "has no rows"));
    }
    Ok(starts)
}

/// The columns to read, by their place in the file.
fn wanted_columns(path: &Path, fields: &Fields, keys: &Keys) -> Result<Vec<usize>, DataError> {
    let find = |key: &str| fields.iter().position(|f| f.name() == key);
    let names = || fields.iter().map(|f| f.name().as_str()).collect::<Vec<_>>().join(", ");
    let mut wanted = Vec::new();
    for (key, option, required) in [
        (&keys.prompt_key, "prompt_key", true),
        (&keys.answer_key, "answer_key", find(&keys.solution_key).is_none()),
        (&keys.solution_key, "solution_key", false),
        (&keys.id_key, "id_key", false),
        (&keys.task_key, "task_key", false),
    ] {
        match find(key) {
            Some(k) if cell::can_hold_text(fields[k].data_type()) => wanted.push(k),
            // An id or a task of another type is of no use, but no obstacle either.
            Some(_) if !required && (key == &keys.id_key || key == &keys.task_key) => {}
            Some(k) => {
                let kind = fields[k].data_type();
                return Err(DataError::file(path, format!("column {key:?} ({option}) is {kind}, not text")));
            }
            None if required => {
                return Err(DataError::file(
                    path,
                    format!("no column {key:?}; the columns are {}; set {option} to the right one", names()),
                ));
            }
            None => {}
        }
    }
    if let Some(k) = find(&keys.image_key) {
        let kind = fields[k].data_type();
        if !cell::can_hold_images(kind) {
            let key = &keys.image_key;
            return Err(DataError::file(path, format!("column {key:?} (image_key) is {kind}, not pictures")));
        }
        wanted.push(k);
    } else {
        let numbered = numbered::names(fields.iter().map(|f| f.name().as_str()), &keys.image_key);
        let columns = numbered.values().filter_map(|name| find(name));
        wanted.extend(columns.filter(|&k| cell::can_hold_images(fields[k].data_type())));
    }
    // What cannot be text is of no use to anybody who asks for it.
    wanted
        .extend(keys.extra.iter().filter_map(|key| find(key)).filter(|&k| cell::can_hold_text(fields[k].data_type())));
    Ok(wanted)
}

/// What each row group costs to read.
fn row_groups(metadata: &ArrowReaderMetadata, projection: &ProjectionMask) -> Vec<RowGroup> {
    let bytes_of = |group: &RowGroupMetaData| {
        let leaves = group.columns().iter().enumerate().filter(|(leaf, _)| projection.leaf_included(*leaf));
        let bytes = leaves.map(|(_, c)| {
            let values = (c.num_values().max(0) as u64).saturating_mul(VALUE_BYTES);
            values.saturating_add(c.uncompressed_size().max(0) as u64)
        });
        bytes.fold(0, u64::saturating_add)
    };
    let groups = metadata.metadata().row_groups().iter();
    groups.map(|group| RowGroup { bytes: bytes_of(group), ..RowGroup::default() }).collect()
}

impl Drop for ParquetSource {
    fn drop(&mut self) {
        cache().retain(|entry| entry.0 != self.number);
    }
}

impl ParquetSource {
    pub(super) fn open(path: &Path, keys: &Keys, root: PathBuf) -> Result<Self, DataError> {
        let file = guard::file::open(path).map_err(|e| DataError::io(path, e))?;
        let mut head = Vec::new();
        (&file).take(64).read_to_end(&mut head).map_err(|e| DataError::io(path, e))?;
        if lfs::is_pointer(&head) {
            return Err(DataError::file(path, lfs::REASON));
        }
        let options = options().with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata =
            guarded(|| ArrowReaderMetadata::load(&file, options).map_err(|e| e.to_string())).flatten().map_err(
                |e| DataError::file(path, format!("not a readable parquet file (truncated, or another format?): {e}")),
            )?;
        let starts = starts_of_groups(path, &metadata)?;
        let fields = metadata.schema().fields();
        let wanted = wanted_columns(path, fields, keys)?;
        let columns = fields.iter().enumerate().map(|(k, f)| Column {
            name: f.name().clone(),
            kind: f.data_type().to_string(),
            used: wanted.contains(&k),
        });
        let columns = columns.collect();
        let id_column = fields.iter().position(|f| f.name() == &keys.id_key).filter(|k| wanted.contains(k));
        let projection = ProjectionMask::roots(metadata.parquet_schema(), wanted);
        let groups = row_groups(&metadata, &projection);
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            path: path.to_path_buf(),
            root,
            groups,
            starts,
            projection,
            columns,
            id_column,
            keys: keys.clone(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            metadata: with_views(&metadata),
        })
    }

    /// Reads `selection` of one row group; `None` reads all of it.
    fn read(
        &self,
        metadata: &ArrowReaderMetadata,
        group: usize,
        projection: ProjectionMask,
        selection: Option<RowSelection>,
    ) -> Result<Vec<RecordBatch>, String> {
        // A handle of its own for every read: handles that share a file position cannot be used by two threads.
        let file = guard::file::open(&self.path).map_err(|e| format!("cannot read {}: {e}", self.path.display()))?;
        // Small batches where only some rows are wanted: binary columns of one batch are limited to 2 GiB.
        let rows = self.starts[group + 1] - self.starts[group];
        let batch_size = if selection.is_some() { 64 } else { rows.max(1) };
        let read = || {
            let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
                .with_row_groups(vec![group])
                .with_projection(projection)
                .with_batch_size(batch_size);
            if let Some(selection) = selection {
                builder = builder.with_row_selection(selection);
            }
            let reader = builder.build().map_err(|e| e.to_string())?;
            reader.map(|batch| batch.map_err(|e| e.to_string())).collect()
        };
        guarded(read)
            .flatten()
            .map_err(|e: String| format!("row group {group} of {} is damaged: {e}", self.path.display()))
    }

    fn whole_group(&self, group: usize) -> Result<Arc<RecordBatch>, String> {
        if let Some(batch) = cached(self.number, group) {
            return Ok(batch);
        }
        let _decoding = self.groups[group].decoding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(batch) = cached(self.number, group) {
            return Ok(batch);
        }
        // Large ones one at a time: several threads would hold as many.
        static LARGE: Mutex<()> = Mutex::new(());
        let _turn = (self.groups[group].bytes > WHOLE_GROUP_BYTES)
            .then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
        let mut batches = self.read(&self.metadata, group, self.projection.clone(), None)?;
        let rows = self.starts[group + 1] - self.starts[group];
        let batch = match batches.pop() {
            Some(batch) if batches.is_empty() && batch.num_rows() == rows => Arc::new(batch),
            _ => return Err(self.short(group)),
        };
        keep(self.number, group, batch.get_array_memory_size() as u64, batch.clone());
        Ok(batch)
    }

    fn short(&self, group: usize) -> String {
        format!("row group {group} of {} has fewer rows than stated", self.path.display())
    }

    fn access(&self, group: usize) -> &Access {
        let bytes = self.groups[group].bytes;
        self.groups[group].access.get_or_init(|| {
            if bytes <= WHOLE_GROUP_BYTES {
                return Access::Whole;
            }
            let metadata = self.metadata.metadata();
            let indexed = |leaf: usize| {
                let index = metadata.offset_index().and_then(|i| i.get(group)?.get(leaf));
                index.is_some_and(|i| !i.page_locations().is_empty())
            };
            let leaves = metadata.row_group(group).num_columns();
            if (0..leaves).filter(|leaf| self.projection.leaf_included(*leaf)).all(indexed) {
                return Access::Pages(Box::new(self.metadata.clone()));
            }
            // A damaged group tells its reason when one of its rows is read.
            let found = guarded(|| pages::find(&self.path, metadata, group, &self.projection));
            match found.ok().flatten() {
                Some(found) if found.largest * 4 <= bytes || bytes > whole_group_at_most() => {
                    let mut index = vec![Vec::new(); metadata.num_row_groups()];
                    index[group] = found.columns;
                    let metadata = (**metadata).clone().into_builder().set_offset_index(Some(index)).build();
                    match ArrowReaderMetadata::try_new(Arc::new(metadata), options()) {
                        Ok(metadata) => Access::Pages(Box::new(with_views(&metadata))),
                        Err(_) => Access::Pages(Box::new(self.metadata.clone())),
                    }
                }
                _ if bytes <= whole_group_at_most() => Access::Whole,
                _ => Access::Pages(Box::new(self.metadata.clone())),
            }
        })
    }

    /// Ascending rows of one group.
    fn rows_of_group(&self, group: usize, rows: &[usize]) -> Result<Vec<Result<RawRow, String>>, String> {
        let offsets: Vec<usize> = rows.iter().map(|r| r - self.starts[group]).collect();
        let metadata = match self.access(group) {
            Access::Whole => {
                let batch = self.whole_group(group)?;
                return Ok(offsets.iter().map(|&i| self.raw(&batch, i)).collect());
            }
            Access::Pages(metadata) => metadata,
        };
        let mut unique = offsets.clone();
        unique.dedup();
        let mut selectors = Vec::new();
        let mut at = 0;
        for &offset in &unique {
            selectors.push(RowSelector::skip(offset - at));
            selectors.push(RowSelector::select(1));
            at = offset + 1;
        }
        let batches = self.read(metadata, group, self.projection.clone(), Some(RowSelection::from(selectors)))?;
        let mut found = batches.iter().flat_map(|b| (0..b.num_rows()).map(move |i| (b, i)));
        let mut out: Vec<Result<RawRow, String>> = Vec::with_capacity(rows.len());
        let mut current = None;
        for (k, offset) in offsets.iter().enumerate() {
            if k == 0 || offsets[k - 1] != *offset {
                current = found.next();
            }
            out.push(match current {
                Some((batch, i)) => self.raw(batch, i),
                None => Err(self.short(group)),
            });
        }
        Ok(out)
    }

    fn raw(&self, batch: &RecordBatch, i: usize) -> Result<RawRow, String> {
        let text = |key: &str| match batch.column_by_name(key) {
            Some(column) => cell::text(column, i).map_err(|e| format!("`{key}`: {e}")),
            None => Ok(None),
        };
        Ok(RawRow {
            id: text(&self.keys.id_key)?,
            problem: text(&self.keys.prompt_key)?,
            answer: text(&self.keys.answer_key)?,
            solution: text(&self.keys.solution_key)?,
            task: text(&self.keys.task_key)?,
            images: match batch.column_by_name(&self.keys.image_key) {
                Some(column) => cell::images(column, i, &self.root),
                // Those that are read: none where the file has the column itself, or none that hold pictures.
                None => numbered::collect(
                    batch.schema_ref().fields().iter().map(|f| f.name().as_str()),
                    &self.keys.image_key,
                    |name| match batch.column_by_name(name).filter(|c| cell::can_hold_images(c.data_type())) {
                        Some(column) => cell::images(column, i, &self.root),
                        None => Ok(Vec::new()),
                    },
                ),
            },
            extra: {
                let read = |key: &String| Some((key.clone(), cell::text_or_list(batch.column_by_name(key)?, i)?));
                self.keys.extra.iter().filter_map(read).collect()
            },
        })
    }
}

impl RowSource for ParquetSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn len(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    fn row(&self, i: usize) -> Result<RawRow, String> {
        let mut rows = self.rows(&[i]);
        rows.pop().unwrap_or_else(|| Err(format!("row {i} cannot be read")))
    }

    fn rows(&self, rows: &[usize]) -> Vec<Result<RawRow, String>> {
        let mut out = Vec::with_capacity(rows.len());
        let mut rest = rows;
        while let Some(&first) = rest.first() {
            // Empty row groups share their start with the next one; the last of them is the one that holds the row.
            let group = self.starts.partition_point(|s| *s <= first) - 1;
            let n = rest.iter().take_while(|r| **r < self.starts[group + 1]).count();
            match self.rows_of_group(group, &rest[..n]) {
                Ok(rows) => out.extend(rows),
                Err(reason) => out.extend((0..n).map(|_| Err(reason.clone()))),
            }
            rest = &rest[n..];
        }
        out
    }

    fn ids(&self) -> Vec<Option<String>> {
        let Some(column) = self.id_column else {
            return Vec::new();
        };
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), [column]);
        let mut ids = Vec::with_capacity(self.len());
        for group in 0..self.groups.len() {
            // A damaged group tells its reason when one of its rows is read.
            for batch in self.read(&self.metadata, group, mask.clone(), None).unwrap_or_default() {
                let column = batch.column(0);
                ids.extend(
                    (0..column.len()).map(|i| cell::text(column, i).unwrap_or_default().filter(|id| is_name(id))),
                );
            }
        }
        ids
    }

    fn columns(&self) -> Vec<Column> {
        self.columns.clone()
    }
}
