//! Files of data as tests write them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, Float64Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use data::{Dataset, ImageSource, Keys, Sample};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// `list<struct<bytes, path>>`: one list per row, `None` for a null list.
pub(crate) type Pictures = Vec<Option<Vec<(Option<Vec<u8>>, Option<&'static str>)>>>;

pub(crate) fn picture_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

pub(crate) fn structs(flat: &[(Option<Vec<u8>>, Option<&str>)]) -> StructArray {
    let mut bytes = BinaryBuilder::new();
    let mut paths = StringBuilder::new();
    for (b, p) in flat {
        bytes.append_option(b.as_deref());
        paths.append_option(*p);
    }
    StructArray::new(picture_fields(), vec![Arc::new(bytes.finish()), Arc::new(paths.finish())], None)
}

pub(crate) fn picture_lists(rows: &Pictures) -> ListArray {
    let flat: Vec<_> = rows.iter().flatten().flatten().cloned().collect();
    let lengths = rows.iter().map(|r| r.as_ref().map_or(0, Vec::len));
    let offsets = arrow_buffer_offsets(lengths);
    let nulls: arrow_array::BooleanArray = rows.iter().map(|r| Some(r.is_some())).collect();
    let item = Arc::new(Field::new("element", DataType::Struct(picture_fields()), true));
    ListArray::new(item, offsets, Arc::new(structs(&flat)), Some(arrow_buffer::NullBuffer::new(nulls.values().clone())))
}

pub(crate) fn arrow_buffer_offsets(lengths: impl Iterator<Item = usize>) -> arrow_buffer::OffsetBuffer<i32> {
    arrow_buffer::OffsetBuffer::from_lengths(lengths)
}

pub(crate) fn write(path: &Path, columns: Vec<(&str, ArrayRef)>, group_rows: usize, page_index: bool) {
    let fields: Vec<Field> = columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|c| c.1).collect()).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_data_page_row_count_limit(7)
        .set_write_batch_size(7)
        .set_offset_index_disabled(!page_index)
        .set_statistics_enabled(if page_index { EnabledStatistics::Page } else { EnabledStatistics::Chunk })
        .build();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

pub(crate) fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(crate) fn open(path: &Path) -> Dataset {
    open_with(path, &Keys::default())
}

pub(crate) fn open_with(path: &Path, keys: &Keys) -> Dataset {
    Dataset::open(&[path.display().to_string().into()], keys, None).unwrap()
}

pub(crate) fn refusal(spec: &str) -> String {
    let error = Dataset::open(&[spec.into()], &Keys::default(), None).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

pub(crate) fn bytes_of(image: &ImageSource) -> Vec<u8> {
    image.load().unwrap().into_owned()
}

pub(crate) fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    (dir, path)
}

/// The shape of ViRL39K: picture structs with null paths, text-only rows, several pictures.
pub(crate) fn virl(path: &Path, rows: usize, group_rows: usize, payload: usize, page_index: bool) {
    let picture = |i: usize| (Some(vec![i as u8; payload]), None);
    let pictures: Pictures = (0..rows)
        .map(|i| match i % 4 {
            0 => None,
            1 => Some(vec![]),
            2 => Some(vec![picture(i)]),
            _ => Some(vec![picture(i), (None, Some("sub/x.png"))]),
        })
        .collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("problem", texts((0..rows).map(|i| format!("p{i}")))),
        ("answer", texts((0..rows).map(|i| format!("\\boxed{{{i}}}")))),
        ("images", Arc::new(picture_lists(&pictures))),
        ("unused", Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64)))),
    ];
    write(path, columns, group_rows, page_index);
}

pub(crate) fn check_virl(sample: &Sample, dir: &Path, payload: usize) {
    let i = sample.index;
    assert_eq!(sample.id, i.to_string());
    assert_eq!(sample.problem, format!("p{i}"));
    assert_eq!(sample.answer, format!("\\boxed{{{i}}}"));
    assert_eq!(sample.images.len(), [0, 0, 1, 2][i % 4]);
    if i % 4 >= 2 {
        assert_eq!(bytes_of(&sample.images[0]), vec![i as u8; payload]);
    }
    if i % 4 == 3 {
        assert_eq!(sample.images[1], ImageSource::Path(dir.join("sub/x.png")));
    }
}
