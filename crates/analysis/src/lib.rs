//! What the papers' figures and tables read: attention and visual focus of responses, before and after training, and a
//! study that trains many rows and compares them.
//!
//! | module | what |
//! |---|---|
//! | [`pilot`] | the pilot study of VGPO (arXiv 2604.09349): where generated tokens look, and what it says about their answer |
//! | [`study`] | rows x seeds of training runs, paired tests, a report |
//! | [`forgetting`] | errors where a response has to look once more, late against early, and after an exchange of the picture |
//! | `stats` | intervals, tests, correlation, histograms |
//! | `crossed` | differences over seeds and items at once |
//! | [`focus_map`] | the tokens that look most at the pictures, and their heat over them |
//! | [`dump`] | the numbers of one response as a safetensors file |
//!
//! ```
//! use analysis::Interval;
//!
//! // Accuracies of five seeds: t.test of R gives 0.80 and 0.88.
//! let interval = Interval::of(&[0.80, 0.82, 0.84, 0.86, 0.88]);
//! assert_eq!(interval.n, 5);
//! assert!((interval.mean - 0.84).abs() < 1e-12 && (interval.half - 0.0393).abs() < 1e-4);
//! ```

mod crossed;
pub mod dump;
pub mod focus_map;
pub mod forgetting;
pub mod pilot;
mod stats;
pub mod study;

pub use stats::{Histogram, Interval};
