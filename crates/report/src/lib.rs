//! Pictures of results: plots as SVG, and where a response looked as PNG. Whoever has figures draws them here.
//!
//! | module | what |
//! |---|---|
//! | [`svg`] | plots: lines with bands, points, histograms, rows with intervals |
//! | [`focus_map`] | a response's visual focus over the pictures of its prompt |

pub mod focus_map;
mod sheet;
pub mod svg;
