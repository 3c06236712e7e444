//! What files and overrides state, laid over EasyR1's defaults.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::table::{self, EasyR1Key};
use crate::value::ValueKind;
use crate::yaml::{self, YamlContent, YamlNode};
use crate::{EasyR1Error, YamlFile};

/// The value of a key and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct StatedValue {
    /// `None` is null.
    pub(crate) value: Option<Value>,
    /// File and line, or the override; empty for a default.
    pub(crate) at: String,
}

impl StatedValue {
    /// Whether a file or an override has it.
    pub(crate) fn is_stated(&self) -> bool {
        !self.at.is_empty()
    }
}

/// Every key with its value.
pub(crate) struct Stated {
    pub(crate) keys: Vec<EasyR1Key>,
    values: BTreeMap<String, StatedValue>,
    /// Overrides of keys that EasyR1 does not have.
    pub(crate) own: Vec<String>,
}

impl Stated {
    /// Reads files left to right, then overrides.
    ///
    /// # Errors
    /// What is no YAML, no key, or no value of its key.
    pub(crate) fn read(files: &[YamlFile], overrides: &[String]) -> Result<Self, EasyR1Error> {
        let keys = table::all();
        let default = |key: &EasyR1Key| {
            let node = yaml::read("the default", key.default)
                .unwrap_or(YamlNode { line: 0, content: YamlContent::Map(vec![]) });
            StatedValue { value: key.kind.read(&node).ok().flatten(), at: String::new() }
        };
        let values = keys.iter().map(|key| (key.name.clone(), default(key))).collect();
        let mut stated = Self { keys, values, own: Vec::new() };
        for file in files {
            let root = yaml::read(file.name, file.text)?;
            let YamlContent::Map(entries) = &root.content else {
                let reason = "holds a list or a text, not sections such as `data:`".to_string();
                return Err(EasyR1Error::Syntax { at: file.name.to_string(), reason });
            };
            stated.section(file.name, "", entries)?;
        }
        for text in overrides {
            stated.over(text)?;
        }
        Ok(stated)
    }

    fn section(&mut self, file: &str, path: &str, entries: &[(String, YamlNode)]) -> Result<(), EasyR1Error> {
        for (name, node) in entries {
            let place = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let at = format!("{file}:{}", node.line);
            match &node.content {
                _ if self.values.contains_key(&place) => self.set(&place, node, at)?,
                YamlContent::Map(below) if self.is_section(&place) => self.section(file, &place, below)?,
                YamlContent::Scalar(..) if self.is_section(&place) && crate::value::is_null(node) => {}
                _ => return Err(self.unknown(at, place)),
            }
        }
        Ok(())
    }

    fn is_section(&self, path: &str) -> bool {
        self.values.keys().any(|key| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    fn set(&mut self, key: &str, node: &YamlNode, at: String) -> Result<(), EasyR1Error> {
        let kind = self.keys.iter().find(|found| found.name == key).map_or(ValueKind::Text, |found| found.kind);
        let read = kind.read(node);
        let mut value = read.map_err(|reason| EasyR1Error::Wrong { at: at.clone(), key: key.to_string(), reason })?;
        // Mappings are merged, as OmegaConf does.
        if let (Some(Value::Table(new)), Some(Value::Table(old))) = (&mut value, &self.get(key).value) {
            let mut merged = old.clone();
            merged.extend(std::mem::take(new));
            *new = merged;
        }
        self.values.insert(key.to_string(), StatedValue { value, at });
        Ok(())
    }

    /// One `key=value`. A key that EasyR1 does not have is left to this program.
    fn over(&mut self, text: &str) -> Result<(), EasyR1Error> {
        let Some((key, value)) = text.split_once('=') else {
            self.own.push(text.to_string());
            return Ok(());
        };
        let (key, at) = (key.trim().trim_start_matches('+'), format!("override `{}`", guard::echo(text)));
        let kind_of = |key: &str| self.keys.iter().find(|found| found.name == key).map(|found| found.kind);
        if let Some(kind) = kind_of(key) {
            return self.set(key, &Self::written(kind, value.trim()), at);
        }
        // `worker.rollout.val_override_config.temperature=0.5`
        if let Some((parent, name)) = key.rsplit_once('.')
            && kind_of(parent) == Some(ValueKind::Dict)
        {
            let entry = (name.to_string(), Self::written(ValueKind::Words, value.trim()));
            return self.set(parent, &YamlNode { line: 0, content: YamlContent::Map(vec![entry]) }, at);
        }
        if key.split('.').next() == Some("worker") {
            return Err(self.unknown(at, key.to_string()));
        }
        self.own.push(text.to_string());
        Ok(())
    }

    /// The right-hand side of an override: YAML, or for a text that has no lists in it the text itself.
    fn written(kind: ValueKind, text: &str) -> YamlNode {
        let is_text = matches!(kind, ValueKind::Text | ValueKind::TextOrNull);
        let plain = YamlNode { line: 0, content: YamlContent::Scalar(text.to_string(), false) };
        match yaml::read("override", text) {
            Ok(YamlNode { content: YamlContent::Scalar(text, quoted), .. }) => {
                YamlNode { line: 0, content: YamlContent::Scalar(text, quoted) }
            }
            Ok(node) if !is_text && !text.is_empty() => node,
            _ => plain,
        }
    }

    fn unknown(&self, at: String, key: String) -> EasyR1Error {
        EasyR1Error::Unknown { at, hint: self.hint(&key), key: guard::echo(&key) }
    }

    fn hint(&self, key: &str) -> String {
        let root = key.split('.').next().unwrap_or_default();
        if ["actor_rollout_ref", "critic", "reward_model", "custom_reward_function"].contains(&root) {
            return "this is a file of verl, whose keys are others; EasyR1's sections are data, algorithm, worker and \
                    trainer"
                .into();
        }
        match nearest(key, self.keys.iter().map(|key| key.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "docs/easyr1.md lists EasyR1's keys and those of VGPO, VPPO and PAPO".into(),
        }
    }

    /// A key of the table.
    pub(crate) fn get(&self, key: &str) -> &StatedValue {
        const NONE: StatedValue = StatedValue { value: None, at: String::new() };
        debug_assert!(self.values.contains_key(key), "{key} is in no section");
        self.values.get(key).unwrap_or(const { &NONE })
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).value.as_ref().and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn is(&self, key: &str) -> bool {
        self.get(key).value.as_ref().and_then(Value::as_bool).unwrap_or_default()
    }

    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        self.get(key).value.as_ref().and_then(Value::as_integer)
    }

    pub(crate) fn number(&self, key: &str) -> f64 {
        self.get(key).value.as_ref().and_then(Value::as_float).unwrap_or_default()
    }

    pub(crate) fn dict(&self, key: &str) -> Table {
        self.get(key).value.as_ref().and_then(Value::as_table).cloned().unwrap_or_default()
    }
}

/// The key that a typo most likely meant: the fewest letters away, the last part counted most.
pub(crate) fn nearest<'a>(key: &str, keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Nothing of that length is a typo, and the distance takes the product of both lengths.
    if key.len() > 200 {
        return None;
    }
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_lowercase();
    let distance =
        |near: &str| (strsim::damerau_levenshtein(&last(key), &last(near)), strsim::damerau_levenshtein(key, near));
    let found = keys.map(|near| (distance(near), near)).min()?;
    let (((of_last, _), near), length) = (found, last(key).len());
    (of_last <= (length / 3).max(1)).then_some(near)
}
