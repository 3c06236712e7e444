//! Agreement with the Python package mathruler 0.1.0 (sympy 1.14, pylatexenc 2.11), whose verdicts stand in the
//! fixtures.
//!
//! Each line is `[given, ground truth, verdict]`. `mathruler_pairs` and `mathruler_generated` hold answers in the
//! styles of Geometry3K, MMK12 and ViRL39K; `mathruler_malformed` holds random pieces of LaTeX, mostly broken.

use answer::mathruler::grade_answer;

fn agreement(name: &str) -> (usize, Vec<String>) {
    let path = format!("{}/tests/fixtures/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let rows: Vec<(String, String, bool)> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let differ = rows
        .iter()
        .filter(|(given, truth, verdict)| grade_answer(given, truth) != *verdict)
        .map(|(given, truth, verdict)| format!("{given:?} | {truth:?} should be {verdict}"))
        .collect();
    (rows.len(), differ)
}

#[test]
fn recorded_pairs_agree() {
    let (count, differ) = agreement("mathruler_pairs");
    assert_eq!((count, differ), (1500, vec![]));
}

#[test]
fn generated_pairs_agree() {
    let (count, differ) = agreement("mathruler_generated");
    assert_eq!((count, differ), (1800, vec![]));
}

#[test]
fn malformed_answers_agree_to_99_percent() {
    let (count, differ) = agreement("mathruler_malformed");
    assert!(count == 700 && differ.len() <= 7, "{} of {count}:\n{}", differ.len(), differ.join("\n"));
}
