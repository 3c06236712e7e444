//! The files of a model folder that are not weights.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::ModelError;

/// Files of a model folder that are not weights and are carried along.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
];

/// What a saved folder needs besides weights and `config.json`: tokenizer, processor, templates, generation settings.
/// They are read once, when a run starts, and written from memory, so that a folder that is moved, edited or removed
/// meanwhile changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Companions(Vec<(&'static str, Vec<u8>)>);

impl Companions {
    /// Reads those that `folder` has.
    ///
    /// # Errors
    /// A file that is there and cannot be read: no regular file, larger than its kind may be, or a link that leaves the
    /// folder.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let mut files = Vec::new();
        for name in COMPANIONS {
            // A link could bring in any file of the user; the guard follows only those that are the folder's own.
            match guard::file::read_model_file(folder, name) {
                Ok(bytes) => files.push((*name, bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(ModelError::io(&folder.join(name))(e)),
            }
        }
        Ok(Self(files))
    }

    /// Replaces what `revise` gives another content for.
    ///
    /// # Errors
    /// The first error of `revise`.
    pub fn revise<E>(&mut self, revise: impl Fn(&str, &[u8]) -> Result<Option<Vec<u8>>, E>) -> Result<(), E> {
        for (name, bytes) in &mut self.0 {
            if let Some(revised) = revise(name, bytes)? {
                *bytes = revised;
            }
        }
        Ok(())
    }

    /// Names and contents.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (*name, &bytes[..]))
    }

    /// The content of one file, if the folder had it.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files().find(|(own, _)| *own == name).map(|(_, bytes)| bytes)
    }
}

/// Writes a file and waits until the disk has it.
///
/// # Errors
/// Anything the file system refuses, with the path.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(ModelError::io(path))
}
