//! The grader of the Python package mathruler 0.1.0, verdict for verdict.
//!
//! EasyR1, and with it the published figures of DAPO, VPPO and VGPO, grade with mathruler, so a training run that is
//! to be compared with them has to share its verdicts, the odd ones included. It decides in three steps:
//!
//! 1. both answers normalised as the MATH data set's checker does it (`math_style`); equal strings are right;
//! 2. both normalised as PRM800K's checker does it (`prm_style`, which turns LaTeX into plain text); equal strings
//!    are right;
//! 3. tuples and intervals element by element, with equal brackets when the truth has several elements; two fractions
//!    only as strings; an integer against something else is wrong; otherwise both are read as sympy reads them, and are
//!    the same when their difference simplifies to zero. More than two different letters, `^(` and long exponents are
//!    not even tried.
//!
//! Some of the oddities that are kept: units are deleted inside words; `\frac{a+b}{c}` reads `a+b/c`; `\sqrt[3]{8}`
//! is the square root of 8; `2.0` against `2` is right but `2.0/1` against `2` is wrong; an empty
//! answer is right when the truth is empty too.
//!
//! # Where the two may differ
//!
//! The comparison in step 3 is an exact one of our own, so it differs from sympy 1.14 where sympy's simplification is
//! either weaker than exact algebra or drops into floating point:
//!
//! - sums and products of several decimals with symbols in between are exact here; sympy may round them (`1.1x+2.2x`
//!   against `3.3x`); sums and products of decimals alone are rounded as sympy rounds them;
//! - accented characters are not composed (`\hat{a}` against a typed `â`);
//! - document macros (`\cite`, `\chapter`) and digits outside ASCII are not followed;
//! - Python operators that no answer has (`//`, `==`, `|`, list indexing) are wrong here, whatever Python makes of
//!   them;
//! - what makes sympy hang (`10**10**10`) is wrong here, at once.

mod float;
mod latex_text;
mod normalize;
mod symbols;
mod sympy;

use normalize::{is_integer, math_style, prm_style, strip_thousands_commas};
use sympy::SympyNode;

use crate::expr::{Domain, Zero, same_as_zero};

/// Longest answer, in bytes, that is graded; a longer one is wrong unless it equals the truth as a string.
const MAX_BYTES: usize = 1 << 16;

/// Whether mathruler 0.1.0 calls `given` right when `ground_truth` is the answer. Never fails, whatever the texts are.
///
/// ```
/// use answer::mathruler::grade_answer;
/// assert!(grade_answer(r"\frac{\sqrt8}{2}", r"\sqrt{2}"));
/// assert!(!grade_answer("2/4", "1/2")); // unreduced
/// ```
pub fn grade_answer(given: &str, ground_truth: &str) -> bool {
    decide(given, ground_truth).is_right()
}

/// What decided a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MathrulerDecision {
    /// Equal strings after the first or the second normalisation.
    SameText,
    /// The differences of all elements simplify to zero.
    SameValue,
    /// Wrong: there is nothing left of the answer, or the text is too long.
    Empty,
    /// Wrong: a different number of elements, or other brackets around them.
    Shape,
    /// Wrong: two fractions that are not written alike.
    Fractions,
    /// Wrong: an integer against something else.
    Integer,
    /// Wrong without an attempt: more than two letters, or a long power.
    NotTried,
    /// Wrong: sympy cannot read it.
    Unreadable,
    /// Wrong: the difference is not zero.
    Different,
}

impl MathrulerDecision {
    pub(crate) fn is_right(self) -> bool {
        matches!(self, Self::SameText | Self::SameValue)
    }
}

/// The verdict of [`grade_answer`] and why.
pub(crate) fn decide(given: &str, ground_truth: &str) -> MathrulerDecision {
    if given.len() > MAX_BYTES || ground_truth.len() > MAX_BYTES {
        return if given == ground_truth { MathrulerDecision::SameText } else { MathrulerDecision::Empty };
    }
    if math_style(ground_truth) == math_style(given) {
        return MathrulerDecision::SameText;
    }
    let truth = prm_style(ground_truth);
    let given = prm_style(given);
    if truth == given {
        return MathrulerDecision::SameText;
    }
    if given.is_empty() {
        return MathrulerDecision::Empty;
    }
    let (truth_elements, given_elements) = (split_tuple(&truth), split_tuple(&given));
    if truth_elements.len() != given_elements.len() {
        return MathrulerDecision::Shape;
    }
    let ends = |text: &str| (text.chars().next(), text.chars().next_back());
    if truth_elements.len() > 1 && ends(&truth) != ends(&given) {
        return MathrulerDecision::Shape;
    }
    let pairs = truth_elements.iter().zip(&given_elements);
    pairs
        .map(|(truth, given)| same_element(truth, given))
        .find(|decision| !decision.is_right())
        .unwrap_or(MathrulerDecision::SameValue)
}

fn same_element(truth: &str, given: &str) -> MathrulerDecision {
    if is_fraction(truth) && is_fraction(given) {
        if truth == given { MathrulerDecision::SameText } else { MathrulerDecision::Fractions }
    } else if is_integer(truth) != is_integer(given) {
        MathrulerDecision::Integer
    } else {
        same_value(truth, given)
    }
}

/// The elements of `(a,b)`, `[a,b)` and so on; the whole text when it is no such thing, nothing when it is empty.
fn split_tuple(text: &str) -> Vec<String> {
    const BRACKETS: [char; 4] = ['(', ')', '[', ']'];
    let text = strip_thousands_commas(text);
    if text.is_empty() {
        return Vec::new();
    }
    if text.len() > 2
        && let Some(inner) = text.strip_prefix(BRACKETS).and_then(|rest| rest.strip_suffix(BRACKETS))
        && !inner.contains(BRACKETS)
    {
        return inner.split(',').map(|element| element.trim().to_owned()).collect();
    }
    vec![text]
}

/// `-12/5`, with at most one other sign after the numerator and after the denominator, which is not zero.
fn is_fraction(text: &str) -> bool {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    // Several slashes are possible (`1//2`): the sign after the numerator may be one.
    unsigned.match_indices('/').any(|(slash, _)| {
        let (above, below) = (&unsigned[..slash], &unsigned[slash + 1..]);
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let without_last = |text: &str| {
            let mut chars = text.chars();
            let last = chars.next_back();
            (chars.as_str().len(), last.is_some_and(|c| c != '\n'))
        };
        let one_more = |text: &str, good: &dyn Fn(&str) -> bool| {
            let (cut, free) = without_last(text);
            good(text) || (free && good(&text[..cut]))
        };
        one_more(above, &digits) && one_more(below, &|text| digits(text) && text.bytes().any(|b| b != b'0'))
    })
}

/// Whether the difference of the two, read by sympy, simplifies to zero.
fn same_value(truth: &str, given: &str) -> MathrulerDecision {
    // The brackets are plain text for mathruler: an unbalanced one in the truth may close in the answer.
    let difference = format!("({truth})-({given})");
    if !may_be_evaluated(&difference) {
        return MathrulerDecision::NotTried;
    }
    let zero = match sympy::parse(&difference.replace('^', "**")) {
        None => return MathrulerDecision::Unreadable,
        Some(SympyNode::FloatNumber(number)) => number.is_zero(),
        Some(SympyNode::Symbol(expr)) => same_as_zero(&expr, Domain::Complex) == Zero::Yes,
    };
    if zero { MathrulerDecision::SameValue } else { MathrulerDecision::Different }
}

/// mathruler's guard against expressions that sympy may hang on or take for words.
fn may_be_evaluated(text: &str) -> bool {
    let letters = text.replace("sqrt", "").replace("frac", "");
    let mut seen: Vec<char> = Vec::new();
    for c in letters.chars().filter(|c| c.is_alphabetic()) {
        if !seen.contains(&c) {
            if seen.len() == 2 {
                return false;
            }
            seen.push(c);
        }
    }
    // No `^{`, `^(`, `^12` or `^1^`.
    let mut powers = text.split('^').skip(1).peekable();
    while let Some(power) = powers.next() {
        let digits = power.bytes().take_while(u8::is_ascii_digit).count();
        let between = powers.peek().is_some() && digits == power.len() && digits > 0;
        if power.starts_with(['{', '(']) || digits > 1 || between {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests;
