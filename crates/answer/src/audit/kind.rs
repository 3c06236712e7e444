//! The kinds of disagreement.

use std::fmt;

use serde::Serialize;

use crate::math::MathDecision as Math;
use crate::mathruler::MathrulerDecision as Mathruler;
use crate::simple;

/// Two numbers that are nearer than this, relatively, and not equal, are equal by rounding alone.
const ROUNDING: f64 = 5e-3;

/// What graders disagree about. Each says what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DisagreementKind {
    /// The truth is a letter, and the answer names it in words or with its text.
    ChoiceTextAgainstLetter,
    /// The truth is a letter for `multiple_choice` and a variable for another grader.
    LetterOrVariable,
    /// `math` finds no value in a hedge, a bound, a denial or words that it does not know; another grader takes it.
    NotUnderstoodByMath,
    /// `math` reads the answer out of a sentence, which mathruler does not.
    WordsAroundTheAnswer,
    /// A unit on one side, or two that convert.
    Unit,
    /// The same number with units of different things: mathruler deletes them.
    DifferentUnit,
    /// A percent sign on one side only.
    Percent,
    /// `x = 5` for 5.
    EquationForValue,
    /// Lists, sets, intervals or matrices in another order or other brackets.
    SetOrOrder,
    /// mathruler compares two fractions as texts.
    UnreducedFraction,
    /// mathruler calls an integer wrong against an expression of the same value.
    IntegerAgainstExpression,
    /// mathruler does not try more than two letters, nor long powers.
    NotTriedByMathruler,
    /// mathruler cannot read one of the two.
    NotReadByMathruler,
    /// Equal for one grader by rounding alone.
    Rounding,
    /// Times of day, circled numbers, chemical formulas.
    Notation,
    /// mathruler makes one text of two by what it deletes and rewrites.
    RewrittenByMathruler,
    /// The ground truth itself is not understood by `math`.
    TruthNotUnderstoodByMath,
    /// Anything else: worth a look.
    Other,
}

impl fmt::Display for DisagreementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChoiceTextAgainstLetter => "choice text against letter",
            Self::LetterOrVariable => "a letter as a choice or a variable",
            Self::NotUnderstoodByMath => "math refuses what it does not understand (hedge, bound, denial)",
            Self::WordsAroundTheAnswer => "words around the answer, which mathruler rejects",
            Self::Unit => "mathruler rejects a unit",
            Self::DifferentUnit => "units of different things, which mathruler deletes",
            Self::Percent => "a percent sign on one side",
            Self::EquationForValue => "an equation for its value",
            Self::SetOrOrder => "another order or bracket of several values",
            Self::UnreducedFraction => "mathruler rejects an unreduced fraction",
            Self::IntegerAgainstExpression => "mathruler rejects an expression for an integer",
            Self::NotTriedByMathruler => "mathruler does not try it (letters, long powers)",
            Self::NotReadByMathruler => "mathruler cannot read it",
            Self::Rounding => "equal only by rounding",
            Self::Notation => "times, circled numbers, formulas",
            Self::RewrittenByMathruler => "equal only as mathruler rewrites it",
            Self::TruthNotUnderstoodByMath => "math does not understand the truth",
            Self::Other => "other",
        })
    }
}

/// The kind of a disagreement, from what decided in each grader.
pub(super) fn of(given: &str, truth: &str, mathruler: Mathruler, math: Math, choice: Option<bool>) -> DisagreementKind {
    if mathruler.is_right() == math.is_right() {
        // Only the letters differ.
        return if choice == Some(true) {
            DisagreementKind::ChoiceTextAgainstLetter
        } else {
            DisagreementKind::LetterOrVariable
        };
    }
    match math {
        Math::SameLetter => DisagreementKind::ChoiceTextAgainstLetter,
        Math::SameSign | Math::OtherSign if choice.is_none() => DisagreementKind::Notation,
        Math::OtherSign => DisagreementKind::LetterOrVariable,
        Math::SameValue(how) if how.stated => DisagreementKind::WordsAroundTheAnswer,
        Math::SameValue(how) if how.percent => DisagreementKind::Percent,
        Math::SameValue(how) if how.equation => DisagreementKind::EquationForValue,
        Math::SameValue(how) if how.unit => DisagreementKind::Unit,
        Math::SameValue(how) if how.several => DisagreementKind::SetOrOrder,
        Math::Units => DisagreementKind::DifferentUnit,
        Math::NotUnderstood => DisagreementKind::NotUnderstoodByMath,
        Math::TruthNotUnderstood => DisagreementKind::TruthNotUnderstoodByMath,
        _ if mathruler.is_right() => {
            if rounds(given, truth) {
                DisagreementKind::Rounding
            } else if mathruler == Mathruler::SameText {
                DisagreementKind::RewrittenByMathruler
            } else {
                DisagreementKind::Other
            }
        }
        _ => match mathruler {
            Mathruler::Fractions => DisagreementKind::UnreducedFraction,
            Mathruler::Integer => DisagreementKind::IntegerAgainstExpression,
            Mathruler::NotTried => DisagreementKind::NotTriedByMathruler,
            Mathruler::Unreadable => DisagreementKind::NotReadByMathruler,
            Mathruler::Shape => DisagreementKind::SetOrOrder,
            _ => DisagreementKind::Other,
        },
    }
}

/// Whether both are numbers that differ a little.
fn rounds(given: &str, truth: &str) -> bool {
    match (simple::parse_number(given), simple::parse_number(truth)) {
        (Some(a), Some(b)) => a != b && (a - b).abs() <= ROUNDING * b.abs(),
        _ => false,
    }
}
