//! What tests of whole runs share.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};

/// Keys that a clock decides, or that are made of differences of nearly equal numbers: PGPO compares predictions with
/// and without a picture, which an untrained tower hardly changes.
fn is_noise(key: &str) -> bool {
    ["time/", "perf/", "mismatch/", "comm/", "pgpo/"].iter().any(|prefix| key.starts_with(prefix))
        || key == "actor/ppo_kl"
}

/// All metrics within `tolerance` of one another, relative to their size.
pub(crate) fn near(a: &Map<String, Value>, b: &Map<String, Value>, tolerance: f64, what: &str) {
    let keys = |line: &Map<String, Value>| line.keys().filter(|k| !k.starts_with("comm/")).cloned().collect::<Vec<_>>();
    assert_eq!(keys(a), keys(b), "{what}");
    for (key, value) in a.iter().filter(|(key, _)| !is_noise(key)) {
        match (value.as_f64(), b[key].as_f64()) {
            (Some(x), Some(y)) => {
                assert!((x - y).abs() <= tolerance * (1.0 + x.abs()), "{what}: {key}: {x} and {y}");
            }
            _ => assert_eq!(value, &b[key], "{what}: {key}"),
        }
    }
}

/// Stops a run when its progress shows a text.
#[derive(Clone)]
pub(crate) struct StopAt(pub(crate) &'static str, pub(crate) Arc<AtomicBool>);

impl Write for StopAt {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if String::from_utf8_lossy(line).contains(self.0) {
            self.1.store(true, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
