//! What the papers' figures and tables read: attention and visual focus of responses, before and after training, and a study that
//! trains many rows and compares them.
//!
//! | module | what |
//! |---|---|
//! | [`study`] | rows x seeds of training runs, paired tests, a report |
//! | [`stats`] | intervals, tests, correlation, histograms |
//! | [`svg`] | plots |


pub mod stats;
pub mod study;
pub mod svg;
