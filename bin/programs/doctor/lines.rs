//! What `doctor` prints: a line per finding, the first of them about the program itself.

use doctor::{Examined, Finding, Verdict};
use model_qwen2vl::Kernels;

use crate::common::{Failure, print};

/// Findings on standard output, as they come.
pub(super) struct FindingLines {
    json: bool,
    /// Whether this process speaks: of several ranks the first.
    speaks: bool,
    /// The first line that could not be written.
    pub(super) failed: Option<Failure>,
}

impl FindingLines {
    pub(super) fn new(json: bool, speaks: bool) -> Self {
        Self { json, speaks, failed: None }
    }

    pub(super) fn say(&mut self, finding: &Finding) {
        if !self.speaks {
            return;
        }
        let line = if self.json { finding.json().to_string() } else { finding.line() };
        if let Err(failure) = print(&format!("{line}\n")) {
            self.failed.get_or_insert(failure);
        }
    }
}

/// What the program is and runs on. A program that is not optimised is no error, and no use for long runs.
pub(super) fn configuration<B: Kernels>(examined: &Examined<B>) -> Finding {
    let memory = B::device_memory(&examined.device);
    let debug = cfg!(debug_assertions);
    Finding {
        name: "configuration",
        compared: format!(
            "backend {}, {:?}, {}; no fusion, no autotune",
            B::name(&examined.device),
            examined.dtype,
            memory.map_or("a processor's own memory".into(), |held| {
                format!("{}, {} MiB of memory held", settings_of_the_device(), held >> 20)
            }),
        ),
        largest: None,
        seconds: 0.0,
        verdict: if debug { Verdict::Slow } else { Verdict::Right },
        remark: if debug { "this is a debug build: build with --release".into() } else { String::new() },
    }
}

/// What GPU programs are set to before the device is used.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn settings_of_the_device() -> String {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    let config = CubeClRuntimeConfig::get();
    let kept = if config.compilation.cache.is_some() { "kept" } else { "not kept" };
    format!("{} stream, compiled kernels are {kept}", config.streaming.max_streams)
}

#[cfg(not(any(feature = "cuda", feature = "wgpu")))]
fn settings_of_the_device() -> String {
    "a device of its own".into()
}
