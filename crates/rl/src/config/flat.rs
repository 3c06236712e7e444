//! A configuration as keys with values, for a comparison of two; stages stand under their names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Config, Stage, present_key};

/// A stage as a person knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StageName {
    /// `sft` or `rl`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How many stages of this kind and name stand before it: the default names may come more than once.
    pub twin: usize,
}

impl Display for StageName {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self.twin {
            0 => write!(f, "{:?} ({})", self.name, self.kind),
            twin => write!(f, "{:?} ({}, number {})", self.name, self.kind, twin + 1),
        }
    }
}

impl StageName {
    /// The names of stages, in their order.
    pub fn of(stages: &[Stage]) -> Vec<Self> {
        let mut names: Vec<Self> = Vec::with_capacity(stages.len());
        for stage in stages {
            let twin = names.iter().filter(|n| n.kind == stage.kind() && n.name == stage.name()).count();
            names.push(Self { kind: stage.kind().into(), name: stage.name().into(), twin });
        }
        names
    }

    /// Several in a row, for a message.
    pub fn list(names: &[Self]) -> String {
        names.iter().map(Self::to_string).collect::<Vec<_>>().join(", ")
    }

    /// `stages.NAME`, with a number from the second stage of that name on.
    fn prefix(&self) -> String {
        match self.twin {
            0 => format!("stages.{}", self.name),
            twin => format!("stages.{}#{}", self.name, twin + 1),
        }
    }
}

impl Config {
    /// Every key with its value; those of a stage under its name.
    pub fn flat(&self) -> BTreeMap<String, String> {
        // What the program writes it reads.
        let mut table: Table = toml::from_str(&self.to_toml()).unwrap_or_default();
        let stages = table.remove("stages");
        let mut out = BTreeMap::new();
        flatten("", &Value::Table(table), &mut out);
        let stages = stages.iter().filter_map(Value::as_array).flatten();
        for (name, stage) in std::iter::zip(StageName::of(&self.stages), stages) {
            flatten(&name.prefix(), stage, &mut out);
        }
        out
    }
}

fn flatten(prefix: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    let Value::Table(table) = value else {
        out.insert(prefix.to_string(), value.to_string());
        return;
    };
    for (key, value) in table {
        flatten(&super::section::join(prefix, key), value, out);
    }
}

/// Keys that say where and how to start, not what is trained.
const OF_THE_START: &[&str] = &["trainer.resume", "trainer.output_dir", "trainer.experiment_name"];

/// One line for each key whose value has changed between two [flat](Config::flat) configurations with the stages
/// `stages[0]` and `stages[1]`, with what a resumed run makes of that where it is not plain.
pub(crate) fn changes(
    then: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    stages: [&[StageName]; 2],
) -> Vec<String> {
    let mut lines = Vec::new();
    if stages[0] != stages[1] {
        lines.push(format!("stages: {} -> {}", StageName::list(stages[0]), StageName::list(stages[1])));
    }
    // A stage that came or went is one line, above.
    let of_both = |key: &str| {
        let within = |names: &[StageName]| names.iter().any(|n| key.starts_with(&format!("{}.", n.prefix())));
        !key.starts_with("stages.") || stages.into_iter().all(within)
    };
    // A checkpoint of an earlier version has earlier spellings.
    let then: BTreeMap<&str, &String> = then.iter().map(|(key, value)| (present_key(key), value)).collect();
    let keys: BTreeSet<&str> = then.keys().copied().chain(now.keys().map(String::as_str)).collect();
    for key in keys {
        let (old, new) = (then.get(key).copied(), now.get(key));
        if old == new || OF_THE_START.contains(&key) || !of_both(key) {
            continue;
        }
        let text = |value: Option<&String>| value.map_or("(no such key)", String::as_str).to_string();
        lines.push(format!("{key}: {} -> {}{}", text(old), text(new), meaning(key)));
    }
    lines
}

/// What a changed key does not do before the next stage.
fn meaning(key: &str) -> &'static str {
    match key {
        "data.seed" | "data.shuffle" => {
            " (this stage goes on in the order that it began with; the next one takes the new value)"
        }
        "model.path" => " (the weights are the checkpoint's)",
        "model.init" | "model.init_seed" => " (no effect: the weights are the checkpoint's)",
        _ => "",
    }
}

/// Keys, and prefixes of keys that end in `.` or `_`, that responses, their log-probs and their rewards are made with.
const MAKES_GROUPS: &[&str] = &[
    "rollout.n",
    "rollout.temperature",
    "rollout.top_p",
    "data.max_response_length",
    "data.answer_key",
    "reward.",
    "algorithm.online_filtering",
    "algorithm.filter_",
    "algorithm.adv_estimator",
];

/// The first key that differs among those which sampled groups are made with; none where `then` is not known.
pub(crate) fn remade(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Option<String> {
    if then.is_empty() {
        return None;
    }
    let is = |key: &str, name: &str| key == name || name.ends_with(['.', '_']) && key.starts_with(name);
    let makes = |key: &&String| MAKES_GROUPS.iter().any(|name| is(key, name));
    then.keys().chain(now.keys()).filter(makes).find(|key| then.get(*key) != now.get(*key)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, resolve};

    fn config(text: &str) -> Config {
        resolve(&[Source::new("test", text)], &[]).unwrap()
    }

    const STAGES: &str = r#"
        [data]
        train_files = ["toy:sum"]
        [[stages]]
        stage = "sft"
        name = "a"
        steps = 1
        [[stages]]
        stage = "rl"
        name = "c"
        steps = 2
        [[stages]]
        stage = "rl"
        name = "d"
        steps = 1
    "#;

    fn said(then: &Config, now: &Config) -> Vec<String> {
        changes(&then.flat(), &now.flat(), [&StageName::of(&then.stages()), &StageName::of(&now.stages())])
    }

    #[test]
    fn every_changed_key_is_named() {
        let (then, now) =
            (config(STAGES), config(&STAGES.replace("toy:sum", "toy:read").replace("steps = 2", "steps = 3")));
        let lines = said(&then, &now);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("data.train_files: ") && lines[0].contains("toy:read"), "{lines:?}");
        assert_eq!(lines[1], "stages.c.steps: 2 -> 3");
        assert!(said(&then, &then).is_empty());
        // A stage that goes is one line, not one for each of its keys.
        let fewer = config(&STAGES[..STAGES.rfind("[[stages]]").unwrap()]);
        let lines = said(&then, &fewer);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("stages: "), "{lines:?}");
    }

    #[test]
    fn groups_made_otherwise_are_known_by_the_key() {
        let then = config(STAGES).flat();
        for (text, key) in [
            ("[rollout]\nn = 3", Some("rollout.n")),
            ("[reward]\nformat_weight = 0.2", Some("reward.format_weight")),
            ("[algorithm]\nfilter_low = 0.2", Some("algorithm.filter_low")),
            ("[rollout]\ntemperature = 0.5", Some("rollout.temperature")),
            ("[actor]\nglobal_batch_size = 64", None),
            ("[trainer]\nseed = 9", None),
        ] {
            let now = resolve(&[Source::new("test", STAGES), Source::new("change", text)], &[]).unwrap();
            assert_eq!(remade(&then, &now.flat()).as_deref(), key, "{text}");
        }
        assert_eq!(remade(&BTreeMap::new(), &then), None, "a checkpoint of an earlier version");
    }
}
