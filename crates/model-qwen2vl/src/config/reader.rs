//! Typed access to the keys of `config.json`.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ModelError;

/// More layers than any model has.
const MOST_LAYERS: usize = 4096;

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
                        .ok_or_else(|| self.fail(key, format!("expected a whole number, found {v}")));
                }
            }
        }
        default.ok_or_else(|| self.fail(keys[0], format!("missing; a {} config needs it", self.family)))
    }
    pub(super) fn positive(&self, keys: &[&str], default: Option<usize>) -> Result<usize, ModelError> {
        match self.usize_of(keys, default)? {
            0 => Err(self.fail(keys[0], "must be at least 1, found 0")),
            v => Ok(v),
        }
    }
    pub(super) fn f64_of(&self, key: &str, default: f64) -> Result<f64, ModelError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(v) => v.as_f64().ok_or_else(|| self.fail(key, format!("expected a number, found {v}"))),
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
            Some(v) => Err(self.fail(key, format!("expected true or false, found {v}"))),
        }
    }
    pub(super) fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>, ModelError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(m)) => Ok(Some(m)),
            Some(v) => Err(self.fail(key, format!("expected an object, found {v}"))),
        }
    }
    pub(super) fn silu(&self) -> Result<(), ModelError> {
        match self.map.get("hidden_act").and_then(Value::as_str) {
            None | Some("silu") => Ok(()),
            Some(other) => {
                Err(self.fail("hidden_act", format!("{other:?} is not supported; {} uses \"silu\"", self.family)))
            }
        }
    }
}
