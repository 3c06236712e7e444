//! The folder of a run: what is written where, and the readers of it. No tensor is known here.
//!
//! ```
//! use run::folder::RunFolder;
//! use run::metrics::MetricsReader;
//! use serde_json::{Map, json};
//!
//! let place = tempfile::tempdir()?;
//! let folder = RunFolder::create(place.path(), "seed = 1")?;
//! let metrics = Map::from_iter([("reward/overall".to_string(), json!(0.5))]);
//! folder.metrics()?.append(1, &metrics)?;
//! let read = MetricsReader::read(&place.path().join(run::layout::METRICS))?;
//! assert_eq!(read.steps[0].number("reward/overall"), Some(0.5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

pub mod checkpoint;
pub mod events;
pub mod folder;
pub mod heartbeat;
pub mod layout;
pub mod lines;
pub mod metrics;
pub mod record;
mod table;
pub mod tokens;
