//! What a study leaves beside a page of documentation: the page, its plots, and the records of its runs, from which the
//! same study goes on in another place.
//!
//! Records lie in `FOLDER/study` as they lie in the study's own folder: results of runs, those of the gate's warm
//! starts, the gate's verdict, and the calls of the program. Weights stay where they were made; a warm start whose
//! weights a missing row needs is trained again ([`runner`](super::runner)).

use std::fs;
use std::path::{Path, PathBuf};

use super::plan::SHARED;
use super::sessions::SESSIONS;
use super::{StudyError, gate, result};

/// Copies `study.md`, its plots and the records of its runs from a study's folder into `folder`, for example `docs`.
///
/// # Errors
/// Anything the file system refuses.
pub fn publish(out: &Path, folder: &Path) -> Result<(), StudyError> {
    let page = folder.join("study");
    copy(&out.join("study.md"), &folder.join("study.md"))?;
    for plot in listed(&out.join("study"))?.iter().filter(|path| path.extension().is_some_and(|e| e == "svg")) {
        copy(plot, &page.join(plot.file_name().unwrap_or_default()))?;
    }
    for record in records(out)? {
        copy(&out.join(&record), &page.join(&record))?;
    }
    Ok(())
}

/// Copies the records that `folder` has of a study, as [`publish`] left them, into the study's folder, as far as that
/// has none of its own; says how many runs they are.
///
/// # Errors
/// Anything the file system refuses.
pub fn take_over(folder: &Path, out: &Path) -> Result<usize, StudyError> {
    let page = folder.join("study");
    let mut runs = 0;
    for record in records(&page)?.iter().filter(|record| !out.join(record).exists()) {
        copy(&page.join(record), &out.join(record))?;
        runs += usize::from(record.starts_with(result::FOLDER));
    }
    Ok(runs)
}

/// The records below `root`, relative to it.
fn records(root: &Path) -> Result<Vec<PathBuf>, StudyError> {
    let mut found: Vec<PathBuf> = [gate::FILE, SESSIONS].map(|name| root.join(name)).to_vec();
    found.retain(|path| path.is_file());
    let settings = listed(&root.join(gate::FOLDER))?.into_iter().flat_map(|place| [place.join(SHARED), place]);
    let gates = settings.map(|place| place.join(result::FOLDER));
    for results in std::iter::once(root.join(result::FOLDER)).chain(gates) {
        for row in listed(&results)? {
            let json = |path: &PathBuf| path.extension().is_some_and(|e| e == "json");
            found.extend(listed(&row)?.into_iter().filter(json));
        }
    }
    Ok(found.iter().filter_map(|path| Some(path.strip_prefix(root).ok()?.to_owned())).collect())
}

/// What a folder has, in order; nothing where there is no such folder.
fn listed(folder: &Path) -> Result<Vec<PathBuf>, StudyError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        Err(e) => return Err(StudyError::io(folder)(e)),
    };
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(StudyError::io(folder))?;
    paths.sort();
    Ok(paths)
}

fn copy(from: &Path, to: &Path) -> Result<(), StudyError> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(StudyError::io(folder))?;
    }
    fs::copy(from, to).map_err(StudyError::io(to)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_there_and_back_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (out, docs, other) = (dir.path().join("out"), dir.path().join("docs"), dir.path().join("other"));
        let file = |root: &Path, name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let all = [
            "results/dapo/seed_1.json",
            "gate/base/results/warm/seed_1001.json",
            "gate/base/shared/results/warm/seed_1001.json",
            "gate.json",
            "sessions.jsonl",
        ];
        all.iter().for_each(|name| file(&out, name, name));
        file(&out, "study.md", "page");
        file(&out, "study/plot.svg", "plot");
        file(&out, "runs/dapo/seed_1/log.txt", "long");
        file(&out, "gate/base/runs/warm/seed_1001/log.txt", "long");
        publish(&out, &docs).unwrap();
        assert_eq!(fs::read_to_string(docs.join("study.md")).unwrap(), "page");
        assert_eq!(listed(&docs.join("study")).unwrap().len(), 5, "plot, results, gate and its verdict, sessions");

        file(&other, "gate.json", "own");
        assert_eq!(take_over(&docs, &other).unwrap(), 1);
        let read = |name: &str| fs::read_to_string(other.join(name)).unwrap();
        all.iter().for_each(|name| assert_eq!(read(name), if *name == "gate.json" { "own" } else { *name }));
        assert!(!other.join("runs").exists() && !other.join("study.md").exists());
        assert_eq!((take_over(&docs, &other).unwrap(), take_over(dir.path(), &other).unwrap()), (0, 0));
    }
}
