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
            (Self::Int | Self::IntOrNull, YamlContent::Scalar(text, _)) => Value::Integer(int(text).ok_or_else(wrong)?),
            (Self::Number | Self::NumberOrNull, YamlContent::Scalar(text, _)) => {
                Value::Float(number(text).ok_or_else(wrong)?)
            }
            (Self::Bool, YamlContent::Scalar(text, _)) => Value::Boolean(boolean(text).ok_or_else(wrong)?),
            (Self::Pair, YamlContent::List(list)) if list.len() == 2 => {
                let two = list.iter().map(|one| match &one.content {
                    YamlContent::Scalar(text, _) => number(text).map(Value::Float),
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
        YamlContent::Scalar(text, false) => int(text)
            .map(Value::Integer)
            .or_else(|| number(text).map(Value::Float))
            .or_else(|| boolean(text).map(Value::Boolean))
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

fn int(text: &str) -> Option<i64> {
    text.trim().replace('_', "").parse().ok()
}

/// As OmegaConf: `1e-6` is a number without a point, too.
fn number(text: &str) -> Option<f64> {
    let text = text.trim().replace('_', "");
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)).then_some(number)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "0" => Some(false),
        _ => None,
    }
}

fn shown(node: &YamlNode) -> String {
    match &node.content {
        _ if is_null(node) => "null".into(),
        YamlContent::Scalar(text, _) => format!("`{}`", guard::echo(text)),
        YamlContent::List(_) => "a list".into(),
        YamlContent::Map(_) => "a mapping".into(),
    }
}
