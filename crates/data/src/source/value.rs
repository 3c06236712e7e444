//! JSON values whose numbers stay as they are written: an id or an answer may have more digits than any number type
//! holds.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(JsonObject),
}

/// A JSON object, keys in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct JsonObject(Vec<(String, Json)>);

/// Deeper values are refused: their parsing would need a stack without bound.
const MAX_DEPTH: usize = 128;

impl Json {
    /// The value that `bytes` hold and nothing else.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: &RawValue = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        Self::from_raw(raw, MAX_DEPTH)
    }

    /// A value that a parser has stepped over.
    pub(super) fn of(raw: &RawValue) -> Result<Self, String> {
        Self::from_raw(raw, MAX_DEPTH)
    }

    fn from_raw(raw: &RawValue, depth: usize) -> Result<Self, String> {
        let text = raw.get();
        let fail = |e: serde_json::Error| e.to_string();
        let deeper =
            || depth.checked_sub(1).ok_or(format!("more than {MAX_DEPTH} lists or objects stand in each other"));
        Ok(match text.as_bytes().first() {
            Some(b'{') => {
                let RawFields(fields) = serde_json::from_str(text).map_err(fail)?;
                let depth = deeper()?;
                let field = |(key, raw): (Cow<str>, &RawValue)| Ok((key.into_owned(), Self::from_raw(raw, depth)?));
                Self::Object(JsonObject(fields.into_iter().map(field).collect::<Result<_, String>>()?))
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(fail)?;
                let depth = deeper()?;
                Self::Array(items.into_iter().map(|raw| Self::from_raw(raw, depth)).collect::<Result<_, String>>()?)
            }
            Some(b'"') => Self::String(serde_json::from_str(text).map_err(fail)?),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number(text.to_owned()),
        })
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The value of a key, where this is an object that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        if let Self::Object(object) = self { object.get(key) } else { None }
    }
}

impl JsonObject {
    /// The value of a key; of several the last one.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

/// The fields of an object, their values stepped over.
struct RawFields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(RawFields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// As JSON, without blanks.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| serde_json::to_string(text).map_err(|_| fmt::Error);
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(text) => f.write_str(text),
            Self::String(text) => f.write_str(&quoted(text)?),
            Self::Array(items) => {
                for (k, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if k == 0 { "[" } else { "," })?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Self::Object(object) => {
                for (k, (key, value)) in object.iter().enumerate() {
                    write!(f, "{}{}:{value}", if k == 0 { "{" } else { "," }, quoted(key)?)?;
                }
                f.write_str(if object.0.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

/// A JSON number as text. `3.0` and `3` are one answer, and so are `1e3` and `1000`; where a floating-point number
/// cannot hold all digits, and in every whole number, they stay as they are written.
pub(super) fn number_text(written: &str) -> String {
    if !written.contains(['.', 'e', 'E']) {
        return written.to_owned();
    }
    let plain = written.parse::<f64>().ok().filter(|f| f.is_finite()).map(|f| f.to_string());
    match plain {
        Some(plain) if decimal(&plain).is_some_and(|value| decimal(written) == Some(value)) => plain,
        _ => written.to_owned(),
    }
}

/// Sign, digits without zeros at either end, and the power of ten of the last digit.
fn decimal(number: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let power = exponent.parse::<i64>().ok()?.checked_sub(fraction.len() as i64)?;
    let power = power.checked_add((digits.len() - significant.len()) as i64)?;
    match significant.trim_start_matches('0') {
        "" => Some((negative, String::new(), 0)),
        significant => Some((negative, significant.to_owned(), power)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_text() {
        for (written, text) in [
            ("7", "7"),
            ("-7", "-7"),
            ("7.0", "7"),
            ("7.50", "7.5"),
            ("-0.5", "-0.5"),
            ("1e3", "1000"),
            ("1e+22", "10000000000000000000000"),
            ("0.0", "0"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("18446744073709551616", "18446744073709551616"),
            ("-9223372036854775809", "-9223372036854775809"),
            ("0.1234567890123456789012345", "0.1234567890123456789012345"),
            ("3.14159265358979323846", "3.14159265358979323846"),
            ("12345678901234567890.5", "12345678901234567890.5"),
            ("100000000000000000001.0", "100000000000000000001.0"),
            ("1e400", "1e400"),
            ("1e-400", "1e-400"),
            ("1e99999999999999999999", "1e99999999999999999999"),
        ] {
            assert_eq!(number_text(written), text, "{written}");
        }
    }

    #[test]
    fn values_are_written_as_they_were() {
        for text in [
            r#"{"a":[12345678901234567890123,1.50,{"b":null}],"c":"x\"\n\u0001é","d":{},"e":[],"f":true}"#,
            "[]",
            "-0.10",
            r#""""#,
        ] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap().to_string(), text);
        }
        assert_eq!(Json::parse(br#"{"a":1,"a":2}"#).unwrap().get("a"), Some(&Json::Number("2".into())));
    }

    #[test]
    fn what_is_no_json_is_an_error_and_depth_has_a_bound() {
        for text in ["", "nul", "{", "[1,]", "{\"a\":tru}", "\"\\x\"", "1 2", "[\"\\ud800\"]", "\u{feff}1"] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(Json::parse(b"\"\xff\"").is_err());
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(nested(100).as_bytes()).is_ok());
        assert!(Json::parse(nested(129).as_bytes()).unwrap_err().contains("128"));
        assert!(Json::parse(nested(200_000).as_bytes()).is_err());
    }
}
