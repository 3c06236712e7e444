//! Problems of a configuration, collected so that all are told at once, and the ranges most keys have.

use ::data::DataSpec;

use super::section::join;

/// One value that cannot be used, or several that contradict one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The keys, most important first.
    pub keys: Vec<String>,
    /// Why, and what to do.
    pub reason: String,
}

impl Problem {
    pub(super) fn list(problems: &[Self]) -> String {
        problems.iter().map(|problem| format!("\n  {problem}")).collect()
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.keys.join(", "), self.reason)
    }
}

/// Collects problems so that all of them are told at once.
#[derive(Default)]
pub struct Checks {
    problems: Vec<Problem>,
    /// The section that keys are named in; empty where they are written whole.
    section: String,
}

impl Checks {
    /// What was found.
    pub fn problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Whether nothing was found so far.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Checks the keys of one section, which are named in it.
    pub(crate) fn in_section(&mut self, section: &str, check: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.section, section.to_string());
        check(self);
        self.section = outer;
    }

    /// A problem of `keys` unless `good`.
    pub fn need(&mut self, good: bool, keys: &[&str], reason: impl Into<String>) {
        if !good {
            let keys = keys.iter().map(|key| join(&self.section, key)).collect();
            self.problems.push(Problem { keys, reason: reason.into() });
        }
    }

    /// A number outside its declared range, unless something is said of that key already.
    pub fn out_of_range(&mut self, key: String, reason: String) {
        if !self.problems.iter().any(|problem| problem.keys == [key.as_str()]) {
            self.problems.push(Problem { keys: vec![key], reason });
        }
    }

    /// `0 < value`.
    pub fn positive(&mut self, value: f64, key: &str) {
        self.need(value > 0.0, &[key], format!("must be above 0, is {value}"));
    }

    /// `0 <= value`.
    pub fn not_negative(&mut self, value: f64, key: &str) {
        self.need(value >= 0.0, &[key], format!("must be 0 or more, is {value}"));
    }

    /// `0 <= value <= 1`.
    pub fn share(&mut self, value: f64, key: &str) {
        self.need((0.0..=1.0).contains(&value), &[key], format!("must lie in 0..=1, is {value}"));
    }

    /// `0 < value <= 1`.
    pub fn positive_share(&mut self, value: f64, key: &str) {
        self.need(value > 0.0 && value <= 1.0, &[key], format!("must be above 0 and at most 1, is {value}"));
    }

    /// `0 <= value < 1`.
    pub fn proper_share(&mut self, value: f64, key: &str) {
        self.need((0.0..1.0).contains(&value), &[key], format!("must be 0 or more and below 1, is {value}"));
    }

    pub(crate) fn files(&mut self, files: &[DataSpec], key: &str) {
        for (index, file) in files.iter().enumerate() {
            let key = format!("{key}.{index}");
            self.need(!file.path().trim().is_empty(), &[&key], "names no file; an empty path reads nothing");
            self.need(
                file.weight() > 0.0,
                &[&key],
                format!("has weight {}; a weight must be above 0, or leave the file out", file.weight()),
            );
            let most = ::data::dataset::LARGEST_WEIGHT;
            self.need(
                file.weight().is_nan() || file.weight() <= most,
                &[&key],
                format!("has weight {}; a weight must be at most {most}", file.weight()),
            );
        }
    }
}
