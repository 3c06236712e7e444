//! What files and overrides state, laid over EasyR1's defaults.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::interpolation::{self, Lookup};
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

/// A value as it is written.
struct WrittenValue {
    key: String,
    node: YamlNode,
    /// As of [`StatedValue`].
    at: String,
}

/// Every key with its value.
pub(crate) struct Stated {
    pub(crate) keys: Vec<EasyR1Key>,
    values: BTreeMap<String, StatedValue>,
    /// Of files and overrides, in their order.
    written: Vec<WrittenValue>,
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
        let mut stated = Self { keys, values, written: Vec::new(), own: Vec::new() };
        for file in files {
            let root = yaml::read(file.name, file.text)?;
            let YamlContent::Map(entries) = &root.content else {
                let reason = "holds a list or a text, not sections such as `data:`".to_string();
                return Err(EasyR1Error::Syntax { at: file.name.to_string(), reason });
            };
            stated.section(&|line| format!("{}:{line}", file.name), "", entries)?;
        }
        for text in overrides {
            stated.over(text)?;
        }
        // What is filled in is what the last of them says.
        for index in 0..stated.written.len() {
            stated.fill_in(index)?;
        }
        Ok(stated)
    }

    /// Takes the keys of a section; `at` says where a line of theirs stands.
    fn section(
        &mut self,
        at: &dyn Fn(usize) -> String,
        path: &str,
        entries: &[(String, YamlNode)],
    ) -> Result<(), EasyR1Error> {
        for (name, node) in entries {
            let place = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let here = at(node.line);
            match &node.content {
                _ if self.values.contains_key(&place) => self.write(&place, node.clone(), here),
                YamlContent::Map(below) if self.is_section(&place) => self.section(at, &place, below)?,
                YamlContent::Scalar(..) if self.is_section(&place) && crate::value::is_null(node) => {}
                _ if self.is_section(&place) && interpolation::is_open(node) => {
                    let reason =
                        "is a section, which cannot be filled in; repeat another with an alias (`&name`, `*name`)";
                    return Err(EasyR1Error::Wrong { at: here, key: place, reason: reason.to_string() });
                }
                _ => return Err(self.unknown(here, place)),
            }
        }
        Ok(())
    }

    fn write(&mut self, key: &str, node: YamlNode, at: String) {
        self.written.push(WrittenValue { key: key.to_string(), node, at });
    }

    fn is_section(&self, path: &str) -> bool {
        self.values.keys().any(|key| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The type of a key.
    fn kind(&self, key: &str) -> Option<ValueKind> {
        self.keys.iter().find(|found| found.name == key).map(|found| found.kind)
    }

    /// Reads one written value, once what it asks for is filled in.
    fn fill_in(&mut self, index: usize) -> Result<(), EasyR1Error> {
        let WrittenValue { key, node, at } = &self.written[index];
        let filled = interpolation::fill(self, key, node);
        let read = filled.and_then(|node| self.kind(key).unwrap_or(ValueKind::Text).read(&node));
        let wrong = |reason| EasyR1Error::Wrong { at: at.clone(), key: key.clone(), reason };
        let (mut value, key, at) = (read.map_err(wrong)?, key.clone(), at.clone());
        // Mappings are merged, as OmegaConf does.
        if let (Some(Value::Table(new)), Some(Value::Table(old))) = (&mut value, &self.get(&key).value) {
            let mut merged = old.clone();
            merged.extend(std::mem::take(new));
            *new = merged;
        }
        self.values.insert(key, StatedValue { value, at });
        Ok(())
    }

    /// One `key=value`. A key that EasyR1 does not have is left to this program.
    fn over(&mut self, text: &str) -> Result<(), EasyR1Error> {
        let at = format!("override `{}`", guard::echo(text));
        if let Some(key) = text.strip_prefix('~') {
            let reason = "`~` takes a key away in Hydra; a key that is left out has EasyR1's default here".to_string();
            return Err(EasyR1Error::Wrong { at, key: guard::echo(key), reason });
        }
        // A `+`, which adds a key in Hydra, says nothing here.
        let text = text.trim_start_matches('+');
        let Some((key, value)) = text.split_once('=') else {
            self.own.push(text.to_string());
            return Ok(());
        };
        let (key, value) = (key.trim(), value.trim());
        if let Some(kind) = self.kind(key) {
            self.write(key, Self::written(kind, value), at);
            return Ok(());
        }
        // `worker.rollout.val_override_config.temperature=0.5`
        if let Some((parent, name)) = key.rsplit_once('.')
            && self.kind(parent) == Some(ValueKind::Dict)
        {
            let entry = (name.to_string(), Self::written(ValueKind::Words, value));
            self.write(parent, YamlNode { line: 0, content: YamlContent::Map(vec![entry]) }, at);
            return Ok(());
        }
        // `worker.actor.fsdp={enable_full_shard: true}`
        if self.is_section(key)
            && let YamlContent::Map(entries) = Self::written(ValueKind::Dict, value).content
        {
            return self.section(&|_| at.clone(), key, &entries);
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

impl Lookup for Stated {
    /// The last that is written, an entry of a mapping by its name and of a list by its place, else the default.
    fn look_up(&self, path: &str) -> Result<(YamlNode, ValueKind), String> {
        let shown = guard::echo(path);
        let own = self.keys.iter().find(|key| path == key.name || path.starts_with(&format!("{}.", key.name)));
        let Some(key) = own else {
            let hint = if self.is_section(path) { "is a section".to_string() } else { self.hint(path) };
            return Err(format!("`${{{shown}}}` names no key of EasyR1's; {hint}"));
        };
        let rest = path.strip_prefix(&key.name).unwrap_or_default().trim_start_matches('.');
        let default = yaml::read("the default", key.default).ok();
        let written = self.written.iter().rev().filter(|written| written.key == key.name).map(|written| &written.node);
        let found = written.chain(&default).find_map(|node| below(node, rest).cloned());
        let kind = if rest.is_empty() { key.kind } else { ValueKind::TextOrNull };
        found.map(|node| (node, kind)).ok_or_else(|| format!("`${{{shown}}}`: `{}` has no such entry", key.name))
    }
}

/// The node at a dotted path within another; lists by place.
fn below<'a>(node: &'a YamlNode, path: &str) -> Option<&'a YamlNode> {
    let Some((name, rest)) = path.split_once('.').or_else(|| (!path.is_empty()).then_some((path, ""))) else {
        return Some(node);
    };
    let found = match &node.content {
        YamlContent::Scalar(..) => None,
        YamlContent::List(list) => list.get(name.parse::<usize>().ok()?),
        YamlContent::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, node)| node),
    };
    below(found?, rest)
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
