//! Configuration files of EasyR1 and its forks, read as they are: the crate `easyr1` says what their keys mean, and
//! what they say stands where a TOML file of the same settings would.

use easyr1::{Conversion, Setting, YamlFile};
use toml::{Table, Value};

use super::section::Node as _;
use super::{Config, ConfigError, Source, resolve};

/// Files and overrides without EasyR1's among them.
pub(super) struct Translated {
    /// TOML, the translated one first.
    pub(super) files: Vec<Source>,
    /// In this program's spelling.
    pub(super) overrides: Vec<String>,
    /// What EasyR1's files and overrides mean.
    pub(super) conversion: Conversion,
}

/// Whether the file is one of EasyR1's: all that is no TOML is.
fn is_yaml(file: &Source) -> bool {
    let name = file.name.to_ascii_lowercase();
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// Translates EasyR1's files, which come first; `None` where there are none.
///
/// # Errors
/// What the files do not say right or is not done here; one that stands behind a TOML file.
pub(super) fn translate(files: &[Source], overrides: &[String]) -> Result<Option<Translated>, ConfigError> {
    let count = files.iter().take_while(|file| is_yaml(file)).count();
    let (of_easyr1, own) = files.split_at(count);
    if let Some(late) = own.iter().find(|file| is_yaml(file)) {
        let reason = "says the whole run, with EasyR1's defaults where it is silent: name it before the TOML files";
        return Err(ConfigError::Unreadable { name: late.name.clone(), reason: reason.to_string() });
    }
    if of_easyr1.is_empty() {
        return Ok(None);
    }
    let yaml: Vec<YamlFile> = of_easyr1.iter().map(|file| YamlFile { name: &file.name, text: &file.text }).collect();
    let conversion = easyr1::convert(&yaml, overrides)?;
    let names: Vec<&str> = of_easyr1.iter().map(|file| file.name.as_str()).collect();
    let mut table = Table::new();
    for Setting { key, value, .. } in &conversion.settings {
        put(&mut table, key, value.clone());
    }
    // A table of plain values is always written.
    let text = toml::to_string(&table).unwrap_or_default();
    let mut files = vec![Source::new(names.join(", "), text)];
    files.extend(own.iter().cloned());
    Ok(Some(Translated { files, overrides: conversion.own.clone(), conversion }))
}

/// Puts a value at a dotted path.
fn put(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_string(), value);
        }
        Some((section, rest)) => {
            let below = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                put(below, rest, value);
            }
        }
    }
}

impl Translated {
    /// Refuses the name of a published algorithm: each of its keys would stand below what the file says.
    pub(super) fn refuse_bundle(&self, name: Option<String>) -> Result<(), ConfigError> {
        match name.filter(|name| !name.is_empty()) {
            None => Ok(()),
            Some(name) => Err(ConfigError::WrongValue {
                at: self.files[0].name.clone(),
                key: "algorithm.name".to_string(),
                reason: format!(
                    "brings the settings of \"{name}\" below those of files, and a file of EasyR1's says every one; set \
                     single keys (algorithm.shaping={name}), or begin with a file of configs/"
                ),
            }),
        }
    }

    /// Says of each key of an error where EasyR1's file has it: the lines of the TOML that was made of it are nowhere.
    pub(super) fn located(&self, error: ConfigError) -> ConfigError {
        let of = |key: &str| self.conversion.settings.iter().find(|setting| setting.key == key);
        let place = |setting: &Setting| match setting.at.as_str() {
            "" => format!("{}, EasyR1's default", setting.from),
            at => format!("{}, {at}", setting.from),
        };
        match error {
            ConfigError::WrongValue { at, key, reason } => match of(&key) {
                Some(setting) if at.starts_with(&self.files[0].name) => {
                    let at = if setting.at.is_empty() { "EasyR1's default".to_string() } else { setting.at.clone() };
                    ConfigError::WrongValue {
                        at,
                        key: setting.from.clone(),
                        reason: format!("{reason} (`{key}` here)"),
                    }
                }
                _ => ConfigError::WrongValue { at, key, reason },
            },
            ConfigError::Invalid(mut problems) => {
                for key in problems.iter_mut().flat_map(|problem| &mut problem.keys) {
                    if let Some(setting) = of(key) {
                        *key = format!("{key} ({})", place(setting));
                    }
                }
                ConfigError::Invalid(problems)
            }
            other => other,
        }
    }
}

/// What is to be said of EasyR1's files among `files`: keys that mean nothing here, once, and notes. `None` where there
/// is nothing to say.
///
/// # Errors
/// As [`resolve`].
pub fn easyr1_message(files: &[Source], overrides: &[String]) -> Result<Option<String>, ConfigError> {
    let translated = translate(files, overrides)?;
    Ok(translated.and_then(|found| found.conversion.message().map(|text| format!("{}: {text}", found.files[0].name))))
}

/// EasyR1's files and overrides as one TOML file, which resolves to the same configuration: each key that they state or
/// that differs from this program's default, beside the key that it comes from.
///
/// # Errors
/// As [`resolve`]; no file of EasyR1's.
pub fn convert_easyr1(files: &[Source], overrides: &[String]) -> Result<String, ConfigError> {
    let Some(translated) = translate(files, overrides)? else {
        let name = files.first().map_or_else(String::new, |file| file.name.clone());
        let reason = "is no file of EasyR1's: their names end in .yaml".to_string();
        return Err(ConfigError::Unreadable { name, reason });
    };
    let config = resolve(files, overrides)?;
    // What the program writes it reads.
    let table = |config: &Config| -> Table { toml::from_str(&config.to_toml()).unwrap_or_default() };
    let (mut now, default) = (table(&config), table(&Config::default()));
    now.remove("stages");
    let mut out = format!("# Converted from {}; docs/easyr1.md says how.\n", guard::echo(&translated.files[0].name));
    for line in translated.conversion.message().unwrap_or_default().lines() {
        out += &format!("# {line}\n");
    }
    for name in Config::SECTIONS {
        if let (Some(Value::Table(now)), Some(Value::Table(default))) = (now.get(*name), default.get(*name)) {
            section(name, now, default, &translated.conversion.settings, &mut out);
        }
    }
    config.stages.write("stages", &mut out);
    Ok(out)
}

/// Writes a section's keys and those below it.
fn section(path: &str, now: &Table, default: &Table, settings: &[Setting], out: &mut String) {
    let none = Table::new();
    let mut lines = String::new();
    for (name, value) in now {
        let key = super::section::join(path, name);
        let setting = settings.iter().find(|setting| setting.key == key);
        let is_section = value.is_table() && setting.is_none();
        let is_stated = setting.is_some_and(|setting| !setting.at.is_empty());
        if is_section || !is_stated && default.get(name) == Some(value) {
            continue;
        }
        let from = setting.map_or_else(String::new, |setting| format!(" # {}", setting.from));
        lines += &format!("{name} = {value}{from}\n");
    }
    if !lines.is_empty() {
        out.push_str(&format!("\n[{path}]\n{lines}"));
    }
    for (name, value) in now {
        let key = super::section::join(path, name);
        if let Value::Table(below) = value
            && !settings.iter().any(|setting| setting.key == key)
        {
            let default = default.get(name).and_then(Value::as_table).unwrap_or(&none);
            section(&key, below, default, settings, out);
        }
    }
}
