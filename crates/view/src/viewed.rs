//! The runs that are shown: their folders, their names, what may be read of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use run::layout::{CONFIG, METRICS, ROLLOUTS, RUN};
use serde_json::{Map, Value, json};

use crate::error::ViewError;

/// What makes a folder a run; a run that has just begun has the first alone.
const PARTS: [&str; 4] = [CONFIG, METRICS, ROLLOUTS, RUN];

/// A run that is shown.
#[derive(Debug, Clone)]
pub struct ViewedRun {
    /// Its folder, without links and `..`.
    root: PathBuf,
    name: String,
}

impl ViewedRun {
    /// The runs in the folders `paths`, each with a name that tells it from the others: as much of the end of its path
    /// as that takes.
    ///
    /// # Errors
    /// No path, a path that is no run (the error says what is missing), or one run twice.
    pub fn open(paths: &[PathBuf]) -> Result<Vec<Self>, ViewError> {
        if paths.is_empty() {
            return Err(ViewError::NoneNamed);
        }
        let mut roots: Vec<PathBuf> = Vec::with_capacity(paths.len());
        for path in paths {
            let root = checked(path)?;
            if roots.contains(&root) {
                return Err(ViewError::Twice(path.clone()));
            }
            roots.push(root);
        }
        let longest = roots.iter().map(|root| root.components().count()).max().unwrap_or(1);
        let named = |parts: usize| roots.iter().map(|root| ending(root, parts)).collect::<Vec<_>>();
        let distinct = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len() == names.len();
        let names = (1..=longest).map(named).find(|names| distinct(names)).unwrap_or_else(|| named(longest));
        Ok(roots.into_iter().zip(names).map(|(root, name)| Self { root, name }).collect())
    }

    /// What the run is called on the page.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file of the run, if it lies in its folder once links are resolved.
    ///
    /// # Errors
    /// [`ViewError::Absent`] for a file that is not there, or is elsewhere.
    pub(crate) fn inside(&self, relative: &str) -> Result<PathBuf, ViewError> {
        let plain = Path::new(relative).components().all(|part| matches!(part, Component::Normal(_)));
        let path = self.root.join(relative);
        match plain && guard::file::lies_in(&path, &self.root).map_err(ViewError::at(&path))? {
            true => Ok(path),
            false => Err(ViewError::Absent(format!("{}: it lies outside the run", guard::echo(relative)))),
        }
    }

    /// The names in a folder of the run; none where the folder is not there.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let Ok(path) = self.inside(folder) else { return vec![] };
        let Ok(entries) = fs::read_dir(path) else { return vec![] };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// A picture of the run by its name in `pictures/`: the bytes of a PNG file.
    ///
    /// # Errors
    /// A name that is none, a picture that is not there, and bytes that are no PNG.
    pub fn picture(&self, name: &str) -> Result<Vec<u8>, ViewError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let absent = || ViewError::Absent(format!("{}: there is no such picture", guard::echo(name)));
        if !name.ends_with(".png") || name.starts_with('.') || !name.chars().all(plain) {
            return Err(absent());
        }
        let path = self.inside(&format!("{}/{name}", run::layout::PICTURES))?;
        let bytes = guard::file::read(&path, guard::limits().record_bytes).map_err(ViewError::at(&path))?;
        match bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            true => Ok(bytes),
            false => Err(ViewError::Absent(format!("{}: it is no PNG picture", guard::echo(name)))),
        }
    }

    /// What the page says of the run at its head: name, folder, `run.json` where it can be read, and the age of its
    /// metrics in seconds.
    pub(crate) fn about(&self) -> Value {
        let (about, problem) = match self.record() {
            _ if !self.root.is_dir() => (None, Some("its folder is not there any more".to_owned())),
            Ok(about) => (about.map(Value::Object), None),
            Err(problem) => (None, Some(problem)),
        };
        let age = fs::metadata(self.root.join(METRICS)).and_then(|file| file.modified()).ok();
        let age = age.map(|modified| SystemTime::now().duration_since(modified).unwrap_or_default().as_secs());
        json!({
            "name": self.name,
            "folder": self.root.to_string_lossy(),
            "about": about,
            "problem": problem,
            "age_s": age,
        })
    }

    /// `run.json`; none where there is none, as older runs have none.
    fn record(&self) -> Result<Option<Map<String, Value>>, String> {
        let Ok(path) = self.inside(RUN) else { return Ok(None) };
        let read = guard::file::read_text(&path, guard::limits().settings_bytes);
        let parsed =
            read.map_err(|e| e.to_string()).and_then(|text| serde_json::from_str(&text).map_err(|e| e.to_string()));
        parsed.map(Some).map_err(|reason| format!("{RUN} cannot be read: {reason}"))
    }
}

/// The folder of a run without links.
fn checked(path: &Path) -> Result<PathBuf, ViewError> {
    let refuse = |reason: String| ViewError::NoRun { path: path.to_path_buf(), reason };
    let found = fs::metadata(path).map_err(|e| refuse(format!("no run is here: {e}")))?;
    if !found.is_dir() {
        return Err(refuse("it is a file; name the folder of a run (trainer.output_dir), which holds it".into()));
    }
    if is_run(path) {
        return path.canonicalize().map_err(|e| refuse(e.to_string()));
    }
    let below = fs::read_dir(path).map_err(|e| refuse(e.to_string()))?;
    let mut runs: Vec<String> = below
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|inner| inner.is_dir() && is_run(inner))
        .map(|inner| guard::echo(&inner.to_string_lossy()))
        .collect();
    runs.sort();
    let missing = format!("no run is here: there is none of {}", PARTS.join(", "));
    Err(refuse(match runs.len() {
        0 => format!("{missing}; name the folder that trainer.output_dir named"),
        n => {
            format!("{missing}; runs are below it: {}{}", runs[..n.min(8)].join(", "), if n > 8 { ", ..." } else { "" })
        }
    }))
}

fn is_run(path: &Path) -> bool {
    PARTS.iter().any(|part| path.join(part).exists())
}

/// The last `parts` names of a path.
fn ending(path: &Path, parts: usize) -> String {
    let all: Vec<_> = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let kept = all[all.len().saturating_sub(parts)..].iter().map(|part| part.as_os_str().to_string_lossy());
    kept.collect::<Vec<_>>().join("/")
}
