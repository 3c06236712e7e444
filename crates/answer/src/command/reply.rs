//! One line of a reward command, read.

use serde_json::{Map, Value};

use crate::Score;

/// The score in a reply to the request `id`; otherwise what is wrong with the line.
pub(super) fn parse(line: &[u8], id: &str) -> Result<Score, String> {
    let text = std::str::from_utf8(line)
        .map_err(|e| format!("it is not UTF-8 (byte {}); write JSON in UTF-8", e.valid_up_to() + 1))?;
    if text.trim().is_empty() {
        return Err("it is empty; write one JSON object per response, and notes to stderr".into());
    }
    let value: Value = serde_json::from_str(text).map_err(|e| {
        // What Python's json.dumps makes of these numbers is no JSON.
        if ["NaN", "Infinity"].iter().any(|word| text.contains(word)) {
            "NaN and Infinity are no JSON numbers; every number must be finite".to_owned()
        } else {
            format!("it is not JSON ({e}); write one JSON object per response, and notes to stderr")
        }
    })?;
    let Value::Object(mut reply) = value else {
        return Err(format!("it is {}, not a JSON object such as {{\"overall\": 1.0}}", kind(&value)));
    };
    let overall = match reply.remove("overall") {
        None => return Err("it has no `overall`, the reward".into()),
        Some(Value::Number(number)) => number.as_f64().filter(|n| n.is_finite()).ok_or("`overall` is not finite")?,
        Some(other) => return Err(format!("`overall` is {}, not a number", kind(&other))),
    };
    let accuracy = part(&mut reply, "accuracy")?.unwrap_or(overall);
    let format = part(&mut reply, "format")?.unwrap_or(0.0);
    let extracted = match reply.remove("extracted") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(other) => return Err(format!("`extracted` is {}, not a string or null", kind(&other))),
    };
    match reply.remove("id") {
        None => {}
        Some(Value::String(found)) if found == id => {}
        Some(found) => return Err(format!("its `id` is {found}, the request's is {id:?}; reply in the same order")),
    }
    let mut extra = std::collections::BTreeMap::new();
    for (name, value) in reply {
        if let Some(value) = number(&value) {
            extra.insert(name, value);
        }
    }
    Ok(Score { overall, accuracy, format, extracted, extra })
}

/// What went wrong with a function of Python's, where the line says so.
pub(super) fn failure(line: &[u8]) -> Option<String> {
    let mut value: Value = serde_json::from_slice(line).ok()?;
    match value.get_mut("failed")?.take() {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn part(reply: &mut Map<String, Value>, name: &str) -> Result<Option<f64>, String> {
    match reply.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match number(&value) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("`{name}` is {}, not a number", kind(&value))),
        },
    }
}

/// Numbers, and truth values as 1 and 0.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64().filter(|n| n.is_finite()),
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        let score = parse(
            br#"{"id":"a","overall":0.5,"accuracy":true,"extracted":"3","steps":4,"short":false,"note":"x"}"#,
            "a",
        );
        let score = score.unwrap();
        assert_eq!((score.overall, score.accuracy, score.format), (0.5, 1.0, 0.0));
        assert_eq!(score.extracted.as_deref(), Some("3"));
        assert_eq!(score.extra, [("short".to_owned(), 0.0), ("steps".to_owned(), 4.0)].into());
        let bare = parse(br#" {"overall":-2} "#, "a").unwrap();
        assert_eq!((bare.overall, bare.accuracy, bare.format, bare.extracted), (-2.0, -2.0, 0.0, None));
    }

    #[test]
    fn bad_replies_say_what_is_wrong() {
        for (line, problem) in [
            (&b"{\"overall\":1,\"x\":\"\xff\"}"[..], "it is not UTF-8 (byte 19)"),
            (b"", "it is empty"),
            (b"loading...", "it is not JSON"),
            (b"3", "it is a number, not a JSON object"),
            (b"{}", "it has no `overall`"),
            (br#"{"overall":NaN}"#, "NaN and Infinity are no JSON numbers"),
            (br#"{"overall":1e999}"#, "it is not JSON"),
            (br#"{"overall":"1"}"#, "`overall` is a string, not a number"),
            (br#"{"overall":true}"#, "`overall` is a truth value, not a number"),
            (br#"{"overall":1,"accuracy":"yes"}"#, "`accuracy` is a string, not a number"),
            (br#"{"overall":1,"extracted":3}"#, "`extracted` is a number, not a string or null"),
            (br#"{"overall":1,"id":"b"}"#, "its `id` is \"b\", the request's is \"a\""),
            (br#"{"overall":1} {"overall":1}"#, "it is not JSON"),
        ] {
            let found = parse(line, "a").unwrap_err();
            assert!(found.starts_with(problem), "{found}");
        }
    }
}
