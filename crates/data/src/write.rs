//! Writing samples: parquet made for random access, JSON lines with pictures beside them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
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
    Parquet { writer: Box<ArrowWriter<File>>, schema: SchemaRef, rows: Box<RowBuilders> },
    Json { writer: BufWriter<File>, images: JsonImages },
}

/// Writes samples to a file; the file and its pictures have their names only once [`SampleWriter::finish`] has
/// succeeded, so that a file can be made of what it was.
pub struct SampleWriter {
    path: PathBuf,
    unfinished: Unfinished,
    keys: Keys,
    format: Format,
    written: usize,
}

/// The file and the folder of its pictures before they have their names; removed when writing ends in an error.
struct Unfinished {
    file: PathBuf,
    pictures: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when they were renamed.
        let _ = std::fs::remove_file(&self.file);
        let _ = std::fs::remove_dir_all(&self.pictures);
    }
}

/// The builders of one row group.
struct RowBuilders {
    /// The five texts, then the further columns.
    text: Vec<StringBuilder>,
    images: ListBuilder<StructBuilder>,
    bytes: usize,
    count: usize,
}

impl RowBuilders {
    fn new(texts: usize) -> Self {
        let fields = picture_fields();
        let pictures =
            StructBuilder::new(fields.clone(), vec![Box::new(BinaryBuilder::new()), Box::new(StringBuilder::new())]);
        let item = Field::new("element", DataType::Struct(fields), true);
        Self {
            text: (0..texts).map(|_| StringBuilder::new()).collect(),
            images: ListBuilder::new(pictures).with_field(item),
            bytes: 0,
            count: 0,
        }
    }
}

fn picture_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

/// Names of the text columns in order: the five that [`Keys`] names, then the further ones.
fn text_names(keys: &Keys) -> Vec<&str> {
    let five = [&keys.id_key, &keys.prompt_key, &keys.answer_key, &keys.task_key, &keys.solution_key];
    five.into_iter().chain(&keys.extra).map(String::as_str).collect()
}

/// The values of [`text_names`].
fn texts<'a>(sample: &'a Sample, keys: &Keys) -> Vec<Option<&'a str>> {
    let answer = Some(sample.answer.as_str()).filter(|a| !a.is_empty());
    let five = [
        Some(sample.id.as_str()),
        Some(sample.problem.as_str()),
        answer,
        sample.task.as_deref(),
        sample.solution.as_deref(),
    ];
    let further = keys.extra.iter().map(|key| sample.extra.get(key).map(String::as_str));
    five.into_iter().chain(further).collect()
}

impl SampleWriter {
    /// Starts a file; its extension says which form (`.parquet`, `.jsonl`). Columns are named by `keys`.
    ///
    /// # Errors
    /// An unknown extension, two columns of one name, a folder that cannot be written.
    pub fn create(path: &Path, keys: &Keys, images: JsonImages) -> Result<Self, DataError> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let columns = text_names(keys);
        let all = || columns.iter().copied().chain([keys.image_key.as_str()]);
        if let Some(twice) = all().find(|a| all().filter(|b| b == a).count() > 1) {
            return Err(DataError::file(path, format!("two columns would be named {twice:?}; change one of the keys")));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|p| !p.is_dir()) {
            return Err(DataError::file(path, format!("cannot be written: there is no folder {}", folder.display())));
        }
        if extension == "jsonl" && images == JsonImages::Files {
            replaceable(path)?;
        }
        let unfinished = Unfinished {
            file: path.with_extension(format!("{extension}.unfinished")),
            pictures: path.with_file_name(format!("{}.unfinished", picture_folder(path))),
        };
        let create = || File::create(&unfinished.file).map_err(|e| DataError::write(path, e));
        let format = match extension {
            "parquet" => {
                let mut fields: Vec<Field> =
                    columns.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
                let item = Arc::new(Field::new("element", DataType::Struct(picture_fields()), true));
                fields.push(Field::new(&keys.image_key, DataType::List(item), true));
                let schema = Arc::new(Schema::new_with_metadata(fields, hugging_face_hint(keys)));
                let writer = ArrowWriter::try_new(create()?, schema.clone(), Some(properties(keys)))
                    .map_err(|e| DataError::write(path, std::io::Error::other(e)))?;
                Format::Parquet { writer: Box::new(writer), schema, rows: Box::new(RowBuilders::new(columns.len())) }
            }
            "jsonl" => {
                // What a kill left behind must not get among the pictures.
                match std::fs::remove_dir_all(&unfinished.pictures) {
                    Err(e) if e.kind() != ErrorKind::NotFound => return Err(DataError::write(path, e)),
                    _ => {}
                }
                Format::Json { writer: BufWriter::new(create()?), images }
            }
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
                for (builder, text) in rows.text.iter_mut().zip(texts(sample, &self.keys)) {
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
                    flush(writer, schema, rows).map_err(|e| DataError::write(&self.path, e))?;
                }
            }
            Format::Json { writer, images } => {
                let cells = json_images(&self.path, &self.unfinished.pictures, *images, self.written, &pictures)?;
                let mut row = Map::new();
                for (key, text) in text_names(&self.keys).into_iter().zip(texts(sample, &self.keys)) {
                    if let Some(text) = text {
                        row.insert(key.to_owned(), json!(text));
                    }
                }
                row.insert(self.keys.answer_key.clone(), json!(sample.answer));
                row.insert(self.keys.image_key.clone(), Value::Array(cells));
                writeln!(writer, "{}", Value::Object(row)).map_err(|e| DataError::write(&self.path, e))?;
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
        if self.written == 0 {
            return Err(DataError::file(&self.path, "not written: there is no row to write"));
        }
        let fail = |e| DataError::write(&self.path, e);
        let file = match self.format {
            Format::Parquet { mut writer, schema, mut rows } => {
                flush(&mut writer, &schema, &mut rows).map_err(fail)?;
                writer.into_inner().map_err(|e| fail(std::io::Error::other(e)))?
            }
            Format::Json { writer, .. } => writer.into_inner().map_err(|e| fail(e.into_error()))?,
        };
        file.sync_all().map_err(fail)?;
        if self.unfinished.pictures.is_dir() {
            let pictures = self.path.with_file_name(picture_folder(&self.path));
            match std::fs::remove_dir_all(&pictures) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(DataError::write(&pictures, e)),
                _ => {}
            }
            std::fs::rename(&self.unfinished.pictures, &pictures).map_err(|e| DataError::write(&pictures, e))?;
        }
        std::fs::rename(&self.unfinished.file, &self.path).map_err(fail)?;
        Ok(self.written)
    }
}

/// Name of the folder in which a JSON lines file keeps its pictures.
fn picture_folder(path: &Path) -> String {
    format!("{}_images", path.file_stem().and_then(|s| s.to_str()).unwrap_or("data"))
}

/// Refuses a folder of pictures that is not this file's: it would be replaced.
fn replaceable(path: &Path) -> Result<(), DataError> {
    let folder = path.with_file_name(picture_folder(path));
    let entries = match std::fs::read_dir(&folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| DataError::io(&folder, e))?,
    };
    let refuse = |what: &str| {
        let folder = folder.display();
        let reason =
            format!("its pictures would replace the folder {folder}, {what}; remove it or choose another name");
        Err(DataError::file(path, reason))
    };
    if !path.exists() {
        return refuse("which another file may need");
    }
    for entry in entries {
        let name = entry.map_err(|e| DataError::io(&folder, e))?.file_name();
        // `000017_0.png`, as `json_images` names them.
        let ours = name.to_str().and_then(|n| n.split_once('.')?.0.split_once('_')).is_some_and(|(row, picture)| {
            row.len() >= 6 && [row, picture].iter().all(|n| n.bytes().all(|b| b.is_ascii_digit()))
        });
        if !ours {
            return refuse(&format!("which holds {}", name.display()));
        }
    }
    Ok(())
}

fn flush(writer: &mut ArrowWriter<File>, schema: &SchemaRef, rows: &mut RowBuilders) -> std::io::Result<()> {
    if rows.count == 0 {
        return Ok(());
    }
    let mut columns: Vec<ArrayRef> = rows.text.iter_mut().map(|b| Arc::new(b.finish()) as ArrayRef).collect();
    columns.push(Arc::new(rows.images.finish()));
    (rows.bytes, rows.count) = (0, 0);
    let batch = RecordBatch::try_new(schema.clone(), columns).map_err(std::io::Error::other)?;
    writer.write(&batch).map_err(std::io::Error::other)?;
    writer.flush().map_err(std::io::Error::other)
}

/// Tells the `datasets` library that the structs are pictures.
fn hugging_face_hint(keys: &Keys) -> HashMap<String, String> {
    let text = || json!({"dtype": "string", "_type": "Value"});
    let mut features: Map<String, Value> = text_names(keys).iter().map(|n| ((*n).to_owned(), text())).collect();
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
    unfinished: &Path,
    images: JsonImages,
    row: usize,
    pictures: &[std::borrow::Cow<'_, [u8]>],
) -> Result<Vec<Value>, DataError> {
    let mut cells = Vec::with_capacity(pictures.len());
    for (k, picture) in pictures.iter().enumerate() {
        let format = ::image::guess_format(picture).ok();
        if images == JsonImages::Base64 {
            let kind = format.map_or("application/octet-stream", |f| f.to_mime_type());
            cells.push(json!(format!("data:{kind};base64,{}", STANDARD.encode(picture))));
            continue;
        }
        let extension = format.and_then(|f| f.extensions_str().first()).unwrap_or(&"bin");
        let name = format!("{row:06}_{k}.{extension}");
        std::fs::create_dir_all(unfinished)
            .and_then(|()| std::fs::write(unfinished.join(&name), picture))
            .map_err(|e| DataError::write(path.with_file_name(picture_folder(path)).join(&name), e))?;
        cells.push(json!(format!("{}/{name}", picture_folder(path))));
    }
    Ok(cells)
}
