//! Rewards that are added up: functions of Python's (EasyR1's, verl's and TRL's signatures), a judge behind an
//! OpenAI-compatible address, the built-in rule.
//!
//! A function runs in a program of ours (`shim.py`), which speaks the protocol of reward commands
//! ([`crate::command`]): it is given the whole batch, so that functions of batches can be called, replies in order, and
//! says what went wrong instead of a reply. Judge and functions have a process each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::command::{CommandReward, RewardProgram};
use crate::config::RewardConfig;
use crate::{Request, RewardError, Score};

/// The programs, which need nothing but Python.
const PROGRAMS: [(&str, &str); 2] = [("shim.py", include_str!("shim.py")), ("judge.py", include_str!("judge.py"))];

/// EasyR1's name for a function that is not named.
const UNNAMED: &str = "main";

/// A sum of rewards.
#[derive(Debug)]
pub(crate) struct WeightedRewards {
    parts: Vec<WeightedPart>,
    /// Holds the programs as long as they may be started.
    _folder: tempfile::TempDir,
}

#[derive(Debug)]
struct WeightedPart {
    /// As metrics call it.
    name: String,
    weight: f64,
    /// `None` is the built-in rule.
    program: Option<CommandReward>,
}

impl WeightedRewards {
    /// Loads every function.
    pub(crate) fn new(config: &RewardConfig) -> Result<Self, RewardError> {
        let folder =
            programs().map_err(|e| RewardError::Function(format!("a temporary folder cannot be written: {e}")))?;
        let names = names(&config.functions);
        let mut parts = Vec::with_capacity(names.len());
        for (index, (function, name)) in std::iter::zip(&config.functions, names).enumerate() {
            let weight = config.function_weights.get(index).copied().unwrap_or(1.0);
            let program = match function.as_str() {
                "rule" => None,
                _ => Some(start(function, folder.path(), config)?),
            };
            parts.push(WeightedPart { name, weight, program });
        }
        Ok(Self { parts, _folder: folder })
    }

    /// The weighted sum for each request; accuracy, format and the answer are the first reward's.
    pub(crate) fn score(
        &mut self,
        requests: &[Request],
        rule: &dyn Fn(&Request) -> Score,
    ) -> Result<Vec<Score>, RewardError> {
        let is_alone = self.parts.len() == 1 && self.parts[0].weight == 1.0;
        let mut sums: Vec<Score> = Vec::new();
        for (index, part) in self.parts.iter_mut().enumerate() {
            let scores = match &mut part.program {
                Some(program) => program.score(requests)?,
                None => requests.iter().map(rule).collect(),
            };
            if is_alone {
                return Ok(scores);
            }
            if index == 0 {
                sums = scores
                    .iter()
                    .map(|score| Score { overall: 0.0, extra: BTreeMap::new(), ..score.clone() })
                    .collect();
            }
            for (sum, score) in std::iter::zip(&mut sums, scores) {
                sum.overall += part.weight * score.overall;
                sum.extra.insert(part.name.clone(), score.overall);
                sum.extra.extend(score.extra.into_iter().map(|(key, value)| (format!("{}_{key}", part.name), value)));
            }
        }
        Ok(sums)
    }

    pub(crate) fn finish(&mut self) -> Result<(), RewardError> {
        self.parts.iter_mut().filter_map(|part| part.program.as_mut()).try_for_each(CommandReward::finish)
    }
}

/// Writes the programs into a folder of their own.
fn programs() -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("visual-rl-reward").tempdir()?;
    for (name, text) in PROGRAMS {
        std::fs::write(folder.path().join(name), text)?;
    }
    Ok(folder)
}

/// Short names for metrics: the function's, with the file's in front where two have the same.
fn names(functions: &[String]) -> Vec<String> {
    let short = |function: &String| match function.rsplit_once(':') {
        Some((_, name)) => name.to_string(),
        None if function.ends_with(".py") => UNNAMED.to_string(),
        None => function.clone(),
    };
    let all: Vec<String> = functions.iter().map(short).collect();
    let of = |(index, name): (usize, &String)| {
        if all.iter().filter(|other| *other == name).count() < 2 {
            return name.clone();
        }
        let file = functions[index].rsplit_once(':').map_or(functions[index].as_str(), |(file, _)| file);
        let stem = Path::new(file).file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        format!("{stem}_{name}_{index}")
    };
    all.iter().enumerate().map(of).collect()
}

/// A running program for a function or the judge.
fn start(function: &str, folder: &Path, config: &RewardConfig) -> Result<CommandReward, RewardError> {
    let spec = match function {
        "judge" => json!({ "judge": config.judge, "timeout": config.command_timeout_s }),
        _ => {
            let (file, name) = function.rsplit_once(':').unwrap_or((function, UNNAMED));
            check_file(function, file)?;
            json!({
                "file": file,
                "name": name,
                "style": config.function_style,
                "kwargs": config.function_kwargs,
                "timeout": config.command_timeout_s,
            })
        }
    };
    let shim = folder.join(PROGRAMS[0].0).to_string_lossy().into_owned();
    // -B: imports of the user's files leave no __pycache__ beside them.
    let command = vec![config.python.clone(), "-B".into(), shim, spec.to_string()];
    let mut program = CommandReward::new(&RewardProgram { command, function: Some(function.to_string()) }, config);
    program.start()?;
    Ok(program)
}

/// Refuses a file that is not there, with those of its folder that have a like name.
fn check_file(function: &str, file: &str) -> Result<(), RewardError> {
    let path = PathBuf::from(file);
    if path.is_file() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten().take(10_000);
    let scripts = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut scripts: Vec<String> = scripts.filter(|name| name.ends_with(".py")).collect();
    scripts.sort();
    let there = match scripts.is_empty() {
        true => "there are no Python files in that folder".to_string(),
        false => format!("its folder has {}", scripts.iter().take(10).cloned().collect::<Vec<_>>().join(", ")),
    };
    let problem = format!("there is no file {}; {there} (paths start where the program runs)", guard::echo(file));
    Err(RewardError::FunctionLoad { function: guard::echo(function), problem })
}
