//! Which question a line of predictions answers.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::benchmark::Benchmark;

pub(crate) const PROBLEMS: [&str; 4] = ["prompt", "problem", "question", "query"];
const IDS: [&str; 3] = ["id", "uid", "question_id"];

/// A value as text: numbers written out, a list of one as that one.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(match n.as_f64() {
            // 3.0 and 3 are one answer.
            Some(f) if !n.is_i64() && !n.is_u64() => f.to_string(),
            _ => n.to_string(),
        }),
        Value::Bool(b) => Some(if *b { "True" } else { "False" }.to_owned()),
        Value::Array(items) if items.len() == 1 => text(&items[0]),
        _ => None,
    }
}

pub(crate) fn first<'a>(row: &'a Map<String, Value>, keys: &[&str]) -> Option<(&'a String, &'a Value)> {
    keys.iter().find_map(|key| row.get_key_value(*key).filter(|(_, v)| !v.is_null()))
}

/// What a line says about its question.
pub(crate) struct Identity {
    /// Lines with the same are samples of one question.
    pub key: Vec<String>,
    /// What it is called.
    pub id: Option<String>,
    /// Whether it is a row number, which stands for one question whatever else the line says.
    pub by_row: bool,
}

/// Which question a line answers; nothing when it does not say.
pub(crate) fn identity(
    row: &Map<String, Value>,
    truth: &str,
    benchmark: &Benchmark,
) -> Result<Option<Identity>, String> {
    let read = |keys: &[&str]| match first(row, keys) {
        Some((key, value)) => text(value).map(Some).ok_or_else(|| format!("`{key}` is not text")),
        None => Ok(None),
    };
    // A column that names a cluster of questions does not name one of them.
    let ids: Vec<&str> = IDS.into_iter().filter(|key| benchmark.question.first() != Some(key)).collect();
    let id = read(&ids)?;
    if let Some(number) = read(&["row"])? {
        let name = read(&["benchmark"])?.unwrap_or_default();
        return Ok(Some(Identity { id: id.or(Some(number.clone())), key: vec![name, number], by_row: true }));
    }
    let idx = read(&["idx"])?;
    if id.is_none() && idx.is_none() {
        return Ok(None);
    }
    let prompt = first(row, &PROBLEMS).map(|(_, prompt)| prompt.to_string()).unwrap_or_default();
    let key = vec![id.clone().unwrap_or_default(), idx.clone().unwrap_or_default(), prompt, truth.to_owned()];
    Ok(Some(Identity { id: id.or(idx), key, by_row: false }))
}

/// A question, and the answers to it so far.
pub(crate) struct Question {
    pub row: usize,
    pub truth: String,
    pub samples: BTreeSet<usize>,
}

impl Question {
    /// The number of one more answer: the stated one, if it is free.
    pub(crate) fn sample(&mut self, stated: Option<usize>) -> usize {
        let next = self.samples.last().map_or(0, |last| last + 1);
        let sample = stated.filter(|k| !self.samples.contains(k)).unwrap_or(next);
        self.samples.insert(sample);
        sample
    }
}
