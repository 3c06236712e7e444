//! What a configuration value can be: how it is read from TOML or from a command line, and printed.
//!
//! Reading is written by hand instead of derived so that an error can name the key, what was expected and
//! what was found, and so that the same description produces the reference in `docs/configuration.md`.

use ::data::DataSpec;
use ::data::dataset::WeightedSpec;
use serde_json::json;
use toml::Value;

use super::schema::{list, words};

/// A type that one configuration key can hold.
pub trait Field: Sized {
    /// The type as the reference names it, e.g. `integer` or `"none" \| "vgpo"`.
    fn kind() -> String;

    /// What JSON Schema says of its values, for editors.
    fn schema() -> serde_json::Value;

    /// Reads a TOML value. The error says what was expected and what was found, without the key.
    fn from_value(value: &Value) -> Result<Self, String>;

    /// Prints the value as TOML.
    fn to_text(&self) -> String;

    /// Reads the right-hand side of an override; what is no TOML is taken as a string without quotes.
    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_value(&parse_value(text).unwrap_or_else(|| Value::String(text.to_string())))
    }
}

/// `text` as one TOML value, `None` when it is none.
pub(crate) fn parse_value(text: &str) -> Option<Value> {
    let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    // A list may go over several lines; what more lines would set beside it is no part of one value.
    if table.len() != 1 {
        return None;
    }
    table.remove("value")
}

/// "expected X, found Y".
pub fn mismatch(expected: &str, found: &Value) -> String {
    let found = match found {
        Value::String(text) => format!("the string {}", quote(text)),
        Value::Integer(number) => format!("the integer {number}"),
        Value::Float(number) => format!("the number {number:?}"),
        Value::Boolean(flag) => format!("the boolean {flag}"),
        Value::Datetime(date) => format!("the date {date}"),
        Value::Array(_) => "a list".to_string(),
        Value::Table(_) => "a table".to_string(),
    };
    format!("expected {expected}, found {found}")
}

/// A TOML basic string.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl Field for bool {
    fn kind() -> String {
        "boolean".into()
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "boolean" })
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| mismatch("true or false", value))
    }
    fn to_text(&self) -> String {
        self.to_string()
    }
    fn from_text(text: &str) -> Result<Self, String> {
        // Python's spelling, which the scripts of EasyR1 use.
        match text {
            "true" | "True" => Ok(true),
            "false" | "False" => Ok(false),
            other => Self::from_value(&parse_value(other).unwrap_or_else(|| Value::String(other.to_string()))),
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn kind() -> String {
                "integer".into()
            }
            fn schema() -> serde_json::Value {
                json!({ "type": "integer", "minimum": 0 })
            }
            fn from_value(value: &Value) -> Result<Self, String> {
                value
                    .as_integer()
                    .and_then(|number| <$type>::try_from(number).ok())
                    .ok_or_else(|| mismatch("an integer, 0 or more", value))
            }
            fn to_text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
integers!(usize, u32, u64);

impl Field for f64 {
    fn kind() -> String {
        "number".into()
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "number" })
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        let number = match value {
            Value::Float(number) => *number,
            // Exact below 2^53, far above any setting.
            Value::Integer(number) => *number as f64,
            other => return Err(mismatch("a number", other)),
        };
        if number.is_finite() { Ok(number) } else { Err(mismatch("a finite number", value)) }
    }
    fn to_text(&self) -> String {
        // Debug keeps a decimal point or an exponent and reads back to the same bits.
        format!("{self:?}")
    }
}

impl Field for [f64; 2] {
    fn kind() -> String {
        "[number, number]".into()
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "array", "items": f64::schema(), "minItems": 2, "maxItems": 2 })
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        let wrong = || mismatch("a list of two numbers", value);
        match value.as_array().map(Vec::as_slice) {
            Some([first, second]) => {
                Ok([f64::from_value(first).map_err(|_| wrong())?, f64::from_value(second).map_err(|_| wrong())?])
            }
            _ => Err(wrong()),
        }
    }
    fn to_text(&self) -> String {
        format!("[{:?}, {:?}]", self[0], self[1])
    }
}

impl Field for Vec<f64> {
    fn kind() -> String {
        "list of numbers".into()
    }
    fn schema() -> serde_json::Value {
        list(f64::schema())
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        let wrong = |_| mismatch("a list of numbers", value);
        match value {
            Value::Array(numbers) => numbers.iter().map(|one| f64::from_value(one).map_err(wrong)).collect(),
            single => Ok(vec![f64::from_value(single).map_err(wrong)?]),
        }
    }
    fn to_text(&self) -> String {
        format!("{self:?}")
    }
}

impl Field for String {
    fn kind() -> String {
        "string".into()
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        value.as_str().map(str::to_string).ok_or_else(|| mismatch("a string", value))
    }
    fn to_text(&self) -> String {
        quote(self)
    }
    fn from_text(text: &str) -> Result<Self, String> {
        // `experiment_name=7` means the name "7": only quotes make the text TOML.
        match parse_value(text) {
            Some(Value::String(unquoted)) => Ok(unquoted),
            _ => Ok(text.to_string()),
        }
    }
}

/// The elements of an override that stands for a list: `[a,b]`, `["a", "b"]` or one bare element.
fn list_elements(text: &str) -> Vec<Value> {
    match parse_value(text) {
        Some(Value::Array(elements)) => return elements,
        Some(single) => return vec![single],
        None => {}
    }
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parts: Vec<&str> = match inner {
        Some(inner) => inner.split(',').map(str::trim).filter(|part| !part.is_empty()).collect(),
        None if text.is_empty() => Vec::new(),
        None => vec![text],
    };
    parts
        .into_iter()
        .map(|part| match parse_value(part) {
            Some(Value::String(unquoted)) => Value::String(unquoted),
            _ => Value::String(part.to_string()),
        })
        .collect()
}

impl Field for Vec<String> {
    fn kind() -> String {
        "list of strings".into()
    }
    fn schema() -> serde_json::Value {
        list(String::schema())
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(single) => Ok(vec![single.clone()]),
            Value::Array(elements) => elements
                .iter()
                .map(|element| {
                    element.as_str().map(str::to_string).ok_or_else(|| mismatch("a list of strings", element))
                })
                .collect(),
            other => Err(mismatch("a list of strings", other)),
        }
    }
    fn to_text(&self) -> String {
        let elements: Vec<String> = self.iter().map(|element| quote(element)).collect();
        format!("[{}]", elements.join(", "))
    }
    fn from_text(text: &str) -> Result<Self, String> {
        // A bare number is a string here: `reward.command=[sleep,1]`.
        let elements = list_elements(text).into_iter().map(|element| match element {
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Value::String(element.to_string()),
            other => other,
        });
        Self::from_value(&Value::Array(elements.collect()))
    }
}

/// Reads one entry of `data.train_files`.
fn data_spec(value: &Value) -> Result<DataSpec, String> {
    const EXPECTED: &str = "a string or a table {path, weight}";
    match value {
        Value::String(path) => Ok(DataSpec::Path(path.clone())),
        Value::Table(table) => {
            let mut spec = WeightedSpec { path: String::new(), weight: 1.0 };
            for (key, value) in table {
                match key.as_str() {
                    "path" => spec.path = String::from_value(value)?,
                    "weight" => spec.weight = f64::from_value(value)?,
                    other => return Err(format!("expected {EXPECTED}, found the key `{other}`")),
                }
            }
            if spec.path.is_empty() {
                return Err(format!("expected {EXPECTED}, found a table without `path`"));
            }
            Ok(DataSpec::Weighted(spec))
        }
        other => Err(mismatch(EXPECTED, other)),
    }
}

impl Field for Vec<DataSpec> {
    fn kind() -> String {
        "list of strings or {path, weight}".into()
    }
    fn schema() -> serde_json::Value {
        let weighted = json!({
            "type": "object",
            "properties": { "path": { "type": "string", "minLength": 1 }, "weight": f64::schema() },
            "required": ["path"],
            "additionalProperties": false
        });
        list(json!({ "anyOf": [String::schema(), weighted] }))
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Array(elements) => elements.iter().map(data_spec).collect(),
            single => Ok(vec![data_spec(single)?]),
        }
    }
    fn to_text(&self) -> String {
        let elements: Vec<String> = self
            .iter()
            .map(|spec| match spec {
                DataSpec::Path(path) => quote(path),
                DataSpec::Weighted(spec) => {
                    format!("{{ path = {}, weight = {:?} }}", quote(&spec.path), spec.weight)
                }
            })
            .collect();
        format!("[{}]", elements.join(", "))
    }
    fn from_text(text: &str) -> Result<Self, String> {
        Self::from_value(&Value::Array(list_elements(text)))
    }
}

/// A type of which each value has a name in the configuration.
pub trait Choice: Copy + 'static {
    /// Every value, in the order of the reference.
    const ALL: &'static [Self];
    /// The name in the configuration.
    fn as_str(self) -> &'static str;
    /// What it means, where its name does not say it; empty else.
    fn about(self) -> &'static str;
}

impl<C: Choice> Field for C {
    fn kind() -> String {
        let names: Vec<String> = C::ALL.iter().map(|choice| quote(choice.as_str())).collect();
        names.join(" | ")
    }
    fn schema() -> serde_json::Value {
        words(C::ALL.iter().map(|choice| choice.as_str()))
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        let names: Vec<&str> = C::ALL.iter().map(|choice| choice.as_str()).collect();
        let Some(text) = value.as_str() else {
            return Err(mismatch(&format!("one of {}", quoted_list(&names)), value));
        };
        let found = C::ALL.iter().copied().find(|choice| choice.as_str() == text);
        found.ok_or_else(|| not_a_choice(text, &names))
    }
    fn to_text(&self) -> String {
        quote(self.as_str())
    }
}

/// Names the values of an enum that is declared where it is used.
macro_rules! choices {
    ($name:ty { $( $(#[doc = $doc:literal])* $variant:ident = $text:literal, )+ }) => {
        impl $crate::config::field::Choice for $name {
            const ALL: &'static [Self] = &[$( Self::$variant ),+];
            fn as_str(self) -> &'static str {
                // Exhaustive: a value that is added there must be named here.
                match self {
                    $( Self::$variant => $text, )+
                }
            }
            fn about(self) -> &'static str {
                match self {
                    $( Self::$variant => concat!("", $( $doc ),*).trim(), )+
                }
            }
        }
    };
}
pub(crate) use choices;

/// Declares an enum of which each value has a name in the configuration.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident {
            $( $(#[doc = $vdoc:literal])* $variant:ident = $text:literal, )+
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[doc = $vdoc])* $variant, )+
        }

        $crate::config::field::choices!($name { $( $(#[doc = $vdoc])* $variant = $text, )+ });

        impl $name {
            /// The name in the configuration.
            $vis fn as_str(self) -> &'static str {
                $crate::config::field::Choice::as_str(self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use choice;

/// `"a", "b", "c"`.
pub(crate) fn quoted_list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| quote(name)).collect();
    quoted.join(", ")
}

/// The error for a word that is not among `names`, with the nearest one where there is one.
pub fn not_a_choice(text: &str, names: &[&str]) -> String {
    let hint = match nearest(text, names.iter().copied()) {
        Some(name) => format!("; did you mean {}?", quote(name)),
        None => String::new(),
    };
    format!("expected one of {}, found the string {}{hint}", quoted_list(names), quote(text))
}

/// The candidate that a typo most likely meant: one with at most a third of its letters wrong (or two), or one
/// that the word abbreviates or extends.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Nothing of that length is a typo, and the distance takes the product of both lengths.
    if word.len() > 200 {
        return None;
    }
    let normal = word.to_lowercase().replace('-', "_");
    candidates
        .filter_map(|candidate| {
            if candidate.is_empty() || normal.is_empty() {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&normal, candidate);
            let shorter = normal.len().min(candidate.len());
            let related = candidate.ends_with(&format!("_{normal}"))
                || normal.ends_with(&format!("_{candidate}"))
                || (shorter >= 4 && (candidate.starts_with(&normal) || normal.starts_with(candidate)));
            let allowed = (candidate.chars().count() / 3).max(2).min(candidate.chars().count() - 1);
            (distance <= allowed || related).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
