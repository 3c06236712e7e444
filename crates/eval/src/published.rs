//! The published averages that the table prints beside ours: VGPO, arXiv 2604.09349; percent.

/// A published pair of averages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PublishedRow {
    /// Size of the Qwen2.5-VL model.
    pub model: &'static str,
    /// Training method.
    pub method: &'static str,
    /// Avg-Math in percent.
    pub math: f64,
    /// Avg-Vision in percent.
    pub vision: f64,
}

const fn row(model: &'static str, method: &'static str, math: f64, vision: f64) -> PublishedRow {
    PublishedRow { model, method, math, vision }
}

/// All published rows, greedy decoding with one answer per question.
pub(crate) const PUBLISHED: [PublishedRow; 10] = [
    row("3B", "DAPO", 55.3, 48.3),
    row("3B", "VGPO", 57.7, 53.6),
    row("7B", "base", 50.0, 48.7),
    row("7B", "GRPO", 62.6, 58.8),
    row("7B", "DAPO", 63.8, 59.6),
    row("7B", "PAPO-D", 65.5, 60.4),
    row("7B", "VPPO", 65.7, 61.3),
    row("7B", "VGPO", 66.6, 63.3),
    row("32B", "DAPO", 68.4, 64.8),
    row("32B", "VGPO", 70.7, 66.7),
];
