//! Visual forgetting, measured where a response has to look once more: at the parts that it takes from the picture.
//!
//! | file | what |
//! |---|---|
//! | `worked` | rows whose worked response says where its parts are ([`data::parts`]) |
//! | `forced` | one pass over each worked response: what is predicted at its parts, attention, visual focus |
//! | [`figures`] | errors by place, what late parts follow when the picture was exchanged, late against early |
//!
//! Everything here is teacher-forced: the model reads the worked response and is asked, at each part, for its likeliest
//! token. So a difference between early and late parts is one of looking, not of errors that were made before.
//!
//! A picture is exchanged by asking about another one: the prompt has the second picture, and so has every key and
//! value that the response reads; the response follows the first picture in its early half and the second one after
//! that. Nothing of the first picture is left but what the response says of it. A late part that was not written before
//! shows whether the model reads the picture at all; one that was, whether it looks again or copies what stands in the
//! text.

pub mod figures;
mod forced;
mod worked;

use std::sync::atomic::{AtomicBool, Ordering};

use model_qwen2vl::{Kernels, QwenVl};
use rl::TrainError;

use crate::pilot::Subject;

pub use figures::{Followed, Forgetting, LateEarlyMeans, PartErrors};
pub use forced::{ForcedPart, ForcedRow, forced};
pub use worked::{WorkedPart, WorkedRow, WorkedRows};

/// Worked responses read in one pass.
const AT_ONCE: usize = 8;

/// Reads the worked responses of the first `limit` rows that `subject` is asked (0: all), as far as they can be
/// located.
///
/// # Errors
/// Data and columns that cannot be used, and an interrupt.
pub fn read<B: Kernels>(
    model: &QwenVl<B>,
    subject: &Subject,
    limit: usize,
    interrupt: &AtomicBool,
    note: &mut dyn FnMut(String),
) -> Result<Vec<ForcedRow>, TrainError> {
    let worked = WorkedRows::open(subject, limit)?;
    let mut rows = Vec::new();
    let all: Vec<usize> = (0..worked.len()).collect();
    for some in all.chunks(AT_ONCE) {
        if interrupt.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted);
        }
        rows.extend(forced(model, &worked.load(some, model, note)?)?);
    }
    Ok(rows)
}
