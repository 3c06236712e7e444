//! The fields of a JSON request, each with its type and range; what is wrong with one is told under its name.

use serde_json::{Map, Value};

use crate::error::ApiError;

/// A JSON object; `null` is the same as nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JsonFields<'a>(pub &'a Map<String, Value>);

/// What a value is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value as it is quoted in a message.
pub(crate) fn shown(value: &Value) -> String {
    guard::echo(&value.to_string())
}

impl<'a> JsonFields<'a> {
    pub(crate) fn get(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(
        self,
        name: &str,
        wanted: &str,
        of: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || ApiError::field(name, format!("expected {wanted}, got {} ({})", kind(value), shown(value)));
        of(value).map(Some).ok_or_else(wrong)
    }

    pub(crate) fn flag(self, name: &str) -> Result<bool, ApiError> {
        Ok(self.typed(name, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    pub(crate) fn text(self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(crate) fn object(self, name: &str) -> Result<Option<JsonFields<'a>>, ApiError> {
        self.typed(name, "an object", |value| value.as_object().map(JsonFields))
    }

    /// A number within a range.
    pub(crate) fn number(self, name: &str, range: std::ops::RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.typed(name, &wanted, |value| value.as_f64().filter(|x| range.contains(x)))
    }

    /// A whole number within a range; `2.0` is one, too, as clients in JavaScript and Python write it.
    pub(crate) fn count(self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let whole = |value: &Value| {
            let number = value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=9e15).contains(x)).map(|x| x as u64);
            value.as_u64().or(number).filter(|n| range.contains(n))
        };
        self.typed(name, &wanted, whole)
    }

    /// A seed: any whole number of 64 bits.
    pub(crate) fn seed(self, name: &str) -> Result<Option<u64>, ApiError> {
        let whole = |value: &Value| value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() <= 9e15).map(|x| x as i64);
        let bits = |value: &Value| value.as_u64().or_else(|| value.as_i64().or_else(|| whole(value)).map(|n| n as u64));
        self.typed(name, "a whole number of at most 64 bits", bits)
    }
}
