//! What a check found.

use rl::TrainError;
use serde_json::{Value, json};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every value within its bound.
    Right,
    /// A value outside of its bound, or a device that failed.
    Wrong,
    /// The values are right; what took its time is far from what such a device does.
    Slow,
    /// The check means nothing on this backend.
    NotHere,
    /// Something around the device that a run may miss.
    Warning,
    /// Something around the device without which a run cannot go on.
    Error,
}

impl Verdict {
    /// Whether a run should not begin.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Wrong | Self::Error)
    }

    /// The word of the line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Right => "ok",
            Self::Wrong => "WRONG",
            Self::Slow => "slow",
            Self::NotHere => "-",
            Self::Warning => "warn",
            Self::Error => "ERROR",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Name of the check.
    pub name: &'static str,
    /// What was compared with what.
    pub compared: String,
    /// The largest difference and the bound that it has to keep; none where nothing is compared.
    pub largest: Option<(f64, f64)>,
    /// Seconds that it took.
    pub seconds: f64,
    /// How it ended.
    pub verdict: Verdict,
    /// Where it went wrong and what to do, or what was measured; empty where there is nothing to say.
    pub remark: String,
}

/// What to do about a wrong value.
const WRONG_VALUE: &str = "do not train on this device: try another driver or --backend flex, and report the line";

impl Finding {
    /// Of what a check collected, or of the error that ended it.
    pub(crate) fn of(name: &'static str, tally: Result<Comparisons, TrainError>, seconds: f64) -> Self {
        match tally {
            Ok(tally) => tally.finish(name, seconds),
            Err(error) => Self {
                name,
                compared: "nothing: the device failed".into(),
                largest: None,
                seconds,
                verdict: Verdict::Wrong,
                remark: format!("{error}; {WRONG_VALUE}"),
            },
        }
    }

    /// A check that compares nothing on this backend.
    pub fn not_here(name: &'static str, why: &str) -> Self {
        Self {
            name,
            compared: why.into(),
            largest: None,
            seconds: 0.0,
            verdict: Verdict::NotHere,
            remark: String::new(),
        }
    }

    /// What was found around the device, and what to do about it.
    pub fn around(name: &'static str, verdict: Verdict, found: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { name, compared: found.into(), largest: None, seconds: 0.0, verdict, remark: to_do.into() }
    }

    /// One line: verdict, name, what was compared, the largest difference and its bound, seconds, and what to do; of
    /// what stands around the device, what to do is a line of its own.
    pub fn line(&self) -> String {
        let mut line = format!("{:5} {}: {}", self.verdict.word(), self.name, self.compared);
        if let Some((largest, bound)) = self.largest {
            line += &format!("; largest difference {largest:.1e}, bound {bound:.1e}");
        }
        if self.seconds > 0.0 {
            line += &format!("; {:.1} s", self.seconds);
        }
        let apart = matches!(self.verdict, Verdict::Warning | Verdict::Error);
        match (self.remark.is_empty(), apart) {
            (true, _) => line,
            (false, true) => line + &format!("\n      to do: {}", self.remark),
            (false, false) => line + &format!("; {}", self.remark),
        }
    }

    /// The same for programs. A difference that is no number is null.
    pub fn json(&self) -> Value {
        json!({
            "check": self.name,
            "compared": self.compared,
            "largest_difference": self.largest.map(|(largest, _)| largest),
            "bound": self.largest.map(|(_, bound)| bound),
            "seconds": self.seconds,
            "verdict": self.verdict.word(),
            "remark": self.remark,
        })
    }
}

/// What a check collects: how many comparisons, and the one that came nearest to its bound or went furthest beyond it.
#[derive(Debug)]
pub(crate) struct Comparisons {
    compared: String,
    count: usize,
    worst: Option<Worst>,
    wrong: Vec<String>,
    slow: bool,
    measured: String,
}

#[derive(Debug)]
struct Worst {
    difference: f64,
    bound: f64,
}

impl Comparisons {
    /// Nothing yet; `compared` says what is going to be.
    pub(crate) fn new(compared: impl Into<String>) -> Self {
        Self { compared: compared.into(), count: 0, worst: None, wrong: vec![], slow: false, measured: String::new() }
    }

    /// One comparison: `difference` has to be a number of at most `bound`.
    pub(crate) fn add(&mut self, difference: f64, bound: f64, what: impl FnOnce() -> String) {
        self.count += 1;
        // NaN compares with nothing: what is not below its bound is wrong.
        let right = difference <= bound;
        if !right {
            self.wrong.push(format!("{} is off by {difference:.1e}", what()));
        }
        // A bound may be 0: copies are equal.
        let share = |difference: f64, bound: f64| match difference {
            d if d.is_nan() => f64::INFINITY,
            0.0 => 0.0,
            d => d / bound,
        };
        let worst = self.worst.as_ref().map_or(-1.0, |w| share(w.difference, w.bound));
        if share(difference, bound) > worst {
            self.worst = Some(Worst { difference, bound });
        }
    }

    /// Two answers to the same question, which have to be equal bit for bit.
    pub(crate) fn equal(&mut self, first: &[u8], second: &[u8], what: impl FnOnce() -> String) {
        if first != second {
            self.wrong.push(format!("{} differs from one run to the next", what()));
        }
    }

    /// What was measured beside.
    pub(crate) fn measure(&mut self, measured: impl Into<String>, slow: bool) {
        self.measured = measured.into();
        self.slow = slow;
    }

    fn finish(self, name: &'static str, seconds: f64) -> Finding {
        let verdict = match () {
            () if !self.wrong.is_empty() => Verdict::Wrong,
            () if self.slow => Verdict::Slow,
            () => Verdict::Right,
        };
        let remark = match verdict {
            Verdict::Wrong => {
                let more = self.wrong.len().saturating_sub(3);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("{}{more}; {WRONG_VALUE}", self.wrong[..self.wrong.len().min(3)].join(", "))
            }
            _ => self.measured,
        };
        let compared = match self.count {
            0 | 1 => self.compared,
            count => format!("{}, {count} comparisons", self.compared),
        };
        let largest = self.worst.map(|worst| (worst.difference, worst.bound));
        Finding { name, compared, largest, seconds, verdict, remark }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comparison_decides() {
        let mut tally = Comparisons::new("two numbers");
        tally.add(1e-3, 1e-2, || unreachable!("it is right"));
        tally.add(1e-5, 1e-6, || "the second".into());
        let finding = tally.finish("numbers", 0.25);
        assert_eq!((finding.verdict, finding.largest), (Verdict::Wrong, Some((1e-5, 1e-6))));
        let line = finding.line();
        for part in
            ["WRONG numbers: two numbers, 2 comparisons", "1.0e-5, bound 1.0e-6; 0.2 s", "the second", "--backend flex"]
        {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
        assert_eq!(finding.json()["verdict"], "WRONG");
    }

    /// A device that answers NaN, or the same question in two ways, is never right.
    #[test]
    fn what_is_no_number_is_wrong() {
        let mut tally = Comparisons::new("x");
        tally.add(f64::NAN, 1.0, || "y".into());
        tally.add(0.5, 1.0, || unreachable!());
        let finding = tally.finish("x", 0.0);
        assert!(finding.verdict == Verdict::Wrong && finding.largest.is_some_and(|(d, _)| d.is_nan()));
        assert!(finding.json()["largest_difference"].is_null());
        let mut tally = Comparisons::new("x");
        tally.equal(&[1], &[2], || "z".into());
        assert_eq!(tally.finish("x", 0.0).verdict, Verdict::Wrong);
        let mut tally = Comparisons::new("x");
        tally.equal(&[1], &[1], || unreachable!());
        assert_eq!(tally.finish("x", 0.0).verdict, Verdict::Right);
    }
}
