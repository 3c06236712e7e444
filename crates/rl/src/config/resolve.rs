//! From files and overrides to one checked configuration.

use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::bundles::bundle;
use super::easyr1_files::{Translated, translate};
use super::field::{Field, nearest};
use super::moved::{bring_up_to_date, earlier_key, gone_file, meant, present_key};
use super::section::{KeyError, KeyProblem, Node};
use super::{Config, ConfigError};
use crate::registry::Methods;

/// The text of one configuration file and the name by which messages call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// File name in messages. One that ends in `.yaml` or `.yml` is a file of EasyR1's.
    pub name: String,
    /// TOML, or YAML.
    pub text: String,
}

impl Source {
    /// A source that is already in memory.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] when it cannot be read as UTF-8 text.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match guard::file::read_text(path, guard::limits().config_bytes) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => {
                let instead = gone_file(&name).filter(|_| !path.exists()).map(|instead| format!("; {instead}"));
                let reason = format!("{error}{}", instead.unwrap_or_default());
                Err(ConfigError::Unreadable { name, reason })
            }
        }
    }
}

/// Composes files left to right, then overrides left to right, on top of the defaults and of what `algorithm.name`
/// brings along, and checks the result.
///
/// A later value replaces an earlier one key by key; lists (`[[stages]]` among them) are replaced whole.
/// An override is `section.key=value`; see `docs/configuration.md`.
///
/// # Errors
/// The first file or override that cannot be read, or else all values that are out of range or contradict
/// one another ([`ConfigError::Invalid`]).
pub fn resolve(files: &[Source], overrides: &[String]) -> Result<Config, ConfigError> {
    resolve_with(&Methods::default(), files, overrides)
}

/// [`resolve`] with other algorithms than those that are built in; [`crate::registry::Registry`] calls it.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn resolve_with(methods: &Methods, files: &[Source], overrides: &[String]) -> Result<Config, ConfigError> {
    match translate(files, overrides)? {
        None => compose(methods, files, overrides, None),
        Some(found) => compose(methods, &found.files, &found.overrides, Some(&found)).map_err(|e| found.located(e)),
    }
}

/// Files and overrides in this program's own spelling; `translated` are those of EasyR1's among them.
fn compose(
    methods: &Methods,
    files: &[Source],
    overrides: &[String],
    translated: Option<&Translated>,
) -> Result<Config, ConfigError> {
    let files = files.iter().map(File::read).collect::<Result<Vec<_>, _>>()?;
    let overrides = overrides.iter().map(|text| Override::read(text)).collect::<Result<Vec<_>, _>>()?;
    let mut config = Config::default();
    config.algorithm.methods = methods.clone();
    // The name may stand anywhere, and what it brings stands below everything: a name is looked for first.
    let name = bundle_name(&files, &overrides);
    if let Some(translated) = translated {
        translated.refuse_bundle(name.clone())?;
    }
    if let Some(bundle) = name.and_then(|name| bundle(&name)) {
        for source in bundle.sources() {
            File::read(&source)?.apply(&mut config)?;
        }
    }
    for file in &files {
        file.apply(&mut config)?;
    }
    for one in &overrides {
        one.apply(&mut config)?;
    }
    config.validate()?;
    Ok(config)
}

/// The last `algorithm.name` of files and overrides.
fn bundle_name(files: &[File], overrides: &[Override]) -> Option<String> {
    let in_file = |file: &File| Some(file.table.get("algorithm")?.get("name")?.as_str()?.to_string());
    let given =
        |one: &Override| (one.parts == ["algorithm", "name"]).then(|| String::from_text(one.value).ok()).flatten();
    overrides.iter().rev().find_map(given).or_else(|| files.iter().rev().find_map(in_file))
}

/// A file, parsed and in the present spelling.
struct File<'a> {
    source: &'a Source,
    table: toml::Table,
}

impl<'a> File<'a> {
    fn read(source: &'a Source) -> Result<Self, ConfigError> {
        let mut table = parse(source)?;
        bring_up_to_date(&mut table).map_err(|(before, now)| {
            let reason = format!("is the earlier spelling of `{now}`, which stands in this file too; leave one out");
            Self::error(source, KeyError::wrong(before, reason), &Config::default())
        })?;
        Ok(Self { source, table })
    }

    fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        config
            .apply("", &Value::Table(self.table.clone()))
            .and_then(|()| config.check_names())
            .map_err(|error| Self::error(self.source, error, config))
    }

    /// Adds the line. A key that moved is called as the file calls it.
    fn error(file: &Source, mut error: KeyError, config: &Config) -> ConfigError {
        if let Some(before) = earlier_key(&error.path)
            && exists(&file.text, before)
        {
            error.path = before.to_string();
        }
        if matches!(error.problem, KeyProblem::Unknown { .. })
            && let Some(leaf) = easyr1_key(&file.text, &error.path)
        {
            error.path = leaf;
        }
        let at = match line_of(&file.text, &error.path) {
            Some(line) => format!("{}:{line}", file.name),
            None => file.name.clone(),
        };
        place(error, at, config)
    }
}

/// One `section.key=value`.
struct Override<'a> {
    text: &'a str,
    /// The key as it was written.
    key: &'a str,
    /// The key as it is written now.
    parts: Vec<&'a str>,
    value: &'a str,
}

impl<'a> Override<'a> {
    fn read(text: &'a str) -> Result<Self, ConfigError> {
        let wrong = |reason: &str| ConfigError::Override { text: text.to_string(), reason: reason.to_string() };
        if text.starts_with('-') {
            return Err(wrong("write section.key=value, without dashes"));
        }
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("has no `=`; write section.key=value"))?;
        let key = key.trim();
        let parts: Vec<&str> = present_key(key).split('.').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(wrong("has an empty key; write section.key=value"));
        }
        Ok(Self { text, key, parts, value: value.trim() })
    }

    fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        config.apply_text("", &self.parts, self.value).and_then(|()| config.check_names()).map_err(|mut error| {
            // One of EasyR1's may go wrong at the section that is not there.
            let is_unknown = matches!(error.problem, KeyProblem::Unknown { .. });
            if earlier_key(&error.path) == Some(self.key) || is_unknown && easyr1::meaning(self.key).is_some() {
                error.path = self.key.to_string();
            }
            place(error, format!("override `{}`", self.text), config)
        })
    }
}

/// The first key of EasyR1's at or below a dotted path of a file.
fn easyr1_key(text: &str, path: &str) -> Option<String> {
    fn first(path: String, value: &Value) -> Option<String> {
        if easyr1::meaning(&path).is_some() {
            return Some(path);
        }
        value.as_table()?.iter().find_map(|(name, value)| first(super::section::join(&path, name), value))
    }
    let table = toml::from_str::<toml::Table>(text).map(Value::Table).ok()?;
    let value = path.split('.').try_fold(&table, |value, part| value.get(part))?;
    first(path.to_string(), value)
}

/// Whether a file holds the key at a dotted path.
fn exists(text: &str, path: &str) -> bool {
    let table = toml::from_str::<toml::Table>(text).map(Value::Table).ok();
    path.split('.').try_fold(table.as_ref(), |value, part| Some(value?.get(part))).flatten().is_some()
}

fn parse(file: &Source) -> Result<toml::Table, ConfigError> {
    toml::from_str(&file.text).map_err(|error: toml::de::Error| ConfigError::Syntax {
        at: match error.span() {
            Some(span) => format!("{}:{}", file.name, line_at(&file.text, span.start)),
            None => file.name.clone(),
        },
        reason: error.message().trim().replace('\n', ", "),
    })
}

/// The line, from 1, of a byte offset.
fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// The line on which the key at a dotted path stands; of the nearest enclosing one where it stands nowhere.
fn line_of(text: &str, path: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut line = None;
    let mut rest: Vec<&str> = path.split('.').collect();
    rest.reverse();
    let mut table = root.get_ref();
    while let Some(part) = rest.pop() {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == part) else {
            return line;
        };
        line = Some(line_at(text, key.span().start));
        table = match (value.get_ref(), rest.last()) {
            (DeValue::Table(below), _) => below,
            (DeValue::Array(elements), Some(index)) => {
                let element = index.parse::<usize>().ok().and_then(|index| elements.get(index));
                match element {
                    Some(element) => {
                        line = Some(line_at(text, element.span().start));
                        rest.pop();
                        match element.get_ref() {
                            DeValue::Table(below) => below,
                            _ => return line,
                        }
                    }
                    None => return line,
                }
            }
            _ => return line,
        };
    }
    line
}

/// What earlier versions took: a key, the value that is gone (none: the key itself), and what to write instead.
const GONE: &[(&str, Option<&str>, &str)] = &[
    (
        "algorithm.pgpo.mask_probability",
        None,
        "PGPO compares with a prompt that has no picture (its equation 4), nothing is blacked out any more: leave \
         the key out",
    ),
    (
        "algorithm.perturbation.align",
        Some("pixels"),
        "what was \"pixels\" is \"stored\" (PAPO's); VPPO's released code has \"resized\"",
    ),
];

/// What to write instead of a key or value that is [`GONE`].
fn instead(error: &KeyError) -> Option<&'static str> {
    let is_it = |value: &Option<&str>| match (&error.problem, value) {
        (KeyProblem::Unknown { .. }, None) => true,
        (KeyProblem::Wrong(reason), Some(value)) => reason.contains(&format!("found the string \"{value}\"")),
        _ => false,
    };
    GONE.iter().find(|(key, value, _)| *key == error.path && is_it(value)).map(|(_, _, instead)| *instead)
}

/// Adds the place to a key's error, and the nearest key to an unknown one.
fn place(error: KeyError, at: String, config: &Config) -> ConfigError {
    let instead = instead(&error);
    match error.problem {
        KeyProblem::Wrong(mut reason) => {
            if let Some(instead) = instead {
                reason += &format!("; {instead}");
            }
            ConfigError::WrongValue { at, key: error.path, reason }
        }
        KeyProblem::Unknown { siblings } => {
            let hint = instead.map_or_else(|| hint(&error.path, &siblings, config), String::from);
            ConfigError::UnknownKey { at, key: error.path, hint }
        }
    }
}

/// What an unknown key most likely meant: a neighbour, the same key elsewhere, or what there is.
fn hint(path: &str, siblings: &[String], config: &Config) -> String {
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (format!("{parent}."), name),
        None => (String::new(), path),
    };
    // A key of EasyR1's, with its prefix or without.
    if let Some(meaning) = easyr1::meaning(path) {
        return meaning;
    }
    if path == "worker" || path.starts_with("worker.") {
        return "the prefix `worker.` is EasyR1's; its files are read as they are where their names end in .yaml, and \
                docs/easyr1.md says what each of its keys is here"
            .to_string();
    }
    let keys: Vec<String> = config
        .sections()
        .iter()
        .filter(|section| !section.header.starts_with("[["))
        .flat_map(|section| {
            let header = section.header.trim_matches(['[', ']']).to_string();
            section.keys.iter().map(move |key| format!("{header}.{}", key.name))
        })
        .collect();
    let near = |word: &str| nearest(word, siblings.iter().map(String::as_str));
    // An override can go wrong at its section: `algoritm.beta`.
    if let Some((head, tail)) = path.split_once('.')
        && let Some(section) = near(head)
        && keys.contains(&format!("{section}.{tail}"))
    {
        return format!("did you mean `{section}.{tail}`?");
    }
    let elsewhere: Vec<String> =
        keys.iter().filter(|key| key.rsplit('.').next() == Some(name)).map(|key| format!("`{key}`")).collect();
    if !elsewhere.is_empty() {
        return format!("did you mean {}?", elsewhere.join(" or "));
    }
    if near(name).is_none()
        && let Some(now) = meant(path)
    {
        return format!("did you mean `{now}`?");
    }
    let at_root = siblings.iter().any(|key| key == "model");
    let word = if at_root { path.split('.').next().unwrap_or(path) } else { name };
    match near(word) {
        Some(key) if at_root => format!("did you mean `{key}`?"),
        Some(key) => format!("did you mean `{parent}{key}`?"),
        None if at_root => format!("the sections are {}", siblings.join(", ")),
        None => format!("the keys of [{}] are {}", parent.trim_end_matches('.'), siblings.join(", ")),
    }
}
