//! Writing samples: parquet made for random access, JSON lines with pictures beside them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};

use crate::error::DataError;
use crate::sample::{Keys, Sample};

/// A row group ends at this many bytes of pictures and text, or
const GROUP_BYTES: usize = 16 << 20;
/// at this many rows: one row is read by decoding one group.
const GROUP_ROWS: usize = 256;

/// What a JSON lines file does with pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonImages {
    /// Files in a folder `NAME_images` beside the JSON file, which names them relative to itself.
    Files,
    /// Base64 in the row.
    Base64,
}

enum Format {
    Parquet { writer: Box<ArrowWriter<File>>, schema: SchemaRef, rows: Box<Rows> },
    Json { writer: BufWriter<File>, images: JsonImages },
}

/// Writes samples to a file; the file has its name only once [`SampleWriter::finish`] has succeeded.
pub struct SampleWriter {
    path: PathBuf,
    unfinished: Unfinished,
    keys: Keys,
    format: Format,
    written: usize,
}

/// The file before it has its name; removed when writing ends in an error.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The builders of one row group.
struct Rows {
    text: [StringBuilder; 5],
    images: ListBuilder<StructBuilder>,
    bytes: usize,
    count: usize,
}

impl Rows {
    fn new() -> Self {
        let fields = picture_fields();
        let pictures =
            StructBuilder::new(fields.clone(), vec![Box::new(BinaryBuilder::new()), Box::new(StringBuilder::new())]);
        let item = Field::new("element", DataType::Struct(fields), true);
        Self {
            text: std::array::from_fn(|_| StringBuilder::new()),
            images: ListBuilder::new(pictures).with_field(item),
            bytes: 0,
            count: 0,
        }
    }
}

fn picture_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

/// Column names in order: five texts, then the pictures.
fn names(keys: &Keys) -> [&str; 6] {
    [&keys.id_key, &keys.prompt_key, &keys.answer_key, &keys.task_key, &keys.solution_key, &keys.image_key]
}

impl SampleWriter {
    /// Starts a file; its extension says which form (`.parquet`, `.jsonl`). Columns are named by `keys`.
    ///
    /// # Errors
    /// An unknown extension, two columns of one name, a folder that cannot be written.
    pub fn create(path: &Path, keys: &Keys, images: JsonImages) -> Result<Self, DataError> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let columns = names(keys);
        if let Some(twice) = columns.iter().find(|a| columns.iter().filter(|b| b == a).count() > 1) {
            return Err(DataError::file(path, format!("two columns would be named {twice:?}; change one of the keys")));
        }
        let unfinished = Unfinished(path.with_extension(format!("{extension}.unfinished")));
        let create = || File::create(&unfinished.0).map_err(|e| DataError::io(&unfinished.0, e));
        let format = match extension {
            "parquet" => {
                let mut fields: Vec<Field> =
                    columns[..5].iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
                let item = Arc::new(Field::new("element", DataType::Struct(picture_fields()), true));
                fields.push(Field::new(columns[5], DataType::List(item), true));
                let schema = Arc::new(Schema::new_with_metadata(fields, hugging_face_hint(keys)));
                let writer = ArrowWriter::try_new(create()?, schema.clone(), Some(properties(keys)))
                    .map_err(|e| DataError::file(path, format!("cannot be written: {e}")))?;
                Format::Parquet { writer: Box::new(writer), schema, rows: Box::new(Rows::new()) }
            }
            "jsonl" => Format::Json { writer: BufWriter::new(create()?), images },
            _ => {
                return Err(DataError::file(path, "the extension says the form: use .parquet or .jsonl"));
            }
        };
        Ok(Self { path: path.to_path_buf(), unfinished, keys: keys.clone(), format, written: 0 })
    }

    /// Adds a row; pictures that are paths are read.
    ///
    /// # Errors
    /// A picture that cannot be read, a full disk.
    pub fn write(&mut self, sample: &Sample) -> Result<(), DataError> {
        let mut pictures = Vec::with_capacity(sample.images.len());
        for (k, image) in sample.images.iter().enumerate() {
            pictures.push(image.load().map_err(|source| DataError::Image { index: k + 1, source })?);
        }
        match &mut self.format {
            Format::Parquet { writer, schema, rows } => {
                let answer = Some(sample.answer.as_str()).filter(|a| !a.is_empty());
                let texts = [
                    Some(sample.id.as_str()),
                    Some(sample.problem.as_str()),
                    answer,
                    sample.task.as_deref(),
                    sample.solution.as_deref(),
                ];
                for (builder, text) in rows.text.iter_mut().zip(texts) {
                    builder.append_option(text);
                    rows.bytes += text.map_or(0, str::len);
                }
                for picture in &pictures {
                    let values = rows.images.values();
                    // The builder was made with these two columns.
                    if let Some(bytes) = values.field_builder::<BinaryBuilder>(0) {
                        bytes.append_value(picture);
                    }
                    if let Some(path) = values.field_builder::<StringBuilder>(1) {
                        path.append_null();
                    }
                    values.append(true);
                    rows.bytes += picture.len();
                }
                rows.images.append(true);
                rows.count += 1;
                if rows.bytes >= GROUP_BYTES || rows.count >= GROUP_ROWS {
                    flush(writer, schema, rows).map_err(|e| DataError::file(&self.path, e))?;
                }
            }
            Format::Json { writer, images } => {
                let cells = json_images(&self.path, *images, self.written, &pictures)?;
                let keys = names(&self.keys);
                let mut row = Map::new();
                row.insert(keys[0].to_owned(), json!(sample.id));
                row.insert(keys[1].to_owned(), json!(sample.problem));
                row.insert(keys[2].to_owned(), json!(sample.answer));
                row.insert(keys[5].to_owned(), Value::Array(cells));
                for (key, text) in [(keys[3], &sample.task), (keys[4], &sample.solution)] {
                    if let Some(text) = text {
                        row.insert(key.to_owned(), json!(text));
                    }
                }
                writeln!(writer, "{}", Value::Object(row)).map_err(|e| DataError::io(&self.unfinished.0, e))?;
            }
        }
        self.written += 1;
        Ok(())
    }

    /// Ends the file and gives it its name; returns the rows written.
    ///
    /// # Errors
    /// No rows at all, a full disk.
    pub fn finish(self) -> Result<usize, DataError> {
        let fail = |reason: String| DataError::file(&self.path, reason);
        if self.written == 0 {
            return Err(fail("not written: there is no row to write".into()));
        }
        let file = match self.format {
            Format::Parquet { mut writer, schema, mut rows } => {
                flush(&mut writer, &schema, &mut rows).map_err(fail)?;
                writer.into_inner().map_err(|e| fail(format!("cannot be written: {e}")))?
            }
            Format::Json { writer, .. } => {
                writer.into_inner().map_err(|e| DataError::io(&self.unfinished.0, e.into_error()))?
            }
        };
        file.sync_all().map_err(|e| DataError::io(&self.unfinished.0, e))?;
        std::fs::rename(&self.unfinished.0, &self.path).map_err(|e| DataError::io(&self.path, e))?;
        Ok(self.written)
    }
}

fn flush(writer: &mut ArrowWriter<File>, schema: &SchemaRef, rows: &mut Rows) -> Result<(), String> {
    if rows.count == 0 {
        return Ok(());
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(6);
    columns.extend(rows.text.iter_mut().map(|b| Arc::new(b.finish()) as ArrayRef));
    columns.push(Arc::new(rows.images.finish()));
    (rows.bytes, rows.count) = (0, 0);
    let fail = |e: &dyn std::fmt::Display| format!("cannot be written: {e}");
    let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|e| fail(&e))?;
    writer.write(&batch).map_err(|e| fail(&e))?;
    writer.flush().map_err(|e| fail(&e))
}

/// Tells the `datasets` library that the structs are pictures.
fn hugging_face_hint(keys: &Keys) -> HashMap<String, String> {
    let text = || json!({"dtype": "string", "_type": "Value"});
    let mut features: Map<String, Value> = names(keys)[..5].iter().map(|n| ((*n).to_owned(), text())).collect();
    features.insert(keys.image_key.clone(), json!({"feature": {"_type": "Image"}, "_type": "Sequence"}));
    HashMap::from([("huggingface".to_owned(), json!({"info": {"features": features}}).to_string())])
}

fn properties(keys: &Keys) -> WriterProperties {
    // Pictures are compressed already.
    let bytes = ["list", "element", "bytes"].map(str::to_owned);
    let bytes = ColumnPath::new(std::iter::once(keys.image_key.clone()).chain(bytes).collect());
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_column_compression(bytes.clone(), Compression::UNCOMPRESSED)
        // A dictionary of pictures saves nothing.
        .set_column_dictionary_enabled(bytes.clone(), false)
        .set_column_statistics_enabled(bytes, parquet::file::properties::EnabledStatistics::None)
        // A page a few rows: with the page index one row is found without decoding its neighbours.
        .set_data_page_row_count_limit(8)
        .set_write_batch_size(8)
        .build()
}

/// The `images` cell of a row of a JSON lines file; writes the picture files if there are any.
fn json_images(
    path: &Path,
    images: JsonImages,
    row: usize,
    pictures: &[std::borrow::Cow<'_, [u8]>],
) -> Result<Vec<Value>, DataError> {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("data");
    let folder = format!("{stem}_images");
    let mut cells = Vec::with_capacity(pictures.len());
    for (k, picture) in pictures.iter().enumerate() {
        let format = ::image::guess_format(picture).ok();
        if images == JsonImages::Base64 {
            let kind = format.map_or("application/octet-stream", |f| f.to_mime_type());
            cells.push(json!(format!("data:{kind};base64,{}", STANDARD.encode(picture))));
            continue;
        }
        let extension = format.and_then(|f| f.extensions_str().first()).unwrap_or(&"bin");
        let name = format!("{folder}/{row:06}_{k}.{extension}");
        let file = path.with_file_name(&name);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(|e| DataError::io(parent, e))?;
        }
        std::fs::write(&file, picture).map_err(|e| DataError::io(&file, e))?;
        cells.push(json!(name));
    }
    Ok(cells)
}
