//! A JSON Schema of the configuration for editors, made from the declarations of the keys.

use serde_json::{Map, Value, json};

use super::field::parse_value;
use super::moved::MOVED;
use super::{Config, KeyDoc, SectionDoc};

/// The schema (draft 2020-12) of a configuration file: the text of `docs/config.schema.json`. What a single value may
/// be is in it; that values do not contradict one another, the reader alone knows.
///
/// ```
/// let schema: serde_json::Value = serde_json::from_str(&rl::config::schema()).unwrap();
/// let n = &schema["properties"]["rollout"]["properties"]["n"];
/// assert_eq!((&n["type"], &n["minimum"]), (&"integer".into(), &1.into()));
/// ```
pub fn schema() -> String {
    let mut root = object("The configuration of a run (docs/configuration.md).");
    let mut stages = Vec::new();
    for section in Config::default().sections() {
        let filled = filled(&section);
        match section.header.strip_prefix("[[") {
            Some(_) => stages.push(filled),
            None => put(&mut root, section.header.trim_matches(['[', ']']), filled),
        }
    }
    let doc = "Supervised warm-ups and reinforcement learning, one after the other. None: one stage of the latter.";
    put(&mut root, "stages", json!({ "description": doc, "type": "array", "items": { "oneOf": stages } }));
    for &(before, now) in MOVED {
        let mut key = root.pointer(&pointer(now)).cloned().unwrap_or(Value::Null);
        if let Some(key) = key.as_object_mut() {
            key.shift_remove("default");
            key.insert("description".into(), format!("Earlier spelling of {now}.").into());
            key.insert("deprecated".into(), true.into());
        }
        put(&mut root, before, key);
    }
    let mut whole = Map::new();
    whole.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    whole.insert("title".into(), "visual-rl".into());
    whole.extend(root.as_object().cloned().unwrap_or_default());
    format!("{:#}\n", Value::Object(whole))
}

/// The words that overrides begin with or are, for completions of a shell: `KEY=VALUE` for each value where a key has
/// a few, `KEY=` and the default for others. Stages are not among them.
pub fn override_words() -> Vec<String> {
    // Anything else a shell might read in its own way.
    let is_plain =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let mut words = Vec::new();
    for section in Config::default().sections().iter().filter(|section| !section.header.starts_with("[[")) {
        for key in &section.keys {
            let path = format!("{}.{}=", section.header.trim_matches(['[', ']']), key.name);
            let few: Vec<&str> = match (&key.schema["enum"], key.schema["type"].as_str()) {
                (Value::Array(names), _) => {
                    names.iter().filter_map(Value::as_str).filter(|name| is_plain(name)).collect()
                }
                (_, Some("boolean")) => vec!["true", "false"],
                _ => Vec::new(),
            };
            if few.is_empty() {
                words.push(path.clone());
                words.extend(is_plain(&key.default).then(|| format!("{path}{}", key.default)));
            }
            words.extend(few.iter().map(|value| format!("{path}{value}")));
        }
    }
    words
}

/// A table of which every key is known.
fn object(doc: &str) -> Value {
    json!({ "description": doc, "type": "object", "properties": {}, "additionalProperties": false })
}

/// A section with its keys. A key whose default is no value of it has to be written.
fn filled(section: &SectionDoc) -> Value {
    let mut filled = object(&section.doc);
    let mut required = Vec::new();
    for key in &section.keys {
        let default = parse_value(&key.default).and_then(|value| serde_json::to_value(value).ok());
        let is_below = |default: &Value| default.as_f64() < key.schema["minimum"].as_f64();
        let has_default = default.as_ref().is_some_and(|default| !is_below(default));
        if !has_default {
            required.push(key.name);
        }
        filled["properties"][key.name] = described(key, default.filter(|_| has_default));
    }
    if !required.is_empty() {
        filled["required"] = required.into();
    }
    filled
}

fn described(key: &KeyDoc, default: Option<Value>) -> Value {
    let mut all = Map::from_iter([("description".to_string(), Value::from(key.doc.as_str()))]);
    all.extend(key.schema.as_object().cloned().unwrap_or_default());
    all.extend(default.map(|default| ("default".to_string(), default)));
    Value::Object(all)
}

/// Where the schema of a dotted path stands.
fn pointer(path: &str) -> String {
    path.split('.').map(|part| format!("/properties/{part}")).collect()
}

/// Puts the schema of a dotted path in its place; sections above it are there.
fn put(root: &mut Value, path: &str, schema: Value) {
    let (above, name) = path.rsplit_once('.').map_or(("", path), |(above, name)| (above, name));
    let above = if above.is_empty() { Some(root) } else { root.pointer_mut(&pointer(above)) };
    if let Some(above) = above {
        above["properties"][name] = schema;
    }
}

/// A list, of which a single element may stand for a list of one.
pub(super) fn list(element: Value) -> Value {
    json!({ "anyOf": [{ "type": "array", "items": element.clone() }, element] })
}

/// One of some words.
pub(super) fn words<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    json!({ "type": "string", "enum": names.into_iter().collect::<Vec<_>>() })
}
