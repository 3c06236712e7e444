//! The stronger grader: are two answers the same mathematically?
//!
//! An answer, LaTeX or plain text, is read into a value: an expression, words, a point or interval, a set, a list, a
//! matrix, a relation or a ratio (`value`). Values are compared by their kind (`compare`), and expressions exactly,
//! by canonical form first and by interval-checked values at seeded points where that does not decide (`expr`).
//! Nothing is ever equal because it rounds to the same decimals: 0.333 is not 1/3, and 1/2004! is not 1/2006!.
//!
//! # What counts as the same
//!
//! - numbers however written: `1,234.5`, `1.234,5`, `14{,}916`, `3\frac{1}{2}`, `0.\overline{3}`, `6.02e23`; where a
//!   comma may be read in two ways, either reading may match;
//! - `28\%` is 0.28, and 28 where the other side has no percent sign;
//! - units are dropped where one side has none, but `1 m` is `100 cm` and `5 m` is neither `5 cm` nor `5 kg`; a
//!   letter is a unit (`5 N`) only where the other side has no such variable; `5 feet 6 inches` is their sum; degrees
//!   are dropped, except under a function;
//! - `x = 5` is 5 and the reverse; `x = 5` is not `y = 5`; in a chain of equations the last value counts;
//! - equations up to a factor, inequalities up to a positive one, chains in any order;
//! - lists and sets in any order, points and vectors in theirs; `a, b` without brackets is a point when the other
//!   side is one;
//! - an inequality as the truth is matched by the set that solves it; a set as the truth is matched by an inequality
//!   only when that is solved for its unknown, because otherwise repeating the question would be rewarded;
//! - solved inequalities joined by `and`, `or` or commas are the set that they describe (`alternatives`), and `x_1 =
//!   1, x_2 = 3` are values of x;
//! - `2:30 p.m.` is 14:30, and 2:30 where the other side says no half of the day;
//! - `±` stands for both values;
//! - words without regard to case; a single capital letter as a multiple choice;
//! - of a text the last box counts (several when joined by `and`, `or` or commas); without one, the statement that
//!   answers, and only when it is understood as a whole (`statement`): `7 or more` is not 7, and neither is `7 is
//!   wrong`.

mod alternatives;
mod arithmetic;
mod chemistry;
mod clock;
mod compare;
mod extract;
mod functions;
mod labels;
mod lexer;
mod names;
mod number;
mod numerals;
mod operations;
mod parser;
mod prepare;
mod quantity;
mod relations;
mod sets;
mod statement;
mod text;
mod token;
mod units;
mod value;
mod words;

use std::cell::Cell;

use clock::Clock;
use compare::Comparer;
use lexer::Commas;
pub(crate) use number::{close, number};
use prepare::{in_ascii, named_point, without_blanks};
use statement::Known;
use token::Kind;
use value::Value;

use crate::simple;

/// Longest answer, in bytes, that is read; a longer one is right only when it equals the truth as a string.
const MAX_BYTES: usize = 1 << 16;

/// Most bytes of parts of a statement that are read in search of its value.
const MAX_TRIED: usize = 1 << 14;

/// Whether `given` is the same answer as `truth`. Never fails, whatever the texts are; an empty answer is wrong.
///
/// ```
/// use answer::math::equal;
/// assert!(equal(r"x \in (-\infty, 2] \cup [3, \infty)", r"\mathbb{R} \setminus (2, 3)"));
/// assert!(equal(r"\frac{1}{\sqrt{2}+1}", r"\sqrt{2}-1"));
/// assert!(!equal("0.333333", "1/3"));
/// ```
pub fn equal(given: &str, truth: &str) -> bool {
    decide(given, truth).is_right()
}

/// What decided a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MathDecision {
    /// The same text, blanks and fonts left out.
    SameText,
    /// The same letter of a choice.
    SameLetter,
    /// The same time of day, statements by their numbers, or chemical formula.
    SameSign,
    /// The same value.
    SameValue(Matched),
    /// Wrong: the answer is not understood as one value, as a bound or a denial is not.
    NotUnderstood,
    /// Wrong: the ground truth is not understood, and the texts differ.
    TruthNotUnderstood,
    /// Wrong: the same number with another unit.
    Units,
    /// Wrong: another letter, time or formula.
    OtherSign,
    /// Wrong: another value.
    Different,
    /// Wrong: no answer, or one that is too long.
    Empty,
}

/// By what two values that are written differently are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Matched {
    /// The value was taken out of words.
    pub(crate) stated: bool,
    /// One side or both have a unit.
    pub(crate) unit: bool,
    /// One side has a percent sign.
    pub(crate) percent: bool,
    /// One side is an equation, the other its value.
    pub(crate) equation: bool,
    /// Several values, a set, an interval or a matrix.
    pub(crate) several: bool,
}

impl MathDecision {
    pub(crate) fn is_right(self) -> bool {
        matches!(self, Self::SameText | Self::SameLetter | Self::SameSign | Self::SameValue(_))
    }
}

/// The verdict of [`equal`] and why.
pub(crate) fn decide(given: &str, truth: &str) -> MathDecision {
    let (given, truth) = (given.trim(), truth.trim());
    if given.is_empty() || truth.is_empty() {
        return MathDecision::Empty;
    }
    if given == truth {
        return MathDecision::SameText;
    }
    if given.len() > MAX_BYTES || truth.len() > MAX_BYTES {
        return MathDecision::Empty;
    }
    let truth = Answer::new(truth);
    let given = Answer::new(given);
    if truth.plain == given.plain && !truth.plain.is_empty() {
        return MathDecision::SameText;
    }
    if let Some(decision) = by_signs(&truth, &given) {
        return decision;
    }
    let words = truth.body.to_lowercase();
    let rounded = is_decimal(&truth.plain);
    let truth = truth.readings(Known { trusted: true, truth: &words, rounded });
    let given = given.readings(Known { trusted: false, truth: &words, rounded });
    by_values(&truth, &given)
}

/// What is decided by letters, times, numbers in circles or formulas, if anything is.
fn by_signs(truth: &Answer, given: &Answer) -> Option<MathDecision> {
    let sign = |same: bool| if same { MathDecision::SameSign } else { MathDecision::OtherSign };
    let same = labels::same(&truth.body, &given.body).or_else(|| chemistry::same(&truth.spelled, &given.spelled));
    if let Some(same) = same {
        return Some(sign(same));
    }
    // A capital letter is a choice; anything else that is one letter is a variable.
    if (truth.plain.len() == 1 && truth.plain.starts_with(|c: char| c.is_ascii_uppercase() && c <= 'J')
        || matches!(truth.plain.as_bytes(), [b'(', b'A'..=b'J', b')']))
        && let Some(letter) = simple::choice_letter(&given.body)
    {
        return Some(if truth.plain.contains(letter) { MathDecision::SameLetter } else { MathDecision::OtherSign });
    }
    if let (Some(truth), Some(given)) = (Clock::read(&truth.body), Clock::read(&given.body))
        && (truth.is_marked() || given.is_marked())
    {
        return Some(sign(truth.same(given)));
    }
    // The truth `A. 35 cm` is the choice A.
    if let [letter @ b'A'..=b'J', b'.' | b')' | b':', _, ..] = truth.plain.as_bytes()
        && truth.body.trim_start().as_bytes().get(2).is_some_and(u8::is_ascii_whitespace)
        && simple::choice_letter(&given.body) == Some(char::from(*letter))
    {
        return Some(MathDecision::SameLetter);
    }
    None
}

/// Compares every reading of one side with every reading of the other.
fn by_values(truth: &[Reading], given: &[Reading]) -> MathDecision {
    let mut comparer = Comparer::new();
    for truth in truth {
        let same =
            |given: &&Reading| truth.fits(given) && given.fits(truth) && comparer.same(&truth.value, &given.value);
        if let Some(given) = given.iter().find(same) {
            return MathDecision::SameValue(matched(truth, given));
        }
    }
    match (truth, given) {
        ([], _) => MathDecision::TruthNotUnderstood,
        (_, []) => MathDecision::NotUnderstood,
        _ if given.iter().all(|reading| is_garbled(&reading.value)) => MathDecision::NotUnderstood,
        _ => {
            let units =
                truth.iter().any(|truth| given.iter().any(|given| comparer.same_but_unit(&truth.value, &given.value)));
            if units { MathDecision::Units } else { MathDecision::Different }
        }
    }
}

fn matched(truth: &Reading, given: &Reading) -> Matched {
    let quantity = |reading: &Reading, what: fn(&value::Quantity) -> bool| match &reading.value {
        Value::Quantity(quantity) => what(quantity),
        _ => false,
    };
    let equation = |reading: &Reading| matches!(reading.value, Value::Relation(..));
    let several =
        |reading: &Reading| !matches!(reading.value, Value::Quantity(_) | Value::Relation(..) | Value::Text(_));
    Matched {
        stated: given.stated,
        unit: [truth, given].iter().any(|side| {
            quantity(side, |quantity| quantity.unit.is_some())
                || side.measured && quantity(side, |quantity| relations::is_constant(&quantity.expr))
        }),
        percent: quantity(truth, |quantity| quantity.percent) != quantity(given, |quantity| quantity.percent),
        equation: equation(truth) != equation(given),
        several: several(truth) || several(given),
    }
}

/// One way to read an answer.
#[derive(PartialEq)]
struct Reading {
    value: Value,
    /// Letters that were taken for units.
    letters: Vec<char>,
    /// Whether it was taken out of words.
    stated: bool,
    /// Whether something that is counted, or a unit, stands behind a number.
    measured: bool,
    /// Whether subscripts were dropped: x_1 = 1, x_2 = 3 are the values of x, but x_1 = 3, x_2 = 1 are not the same.
    renamed: bool,
}

impl Reading {
    /// Whether this reading may stand against that one: the letters that are units here are no variables there.
    fn fits(&self, other: &Self) -> bool {
        !(self.renamed && other.renamed)
            && self.letters.iter().all(|letter| !other.value.has_variable(letter.encode_utf8(&mut [0; 4])))
    }
}

/// An answer with its box taken off.
struct Answer {
    /// What was in the box, or the whole text.
    body: String,
    /// The same as it was written, without the spelling of [`in_ascii`].
    spelled: String,
    /// The body without blanks, dollars, `\text` and a final stop.
    plain: String,
}

impl Answer {
    fn new(text: &str) -> Self {
        let spelled = match extract::boxed(text) {
            // A final answer that is announced after the box replaces it.
            Some((content, after)) => extract::announced(after).map_or(content, str::to_owned),
            None => text.to_owned(),
        };
        let body = in_ascii(&spelled);
        let mut plain = body.replace(r"\left", "").replace(r"\right", "").replace(r"\!", "");
        for font in [r"\text{", r"\mathrm{", r"\textbf{", r"\mathbf{"] {
            if let Some(inner) =
                plain.trim_matches(['$', ' ', '.']).strip_prefix(font).and_then(|rest| rest.strip_suffix('}'))
                && !inner.contains(['{', '}'])
            {
                plain = inner.to_owned();
            }
        }
        plain.retain(|c| c != '$');
        let plain = without_blanks(plain.trim_end_matches(['.', ' ']));
        Self { body, spelled, plain }
    }

    /// All values that the answer may be read as, the most natural first.
    fn readings(&self, known: Known) -> Vec<Reading> {
        // A question is no answer.
        if !known.trusted && self.body.trim_end_matches(['$', ' ', '}']).ends_with(['?', '？']) {
            return Vec::new();
        }
        if !known.trusted && (is_left_open(&self.body) || goes_on(&self.body) && !goes_on(known.truth)) {
            return Vec::new();
        }
        let mut found = readings(&self.body, known, 0);
        // `5 days` is more than its number.
        let measured = found.iter().any(|reading| match &reading.value {
            Value::Quantity(quantity) => quantity.unit.is_some() && relations::is_constant(&quantity.expr),
            _ => false,
        });
        if found.is_empty()
            && let Some(point) = named_point(&self.body)
        {
            return readings(point, known, 0);
        }
        // `+-` is a sum of a negative number, and how `±` is typed.
        if self.body.contains("+-") {
            found.extend(readings(&self.body.replace("+-", "±"), known, 0));
        }
        if let Some(plain) = prepare::without_unit_brackets(&self.body, |phrase| known.phrase(phrase)) {
            found.extend(readings(&plain, known, 0));
        }
        // Words around the answer: the whole must be understood.
        if found.is_empty() || is_sentence(&self.body) && !measured {
            // Each part that is tried costs its length.
            let budget = Cell::new(MAX_TRIED);
            let readable = |text: &str| {
                let left = budget.get().checked_sub(text.len() + 32);
                budget.set(left.unwrap_or(0));
                let prose = text.contains(|c: char| c.is_ascii_digit()) && statement::has_prose(text);
                left.is_some() && !prose && readings(text, known, 0).iter().any(|reading| !is_garbled(&reading.value))
            };
            if let Some(part) = statement::stated(&self.body, &known, &readable) {
                let inner = readings(&part, known, 0).into_iter();
                found.extend(inner.map(|reading| Reading { stated: true, ..reading }));
            }
        }
        found
    }
}

/// Whether a text begins with a word that asks, denies, supposes or bounds: `if x = 7`, `Is the answer 7`, `max 7`.
fn is_left_open(text: &str) -> bool {
    const OPEN: &[&str] = &["if", "is", "are", "was", "were", "reject", "discard", "unless"];
    let lower = text.get(..text.len().min(8)).unwrap_or("").to_ascii_lowercase();
    let Some((first, rest)) = lower.split_once(' ') else { return false };
    OPEN.contains(&first)
        || matches!(first, "min" | "max") && rest.starts_with(|c: char| c.is_ascii_digit())
        || lower.starts_with("give or")
}

/// Whether a list is not ended: `2, 3, 5, ...`.
fn goes_on(text: &str) -> bool {
    let text = text.trim_end_matches(['$', ' ']);
    let listed = ["...", "…", r"\ldots", r"\dots", r"\cdots"].iter().find_map(|dots| text.strip_suffix(dots));
    listed.is_some_and(|list| list.trim_end().ends_with(','))
}

/// Whether words were taken for factors, which they are not.
fn is_garbled(value: &Value) -> bool {
    match value {
        Value::Quantity(quantity) => quantity.expr.has_long_name(),
        Value::List(items) | Value::Set(items) | Value::Relation(items, _) | Value::Sequence { items, .. } => {
            items.iter().any(is_garbled)
        }
        _ => false,
    }
}

/// Whether an answer is a decimal fraction, as a rounded number is.
fn is_decimal(text: &str) -> bool {
    text.as_bytes().windows(2).any(|pair| pair[0] == b'.' && pair[1].is_ascii_digit())
}

/// Whether plain words stand in the text, outside of commands.
fn is_sentence(text: &str) -> bool {
    let words = text.split_whitespace().count();
    let short =
        |word: &str| ["it", "is", "so", "we", "no", "of", "to", "he"].iter().any(|own| word.eq_ignore_ascii_case(own));
    words > 1
        && text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_ascii_alphabetic())).any(|word| {
            word.contains('\'') && word.len() > 2
                || (word.len() > 2 || short(word))
                    && word.bytes().all(|b| b.is_ascii_alphabetic())
                    && !matches!(word, "and" | "or")
        })
}

fn readings(text: &str, known: Known, depth: usize) -> Vec<Reading> {
    let mut found: Vec<Reading> = Vec::new();
    for commas in comma_readings(text) {
        let Some(tokens) = lexer::tokens(text, commas) else { continue };
        let words = |kind: &Kind| matches!(kind, Kind::Text(_) | Kind::Word(_));
        let measured = tokens.len() > 1 && tokens.last().is_some_and(|token| words(&token.kind));
        let plain = parser::parse(&tokens, known).map(|value| (value, Vec::new()));
        let with_units = quantity::has_unit_letter(&tokens).then(|| parser::parse_with_units(&tokens, known)).flatten();
        for (value, letters) in plain.into_iter().chain(with_units) {
            // \text{5 cm}: a value in the font of words.
            if let Value::Text(words) = &value
                && depth < 2
                && words.contains(|c: char| c.is_ascii_digit())
            {
                found.extend(readings(words, known, depth + 1));
            }
            let set = alternatives::as_set(&value, &tokens).map(|set| (set, false));
            let values = alternatives::as_values(&value);
            for (value, renamed) in [Some((value, false)), set, values].into_iter().flatten() {
                let reading = Reading { value, letters: letters.clone(), stated: false, measured, renamed };
                if !found.contains(&reading) {
                    found.push(reading);
                }
            }
        }
    }
    found
}

/// How the commas between digits may be meant.
fn comma_readings(text: &str) -> Vec<Commas> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let (mut thousands, mut others, mut short_decimal) = (0, 0, false);
    for (at, _) in text.match_indices(',') {
        if at == 0 || !digit(at - 1) || !digit(at + 1) {
            continue;
        }
        let after = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        let before = bytes[..at].iter().rev().take_while(|b| b.is_ascii_digit()).count();
        if after == 3 && before <= 3 && bytes[at - before] != b'0' {
            thousands += 1;
        } else {
            others += 1;
            // `1,2` is a list of two more often than a decimal.
            short_decimal = after == 1 && !(before == 1 && bytes[at - 1] == b'0');
        }
    }
    match (thousands, others) {
        (0, 0) => vec![Commas::Thousands],
        (_, 0) => vec![Commas::Thousands, Commas::List],
        (0, 1) if !short_decimal && !text.contains(['(', '[', '{']) => vec![Commas::List, Commas::Decimal],
        (0, _) => vec![Commas::List],
        _ => vec![Commas::List, Commas::Thousands],
    }
}
