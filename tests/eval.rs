//! The real `eval` in temporary folders: batch sizes, interruptions, answers made elsewhere, and what cannot be used.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use data::{Dataset, Keys};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/tied_gqa")
}

/// `eval` with the fixture model, answers of at most 12 tokens, and more options, split at blanks.
fn call(out: &Path, options: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eval"));
    command.arg("--model").arg(model()).arg("--out").arg(out).args(["--backend", "flex", "--max-new-tokens", "12"]);
    command.args(options.split_whitespace()).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn ok(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code 2 and one line that has all of these.
#[track_caller]
fn refused(command: &mut Command, needles: &[&str]) {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
    assert!(said.starts_with("error: "), "{command:?}: {said}");
    for needle in needles {
        assert!(said.contains(needle), "{command:?}: no {needle:?} in {said}");
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

fn lines(path: impl AsRef<Path>) -> Vec<Value> {
    read(path).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn results(out: &Path) -> Value {
    serde_json::from_str(&read(out.join("results.json"))).unwrap()
}

const SUMS: &str = "--benchmark sums=toy:sum?rows=1-2&cols=1-3&split=test&size=23";

#[test]
fn the_batch_size_changes_nothing() {
    let dir = tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    for (kind, options) in [("greedy", ""), ("sampled", "--samples 3 --temperature 1.0 --top-p 0.9 --seed 5")] {
        let mut tables = Vec::new();
        for batch in [1, 3, 16] {
            let out = out(&format!("{kind}_{batch}"));
            let table = ok(&mut call(&out, &format!("{SUMS} {options} --batch-size {batch}")));
            let files = ["sums.jsonl", "results.md", "results.json", "results.csv"].map(|f| read(out.join(f)));
            assert_eq!(table, files[1]);
            tables.push(files);
        }
        assert_eq!(tables[0], tables[1], "{kind}");
        assert_eq!(tables[0], tables[2], "{kind}");
    }
    let (greedy, sampled) = (lines(out("greedy_1/sums.jsonl")), lines(out("sampled_1/sums.jsonl")));
    assert_eq!((greedy.len(), sampled.len()), (23, 69));
    assert_ne!(sampled[0]["response"], sampled[1]["response"]);
    let score = results(&out("sampled_1"));
    let score = &score["benchmarks"][0];
    assert_eq!((&score["questions"], &score["answers"]), (&json!(23), &json!(69)));
    assert!(score["groups"][0]["value"] == "sum", "{score}");
    // Another seed, other answers; another name, too.
    let other = out("other");
    ok(&mut call(&other, &format!("{SUMS} --samples 3 --temperature 1.0 --top-p 0.9 --seed 6")));
    assert_ne!(lines(other.join("sums.jsonl"))[0]["response"], sampled[0]["response"]);
}

fn wait(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Starts a call and sends it a signal once the file has `count` lines; its exit code.
#[cfg(unix)]
fn interrupt(command: &mut Command, file: &Path, count: usize, signal: &str) -> Option<i32> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let lines = || std::fs::read_to_string(file).map_or(0, |text| text.matches('\n').count());
    while lines() < count && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "no {count} lines");
        std::thread::sleep(Duration::from_millis(1));
    }
    // A signal that hits nothing tests nothing.
    let ended = child.try_wait().unwrap();
    assert!(ended.is_none(), "the run had ended by itself ({ended:?}) before SIG{signal}");
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    wait(child).status.code()
}

#[cfg(unix)]
#[test]
fn a_killed_run_goes_on_to_the_same_result() {
    let dir = tempdir().unwrap();
    let options =
        "--benchmark sums=toy:sum?rows=1-2&cols=1-3&split=test&size=60 --samples 2 --temperature 1 --batch-size 2";
    let whole = dir.path().join("whole");
    ok(&mut call(&whole, options));
    let cut = dir.path().join("cut");
    let file = cut.join("sums.jsonl");
    let mut counts = Vec::new();
    for (count, signal, code) in [(4, "TERM", Some(130)), (30, "KILL", None), (60, "INT", Some(130))] {
        assert_eq!(interrupt(&mut call(&cut, options), &file, count, signal), code, "{signal}");
        counts.push(read(&file).matches('\n').count());
        assert!(!cut.join("results.md").exists());
    }
    assert!(counts[0] >= 4 && counts[0] < counts[1] && counts[2] >= 60, "{counts:?}");
    // Half a line, as a full disk or a kill leaves it.
    let text = read(&file);
    std::fs::write(&file, &text[..text.len() - 7]).unwrap();
    ok(&mut call(&cut, options));
    for name in ["sums.jsonl", "results.md", "results.json", "results.csv"] {
        assert_eq!(read(cut.join(name)), read(whole.join(name)), "{name}");
    }
    // Once done, nothing is asked again; with other settings nothing is mixed.
    ok(&mut call(&cut, options));
    refused(&mut call(&cut, &options.replace("--samples 2", "--samples 3")), &["samples was 2 and is 3", "--out"]);
    let other = options.replace("size=60", "size=61");
    refused(&mut call(&cut, &other), &["path was", "choose another --out"]);
    // A lower limit is a part of what is there.
    assert!(ok(&mut call(&cut, &format!("{options} --limit 10"))).contains("        10 |      20 |"));
    assert_eq!(lines(&file).len(), 120);
}

/// A JSON lines file with toy rows and others.
fn rows(dir: &Path) -> PathBuf {
    use base64::Engine;
    let spec = "toy:sum?rows=1&cols=2&split=test&size=7".to_owned();
    let dataset = Dataset::open(&[spec.into()], &Keys::default(), None).unwrap();
    let mut text = String::new();
    let versions = ["Vision Intensive", "Text Lite", "Vision Dominant", "Text Dominant", "Vision Only", "Text Lite"];
    for i in 0..7 {
        let sample = dataset.get(i).unwrap();
        let picture = base64::engine::general_purpose::STANDARD.encode(sample.images[0].load().unwrap());
        let row = json!({
            "id": if i < 2 { "twin".to_owned() } else { format!("row{i}") },
            "problem": sample.problem, "answer": sample.answer, "images": [picture],
            "problem_version": versions[i % 6], "problem_index": i / 2,
            "question_type": if i < 6 { "multi-choice" } else { "free-form" },
        });
        text += &format!("{row}\n");
    }
    let long = "9 ".repeat(600);
    for row in [
        json!({"id": "gone", "problem": "<image>x?", "answer": "1", "images": ["gone.png"]}),
        json!({"id": "few", "problem": "<image>x?", "answer": "1", "images": []}),
        json!({"id": "long", "problem": long, "answer": "1", "images": []}),
        json!({"id": "blank", "problem": "x?", "answer": " ", "images": []}),
        json!({"id": "list", "problem": "x?", "answer": [1, 2], "images": []}),
        json!({"id": "null", "problem": null, "answer": "1", "images": []}),
    ] {
        text += &format!("{row}\n");
    }
    text += "not json\n";
    let path = dir.join("rows.jsonl");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn rows_that_cannot_be_used_are_counted_and_named() {
    let dir = tempdir().unwrap();
    let path = rows(dir.path()).display().to_string();
    let out = dir.path().join("out");
    let options = format!("--benchmark MathVerse={path} --format-prompt none --max-prompt-length 300 --batch-size 4");
    let table = ok(&mut call(&out, &options));
    let found = results(&out);
    let mathverse = &found["benchmarks"][0];
    assert_eq!(mathverse["questions"], 6);
    let said = mathverse["set_aside"].as_array().unwrap();
    assert_eq!(said.len(), 7, "{said:?}");
    for (place, reason) in [
        ("id \"gone\"", "gone.png"),
        ("id \"few\"", "placeholder count differs"),
        ("id \"long\"", "more than --max-prompt-length 300"),
        ("id \"blank\"", "the answer is empty"),
        ("row 11", "a list of 2 values"),
        ("id \"null\"", "missing or null"),
        ("row 13", "not JSON"),
    ] {
        let hit =
            |s: &&Value| s["place"].as_str().unwrap().contains(place) && s["reason"].as_str().unwrap().contains(reason);
        assert!(said.iter().any(|s| hit(&s)), "{place}: {reason}: {said:?}");
    }
    assert!(table.contains("MathVerse: 7 set aside") && table.contains("and 2 more"), "{table}");
    assert!(table.contains("2 rows share their id with another"), "{table}");
    assert!(table.contains("| - problem_version Vision Only "), "{table}");
    // A free-form question is none of its rows; the three versions that need the picture count as MathVerse-V, and the
    // averages say what they lack.
    assert_eq!(mathverse["other_rows"], 1);
    assert_eq!(found["benchmarks"][1]["title"], "MathVerse-V");
    assert_eq!(found["benchmarks"][1]["questions"], 3);
    assert!(table.contains("published: 7B VGPO") && table.contains("Avg-Math needs MathVista, WeMath"), "{table}");
    // Asked for alone, it asks nothing else.
    let alone = dir.path().join("alone");
    ok(&mut call(&alone, &options.replace("MathVerse=", "mathverse_v=").replace("300", "299")));
    assert_eq!(lines(alone.join("mathverse-v.jsonl")).len(), 3);
    assert_eq!(results(&alone)["benchmarks"][0]["other_rows"], 4);
    // The whole file has a name of its own.
    let whole = dir.path().join("whole");
    ok(&mut call(&whole, &options.replace("MathVerse=", "mathverse-testmini=")));
    assert_eq!(lines(whole.join("mathverse-testmini.jsonl")).len(), 7);
}

#[test]
fn what_cannot_be_used_at_all() {
    let dir = tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let out = dir.path().join("out");
    let refuse = |options: &str, needles: &[&str]| refused(&mut call(&out, options), needles);
    let empty = file("empty.jsonl", "");
    let bad = file("bad.jsonl", "{\"problem\": \"<image>x\", \"answer\": \"1\"}\n");
    refuse("", &["--benchmark is missing"]);
    refuse("--benchmark mathvists=x.parquet", &["no benchmark \"mathvists\"", "did you mean mathvista?", "dynamath"]);
    refuse("--benchmark geo3k", &["not NAME=PATH"]);
    refuse("--benchmark geo3k=/no/such.parquet", &["/no/such.parquet", "no such file"]);
    refuse(&format!("--benchmark geo3k={empty}"), &["empty.jsonl", "has no rows"]);
    refuse(&format!("{SUMS} {SUMS}"), &["sums is given twice"]);
    refuse("--benchmark sums=toy:addition", &["no toy task \"addition\""]);
    refuse(&format!("{SUMS} --samples 4"), &["greedy answers are all the same", "--temperature"]);
    refuse(&format!("{SUMS} --top-p 0.5"), &["--top-p has no effect"]);
    refuse(&format!("{SUMS} --temperature -1"), &["--temperature -1"]);
    refuse(&format!("{SUMS} --samples 0"), &["--samples 0"]);
    refuse(&format!("{SUMS} --grader guess"), &["invalid value 'guess'", "mathruler"]);
    refuse(&format!("{SUMS} --extract nose"), &["boxed, tag"]);
    refuse(&format!("{SUMS} --format-prompt haiku"), &["haiku", "math_perception"]);
    refuse(&format!("{SUMS} --dtype f8"), &["invalid value 'f8'", "auto, f32, bf16"]);
    refuse(&format!("--benchmark geo3k={bad}"), &["geometry3k: no row can be used: row 0", "placeholder count"]);
    // That one made a table before it said so; nothing else left a trace.
    let table = read(out.join("results.md"));
    assert!(table.contains("Geometry3K: 1 set aside"), "{table}");
    assert!(!out.join("sums.jsonl").exists());

    let mut toy = Command::new(env!("CARGO_BIN_EXE_eval"));
    toy.current_dir(dir.path()).args(["--model", "toy", "--out", "o"]).args(SUMS.split_whitespace());
    refused(&mut toy, &["random before it is trained"]);
    let mut none = Command::new(env!("CARGO_BIN_EXE_eval"));
    refused(none.args(["--out", "o"]).args(SUMS.split_whitespace()), &["--model is missing"]);
    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_eval"));
    nowhere.args(["--model", "/no/model", "--out", "/tmp/o"]).args(SUMS.split_whitespace());
    refused(&mut nowhere, &["/no/model"]);
    refused(&mut call(Path::new(&empty), SUMS), &["--out", "empty.jsonl", "cannot be made"]);
}

#[test]
fn a_configuration_file_says_the_same() {
    let dir = tempdir().unwrap();
    let config = dir.path().join("eval.toml");
    let text = "samples = 2\ntemperature = 1.0\nbatch_size = 3\n\
        benchmarks = [\"sums=toy:sum?rows=1&cols=2&split=test&size=5\", \
        { name = \"custom:few\", path = \"toy:count?split=test&size=9\", limit = 4, grader = \"exact\" }]\n";
    std::fs::write(&config, text).unwrap();
    let out = dir.path().join("out");
    let with = |out: &Path, more: &str| {
        let mut command = call(out, more);
        command.arg("--config").arg(&config);
        command
    };
    ok(&mut with(&out, ""));
    assert_eq!(lines(out.join("sums.jsonl")).len(), 10);
    assert_eq!(lines(out.join("few.jsonl")).len(), 8);
    assert_eq!(results(&out)["settings"]["benchmarks"]["few"]["grader"], "exact");
    // The command line comes last.
    let other = dir.path().join("other");
    ok(&mut with(&other, "--samples 3 --benchmark mine=toy:count?split=test&size=2"));
    assert_eq!(lines(other.join("mine.jsonl")).len(), 6);
    assert!(!other.join("sums.jsonl").exists());
    std::fs::write(&config, "sample = 2\n").unwrap();
    refused(&mut with(&out, ""), &["eval.toml", "sample", "samples"]);
    for (table, needles) in [
        ("{ name = \"custom:few\", path = \"toy:count\", limits = 4 }", &["eval.toml", "limits", "limit"][..]),
        ("{ name = \"custom:few\" }", &["eval.toml", "path"]),
        ("{ name = \"custom:few\", path = \"toy:count\", limit = \"4\" }", &["eval.toml", "limit", "string"]),
        ("3", &["eval.toml", "NAME=PATH"]),
    ] {
        std::fs::write(&config, format!("benchmarks = [{table}]\n")).unwrap();
        refused(&mut with(&out, ""), needles);
    }
}

/// Writes predictions and grades them.
fn from(dir: &TempDir, text: &[u8], options: &[&str]) -> Command {
    let path = dir.path().join("predictions.jsonl");
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_eval"));
    command.arg("--from").arg(path).args(options);
    command
}

#[test]
fn answers_made_elsewhere() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("graded").display().to_string();
    let text = concat!(
        r#"{"idx": 0, "id": "a", "prompt": "q", "predict": "<think>x</think>\\boxed{\\frac{1}{2}}", "label": "0.5"}"#,
        "\n",
        r#"{"idx": 1, "id": "b", "prompt": "q", "predict": "None", "label": "N"}"#,
        "\nbroken\n",
        r#"{"idx": 2, "id": "c", "prompt": "q", "predict": "The answer is (B).", "label": "B"}"#,
        "\n",
    );
    let table = ok(&mut from(&dir, text.as_bytes(), &["--benchmark", "mathvista", "--out", &out]));
    assert!(table.contains("| MathVista |         3 |       3 |       66.7 |"), "{table}");
    assert!(table.contains("MathVista: 1 set aside") && table.contains("line 3: not JSON"), "{table}");
    let out = Path::new(&out);
    assert_eq!(read(out.join("results.md")), table);
    assert_eq!(lines(out.join("mathvista.jsonl")).len(), 3);
    let strict = ok(&mut from(&dir, text.as_bytes(), &["--extract", "boxed"]));
    assert!(strict.contains("| custom    |         3 |       3 |       33.3 |"), "{strict}");
    refused(&mut from(&dir, b"x\n", &[]), &["no line can be graded; line 1: not JSON"]);
    refused(&mut from(&dir, text.as_bytes(), &["--benchmark", "geo3k=x"]), &["give the name alone"]);
    refused(&mut from(&dir, text.as_bytes(), &["--benchmark", "geo4k"]), &["did you mean geometry3k?"]);
    refused(&mut from(&dir, text.as_bytes(), &["--samples", "2"]), &["--samples", "--from only grades"]);
    let mut missing = Command::new(env!("CARGO_BIN_EXE_eval"));
    refused(missing.args(["--from", "/no/file.jsonl"]), &["/no/file.jsonl", "cannot be read"]);
}

#[test]
fn what_eval_writes_it_grades_the_same() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    ok(&mut call(&out, &format!("{SUMS} --samples 2 --temperature 1")));
    let written = std::fs::read(out.join("sums.jsonl")).unwrap();
    let again = dir.path().join("again").display().to_string();
    ok(&mut from(&dir, &written, &["--out", &again]));
    let (a, b) = (results(&out), results(Path::new(&again)));
    for key in ["name", "questions", "answers", "accuracy", "standard_error", "mean_tokens", "cut_off", "groups"] {
        assert_eq!(a["benchmarks"][0][key], b["benchmarks"][0][key], "{key}");
    }
    // A folder with a model's answers takes no others.
    let out = out.display().to_string();
    refused(&mut from(&dir, &written, &["--out", &out]), &["a model gave"]);
}

#[test]
fn an_audit_lists_where_the_graders_disagree() {
    let dir = tempdir().unwrap();
    let audit = dir.path().join("audit.jsonl");
    let text = concat!(
        r#"{"id": "same", "predict": "\\boxed{3}", "label": "3"}"#,
        "\n",
        r#"{"id": "sets", "predict": "\\boxed{\\{2, 1\\}}", "label": "\\{1, 2\\}"}"#,
        "\n",
    );
    let path = audit.display().to_string();
    let said = ok(&mut from(&dir, text.as_bytes(), &["--audit", &path]));
    assert!(said.contains("audit.jsonl written: one JSON line a disagreement"), "{said}");
    let found = lines(&audit);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["mathruler"], &found[0]["math"]), (&json!(false), &json!(true)));
    assert!(found[0]["id"].as_str().unwrap().contains("sets"), "{found:?}");
    // Of a model's answers, too; a folder is no file.
    ok(&mut call(&dir.path().join("out"), &format!("{SUMS} --limit 2 --audit {path}")));
    assert!(audit.is_file());
    let folder = dir.path().display().to_string();
    refused(&mut from(&dir, text.as_bytes(), &["--audit", &folder]), &["--audit", "name a file"]);
}
