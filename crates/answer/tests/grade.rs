//! The `grade` binary on files that are right, wrong and broken.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn run(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_grade"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The program may end without reading all of it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit code, output lines and stderr.
fn graded(args: &[&str], input: &str) -> (i32, Vec<Value>, String) {
    let output = run(args, input.as_bytes());
    let rows = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), rows, text(&output.stderr))
}

/// The rows of a run that must succeed.
fn ok(args: &[&str], input: &str) -> Vec<Value> {
    let (code, rows, stderr) = graded(args, input);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    rows
}

/// The stderr of a run that must end with this code.
fn fails(code: i32, args: &[&str], input: &str) -> String {
    let (found, _, stderr) = graded(args, input);
    assert_eq!(found, code, "{args:?}: {stderr}");
    stderr
}

fn numbers(row: &Value) -> [f64; 3] {
    ["accuracy", "format", "overall"].map(|key| row[key].as_f64().unwrap())
}

#[test]
fn given_answers_by_each_grader() {
    let rows = [
        // given, truth, right by: mathruler, math, multiple_choice, exact, numeric
        (r"\frac{1}{2}", "0.5", [true, true, false, false, true]),
        (r"2\sqrt{3}", r"\sqrt{12}", [true, true, false, false, true]),
        ("(B) 35", "B", [false, true, true, false, false]),
        ("New  York", "new york", [true, true, false, true, false]),
        ("3.00001", "3", [false, false, false, false, true]),
        ("x > 3", r"(3,\infty)", [false, true, false, false, false]),
    ];
    let input: String = rows
        .iter()
        .map(|(given, truth, _)| json!({"given": given, "ground_truth": truth}).to_string() + "\n")
        .collect();
    for (at, name) in ["mathruler", "math", "multiple_choice", "exact", "numeric"].into_iter().enumerate() {
        let found = ok(&["--grader", name], &input);
        assert_eq!(found.len(), rows.len(), "{name}");
        for (row, (given, truth, right)) in found.iter().zip(&rows) {
            let accuracy = f64::from(u8::from(right[at]));
            assert_eq!(numbers(row), [accuracy, 1.0, 0.9 * accuracy + 0.1], "{name}: {given} | {truth}");
            assert_eq!(row["extracted"], **given);
        }
    }
    // The rules with a reward of their own.
    let input = "{\"given\": \"3\", \"ground_truth\": \"3\"}\n{\"given\": \"4\", \"ground_truth\": \"3\"}\n";
    let overall = |args: &[&str]| ok(args, input).iter().map(|row| numbers(row)[2]).collect::<Vec<_>>();
    assert_eq!(overall(&[]), [1.0, 0.1]);
    assert_eq!(overall(&["--grader", "math_accuracy"]), [1.0, 0.0]);
    assert_eq!(overall(&["--grader", "dapo"]), [1.0, -1.0]);
    assert_eq!(overall(&["--reward-type", "dapo", "--grader", "math"]), [1.0, -1.0]);
    assert_eq!(overall(&["--grader", "r1v", "--accuracy-weight", "0.5", "--format-weight", "0.5"]), [1.0, 0.5]);
    assert_eq!(overall(&["--grader", "numeric", "--numeric-tolerance", "0.5"]), [1.0, 1.0]);
}

#[test]
fn responses_by_each_rule() {
    let grade = |args: &[&str], response: &str| {
        let row = json!({"response": response, "ground_truth": "3", "response_length": 90}).to_string();
        let row = ok(args, &row).remove(0);
        (numbers(&row), row["extracted"].clone(), row.get("reward/overlong").cloned())
    };
    assert_eq!(grade(&[], r"<think>x</think> \boxed{3}"), ([1.0, 1.0, 1.0], json!("3"), None));
    assert_eq!(grade(&[], "the answer is 3"), ([0.0, 0.0, 0.0], Value::Null, None));
    assert_eq!(grade(&["--reward-type", "math_accuracy"], r"\boxed{3}").0, [1.0, 0.0, 1.0]);
    assert_eq!(grade(&["--grader", "r1v"], "<think>x</think><answer>3</answer>").0, [1.0, 1.0, 1.0]);
    let overlong =
        ["--max-response-length", "100", "--overlong-buffer-length", "20", "--overlong-penalty-factor", "0.5"];
    let args = [&["--grader", "dapo"], &overlong[..]].concat();
    assert_eq!(grade(&args, "so\nAnswer: 3"), ([1.0, 1.0, 0.75], json!("3"), Some(json!(-0.5))));
    assert_eq!(grade(&["--grader", "multiple_choice"], r"\boxed{A}").0[0], 0.0);
    assert_eq!(grade(&["--grader", "exact"], "Answer: 3").0, [1.0, 1.0, 1.0]);
}

#[test]
fn lines_keep_their_keys_order_and_values() {
    let line = r#"{"z": 1.10, "id": 12345678901234567890123, "given": 3, "Ünï": {"b": [1e5, null], "a": 2}, "ground_truth": 3.0, "accuracy": "old", "reward/x": 7}"#;
    let output = run(&["--grader", "mathruler"], line.as_bytes());
    assert_eq!(
        text(&output.stdout),
        r#"{"z": 1.10, "id": 12345678901234567890123, "given": 3, "Ünï": {"b": [1e5, null], "a": 2}, "ground_truth": 3.0, "accuracy": 1.0, "format": 1.0, "overall": 1.0, "extracted": "3"}"#
            .to_owned()
            + "\n"
    );
    // Graded again, it stays the same.
    assert_eq!(run(&[], &output.stdout).stdout, output.stdout);
    let rows = ok(
        &["--given-key", "predict", "--truth-key", "label", "--grader", "exact"],
        "{\"predict\": true, \"label\": \"True\"}\r\n\n   \n{\"label\": 5, \"predict\": \"5\", \"given\": \"x\"}",
    );
    assert_eq!(rows.iter().map(|row| numbers(row)[0]).collect::<Vec<_>>(), [1.0, 1.0]);
    let rows = ok(&["--response-key", "text"], r#"{"text": "\\boxed{1}", "ground_truth": "1"}"#);
    assert_eq!(numbers(&rows[0])[0], 1.0);
}

#[test]
fn bad_lines_are_named_counted_and_marked() {
    let mut input = br#"{"given": "1", "ground_truth": "1"}
{"given": "1", "ground_truth": "1"
not json
{"given": "1"}
{"ground_truth": "1"}
{"given": "1", "ground_truth": ["1", "2"]}
{"given": null, "ground_truth": "1"}
[1, 2]
{"given": "\ud800", "ground_truth": "1"}
{"response": "1", "ground_truth": "1", "response_length": "long"}
{"given": "1", "ground_truth": {}}
"#
    .to_vec();
    input.extend(b"{\"given\": \"\xff\", \"ground_truth\": \"1\"}\n{\"given\": \"2\", \"ground_truth\": \"1\"}\n");
    let output = run(&[], &input);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{err}");
    // Half a surrogate pair stays as it was written, which this parser refuses.
    let out = out.replace(r"\ud800", "?");
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 13);
    for (at, problem) in [
        (2, "the line is not a JSON object: EOF while parsing"),
        (3, "the line is not a JSON object: expected"),
        (4, "the line has no `ground_truth`"),
        (5, "the line has neither `given` nor `response`"),
        (6, "`ground_truth` is a list, not a string or a number; write it as one string"),
        (7, "`given` is null, not a string or a number"),
        (8, "the line is not a JSON object: invalid type: sequence"),
        (9, "`given` is not text: "),
        (10, "`response_length` is \"long\", not a whole number of tokens"),
        (11, "`ground_truth` is an object"),
        (12, "the line is not UTF-8 (byte 12)"),
    ] {
        let found = rows[at - 1]["error"].as_str().unwrap_or_else(|| panic!("line {at}: {out}"));
        assert!(found.starts_with(problem), "line {at}: {found}");
        assert!(err.contains(&format!("standard input:{at}: {problem}")), "{err}");
        assert!(rows[at - 1].get("accuracy").is_none());
    }
    // What could be read is still there, and lines that could not be read are named.
    assert_eq!(rows[5]["ground_truth"], json!(["1", "2"]));
    assert_eq!((&rows[2]["line"], &rows[2]["text"]), (&json!(3), &json!("not json")));
    assert_eq!((numbers(&rows[0])[0], numbers(&rows[12])[0]), (1.0, 0.0));
    assert!(err.contains("2 rows graded by math, mathruler in ") && err.contains("mean accuracy 0.5000"), "{err}");
    assert!(err.contains("; 11 lines could not be graded"), "{err}");

    let many = "nothing\n".repeat(50) + "{\"given\": 1, \"ground_truth\": 1}";
    let err = fails(1, &[], &many);
    assert!(err.contains("standard input:20:") && !err.contains("standard input:21:"), "{err}");
    assert!(err.contains("... and 30 more lines that could not be graded"), "{err}");
}

/// Editors on Windows begin a file with a byte order mark.
#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let line = r#"{"given": "1", "ground_truth": "1"}"#;
    let rows = ok(&[], &format!("\u{feff}{line}\n{line}\n"));
    assert_eq!(rows.iter().map(|row| row["accuracy"].as_f64()).collect::<Vec<_>>(), [Some(1.0); 2]);
    // Anywhere else it is a character like others.
    assert!(fails(1, &[], &format!("{line}\n\u{feff}{line}\n")).contains("standard input:2:"));
}

#[test]
fn bad_usage_is_refused_with_the_reason() {
    let row = "{\"given\": \"1\", \"ground_truth\": \"1\"}";
    for (args, reason) in [
        (
            &["--grader", "maths"][..],
            "[possible values: mathruler, math, math_accuracy, look_back, r1v, dapo, multiple_choice, exact, numeric]",
        ),
        (&["--reward-type", "maths"], "invalid value 'maths' for '--reward-type"),
        (&["--grader", "dapo", "--reward-type", "r1v"], "--grader dapo and --reward-type r1v name two rules"),
        (&["--grader", "math", "--reward-type", "exact"], "--grader means nothing to the rule `exact`"),
        (&["--grader", "exact", "--numeric-tolerance", "1"], "--numeric-tolerance means nothing to the rule `exact`"),
        (&["--grader", "dapo", "--format-weight", "1"], "--format-weight means nothing to the rule `dapo`"),
        (&["--accuracy-weight=-1"], "reward.accuracy_weight: -1 is not allowed"),
        (&["--accuracy-weight", "x"], "invalid value 'x'"),
        (&["--grader", "dapo", "--max-response-length", "5"], "--overlong-buffer-length"),
        (&["--grader", "math", "--command", "cat"], "cannot be used with"),
        (&["--command-timeout-s", "5"], "--command"),
        (&["/no/such/file.jsonl"], "/no/such/file.jsonl: cannot be opened"),
        (&["/tmp"], "/tmp: is a folder; name a file of JSON lines"),
        (&["--out", "/no/such/folder/x"], "--out /no/such/folder/x: cannot be written"),
        (&["--out", "/tmp"], "it is a folder"),
        (&["--colour"], "unexpected argument"),
    ] {
        let err = fails(2, args, row);
        assert!(err.contains(reason), "{args:?}: {err}");
        assert!(!err.contains("panicked"), "{err}");
    }
    assert!(fails(2, &[], "").contains("standard input: no lines to grade"));
    assert!(fails(2, &[], "\n\n").contains("no lines to grade"));
    assert!(fails(2, &[], "rubbish\n").contains("0 rows graded by math, mathruler"));
    // The overlong penalty needs lengths.
    let args = ["--grader", "dapo", "--max-response-length", "5", "--overlong-buffer-length", "1"];
    assert!(fails(2, &args, row).contains("no `response_length`, in tokens, which the overlong penalty needs"));
}

#[test]
fn files_are_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("answers.jsonl");
    let path = file.display().to_string();
    std::fs::write(&file, "{\"given\": \"1\", \"ground_truth\": \"1\"}\n".repeat(20_000)).unwrap();
    // The file itself may be the output.
    assert_eq!(ok(&[&path, "--out", &path], ""), [] as [Value; 0]);
    let rows = std::fs::read_to_string(&file).unwrap();
    assert_eq!(rows.lines().count(), 20_000);
    assert!(
        rows.lines().all(|line| line.ends_with(r#""accuracy": 1.0, "format": 1.0, "overall": 1.0, "extracted": "1"}"#))
    );
    let left = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
    assert_eq!(left(dir.path()), 1);
    // A command that fails leaves nothing behind, and the older file stays.
    let err = fails(1, &[&path, "--out", &path, "--command", "sh", "-c", "echo sorry >&2; exit 3"], "");
    assert!(err.contains("exited with status 3") && err.contains("| sorry"), "{err}");
    assert_eq!((left(dir.path()), std::fs::read_to_string(&file).unwrap() == rows), (1, true));
}

#[test]
#[cfg(unix)]
fn a_command_grades_what_can_be_read() {
    let script = r#"
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps({"overall": len(row["response"]), "id_length": len(row["id"])}), flush=True)
"#;
    let input = "{\"id\": 123, \"response\": \"abc\", \"ground_truth\": 1}\nbad\n{\"given\": \"ab\", \"ground_truth\": \"1\"}\n";
    let args = ["--command-timeout-s", "20", "--command-batch-size", "1", "--command", "python3", "-c", script];
    let (code, rows, err) = graded(&args, input);
    assert_eq!(code, 1, "{err}");
    assert_eq!(numbers(&rows[0]), [3.0, 0.0, 3.0]);
    assert_eq!((&rows[0]["reward/id_length"], &rows[0]["extracted"]), (&json!(3.0), &Value::Null));
    assert!(rows[1]["error"].is_string());
    assert_eq!(numbers(&rows[2]), [2.0, 0.0, 2.0]);
    assert!(err.contains("2 rows graded by python3"), "{err}");
    let err = fails(2, &["--command", "./no-such-program"], "{\"given\": 1, \"ground_truth\": 1}");
    assert!(err.contains("cannot start `./no-such-program`"), "{err}");
    let err =
        fails(1, &["--command", "sh", "-c", "echo garbage; cat >/dev/null"], "{\"given\": 1, \"ground_truth\": 1}");
    assert!(err.contains("garbage"), "{err}");
}

#[test]
fn a_reader_that_stops_is_no_error() {
    let row = "{\"given\": \"1\", \"ground_truth\": \"1\"}\n".repeat(30_000);
    let mut child = Command::new(env!("CARGO_BIN_EXE_grade"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    drop(child.stdout.take());
    let writer = std::thread::spawn(move || drop(stdin.write_all(row.as_bytes())));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    writer.join().unwrap();
}

#[test]
fn an_audit_groups_disagreements() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.jsonl");
    let audit = path.display().to_string();
    let input: String = [("2/4", "1/2"), ("3/9", "1/3"), ("3", "3"), ("4", "3"), ("12 apples", "12")]
        .iter()
        .enumerate()
        .map(|(id, (given, truth))| json!({"id": id, "given": given, "ground_truth": truth}).to_string() + "\n")
        .collect();
    let output = run(&["--audit", &audit], input.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.starts_with("5 answers compared, 3 disagreements (60.0%)"), "{table}");
    assert!(table.contains("mathruler rejects an unreduced fraction | 2 | 0 | 2 |"), "{table}");
    let found: Vec<Value> =
        std::fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0]["kind"], "unreduced_fraction");
    assert_eq!((&found[2]["kind"], &found[2]["id"], &found[2]["choice"]), (&json!("unit"), &json!("4"), &Value::Null));

    // A run folder: what the rule found stands in `extracted`, null where there was nothing.
    let rollouts = folder.path().join("run/rollouts");
    std::fs::create_dir_all(&rollouts).unwrap();
    let line = |extracted: Value| {
        json!({"id": "a", "answer": "1/2", "response": "r", "extracted": extracted}).to_string() + "\n"
    };
    std::fs::write(rollouts.join("step_1.jsonl"), line(json!("2/4")) + &line(Value::Null)).unwrap();
    let run_folder = folder.path().join("run").display().to_string();
    let output = run(&[run_folder.as_str(), "--audit", audit.as_str()], b"");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("1 answers compared, 1 disagreements"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("1 responses without an answer"), "{}", text(&output.stderr));
    assert!(fails(2, &["--audit", &audit, "--grader", "math"], "").contains("cannot be used with"));
}

#[test]
fn a_size_beyond_its_range_is_named() {
    let output = run(&["--max-response-length", "1000000000000", "--overlong-buffer-length", "4"], b"");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in ["--max-response-length", "1000000000000", "0..=1048576"] {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}
