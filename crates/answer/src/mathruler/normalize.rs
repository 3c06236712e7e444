//! The two string normalisations of mathruler, and the Python number syntax that they lean on.

use num_bigint::BigInt;
use num_traits::FromPrimitive;

use super::latex_text::latex_to_text;

/// First step: the normalisation of the MATH data set's own checker.
///
/// Where the Python code raises an error, it keeps the answer as it was; so does this.
pub(super) fn math_style(answer: &str) -> String {
    let answer = answer.trim();
    let answer = text_content(answer).map_or(answer, str::trim);
    math_style_steps(answer).unwrap_or_else(|| answer.to_owned())
}

/// The content when the whole is `\text{...}`, on one line and not empty.
fn text_content(answer: &str) -> Option<&str> {
    // Python's `$` also matches before a final line break.
    let answer = answer.strip_suffix('\n').unwrap_or(answer);
    let content = answer.strip_prefix(r"\text{")?.strip_suffix('}')?;
    (!content.is_empty() && !content.contains('\n')).then_some(content)
}

fn math_style_steps(answer: &str) -> Option<String> {
    let mut text = answer.replace('\n', "");
    for (from, to) in [
        (r"\!", ""),
        (r"\\", r"\"),
        ("tfrac", "frac"),
        ("dfrac", "frac"),
        (r"\left", ""),
        (r"\right", ""),
        (r"^{\circ}", ""),
        (r"^\circ", ""),
        (r"\$", ""),
    ] {
        if text.contains(from) {
            text = text.replace(from, to);
        }
    }
    // `\text{ ` with a blank begins a unit; two of them are an error.
    if let Some((before, after)) = text.split_once(r"\text{ ") {
        if after.contains(r"\text{ ") {
            return None;
        }
        text = before.to_owned();
    }
    text = text.replace(r"\%", "").replace('%', "").replace(" .", " 0.").replace("{.", "{0.");
    if text.is_empty() {
        return Some(text);
    }
    if text.starts_with('.') {
        text.insert(0, '0');
    }
    // `x = 5` is 5.
    let mut sides = text.split('=');
    if let (Some(left), Some(right), None) = (sides.next(), sides.next(), sides.next())
        && left.chars().count() <= 2
    {
        text = right.to_owned();
    }
    text = brace_roots(&text)?.replace(' ', "");
    text = brace_fractions(&text)?;
    if text == "0.5" {
        text = r"\frac{1}{2}".to_owned();
    }
    Some(slash_to_fraction(&text).unwrap_or(text))
}

/// `\sqrt3` becomes `\sqrt{3}`; `None` when a root ends the text.
fn brace_roots(text: &str) -> Option<String> {
    let mut parts = text.split(r"\sqrt");
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let first = part.chars().next()?;
        if first == '{' {
            out.push_str(r"\sqrt");
            out.push_str(part);
        } else {
            out.push_str(r"\sqrt{");
            out.push(first);
            out.push('}');
            out.push_str(&part[first.len_utf8()..]);
        }
    }
    Some(out)
}

/// `\frac12` becomes `\frac{1}{2}`, `\frac1{72}` becomes `\frac{1}{72}`; `None` when a fraction ends the text, and no
/// change at all when only one sign follows a fraction.
fn brace_fractions(text: &str) -> Option<String> {
    let mut parts = text.split(r"\frac");
    let mut out = parts.next()?.to_owned();
    for part in parts {
        out.push_str(r"\frac");
        let mut chars = part.chars();
        let first = chars.next()?;
        if first == '{' {
            out.push_str(part);
            continue;
        }
        let Some(second) = chars.next() else { return Some(text.to_owned()) };
        out.push('{');
        out.push(first);
        out.push('}');
        if second == '{' {
            out.push(second);
        } else {
            out.push('{');
            out.push(second);
            out.push('}');
        }
        out.push_str(chars.as_str());
    }
    Some(out)
}

/// `3/4`, both plain integers as Python prints them, becomes `\frac{3}{4}`.
fn slash_to_fraction(text: &str) -> Option<String> {
    let (above, below) = text.split_once('/')?;
    let plain = |number: &str| {
        let digits = number.strip_prefix('-').unwrap_or(number);
        digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.is_empty()
            && (number == "0" || !digits.starts_with('0'))
            // Python refuses to read longer integers.
            && digits.len() <= 4300
    };
    (plain(above) && plain(below)).then(|| format!(r"\frac{{{above}}}{{{below}}}"))
}

/// Words that the second step deletes wherever they stand, inside other words too, with an `es` or `s` and a power.
const UNITS: [&str; 16] = [
    "degree",
    "cm",
    "centimeter",
    "meter",
    "mile",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "year",
    "foot",
    "feet",
    "inch",
    "yard",
];

/// Second step: the normalisation of the PRM800K checker.
pub(super) fn prm_style(answer: &str) -> String {
    let mut text = text_content(answer).unwrap_or(answer).to_owned();
    for (from, to) in [
        (r"\%", "%"),
        (r"\$", "$"),
        ("$", ""),
        ("%", ""),
        (" or ", " , "),
        (" and ", " , "),
        ("million", "*10^6"),
        ("billion", "*10^9"),
        ("trillion", "*10^12"),
    ] {
        if text.contains(from) {
            text = text.replace(from, to);
        }
    }
    for unit in UNITS {
        if text.contains(unit) {
            text = delete_unit(&text, unit);
        }
    }
    text = delete_degree_signs(&text);
    if text.starts_with('{') && text.ends_with('}') {
        text = text[1..text.len() - 1].to_owned();
    }
    text = delete_comma_spaces(&text);
    if let Some(integer) = python_float(&text).and_then(nearest_integer) {
        text = integer.to_string();
    }
    if text.contains('\\')
        && let Some(plain) = parse_latex(&text)
    {
        text = plain;
    }
    text = delete_blanks_after_minus(&text);
    text = add_in_mixed_numbers(&text);
    text.retain(|c| !matches!(c, ' ' | '{' | '}'));
    text = text.to_lowercase();
    if let Some(integer) = integer_value(&text) {
        text = integer.to_string();
    }
    text
}

/// Removes `unit`, then `es`, then `s`, then blanks, then `^` with digits, each when it is there.
fn delete_unit(text: &str, unit: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(unit) {
        out.push_str(&rest[..at]);
        rest = &rest[at + unit.len()..];
        rest = rest.strip_prefix("es").unwrap_or(rest);
        rest = rest.strip_prefix('s').unwrap_or(rest);
        rest = rest.trim_start_matches(' ');
        if let Some(power) = rest.strip_prefix('^') {
            let after = power.trim_start_matches(|c: char| c.is_ascii_digit());
            if after.len() < power.len() {
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Removes `^\circ`, with or without blanks between.
fn delete_degree_signs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('^') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let blanks = after.len() - 1 - after[1..].trim_start_matches(' ').len();
        match after[1 + blanks..].strip_prefix(r"\circ") {
            Some(tail) => rest = tail,
            None => {
                out.push_str(&after[..1 + blanks]);
                rest = &after[1 + blanks..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Removes `,\!` and the blanks after it.
fn delete_comma_spaces(text: &str) -> String {
    let mut parts = text.split(r",\!");
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        out.push_str(part.trim_start_matches(' '));
    }
    out
}

fn parse_latex(text: &str) -> Option<String> {
    let text = text.replace(r"\tfrac", r"\frac").replace(r"\dfrac", r"\frac").replace(r"\frac", r" \frac");
    let mut plain = latex_to_text(&text)?;
    for (from, to) in [("√", "sqrt"), ("π", "pi"), ("∞", "inf"), ("∪", "U"), ("·", "*"), ("×", "*")] {
        if plain.contains(from) {
            plain = plain.replace(from, to);
        }
    }
    Some(plain.trim().to_owned())
}

fn delete_blanks_after_minus(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut after_minus = false;
    for c in text.chars() {
        if !(after_minus && c == ' ') {
            out.push(c);
            after_minus = c == '-';
        }
    }
    out
}

/// `7 3/4` becomes `7+3/4`: blanks between two digits become a plus. A digit serves one pair only.
fn add_in_mixed_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut left_digit = false;
    while let Some(c) = chars.next() {
        if c == ' ' && left_digit {
            let mut blanks = 1;
            while chars.peek() == Some(&' ') {
                chars.next();
                blanks += 1;
            }
            match chars.next_if(char::is_ascii_digit) {
                Some(digit) => out.extend(['+', digit]),
                None => out.extend(std::iter::repeat_n(' ', blanks)),
            }
            left_digit = false;
        } else {
            out.push(c);
            left_digit = c.is_ascii_digit();
        }
    }
    out
}

/// Removes the commas of `1,234,567`, but not those of `1,23` or `1,2345`; repeated until nothing changes.
pub(super) fn strip_thousands_commas(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let chars: Vec<char> = text.chars().collect();
        let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        let mut changed = false;
        while at < chars.len() {
            let grouped =
                digit(at) && chars.get(at + 1) == Some(&',') && (2..5).all(|ahead| digit(at + ahead)) && !digit(at + 5);
            if grouped {
                out.push(chars[at]);
                out.extend(&chars[at + 2..chars.len().min(at + 6)]);
                at += 6;
                changed = true;
            } else {
                out.push(chars[at]);
                at += 1;
            }
        }
        if !changed {
            return text;
        }
        text = out;
    }
}

/// What Python's `float()` reads, including blanks around, underscores between digits, `inf` and `nan`.
pub(super) fn python_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        let value = match unsigned.to_ascii_lowercase().as_str() {
            "inf" | "infinity" => f64::INFINITY,
            "nan" => f64::NAN,
            _ => return None,
        };
        return Some(if text.starts_with('-') { -value } else { value });
    }
    if !text.contains('_') {
        return text.parse().ok();
    }
    let bytes = text.as_bytes();
    let between_digits =
        |at: usize| at > 0 && bytes[at - 1].is_ascii_digit() && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
    bytes
        .iter()
        .enumerate()
        .all(|(at, &b)| b != b'_' || between_digits(at))
        .then(|| text.replace('_', "").parse().ok())?
}

/// The integer nearest to `value` when it is within 1e-7 of it.
fn nearest_integer(value: f64) -> Option<BigInt> {
    (value.is_finite() && (value - value.round_ties_even()).abs() <= 1e-7)
        .then(|| BigInt::from_f64(value.round_ties_even()))?
}

/// The integer that a text is, thousands commas allowed; a value just below an integer is cut, as Python's `int` does
/// it.
pub(super) fn integer_value(text: &str) -> Option<BigInt> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && !text.starts_with(char::is_whitespace)
    {
        return None;
    }
    nearest_integer(python_float(&strip_thousands_commas(text))?)?;
    BigInt::from_f64(python_float(&text.replace(',', ""))?.trunc())
}

/// Whether [`integer_value`] finds an integer.
pub(super) fn is_integer(text: &str) -> bool {
    integer_value(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_step() {
        for (from, to) in [
            (r"\text{ cm}", "cm"),
            (r"5\text{ cm}", "5"),
            (r"x = .5", r"\frac{1}{2}"),
            (r"\frac12", r"\frac{1}{2}"),
            (r"\dfrac1{72}", r"\frac{1}{72}"),
            (r"-3/4", r"\frac{-3}{4}"),
            (r"03/4", "03/4"),
            (r"\sqrt3 + 1", r"\sqrt{3}+1"),
            (r"\frac", r"\frac"),
            (r"a\frac1", r"a\frac1"),
            (r"60^\circ", "60"),
            ("", ""),
            (r"1,\!000", "1,000"),
            ("abc = 5", "abc=5"),
        ] {
            assert_eq!(math_style(from), to, "{from}");
        }
    }

    #[test]
    fn second_step() {
        for (from, to) in [
            ("7 3/4", "7+3/4"),
            (r"7\frac{3}{4}", "7+3/4"),
            (r"\frac{1}{x+1}", "1/x+1"),
            ("1 2 3", "1+23"),
            ("5 square meters^2", "5square"),
            ("3 hours", "3"),
            ("8,000.0", "8000"),
            ("2.5 million", "2.5*10^6"),
            ("3 and 4", "3,4"),
            (r"\sqrt[3]{8}", "sqrt(8)"),
            ("{", ""),
            (r"2\pi", "2pi"),
            ("1e30", "1000000000000000019884624838656"),
            ("2.99999999", "3"),
            ("1,2.99999999", "1,2.99999999"),
            ("- 5", "-5"),
        ] {
            assert_eq!(prm_style(from), to, "{from}");
        }
    }

    #[test]
    fn commas_and_floats() {
        assert_eq!(strip_thousands_commas("1,234,567"), "1234567");
        assert_eq!(strip_thousands_commas("1,23,4567"), "1,23,4567");
        assert_eq!(strip_thousands_commas("(1,234,5)"), "(1234,5)");
        assert_eq!(python_float(" 1_000.5 "), Some(1000.5));
        for text in ["1__0", "_1", "1_", "1_.5", "", ".", "e5", "infx"] {
            assert_eq!(python_float(text), None, "{text}");
        }
        assert_eq!(python_float("-Infinity"), Some(f64::NEG_INFINITY));
    }
}
