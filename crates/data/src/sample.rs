//! One problem with its pictures, as every source delivers it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guard::{Limit, limits};
use serde::{Deserialize, Serialize};

use crate::error::ImageError;
use crate::image::{self, ExifOrientation};

/// One problem. Images are encoded (PNG, JPEG, ...), never decoded here.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The id column, or the row index where there is none or where it is not unique.
    pub id: String,
    /// Row index in the data set.
    pub index: usize,
    /// Problem text with `<image>`, or `<image 1>`, `<image 2>` and so on, where a picture stands ([`crate::prompt`]).
    pub problem: String,
    /// The ground truth as text; numbers are written out. May be empty when there is a `solution`.
    pub answer: String,
    /// Pictures; `<image>` takes them one after the other, `<image 2>` the second.
    pub images: Vec<ImageSource>,
    /// Name of the task or subject, for metrics by task.
    pub task: Option<String>,
    /// A full response to imitate, for supervised warm starts.
    pub solution: Option<String>,
    /// The columns of [`Keys::extra`] that the row has, as text; lists as JSON.
    pub extra: BTreeMap<String, String>,
}

/// An encoded image, in memory or in a file that is read when it is needed.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageSource {
    /// The encoded file.
    Bytes(Arc<[u8]>),
    /// Where the encoded file lies.
    Path(PathBuf),
}

impl ImageSource {
    /// The encoded bytes; reads the file of a [`ImageSource::Path`].
    ///
    /// # Errors
    /// [`ImageError::Read`] when the file cannot be read.
    pub fn load(&self) -> Result<Cow<'_, [u8]>, ImageError> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::Path(path) => {
                // As many bytes as the largest picture that may be decoded has.
                let pixels = limits().decoded_pixels;
                let limit = Limit { value: 8 * pixels.value, ..pixels };
                guard::file::read(path, limit).map(Cow::Owned).map_err(|e| unreadable(path, &e))
            }
        }
    }
}

impl ImageSource {
    /// Width and height from the header, as stored; of a file no more is read than that.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no image.
    pub fn header_size(&self) -> Result<(u32, u32), ImageError> {
        self.with_bytes(image::header_size)
    }

    /// Width and height of the picture turned upright, from header and metadata.
    ///
    /// # Errors
    /// As [`header_size`](Self::header_size).
    pub fn upright_size(&self, setting: ExifOrientation) -> Result<(u32, u32), ImageError> {
        self.with_bytes(|bytes| image::upright_size(bytes, setting))
    }

    /// What `look` finds in the encoded bytes; of a file only what it touches is read.
    fn with_bytes<T>(&self, look: impl FnOnce(&[u8]) -> Result<T, ImageError>) -> Result<T, ImageError> {
        match self {
            Self::Bytes(bytes) => look(bytes),
            Self::Path(path) => {
                let fail = |e: std::io::Error| unreadable(path, &e);
                let file = guard::file::open(path).map_err(fail)?;
                if file.metadata().map_err(fail)?.len() == 0 {
                    return Err(ImageError::Empty);
                }
                // SAFETY: the map is read-only and gone at the end of this function; a file that is cut meanwhile is
                // outside what we defend against.
                let map = unsafe { memmap2::Mmap::map(&file) }.map_err(fail)?;
                look(&map)
            }
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> ImageError {
    ImageError::Read { path: guard::echo(&path.to_string_lossy()), reason: error.to_string() }
}

impl From<Vec<u8>> for ImageSource {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

/// Column names, EasyR1's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    /// Column with the problem text.
    pub prompt_key: String,
    /// Column with the ground truth.
    pub answer_key: String,
    /// Column with the pictures. Where it is missing, numbered columns are read: of `images` or `image` the columns
    /// `image_1`, `image_2` and so on. A source with neither is text only.
    pub image_key: String,
    /// Column with a response to imitate; optional.
    pub solution_key: String,
    /// Column with the id; optional.
    pub id_key: String,
    /// Column with the task name; optional.
    pub task_key: String,
    /// Further columns that are handed on as text where a source has them: what a benchmark groups its rows by.
    pub extra: Vec<String>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            prompt_key: "problem".into(),
            answer_key: "answer".into(),
            image_key: "images".into(),
            solution_key: "solution".into(),
            id_key: "id".into(),
            task_key: "task".into(),
            extra: Vec::new(),
        }
    }
}
