//! How far a program is, on standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A moving line on a terminal, and nothing without one; lines that come in between go through
/// [`ProgressBar::suspend`].
pub(crate) fn bar(rows: usize) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(rows as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{prefix}{bar:30} {pos}/{len} rows, {eta} left") {
        bar.set_style(style);
    }
    bar
}

/// Rows done: a moving line on a terminal, now and then a line otherwise.
pub(crate) struct RowProgress {
    bar: Option<ProgressBar>,
    name: String,
    rows: usize,
    said: Instant,
}

/// Without a terminal, this often.
const QUIET: Duration = Duration::from_secs(30);

impl RowProgress {
    /// Of `rows` rows of what is called `name`.
    pub(crate) fn new(name: &str, rows: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = bar(rows);
            bar.set_prefix(format!("{name} "));
            bar
        });
        Self { bar, name: name.to_owned(), rows, said: Instant::now() }
    }

    /// So many are done.
    pub(crate) fn at(&mut self, done: usize) {
        match &self.bar {
            Some(bar) => bar.set_position(done as u64),
            None if self.said.elapsed() >= QUIET => {
                self.said = Instant::now();
                eprintln!("{}: {done} of {} rows", self.name, self.rows);
            }
            None => {}
        }
    }
}

impl Drop for RowProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
