//! Files that are opened only where they are files, and read only up to a limit.
//!
//! A pipe in the place of a file makes a reader wait for ever, a device has no end, and a link may lead anywhere. The
//! errors are [`std::io::Error`]s without the path, which the caller's own error names.

use std::ffi::OsStr;
use std::fs::{File, FileType, Metadata};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::path::{Path, PathBuf};

use crate::limits::{Limit, limits};

fn refuse(reason: String) -> Error {
    Error::new(ErrorKind::InvalidInput, reason)
}

/// What stands in the place of a file.
fn kind(found: FileType) -> &'static str {
    if found.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if found.is_fifo() {
            return "a pipe";
        }
        if found.is_socket() {
            return "a socket";
        }
        if found.is_block_device() || found.is_char_device() {
            return "a device";
        }
    }
    "something else"
}

fn check(found: &Metadata) -> Result<()> {
    match found.is_file() {
        true => Ok(()),
        false => Err(refuse(format!("it is not a file but {}", kind(found.file_type())))),
    }
}

/// Opens a regular file; anything else is refused before it is opened, as opening a pipe would wait.
///
/// # Errors
/// What is not there, cannot be opened, or is no regular file.
pub fn open(path: &Path) -> Result<File> {
    check(&std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    // Once more: what lies there may have been exchanged between the two.
    check(&file.metadata()?)?;
    Ok(file)
}

fn read_open(file: File, limit: Limit) -> Result<Vec<u8>> {
    let too_large = |bytes: u64| {
        refuse(format!(
            "it has {bytes} bytes, and the limit for such a file is {} bytes; {}",
            limit.value,
            limit.raise()
        ))
    };
    let length = file.metadata()?.len();
    if length > limit.value {
        return Err(too_large(length));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // The stated length of some files is 0 or grows while they are read.
    file.take(limit.value + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit.value {
        true => Err(too_large(bytes.len() as u64)),
        false => Ok(bytes),
    }
}

/// The bytes of a regular file.
///
/// # Errors
/// As [`open`], and more bytes than `limit`.
pub fn read(path: &Path, limit: Limit) -> Result<Vec<u8>> {
    read_open(open(path)?, limit)
}

/// The text of a regular file.
///
/// # Errors
/// As [`read`], and bytes that are not UTF-8.
pub fn read_text(path: &Path, limit: Limit) -> Result<String> {
    text(read(path, limit)?)
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|e| Error::new(ErrorKind::InvalidData, format!("it is not UTF-8: {}", e.utf8_error())))
}

/// Writes a file so that it is either the old or the new one, whenever the machine stops: under a temporary name beside
/// it (`.NAME.partial`), synced, then renamed. No part is left behind where that fails.
///
/// # Errors
/// Anything the file system refuses; a path that names no file.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().ok_or_else(|| refuse("it names no file".into()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".partial");
    let temporary = path.with_file_name(hidden);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => sync_folder(folder),
            None => Ok(()),
        }
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary); // the error is the one that matters
    })
}

/// Makes the names in a folder survive a loss of power.
///
/// # Errors
/// A folder that cannot be opened or synced.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)?.sync_all()
}

/// The limit for a file of a model folder, by its name.
pub(crate) fn limit_of(name: &str) -> Limit {
    match name {
        "tokenizer.json" | "vocab.json" | "merges.txt" => limits().tokenizer_bytes,
        name if name.ends_with(".jinja") => limits().template_bytes,
        _ => limits().settings_bytes,
    }
}

/// Where the file `name` of a model folder lies once links are resolved.
///
/// A link is followed if it ends in the folder itself, or in the `blobs` folder of the Hugging Face cache whose
/// snapshot the folder is. Weights may be links to anywhere, as they are parsed and never copied; any other link could
/// carry a file of the user into every checkpoint.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such file; a link that leaves the folder; anything that is no regular file.
pub fn in_model_folder(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    check(&std::fs::metadata(&path)?)?;
    let real = path.canonicalize()?;
    let folder = dir.canonicalize()?;
    let weights = Path::new(name).extension() == Some(OsStr::new("safetensors"));
    if weights || real.starts_with(&folder) || blobs_of(&folder).is_some_and(|blobs| real.parent() == Some(&blobs)) {
        return Ok(real);
    }
    Err(refuse(format!(
        "it is a link to {}, outside the model folder, and would be copied into every checkpoint; copy the file itself into the \
         folder (cp -L)",
        crate::echo(&real.to_string_lossy())
    )))
}

/// `.../models--NAME/blobs` for `.../models--NAME/snapshots/REVISION` and folders in it.
fn blobs_of(folder: &Path) -> Option<PathBuf> {
    let snapshots = folder.ancestors().skip(1).find(|above| above.file_name() == Some(OsStr::new("snapshots")))?;
    let repository = snapshots.parent()?;
    let name = repository.file_name()?.to_str()?;
    name.contains("--").then(|| repository.join("blobs"))
}

/// The bytes of the file `name` of a model folder, within the limit of `limit_of` its name.
///
/// # Errors
/// As [`in_model_folder`] and [`read`]; [`ErrorKind::NotFound`] when there is no such file.
pub fn read_model_file(dir: &Path, name: &str) -> Result<Vec<u8>> {
    read(&in_model_folder(dir, name)?, limit_of(name))
}

/// [`read_model_file`] as text.
///
/// # Errors
/// As [`read_model_file`], and bytes that are not UTF-8.
pub fn read_model_text(dir: &Path, name: &str) -> Result<String> {
    text(read_model_file(dir, name)?)
}

/// Whether `path` lies in `folder` once `..` and links are resolved; files of the Hugging Face cache lie in the folder
/// of their snapshot.
///
/// # Errors
/// A path or folder that is not there.
pub fn lies_in(path: &Path, folder: &Path) -> Result<bool> {
    // A data file that was named without a folder has an empty one.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let (real, folder) = (path.canonicalize()?, folder.canonicalize()?);
    Ok(real.starts_with(&folder) || blobs_of(&folder).is_some_and(|blobs| real.parent() == Some(&blobs)))
}
