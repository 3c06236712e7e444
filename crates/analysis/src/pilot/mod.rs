//! The pilot study of VGPO (arXiv 2604.09349) on any model and data: where generated tokens look, and what it says
//! about the answer.
//!
//! | file | what |
//! |---|---|
//! | `measure` | answers the rows of a data set and measures every token |
//! | `summary` | averages by step, late over early, correct against incorrect, focus against attention |
//! | `plots` | their pictures, for one model or two |
//! | [`session`] | opens the models, asks them as they were trained, and writes all files |
//!
//! Attention is the last layer's, mean over heads, from the position of the generated token itself: the same rows that
//! the visual focus (equation 4) is read from. It is split into image, prompt text and generated text, which sum to 1.

pub(crate) mod measure;
pub(crate) mod plots;
pub mod session;
pub(crate) mod summary;

pub use measure::{MapSource, Measured, Pilot, PilotRecord};
pub use session::{PilotSession, Subject};
pub use summary::{Correlation, LateEarly, PilotSummary, Step};
