//! Answers that were made elsewhere: which lines are one question, which count, and where their answers are.

use eval::predictions::{Graded, Grading, grade_file};
use eval::{Benchmark, EvalError, Extract};

fn grade(text: &[u8], grading: &Grading) -> Result<Vec<Graded>, EvalError> {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("p.jsonl");
    std::fs::write(&path, text).unwrap();
    grade_file(&path, grading)
}

fn one(text: &str, benchmark: &str) -> Graded {
    let grading = Grading { benchmark: Some(Benchmark::find(benchmark).unwrap()), ..Grading::default() };
    grade(text.as_bytes(), &grading).unwrap().pop().unwrap()
}

#[test]
fn which_lines_are_samples_of_one_question() {
    let counts = |text: &str, benchmark: &str| {
        let score = one(text, benchmark).result.score;
        (score.questions, score.answers)
    };
    let papo = r#"
        {"idx": 0, "id": "geo", "predict": "1", "label": "1"}
        {"idx": 1, "id": "geo", "predict": "1", "label": "1"}
        {"idx": 2, "id": "geo", "predict": "1", "label": "2"}
        {"idx": 2, "id": "geo", "predict": "2", "label": "2"}
    "#;
    assert_eq!(counts(papo, "mmk12"), (3, 4));
    let graded = one(papo, "mmk12");
    assert_eq!(graded.records.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["0", "1", "2", "2"]);
    assert!(graded.result.notes[0].contains("3 questions share their id"), "{:?}", graded.result.notes);
    // The variants of a seed question.
    let variant = r#"{"question_id": 7, "response": "1", "answer": "1"}"#;
    assert_eq!(counts(&format!("{variant}\n{variant}"), "dynamath"), (2, 2));
    assert_eq!(counts(&format!("{variant}\n{variant}"), "mmk12"), (1, 2));
    let prompts = r#"
        {"id": 7, "prompt": "a", "response": "1", "answer": "1"}
        {"id": 7, "prompt": "b", "response": "1", "answer": "1"}
        {"id": 7, "prompt": "b", "response": "2", "answer": "1"}
    "#;
    assert_eq!(counts(prompts, "mmk12"), (2, 3));
    // This program's rows go before their ids.
    let rows = r#"
        {"row": 4, "id": "x", "sample": 1, "response": "1", "answer": "1"}
        {"row": 5, "id": "x", "sample": 0, "response": "1", "answer": "1"}
        {"row": 4, "id": "y", "sample": 0, "response": "2", "answer": "1"}
        {"row": 4, "sample": 0, "response": "3", "answer": "1"}
        {"row": 4, "response": "2", "answer": "2"}
    "#;
    let graded = one(rows, "mmk12");
    let said: Vec<(&str, usize)> = graded.records.iter().map(|r| (r.response.as_str(), r.sample)).collect();
    assert_eq!(said, [("2", 0), ("1", 1), ("3", 2), ("1", 0)]);
    assert!(graded.result.set_aside[0].reason.contains("earlier line with this `row`"));
    let null = r#"{"predict": null, "response": "\\boxed{2}", "label": null, "answer": "2", "id": null, "uid": "u"}"#;
    assert_eq!((one(null, "mmk12").result.score.accuracy, one(null, "mmk12").records[0].id.as_str()), (Some(1.0), "u"));
}

#[test]
fn a_benchmark_of_bad_lines_costs_no_other() {
    let text = r#"
        {"benchmark": "geo3k", "response": "2"}
        {"benchmark": "mmk12", "response": "2", "answer": "2"}
    "#;
    let graded = grade(text.as_bytes(), &Grading::default()).unwrap();
    let seen: Vec<_> = graded.iter().map(|g| (g.name.as_str(), g.records.len(), g.result.set_aside.len())).collect();
    assert_eq!(seen, [("geometry3k", 0, 1), ("mmk12", 1, 0)]);
}

#[test]
fn only_lines_of_the_benchmark_count() {
    let text = r#"
        {"problem_version": "Vision Only", "response": "2", "answer": "2"}
        {"problem_version": "Text Lite", "response": "2", "answer": "3"}
        {"columns": {"problem_version": "Text Lite"}, "response": "2", "answer": "3"}
    "#;
    let graded = one(text, "mathverse-v");
    assert_eq!((graded.result.score.answers, graded.result.other_rows), (1, 2));
    let grading = Grading { benchmark: Some(Benchmark::find("mathverse-v").unwrap()), ..Grading::default() };
    let error = grade(br#"{"problem_version": "Text Lite", "response": "2", "answer": "3"}"#, &grading).unwrap_err();
    assert!(error.to_string().contains("no line belongs to mathverse-v"), "{error}");
}

#[test]
fn its_own_answers_are_not_found_anew() {
    let cut = r#""response": "The answer is 12", "answer": "12""#;
    let right = |line: String, extract| {
        let grading = Grading { extract, ..Grading::default() };
        grade(line.as_bytes(), &grading).unwrap()[0].result.score.accuracy == Some(1.0)
    };
    let own = format!(r#"{{"row": 0, "sample": 0, "extracted": null, "finish": "length", {cut}}}"#);
    assert!(!right(own.clone(), None) && right(own, Some(Extract::Any)));
    // A toy's answer is not boxed.
    assert!(right(r#"{"row": 0, "sample": 0, "extracted": "12", "response": "12", "answer": "12"}"#.into(), None));
    // A line of `train`, and one of others.
    assert!(!right(format!(r#"{{"row": 0, "extracted": "12", {cut}}}"#), None));
    assert!(!right(format!(r#"{{"row": 0, "finish": "length", {cut}}}"#), None));
    assert!(right(format!("{{{cut}}}"), None));
}

#[test]
fn a_choice_of_mathvision_by_its_text() {
    let text = r#"{"problem": "Which?", "answer": "B", "options": ["3", "5"], "response": "\\boxed{5}"}"#;
    assert_eq!(one(text, "mathvision").result.score.accuracy, Some(1.0));
}
