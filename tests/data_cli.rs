//! The `data` binary in temporary folders.

use std::path::Path;
use std::process::{Command, Output};

use data::{Dataset, Keys, Sample, toy};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_data")).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Exit code 0; returns what was printed.
fn ok(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

fn rows(path: &Path) -> Vec<Sample> {
    let dataset = Dataset::open(&[path.display().to_string().into()], &Keys::default(), None).unwrap();
    (0..dataset.len()).map(|i| dataset.get(i).unwrap()).collect()
}

/// Everything but where the bytes of the pictures lie.
fn content(samples: &[Sample]) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    let images = |s: &Sample| s.images.iter().map(|i| i.load().unwrap().into_owned()).collect::<Vec<_>>();
    let row =
        |s: &Sample| (s.id.clone(), s.problem.clone(), s.answer.clone(), s.task.clone(), s.solution.clone(), images(s));
    samples.iter().map(row).collect()
}

#[test]
fn toy_to_parquet_to_json_lines_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    let said = ok(&["toy", "sum?rows=1-2&cols=2&size=600&seed=4", "-o", &path("a.parquet")]);
    assert!(said.contains("600 rows, 0 left out"), "{said}");
    ok(&["convert", &path("a.parquet"), "-o", &path("b.jsonl")]);
    ok(&["convert", &path("b.jsonl"), "-o", &path("c.jsonl"), "--pictures", "base64"]);
    ok(&["convert", &path("c.jsonl"), "-o", &path("d.parquet"), "--limit", "50"]);
    let a = rows(&file("a.parquet"));
    let spec = toy::ToySpec::parse("sum?rows=1-2&cols=2&size=600&seed=4").unwrap();
    assert_eq!(a.len(), 600);
    assert_eq!(a[577].solution, Some(spec.problem(577).solution));
    assert_eq!(content(&rows(&file("b.jsonl"))), content(&a));
    assert_eq!(content(&rows(&file("c.jsonl"))), content(&a));
    assert_eq!(content(&rows(&file("d.parquet"))), content(&a[..50]));
    assert!(file("b_images/000577_0.png").is_file());
    assert!(!file("a.parquet.unfinished").exists());
}

#[test]
fn inspect_counts_tokens_and_names_what_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    toy::write_processor_files(&model).unwrap();
    let model = model.display().to_string();
    let said = ok(&["inspect", "toy:sum?rows=1&cols=1-3&size=90"]);
    assert!(said.contains("toy:sum?rows=1&cols=1-3&size=90: 90 rows"), "{said}");
    assert!(said.contains("rows by task: sum: 90") && said.contains("set aside: 0 of 90"), "{said}");
    assert!(said.contains("wider side of a picture in pixels: min 28, median 56, 95% 84, max 84"), "{said}");
    assert!(!said.contains("tokens"), "{said}");

    // 1 to 3 image tokens and 15 others: <|im_start|>user\n <|vision_start|><|vision_end|> sum? <|im_end|>\n
    // <|im_start|>assistant\n
    let with = ["inspect", "toy:sum?rows=1&cols=1-3&size=90", "--model", &model, "--format-prompt", "none"];
    let said = ok(&with);
    assert!(said.contains("prompt length in tokens, pictures included: min 15, median 16, 95% 17, max 17"), "{said}");
    let said = ok(&[&with[..], &["--max-prompt-length", "16"]].concat());
    assert!(said.contains("the prompt has 17 tokens, more than max_prompt_length 16"), "{said}");

    let bad = dir.path().join("bad.jsonl");
    let lines = [
        "{\"problem\": \"<image>x\", \"answer\": 1}",
        "{\"problem\": \"y\", \"answer\": \"\", \"extra\": 1}",
        "broken",
    ];
    std::fs::write(&bad, lines.join("\n")).unwrap();
    let said = ok(&["inspect", &bad.display().to_string()]);
    assert!(said.contains("set aside: 3 of 3"), "{said}");
    assert!(said.contains("row 0: placeholder count differs"), "{said}");
    assert!(said.contains("row 1: the answer is empty"), "{said}");
    assert!(said.contains("row 2: not JSON"), "{said}");
}

#[test]
fn check_grades_every_answer_against_itself() {
    for task in toy::TASKS {
        let said = ok(&["check", &format!("toy:{}?size=60", task.name())]);
        assert_eq!(said, "60 of 60 rows are good\n");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.jsonl");
    let lines = [
        r#"{"problem": "a", "answer": "\\frac{1}{2}"}"#,
        r#"{"problem": "b", "answer": "3", "solution": "<think>1+1</think>\\boxed{2}"}"#,
        r#"{"problem": "<image>c", "answer": "1", "images": ["gone.png"]}"#,
        r#"{"problem": "d", "answer": "{2"}"#,
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let output = run(&["check", &path.display().to_string(), "--grader", "math"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stdout(&output);
    assert!(said.contains("row 1: the solution is graded wrong against the answer \"3\""), "{said}");
    assert!(said.contains("row 2: image 1: cannot read") && said.contains("gone.png"), "{said}");
    assert!(said.contains("row 3: the answer \"{2\" is graded wrong against itself"), "{said}");
    assert!(said.ends_with("1 of 4 rows are good\n"), "{said}");
}

#[test]
fn a_million_toy_rows_are_looked_at_on_request_only() {
    for command in ["inspect", "check"] {
        let output = run(&[command, "toy:sum?rows=9&cols=9&size=1000000"]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("1000000 rows") && stderr(&output).contains("--limit"), "{}", stderr(&output));
    }
    assert!(ok(&["inspect", "toy:sum?rows=9&cols=9&size=1000000", "--limit", "3"]).contains("set aside: 0 of 3"));
}

#[test]
fn an_audit_lists_where_the_graders_disagree() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let lines = [
        r#"{"id": "same", "problem": "a", "answer": "3", "solution": "\\boxed{3}"}"#,
        r#"{"id": "sets", "problem": "b", "answer": "\\{1, 2\\}", "solution": "\\boxed{\\{2, 1\\}}"}"#,
        r#"{"id": "none", "problem": "c", "answer": "3"}"#,
    ];
    std::fs::write(path("x.jsonl"), lines.join("\n")).unwrap();
    let output = run(&["check", &path("x.jsonl"), "--audit", &path("audit.jsonl")]);
    assert!(stdout(&output).contains("audit.jsonl written"), "{}{}", stdout(&output), stderr(&output));
    let text = std::fs::read_to_string(path("audit.jsonl")).unwrap();
    let found: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 1, "{text}");
    assert_eq!(
        (&found[0]["id"], &found[0]["mathruler"], &found[0]["math"]),
        (&"sets".into(), &false.into(), &true.into())
    );
    let refused = run(&["check", &path("x.jsonl"), "--audit", &path("")]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(stderr(&refused).contains("name a file"), "{}", stderr(&refused));
}

#[test]
fn mistakes_of_use_end_with_code_two_and_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.parquet").display().to_string();
    for args in [
        vec!["inspect", "no/such/file.parquet"],
        vec!["inspect", "toy:sum", "--model", "/no/such/model"],
        vec!["toy", "addition", "-o", &out],
        vec!["toy", "sum?size=3", "-o", "x.csv"],
        vec!["convert", "toy:sum?size=3", "-o", &out, "--pictures", "base64"],
        vec!["convert", "toy:sum?size=3", "-o", "/no/such/folder/x.parquet"],
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = stderr(&output);
        assert!(error.starts_with("error: ") && error.lines().count() == 1, "{args:?}: {error}");
    }
    assert_eq!(run(&["inspect"]).status.code(), Some(2));
    assert_eq!(run(&["check", "toy:sum", "--grader", "guess"]).status.code(), Some(2));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_can_be_made_of_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    ok(&["toy", "sum?rows=1&cols=2&size=3&seed=1", "-o", &path("a.jsonl")]);
    ok(&["toy", "sum?rows=1&cols=2&size=3&seed=2", "-o", &path("b.jsonl")]);
    let both = [rows(&file("b.jsonl")), rows(&file("a.jsonl"))].concat();
    let pictures: Vec<Vec<u8>> = both.iter().map(|s| s.images[0].load().unwrap().into_owned()).collect();
    ok(&["convert", &path("b.jsonl"), &path("a.jsonl"), "-o", &path("a.jsonl")]);
    let found = rows(&file("a.jsonl"));
    assert_eq!(found.iter().map(|s| s.images[0].load().unwrap().into_owned()).collect::<Vec<_>>(), pictures);
    // What fails leaves everything as it was.
    std::fs::write(file("bad.jsonl"), "{\"problem\": \"x\", \"answer\": null}\n").unwrap();
    let before = content(&rows(&file("a.jsonl")));
    assert_eq!(run(&["convert", &path("bad.jsonl"), "-o", &path("a.jsonl")]).status.code(), Some(2));
    assert_eq!(content(&rows(&file("a.jsonl"))), before);
    // Pictures of others are not replaced.
    std::fs::write(file("b_images/mine.png"), "x").unwrap();
    let refused = run(&["convert", &path("a.jsonl"), "-o", &path("b.jsonl")]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("which holds mine.png; remove it or choose another name"),
        "{}",
        stderr(&refused)
    );
    std::fs::create_dir(file("c_images")).unwrap();
    let refused = run(&["convert", &path("a.jsonl"), "-o", &path("c.jsonl")]);
    assert!(stderr(&refused).contains("which another file may need"), "{}", stderr(&refused));
    let left = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.contains("unfinished")).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn further_columns_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    let lines = [
        r#"{"id": "1", "problem": "Which?", "answer": "B", "options": ["3", "5"], "level": 2}"#,
        r#"{"id": "2", "problem": "What?", "answer": "7", "problem_version": "Vision Only", "meta": {"a": 1}}"#,
    ];
    std::fs::write(file("a.jsonl"), lines.join("\n")).unwrap();
    ok(&["convert", &path("a.jsonl"), "-o", &path("b.parquet")]);
    ok(&["convert", &path("b.parquet"), "-o", &path("c.jsonl")]);
    let extra = ["level", "meta", "options", "problem_version"].map(str::to_owned).to_vec();
    for name in ["b.parquet", "c.jsonl"] {
        let keys = Keys { extra: extra.clone(), ..Keys::default() };
        let dataset = Dataset::open(&[path(name).into()], &keys, None).unwrap();
        let found: Vec<Vec<(String, String)>> =
            (0..2).map(|i| dataset.get(i).unwrap().extra.into_iter().collect()).collect();
        let row = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert_eq!(found[0], row(&[("level", "2"), ("options", r#"["3","5"]"#)]), "{name}");
        assert_eq!(found[1], row(&[("meta", r#"{"a":1}"#), ("problem_version", "Vision Only")]), "{name}");
    }
    // A column that is pictures cannot be text.
    ok(&["toy", "sum?rows=1&cols=2&size=3", "-o", &path("toy.parquet")]);
    let said = run(&["convert", &path("toy.parquet"), "-o", &path("d.jsonl"), "--image-key", "none"]);
    assert_eq!(said.status.code(), Some(0));
    assert!(stderr(&said).contains("the column \"images\" (") && stderr(&said).contains("cannot be carried over"));
    assert_eq!(rows(&file("d.jsonl"))[0].extra.len(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_no_mistake_of_use() {
    let dir = tempfile::tempdir().unwrap();
    for (name, more) in [("full.jsonl", ["--pictures", "base64"]), ("full.parquet", ["--limit", "9"])] {
        let output = dir.path().join(name);
        std::os::unix::fs::symlink("/dev/full", dir.path().join(format!("{name}.unfinished"))).unwrap();
        let done = run(&[&["convert", "toy:sum?size=9", "-o", &output.display().to_string()], &more[..]].concat());
        let said = stderr(&done);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.starts_with(&format!("error: cannot write {}: ", output.display())), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Numbers beyond 2^64 and decimals of many digits, as answers, ids and further columns, through both forms.
#[test]
fn long_numbers_are_converted_as_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let long = "12345678901234567890123";
    let rows = format!(
        "{{\"id\": {long}, \"problem\": \"a\", \"answer\": {long}, \"more\": [{long}, 0.12345678901234567890]}}\n\
         {{\"id\": 2, \"problem\": \"b\", \"answer\": 2.718281828459045235360287, \"more\": 18446744073709551616}}\n"
    );
    std::fs::write(path("a.jsonl"), &rows).unwrap();
    ok(&["convert", &path("a.jsonl"), "-o", &path("b.parquet")]);
    ok(&["convert", &path("b.parquet"), "-o", &path("c.jsonl")]);
    ok(&["convert", &path("c.jsonl"), "-o", &path("d.jsonl")]);
    for name in ["c.jsonl", "d.jsonl"] {
        let lines: Vec<serde_json::Value> = std::fs::read_to_string(path(name))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!((&lines[0]["id"], &lines[0]["answer"]), (&long.into(), &long.into()));
        assert_eq!(lines[0]["more"], format!("[{long},0.12345678901234567890]"));
        assert_eq!(lines[1]["answer"], "2.718281828459045235360287");
        assert_eq!(lines[1]["more"], "18446744073709551616");
    }
}
