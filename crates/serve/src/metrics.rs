//! What a server says of itself, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets of times, seconds.
const SECONDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Why a request ended before its answer was complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CutOff {
    /// The client went away.
    Disconnected,
    /// The client did not read.
    Slow,
    /// It took too long.
    TimedOut,
    /// The server ended.
    Ended,
    /// The engine could not go on.
    Failed,
}

impl CutOff {
    fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Slow => "slow_reader",
            Self::TimedOut => "timed_out",
            Self::Ended => "server_ended",
            Self::Failed => "failed",
        }
    }
}

/// Times, counted by bucket.
#[derive(Debug, Default)]
pub(crate) struct TimeBuckets {
    counts: [AtomicU64; SECONDS.len() + 1],
    micros: AtomicU64,
}

impl TimeBuckets {
    pub(crate) fn add(&self, time: Duration) {
        let bucket = SECONDS.iter().position(|bound| time.as_secs_f64() <= *bound).unwrap_or(SECONDS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, "histogram", help);
        let mut total = 0;
        for (i, count) in self.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let bound = SECONDS.get(i).map_or("+Inf".to_owned(), f64::to_string);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(out, "{name}_sum {}", self.micros.load(Ordering::Relaxed) as f64 / 1e6);
        let _ = writeln!(out, "{name}_count {total}");
    }
}

/// All numbers of a server.
#[derive(Debug, Default)]
pub(crate) struct ServerMetrics {
    /// Answers by path and status.
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    cut_off: Mutex<BTreeMap<CutOff, u64>>,
    /// Requests that were taken and have no token yet.
    pub waiting: AtomicUsize,
    /// Requests in the engine.
    pub running: AtomicUsize,
    /// Responses that tokens are drawn for.
    pub open_rows: AtomicUsize,
    /// Rows of the key/value cache.
    pub cached_rows: AtomicUsize,
    pub prompt_tokens: AtomicU64,
    pub response_tokens: AtomicU64,
    pub decode_steps: AtomicU64,
    /// From arrival to the first token.
    pub first_token: TimeBuckets,
    /// From arrival to the last token, of requests that were answered.
    pub answered: TimeBuckets,
}

impl ServerMetrics {
    pub(crate) fn count_answer(&self, path: &'static str, status: u16) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry((path, status)).or_default() += 1;
    }

    pub(crate) fn count_cut_off(&self, why: CutOff) {
        *self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).entry(why).or_default() += 1;
    }

    /// The page of `/metrics`.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        head(&mut out, "serve_answers_total", "counter", "Answers by path and HTTP status.");
        for ((path, status), count) in self.answers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(out, "serve_answers_total{{path=\"{path}\",status=\"{status}\"}} {count}");
        }
        head(
            &mut out,
            "serve_cut_off_total",
            "counter",
            "Requests that ended before their answer was complete, by reason.",
        );
        for (why, count) in self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(out, "serve_cut_off_total{{reason=\"{}\"}} {count}", why.as_str());
        }
        let gauges = [
            ("serve_requests_waiting", "Requests that were taken and have no token yet.", &self.waiting),
            ("serve_requests_running", "Requests in the engine.", &self.running),
            ("serve_rows", "Responses that tokens are drawn for.", &self.open_rows),
            (
                "serve_cached_rows",
                "Rows of the key/value cache, ended ones included; 0: there is no cache.",
                &self.cached_rows,
            ),
        ];
        for (name, help, value) in gauges {
            head(&mut out, name, "gauge", help);
            let _ = writeln!(out, "{name} {}", value.load(Ordering::Relaxed));
        }
        let counters = [
            ("serve_prompt_tokens_total", "Prompt tokens computed, of pictures included.", &self.prompt_tokens),
            ("serve_response_tokens_total", "Response tokens sampled.", &self.response_tokens),
            ("serve_decode_steps_total", "Forward passes of decoding.", &self.decode_steps),
        ];
        for (name, help, value) in counters {
            head(&mut out, name, "counter", help);
            let _ = writeln!(out, "{name} {}", value.load(Ordering::Relaxed));
        }
        self.first_token.write(&mut out, "serve_first_token_seconds", "From a request's arrival to its first token.");
        self.answered.write(&mut out, "serve_answered_seconds", "From a request's arrival to its last token.");
        if let Some(bytes) = resident_bytes() {
            head(&mut out, "process_resident_memory_bytes", "gauge", "Memory of this process.");
            let _ = writeln!(out, "process_resident_memory_bytes {bytes}");
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Memory of this process, where the system says it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number of the page is explained in the documentation.
    #[test]
    fn the_page_is_documented_and_well_formed() {
        let metrics = ServerMetrics::default();
        metrics.count_answer("/v1/models", 200);
        metrics.count_cut_off(CutOff::Slow);
        metrics.answered.add(Duration::from_millis(30));
        metrics.answered.add(Duration::from_secs(1000));
        let text = metrics.text();
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/serving.md")).unwrap();
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
            assert!(page.contains(&format!("`{name}`")), "docs/serving.md does not name {name}");
        }
        assert!(text.contains("serve_answers_total{path=\"/v1/models\",status=\"200\"} 1\n"), "{text}");
        assert!(text.contains("serve_answered_seconds_bucket{le=\"0.025\"} 0\n"), "{text}");
        assert!(text.contains("serve_answered_seconds_bucket{le=\"0.05\"} 1\n"), "{text}");
        assert!(text.contains("serve_answered_seconds_bucket{le=\"+Inf\"} 2\n"), "{text}");
    }
}
