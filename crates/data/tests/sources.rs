//! Data sets as people have them: parquet of several shapes, JSON lines, folders of annotations, mixtures, damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder, StringBuilder, UInt64Builder};
use arrow_array::{
    Array, ArrayRef, Decimal128Array, Decimal256Array, Float64Array, Int64Array, ListArray, NullArray, RecordBatch,
    StringArray, StructArray, UInt64Array,
};
use arrow_buffer::i256;
use arrow_schema::{DataType, Field, Fields, Schema};
use base64::Engine;
use data::write::{JsonImages, SampleWriter};
use data::{Cursor, DataSpec, Dataset, ImageSource, Keys, Sample};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

/// `list<struct<bytes, path>>`: one list per row, `None` for a null list.
type Pictures = Vec<Option<Vec<(Option<Vec<u8>>, Option<&'static str>)>>>;

fn picture_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

fn structs(flat: &[(Option<Vec<u8>>, Option<&str>)]) -> StructArray {
    let mut bytes = BinaryBuilder::new();
    let mut paths = StringBuilder::new();
    for (b, p) in flat {
        bytes.append_option(b.as_deref());
        paths.append_option(*p);
    }
    StructArray::new(picture_fields(), vec![Arc::new(bytes.finish()), Arc::new(paths.finish())], None)
}

fn picture_lists(rows: &Pictures) -> ListArray {
    let flat: Vec<_> = rows.iter().flatten().flatten().cloned().collect();
    let lengths = rows.iter().map(|r| r.as_ref().map_or(0, Vec::len));
    let offsets = arrow_buffer_offsets(lengths);
    let nulls: arrow_array::BooleanArray = rows.iter().map(|r| Some(r.is_some())).collect();
    let item = Arc::new(Field::new("element", DataType::Struct(picture_fields()), true));
    ListArray::new(item, offsets, Arc::new(structs(&flat)), Some(arrow_buffer::NullBuffer::new(nulls.values().clone())))
}

fn arrow_buffer_offsets(lengths: impl Iterator<Item = usize>) -> arrow_buffer::OffsetBuffer<i32> {
    arrow_buffer::OffsetBuffer::from_lengths(lengths)
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>, group_rows: usize, page_index: bool) {
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

fn texts<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn open(path: &Path) -> Dataset {
    open_with(path, &Keys::default())
}

fn open_with(path: &Path, keys: &Keys) -> Dataset {
    Dataset::open(&[path.display().to_string().into()], keys, None).unwrap()
}

fn refusal(spec: &str) -> String {
    let error = Dataset::open(&[spec.into()], &Keys::default(), None).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn bytes_of(image: &ImageSource) -> Vec<u8> {
    image.load().unwrap().into_owned()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    (dir, path)
}

/// The shape of ViRL39K: picture structs with null paths, text-only rows, several pictures.
fn virl(path: &Path, rows: usize, group_rows: usize, payload: usize, page_index: bool) {
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

fn check_virl(sample: &Sample, dir: &Path, payload: usize) {
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

#[test]
fn random_access_over_row_groups() {
    let (_tmp, dir) = folder();
    let path = dir.join("train.parquet");
    virl(&path, 103, 10, 5, true);
    let dataset = open(&path);
    assert_eq!(dataset.len(), 103);
    for k in 0..103 {
        check_virl(&dataset.get(k * 37 % 103).unwrap(), &dir, 5);
    }
    let many: Vec<usize> = (0..200).map(|k| k * 61 % 103).collect();
    let found = dataset.get_many(&many);
    assert_eq!(found.len(), many.len());
    for (i, sample) in many.iter().zip(found) {
        let sample = sample.unwrap();
        assert_eq!(sample.index, *i);
        check_virl(&sample, &dir, 5);
    }
    let error = dataset.get(103).unwrap_err().to_string();
    assert!(error.contains("103 rows"), "{error}");
}

#[test]
fn single_rows_of_large_row_groups() {
    // 60 rows of 1 MB in one group: above the size at which a group is decoded whole.
    for page_index in [true, false] {
        let (_tmp, dir) = folder();
        let path = dir.join("train.parquet");
        let payload = 1 << 20;
        virl(&path, 60, 100, payload, page_index);
        let dataset = open(&path);
        for i in [59, 0, 30, 31, 2, 3] {
            check_virl(&dataset.get(i).unwrap(), &dir, payload);
        }
        for sample in dataset.get_many(&[50, 3, 3, 7, 2, 59, 50]) {
            check_virl(&sample.unwrap(), &dir, payload);
        }
    }
}

#[test]
fn many_threads_read_one_file() {
    let (_tmp, dir) = folder();
    let path = dir.join("train.parquet");
    virl(&path, 400, 20, 100, false);
    let dataset = open(&path);
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (dataset, dir) = (&dataset, &dir);
            scope.spawn(move || {
                (0..200).for_each(|k| check_virl(&dataset.get((k * 7 + t * 53) % 400).unwrap(), dir, 100))
            });
        }
    });
}

#[test]
fn opening_reads_no_data_page() {
    // All data pages are overwritten: opening works, reading a row sets it aside.
    let (_tmp, dir) = folder();
    let path = dir.join("train.parquet");
    virl(&path, 40, 10, 50, false);
    let mut bytes = std::fs::read(&path).unwrap();
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
    let end = bytes.len() - 8 - footer;
    bytes[4..end].fill(0xEE);
    std::fs::write(&path, bytes).unwrap();
    let dataset = open(&path);
    assert_eq!(dataset.len(), 40);
    let row = dataset.get(17).unwrap_err();
    assert!(row.to_string().starts_with("row 17: row group 1 of"), "{row}");
    assert_eq!(row.to_string().lines().count(), 1);
}

#[test]
fn picture_columns_of_every_shape() {
    let (_tmp, dir) = folder();
    let two = || texts(["a", "b"]);
    let answers = || -> ArrayRef { Arc::new(Int64Array::from(vec![Some(3), Some(-4)])) };
    let case = |name: &str, images: ArrayRef| {
        let path = dir.join(format!("{name}.parquet"));
        write(&path, vec![("problem", two()), ("answer", answers()), ("images", images)], 100, false);
        let dataset = open(&path);
        [dataset.get(0).unwrap(), dataset.get(1).unwrap()]
    };
    // One struct a row.
    let rows = case("struct", Arc::new(structs(&[(Some(vec![1, 2]), Some("kept.png")), (None, Some("b.png"))])));
    assert_eq!(rows[0].images, [ImageSource::from(vec![1, 2])]);
    assert_eq!(rows[1].images, [ImageSource::Path(dir.join("b.png"))]);
    assert_eq!([&rows[0].answer, &rows[1].answer], ["3", "-4"]);
    // list<binary>, with a null element.
    let mut lists = ListBuilder::new(BinaryBuilder::new());
    lists.values().append_value([1]);
    lists.values().append_null();
    lists.values().append_value([2]);
    lists.append(true);
    lists.append(false);
    let rows = case("binary", Arc::new(lists.finish()));
    assert_eq!(rows[0].images, [ImageSource::from(vec![1]), ImageSource::from(vec![2])]);
    assert!(rows[1].images.is_empty());
    // list<string>.
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.values().append_value("one.png");
    lists.append(true);
    lists.values().append_value("/abs/two.png");
    lists.append(true);
    let rows = case("paths", Arc::new(lists.finish()));
    assert_eq!(rows[0].images, [ImageSource::Path(dir.join("one.png"))]);
    assert_eq!(rows[1].images, [ImageSource::Path("/abs/two.png".into())]);
    // A column of nothing.
    assert!(case("null", Arc::new(NullArray::new(2)))[0].images.is_empty());
    // Plain bytes.
    let rows = case("plain", Arc::new(arrow_array::BinaryArray::from_vec(vec![b"x", b"y"])));
    assert_eq!(rows[1].images, [ImageSource::from(b"y".to_vec())]);
    // A struct with neither.
    let path = dir.join("neither.parquet");
    let neither = Arc::new(structs(&[(None, None), (None, None)]));
    write(&path, vec![("problem", two()), ("answer", answers()), ("images", neither)], 100, false);
    let error = open(&path).get(1).unwrap_err().to_string();
    assert_eq!(error, "row 1: `images`: neither bytes nor path");
}

#[test]
fn keys_ids_tasks_and_null_cells() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    let problems: ArrayRef = Arc::new(StringArray::from(vec![Some("q0"), None, Some("q2"), Some("q3")]));
    let answers: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), Some(1.0), None, Some(-2.25)]));
    let ids = texts(["a", "b", "c", "a"]);
    write(&path, vec![("question", problems), ("gold", answers), ("qid", ids), ("topic", texts(["t"; 4]))], 2, false);
    let keys = Keys {
        prompt_key: "question".into(),
        answer_key: "gold".into(),
        id_key: "qid".into(),
        task_key: "topic".into(),
        ..Keys::default()
    };
    let dataset = open_with(&path, &keys);
    let first = dataset.get(0).unwrap();
    // The id of two rows names neither.
    assert_eq!((first.id.as_str(), first.answer.as_str(), first.task.as_deref()), ("0", "0.5", Some("t")));
    assert_eq!(dataset.get(1).unwrap_err().to_string(), "row 1 (id \"b\"): `question` is missing or null");
    assert_eq!(dataset.get(2).unwrap_err().to_string(), "row 2 (id \"c\"): `gold` is missing or null");
    assert_eq!(dataset.get(3).unwrap().id, "3");
    let columns = &dataset.sources()[0].2;
    assert_eq!(columns.len(), 4);
    assert!(columns.iter().all(|c| c.used));
}

/// pandas writes a missing number as NaN: a row without an answer, not one whose answer is `NaN`.
#[test]
fn numbers_that_are_none_are_missing() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    let numbers = [1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.25];
    let answers: ArrayRef = Arc::new(Float64Array::from_iter_values(numbers));
    write(&path, vec![("problem", texts(["q"; 5])), ("answer", answers)], 10, false);
    let dataset = open(&path);
    for i in [1, 2, 3] {
        let reason = dataset.get(i).unwrap_err().to_string();
        assert!(reason.starts_with(&format!("row {i}")) && reason.ends_with("`answer` is missing or null"), "{reason}");
    }
    assert_eq!([0, 4].map(|i| dataset.get(i).unwrap().answer), ["1.5", "-0.25"]);
}

/// A pipe has nobody who writes into it, and a device has no end: both are named instead of read.
#[cfg(unix)]
#[test]
fn pictures_that_are_no_files_cost_their_rows() {
    let (_tmp, dir) = folder();
    let pipe = dir.join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::create_dir(dir.join("folder.png")).unwrap();
    let row = |picture: &str| format!(r#"{{"problem": "q", "answer": "1", "images": ["{picture}"]}}"#);
    let rows = ["pipe.png", "folder.png"];
    let path = dir.join("x.jsonl");
    std::fs::write(&path, rows.map(row).join("\n")).unwrap();
    let dataset = open(&path);
    for (i, name) in rows.into_iter().enumerate() {
        let picture = dataset.get(i).unwrap().images.remove(0);
        for error in [picture.load().unwrap_err().to_string(), picture.header_size().unwrap_err().to_string()] {
            assert!(error.contains(name) && error.contains("not a file"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
    // Where a row may name a device at all.
    let device = ImageSource::Path("/dev/zero".into());
    assert!(device.load().unwrap_err().to_string().contains("not a file but a device"));
    let found = data::inspect::inspect(&Arc::new(dataset), 3, None, |_| {}).to_string();
    assert!(rows.iter().all(|name| found.contains(name)), "{found}");
}

#[test]
fn parquet_files_that_cannot_be_used() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    virl(&path, 20, 10, 5, false);
    let whole = std::fs::read(&path).unwrap();
    let name = path.display().to_string();
    for cut in [whole.len() - 1, whole.len() / 2, 3] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = refusal(&name);
        assert!(error.starts_with(&name) && error.contains("truncated"), "{error}");
    }
    std::fs::write(&path, b"").unwrap();
    assert!(refusal(&name).contains(&name));
    write(&path, vec![("prompt", texts(["a"])), ("answer", texts(["b"]))], 10, false);
    let error = refusal(&name);
    assert!(
        error.contains("no column \"problem\"") && error.contains("prompt, answer") && error.contains("prompt_key"),
        "{error}"
    );
    write(&path, vec![("problem", Arc::new(structs(&[(None, None)]))), ("answer", texts(["b"]))], 10, false);
    assert!(refusal(&name).contains("not text"));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    write(&path, vec![("problem", texts(["a"])), ("answer", texts(["b"])), ("images", numbers)], 10, false);
    assert!(refusal(&name).contains("not pictures"));
    write(&path, vec![("problem", texts(Vec::<&str>::new())), ("answer", texts(Vec::<&str>::new()))], 10, false);
    assert!(refusal(&name).contains("no rows"));
    let text = dir.join("x.txt");
    std::fs::write(&text, "hello").unwrap();
    assert!(refusal(&text.display().to_string()).contains("unknown file type"));
}

/// Every byte of a small file, changed: an error or a counted row, never a panic.
#[test]
fn damaged_parquet_is_an_error_or_costs_its_rows() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    virl(&path, 8, 4, 5, true);
    let whole = std::fs::read(&path).unwrap();
    let (mut refused, mut lost) = (0, 0);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        // Sizes, counts and signs live in the low and the high bits.
        damaged[at] ^= [0xFF, 0x01, 0x40][at % 3];
        std::fs::write(&path, &damaged).unwrap();
        match Dataset::open(&[path.display().to_string().into()], &Keys::default(), None) {
            Err(_) => refused += 1,
            // One row of each group; a footer can state any number of them.
            Ok(dataset) => lost += [0, 7].iter().filter(|i| dataset.get(**i).is_err()).count(),
        }
    }
    assert!(refused > 100 && lost > 100, "{refused} {lost}");
}

#[test]
fn json_lines() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.jsonl");
    let png: Vec<u8> = [b"\x89PNG\r\n\x1a\n".as_slice(), &[7; 60]].concat();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&png);
    let rows = [
        r#"{"problem": "a", "answer": 3, "images": ["p.png", "/abs/q.png"], "id": 7, "task": "t"}"#.to_owned(),
        String::new(),
        format!(r#"{{"problem": "b", "answer": 2.0, "images": "data:image/png;base64,{base64}"}}"#),
        format!(
            r#"{{"problem": "c", "answer": true, "images": ["{base64}", {{"bytes": "{base64}"}}, {{"path": "z.png"}}, null]}}"#
        ),
        r#"{"problem": "d", "answer": ["x"], "images": null, "solution": "s"}"#.to_owned(),
        "not json".to_owned(),
        r#"{"problem": "e", "answer": {"a": 1}}"#.to_owned(),
        r#"{"problem": "f", "answer": "1", "images": ["http://x/y.png"]}"#.to_owned(),
        r#"{"problem": "g"}"#.to_owned(),
        r#"{"problem": "h", "answer": "1", "images": [3]}"#.to_owned(),
        r#"{"problem": "i", "answer": "1", "images": ["data:image/png;base64,@@"]}"#.to_owned(),
    ];
    std::fs::write(&path, rows.join("\n") + "\n").unwrap();
    let dataset = open(&path);
    assert_eq!(dataset.len(), 10, "blank lines are no rows");
    let row = dataset.get(0).unwrap();
    assert_eq!((row.id.as_str(), row.answer.as_str(), row.task.as_deref()), ("7", "3", Some("t")));
    assert_eq!(row.images, [ImageSource::Path(dir.join("p.png")), ImageSource::Path("/abs/q.png".into())]);
    let row = dataset.get(1).unwrap();
    assert_eq!((row.answer.as_str(), bytes_of(&row.images[0])), ("2", png.clone()));
    let row = dataset.get(2).unwrap();
    assert_eq!((row.answer.as_str(), row.images.len()), ("True", 3));
    assert_eq!((bytes_of(&row.images[0]), bytes_of(&row.images[1])), (png.clone(), png));
    let row = dataset.get(3).unwrap();
    assert_eq!((row.answer.as_str(), row.solution.as_deref(), row.images.len()), ("x", Some("s"), 0));
    let reason = |i: usize| dataset.get(i).unwrap_err().reason;
    assert!(reason(4).contains("not JSON"));
    assert!(reason(5).contains("`answer`: an object"));
    assert!(reason(6).contains("web address"));
    assert!(reason(7).contains("`answer` is missing"));
    assert!(reason(8).contains("image 1: neither a path nor base64"));
    assert!(reason(9).contains("bad base64"));

    // Pictures relative to a folder of the user's choice.
    let dataset =
        Dataset::open(&[path.display().to_string().into()], &Keys::default(), Some(Path::new("/pictures"))).unwrap();
    assert_eq!(dataset.get(0).unwrap().images[0], ImageSource::Path("/pictures/p.png".into()));
}

#[test]
fn json_arrays() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.json");
    std::fs::write(&path, "\u{FEFF}[\n {\"problem\": \"a ] } \\\" ,\", \"answer\": [\"1\"]},\n {\"problem\": \"b\", \"answer\": \"2\"}\n]\n").unwrap();
    let dataset = open(&path);
    assert_eq!(dataset.len(), 2);
    assert_eq!(dataset.get(0).unwrap().problem, "a ] } \" ,");
    assert_eq!(dataset.get(1).unwrap().answer, "2");
    let name = path.display().to_string();
    for (text, expected) in [
        ("[{\"problem\": 1", "truncated"),
        ("[]", "no rows"),
        ("", "no rows"),
        ("  \n", "no rows"),
        ("[1, 2]", "not an object"),
        ("{\"question\": 1}", "no key \"problem\""),
        ("[{\"problem\": \"a\", \"answer\": 1}] trailing", "follows the end"),
    ] {
        std::fs::write(&path, text).unwrap();
        assert!(refusal(&name).contains(expected), "{text}: {}", refusal(&name));
    }
}

#[test]
fn folders_of_annotations() {
    let (_tmp, dir) = folder();
    let info = serde_json::json!({
        "mathvista": {"file_name": "mv.json", "formatting": "sharegpt", "columns": {"messages": "messages", "images": "images"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}},
        "plain": {"file_name": "plain.jsonl", "columns": {"prompt": "q", "response": "a", "images": "pics"}},
    });
    std::fs::write(dir.join("dataset_info.json"), info.to_string()).unwrap();
    let mv = serde_json::json!([
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "<image>x?"}, {"role": "assistant", "content": "4"}], "images": ["i/1.png"]},
        {"messages": [{"role": "user", "content": "y?"}, {"role": "assistant", "content": "so \\boxed{\\frac{1}{2}}."}], "images": []},
        {"messages": [{"role": "user", "content": "z?"}]},
    ]);
    std::fs::write(dir.join("mv.json"), mv.to_string()).unwrap();
    std::fs::write(
        dir.join("plain.jsonl"),
        "{\"q\": \"1+1\", \"input\": \"in words\", \"a\": \"two\", \"pics\": []}\n",
    )
    .unwrap();
    let spec = |s: &str| format!("{}{s}", dir.display());
    let open = |s: &str| Dataset::open(&[spec(s).into()], &Keys::default(), None).unwrap();
    let dataset = open("@mathvista");
    let row = dataset.get(0).unwrap();
    assert_eq!((row.problem.as_str(), row.answer.as_str()), ("<image>x?", "4"));
    assert_eq!(row.images, [ImageSource::Path(dir.join("i/1.png"))]);
    assert_eq!(dataset.get(1).unwrap().answer, "\\frac{1}{2}");
    assert!(dataset.get(2).unwrap_err().reason.contains("missing"));
    assert_eq!(open("@plain").get(0).unwrap().problem, "1+1\nin words");
    assert!(refusal(&spec("")).contains("mathvista, plain"));
    assert!(refusal(&spec("@nothing")).contains("no entry"));
}

#[test]
fn mixtures_with_weights() {
    let (_tmp, dir) = folder();
    let a = dir.join("a.jsonl");
    std::fs::write(&a, "{\"problem\": \"a\", \"answer\": 1}\n".repeat(4)).unwrap();
    let specs: Vec<DataSpec> = serde_json::from_str(&format!(
        r#"["toy:sum?size=6", {{"path": {:?}, "weight": 3.0}}]"#,
        a.display().to_string()
    ))
    .unwrap();
    let dataset = Dataset::open(&specs, &Keys::default(), None).unwrap();
    assert_eq!(dataset.len(), 10);
    assert_eq!(dataset.get(5).unwrap().task.as_deref(), Some("sum"));
    assert_eq!(dataset.get(6).unwrap().problem, "a");
    assert_eq!(Cursor::epoch_len(&dataset), 18);
    let mut rows = Cursor::new(1).next(&dataset, 18);
    rows.sort_unstable();
    assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9]);
    let error = serde_json::from_str::<Vec<DataSpec>>(r#"[{"path": "a", "wait": 1}]"#);
    assert!(error.is_err());
    let weight: DataSpec = serde_json::from_str(r#"{"path": "toy:sum", "weight": -1.0}"#).unwrap();
    assert!(Dataset::open(&[weight], &Keys::default(), None).unwrap_err().to_string().contains("weight -1"));
    assert!(Dataset::open(&[], &Keys::default(), None).is_err());
}

#[test]
fn further_columns_repeated_ids_and_places() {
    let (_tmp, dir) = folder();
    let parquet = dir.join("x.parquet");
    let columns = vec![
        ("problem", texts(["p"; 3])),
        ("answer", texts(["1"; 3])),
        ("id", texts(["a", "b", "a"])),
        ("level", texts(["easy", "hard", "easy"])),
    ];
    write(&parquet, columns, 2, false);
    let json = dir.join("x.jsonl");
    let rows = [
        r#"{"problem": "p", "answer": 1, "id": "b", "level": 3, "options": ["x", "y"]}"#,
        r#"{"problem": "p", "answer": 1, "id": "c", "level": null, "options": {"A": 1}}"#,
    ];
    std::fs::write(&json, rows.join("\n")).unwrap();
    let keys = Keys { extra: vec!["level".into(), "options".into(), "absent".into()], ..Keys::default() };
    let specs: Vec<data::DataSpec> = [&parquet, &json].map(|p| p.display().to_string().into()).to_vec();
    let dataset = Dataset::open(&specs, &keys, None).unwrap();
    let extra = |i: usize| dataset.get(i).unwrap().extra.into_iter().collect::<Vec<_>>();
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(extra(1), [pair("level", "hard")]);
    assert_eq!(extra(3), [pair("level", "3"), pair("options", r#"["x","y"]"#)]);
    assert_eq!(extra(4), [pair("options", r#"{"A":1}"#)]);
    // a twice in one file, b in both.
    assert_eq!(dataset.rows_with_repeated_ids(), 4);
    assert_eq!(dataset.place(3), Some((json.display().to_string(), 0)));
    assert_eq!(dataset.place(5), None);
}

#[test]
fn ids_on_several_rows_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    let row = |id: &str, n: usize| format!("{{\"id\": \"{id}\", \"problem\": \"{n}+{n}?\", \"answer\": {}}}\n", 2 * n);
    std::fs::write(&path, [row("a", 1), row("b", 2), row("a", 3)].concat()).unwrap();
    let dataset = Arc::new(Dataset::open(&[path.display().to_string().into()], &Keys::default(), None).unwrap());
    let found = data::inspect::inspect(&dataset, usize::MAX, None, |_| {});
    assert_eq!(found.repeated_ids, 2);
    let said = found.to_string();
    assert!(said.contains("named by number instead: 2") && said.contains("set aside: 0 of 3"), "{said}");
}

/// Numbers with more digits than a number type holds, in every place that becomes text; and through both written forms.
#[test]
fn numbers_keep_their_digits() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.jsonl");
    let long = "12345678901234567890123";
    let rows = [
        format!(
            r#"{{"id": {long}, "problem": "a", "answer": {long}, "more": {{"a": [{long}, 0.10]}}, "solution": -{long}}}"#
        ),
        format!(r#"{{"id": {long}4, "problem": "b", "answer": [{long}], "more": [1, 18446744073709551616]}}"#),
        r#"{"id": 3, "problem": {"a": 1}, "answer": 1}"#.to_owned(),
        r#"{"id": 4, "problem": 0.1234567890123456789, "answer": 3.14159265358979323846264338327950288, "more": 7.0}"#
            .to_owned(),
    ];
    std::fs::write(&path, rows.join("\n")).unwrap();
    let keys = Keys { extra: vec!["more".into()], ..Keys::default() };
    let check = |dataset: &Dataset| {
        let a = dataset.get(0).unwrap();
        assert_eq!((a.id.as_str(), a.answer.as_str()), (long, long));
        assert_eq!(a.extra["more"], format!(r#"{{"a":[{long},0.10]}}"#));
        assert_eq!(a.solution, Some(format!("-{long}")));
        let b = dataset.get(1).unwrap();
        assert_eq!((b.id.as_str(), b.answer.as_str()), (format!("{long}4").as_str(), long));
        assert_eq!(b.extra["more"], "[1,18446744073709551616]");
        let last = dataset.get(dataset.len() - 1).unwrap();
        assert_eq!(last.problem, "0.1234567890123456789");
        assert_eq!(last.answer, "3.14159265358979323846264338327950288");
        assert_eq!(last.extra["more"], "7");
    };
    let dataset = open_with(&path, &keys);
    check(&dataset);
    assert!(dataset.get(2).unwrap_err().reason.contains("`problem`: an object"));
    for name in ["y.parquet", "y.jsonl"] {
        let output = dir.join(name);
        let mut writer = SampleWriter::create(&output, &keys, JsonImages::Files).unwrap();
        [0, 1, 3].into_iter().for_each(|i| writer.write(&dataset.get(i).unwrap()).unwrap());
        assert_eq!(writer.finish().unwrap(), 3);
        check(&open_with(&output, &keys));
    }
}

#[test]
fn numbers_of_parquet_keep_their_digits() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    let wide = "12345678901234567890123456789012345678".parse::<i128>().unwrap();
    let decimal = Decimal128Array::from(vec![wide, -1]).with_precision_and_scale(38, 10).unwrap();
    let wider = Decimal256Array::from(vec![i256::from_i128(wide), i256::from_i128(-7)]);
    let wider = wider.with_precision_and_scale(60, 0).unwrap();
    let mut list = ListBuilder::new(UInt64Builder::new());
    list.append_value([Some(u64::MAX), None]);
    list.append_value([]);
    write(
        &path,
        vec![
            ("id", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
            ("problem", texts(["a", "b"])),
            ("answer", Arc::new(decimal)),
            ("wider", Arc::new(wider)),
            ("list", Arc::new(list.finish())),
            ("signed", Arc::new(Int64Array::from(vec![i64::MIN, 1]))),
        ],
        2,
        false,
    );
    let extra = ["wider", "list", "signed"].map(String::from).to_vec();
    let dataset = open_with(&path, &Keys { extra, ..Keys::default() });
    let row = dataset.get(0).unwrap();
    assert_eq!(
        (row.id.as_str(), row.answer.as_str()),
        ("18446744073709551615", "1234567890123456789012345678.9012345678")
    );
    assert_eq!(row.extra["wider"], "12345678901234567890123456789012345678");
    assert_eq!(row.extra["list"], "[18446744073709551615,null]");
    assert_eq!(row.extra["signed"], "-9223372036854775808");
    let row = dataset.get(1).unwrap();
    assert_eq!((row.answer.as_str(), row.extra["wider"].as_str()), ("-0.0000000001", "-7"));
}

#[test]
fn broken_first_lines_cost_their_rows() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.jsonl");
    let good = r#"{"id": "g", "problem": "p", "answer": "1"}"#;
    for (bad, count, reason) in [
        ("not json\n", 1, "not JSON"),
        ("\u{feff}not json\n", 1, "not JSON"),
        ("{\"problem\": \"p\",\n\n", 1, "not JSON"),
        ("17\n", 1, "not an object"),
        ("[1, 2]\n", 1, "not an object"),
        ("[\"a\n", 1, "not JSON"),
        ("[]\n", 1, "not an object"),
        ("[{\"problem\": \"p\"}]\n", 1, "not an object"),
        ("\n \n\"text\"\nnull\n", 2, "not an object"),
        ("{}\n", 1, "`problem` is missing"),
        ("{\"other\": 1}\n", 1, "`problem` is missing"),
        (&"x\n".repeat(300), 300, "not JSON"),
        ("\0\0\0\n", 1, "not JSON"),
    ] {
        std::fs::write(&path, format!("{bad}{good}\r\n{good}\n")).unwrap();
        let dataset = open(&path);
        assert_eq!(dataset.len(), count + 2, "{bad:?}");
        for row in 0..count {
            let found = dataset.get(row).unwrap_err();
            assert!(found.reason.contains(reason), "{bad:?}: {found}");
        }
        // The id column is found behind the broken rows: both good rows are named g, and so by their number.
        assert_eq!(dataset.rows_with_repeated_ids(), 2, "{bad:?}");
        assert_eq!(dataset.get(count).unwrap().problem, "p");
        assert!(dataset.sources()[0].2.iter().any(|c| c.name == "answer" && c.used), "{bad:?}");
    }
    let name = path.display().to_string();
    for (bytes, expected) in [
        (b"a,b\n1,2\n".as_slice(), "none of its 2 rows is a JSON object"),
        (b"PK\x03\x04\x14\0\0\0", "none of its 1 rows is a JSON object"),
        (b"\xff\xfe{\0}\0", "UTF-16"),
        (b"{\n  \"data\": []\n}\n", "none of its 3 rows is a JSON object"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123456\n", "git lfs pull"),
        (b"[\n{\"problem\": \"p\", \"answer\": \"1\"},\n{\"problem\": \"p\"", "truncated"),
        (b"[\n{\"problem\": \"p\", \"answer\": \"1\"}\n", "truncated"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        assert!(refusal(&name).contains(expected), "{}", refusal(&name));
    }
}

#[test]
fn pointers_of_git_lfs_are_called_by_their_name() {
    let (_tmp, dir) = folder();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123456\n";
    for name in ["x.parquet", "x.jsonl", "x.json"] {
        let path = dir.join(name);
        std::fs::write(&path, pointer).unwrap();
        let error = refusal(&path.display().to_string());
        assert!(error.contains(name) && error.contains("Git LFS pointer") && error.contains("git lfs pull"), "{error}");
    }
    std::fs::write(dir.join("p.png"), pointer).unwrap();
    for picture in [ImageSource::Path(dir.join("p.png")), pointer.as_bytes().to_vec().into()] {
        let decoded = data::image::decode(&picture.load().unwrap()).unwrap_err();
        assert_eq!(decoded, picture.header_size().unwrap_err());
        assert!(decoded.to_string().contains("git lfs pull"), "{decoded}");
    }
}

/// MMMU-Pro's form: the columns `image_1` to `image_N`, null where a row has fewer.
#[test]
fn numbered_columns_of_parquet() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    let picture = |names: [Option<&'static str>; 5]| {
        Arc::new(structs(&names.map(|n| (n.map(|n| n.as_bytes().to_vec()), None)))) as ArrayRef
    };
    let nullable = |names: [Option<&'static str>; 5]| {
        let whole = picture(names.map(|n| n.or(Some(""))));
        let nulls = names.iter().map(Option::is_some).collect::<arrow_buffer::NullBuffer>();
        let fields = whole.as_any().downcast_ref::<StructArray>().unwrap().clone().into_parts();
        Arc::new(StructArray::new(fields.0, fields.1, Some(nulls))) as ArrayRef
    };
    write(
        &path,
        vec![
            (
                "problem",
                texts(["<image 3> and <image 1>", "<image 1> <image 10>", "<image 2>", "<image> <image>", "<image 2>"]),
            ),
            ("answer", texts(["1", "2", "3", "4", "5"])),
            ("options", texts(["['<image 3>', '<image_1>']", "", "", "", ""])),
            ("image_10", nullable([None, Some("b10"), None, None, None])),
            ("image_1", nullable([Some("a1"), Some("b1"), Some("c1"), Some("d1"), Some("e1")])),
            ("image_2", nullable([None, None, None, Some("d2"), None])),
            ("image_3", nullable([Some("a3"), None, None, None, Some("e3")])),
            ("image_4_caption", texts(["", "", "", "", ""])),
        ],
        5,
        false,
    );
    let keys = Keys { extra: vec!["options".into()], ..Keys::default() };
    let dataset = open_with(&path, &keys);
    let named = |row: usize| {
        let sample = dataset.get(row).unwrap();
        let content = data::prompt::split_at_images(&sample.problem, sample.images.len()).unwrap();
        let place = |c: &data::Content| match c {
            data::Content::Image(k) => Some(String::from_utf8(bytes_of(&sample.images[*k])).unwrap()),
            data::Content::Text(_) => None,
        };
        content.iter().filter_map(place).collect::<Vec<_>>()
    };
    assert_eq!(named(0), ["a3", "a1"]);
    assert_eq!(dataset.get(0).unwrap().extra["options"], "['<image 2>', '<image 1>']", "its numbers changed as well");
    assert_eq!(named(1), ["b1", "b10"]);
    let reason = data::prompt::check_row(&dataset.get(2).unwrap()).unwrap_err().reason;
    assert!(reason.contains("<image 2> and the row has 1 images"), "{reason}");
    let reason = dataset.get(4).unwrap_err().reason;
    assert!(reason.contains("image 2 is named, but it is null"), "{reason}");
    assert_eq!(named(3), ["d1", "d2"]);
    let used: Vec<_> = dataset.sources()[0].2.iter().filter(|c| c.used).map(|c| c.name.clone()).collect();
    assert!(used.contains(&"image_10".into()) && !used.contains(&"image_4_caption".into()), "{used:?}");
}

#[test]
fn numbered_keys_of_json() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.jsonl");
    let rows = [
        r#"{"problem": "<image2>, then <image1>", "answer": "1", "image_1": "1.png", "image_2": {"path": "2.png"}}"#,
        r#"{"problem": "<image 1>", "answer": "1", "images": ["own.png"], "image_1": "other.png"}"#,
        r#"{"problem": "<image_3>", "answer": "1", "images": null, "image_1": null, "image_3": ["3.png"]}"#,
        r#"{"problem": "<image 1>", "answer": "1", "image_0": "0.png"}"#,
        r#"{"problem": "<image 1>", "answer": "1", "image_1": ["1.png", "2.png"]}"#,
        r#"{"problem": "<image 2>", "answer": "1", "images": [null, "second.png"]}"#,
        r#"{"problem": "<image1>", "answer": "1"}"#,
    ];
    std::fs::write(&path, rows.join("\n")).unwrap();
    let dataset = open(&path);
    let images = |row: usize| -> Vec<String> {
        let sample = dataset.get(row).unwrap();
        data::prompt::check_row(&sample).unwrap();
        let name = |i: &ImageSource| match i {
            ImageSource::Path(path) => path.file_name().unwrap().to_string_lossy().into_owned(),
            ImageSource::Bytes(_) => panic!(),
        };
        sample.images.iter().map(name).collect()
    };
    assert_eq!(images(0), ["1.png", "2.png"]);
    assert_eq!(images(1), ["own.png"]);
    assert_eq!(images(2), ["3.png"]);
    assert!(dataset.get(3).unwrap_err().reason.contains("`image_0`: numbered pictures are counted from 1"));
    assert!(dataset.get(4).unwrap_err().reason.contains("`image_1`: 2 pictures where one is expected"));
    assert_eq!(images(5), ["second.png"]);
    let bad = data::prompt::check_row(&dataset.get(6).unwrap()).unwrap_err();
    assert!(bad.reason.contains("<image1>") && bad.reason.contains("0 images"), "{bad}");
}

/// Peak memory of this process so far, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// One picture of 512 kB shared by the 60 rows of each of 12 groups: 6 MB in the file, 360 MB if every row had its own.
#[test]
fn a_dictionary_is_in_memory_once() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("shared.parquet");
    let (groups, each) = (12, 60);
    let noise = |group: u64| -> Vec<u8> {
        (0..1u64 << 19).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15 + group) >> 56) as u8).collect()
    };
    let mut writer = None;
    for group in 0..groups {
        let pictures: Pictures = (0..each).map(|_| Some(vec![(Some(noise(group)), None)])).collect();
        let text = |t: &str| Arc::new(StringArray::from(vec![t; each])) as ArrayRef;
        let columns = vec![
            ("problem", text("<image>?")),
            ("answer", text("1")),
            ("images", Arc::new(picture_lists(&pictures)) as ArrayRef),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let writer = writer.get_or_insert_with(|| {
            let properties = WriterProperties::builder().set_dictionary_page_size_limit(8 << 20).build();
            ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap()
        });
        writer.write(&batch).unwrap();
        writer.flush().unwrap();
    }
    writer.unwrap().close().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 10 << 20, "the writer has no dictionary");
    let data = Dataset::open(&[path.to_str().unwrap().into()], &Keys::default(), None).unwrap();
    let before = peak();
    for row in 0..data.len() {
        let sample = data.get(row).unwrap();
        let ImageSource::Bytes(own) = &sample.images[0] else { panic!() };
        let (own, group) = (own.to_vec(), (row / each) as u64);
        assert!(own.len() == 1 << 19 && own[..64] == noise(group)[..64], "row {row}");
    }
    let grown = peak() - before;
    assert!(grown < 150 << 20, "{} MB", grown >> 20);
}

#[cfg(unix)]
#[test]
fn pictures_of_rows_stay_in_their_folder() {
    use std::os::unix::fs::symlink;
    let tmp = tempfile::tempdir().unwrap();
    let data = tmp.path().join("data");
    std::fs::create_dir_all(data.join("images")).unwrap();
    std::fs::write(data.join("images/a.png"), "png").unwrap();
    std::fs::write(tmp.path().join("secret.png"), "secret").unwrap();
    symlink("../secret.png", data.join("link.png")).unwrap();
    symlink("..", data.join("up")).unwrap();
    let outside = tmp.path().join("secret.png").display().to_string();
    let inside = data.join("images/a.png").display().to_string();
    let paths = [
        "images/a.png",
        &inside,
        "images/../images/a.png",
        "../secret.png",
        &outside,
        "link.png",
        "up/secret.png",
        "file:///etc/passwd",
    ];
    let row = |p: &&str| serde_json::json!({"problem": "<image>", "answer": "1", "images": [p]}).to_string();
    std::fs::write(data.join("rows.jsonl"), paths.iter().map(row).collect::<Vec<_>>().join("\n")).unwrap();
    let structs: Pictures = vec![Some(vec![(None, Some("../secret.png"))]), Some(vec![(None, Some("images/a.png"))])];
    let text = |t: &str| Arc::new(StringArray::from(vec![t; 2])) as ArrayRef;
    let columns = vec![
        ("problem", text("<image>")),
        ("answer", text("1")),
        ("images", Arc::new(picture_lists(&structs)) as ArrayRef),
    ];
    write(&data.join("rows.parquet"), columns, 10, false);
    let open = |file: &str, dir: Option<&Path>| {
        Dataset::open(&[data.join(file).to_str().unwrap().into()], &Keys::default(), dir).unwrap()
    };
    let rows = open("rows.jsonl", None);
    for (k, path) in paths.iter().enumerate() {
        match rows.get(k) {
            Ok(_) => assert!(k < 3, "{path}"),
            Err(bad) => assert!(k >= 3 && bad.to_string().contains("lies outside the folder"), "{path}: {bad}"),
        }
    }
    // A folder above both holds the absolute paths.
    let rows = open("rows.jsonl", Some(tmp.path()));
    assert!(rows.get(1).is_ok() && rows.get(4).is_ok() && rows.get(7).is_err());
    let rows = open("rows.parquet", None);
    assert!(rows.get(0).is_err() && rows.get(1).is_ok());
}

#[cfg(unix)]
#[test]
fn data_that_is_no_file_is_refused_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    for name in ["rows.jsonl", "rows.parquet"] {
        let path = tmp.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(Dataset::open(&[path.to_str().unwrap().into()], &Keys::default(), None).is_err());
    }
    std::fs::create_dir(tmp.path().join("folder.jsonl")).unwrap();
    assert!(
        Dataset::open(&[tmp.path().join("folder.jsonl").to_str().unwrap().into()], &Keys::default(), None).is_err()
    );
}

#[test]
fn sizes_have_upper_bounds() {
    let open = |spec: DataSpec| Dataset::open(&[spec], &Keys::default(), None).map(drop).map_err(|e| e.to_string());
    for (size, good) in
        [("1000000000", true), ("1000000001", false), ("1000000000000", false), ("18446744073709551615", false)]
    {
        let done = open(format!("toy:sum?size={size}").as_str().into());
        assert_eq!(done.is_ok(), good, "{size}");
        if let Err(error) = done {
            assert!(
                error.contains("size must be at least 1 and at most 1000000000") && error.contains(size),
                "{error}"
            );
        }
    }
    let long = open(format!("toy:sum?size={}", "9".repeat(100_000)).as_str().into()).unwrap_err();
    assert!(guard::printable(&long).len() < 5_000);
    for weight in [2e6, f64::INFINITY, f64::NAN, -1.0] {
        let spec = DataSpec::Weighted(data::dataset::WeightedSpec { path: "toy:sum?size=10".into(), weight });
        assert!(open(spec).unwrap_err().contains("weight"), "{weight}");
    }
    let spec = DataSpec::Weighted(data::dataset::WeightedSpec { path: "toy:sum?size=1000000000".into(), weight: 1e4 });
    assert!(open(spec).unwrap_err().contains("an epoch"));
}

#[test]
fn ids_without_end_are_no_names() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("rows.jsonl");
    let row = |id: String| serde_json::json!({"problem": "1?", "answer": "1", "id": id}).to_string();
    std::fs::write(&path, [row("short".into()), row("x".repeat(100_000))].join("\n")).unwrap();
    let data = Dataset::open(&[path.to_str().unwrap().into()], &Keys::default(), None).unwrap();
    assert_eq!((data.get(0).unwrap().id.as_str(), data.get(1).unwrap().id.as_str()), ("short", "1"));
    let bad = data::BadRow { id: "\u{1b}[2J".into(), index: 3, reason: format!("a\u{1b}b\n{}", "x".repeat(100_000)) };
    let shown = bad.to_string();
    assert!(shown.len() < 3_000 && shown.lines().count() == 1 && !shown.contains('\u{1b}'), "{shown}");
}
