//! Typed access to the keys of `config.json`.

use std::path::Path;

use policy::ModelError;
use serde_json::{Map, Value};

/// More layers than any model has.
const MOST_LAYERS: usize = 4096;
/// No width, vocabulary or number of heads is larger; products of two stay far within 64 bits.
const LARGEST: usize = 1 << 24;

/// Reads keys of one JSON object and keeps what is wrong in words.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) map: &'a Map<String, Value>,
    pub(super) prefix: &'static str,
    /// Name of the family, for messages.
    pub(super) family: &'static str,
}

impl Reader<'_> {
    pub(super) fn fail(&self, key: &str, why: impl std::fmt::Display) -> ModelError {
        ModelError::Config { path: self.path.into(), reason: format!("{}{key}: {why}", self.prefix) }
    }
    pub(super) fn usize_of(&self, keys: &[&str], default: Option<usize>) -> Result<usize, ModelError> {
        for key in keys {
            match self.map.get(*key) {
                None | Some(Value::Null) => continue,
                Some(v) => {
                    return v
                        .as_u64()
                        .map(|v| v as usize)
                        .ok_or_else(|| self.fail(key, format!("expected a whole number, found {}", shown(v))));
                }
            }
        }
        default.ok_or_else(|| self.fail(keys[0], format!("missing; a {} config needs it", self.family)))
    }
    pub(super) fn positive(&self, keys: &[&str], default: Option<usize>) -> Result<usize, ModelError> {
        self.within(keys, default, LARGEST)
    }
    /// A size from 1 to `most`.
    pub(super) fn within(&self, keys: &[&str], default: Option<usize>, most: usize) -> Result<usize, ModelError> {
        match self.usize_of(keys, default)? {
            0 => Err(self.fail(keys[0], "must be at least 1, found 0")),
            v if v > most => Err(self.fail(keys[0], format!("must be at most {most}, found {v}"))),
            v => Ok(v),
        }
    }
    /// A token id.
    pub(super) fn id(&self, key: &str, default: Option<usize>) -> Result<u32, ModelError> {
        let value = self.usize_of(&[key], default)?;
        u32::try_from(value).map_err(|_| self.fail(key, format!("{value} is no token id; the largest is {}", u32::MAX)))
    }
    pub(super) fn f64_of(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(v) => v.as_f64().ok_or_else(|| self.fail(key, format!("expected a number, found {}", shown(v)))),
        }
    }
    pub(super) fn positive_f64(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        match self.f64_of(key, default)? {
            v if v > 0.0 && v.is_finite() => Ok(v),
            v => Err(self.fail(key, format!("must be above 0, found {v}"))),
        }
    }
    /// A number of layers that a machine can hold.
    pub(super) fn layers(&self, key: &str, default: Option<usize>) -> Result<usize, ModelError> {
        match self.positive(&[key], default)? {
            v if v <= MOST_LAYERS => Ok(v),
            v => Err(self.fail(key, format!("{v} layers; at most {MOST_LAYERS} are believed"))),
        }
    }
    pub(super) fn bool_of(&self, key: &str) -> Result<Option<bool>, ModelError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(v) => Err(self.fail(key, format!("expected true or false, found {}", shown(v)))),
        }
    }
    pub(super) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, ModelError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(m)) => Ok(Some(m)),
            Some(v) => Err(self.fail(key, format!("expected an object, found {}", shown(v)))),
        }
    }
    pub(super) fn silu(&self) -> Result<(), ModelError> {
        match self.map.get("hidden_act").and_then(Value::as_str) {
            None | Some("silu") => Ok(()),
            Some(other) => Err(self
                .fail("hidden_act", format!("\"{}\" is not supported; {} uses \"silu\"", shown(other), self.family))),
        }
    }
}

/// A value as a message shows it.
pub(super) fn shown(value: impl std::fmt::Display) -> String {
    guard::echo(&value.to_string())
}
