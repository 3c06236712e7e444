//! What can go wrong, each with the name of the thing and the way out.

use std::fmt;
use std::path::PathBuf;

/// A row that is set aside. The run goes on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The id of the sample, as in [`crate::Sample::id`].
    pub id: String,
    /// Row index in the [`crate::Dataset`].
    pub index: usize,
    /// Why, in one line.
    pub reason: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Reasons may quote what a file contains; one row is one line in every log.
        let reason = guard::printable(&self.reason.split_whitespace().collect::<Vec<_>>().join(" "));
        if self.id == self.index.to_string() {
            write!(f, "row {}: {reason}", self.index)
        } else {
            write!(f, "row {} (id {:?}): {reason}", self.index, guard::echo(&self.id))
        }
    }
}

impl std::error::Error for BadRow {}

/// A data set, model folder or template that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A data spec that names nothing.
    #[error("data source {spec:?}: {reason}")]
    Spec {
        /// The spec as the user wrote it.
        spec: String,
        /// What is wrong with it and what to write instead.
        reason: String,
    },
    /// A file that exists but cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A file that cannot be written: a full disk, a folder that is not ours.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A model folder whose tokenizer, chat template or processor settings cannot be used.
    #[error("model folder {}: {reason}", dir.display())]
    Model {
        /// The folder.
        dir: PathBuf,
        /// What is missing or wrong, and the fix.
        reason: String,
    },
    /// A format prompt that cannot be read or rendered.
    #[error("format prompt {name:?}: {reason}")]
    Template {
        /// Built-in name or file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A prompt that cannot be encoded.
    #[error("{0}")]
    Prompt(String),
    /// An image that cannot be used.
    #[error("image {index}: {source}")]
    Image {
        /// Position among the images of the prompt, from 1.
        index: usize,
        /// Why.
        source: ImageError,
    },
}

impl DataError {
    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::File { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn spec(spec: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Spec { spec: spec.into(), reason: reason.into() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// A file that cannot be written.
    pub fn write(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Write { path: path.into(), source }
    }

    /// Exit code of a program that ends with this error: 1 for what could not be written, 2 for what the user gave.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Write { .. } => 1,
            _ => 2,
        }
    }
}

/// An image that cannot be decoded or prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// No bytes at all.
    #[error("the image is empty (0 bytes)")]
    Empty,
    /// Neither magic number nor header of a known format.
    #[error("not an image in a known format (PNG, JPEG, WebP, GIF, BMP, TIFF): {0}")]
    Format(String),
    /// What Git LFS leaves in the place of a file that it has not fetched.
    #[error("{}", crate::lfs::REASON)]
    LfsPointer,
    /// The header is fine, the content is not.
    #[error("cannot decode the image: {0}")]
    Decode(String),
    /// More pixels than [`crate::ImageLimits::max_decoded_pixels`]: a decompression bomb, refused before decoding.
    #[error("{width}x{height} pixels are more than the limit of {limit} pixels a picture (decompression bomb?)")]
    TooLarge {
        /// Pixels, from the header.
        width: u32,
        /// Pixels, from the header.
        height: u32,
        /// The limit in pixels.
        limit: u64,
    },
    /// Qwen2-VL accepts aspect ratios up to 200.
    #[error(
        "{width}x{height} is too elongated{}: the aspect ratio must not exceed 200",
        resized.map(|(w, h)| format!(" (within the run's min_pixels and max_pixels {w}x{h})")).unwrap_or_default()
    )]
    AspectRatio {
        /// Pixels of the picture itself.
        width: u32,
        /// Pixels of the picture itself.
        height: u32,
        /// Width and height within the run's limits, where these change them: their ratio is the one that counts.
        resized: Option<(u32, u32)>,
    },
    /// A width or height of zero.
    #[error("{width}x{height} has no pixels")]
    NoPixels {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Limits that no picture can satisfy.
    #[error("image limits: {0}")]
    Limits(String),
    /// The file behind a path cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// The system's reason.
        reason: String,
    },
}
