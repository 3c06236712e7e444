//! Responses by step: who is in which group, what each earned, and its tokens where the run kept them.

use std::collections::HashMap;

use run::layout::{ROLLOUTS, TOKENS};
use serde_json::{Map, Value, json};

use crate::error::ViewError;
use crate::lines::{self, ReadLines, cut};
use crate::viewed::ViewedRun;

/// Characters of a problem or an answer in a list.
const PREVIEW: usize = 240;

/// A response in the log, with its place there.
type LoggedRow = (usize, Map<String, Value>);

/// The step of a file name, `step_12.jsonl` after `prefix`.
fn step_of(name: &str, prefix: &str) -> Option<u64> {
    let number = name.strip_prefix(prefix)?.strip_prefix("step_")?.strip_suffix(".jsonl")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
}

/// The files of a folder by their steps.
fn files(viewed: &ViewedRun, folder: &str, prefix: &str) -> Vec<(u64, String)> {
    let names = viewed.names(folder).into_iter();
    let mut found: Vec<_> =
        names.filter_map(|name| Some((step_of(&name, prefix)?, format!("{folder}/{name}")))).collect();
    found.sort();
    found
}

/// The steps whose responses were logged, and whose tokens.
pub(crate) struct LoggedSteps {
    pub(crate) training: Vec<u64>,
    pub(crate) tokens: Vec<u64>,
    pub(crate) validation: Vec<u64>,
}

pub(crate) fn steps(viewed: &ViewedRun) -> LoggedSteps {
    let of = |folder: &str, prefix: &str| files(viewed, folder, prefix).into_iter().map(|(step, _)| step).collect();
    LoggedSteps { training: of(ROLLOUTS, ""), tokens: of(TOKENS, ""), validation: of(ROLLOUTS, "validation_") }
}

impl LoggedSteps {
    pub(crate) fn json(&self) -> Value {
        json!({"training": self.training, "tokens": self.tokens, "validation": self.validation})
    }
}

/// The lines of a step; [`ViewError::Absent`] where it has none.
fn read(viewed: &ViewedRun, folder: &str, prefix: &str, step: u64) -> Result<ReadLines, ViewError> {
    let found = files(viewed, folder, prefix).into_iter().find(|(at, _)| *at == step);
    let (_, relative) = found.ok_or_else(|| ViewError::Absent(format!("step {step} has no {prefix}{folder}")))?;
    lines::read(&viewed.inside(&relative)?)
}

/// What responses of one prompt have in common.
fn key(row: &Map<String, Value>) -> [Option<&Value>; 3] {
    ["row", "id", "problem"].map(|name| row.get(name))
}

/// Groups are whole and in order: one ends where the prompt changes.
fn groups(rows: Vec<LoggedRow>) -> Vec<Vec<LoggedRow>> {
    let mut out: Vec<Vec<LoggedRow>> = Vec::new();
    for row in rows {
        match out.last_mut() {
            Some(group) if group.last().is_some_and(|(_, last)| key(last) == key(&row.1)) => group.push(row),
            _ => out.push(vec![row]),
        }
    }
    out
}

/// Where the graders disagree on a response's answer; none where they agree or there is no answer.
fn disagreement(row: &Map<String, Value>) -> Option<Value> {
    let (given, truth) = (row.get("extracted")?.as_str()?, row.get("answer")?.as_str()?);
    let found = answer::audit::compare(given, truth)?;
    Some(json!({
        "kind": found.kind, "mathruler": found.mathruler, "math": found.math, "choice": found.choice,
    }))
}

/// A text of a line, cut for a list.
fn preview(row: &Map<String, Value>, name: &str) -> Value {
    match row.get(name) {
        Some(Value::String(text)) => json!(cut(text, PREVIEW)),
        Some(Value::Null) | None => Value::Null,
        Some(other) => json!(cut(&other.to_string(), PREVIEW)),
    }
}

/// A group in a list.
fn summary(group: &[LoggedRow], logged: &[usize]) -> Value {
    let responses = group.iter().map(|(_, row)| {
        let copy = |name: &str| row.get(name).cloned().unwrap_or_default();
        json!({
            "reward": copy("reward"), "accuracy": copy("accuracy"), "format": copy("format"), "tokens": copy("tokens"),
            "finish": copy("finish"), "extracted": preview(row, "extracted"), "disagree": disagreement(row).is_some(),
        })
    });
    let rewards: Vec<_> = group.iter().map(|(_, row)| row.get("reward")).collect();
    let first = &group[0].1;
    json!({
        "id": preview(first, "id"), "row": first.get("row"), "task": preview(first, "task"),
        "problem": preview(first, "problem"), "answer": preview(first, "answer"),
        "flat": rewards.len() > 1 && rewards.iter().all(|reward| reward == &rewards[0]),
        "tokens": group.iter().any(|(line, _)| logged.contains(line)),
        "responses": responses.collect::<Vec<_>>(),
    })
}

/// The tokens of a step.
#[derive(Default)]
struct KeptTokens {
    /// By the line of their response.
    lines: HashMap<usize, Map<String, Value>>,
    /// Lines that cannot be read; null where the run kept no tokens of the step.
    bad: Value,
}

/// The tokens of a step; empty where the run kept none.
fn tokens(viewed: &ViewedRun, step: u64) -> Result<KeptTokens, ViewError> {
    match read(viewed, TOKENS, "", step) {
        Ok(found) => {
            let bad = found.bad.json();
            let line = |row: &Map<String, Value>| usize::try_from(row.get("line")?.as_u64()?).ok();
            let rows = found.rows.into_iter().filter_map(|(_, row)| Some((line(&row)?, row)));
            Ok(KeptTokens { lines: rows.collect(), bad })
        }
        Err(ViewError::Absent(_)) => Ok(KeptTokens::default()),
        Err(other) => Err(other),
    }
}

/// A step's groups as a list, the first `most` of them.
///
/// # Errors
/// A step without a log, or a log that cannot be read.
pub(crate) fn list(viewed: &ViewedRun, step: u64, most: usize) -> Result<Value, ViewError> {
    let found = read(viewed, ROLLOUTS, "", step)?;
    let kept = tokens(viewed, step)?;
    let logged: Vec<usize> = kept.lines.into_keys().collect();
    let groups = groups(found.rows);
    let listed: Vec<Value> = groups.iter().take(most).map(|group| summary(group, &logged)).collect();
    Ok(json!({
        "step": step, "groups": listed, "left_out": groups.len().saturating_sub(most), "bad": found.bad.json(),
        "bad_tokens": kept.bad,
    }))
}

/// One group of a step: every response with its tokens.
///
/// # Errors
/// As [`list`], and a group that is not there.
pub(crate) fn group(viewed: &ViewedRun, step: u64, number: usize) -> Result<Value, ViewError> {
    let found = read(viewed, ROLLOUTS, "", step)?;
    let group = groups(found.rows).into_iter().nth(number);
    let group = group.ok_or_else(|| ViewError::Absent(format!("step {step} has no group {number}")))?;
    let mut kept = tokens(viewed, step)?.lines;
    let responses = group.into_iter().map(|(line, row)| {
        let (disagree, stream) = (disagreement(&row), kept.remove(&line));
        json!({"line": line, "row": row, "disagree": disagree, "stream": stream})
    });
    Ok(json!({"step": step, "group": number, "responses": responses.collect::<Vec<_>>()}))
}

/// The validation responses after a step, the first `most` of them.
///
/// # Errors
/// As [`list`].
pub(crate) fn validation(viewed: &ViewedRun, step: u64, most: usize) -> Result<Value, ViewError> {
    let found = read(viewed, ROLLOUTS, "validation_", step)?;
    let left_out = found.rows.len().saturating_sub(most);
    let rows: Vec<Value> = found.rows.into_iter().take(most).map(|(_, row)| Value::Object(row)).collect();
    Ok(json!({"step": step, "rows": rows, "left_out": left_out, "bad": found.bad.json()}))
}

/// The rows that the run set aside, with reasons; the first `most` of them. `null` where it wrote no such file.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn set_aside(viewed: &ViewedRun, most: usize) -> Result<Value, ViewError> {
    let path = match viewed.inside(run::layout::SET_ASIDE) {
        Ok(path) => path,
        Err(ViewError::Absent(_)) => return Ok(Value::Null),
        Err(other) => return Err(other),
    };
    let found = lines::read(&path)?;
    let left_out = found.rows.len().saturating_sub(most);
    let rows: Vec<Value> = found.rows.into_iter().take(most).map(|(_, row)| Value::Object(row)).collect();
    Ok(json!({"rows": rows, "left_out": left_out, "bad": found.bad.json()}))
}

/// The pictures that a group's answer names, by their names in `pictures/`.
pub(crate) fn pictures(group: &Value) -> Vec<String> {
    let responses = group["responses"].as_array().into_iter().flatten();
    let named = responses.flat_map(|response| response["stream"]["pictures"].as_array().into_iter().flatten());
    named
        .filter_map(|path| path.as_str()?.strip_prefix(run::layout::PICTURES)?.strip_prefix('/'))
        .map(String::from)
        .collect()
}
