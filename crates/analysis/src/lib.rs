//! What the papers' figures and tables read: attention and visual focus of responses, before and after training, and a
//! study that trains many rows and compares them.
//!
//! | module | what |
//! |---|---|
//! | [`pilot`] | the pilot study of VGPO (arXiv 2604.09349): where generated tokens look, and what it says about their answer |
//! | [`study`] | rows x seeds of training runs, paired tests, a report |
//! | `stats` | intervals, tests, correlation, histograms |
//! | [`focus_map`] | the tokens that look most at the pictures, and their heat over them |
//! | [`dump`] | the numbers of one response as a safetensors file |

pub mod dump;
pub mod focus_map;
pub mod pilot;
mod stats;
pub mod study;

pub use stats::{Histogram, Interval};
