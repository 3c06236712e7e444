//! Samples, sources, images, prompts and the toy world: everything between a file and a list of token ids with patches.
//!
//! No tensors here. The way of a row:
//!
//! ```text
//! DataSpec -> Dataset::get(i) -> Sample -> build_prompt(.., FormatPrompt, Processor) -> Encoded { input_ids, images }
//! ```
//!
//! A row that cannot be used is a [`BadRow`] (one line naming row and reason), never the end of a run; a file or a
//! model folder that cannot be used is a [`DataError`].
//!
//! ```
//! use data::{DataSpec, Dataset, Keys};
//!
//! let specs = [DataSpec::from("toy:sum?rows=2&cols=2")]; // or a parquet file, JSON lines, a folder, a glob
//! let dataset = Dataset::open(&specs, &Keys::default(), None)?;
//! let sample = dataset.get(0)?;
//! assert!(sample.problem.contains("<image>") && sample.images.len() == 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod convert;
pub mod cursor;
pub mod dataset;
pub mod error;
pub mod image;
pub mod inspect;
mod lfs;
pub mod parts;
pub(crate) mod prefetch;
pub mod processor;
pub mod prompt;
pub mod sample;
mod source;
mod template;
pub mod toy;
pub mod write;

pub use cursor::{Cursor, EpochPart, EpochRows};
pub use dataset::{DataSpec, Dataset};
pub use error::{BadRow, DataError, ImageError};
pub use image::{Alpha, ExifOrientation, ImageLimits, Patches, RunPixels};
pub use prefetch::Prefetcher;
pub use processor::{ChatMessage, Content, Encoded, Processor, Role, StreamDecoder};
pub use prompt::{FormatPrompt, build_prompt, count_prompt_tokens};
pub use sample::{ImageSource, KeyOptions, Keys, Sample};
pub use source::Column;
