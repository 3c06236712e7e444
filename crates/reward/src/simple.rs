//! The plain graders: one letter, the same words, nearly the same number.

/// Whether `given` picks the same letter as `ground_truth`.
///
/// The letter may stand alone (`B`, `(b)`, `B.`, `\text{B}`), lead its option (`B. 35 cm`, `(B) west`), or be named in a
/// sentence by `answer`, `option` or `choice` (`the answer is (B)`). A truth that is no letter never matches.
pub fn multiple_choice(given: &str, ground_truth: &str) -> bool {
    match choice_letter(ground_truth) {
        Some(truth) => choice_letter(given) == Some(truth),
        None => false,
    }
}

/// The letter that a multiple-choice answer picks, in upper case; see [`multiple_choice`].
pub fn choice_letter(text: &str) -> Option<char> {
    let text = unwrap_markup(text);
    if let Some(letter) = leading_font(text) {
        return Some(letter);
    }
    let mut chars = text.trim_start_matches(['(', '[', '*', '"']).chars();
    let first = chars.next()?;
    let rest = chars.as_str();
    if first.is_ascii_alphabetic() {
        let tail = rest.trim_start_matches(['*', '"']);
        let closed = tail.trim_end_matches([')', ']', '.', ':', '*', '"', ',']);
        // A lone letter, or a letter that a sign separates from the option's text.
        if closed.trim().is_empty() || tail.starts_with([')', ']', '.', ':', ',', '\n']) {
            return Some(first.to_ascii_uppercase());
        }
        // `A 35 cm`, but not `A cat sat`: English has the one-letter words a and I.
        if first.is_ascii_uppercase() && tail.starts_with(' ') && !matches!(first, 'A' | 'I') {
            return Some(first);
        }
    }
    named_letter(text)
}

/// The letter of `\textbf{(B)}\ 35`: in a font of its own, before the option's text.
fn leading_font(text: &str) -> Option<char> {
    let inside = [r"\textbf{", r"\text{", r"\mathrm{", r"\mathbf{"].iter().find_map(|open| text.strip_prefix(open))?;
    let (label, _) = inside.split_once('}')?;
    let mut letters = label.trim_matches(|c: char| !c.is_ascii_alphanumeric()).chars();
    match (letters.next(), letters.next()) {
        (Some(letter), None) if letter.is_ascii_alphabetic() => Some(letter.to_ascii_uppercase()),
        _ => None,
    }
}

/// The letter after the last `answer`, `option` or `choice` of a sentence.
fn named_letter(text: &str) -> Option<char> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let bare = |word: &str| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_ascii_lowercase();
    for (at, word) in words.iter().enumerate().rev() {
        if !matches!(bare(word).as_str(), "answer" | "option" | "choice") {
            continue;
        }
        for next in words[at + 1..].iter().take(4) {
            let cleaned = next.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let mut letters = cleaned.chars();
            if let (Some(letter), None) = (letters.next(), letters.next())
                && (letter.is_ascii_uppercase() || (letter.is_ascii_lowercase() && cleaned.len() < next.len()))
            {
                return Some(letter.to_ascii_uppercase());
            }
        }
    }
    None
}

/// Takes `$`, `\boxed{}`, `\text{}`, `\mathrm{}` and `\textbf{}` off the outside of a text, as often as they are nested.
fn unwrap_markup(text: &str) -> &str {
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
    fn letters() {
        for given in [
            "B",
            "b",
            "(B)",
            "B.",
            "B)",
            "[B]",
            r"\text{B}",
            r"$\text{(B)}$",
            r"\textbf{(B)}",
            "**B**",
            "B. 35 cm",
            "(b) west",
            "B: west",
            "The answer is B.",
            "the correct option is (b)",
            r"\(B\)",
            "Answer: B",
            "B 35",
            r"\boxed{B}.",
            r"\textbf{(B)}\ 35",
        ] {
            assert!(multiple_choice(given, "B"), "{given}");
            assert!(!multiple_choice(given, "C"), "{given}");
        }
        for given in ["", "Bob", "A cat", "I think so", "None", "12", "the answer is a cat", "é", "()"] {
            assert_eq!(choice_letter(given), None, "{given}");
        }
        // The single-letter rule of other graders, "truth contained in the answer", makes `None` right for N, O and E.
        assert!(!multiple_choice("None", "N"));
        assert!(!multiple_choice("", ""));
    }

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
