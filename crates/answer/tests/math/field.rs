//! Answers that were graded wrongly in the field, as they were reported.

use std::collections::BTreeMap;

use answer::{Request, RewardConfig, Scorer};
use serde_json::Value;

#[test]
fn reported_cases_are_graded_right() {
    let path = format!("{}/tests/fixtures/grader_cases.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let rows: Vec<BTreeMap<String, Value>> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 44);
    let mut wrong = Vec::new();
    for row in &rows {
        let options: BTreeMap<&String, &Value> =
            row.iter().filter(|(key, _)| matches!(key.as_str(), "reward_type" | "grader")).collect();
        let config: RewardConfig = serde_json::from_value(serde_json::to_value(options).unwrap()).unwrap();
        let reward = Scorer::new(&config).unwrap();
        let truth = row["ground_truth"].as_str().unwrap();
        let right = match row.get("given") {
            Some(given) => reward.grade(given.as_str().unwrap(), truth),
            None => {
                let response = row["response"].as_str().unwrap();
                let request = Request { response, ground_truth: truth, response_length: 0, id: "", row: None };
                reward.score_one(&request).accuracy == 1.0
            }
        };
        if f64::from(u8::from(right)) != row["accuracy"].as_f64().unwrap() {
            wrong.push(format!("{row:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
