//! What a key of EasyR1's can hold, read as OmegaConf reads its dataclasses.

use toml::{Table, Value};

use crate::yaml::{YamlContent, YamlNode};

/// The type of a key, as EasyR1 declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueKind {
    /// `str`.
    Text,
    /// `Optional[str]`.
    TextOrNull,
    /// `str` that names files; a list of them is taken, too.
    Files,
    /// `int`.
    Int,
    /// `Optional[int]`.
    IntOrNull,
    /// `float`.
    Number,
    /// `Optional[float]`.
    NumberOrNull,
    /// `bool`.
    Bool,
    /// `tuple[float, float]`.
    Pair,
    /// `Tuple[str]`.
    Words,
    /// `dict[str, Any]`.
    Dict,
}

impl ValueKind {
    /// In words, for messages and the page.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::TextOrNull => "a text or null",
            Self::Files => "a path",
            Self::Int => "a whole number",
            Self::IntOrNull => "a whole number or null",
            Self::Number => "a number",
            Self::NumberOrNull => "a number or null",
            Self::Bool => "true or false",
            Self::Pair => "two numbers",
            Self::Words => "a list of texts",
            Self::Dict => "a mapping",
        }
    }

    /// Reads a value; `None` is null.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub(crate) fn read(self, node: &YamlNode) -> Result<Option<Value>, String> {
        let wrong = || format!("expected {}, found {}", self.name(), shown(node));
        let is_optional = matches!(self, Self::TextOrNull | Self::IntOrNull | Self::NumberOrNull);
        if is_null(node) {
            return match self {
                _ if is_optional => Ok(None),
                // A section of YAML without entries.
                Self::Dict => Ok(Some(Value::Table(Table::new()))),
                _ => Err(wrong()),
            };
        }
        let value = match (self, &node.content) {
            (Self::Text | Self::TextOrNull | Self::Files, YamlContent::Scalar(text, _)) => Value::String(text.clone()),
            (Self::Files | Self::Words, YamlContent::List(list)) => Value::Array(texts(list).ok_or_else(wrong)?),
            (Self::Words, YamlContent::Scalar(text, _)) => Value::Array(vec![Value::String(text.clone())]),
            (Self::Int | Self::IntOrNull, YamlContent::Scalar(text, quoted)) => {
                Value::Integer(int(text, *quoted).ok_or_else(wrong)?)
            }
            (Self::Number | Self::NumberOrNull, YamlContent::Scalar(text, quoted)) => {
                Value::Float(number(text, *quoted).ok_or_else(wrong)?)
            }
            (Self::Bool, YamlContent::Scalar(text, quoted)) => {
                Value::Boolean(boolean(text, *quoted).ok_or_else(wrong)?)
            }
            (Self::Pair, YamlContent::List(list)) if list.len() == 2 => {
                let two = list.iter().map(|one| match &one.content {
                    YamlContent::Scalar(text, quoted) => number(text, *quoted).map(Value::Float),
                    _ => None,
                });
                Value::Array(two.collect::<Option<_>>().ok_or_else(wrong)?)
            }
            (Self::Dict, YamlContent::Map(_)) => any(node)?,
            _ => return Err(wrong()),
        };
        Ok(Some(value))
    }
}

/// A value of no declared type, as it is written.
///
/// # Errors
/// A null, which has no counterpart.
fn any(node: &YamlNode) -> Result<Value, String> {
    Ok(match &node.content {
        _ if is_null(node) => return Err("holds a null, which has no counterpart here; leave that entry out".into()),
        YamlContent::Scalar(text, true) => Value::String(text.clone()),
        YamlContent::Scalar(text, false) => yaml_int(text)
            .map(Value::Integer)
            .or_else(|| number(text, false).map(Value::Float))
            .or_else(|| yaml_bool(text).map(Value::Boolean))
            .unwrap_or_else(|| Value::String(text.clone())),
        YamlContent::List(list) => Value::Array(list.iter().map(any).collect::<Result<_, _>>()?),
        YamlContent::Map(entries) => {
            let entry = |(key, node): &(String, YamlNode)| any(node).map(|value| (key.clone(), value));
            Value::Table(entries.iter().map(entry).collect::<Result<_, _>>()?)
        }
    })
}

fn texts(list: &[YamlNode]) -> Option<Vec<Value>> {
    let text = |node: &YamlNode| match &node.content {
        YamlContent::Scalar(text, _) => Some(Value::String(text.clone())),
        _ => None,
    };
    list.iter().map(text).collect()
}

/// Whether nothing stands there, in one of YAML's words for it.
pub(crate) fn is_null(node: &YamlNode) -> bool {
    matches!(&node.content, YamlContent::Scalar(text, false)
        if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL" | "None"))
}

/// A whole number as PyYAML resolves one (YAML 1.1): decimal, `0x`, `0b`, octal behind a 0, base 60 with colons.
fn yaml_int(text: &str) -> Option<i64> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    // The standard library would take a sign behind the prefix, too.
    let in_base = |digits: &str, base| {
        digits
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric())
            .then(|| i64::from_str_radix(digits, base).ok())
            .flatten()
    };
    let found = match digits {
        _ if text.starts_with('_') => None,
        _ if digits.starts_with("0b") => in_base(&digits[2..], 2),
        _ if digits.starts_with("0x") => in_base(&digits[2..], 16),
        "0" => Some(0),
        _ if digits.starts_with('0') => in_base(&digits[1..], 8),
        _ => digits.split(':').enumerate().try_fold(0_i64, |sum, (place, part)| {
            let part = in_base(part, 10).filter(|part| place == 0 || *part < 60)?;
            sum.checked_mul(60)?.checked_add(part)
        }),
    };
    found.and_then(|found| found.checked_mul(sign))
}

/// A whole number as OmegaConf reads one: what is no number of YAML's is a text, which Python's `int` takes (`08`).
fn int(text: &str, is_quoted: bool) -> Option<i64> {
    let of_yaml = if is_quoted { None } else { yaml_int(text) };
    of_yaml.or_else(|| text.trim().replace('_', "").parse().ok())
}

/// As OmegaConf: `1e-6` is a number without a point, too.
fn number(text: &str, is_quoted: bool) -> Option<f64> {
    if let Some(whole) = yaml_int(text).filter(|_| !is_quoted) {
        return Some(whole as f64);
    }
    let text = text.trim().replace('_', "");
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)).then_some(number)
}

/// The words of YAML 1.1, in the three ways in which they may be written.
fn yaml_bool(text: &str) -> Option<bool> {
    let is_word = |word: &str| {
        let capital = format!("{}{}", word[..1].to_ascii_uppercase(), &word[1..]);
        text == word || text == capital || text == word.to_ascii_uppercase()
    };
    let any = |words: [&str; 3]| words.iter().any(|word| is_word(word));
    if any(["true", "yes", "on"]) {
        return Some(true);
    }
    any(["false", "no", "off"]).then_some(false)
}

/// As OmegaConf's: the words in any spelling, and whole numbers.
fn boolean(text: &str, is_quoted: bool) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => int(text, is_quoted).map(|number| number != 0),
    }
}

/// A value as a part of a longer text, in Python's spelling; `None` for lists and mappings.
pub(crate) fn python_text(value: Option<&Value>) -> Option<String> {
    Some(match value {
        None => "None".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Boolean(value)) => if *value { "True" } else { "False" }.to_string(),
        // 1.0 keeps its point, and 1e-6 is 1e-06 in Python, which no name has needed so far.
        Some(Value::Float(value)) => format!("{value:?}"),
        Some(Value::Integer(value)) => value.to_string(),
        Some(_) => return None,
    })
}

fn shown(node: &YamlNode) -> String {
    match &node.content {
        _ if is_null(node) => "null".into(),
        YamlContent::Scalar(text, _) => format!("`{}`", guard::echo(text)),
        YamlContent::List(_) => "a list".into(),
        YamlContent::Map(_) => "a mapping".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from OmegaConf 2.4 over PyYAML 6.0: text, whether in quotes, as `int`, `float`, `bool`, `Any`.
    #[test]
    fn scalars_are_those_of_omegaconf() {
        let none = "-";
        for (text, quoted, whole, float, truth, untyped) in [
            ("1", false, "1", "1.0", "true", "1"),
            ("0x10", false, "16", "16.0", "true", "16"),
            ("0o17", false, none, none, none, "\"0o17\""),
            ("017", false, "15", "15.0", "true", "15"),
            ("08", false, "8", "8.0", "true", none),
            ("1_000", false, "1000", "1000.0", "true", "1000"),
            ("1e3", false, none, "1000.0", none, "1000.0"),
            ("1e-3", false, none, "0.001", none, "0.001"),
            ("1.", false, none, "1.0", none, "1.0"),
            (".5", false, none, "0.5", none, "0.5"),
            ("-5", false, "-5", "-5.0", "true", "-5"),
            ("1:30", false, "90", "90.0", "true", "90"),
            ("0b11", false, "3", "3.0", "true", "3"),
            ("yes", false, none, none, "true", "true"),
            ("Off", false, none, none, "false", "false"),
            ("y", false, none, none, "true", "\"y\""),
            ("tRUE", false, none, none, "true", "\"tRUE\""),
            ("0", false, "0", "0.0", "false", "0"),
            ("2", false, "2", "2.0", "true", "2"),
            ("1", true, "1", "1.0", "true", "\"1\""),
            ("017", true, "17", "17.0", "true", "\"017\""),
            ("0x10", true, none, none, none, "\"0x10\""),
            ("1e-3", true, none, "0.001", none, "\"1e-3\""),
            ("1,000", false, none, none, none, "\"1,000\""),
            ("0x-1", false, none, none, none, "\"0x-1\""),
            ("1e", false, none, none, none, "\"1e\""),
            ("infinity", false, none, none, none, "\"infinity\""),
        ] {
            let node = YamlNode { line: 1, content: YamlContent::Scalar(text.to_string(), quoted) };
            let read = |kind: ValueKind| match kind.read(&node) {
                Ok(Some(value)) => value.to_string(),
                _ => none.to_string(),
            };
            let found = [read(ValueKind::Int), read(ValueKind::Number), read(ValueKind::Bool)];
            assert_eq!(found, [whole, float, truth], "{text}, in quotes: {quoted}");
            if untyped != none {
                assert_eq!(any(&node).unwrap().to_string(), untyped, "{text}, in quotes: {quoted}");
            }
        }
    }
}
