//! A data set of the Hugging Face hub, in the shared cache: the files of a split.

use std::path::{Path, PathBuf};

use hub::name::RepoName;
use hub::{Hub, RepoKind};

use super::resolve::{FileKind, kind, split_of};

/// The folder of a hub data set with the files of `split` (of all splits with `None`), which are fetched as far as they
/// are not in the cache.
pub(super) fn folder(name: &RepoName, split: Option<&str>) -> Result<PathBuf, String> {
    let hub = Hub::from_env().map_err(|error| error.to_string())?;
    let fail = |error: hub::HubError| format!("is no file or folder here, and of a data set on the hub: {error}");
    // Which files are wanted depends on which there are: those of the other kind are metadata beside parquet.
    let parquet = |file: &str| is_of(file, FileKind::Parquet, split);
    match hub.snapshot(RepoKind::Dataset, name, parquet) {
        Err(hub::HubError::NoSuchFiles { .. }) => {}
        found => return found.map_err(fail),
    }
    hub.snapshot(RepoKind::Dataset, name, |file| is_of(file, FileKind::Json, split)).map_err(fail)
}

/// Whether a file is of this kind and of the wanted split; one that names no split belongs to every one.
fn is_of(file: &str, wanted: FileKind, split: Option<&str>) -> bool {
    let of_split = || split.is_none_or(|split| split_of(Path::new(file), Some(split)).is_none_or(|s| s == split));
    kind(Path::new(file)) == Some(wanted) && !file.starts_with('.') && of_split()
}
