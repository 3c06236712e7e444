//! What a step took, as a row of a table and as JSON.

use plan::StepFigures;
use serde_json::{Value, json};

/// What one step took.
#[derive(Debug, Clone)]
pub(super) struct BenchRow {
    /// Number of the step.
    pub step: u64,
    /// Tokens of a prompt.
    pub prompt_tokens: usize,
    /// Tokens of a response.
    pub response_tokens: usize,
    /// Responses of all prompts.
    pub rollouts: usize,
    /// `[generate, old log-probs, update, vision, prefill, focus and factors, optimizer, total]` in seconds.
    pub seconds: [f64; 8],
    /// Floating-point operations of the step.
    pub flops: f64,
    /// Those of the update.
    pub update_flops: f64,
    /// A second, of a large matmul.
    pub peak_flops: f64,
    /// What decoding has to read at least.
    pub decode_bytes: f64,
    /// The highest memory, where the system says.
    pub peak_gib: Option<f64>,
    /// How fast the machine was, by kind of work; none where its peak was given.
    pub figures: Option<StepFigures>,
}

/// Seconds of the parts of a step, and its highest memory.
pub(super) struct Phases {
    /// Sampling.
    pub generate: f64,
    /// The scoring pass.
    pub old_log_probs: f64,
    /// Gradients and optimizer.
    pub update: f64,
    /// All of it.
    pub total: f64,
    /// GiB, where the system says.
    pub peak_gib: Option<f64>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        0 => 0.5 * (values[half - 1] + values[half]),
        _ => values[half],
    }
}

impl BenchRow {
    /// Columns of [`line`](Self::line).
    pub(super) const COLUMNS: usize = 10;

    /// Names of the columns.
    pub(super) fn header() -> &'static str {
        "| generate s | old log-probs s | update s | total s | vision s | prefill s | focus s | optimizer s | GFLOP/s | peak GiB |"
    }

    /// One row of a Markdown table.
    pub(super) fn line(&self) -> String {
        let [generate, old, update, vision, prefill, focus, optimizer, total] = self.seconds;
        let gib = self.peak_gib.map_or("-".into(), |g| format!("{g:.2}"));
        format!(
            "| {generate:.3} | {old:.3} | {update:.3} | {total:.3} | {vision:.3} | {prefill:.3} | {focus:.4} | {optimizer:.3} | {:.1} | {gib} |",
            self.flops / total / 1e9
        )
    }

    /// The parts that are drawn.
    pub(super) fn phases(&self) -> Phases {
        let [generate, old_log_probs, update, .., total] = self.seconds;
        Phases { generate, old_log_probs, update, total, peak_gib: self.peak_gib }
    }

    /// The peer's keys and ours.
    pub(super) fn json(&self) -> Value {
        let [generate, old, update, vision, prefill, focus, optimizer, total] = self.seconds;
        let round = |x: f64| (x * 1e4).round() / 1e4;
        let (b, r) = (self.rollouts as f64, self.response_tokens as f64);
        let mut row = json!({
            "engine": "visual-rl", "step": self.step, "threads": std::thread::available_parallelism().map_or(1, |n| n.get()),
            "prompt_tokens": self.prompt_tokens, "response_tokens": self.response_tokens, "rollouts": self.rollouts,
            "generate_s": round(generate), "old_logprobs_s": round(old), "update_s": round(update), "total_s": round(total),
            "decode_tokens_per_s": round(b * r / generate),
            // As the peer counts: every response with a prompt of its own.
            "update_tokens_per_s": round(b * (self.prompt_tokens as f64 + r) / update),
            "rollouts_per_s": round(b / total),
            "vision_s": round(vision), "prefill_s": round(prefill), "focus_s": round(focus), "optimizer_s": round(optimizer),
            "model_flops": self.flops, "matmul_flops_per_s": self.peak_flops.round(), "share_of_peak": round(self.flops / total / self.peak_flops),
            "update_share_of_peak": round(self.update_flops / update / self.peak_flops),
            "decode_bytes": self.decode_bytes, "decode_bytes_per_s": (self.decode_bytes / (generate - vision - prefill).max(1e-9)).round(),
        });
        if let (Some(gib), Some(map)) = (self.peak_gib, row.as_object_mut()) {
            map.insert("peak_gib".into(), json!(round(gib)));
        }
        if let (Some(figures), Some(map)) = (&self.figures, row.as_object_mut()) {
            map.insert("figures".into(), json!(figures));
        }
        row
    }

    /// Medians of the seconds, the highest peak.
    pub(super) fn median(rows: Vec<BenchRow>) -> BenchRow {
        let mut out = rows[0].clone();
        for (i, s) in out.seconds.iter_mut().enumerate() {
            *s = median(rows.iter().map(|r| r.seconds[i]).collect());
        }
        out.peak_gib = rows.iter().filter_map(|r| r.peak_gib).reduce(f64::max);
        out
    }
}
