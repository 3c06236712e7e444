//! Files that a program writes at its end.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::common::Failure;

/// A file to write when all is done. It is opened under a temporary name at once, so that a path that cannot be written
/// is known before anything is computed, and an older file stays until the new one is complete.
pub(crate) struct OutputFile {
    /// Where it will be.
    pub path: PathBuf,
    /// Its name until then; none for something that is not a file, such as a pipe.
    pub temporary: Option<PathBuf>,
    file: File,
}

impl OutputFile {
    /// Prepares `path`, which `option` named.
    ///
    /// # Errors
    /// A folder, or anything else that cannot be written.
    pub(crate) fn open(option: &str, path: &Path) -> Result<Self, Failure> {
        let fail = |reason: String| Failure::input(format!("{option} {}: cannot be written: {reason}", path.display()));
        // A link keeps pointing to its target.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let kind = path.metadata().ok();
        if kind.as_ref().is_some_and(|k| k.is_dir()) {
            return Err(fail("it is a folder; name a file".into()));
        }
        if kind.is_some_and(|k| !k.is_file()) {
            let file = File::options().write(true).open(&path).map_err(|e| fail(e.to_string()))?;
            return Ok(Self { path, temporary: None, file });
        }
        let Some(name) = path.file_name() else {
            return Err(fail("it names no file".into()));
        };
        let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let file = File::create(&temporary).map_err(|e| fail(e.to_string()))?;
        Ok(Self { path, temporary: Some(temporary), file })
    }

    /// Writes the content and gives the file its name.
    ///
    /// # Errors
    /// A full disk and the like.
    pub(crate) fn finish(mut self, bytes: &[u8]) -> Result<(), Failure> {
        let fail =
            |path: &Path, e: std::io::Error| Failure::other(format!("{}: cannot be written: {e}", path.display()));
        self.file.write_all(bytes).map_err(|e| fail(&self.path, e))?;
        if let Some(temporary) = &self.temporary {
            self.file
                .sync_all()
                .and_then(|()| std::fs::rename(temporary, &self.path))
                .map_err(|e| fail(&self.path, e))?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = std::fs::remove_file(temporary); // on the way out after an error that is reported
        }
    }
}
