//! Where the answer of a response is, and whether it is right.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use answer::{extract, math, mathruler, simple};
use serde::{Deserialize, Serialize};

use crate::benchmark::{CHOICE_COLUMNS, normal};

/// When an answer is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// mathruler says so, or mathematics does ([`Rule::Math`]), or both name the same choice ([`Rule::Choice`]). The
    /// rule of published evaluations, but a letter must be named as an answer: that `None` contains an N makes it right
    /// nowhere.
    #[default]
    Either,
    /// As [`Rule::Either`], and as MathVista's official code compares integers: the answer is cut to an integer first,
    /// so that 12.7 answers 12 where the row's `answer_type` is `integer`.
    Mathvista,
    /// mathruler alone, as in training with EasyR1's reward.
    Mathruler,
    /// Mathematical equality alone.
    Math,
    /// The same choice: by its letter, or by its text where the row has its choices.
    Choice,
    /// The same words.
    Exact,
    /// The same number within 1e-4, relative.
    Numeric,
}

/// Where in a response the answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extract {
    /// The last `\boxed{...}`; no box, no answer.
    Boxed,
    /// `<answer>...</answer>`.
    Tag,
    /// The last line `Answer: ...`.
    Line,
    /// The first of these three that is there, else the whole response.
    #[default]
    Any,
}

macro_rules! named {
    ($type:ty, $what:literal, $($name:literal => $value:path),+ $(,)?) => {
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok($value),)+
                    other => Err(format!(
                        concat!("there is no ", $what, " {:?}; there are {}"), other, [$($name),+].join(", ")
                    )),
                }
            }
        }
        impl $type {
            /// The name of each.
            pub const NAMES: &'static [&'static str] = &[$($name),+];
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($value => $name,)+ })
            }
        }
    };
}
named!(Rule, "grader",
    "either" => Rule::Either,
    "mathvista" => Rule::Mathvista,
    "mathruler" => Rule::Mathruler,
    "math" => Rule::Math,
    "choice" => Rule::Choice,
    "exact" => Rule::Exact,
    "numeric" => Rule::Numeric,
);
named!(Extract, "place of the answer",
    "boxed" => Extract::Boxed,
    "tag" => Extract::Tag,
    "line" => Extract::Line,
    "any" => Extract::Any,
);

impl Extract {
    /// Where a built-in format prompt asks for the answer; anywhere for other prompts.
    pub(crate) fn of_prompt(format_prompt: &str) -> Self {
        match format_prompt {
            "math" | "math_perception" => Self::Boxed,
            "r1v" => Self::Tag,
            "dapo" => Self::Line,
            _ => Self::Any,
        }
    }

    /// The answer in a response, or nothing.
    pub fn answer(self, response: &str) -> Option<String> {
        let response = extract::tighten_tags(response);
        let boxed = || extract::extract_boxed(&response);
        let tag = || extract::extract_answer_tag(&response);
        let line = || extract::extract_answer_line(&response);
        let found = match self {
            Self::Boxed => boxed(),
            Self::Tag => tag(),
            Self::Line => line(),
            Self::Any => boxed().or_else(tag).or_else(line).or_else(|| Some(response.trim())),
        };
        found.filter(|answer| !answer.is_empty()).map(str::to_owned)
    }
}

/// Largest relative error of [`Rule::Numeric`].
const TOLERANCE: f64 = 1e-4;

impl Rule {
    /// Whether `given` answers a row whose truth is `truth`; `columns` are the row's other columns.
    pub fn is_right(self, given: &str, truth: &str, columns: &BTreeMap<String, String>) -> bool {
        let truth = extract::extract_boxed(truth).unwrap_or(truth).trim();
        match self {
            Self::Either => {
                mathruler::grade_answer(given, truth)
                    || math::equal(given, truth)
                    || same_choice(given, truth, columns)
                    || rounds_to(given, truth, columns)
            }
            Self::Mathvista => Self::Either.is_right(given, truth, columns) || cut_to_integer(given, truth, columns),
            Self::Mathruler => mathruler::grade_answer(given, truth),
            Self::Math => math::equal(given, truth),
            Self::Choice => same_choice(given, truth, columns),
            Self::Exact => simple::exact(given, truth),
            Self::Numeric => simple::numeric(given, truth, TOLERANCE),
        }
    }
}

/// Whether both name the same choice. The truth may be a letter or the text of a choice, and so may the answer.
fn same_choice(given: &str, truth: &str, columns: &BTreeMap<String, String>) -> bool {
    // A truth is a letter only when it is nothing else: `A cube` is no choice A.
    let bare = truth.trim_matches(|c: char| matches!(c, '(' | ')' | '.' | '$' | ' '));
    let truth_letter = (bare.len() == 1).then(|| simple::choice_letter(bare)).flatten();
    let given_letter = simple::choice_letter(given);
    if truth_letter.is_some() && truth_letter == given_letter {
        return true;
    }
    // Several letters, in any order.
    if bare.len() > 1
        && bare.chars().all(|c| c.is_ascii_uppercase() || matches!(c, ',' | ' ' | ';' | '、'))
        && (bare.contains([',', ';', '、']) || choices(columns).is_some())
        && simple::multiple_choice(given, bare)
    {
        return true;
    }
    let Some(choices) = choices(columns) else { return false };
    // Choices that are letters themselves (names of points) leave open which letter is meant.
    if choices.iter().any(|c| c.trim().chars().count() == 1 && simple::choice_letter(c).is_some()) {
        return false;
    }
    let index = |letter: Option<char>| letter.map(|l| (l as u8 - b'A') as usize).filter(|&k| k < choices.len());
    // mathruler deletes units and multiplies letters: it decides only where no choice is written the same and one alone
    // is equal.
    let text = |text: &str| {
        let place = |same: &dyn Fn(&str) -> bool| -> Option<usize> {
            let mut places = (0..choices.len()).filter(|&k| same(&choices[k]));
            places.next().filter(|_| places.next().is_none())
        };
        place(&|c| simple::exact(text, c))
            .or_else(|| place(&|c| math::equal(text, c)))
            .or_else(|| place(&|c| mathruler::grade_answer(text, c)))
    };
    match (index(truth_letter).or_else(|| text(truth)), text(given).or_else(|| index(given_letter))) {
        (Some(truth), Some(given)) => truth == given,
        _ => false,
    }
}

/// The choices of a row: a JSON list, a list as Python prints it, or `A. 3; B. 5`.
pub(crate) fn choices(columns: &BTreeMap<String, String>) -> Option<Vec<String>> {
    let text = CHOICE_COLUMNS.iter().find_map(|column| columns.get(*column))?.trim();
    let list = match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(inner) => match serde_json::from_str::<Vec<serde_json::Value>>(text) {
            Ok(items) => items
                .into_iter()
                .map(|item| match item {
                    serde_json::Value::String(s) => s,
                    other => other.to_string(),
                })
                .collect(),
            Err(_) => python_strings(inner)?,
        },
        None => lettered(text)?,
    };
    (list.len() > 1).then_some(list)
}

/// `'a', "b's", 'c'`: the inside of a Python list of strings.
fn python_strings(text: &str) -> Option<Vec<String>> {
    let mut items = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut item = String::new();
        let mut chars = rest[1..].char_indices();
        let end = loop {
            match chars.next()? {
                (at, c) if c == quote => break at + 2,
                (_, '\\') => match chars.next()?.1 {
                    // A LaTeX command keeps its backslash.
                    c @ ('\'' | '"' | '\\') => item.push(c),
                    c => item.extend(['\\', c]),
                },
                (_, c) => item.push(c),
            }
        };
        items.push(item);
        rest = rest[end..].trim_start();
        rest = match rest.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(items)
}

/// `A. 3; B. 5; C. no answer`, We-Math's form: letters in order.
fn lettered(text: &str) -> Option<Vec<String>> {
    let mut items: Vec<String> = Vec::new();
    for piece in text.split([';', '\n']) {
        let piece = piece.trim();
        let letter = (b'A' + u8::try_from(items.len()).ok().filter(|n| *n < 26)?) as char;
        let rest = piece.strip_prefix(letter).and_then(|r| r.trim_start().strip_prefix(['.', ')', ':']));
        match (rest, items.last_mut()) {
            (Some(rest), _) => items.push(rest.trim().to_owned()),
            // A semicolon inside a choice.
            (None, Some(last)) if !piece.is_empty() => *last += &format!("; {piece}"),
            (None, Some(_)) => {}
            (None, None) => return None,
        }
    }
    Some(items)
}

/// MathVista's integers, as `normalize_extracted_answer` of its `calculate_score.py` casts them: `int(float(answer))`,
/// which cuts towards zero. What is no plain number for `float` has no cast.
fn cut_to_integer(given: &str, truth: &str, columns: &BTreeMap<String, String>) -> bool {
    let is = |column: &str, value: &str| columns.get(column).is_some_and(|found| normal(found) == normal(value));
    if !is("answer_type", "integer") || is("question_type", "multi_choice") {
        return false;
    }
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|x| x.is_finite());
    let (Some(given), Ok(truth)) = (number(given), truth.trim().parse::<i64>()) else { return false };
    given.trunc() == truth as f64
}

/// MathVista's floats: the answer, rounded to the row's `precision`, is the truth.
fn rounds_to(given: &str, truth: &str, columns: &BTreeMap<String, String>) -> bool {
    if columns.get("answer_type").is_none_or(|t| t != "float") {
        return false;
    }
    let Some(precision) = columns.get("precision").and_then(|p| p.parse::<f64>().ok()) else { return false };
    let (Some(given), Some(truth)) = (simple::parse_number(given), simple::parse_number(truth)) else { return false };
    let digits = precision.clamp(0.0, 12.0) as usize;
    format!("{given:.digits$}") == format!("{truth:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn either_takes_what_any_of_its_parts_takes() {
        let none = columns(&[]);
        for (given, truth) in [
            ("1/2", "\\frac{1}{2}"),
            ("B", "(B)"),
            ("(b) west", "B"),
            ("x=3", "3"),
            ("3", "\\boxed{3}"),
            ("12 cm", "12"),
        ] {
            assert!(Rule::Either.is_right(given, truth, &none), "{given} {truth}");
        }
        for (given, truth) in
            [("None", "N"), ("None", "O"), ("None", "E"), ("no answer", "A"), ("A cat", "A"), ("3", "4")]
        {
            assert!(!Rule::Either.is_right(given, truth, &none), "{given} {truth}");
        }
        assert!(!Rule::Mathruler.is_right("(b) west", "B", &none));
    }

    #[test]
    fn choices_may_be_named_by_letter_or_by_text() {
        for list in [r#"["7 cm","west","9"]"#, "['7 cm', 'west', '9']", "A. 7 cm; B. west; C. 9"] {
            let columns = columns(&[("options", list)]);
            for (given, truth, right) in [
                ("west", "B", true),
                ("B", "west", true),
                ("(B) west", "west", true),
                ("9", "C", true),
                ("A", "west", false),
                ("9", "B", false),
                ("north", "B", false),
            ] {
                assert_eq!(Rule::Choice.is_right(given, truth, &columns), right, "{list}: {given} {truth}");
            }
        }
        // Point names: the letter B is the first choice's text and the second choice's letter.
        let points = columns(&[("choices", r#"["B","A"]"#)]);
        assert!(Rule::Choice.is_right("A", "A", &points) && !Rule::Choice.is_right("B", "A", &points));
    }

    /// mathruler drops units and takes letters for factors: of choices that it finds equal, the one written the same
    /// counts.
    #[test]
    fn choices_that_mathruler_cannot_tell_apart() {
        let theorems = columns(&[("choices", r#"["SSS","AAS","ASA","SAS"]"#)]);
        let areas = columns(&[("choices", r#"["24 cm","24 cm^2","24 m^2","48 cm^2"]"#)]);
        let lengths = columns(&[("choices", r#"["2 feet","3 feet","4 feet","3 inches"]"#)]);
        for (columns, given, truth, right) in [
            (&theorems, "ASA", "C", true),
            (&theorems, "AAS", "B", true),
            (&theorems, "AAS", "C", false),
            (&theorems, "ASA", "AAS", false),
            (&theorems, "C", "ASA", true),
            (&areas, "24 cm^2", "B", true),
            (&areas, "24 cm^2", "A", false),
            (&areas, "24 cm^2", "D", false),
            (&areas, "B", "24 cm^2", true),
            (&areas, "A", "24 cm^2", false),
            (&lengths, "B", "3 feet", true),
            (&lengths, "(B)", "3 feet", true),
            (&lengths, "D", "3 feet", false),
            (&lengths, "3 feet", "B", true),
        ] {
            for rule in [Rule::Choice, Rule::Either] {
                // Either also takes what mathruler takes, which deletes units.
                if rule == Rule::Choice || right {
                    assert_eq!(rule.is_right(given, truth, columns), right, "{rule}: {given} for {truth}");
                }
            }
        }
    }

    #[test]
    fn several_letters_in_any_order_and_spelling() {
        let four = columns(&[("options", "A. 1; B. 2; C. 3; D. 4")]);
        let none = columns(&[]);
        for (columns, given, truth, right) in [
            (&none, "AC", "A, C", true),
            (&none, "C, A", "A, C", true),
            (&none, "A and C", "A, C", true),
            (&none, "A, B", "A, C", false),
            (&none, "A", "A, C", false),
            (&none, "A, B, C", "A, C", false),
            (&four, "A, C", "AC", true),
            (&four, "C, A", "AC", true),
            (&four, "A", "AC", false),
            // Without choices two capitals may be a segment.
            (&none, "A, C", "AC", false),
        ] {
            assert_eq!(Rule::Choice.is_right(given, truth, columns), right, "{given} for {truth}");
        }
    }

    #[test]
    fn lists_that_are_no_choices() {
        for text in ["", "[]", "['a'", "['a', b]", "[1]", "x; y", "['a' 'b']", "['"] {
            assert_eq!(choices(&columns(&[("options", text)])), None, "{text}");
        }
        assert_eq!(choices(&columns(&[("option", "A. 1; 2; B. 3; ")])), Some(vec!["1; 2".into(), "3".into()]));
        let python = columns(&[("options", r#"['it\'s', "a \"b\"", '$\\frac{1}{2}$', '\sqrt{2}']"#)]);
        let expected = ["it's", "a \"b\"", "$\\frac{1}{2}$", "\\sqrt{2}"].map(str::to_owned);
        assert_eq!(choices(&python), Some(expected.to_vec()));
    }

    #[test]
    fn floats_are_rounded_to_the_precision_of_the_row() {
        let float = columns(&[("answer_type", "float"), ("precision", "1.0")]);
        assert!(Rule::Either.is_right("1.24", "1.2", &float));
        assert!(!Rule::Either.is_right("1.26", "1.2", &float));
        assert!(!Rule::Either.is_right("1.24", "1.2", &columns(&[])));
    }

    /// `int(float(...))` of MathVista's code, with the values that Python gives.
    #[test]
    fn integers_are_cut_as_the_official_code_cuts_them() {
        let integer = columns(&[("answer_type", "integer"), ("question_type", "free_form")]);
        for (given, truth, right) in [
            ("12", "12", true),
            ("12.0", "12", true),
            ("12.7", "12", true),
            ("12.999", "13", false),
            ("-3.6", "-3", true),
            ("-3.6", "-4", false),
            ("0.4", "0", true),
            ("1.2e1", "12", true),
            (" 12.5 ", "12", true),
            ("inf", "12", false),
            ("nan", "0", false),
            ("11.9", "12", false),
            ("12.7 or 13", "12", false),
        ] {
            assert_eq!(Rule::Mathvista.is_right(given, truth, &integer), right, "{given} for {truth}");
        }
        // No other rule, kind of answer or kind of question casts.
        assert!(!Rule::Either.is_right("12.7", "12", &integer));
        for (kind, question) in [("float", "free_form"), ("text", "free_form"), ("integer", "multi_choice")] {
            let row = columns(&[("answer_type", kind), ("question_type", question)]);
            assert!(!Rule::Mathvista.is_right("12.7", "12", &row), "{kind}, {question}");
        }
        assert_eq!(crate::Benchmark::find("mathvista").unwrap().rule, Rule::Mathvista);
    }

    #[test]
    fn answers_are_where_the_prompt_asks_for_them() {
        let response = "<think>t</think> <answer>2</answer>\nAnswer: 3\n\\boxed{1}";
        assert_eq!(Extract::of_prompt("math_perception").answer(response).as_deref(), Some("1"));
        assert_eq!(Extract::of_prompt("r1v").answer(response).as_deref(), Some("2"));
        assert_eq!(Extract::of_prompt("dapo").answer(response).as_deref(), Some("3"));
        assert_eq!(Extract::of_prompt("own.jinja").answer("so 7").as_deref(), Some("so 7"));
        assert_eq!(Extract::Boxed.answer("no box: None"), None);
        assert_eq!(Extract::Any.answer("  "), None);
    }

    proptest::proptest! {
        #[test]
        fn no_list_of_choices_panics(text in "[\\['\", A-C.;\\\\é]{0,24}", given in ".{0,6}", truth in "[A-Cé\\[]{0,2}") {
            let columns = columns(&[("options", &text)]);
            Rule::Either.is_right(&given, &truth, &columns);
        }
    }
}
