//! The configuration of a run: its keys, each with its value and the comment above it.

use std::collections::HashMap;

use run::layout::CONFIG;
use serde_json::{Value, json};

use crate::error::ViewError;
use crate::viewed::ViewedRun;

/// The keys of `config.toml` as `{"keys": [{"key", "value", "meaning"}], "problem"}`. A run without one, or with one
/// that cannot be read, has no keys.
pub(crate) fn read(viewed: &ViewedRun) -> Value {
    let none = |problem: String| json!({"keys": [], "problem": problem});
    let found = viewed
        .inside(CONFIG)
        .and_then(|path| guard::file::read_text(&path, guard::limits().config_bytes).map_err(ViewError::at(&path)));
    let text = match found {
        Ok(text) => text,
        Err(ViewError::Absent(_)) => return none(format!("the run has no {CONFIG}")),
        Err(ViewError::Io { source, .. }) => return none(format!("{CONFIG} cannot be read: {source}")),
        Err(other) => return none(format!("{CONFIG} cannot be read: {other}")),
    };
    match text.parse::<toml::Table>() {
        Err(reason) => none(format!("{CONFIG} is no TOML: {}", reason.message())),
        Ok(table) => {
            let meanings = meanings(&text);
            let mut keys = Vec::new();
            flatten("", &toml::Value::Table(table), &mut keys);
            // As the file has them; what no line of it names (a table in a list) comes last.
            keys.sort_by_cached_key(|(key, _)| meanings.get(key).map_or(usize::MAX, |(place, _)| *place));
            let keys = keys.into_iter().map(|(key, value)| {
                let meaning = meanings.get(&key).map_or("", |(_, comment)| comment);
                json!({"key": key, "value": value, "meaning": meaning})
            });
            json!({"keys": keys.collect::<Vec<_>>(), "problem": null})
        }
    }
}

/// Each value with its whole key; tables in lists by their number.
fn flatten(prefix: &str, value: &toml::Value, out: &mut Vec<(String, String)>) {
    let below = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    match value {
        toml::Value::Table(table) if !table.is_empty() => {
            table.iter().for_each(|(name, value)| flatten(&below(name), value, out));
        }
        toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
            list.iter().enumerate().for_each(|(index, value)| flatten(&below(&index.to_string()), value, out));
        }
        value => out.push((prefix.to_owned(), value.to_string())),
    }
}

/// The line of each key and the comment above it, as the program writes one.
fn meanings(text: &str) -> HashMap<String, (usize, String)> {
    let (mut out, mut section, mut comment) = (HashMap::new(), String::new(), String::new());
    for (place, line) in text.lines().map(str::trim).enumerate() {
        if let Some(words) = line.strip_prefix('#') {
            comment.push_str(words);
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((name, _)) = line.split_once('=') {
            let key = if section.is_empty() { name.trim().to_owned() } else { format!("{section}.{}", name.trim()) };
            out.insert(key, (place, comment.trim().to_owned()));
        }
        comment.clear();
    }
    out
}
