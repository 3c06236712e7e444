//! Columns in every shape: pictures, keys, ids, tasks, null cells, numbered columns.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, Float64Array, Int64Array, NullArray, StringArray, StructArray};
use data::{Dataset, ImageSource, Keys};

use crate::support::{bytes_of, folder, open, open_with, structs, texts, write};

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
