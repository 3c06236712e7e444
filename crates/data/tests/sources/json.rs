//! JSON lines, JSON arrays, folders of annotations, mixtures of files.

use std::path::Path;

use data::{Cursor, DataSpec, Dataset, ImageSource, Keys};

use crate::support::{bytes_of, folder, open, refusal};
use base64::Engine;

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
