//! Where the graders disagree, and about what: which one to train with, and which rows of a data set to look at.
//!
//! [`compare`] asks mathruler, `math` and, where the truth is a letter, the grader of choices. What kind a
//! disagreement is comes from what decided in each grader (a fraction that is not reduced, a unit, a text that is not
//! understood), not from the texts.
//!
//! ```
//! use answer::audit::{Audit, DisagreementKind, compare};
//!
//! let found = compare("2/4", "1/2").expect("the graders disagree");
//! assert_eq!((found.kind, found.mathruler, found.math), (DisagreementKind::UnreducedFraction, false, true));
//! let mut audit = Audit::default();
//! audit.add("2/4", "1/2");
//! audit.add("3", "3");
//! assert_eq!((audit.responses(), audit.disagreements()), (2, 1));
//! ```

mod kind;
mod log;

use std::collections::BTreeMap;
use std::fmt;

pub use kind::DisagreementKind;
pub use log::{AuditLog, Compared};
use serde::Serialize;

use crate::{math, mathruler, simple};

/// An answer on which the graders disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    /// About what.
    pub kind: DisagreementKind,
    /// Whether the grader `mathruler` calls it right.
    pub mathruler: bool,
    /// Whether the grader `math` does.
    pub math: bool,
    /// Whether `multiple_choice` does; `None` where the truth picks no letter, so that it has no say.
    pub choice: Option<bool>,
}

/// Where the graders disagree on an answer; `None` where they agree.
pub fn compare(given: &str, ground_truth: &str) -> Option<Disagreement> {
    let by_mathruler = mathruler::decide(given, ground_truth);
    let by_math = math::decide(given, ground_truth);
    let letters = simple::multiple_choice(ground_truth, ground_truth);
    let choice = letters.then(|| simple::multiple_choice(given, ground_truth));
    let (mathruler, math) = (by_mathruler.is_right(), by_math.is_right());
    if mathruler == math && choice.is_none_or(|choice| choice == math) {
        return None;
    }
    let kind = kind::of(given, ground_truth, by_mathruler, by_math, choice);
    Some(Disagreement { kind, mathruler, math, choice })
}

/// Counts of disagreements by kind, with an example of each.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    responses: u64,
    right: [u64; 2],
    groups: BTreeMap<DisagreementKind, DisagreementCount>,
}

/// The disagreements of one kind.
#[derive(Debug, Clone)]
struct DisagreementCount {
    count: u64,
    /// How many mathruler, math and choice call right.
    right: [u64; 3],
    example: (String, String),
}

/// Longest answer in the table, in characters.
const SHOWN: usize = 32;

impl Audit {
    /// Compares an answer and counts it; the disagreement, if there is one.
    pub fn add(&mut self, given: &str, ground_truth: &str) -> Option<Disagreement> {
        let found = compare(given, ground_truth);
        let agreed = found.is_none().then(|| math::equal(given, ground_truth));
        self.count(given, ground_truth, found, agreed.unwrap_or_default());
        found
    }

    /// Counts an answer that has been compared already. `agreed`: the verdict where there is no disagreement.
    pub fn count(&mut self, given: &str, ground_truth: &str, found: Option<Disagreement>, agreed: bool) {
        self.responses += 1;
        let (mathruler, math) = found.map_or((agreed, agreed), |found| (found.mathruler, found.math));
        for (sum, right) in self.right.iter_mut().zip([mathruler, math]) {
            *sum += u64::from(right);
        }
        let Some(found) = found else { return };
        let example = || (given.to_owned(), ground_truth.to_owned());
        let group = self.groups.entry(found.kind).or_insert_with(|| DisagreementCount {
            count: 0,
            right: [0; 3],
            example: example(),
        });
        group.count += 1;
        let verdicts = [found.mathruler, found.math, found.choice == Some(true)];
        for (sum, right) in group.right.iter_mut().zip(verdicts) {
            *sum += u64::from(right);
        }
    }

    /// How many answers were compared.
    pub fn responses(&self) -> u64 {
        self.responses
    }

    /// On how many the graders disagree.
    pub fn disagreements(&self) -> u64 {
        self.groups.values().map(|group| group.count).sum()
    }

    /// How many disagreements there are of a kind.
    pub fn of(&self, kind: DisagreementKind) -> u64 {
        self.groups.get(&kind).map_or(0, |group| group.count)
    }
}

/// A table in Markdown, the largest kind first.
impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |count: u64| 100.0 * count as f64 / self.responses.max(1) as f64;
        writeln!(
            f,
            "{} answers compared, {} disagreements ({:.1}%); right by mathruler {:.1}%, by math {:.1}%",
            self.responses,
            self.disagreements(),
            share(self.disagreements()),
            share(self.right[0]),
            share(self.right[1])
        )?;
        if self.groups.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n| kind | answers | right by mathruler | math | choice | example: answer, truth |\n|---|---|---|---|---|---|"
        )?;
        let mut groups: Vec<(&DisagreementKind, &DisagreementCount)> = self.groups.iter().collect();
        groups.sort_by_key(|(kind, group)| (std::cmp::Reverse(group.count), **kind));
        for (kind, group) in groups {
            let [mathruler, math, choice] = group.right;
            let (given, truth) = (shown(&group.example.0), shown(&group.example.1));
            writeln!(f, "| {kind} | {} | {mathruler} | {math} | {choice} | `{given}`, `{truth}` |", group.count)?;
        }
        Ok(())
    }
}

/// An answer on one line, without what would break the table or reach the terminal, its middle left out when it is
/// long.
fn shown(text: &str) -> String {
    let plain: Vec<char> =
        text.trim().chars().map(|c| if c.is_control() || matches!(c, '|' | '`') { ' ' } else { c }).collect();
    if plain.len() <= SHOWN {
        return plain.into_iter().collect();
    }
    let half = SHOWN / 2;
    let (start, end) = (&plain[..half], &plain[plain.len() - half..]);
    start.iter().chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_from_what_the_graders_did() {
        for (given, truth, kind, verdicts) in [
            ("2/4", "1/2", DisagreementKind::UnreducedFraction, (false, true, None)),
            (r"\sqrt{4}", "2", DisagreementKind::IntegerAgainstExpression, (false, true, None)),
            ("12 apples", "12", DisagreementKind::Unit, (false, true, None)),
            ("100 cm", "1 m", DisagreementKind::Unit, (false, true, None)),
            ("5 seconds", "5 cm", DisagreementKind::DifferentUnit, (true, false, None)),
            ("area = 5", "5", DisagreementKind::EquationForValue, (false, true, None)),
            ("3, 1", "1, 3", DisagreementKind::SetOrOrder, (false, true, None)),
            ("25%", "0.25", DisagreementKind::Percent, (false, true, None)),
            ("The answer is 7.", "7", DisagreementKind::WordsAroundTheAnswer, (false, true, None)),
            ("B. 35 cm", "B", DisagreementKind::ChoiceTextAgainstLetter, (false, true, Some(true))),
            ("xyz + abc", "abc + xyz", DisagreementKind::NotTriedByMathruler, (false, true, None)),
            ("2:30 pm", "14:30", DisagreementKind::Notation, (false, true, None)),
        ] {
            let found = compare(given, truth).unwrap_or_else(|| panic!("{given} and {truth} agree"));
            assert_eq!((found.mathruler, found.math, found.choice), verdicts, "{given} for {truth}");
            assert_eq!(found.kind, kind, "{given} for {truth}");
        }
        for (given, truth) in [("3", "3"), ("3", "4"), ("B", "B"), ("C", "B"), (r"\frac12", "1/2"), ("7 or more", "8")]
        {
            assert_eq!(compare(given, truth), None, "{given} for {truth}");
        }
    }

    #[test]
    fn the_table_counts_and_shows_no_control_characters() {
        let mut audit = Audit::default();
        for (given, truth) in [("2/4", "1/2"), ("3/9", "1/3"), ("area = 5", "5"), ("3", "3"), ("3", "4")] {
            audit.add(given, truth);
        }
        assert_eq!((audit.responses(), audit.disagreements()), (5, 3));
        assert_eq!(
            (
                audit.of(DisagreementKind::UnreducedFraction),
                audit.of(DisagreementKind::EquationForValue),
                audit.of(DisagreementKind::Other)
            ),
            (2, 1, 0)
        );
        let table = audit.to_string();
        assert!(
            table.starts_with("5 answers compared, 3 disagreements (60.0%); right by mathruler 20.0%, by math 80.0%\n"),
            "{table}"
        );
        let rows: Vec<&str> = table.lines().skip(4).collect();
        assert!(rows[0].contains("| 2 | 0 | 2 | 0 | `2/4`, `1/2` |"), "{table}");
        assert_eq!(shown("a\u{1b}[31m|b\n"), "a [31m b");
        assert_eq!(shown(&"x".repeat(100)).chars().count(), SHOWN + 1);
    }
}
