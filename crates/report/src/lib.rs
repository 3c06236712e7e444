//! Pictures of results: plots as SVG, and where a response looked as PNG. Whoever has figures draws them here.
//!
//! | module | what |
//! |---|---|
//! | [`svg`] | plots: lines with bands, points, histograms, rows with intervals |
//! | [`focus_map`] | a response's visual focus over the pictures of its prompt |
//!
//! ```
//! use report::svg::axis::Axis;
//! use report::svg::chart::{Chart, Mark, Series};
//!
//! let points = vec![(0.0, 0.14), (60.0, 0.61), (120.0, 0.85)];
//! let chart = Chart {
//!     title: "Accuracy".into(),
//!     note: "the toy world, seed 1".into(),
//!     x: Axis::new("step"),
//!     y: Axis::new("rows").range(0.0, 1.0).percent(),
//!     series: vec![Series { name: "vgpo".into(), points, mark: Mark::Line { half: vec![] } }],
//! };
//! assert!(chart.draw().starts_with("<svg"));
//! ```

pub mod focus_map;
mod sheet;
pub mod svg;
