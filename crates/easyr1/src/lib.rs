//! What the configuration files of [EasyR1](https://github.com/hiyouga/EasyR1) and of its forks VGPO, VPPO-RL and PAPO
//! mean here: one table of their keys ([`meaning`], [`page`]), and the conversion by it ([`convert`]).
//!
//! Nothing here knows this program's configuration but by the names of its keys, which a test of `rl` compares.
//!
//! ```
//! let text = "worker:
//!   actor:
//!     model:
//!       model_path: DIR
//!   reward: {reward_function: math.py:compute_score}
//! ";
//! let file = easyr1::YamlFile { name: "x.yaml", text };
//! let conversion = easyr1::convert(&[file], &["worker.rollout.n=8".into(), "model.freeze_vision_tower=true".into()])?;
//! let path = conversion.settings.iter().find(|setting| setting.key == "model.path").unwrap();
//! assert_eq!((path.value.as_str(), path.at.as_str()), (Some("DIR"), "x.yaml:4"));
//! // What EasyR1 does not know is this program's own.
//! assert_eq!(conversion.own, ["model.freeze_vision_tower=true"]);
//! # Ok::<(), easyr1::EasyR1Error>(())
//! ```

mod derive;
mod error;
mod interpolation;
mod keys;
mod page;
mod rewards;
mod stated;
mod table;
mod value;
mod yaml;

pub use error::{EasyR1Error, Gap};
pub use page::page;

use stated::Stated;
use table::Fate;

/// A file in memory.
#[derive(Clone, Copy, Debug)]
pub struct YamlFile<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// YAML.
    pub text: &'a str,
}

/// One key of this program's with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// This program's key.
    pub key: &'static str,
    /// Its value.
    pub value: toml::Value,
    /// EasyR1's key that it comes from.
    pub from: String,
    /// File and line, or the override, where that stands; empty for a default of EasyR1's.
    pub at: String,
}

/// What files and overrides mean here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversion {
    /// Every key that EasyR1's decide, each once.
    pub settings: Vec<Setting>,
    /// Overrides of keys that EasyR1 does not have, as they were given.
    pub own: Vec<String>,
    /// Stated keys that change no result here, each with the reason.
    pub ignored: Vec<(String, &'static str)>,
    /// What is otherwise worth knowing.
    pub notes: Vec<String>,
}

impl Conversion {
    /// One message about what was left out and what else is to be known; `None` where nothing is.
    pub fn message(&self) -> Option<String> {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for (key, why) in &self.ignored {
            match reasons.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, keys)) => keys.push(key),
                None => reasons.push((why, vec![key])),
            }
        }
        let mut lines: Vec<String> = self.notes.clone();
        if !self.ignored.is_empty() {
            lines.push(format!("{} keys of EasyR1's change no result here and are left out:", self.ignored.len()));
            lines.extend(reasons.iter().map(|(why, keys)| format!("  {}: {why}", keys.join(", "))));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// Reads files left to right, then overrides in EasyR1's spelling, on top of EasyR1's own defaults.
///
/// # Errors
/// The first text that is no YAML, key that EasyR1 does not have or value of a wrong type; or else everything together
/// that is not done here.
pub fn convert(files: &[YamlFile], overrides: &[String]) -> Result<Conversion, EasyR1Error> {
    let stated = Stated::read(files, overrides)?;
    let mut conversion = derive::derive(&stated)?;
    for key in &stated.keys {
        if let (Fate::Ignored(why), true) = (&key.fate, stated.get(&key.name).is_stated()) {
            conversion.ignored.push((key.name.clone(), why));
        }
    }
    conversion.own = stated.own;
    Ok(conversion)
}

/// What a key of EasyR1's is here, as a sentence; `None` where EasyR1 and its forks have none of that name. The prefix
/// `worker.` may be left out.
///
/// ```
/// assert_eq!(
///     easyr1::meaning("worker.actor.model.model_path").unwrap(),
///     "EasyR1's `worker.actor.model.model_path` is `model.path` here: it must be given",
/// );
/// assert_eq!(easyr1::meaning("worker.actor.no_such_key"), None);
/// ```
pub fn meaning(key: &str) -> Option<String> {
    let keys = table::all();
    let find = |name: &str| keys.iter().find(|found| found.name == name);
    let found = find(key).or_else(|| find(&format!("worker.{key}")))?;
    Some(format!("EasyR1's `{}` {}", found.name, found.meaning()))
}

/// The keys of this program's that EasyR1's decide, in the order of the table: what hints and the page name.
pub fn targets() -> Vec<&'static str> {
    table::all().iter().flat_map(|key| key.targets().iter().copied()).collect()
}

/// How many of EasyR1's own keys are mapped, ignored and refused but for some values.
pub fn counts() -> [usize; 3] {
    table::counts(table::all().iter().filter(|key| key.of == keys::EASYR1))
}
