//! From a spec string to files: file, folder, glob, `path@split`, a downloaded Hugging Face data set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hub::name::RepoName;

use crate::error::DataError;

/// File types that hold rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Parquet,
    Json,
}

/// The file type by extension.
pub(super) fn kind(path: &Path) -> Option<FileKind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "parquet" => Some(FileKind::Parquet),
        "jsonl" | "json" | "ndjson" => Some(FileKind::Json),
        _ => None,
    }
}

/// What a spec names.
#[derive(Debug, PartialEq)]
pub(super) enum Resolved {
    Files(Vec<PathBuf>),
    /// A folder described by `dataset_info.json`; `name` picks an entry.
    Annotations {
        info: PathBuf,
        name: Option<String>,
    },
}

const SPLITS: [&str; 7] = ["train", "validation", "test", "val", "valid", "dev", "eval"];

/// Finds the files of a spec.
pub(super) fn resolve(spec: &str) -> Result<Resolved, DataError> {
    if spec.trim().is_empty() {
        return Err(DataError::spec(spec, "is empty; name a file, a folder or toy:NAME"));
    }
    // A path that exists as written wins over the reading as `path@split`.
    if let Some(found) = existing(spec, None)? {
        return Ok(found);
    }
    if let Some((path, split)) = spec.rsplit_once('@')
        && let Some(found) = existing(path, Some(split))?
    {
        return Ok(found);
    }
    if let Some((name, split)) = hub_name(spec) {
        let folder = super::hub::folder(&name, split).map_err(|reason| DataError::spec(spec, reason))?;
        if let Some(found) = existing(&folder.to_string_lossy(), split)? {
            return Ok(found);
        }
    }
    Err(DataError::spec(spec, "no such file or folder, and no file matches it as a pattern"))
}

fn existing(path: &str, split: Option<&str>) -> Result<Option<Resolved>, DataError> {
    let p = Path::new(path);
    if p.is_dir() {
        return folder(p, split).map(Some);
    }
    if p.is_file() {
        return match split {
            // `datasets` calls the only split of a plain file "train".
            None | Some("train") => Ok(Some(Resolved::Files(vec![p.to_path_buf()]))),
            Some(split) if split_of(p, None).as_deref() == Some(split) => {
                Ok(Some(Resolved::Files(vec![p.to_path_buf()])))
            }
            Some(split) => Err(DataError::spec(
                format!("{path}@{split}"),
                "a single file has only the split \"train\"; drop the @ or name the folder",
            )),
        };
    }
    if path.contains(['*', '?', '[']) {
        let matches = glob::glob(path).map_err(|e| DataError::spec(path, format!("bad pattern: {e}")))?;
        let mut files: Vec<PathBuf> = matches.filter_map(Result::ok).filter(|f| f.is_file()).collect();
        if let Some(split) = split {
            files.retain(|f| split_of(f, None).as_deref() == Some(split));
        }
        files.sort();
        return Ok((!files.is_empty()).then_some(Resolved::Files(files)));
    }
    Ok(None)
}

/// All data files of a folder, or those of a split; the split `train` where the folder has several and none is named.
fn folder(dir: &Path, split: Option<&str>) -> Result<Resolved, DataError> {
    let spec = || match split {
        Some(split) => format!("{}@{split}", dir.display()),
        None => dir.display().to_string(),
    };
    let info = dir.join("dataset_info.json");
    if info.is_file() && super::annotations::is_annotations(&info) {
        return Ok(Resolved::Annotations { info, name: split.map(str::to_owned) });
    }
    let mut files = Vec::new();
    collect(dir, 0, &mut files).map_err(|e| DataError::io(dir, e))?;
    // Parquet and JSON side by side: the JSON files are metadata (dataset_infos.json, state.json).
    if files.iter().any(|f| kind(f) == Some(FileKind::Parquet)) {
        files.retain(|f| kind(f) == Some(FileKind::Parquet));
    }
    files.sort();
    if files.is_empty() {
        return Err(DataError::spec(spec(), "the folder has no .parquet, .jsonl or .json file"));
    }
    let mut by_split: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in &files {
        if let Some(name) = split_of(file, split) {
            by_split.entry(name).or_default().push(file.clone());
        }
    }
    let checked = |files: Vec<PathBuf>| match all_parts(&files) {
        Ok(()) => Ok(Resolved::Files(files)),
        Err(reason) => Err(DataError::spec(spec(), reason)),
    };
    if by_split.is_empty() && matches!(split, None | Some("train")) {
        return checked(files);
    }
    if split.is_none() && by_split.len() == 1 && by_split.values().all(|f| f.len() == files.len()) {
        return checked(files);
    }
    let known: Vec<_> = by_split.keys().cloned().collect();
    if let Some(files) = by_split.remove(split.unwrap_or("train")) {
        return checked(files);
    }
    let reason = match (split, known.is_empty()) {
        (Some(split), false) => format!("no split {split:?}; the folder has {}", known.join(", ")),
        (Some(split), true) => format!("no split {split:?}; no file of the folder names a split"),
        (None, _) => format!("no split \"train\"; pick one with @: {}", known.join(", ")),
    };
    Err(DataError::spec(spec(), reason))
}

fn collect(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        // The hub's layouts are `data/train-*.parquet` and `config/train/0000.parquet`; deeper lie pictures.
        if path.is_dir() && depth < 2 {
            collect(&path, depth + 1, files)?;
        } else if path.is_file() && kind(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

/// The split that a file belongs to: by its name (`train.parquet`, `train-00000-of-00009.parquet`) or its folder's.
pub(super) fn split_of(file: &Path, wanted: Option<&str>) -> Option<String> {
    let named = |text: &str| {
        let known = SPLITS.iter().copied().chain(wanted);
        known
            .filter(|s| text.strip_prefix(s).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.'])))
            .max_by_key(|s| s.len())
            .map(str::to_owned)
    };
    let stem = file.file_stem()?.to_str()?;
    // `PAPO_ViRL39K_train.parquet`: the split as the last word.
    let last_word = stem.rsplit(['_', '-']).next().unwrap_or(stem);
    named(stem)
        .or_else(|| file.parent()?.file_name()?.to_str().and_then(named))
        .or_else(|| SPLITS.iter().copied().chain(wanted).find(|s| *s == last_word).map(str::to_owned))
}

/// Reads `owner/name`, `owner/name@split`, or with a revision `owner/name@revision@split`; none where the words can be
/// no data set's.
fn hub_name(spec: &str) -> Option<(RepoName, Option<&str>)> {
    let mut words = spec.splitn(3, '@');
    let id = words.next()?;
    let (revision, split) = match (words.next(), words.next()) {
        (Some(revision), Some(split)) => (Some(revision), Some(split).filter(|split| !split.is_empty())),
        (split, _) => (None, split),
    };
    let name = revision.map_or_else(|| id.to_string(), |revision| format!("{id}@{revision}"));
    RepoName::parse(&name).filter(|_| kind(Path::new(id)).is_none()).map(|name| (name, split))
}

/// Of `train-00003-of-00009.parquet` all nine parts have to be there: a half-done download must not train on half the
/// data.
fn all_parts(files: &[PathBuf]) -> Result<(), String> {
    let mut parts: BTreeMap<(PathBuf, usize), usize> = BTreeMap::new();
    for file in files {
        let Some(stem) = file.file_stem().and_then(|s| s.to_str()) else {
            continue;
        };
        let Some((head, total)) = stem.rsplit_once("-of-") else {
            continue;
        };
        let Some((head, part)) = head.rsplit_once('-') else {
            continue;
        };
        if let (Ok(_), Ok(total)) = (part.parse::<usize>(), total.parse::<usize>()) {
            *parts.entry((file.with_file_name(head), total)).or_default() += 1;
        }
    }
    match parts.into_iter().find(|((_, total), found)| found < total) {
        Some(((head, total), found)) => {
            Err(format!("{} has {found} of its {total} parts; download the others", head.display()))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(dir: &Path, names: &[&str]) {
        for name in names {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
    }

    fn names(found: Resolved) -> Vec<String> {
        match found {
            Resolved::Files(files) => {
                files.iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn folders_splits_and_patterns() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path();
        touch(
            dir,
            &[
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001.parquet",
                "dataset_infos.json",
            ],
        );
        let spec = |s: &str| format!("{}{s}", dir.display());
        assert_eq!(names(resolve(&spec("")).unwrap()).len(), 2, "train by default");
        assert_eq!(names(resolve(&spec("@test")).unwrap()), ["test-00000-of-00001.parquet"]);
        assert_eq!(names(resolve(&spec("/data/*.parquet")).unwrap()).len(), 3);
        assert_eq!(names(resolve(&spec("/data/*.parquet@test")).unwrap()).len(), 1);
        let error = resolve(&spec("@dev")).unwrap_err().to_string();
        assert!(error.contains("test, train"), "{error}");
        assert!(resolve(&spec("/data/none*.parquet")).is_err());
        std::fs::remove_file(dir.join("data/train-00000-of-00002.parquet")).unwrap();
        let error = resolve(&spec("")).unwrap_err().to_string();
        assert!(error.contains("data/train has 1 of its 2 parts"), "{error}");
    }

    #[test]
    fn files_without_split_names_are_taken_together() {
        let tmp = tempfile::tempdir().unwrap();
        touch(tmp.path(), &["a.jsonl", "b.jsonl", ".hidden.jsonl", "notes.txt"]);
        assert_eq!(names(resolve(&tmp.path().display().to_string()).unwrap()), ["a.jsonl", "b.jsonl"]);
        let one = tmp.path().join("a.jsonl");
        assert_eq!(names(resolve(&format!("{}@train", one.display())).unwrap()), ["a.jsonl"]);
        let error = resolve(&format!("{}@test", one.display())).unwrap_err().to_string();
        assert!(error.contains("only the split"), "{error}");
    }

    #[test]
    fn a_hub_id_may_have_a_revision_and_a_split() {
        let read = |spec: &'static str| hub_name(spec).map(|(name, split)| (name.id, name.revision, split));
        let name = |revision: &str, split| Some(("me/tiny".to_string(), revision.to_string(), split));
        assert_eq!(read("me/tiny"), name("main", None));
        assert_eq!(read("me/tiny@test"), name("main", Some("test")));
        assert_eq!(read("me/tiny@v1@test"), name("v1", Some("test")));
        assert_eq!(read("me/tiny@v1@"), name("v1", None));
        assert!(["data/train.jsonl", "./me/tiny", "tiny", "me/tiny/more"].into_iter().all(|s| read(s).is_none()));
    }

    #[test]
    fn what_is_nowhere_is_named() {
        let error = resolve("./no/such.parquet").unwrap_err().to_string();
        assert!(error.contains("no such file"), "{error}");
    }
}
