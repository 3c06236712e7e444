//! The plain graders: one letter, the same words, nearly the same number.

use crate::letters::choice_letters;

/// Whether `given` picks the same letters as `ground_truth`.
///
/// A letter may stand alone (`B`, `(b)`, `B.`, `\text{B}`), lead its option (`B. 35 cm`, `(B) west`), or be named in a
/// sentence by `answer`, `option` or `choice` (`the answer is (B)`). Several (`A, C`, `AC`, `A and C`) equal only the same
/// several, in any order: a hedge is wrong. A truth that is no letter never matches.
pub fn multiple_choice(given: &str, ground_truth: &str) -> bool {
    let truth = choice_letters(ground_truth);
    truth != 0 && choice_letters(given) == truth
}

/// The letter that a multiple-choice answer picks, in upper case; `None` when it picks none or several.
pub fn choice_letter(text: &str) -> Option<char> {
    let letters = choice_letters(text);
    (letters.count_ones() == 1).then(|| char::from(b'A' + letters.trailing_zeros() as u8))
}

/// Takes `$`, `\boxed{}`, `\text{}`, `\mathrm{}` and `\textbf{}` off the outside of a text, as often as they are nested.
pub(crate) fn unwrap_markup(text: &str) -> &str {
    let mut text = text.trim();
    // Each turn shortens the text; the bound keeps adversarial nesting cheap.
    for _ in 0..16 {
        let before = text;
        text = text.trim_matches(|c: char| c == '$' || c.is_whitespace());
        for open in [r"\boxed{", r"\text{", r"\textbf{", r"\mathrm{", r"\mathbf{", r"\(", r"\["] {
            let close = match open {
                r"\(" => r"\)",
                r"\[" => r"\]",
                _ => "}",
            };
            let unfinished = text.strip_suffix('.').unwrap_or(text);
            if let Some(inner) = unfinished.strip_prefix(open).and_then(|rest| rest.strip_suffix(close))
                && !inner.contains('}')
            {
                text = inner.trim();
            }
        }
        if text.len() == before.len() {
            break;
        }
    }
    text
}

/// Whether the two texts are the same after trimming and folding runs of blanks and letter case.
/// Two empty texts are not: an empty answer is never right.
pub fn exact(given: &str, ground_truth: &str) -> bool {
    let fold = |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
    let given = fold(given);
    !given.is_empty() && given == fold(ground_truth)
}

/// Whether `given` is within `tolerance` of `ground_truth`: |given - truth| <= tolerance * max(1, |truth|).
///
/// Both are read by [`parse_number`]; anything that is no number is wrong.
pub fn numeric(given: &str, ground_truth: &str, tolerance: f64) -> bool {
    match (parse_number(given), parse_number(ground_truth)) {
        (Some(given), Some(truth)) => (given - truth).abs() <= tolerance * truth.abs().max(1.0),
        _ => false,
    }
}

/// A finite number from a text: `-3`, `1,000.5`, `2/3`, `12%` (0.12), `$4.50`, `6.02e23`, a unit word after it, a full stop.
pub fn parse_number(text: &str) -> Option<f64> {
    let text = unwrap_markup(text).trim_end_matches('.');
    let text = text.strip_prefix(r"\$").unwrap_or(text);
    let text: String = text.replace(r"\%", "%").replace(r"\,", "").replace("{,}", ",").replace('−', "-");
    let end = text
        .char_indices()
        .find(|&(at, c)| {
            !(c.is_ascii_digit()
                || matches!(c, '+' | '-' | '.' | ',' | '/')
                || (matches!(c, 'e' | 'E')
                    && text[..at].ends_with(|d: char| d.is_ascii_digit() || d == '.')
                    && text[at + 1..].starts_with(|d: char| d.is_ascii_digit() || d == '-' || d == '+')))
        })
        .map_or(text.len(), |(at, _)| at);
    let unit = text[end..].trim();
    let percent = unit == "%" || unit.eq_ignore_ascii_case("percent");
    // A unit is a word; an operator means that this is an expression, which is not for this grader.
    if !percent && unit.contains(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '*' | '=' | '\\' | '(')) {
        return None;
    }
    let mut parts = text[..end].split('/');
    let mut value = plain_number(parts.next()?)?;
    if let Some(denominator) = parts.next() {
        value /= plain_number(denominator)?;
    }
    if parts.next().is_some() {
        return None;
    }
    if percent {
        value /= 100.0;
    }
    value.is_finite().then_some(value)
}

/// Digits with optional thousands separators, and nothing else.
fn plain_number(text: &str) -> Option<f64> {
    if !text.contains(',') {
        return text.parse().ok();
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut groups = whole.split(',');
    let first = groups.next()?.trim_start_matches(['+', '-']);
    if first.is_empty() || first.len() > 3 || fraction.contains(',') || !groups.all(|group| group.len() == 3) {
        return None;
    }
    text.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_words() {
        assert!(exact(" New\tYork ", "new york"));
        assert!(!exact("New York", "newyork"));
        assert!(!exact("", " "));
    }

    #[test]
    fn numbers() {
        for (text, value) in [
            ("-3", -3.0),
            ("1,000.5", 1000.5),
            ("2/4", 0.5),
            ("12%", 0.12),
            (r"12\%", 0.12),
            ("$4.50$", 4.5),
            ("6.02e23", 6.02e23),
            ("5 cm", 5.0),
            ("7.", 7.0),
            (r"\text{8}", 8.0),
            ("−2", -2.0),
            (".5", 0.5),
            (r"\$3", 3.0),
            ("1e5", 1e5),
            ("3e", 3.0),
        ] {
            assert_eq!(parse_number(text), Some(value), "{text}");
        }
        for text in ["", "x", "1,00", "1,0000", "1/0", "1/2/3", "3+4", "2x=1", "inf", "nan", "1e999", ",", "/", "--3"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
        assert!(numeric("3.1416", "3.14159", 1e-4));
        assert!(!numeric("3.15", "3.14159", 1e-4));
        assert!(numeric("0.00001", "0", 1e-4));
    }
}
