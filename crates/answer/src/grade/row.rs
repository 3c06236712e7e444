//! A line of JSON whose keys, their order and their values stay as they were written, with the grade added.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{Request, RewardRow, Score};

/// How much of a line that is no JSON object is repeated in the output, in characters.
const SHOWN: usize = 200;

/// The keys that are read.
pub(crate) struct LineKeys<'a> {
    pub given: &'a str,
    pub response: &'a str,
    pub truth: &'a str,
    /// Whether the rule counts tokens.
    pub length_needed: bool,
    /// Whether the reward looks at the other keys.
    pub row_wanted: bool,
}

/// One object.
pub(crate) struct GradedLine<'a> {
    entries: Vec<(String, &'a RawValue)>,
    /// What is graded, or why it cannot be.
    pub fields: Result<Fields<'a>, String>,
}

/// What a row is graded by.
pub(crate) struct Fields<'a> {
    answer: Cow<'a, str>,
    truth: Cow<'a, str>,
    id: Cow<'a, str>,
    length: usize,
    row: Option<RewardRow>,
    /// Whether the answer has been extracted from a response already.
    pub extracted: bool,
}

impl Fields<'_> {
    /// As the reward takes it.
    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            response: &self.answer,
            ground_truth: &self.truth,
            response_length: self.length,
            id: &self.id,
            row: self.row.as_ref(),
        }
    }
}

/// The entries of an object in their order, values unread.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<'a> GradedLine<'a> {
    /// Reads a line; what is wrong with it when it is no JSON object.
    pub(crate) fn parse(line: &'a Result<Vec<u8>, String>, keys: &LineKeys) -> Result<Self, String> {
        let line = line.as_ref().map_err(String::clone)?;
        let text =
            std::str::from_utf8(line).map_err(|e| format!("the line is not UTF-8 (byte {})", e.valid_up_to() + 1))?;
        let Entries(entries) =
            serde_json::from_str(text).map_err(|e| format!("the line is not a JSON object: {}", short(&e)))?;
        let fields = fields(&entries, keys);
        Ok(Self { entries, fields })
    }

    /// The line with its score.
    pub(crate) fn with_score(&self, score: &Score) -> String {
        let mut added: Vec<(Cow<str>, String)> = vec![
            ("accuracy".into(), json(&score.accuracy)),
            ("format".into(), json(&score.format)),
            ("overall".into(), json(&score.overall)),
            ("extracted".into(), json(&score.extracted)),
        ];
        added.extend(score.extra.iter().map(|(name, value)| (format!("reward/{name}").into(), json(value))));
        self.with(&added)
    }

    /// The line with the reason why it has none.
    pub(crate) fn with_error(&self, problem: &str) -> String {
        self.with(&[("error".into(), json(&problem))])
    }

    /// The line with these keys at its end. What an earlier run of this program left is replaced.
    fn with(&self, added: &[(Cow<str>, String)]) -> String {
        let ours = |key: &str| {
            matches!(key, "accuracy" | "format" | "overall" | "extracted" | "error") || key.starts_with("reward/")
        };
        let kept = self.entries.iter().filter(|(key, _)| !ours(key)).map(|(key, value)| (key.as_str(), value.get()));
        let added = added.iter().map(|(key, value)| (&**key, &**value));
        let mut line = String::from("{");
        for (key, value) in kept.chain(added) {
            if line.len() > 1 {
                line.push_str(", ");
            }
            line.push_str(&json(key));
            line.push_str(": ");
            line.push_str(value);
        }
        line.push('}');
        line
    }
}

/// The output for a line that is no JSON object.
pub(crate) fn unread(number: u64, problem: &str, line: &Result<Vec<u8>, String>) -> String {
    let bytes = line.as_deref().unwrap_or_default();
    let text: String =
        String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN)]).trim_end().chars().take(SHOWN).collect();
    format!("{{\"line\": {number}, \"text\": {}, \"error\": {}}}", json(&text), json(&problem))
}

fn fields<'a>(entries: &[(String, &'a RawValue)], keys: &LineKeys) -> Result<Fields<'a>, String> {
    // Of a key that is there twice the last one counts, as in Python.
    let find = |key: &str| entries.iter().rev().find(|(found, _)| found == key).map(|(_, value)| *value);
    let truth = find(keys.truth).ok_or_else(|| format!("the line has no `{}`", keys.truth))?;
    let truth = text_of(keys.truth, truth)?;
    let (key, answer) = match (find(keys.given), find(keys.response)) {
        (Some(given), _) => (keys.given, given),
        (None, Some(response)) => (keys.response, response),
        (None, None) => return Err(format!("the line has neither `{}` nor `{}`", keys.given, keys.response)),
    };
    let answer = text_of(key, answer)?;
    let length = match find("response_length") {
        None if keys.length_needed => {
            return Err("the line has no `response_length`, in tokens, which the overlong penalty needs".into());
        }
        None => 0,
        Some(value) => serde_json::from_str(value.get())
            .map_err(|_| format!("`response_length` is {}, not a whole number of tokens", cut(value.get())))?,
    };
    let id = find("id").map_or(Cow::Borrowed(""), |id| text_of("id", id).unwrap_or(Cow::Borrowed(id.get())));
    let row = keys.row_wanted.then(|| row_of(entries, keys));
    Ok(Fields { answer, truth, id, length, row, extracted: key == keys.given })
}

/// The keys that are not read otherwise, as a row of a data set: `prompt` or `problem`, `images`, columns.
fn row_of(entries: &[(String, &RawValue)], keys: &LineKeys) -> RewardRow {
    let read = [keys.given, keys.response, keys.truth, "id", "response_length"];
    let mut row = RewardRow::default();
    for (key, value) in entries.iter().filter(|(key, _)| !read.contains(&key.as_str())) {
        let text = text_of(key, value).map_or_else(|_| value.get().to_string(), Cow::into_owned);
        match key.as_str() {
            "prompt" | "problem" => row.prompt = text,
            "images" => row.images = serde_json::from_str(value.get()).unwrap_or_default(),
            _ => drop(row.columns.insert(key.clone(), text)),
        }
    }
    row
}

/// A string; numbers and truth values as they are written.
fn text_of<'a>(key: &str, value: &'a RawValue) -> Result<Cow<'a, str>, String> {
    let json = value.get();
    let kind = match json.as_bytes().first() {
        Some(b'"') => {
            // Half of a surrogate pair is the one thing that RawValue lets pass.
            let text: Cow<str> =
                serde_json::from_str::<String>(json).map_err(|e| format!("`{key}` is not text: {}", short(&e)))?.into();
            return Ok(text);
        }
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        Some(b'n') => "null",
        _ => return Ok(Cow::Borrowed(json)),
    };
    Err(format!("`{key}` is {kind}, not a string or a number; write it as one string"))
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Strings and numbers always can be written.
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// An error of the parser without the line number, which is always 1.
fn short(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}
