//! The real `analyze` on a fixture model.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn model(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name);
    path.display().to_string()
}

fn analyze(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_analyze"))
        .current_dir(dir)
        .args(["--backend", "flex"])
        .args(args)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn lines(path: PathBuf) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn two_models_on_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (a, b) = (model("tied_gqa"), model("untied_mha"));
    let data = "toy:sum?split=test";
    let common = [
        "--data",
        data,
        "--limit",
        "3",
        "--max-new-tokens",
        "12",
        "--samples",
        "2",
        "--temperature",
        "1",
        "--maps",
        "2",
    ];
    let output = analyze(dir, &[&["--model", a.as_str(), "--compare", &b, "--out", "two"][..], &common[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let file = json(dir.join("two/analysis.json"));
    assert_eq!(file["models"].as_array().unwrap().len(), 2);
    for (k, suffix) in ["_before", "_after"].iter().enumerate() {
        let records = lines(dir.join(format!("two/responses{suffix}.jsonl")));
        assert_eq!(records.len(), 6);
        for r in &records {
            let (image, prompt, own) = (floats(&r["image"]), floats(&r["prompt"]), floats(&r["generated"]));
            assert!(!image.is_empty() && image.len() <= 12 && floats(&r["focus"]).len() == image.len());
            assert_eq!((prompt.len(), own.len()), (image.len(), image.len()));
            for ((i, p), g) in image.iter().zip(&prompt).zip(&own) {
                assert!((i + p + g - 1.0).abs() < 1e-4 && *i > 0.0, "{i} + {p} + {g}");
            }
        }
        let summary = &file["models"][k]["summary"];
        assert_eq!((&summary["responses"], &summary["with_image"]), (&6.into(), &6.into()));
        assert_eq!(summary["relative"].as_array().unwrap().len(), 20);
        let maps: Vec<_> = std::fs::read_dir(dir.join(format!("two/maps{suffix}"))).unwrap().collect();
        assert_eq!(maps.len(), 2);
        for plot in ["attention_relative", "attention_absolute", "accumulation", "focus_ratio", "focus_attention"] {
            let svg = std::fs::read_to_string(dir.join(format!("two/{plot}{suffix}.svg"))).unwrap();
            assert!(svg.starts_with("<svg ") && !svg.contains("NaN"), "{plot}{suffix}");
        }
    }
    assert!(dir.join("two/compare_image.svg").exists() && dir.join("two/compare_focus.svg").exists());

    // The same call gives the same numbers; a folder with results is not written over.
    let output = analyze(dir, &[&["--model", a.as_str(), "--out", "again"][..], &common[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(lines(dir.join("again/responses.jsonl")), lines(dir.join("two/responses_before.jsonl")));
    let output = analyze(dir, &[&["--model", a.as_str(), "--out", "again"][..], &common[..]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("is not empty"), "{}", text(&output));
}

#[test]
fn text_only_rows_have_no_attention_on_images() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(
        dir.join("rows.jsonl"),
        "{\"problem\": \"What is 2+2?\", \"answer\": \"4\"}\n{\"problem\": \"And 3+3?\", \"answer\": \"6\"}\n",
    )
    .unwrap();
    let output =
        analyze(dir, &["--model", &model("tied_gqa"), "--data", "rows.jsonl", "--max-new-tokens", "6", "--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("no row of rows.jsonl has a picture"), "{}", text(&output));
    let summary = &json(dir.join("out/analysis.json"))["models"][0]["summary"];
    assert_eq!((&summary["with_image"], &summary["attention"][0]), (&0.into(), &0.0.into()));
    assert_eq!(summary["accumulation"]["all"], Value::Null);
    assert!(dir.join("out/attention_relative.svg").exists() && !dir.join("out/accumulation.svg").exists());
    assert!(!dir.join("out/maps").exists());
}

/// Worked responses of the toy world and of a file of one's own, whose rows say where their parts are.
#[test]
fn forgetting_where_parts_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let data = "toy:multistep?rows=2&cols=2&terms=2&fresh=0&distractors=0&split=test";
    let (m, exchanged) = (model("tied_gqa"), format!("{data}&exchange=1"));
    let common = ["--limit", "5", "--max-new-tokens", "4", "--maps", "0"];
    let args = ["--model", &m, "--data", data, "--exchanged", &exchanged, "--out", "toy"];
    let output = analyze(dir, &[&args[..], &common].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("error at fresh parts"), "{}", text(&output));
    let found = &json(dir.join("toy/analysis.json"))["models"][0]["forgetting"];
    let parts = |value: &Value| value["parts"].as_u64().unwrap();
    let of = |kind: &str| found[kind].as_array().unwrap().iter().map(parts).sum::<u64>();
    // Two lines of a 2 x 2 grid read four digits; a row and a column share a cell.
    assert_eq!((found["rows"].as_u64(), of("fresh") + of("copied")), (Some(5), 20));
    assert_eq!(parts(&found["early"]) + parts(&found["late"]), of("fresh"));
    assert_eq!(parts(&found["exchanged_fresh"]), of("fresh") - 10, "two of a row's four are early");

    let row = r#"{"problem": "What is 2+2?", "answer": "4", "solution": "2+2=4", "parts": [{"at": 4, "fresh": true}]}"#;
    std::fs::write(dir.join("rows.jsonl"), format!("{row}\n{row}\n")).unwrap();
    let output = analyze(dir, &[&["--model", &m, "--data", "rows.jsonl", "--out", "own"][..], &common].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let found = &json(dir.join("own/analysis.json"))["models"][0]["forgetting"];
    assert_eq!((parts(&found["late"]), parts(&found["early"]), &found["attention"]), (2, 0, &Value::Null));
    std::fs::write(dir.join("rows.jsonl"), row.replace("\"at\": 4", "\"at\": 9")).unwrap();
    let output = analyze(dir, &[&["--model", &m, "--data", "rows.jsonl", "--out", "bad"][..], &common].concat());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("column parts") && text(&output).contains("5 bytes"), "{}", text(&output));
}

#[test]
fn bad_input() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("broken.jsonl"), "{\"problem\": \"<image>x\", \"answer\": \"4\", \"images\": []}\n")
        .unwrap();
    let m = model("tied_gqa");
    let good = ["--model", m.as_str(), "--data", "toy:sum", "--out", "out"];
    for (more, expected) in [
        (&["--samples", "0"][..], "--samples is 0"),
        (&["--samples", "2"], "--temperature above 0"),
        (&["--temperature", "-1"], "--temperature -1"),
        (&["--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (&["actor.optim.lr=1"], "no setting of analyze"),
        (&["data.rollout_batch_size=1"], "no setting of analyze"),
        (&["data.format_prompt=nothing.jinja"], "nothing.jinja"),
        (&["--compare", "nowhere"], "nowhere"),
    ] {
        let output = analyze(dir, &[&good[..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}", text(&output));
        assert!(text(&output).contains(expected), "{more:?}: {}", text(&output));
        assert!(!dir.join("out").exists(), "{more:?} wrote something");
    }
    for (data, expected) in
        [("nowhere.parquet", "nowhere.parquet"), ("toy:add", "no toy task"), ("broken.jsonl", "none of its rows")]
    {
        let output = analyze(dir, &["--model", &m, "--data", data, "--out", "out"]);
        assert_eq!(output.status.code(), Some(2), "{data}: {}", text(&output));
        assert!(text(&output).contains(expected), "{data}: {}", text(&output));
    }
}
