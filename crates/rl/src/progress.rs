//! What a person sees while a run goes on: one moving line on a terminal, plain lines in a file or a pipe.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A part of a training step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sampling responses.
    Rollout,
    /// Log-probabilities and other streams of the sampled responses.
    Score,
    /// Forward, backward and optimizer.
    Update,
    /// Validation.
    Validate,
    /// Writing a checkpoint.
    Save,
}

impl Phase {
    /// The name that is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollout => "rollout",
            Self::Score => "score",
            Self::Update => "update",
            Self::Validate => "validate",
            Self::Save => "save",
        }
    }
}

/// A finished step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The step, from 1.
    pub step: u64,
    /// Name and value of what is being raised or lowered: ("reward", mean) in RL, ("loss", mean) in SFT.
    pub score: (&'static str, f64),
    /// Tokens trained on or sampled in the step.
    pub tokens: u64,
    /// Wall-clock time of the step.
    pub time: Duration,
}

/// Without a terminal, a phase that lasts tells how far it is this often.
const QUIET: Duration = Duration::from_secs(30);

enum Output {
    /// A line that moves.
    Bar(ProgressBar),
    /// A line per step.
    Lines(Box<dyn Write + Send>),
}

/// Where a run is, for a thread that watches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The stage; empty before the first one.
    pub stage: String,
    /// The step of it that the run works on, from 1.
    pub step: u64,
    /// The part of it; none between two.
    pub phase: Option<Phase>,
    /// Since when.
    pub since: Instant,
}

impl Whereabouts {
    fn new(stage: &str, step: u64, phase: Option<Phase>) -> Self {
        Self { stage: stage.to_owned(), step, phase, since: Instant::now() }
    }
}

/// Progress of one run. Nothing is written to standard output.
pub struct Progress {
    output: Output,
    whereabouts: Arc<Mutex<Whereabouts>>,
    stage: String,
    step: u64,
    steps: u64,
    phase: Option<(Phase, u64, u64)>,
    last_report: Option<StepReport>,
    /// Seconds of a step, smoothed.
    seconds: Option<f64>,
    last_written: Instant,
    /// Kinds of warnings that were given.
    warned: BTreeSet<&'static str>,
}

impl Progress {
    /// On standard error: a moving line where that is a terminal.
    pub fn new() -> Self {
        if io::stderr().is_terminal() {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:20} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            Self::with(Output::Bar(bar))
        } else {
            Self::to_writer(io::stderr())
        }
    }

    /// Nothing to a person: of several ranks the first one speaks.
    pub fn silent() -> Self {
        Self::to_writer(io::sink())
    }

    /// Plain lines to a writer.
    pub fn to_writer(writer: impl Write + Send + 'static) -> Self {
        Self::with(Output::Lines(Box::new(writer)))
    }

    fn with(output: Output) -> Self {
        Self {
            output,
            whereabouts: Arc::new(Mutex::new(Whereabouts::new("", 1, None))),
            stage: String::new(),
            step: 0,
            steps: 0,
            phase: None,
            last_report: None,
            seconds: None,
            last_written: Instant::now(),
            warned: BTreeSet::new(),
        }
    }

    /// Where the run is, as it goes on.
    pub fn whereabouts(&self) -> Arc<Mutex<Whereabouts>> {
        self.whereabouts.clone()
    }

    fn is_at(&self, step: u64, phase: Option<Phase>) {
        let mut at = self.whereabouts.lock().unwrap_or_else(PoisonError::into_inner);
        *at = Whereabouts::new(&self.stage, step, phase);
    }

    /// A stage begins: `steps` steps in all, of which `done` are behind (more than 0 after a resume).
    pub fn stage(&mut self, name: &str, steps: u64, done: u64) {
        self.stage = name.to_string();
        self.steps = steps;
        self.step = done;
        self.phase = None;
        self.last_report = None;
        self.seconds = None;
        self.is_at(done + 1, None);
        if let Output::Bar(bar) = &self.output {
            bar.set_prefix(name.to_string());
            bar.set_length(steps);
            bar.set_position(done);
        }
        self.redraw();
    }

    /// A phase of the next step begins, with `total` units of work (0: not known).
    pub(crate) fn phase(&mut self, phase: Phase, total: u64) {
        self.phase = Some((phase, 0, total));
        self.is_at(self.step + 1, Some(phase));
        self.redraw();
    }

    /// The current phase has done `units` more.
    pub(crate) fn advance(&mut self, units: u64) {
        if let Some((_, done, _)) = &mut self.phase {
            *done += units;
        }
        self.redraw();
        if let Some((phase, done, total)) = self.phase
            && self.last_written.elapsed() >= QUIET
        {
            let line = format!("{} {}", self.place(self.step + 1), phase_text(phase, done, total));
            self.write_line(&line);
        }
    }

    /// A step is done.
    pub fn step(&mut self, report: StepReport) {
        let seconds = report.time.as_secs_f64();
        // Steps grow and shrink with the length of the responses: the last ten or so count.
        self.seconds = Some(self.seconds.map_or(seconds, |mean| 0.9 * mean + 0.1 * seconds));
        self.step = report.step;
        self.phase = None;
        self.last_report = Some(report);
        self.is_at(report.step + 1, None);
        if let Output::Bar(bar) = &self.output {
            bar.set_position(report.step);
        }
        self.redraw();
        let line = format!(
            "{} {}  {:.2} s{}",
            self.place(report.step),
            summary(&report),
            seconds,
            self.eta().map_or(String::new(), |eta| format!("  eta {}", duration(eta)))
        );
        self.write_line(&line);
    }

    /// A line that stays: a validation result, a warning, where a checkpoint lies.
    pub fn note(&mut self, text: &str) {
        // It may quote what a file says.
        let text = guard::printable(text);
        match &self.output {
            Output::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Output::Lines(_) => self.write_line(&text),
        }
    }

    /// A warning that stays, once for each `kind`: what is wrong in one step is mostly wrong in the next.
    pub(crate) fn warn_once(&mut self, kind: &'static str, text: &str) {
        if self.warned.insert(kind) {
            self.note(&format!("warning: {text}"));
        }
    }

    /// The run is over; what was written stays.
    pub fn finish(&mut self) {
        if let Output::Bar(bar) = &self.output {
            bar.abandon();
        }
    }

    /// Time left in this stage; `None` before its first step is done.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.steps.saturating_sub(self.step);
        let seconds = self.seconds?;
        (left > 0).then(|| Duration::try_from_secs_f64(seconds * left as f64).ok()).flatten()
    }

    fn place(&self, step: u64) -> String {
        format!("{} {step}/{}", self.stage, self.steps)
    }

    fn redraw(&self) {
        let Output::Bar(bar) = &self.output else {
            return;
        };
        let mut parts = Vec::new();
        if let Some((phase, done, total)) = self.phase {
            parts.push(phase_text(phase, done, total));
        }
        if let Some(report) = &self.last_report {
            parts.push(summary(report));
        }
        if let Some(eta) = self.eta() {
            parts.push(format!("eta {}", duration(eta)));
        }
        bar.set_message(parts.join("  "));
    }

    /// Writes a plain line. Nobody can be told that standard error is closed, and training goes on without it.
    fn write_line(&mut self, line: &str) {
        if let Output::Lines(writer) = &mut self.output {
            let _ = writeln!(writer, "{line}");
            let _ = writer.flush();
            self.last_written = Instant::now();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

fn phase_text(phase: Phase, done: u64, total: u64) -> String {
    match total {
        0 => phase.as_str().to_string(),
        total => format!("{} {done}/{total}", phase.as_str()),
    }
}

fn summary(report: &StepReport) -> String {
    let (name, value) = report.score;
    let seconds = report.time.as_secs_f64();
    let rate = if seconds > 0.0 { report.tokens as f64 / seconds } else { 0.0 };
    format!("{name} {value:.4}  {} tok/s", count(rate))
}

/// Three significant digits: 871, 12.3k, 4.56M.
fn count(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 999_500.0 => (v / 1e6, "M"),
        v if v >= 999.5 => (v / 1e3, "k"),
        v => return format!("{v:.0}"),
    };
    match scaled {
        s if s >= 99.95 => format!("{s:.0}{unit}"),
        s if s >= 9.995 => format!("{s:.1}{unit}"),
        s => format!("{s:.2}{unit}"),
    }
}

/// The two largest units: 42s, 3m 05s, 2h 10m, 3d 04h.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn report(step: u64, seconds: f64) -> StepReport {
        StepReport { step, score: ("reward", 0.53125), tokens: 12_345, time: Duration::from_secs_f64(seconds) }
    }

    #[test]
    fn a_pipe_gets_one_line_a_step() {
        let written = Shared::default();
        let mut progress = Progress::to_writer(written.clone());
        progress.stage("rl", 120, 10);
        progress.phase(Phase::Rollout, 192);
        progress.advance(96);
        let at = progress.whereabouts();
        let found = || at.lock().map(|at| (at.step, at.phase)).unwrap();
        assert_eq!(found(), (11, Some(Phase::Rollout)));
        progress.step(report(11, 2.0));
        assert_eq!(found(), (12, None));
        progress.note("validation accuracy 0.540");
        progress.warn_once("a", "first");
        progress.warn_once("a", "again");
        progress.warn_once("b", "other");
        progress.step(report(12, 2.0));
        progress.finish();
        assert_eq!(
            String::from_utf8(written.0.lock().unwrap().clone()).unwrap(),
            "rl 11/120 reward 0.5312  6.17k tok/s  2.00 s  eta 3m 38s\n\
             validation accuracy 0.540\n\
             warning: first\n\
             warning: other\n\
             rl 12/120 reward 0.5312  6.17k tok/s  2.00 s  eta 3m 36s\n"
        );
    }

    #[test]
    fn the_last_step_has_no_eta() {
        let mut progress = Progress::to_writer(io::sink());
        progress.stage("sft", 2, 0);
        assert_eq!(progress.eta(), None);
        progress.step(report(1, 3.0));
        assert_eq!(progress.eta(), Some(Duration::from_secs(3)));
        progress.step(report(2, 3.0));
        assert_eq!(progress.eta(), None);
        // The next stage's steps take their own time.
        progress.stage("rl", 10, 0);
        assert_eq!(progress.eta(), None);
    }

    #[test]
    fn numbers_are_short() {
        let cases = [(0.0, "0"), (871.4, "871"), (999.6, "1.00k"), (12_345.0, "12.3k"), (4.56e6, "4.56M")];
        for (value, text) in cases {
            assert_eq!(count(value), text);
        }
        let cases = [(42, "42s"), (185, "3m 05s"), (7_800, "2h 10m"), (273_600, "3d 04h")];
        for (seconds, text) in cases {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
