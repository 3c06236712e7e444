//! The table: every key of EasyR1 and of its forks, once, with its type, its default and what becomes of it.

use crate::keys;
use crate::value::ValueKind;

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// The same value under this key.
    Same(&'static str),
    /// These keys, by a rule in words (`derive.rs` has it as code).
    Derived(&'static [&'static str], &'static str),
    /// It changes no result here; why.
    Ignored(&'static str),
    /// Only these values (as YAML) can be had; why, and what to do with another.
    Only(&'static [&'static str], &'static str),
}

use Fate::{Derived, Ignored, Only, Same};

/// One key, named within its section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyEntry {
    pub(crate) name: &'static str,
    pub(crate) kind: ValueKind,
    /// As YAML.
    pub(crate) default: &'static str,
    pub(crate) fate: Fate,
}

/// A section, and whose it is.
pub(crate) struct KeySection {
    /// Dotted path.
    pub(crate) path: &'static str,
    /// `EasyR1`, or the forks that added these keys.
    pub(crate) of: &'static str,
    pub(crate) keys: &'static [KeyEntry],
    /// Where the whole section means nothing: why.
    pub(crate) unused: Option<&'static str>,
}

/// A key with its whole name.
#[derive(Clone, Debug)]
pub(crate) struct EasyR1Key {
    pub(crate) name: String,
    pub(crate) of: &'static str,
    pub(crate) kind: ValueKind,
    pub(crate) default: &'static str,
    pub(crate) fate: Fate,
}

/// Every key, in EasyR1's order, those of forks behind.
pub(crate) fn all() -> Vec<EasyR1Key> {
    let sections = keys::SECTIONS.iter();
    let key = |section: &'static KeySection, entry: &'static KeyEntry| EasyR1Key {
        name: format!("{}.{}", section.path, entry.name),
        of: section.of,
        kind: entry.kind,
        default: entry.default,
        fate: section.unused.map_or(entry.fate, Ignored),
    };
    sections.flat_map(|section| section.keys.iter().map(move |entry| key(section, entry))).collect()
}

impl EasyR1Key {
    /// The keys of this program's that it decides.
    pub(crate) fn targets(&self) -> &'static [&'static str] {
        match self.fate {
            Same(to) => targets_of(to),
            Derived(to, _) => to,
            Ignored(_) | Only(..) => &[],
        }
    }

    /// What it is here, as half a sentence behind the key's name.
    pub(crate) fn meaning(&self) -> String {
        match self.fate {
            Same(to) => format!("is `{to}` here"),
            Derived(to, how) => {
                let to: Vec<String> = to.iter().map(|key| format!("`{key}`")).collect();
                format!("is {} here: {how}", to.join(", "))
            }
            Ignored(why) => format!("means nothing here: {why}"),
            Only(_, why) => format!("has no counterpart here: {why}"),
        }
    }
}

/// One name as a list, for the life of the program.
fn targets_of(to: &'static str) -> &'static [&'static str] {
    keys::SECTIONS
        .iter()
        .flat_map(|section| section.keys)
        .find_map(|entry| match &entry.fate {
            Same(found) if *found == to => Some(std::slice::from_ref(found)),
            _ => None,
        })
        .unwrap_or_default()
}

/// How many keys have which fate: mapped, ignored, refused but for some values.
pub(crate) fn counts<'a>(keys: impl Iterator<Item = &'a EasyR1Key>) -> [usize; 3] {
    let mut counts = [0; 3];
    for key in keys {
        counts[match key.fate {
            Same(_) | Derived(..) => 0,
            Ignored(_) => 1,
            Only(..) => 2,
        }] += 1;
    }
    counts
}
