//! From a spec string to files: file, folder, glob, `path@split`, a downloaded Hugging Face data set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
    let (path, split) = spec.rsplit_once('@').map_or((spec, None), |(path, split)| (path, Some(split)));
    if looks_like_hub_id(path) {
        let folder = hub_folder(path, split).map_err(|reason| DataError::spec(spec, reason))?;
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

fn looks_like_hub_id(path: &str) -> bool {
    let mut words = path.split('/');
    let word = |w: Option<&str>| {
        w.is_some_and(|w| {
            !w.is_empty() && !w.starts_with('.') && w.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        })
    };
    word(words.next()) && word(words.next()) && words.next().is_none() && kind(Path::new(path)).is_none()
}

/// The folder of the local Hugging Face cache: `HF_HUB_CACHE`, `HF_HOME/hub`, or `~/.cache/huggingface/hub`.
fn hub_cache() -> Option<PathBuf> {
    let env = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    env("HF_HUB_CACHE")
        .or_else(|| Some(env("HF_HOME")?.join("hub")))
        .or_else(|| Some(env("HOME")?.join(".cache/huggingface/hub")))
}

/// The newest snapshot of a data set in the local Hugging Face cache.
fn hub_cache_folder(id: &str) -> Option<PathBuf> {
    let repo = hub_cache()?.join(format!("datasets--{}", id.replace('/', "--")));
    let revision = guard::file::read_text(&repo.join("refs/main"), guard::limits().id_bytes).ok()?;
    let folder = repo.join("snapshots").join(revision.trim());
    folder.is_dir().then_some(folder)
}

/// The folder of a hub data set, downloaded if it has to be.
#[cfg(feature = "hub")]
fn hub_folder(id: &str, split: Option<&str>) -> Result<PathBuf, String> {
    let cache = hub_cache().ok_or("no folder for the Hugging Face cache; set HF_HOME")?;
    if offline(std::env::var("HF_HUB_OFFLINE").ok().as_deref()) {
        return hub_cache_folder(id).ok_or_else(|| {
            format!(
                "is no file or folder, {id} is not in the Hugging Face cache, and HF_HUB_OFFLINE forbids to fetch it"
            )
        });
    }
    // Without a network what is in the cache has to do.
    super::hub::download(id, split, None, &cache)
        .or_else(|reason| hub_cache_folder(id).ok_or_else(|| format!("is no file or folder, and {id} {reason}")))
}

/// What huggingface_hub takes for yes in `HF_HUB_OFFLINE`.
#[cfg(feature = "hub")]
fn offline(value: Option<&str>) -> bool {
    value.is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_ascii_lowercase().as_str()))
}

/// The folder of a hub data set that has been downloaded before.
#[cfg(not(feature = "hub"))]
fn hub_folder(id: &str, _split: Option<&str>) -> Result<PathBuf, String> {
    hub_cache_folder(id).ok_or_else(|| {
        format!(
            "is no file or folder, and {id} is not in the Hugging Face cache; run \
             `hf download --repo-type dataset {id}`, or build with the feature `hub`, or name a local file"
        )
    })
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

    #[cfg(feature = "hub")]
    #[test]
    fn offline_as_huggingface_hub_reads_it() {
        assert!(["1", "ON", "yes", "True"].into_iter().all(|v| offline(Some(v))));
        assert!(["", "0", "no", "false"].into_iter().all(|v| !offline(Some(v))) && !offline(None));
    }

    #[test]
    fn a_missing_hub_id_says_how_to_get_it() {
        // With the feature it would ask the hub, which a test must not.
        #[cfg(not(feature = "hub"))]
        {
            let error = resolve("nobody/no-such-data-set@test").unwrap_err().to_string();
            assert!(error.contains("hf download --repo-type dataset nobody/no-such-data-set"), "{error}");
        }
        let error = resolve("./no/such.parquet").unwrap_err().to_string();
        assert!(error.contains("no such file"), "{error}");
    }
}
