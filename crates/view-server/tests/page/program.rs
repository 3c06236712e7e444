//! The program `view`: what it refuses, and the file that it writes.

use std::path::Path;
use std::process::{Command, Output};

use crate::invented::{HOSTILE, Invented};

fn view(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_view")).args(arguments).output().expect("view starts")
}

/// One error, exit code 2, and each of `parts` in it.
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = view(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert_eq!(message.matches("error:").count(), 1, "{message}");
    parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message}"));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn bad_input_is_one_error_that_names_the_fix() {
    let place = tempfile::tempdir().unwrap();
    let run = Invented::default().write(&place.path().join("run"));
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(&[text(&run), "--port", &port], &["is in use", "--port N"]);
    refused(&[text(&run), "--host", "198.51.100.1"], &["198.51.100.1", "--host"]);
    refused(&[text(&run), "--host", "here"], &["--host"]);
    refused(&[text(&run), text(&place.path().join("run/../run"))], &["named twice"]);
    refused(&[text(place.path())], &["no run is here", "metrics.jsonl", "runs are below it", "run"]);
    refused(&[text(&run.join("rollouts"))], &["no run is here", "trainer.output_dir"]);
    refused(&[text(&run.join("metrics.jsonl"))], &["it is a file"]);
    refused(&["no/such/folder"], &["no run is here"]);
    refused(&[], &["RUN"]);
    refused(&[text(&run), "--html", text(place.path())], &["error:"]);
    refused(&[text(&run), "--html", "x.html", "--port", "1"], &["--port"]);
}

#[test]
fn two_runs_of_one_name_are_told_apart() {
    let place = tempfile::tempdir().unwrap();
    let first = Invented::default().write(&place.path().join("a/run"));
    let second = Invented { seed: 2, ..Default::default() }.write(&place.path().join("b/run"));
    let runs = view::ViewedRun::open(&[first, second]).unwrap();
    assert_eq!((runs[0].name(), runs[1].name()), ("a/run", "b/run"));
}

#[test]
fn a_file_holds_the_page_and_no_text_of_the_run_as_html() {
    let place = tempfile::tempdir().unwrap();
    let run = Invented { logged_steps: 3, ..Default::default() }.write(&place.path().join("run"));
    std::fs::write(run.join("pictures/bars.png"), "no picture").unwrap();
    let out = place.path().join("report.html");
    let output = view(&[text(&run), "--html", text(&out)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(&out).unwrap();
    assert!(!page.contains("onerror=\"window") && !page.contains("<img src=x") && !page.contains('\u{2028}'));
    let hostile = serde_json::to_string(HOSTILE).unwrap().replace('<', "\\u003c").replace('\u{2028}', "\\u2028");
    assert!(page.contains(&hostile), "the text itself is there, as data");
    // Nothing is fetched, and what is not of this page is not run.
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http") && page.contains("default-src 'none'"));
    assert_eq!(
        page.matches("<script nonce=").count(),
        page.matches("<script").count() - page.matches("<script type=").count()
    );
    assert!(page.contains("data-path=\"api/runs/0/rollouts/120/1\""));
}

#[test]
fn a_large_run_makes_a_bounded_file_that_says_what_it_lacks() {
    let place = tempfile::tempdir().unwrap();
    let run = Invented { steps: 6000, more_metrics: 200, logged_steps: 300, ..Default::default() }.write(place.path());
    let long = format!("{{\"problem\":\"p\",\"response\":\"{}\",\"reward\":1}}\n", "x".repeat(1 << 20));
    for step in 1..40 {
        std::fs::write(run.join(format!("rollouts/step_{step}.jsonl")), &long).unwrap();
    }
    let written = view::write_report(&[run], &place.path().join("report.html")).unwrap();
    assert!(written.bytes < 48 << 20, "{}", written.bytes);
    let said = written.left_out.join("\n");
    assert!(said.contains("one step in") && said.contains("steps with responses"), "{said}");
}
