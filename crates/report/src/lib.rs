//! Pictures of results: plots, and where a response looked. Whoever has figures draws them here. Everything is composed
//! as SVG, whose text a browser draws with fonts of its own; pixels are made of the same SVG.
//!
//! | module | what |
//! |---|---|
//! | [`svg`] | plots: lines with bands, points, histograms, rows with intervals |
//! | [`focus_map`] | a response's visual focus over the pictures of its prompt |
//! | [`Fonts`] | what text becomes pixels with: a font of this crate, then those of the system |
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
mod fonts;
mod raster;
mod sheet;
pub mod svg;
mod text;

pub use fonts::Fonts;
pub use text::missing_note;
