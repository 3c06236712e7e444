//! The cache that `huggingface_hub` shares with every program:
//!
//! ```text
//! models--OWNER--NAME/
//!   refs/main                  the commit that the branch was at when it was asked last
//!   blobs/ETAG                 the bytes of a file, by their hash
//!   blobs/ETAG.incomplete      the first part of them
//!   snapshots/COMMIT/FILE      a link to a blob
//! .locks/models--OWNER--NAME/ETAG.lock
//! ```

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::name::RepoName;
use crate::{Hub, HubError, RepoKind, at};

/// A repository in the cache.
#[derive(Debug, Clone)]
pub(crate) struct RepoCache {
    /// Its folder.
    pub folder: PathBuf,
    /// The folder of its locks.
    pub locks: PathBuf,
}

impl Hub {
    /// Where a repository lies in the cache.
    pub(crate) fn cached(&self, kind: RepoKind, name: &RepoName) -> RepoCache {
        let folder = format!("{}--{}", kind.plural(), name.id.replace('/', "--"));
        RepoCache { folder: self.cache.join(&folder), locks: self.cache.join(".locks").join(folder) }
    }

    /// The snapshot of a repository that is in the cache, whole or not; nothing is asked.
    pub fn cached_snapshot(&self, kind: RepoKind, name: &RepoName) -> Option<PathBuf> {
        let cache = self.cached(kind, name);
        let commit = guard::file::read_text(&cache.reference(&name.revision), guard::limits().id_bytes).ok();
        // A revision may be a commit.
        let commit = commit.map_or_else(|| name.revision.clone(), |commit| commit.trim().to_string());
        let folder = cache.folder.join("snapshots").join(commit);
        folder.is_dir().then_some(folder)
    }
}

impl RepoCache {
    fn reference(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// Remembers at which commit a branch is; processes that do so at the same time take turns.
    ///
    /// # Errors
    /// Anything the file system refuses. Nothing is written, and nothing can fail, where it says so already.
    pub(crate) fn set_reference(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.reference(revision);
        let is_known = || {
            let known = guard::file::read_text(&path, guard::limits().id_bytes);
            revision == commit || known.is_ok_and(|known| known.trim() == commit)
        };
        if is_known() {
            return Ok(());
        }
        let _turn = self.lock("refs")?;
        if is_known() {
            return Ok(());
        }
        make_folder_of(&path)?;
        guard::file::replace(&path, commit.as_bytes()).map_err(at(&path))
    }

    /// Waits until no other process, or rank, has the lock of this name, and holds it until the file is dropped. File
    /// systems without locks do without.
    ///
    /// # Errors
    /// A lock file that cannot be made.
    pub(crate) fn lock(&self, name: &str) -> Result<File, HubError> {
        std::fs::create_dir_all(&self.locks).map_err(at(&self.locks))?;
        let path = self.locks.join(format!("{name}.lock"));
        let held = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        let _ = held.lock();
        Ok(held)
    }

    /// The bytes with this hash.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// A file of a commit.
    pub(crate) fn entry(&self, commit: &str, file: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit).join(file)
    }

    /// Puts a blob into a snapshot under its name.
    ///
    /// # Errors
    /// Anything the file system refuses.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let entry = self.entry(commit, file);
        if entry.exists() {
            return Ok(());
        }
        make_folder_of(&entry)?;
        let _ = std::fs::remove_file(&entry); // a link to a blob that is gone
        #[cfg(unix)]
        {
            let up = "../".repeat(2 + file.matches('/').count());
            std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &entry).map_err(at(&entry))
        }
        #[cfg(not(unix))]
        {
            std::fs::rename(self.blob(etag), &entry).map_err(at(&entry))
        }
    }
}

/// Makes the folder that `path` lies in.
pub(crate) fn make_folder_of(path: &Path) -> Result<(), HubError> {
    path.parent().map_or(Ok(()), |folder| std::fs::create_dir_all(folder).map_err(at(folder)))
}
