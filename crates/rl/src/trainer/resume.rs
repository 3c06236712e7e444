//! From a checkpoint to a run that can go on: everything that may refuse does so here, before anything on the disk
//! changes.
//!
//! A checkpoint refers to things outside of it: stages, rows, a tokenizer, settings. They are compared by what they are
//! (a stage by its name, a row by its content) with what the configuration names now. What cannot be right is refused
//! with the way out, or dropped with a note; every changed key is printed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::policy::Companions;
use kernels::Kernels;
use serde_json::Value;

use super::{Setup, reference};
use crate::checkpoint::{self, Carried, CarriedScore, Origin, StageName, TrainerState};
use crate::config::{Config, Stage};
use crate::error::TrainError;
use crate::learn::optimizer::AdamW;
use crate::policy::Policy;
use crate::prompts::{Item, Prompts};
use crate::rollout::Response;
use crate::trajectory::{ScoredGroup, Trajectory};

/// A checkpoint in memory.
pub(super) struct Loaded<B: Kernels, P> {
    /// Where it lies; in the place that [`checkpoint::recover`] gives it.
    pub path: PathBuf,
    pub state: TrainerState,
    pub policy: P,
    pub optimizer: AdamW<B>,
}

/// Reads a whole checkpoint.
pub(super) fn load<B: Kernels, P: Policy<B>>(path: &Path, setup: &Setup<P>) -> Result<Loaded<B, P>, TrainError> {
    let state = checkpoint::read_state(path)?;
    checkpoint::verify(path)?;
    let mut policy = (setup.load)(&path.join("hf"))?;
    let mut optimizer = AdamW::new(&setup.config.actor.optim).check_device(setup.config.trainer.check_device);
    optimizer.load(&path.join("optimizer.safetensors"), &mut policy)?;
    Ok(Loaded { path: checkpoint::recovered(path), state, policy, optimizer })
}

/// The newest checkpoint in `dir` that can be read; each one that cannot is a warning in `notes`.
///
/// # Errors
/// Where there are some and none can be read; a device that fails.
pub(super) fn newest<B: Kernels, P: Policy<B>>(
    dir: &Path,
    setup: &Setup<P>,
    notes: &mut Vec<String>,
) -> Result<Option<Loaded<B, P>>, TrainError> {
    let mut damaged: Option<(PathBuf, String)> = None;
    for (_, path) in checkpoint::candidates(dir).into_iter().rev() {
        match load(&path, setup) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(error @ (TrainError::Device(_) | TrainError::Model(::policy::ModelError::Device(_)))) => {
                return Err(error);
            }
            Err(error) => {
                let reason = error.to_string();
                notes.push(format!("warning: checkpoint {} is damaged and left out: {reason}", path.display()));
                damaged.get_or_insert((path, reason));
            }
        }
    }
    match damaged {
        None => Ok(None),
        Some((path, reason)) => Err(TrainError::Damaged {
            path,
            reason: format!(
                "cannot be read: {reason}; nor can any checkpoint before it. Copy one back from elsewhere, or start anew in another \
                 trainer.output_dir"
            ),
        }),
    }
}

/// The stages of a configuration by name.
pub(super) fn names(stages: &[Stage]) -> Vec<StageName> {
    let mut names: Vec<StageName> = Vec::with_capacity(stages.len());
    for stage in stages {
        let kind = match stage {
            Stage::Sft(_) => "sft",
            Stage::Rl(_) => "rl",
        };
        let twin = names.iter().filter(|n| n.kind == kind && n.name == stage.name()).count();
        names.push(StageName { kind: kind.into(), name: stage.name().into(), twin });
    }
    names
}

impl std::fmt::Display for StageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.twin {
            0 => write!(f, "{:?} ({})", self.name, self.kind),
            twin => write!(f, "{:?} ({}, number {})", self.name, self.kind, twin + 1),
        }
    }
}

fn listed(names: &[StageName]) -> String {
    names.iter().map(StageName::to_string).collect::<Vec<_>>().join(", ")
}

/// The index that the stage of `state` has in `now`: found by its name, with all stages before it done and none after
/// it.
fn place(state: &TrainerState, now: &[StageName]) -> Result<usize, String> {
    let then = &state.origin.stages;
    let Some(own) = then.get(state.stage) else {
        // A checkpoint of an earlier version knows the number alone.
        return match state.stage < now.len() {
            true => Ok(state.stage),
            false => Err(format!("it stands in stage {}, the configuration has {} stages", state.stage + 1, now.len())),
        };
    };
    let done = &then[..state.stage];
    let Some(index) = now.iter().position(|name| name == own) else {
        return Err(format!(
            "it stands in stage {own} at its step {}, and the configuration has no such stage (it has {})",
            state.stage_step,
            listed(now)
        ));
    };
    if let Some(new) = now[..index].iter().find(|name| !done.contains(name)) {
        return Err(format!(
            "it stands in stage {own}, and stage {new} stands before that one without having been run: it never would be; put it \
             after {own}"
        ));
    }
    if let Some(again) = now[index + 1..].iter().find(|name| done.contains(name)) {
        return Err(format!(
            "it stands in stage {own}, and stage {again} stands after that one, but has been run: it would run again; put it before \
             {own}, drop it, or give it another name"
        ));
    }
    Ok(index)
}

/// Every key of a configuration with its value; those of a stage under its name.
pub(super) fn settings(config: &Config) -> BTreeMap<String, String> {
    fn flatten(prefix: &str, value: &toml::Value, out: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    flatten(&name, value, out);
                }
            }
            other => {
                out.insert(prefix.to_string(), other.to_string());
            }
        }
    }
    // What the program writes it reads.
    let mut table: toml::Table = toml::from_str(&config.to_toml()).unwrap_or_default();
    let stages = table.remove("stages");
    let mut out = BTreeMap::new();
    flatten("", &toml::Value::Table(table), &mut out);
    let names = names(&config.stages);
    for (name, stage) in names.iter().zip(stages.iter().filter_map(toml::Value::as_array).flatten()) {
        flatten(&stage_prefix(name), stage, &mut out);
    }
    out
}

/// `stages.NAME`, with a number from the second stage of that name on.
fn stage_prefix(name: &StageName) -> String {
    match name.twin {
        0 => format!("stages.{}", name.name),
        twin => format!("stages.{}#{}", name.name, twin + 1),
    }
}

/// Keys that say where and how to start, not what is trained.
const OF_THE_START: &[&str] = &["trainer.resume", "trainer.output_dir", "trainer.experiment_name"];

/// One line for each key whose value has changed, with what that means where it is not plain.
fn changes(then: &Origin, now: &BTreeMap<String, String>, names: &[StageName]) -> Vec<String> {
    let mut lines = Vec::new();
    if then.stages != names {
        lines.push(format!("stages: {} -> {}", listed(&then.stages), listed(names)));
    }
    let known = |key: &str, names: &[StageName]| {
        !key.starts_with("stages.") || names.iter().any(|n| key.starts_with(&format!("{}.", stage_prefix(n))))
    };
    // A checkpoint of an earlier version has earlier spellings.
    let settings: BTreeMap<String, String> =
        then.settings.iter().map(|(key, value)| (crate::config::present_key(key).to_string(), value.clone())).collect();
    let keys: std::collections::BTreeSet<&String> = settings.keys().chain(now.keys()).collect();
    for key in keys {
        let (old, new) = (settings.get(key), now.get(key));
        // A stage that came or went is one line, above.
        if old == new || OF_THE_START.contains(&&key[..]) || !known(key, names) || !known(key, &then.stages) {
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

/// Prefixes of the keys that responses, their log-probs and their rewards were made with.
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

/// The first key that has changed among those which carried groups were made with.
fn remade(then: &Origin, now: &BTreeMap<String, String>) -> Option<String> {
    if then.settings.is_empty() {
        return None;
    }
    let differs = |key: &&String| then.settings.get(*key) != now.get(*key);
    let exact = |key: &str, prefix: &str| key == prefix || prefix.ends_with(['.', '_']) && key.starts_with(prefix);
    let makes = |key: &&String| MAKES_GROUPS.iter().any(|prefix| exact(key, prefix));
    then.settings.keys().chain(now.keys()).filter(makes).find(differs).cloned()
}

/// Compares the tokenizer and processor files of the checkpoint with those that the run would go on with.
///
/// # Errors
/// Another tokenizer: its ids mean other texts than the model has learned.
fn compare_companions(checkpoint: &Path, now: &Companions, notes: &mut Vec<String>) -> Result<(), TrainError> {
    let hf = checkpoint.join("hf");
    let same = |a: &[u8], b: &[u8]| {
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        a == b || json(a).is_some_and(|a| Some(a) == json(b))
    };
    for (name, bytes) in now.files() {
        let then = match guard::file::read(&hf.join(name), guard::limits().record_bytes) {
            Ok(then) if same(&then, bytes) => continue,
            // A file that was cut is the checkpoint's fault, not that of model.path.
            Ok(then) if name.ends_with(".json") && serde_json::from_slice::<Value>(&then).is_err() => {
                return Err(TrainError::Checkpoint {
                    path: hf.join(name),
                    reason: "is damaged: it is not JSON; copy it back, or resume from an earlier checkpoint".into(),
                });
            }
            Ok(_) => "another one than",
            Err(_) => "not in",
        };
        if name == "tokenizer.json" && then == "another one than" {
            return Err(TrainError::Input(format!(
                "{}: the tokenizer.json of model.path is another one than this checkpoint was trained with, so its ids mean other texts; \
                 give model.path={}",
                checkpoint.display(),
                hf.display()
            )));
        }
        notes.push(format!("changed since the checkpoint: {name} of model.path is {then} the checkpoint's folder"));
    }
    Ok(())
}

/// Compares the data of the stage with the rows that were trained on.
fn compare_data(state: &TrainerState, prompts: &Prompts, notes: &mut Vec<String>) -> Result<(), String> {
    let then = &state.origin;
    let now = prompts.sources();
    if then.data.is_empty() {
        return Ok(()); // of an earlier version
    }
    if then.data != now {
        for (old, new) in then.data.iter().zip(&now).filter(|(old, new)| old != new) {
            let size = |file: &crate::prompts::DataFile| match file.bytes {
                Some(bytes) => format!("{} with {} rows in {bytes} bytes", file.name, file.rows),
                None => format!("{} with {} rows", file.name, file.rows),
            };
            notes.push(format!("changed since the checkpoint: the data: {} -> {}", size(old), size(new)));
        }
    }
    let changed: Vec<usize> = then
        .rows
        .iter()
        .filter(|known| prompts.content(known.row) != Some(known.content))
        .map(|known| known.row)
        .collect();
    let begun = state.cursor.position > 0;
    if begun && then.epoch_len != prompts.epoch_len() {
        return Err(format!("an epoch had {} rows and has {} now", then.epoch_len, prompts.epoch_len()));
    }
    if begun && 2 * changed.len() > then.rows.len() {
        return Err(format!(
            "of the last {} rows that were trained on, {} have another problem or answer now (row {} is one)",
            then.rows.len(),
            changed.len(),
            changed[0]
        ));
    }
    if !changed.is_empty() {
        let rows: Vec<String> = changed.iter().map(usize::to_string).collect();
        notes.push(format!("changed since the checkpoint: problem or answer of rows {} of the data", rows.join(", ")));
    }
    Ok(())
}

/// Everything about a loaded checkpoint that the configuration may contradict; `state.stage` becomes the stage's place
/// of now.
///
/// # Errors
/// What cannot be right, with the way out.
pub(super) fn reconcile<P>(
    path: &Path,
    state: &mut TrainerState,
    setup: &Setup<P>,
    notes: &mut Vec<String>,
) -> Result<(), TrainError> {
    let config = &setup.config;
    let now = names(&config.stages());
    state.stage = place(state, &now).map_err(|reason| refusal(path, &reason))?;
    let settings = settings(config);
    if state.origin.settings.is_empty() {
        notes
            .push("the checkpoint is of an earlier version: whether the configuration has changed is not known".into());
    } else {
        let lines = changes(&state.origin, &settings, &now);
        notes.extend(lines.into_iter().map(|line| format!("changed since the checkpoint: {line}")));
        if state.origin.settings.get("algorithm.kl_coef") != settings.get("algorithm.kl_coef") {
            state.kl_coef = config.algorithm.kl_coef;
        }
    }
    compare_companions(path, &setup.companions, notes)
}

/// What to do where a checkpoint does not fit the configuration.
fn refusal(path: &Path, reason: &str) -> TrainError {
    TrainError::Input(format!(
        "{}: {reason}. Give the run what it had, or start a new run from these weights: model.path={} trainer.resume=none and another \
         trainer.output_dir",
        path.display(),
        path.join("hf").display()
    ))
}

/// Compares the stage's data with the checkpoint's; see [`compare_data`].
///
/// # Errors
/// Other data in the middle of an epoch: the rows behind the cursor are not those that were trained on.
pub(super) fn check_data(
    path: &Path,
    state: &TrainerState,
    prompts: &Prompts,
    notes: &mut Vec<String>,
) -> Result<(), TrainError> {
    compare_data(state, prompts, notes).map_err(|reason| {
        let cursor = &state.cursor;
        let place =
            format!("it stands after row {} of epoch {} of its stage's data", cursor.position, cursor.epoch + 1);
        refusal(path, &format!("{place}, and the data is not the same: {reason}"))
    })
}

/// The groups that the checkpoint holds for the next batch, as far as they are still what they were; the others are
/// dropped with a note.
///
/// # Errors
/// Data that ends the run, responses that do not decode.
pub(super) fn restore_carried<B: Kernels, P: Policy<B>>(
    state: &mut TrainerState,
    prompts: &Prompts,
    policy: &P,
    config: &Config,
    notes: &mut Vec<String>,
) -> Result<Vec<ScoredGroup>, TrainError> {
    let all = std::mem::take(&mut state.carried);
    let count = all.len();
    if let Some(key) = remade(&state.origin, &settings(config)).filter(|_| count > 0) {
        notes.push(format!("{count} carried groups are dropped: they were made with another {key}"));
        return Ok(vec![]);
    }
    let mut groups = Vec::with_capacity(count);
    for carried in all {
        let item = match prompts.load(carried.row, policy)? {
            Ok(item) if item.whole_content() == carried.content => item,
            Ok(_) => {
                notes.push(format!(
                    "the carried group of row {} is dropped: problem, answer, pictures or prompt of that row are not those that were \
                     answered",
                    carried.row
                ));
                continue;
            }
            Err(bad) => {
                notes.push(format!(
                    "the carried group of row {} is dropped: the row cannot be used: {bad}",
                    carried.row
                ));
                continue;
            }
        };
        groups.push(group(item, carried, prompts)?);
    }
    Ok(groups)
}

fn group(item: Item, carried: Carried, prompts: &Prompts) -> Result<ScoredGroup, TrainError> {
    // As many scores as responses: the state was checked when it was read.
    let trajectory = |(response, score): (Response, CarriedScore)| -> Result<Trajectory, TrainError> {
        let text = prompts.processor().decode(&response.ids, true)?;
        Ok(Trajectory::new(response, text, score.into()))
    };
    let trajectories = std::iter::zip(carried.responses, carried.scores).map(trajectory).collect::<Result<_, _>>()?;
    Ok(ScoredGroup { item, trajectories, greedy: carried.greedy, carried: true })
}

/// What a checkpoint is to remember of configuration and data; the rows and the reference policy are those of `state`.
pub(super) fn origin(config: &Config, prompts: Option<&Prompts>, state: &Origin) -> Origin {
    Origin {
        settings: settings(config),
        stages: names(&config.stages()),
        data: prompts.map(Prompts::sources).unwrap_or_default(),
        epoch_len: prompts.map_or(0, Prompts::epoch_len),
        rows: state.rows.clone(),
        reference: state.reference.clone(),
    }
}

/// Loads the reference policy of a stage that has begun, from this run's folder or that of the run which the checkpoint
/// is from.
///
/// # Errors
/// Where it is nowhere, or cannot be read.
pub(super) fn load_reference<B: Kernels, P: Policy<B>>(
    own: &Path,
    checkpoint: &Path,
    setup: &Setup<P>,
) -> Result<P, TrainError> {
    let source = if own.exists() { own.to_path_buf() } else { reference::reference_elsewhere(own, checkpoint)? };
    Ok((setup.load)(&source)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, resolve};
    use data::Cursor;

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
        stage = "sft"
        name = "b"
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

    fn state(config: &Config, stage: usize) -> TrainerState {
        let origin = origin(config, None, &Origin::default());
        TrainerState {
            step: 5,
            stage,
            stage_step: 1,
            optimizer_steps: 1,
            cursor: Cursor::new(1),
            kl_coef: 0.0,
            carried: vec![],
            stage_over: false,
            seconds: 0.0,
            validation: BTreeMap::new(),
            before: BTreeMap::new(),
            set_aside: Default::default(),
            unvalidated: None,
            origin,
        }
    }

    #[test]
    fn a_stage_is_found_by_its_name() {
        let whole = config(STAGES);
        let state = state(&whole, 2);
        let order = |names: &[(&str, &str)]| {
            let now: Vec<StageName> = names
                .iter()
                .map(|(kind, name)| StageName { kind: (*kind).into(), name: (*name).into(), twin: 0 })
                .collect();
            place(&state, &now)
        };
        let (a, b, c, d) = (("sft", "a"), ("sft", "b"), ("rl", "c"), ("rl", "d"));
        assert_eq!(order(&[a, b, c, d]), Ok(2));
        assert_eq!(order(&[b, c]), Ok(1), "a stage that is done may be dropped, one to come, too");
        assert_eq!(order(&[c, ("rl", "new")]), Ok(0));
        assert!(order(&[a, b, d, c]).unwrap_err().contains("\"d\" (rl) stands before"), "reversed");
        assert!(order(&[c, a]).unwrap_err().contains("would run again"), "reversed");
        assert!(order(&[a, ("sft", "new"), b, c]).unwrap_err().contains("never would be"), "inserted");
        assert!(order(&[a, b, ("rl", "other"), d]).unwrap_err().contains("no such stage"), "renamed");
        assert!(order(&[a, b, ("sft", "c"), d]).unwrap_err().contains("no such stage"), "another kind");
    }

    #[test]
    fn every_changed_key_is_named() {
        let (then, now) =
            (config(STAGES), config(&STAGES.replace("toy:sum", "toy:read").replace("steps = 2", "steps = 3")));
        let said = changes(&origin(&then, None, &Origin::default()), &settings(&now), &names(&now.stages()));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("data.train_files: ") && said[0].contains("toy:read"), "{said:?}");
        assert_eq!(said[1], "stages.c.steps: 2 -> 3");
        assert!(changes(&origin(&then, None, &Origin::default()), &settings(&then), &names(&then.stages())).is_empty());
        // A stage that goes is one line, not one for each of its keys.
        let fewer = config(&STAGES[..STAGES.rfind("[[stages]]").unwrap()]);
        let said = changes(&origin(&then, None, &Origin::default()), &settings(&fewer), &names(&fewer.stages()));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("stages: "), "{said:?}");
    }

    #[test]
    fn groups_made_otherwise_are_known_by_the_key() {
        let then = config(STAGES);
        for (text, key) in [
            ("[rollout]\nn = 3", Some("rollout.n")),
            ("[reward]\nformat_weight = 0.2", Some("reward.format_weight")),
            ("[algorithm]\nfilter_low = 0.2", Some("algorithm.filter_low")),
            ("[rollout]\ntemperature = 0.5", Some("rollout.temperature")),
            ("[actor]\nglobal_batch_size = 64", None),
            ("[trainer]\nseed = 9", None),
        ] {
            let now = resolve(&[Source::new("test", STAGES), Source::new("change", text)], &[]).unwrap();
            assert_eq!(remade(&origin(&then, None, &Origin::default()), &settings(&now)).as_deref(), key, "{text}");
        }
    }
}
