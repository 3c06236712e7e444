//! Before an answer is read: one spelling of signs.

use std::sync::LazyLock;

use regex::Regex;

/// Without blanks, but for one between two digits: `1 1/2` is not `11/2`.
pub(super) fn without_blanks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = false;
    for c in text.chars() {
        if c.is_whitespace() {
            blank = true;
            continue;
        }
        if std::mem::take(&mut blank) && c.is_ascii_digit() && out.ends_with(|c: char| c.is_ascii_digit()) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// Full-width and small forms of ASCII characters as those, subscript digits as LaTeX writes them, and `negative 5` as
/// -5.
pub(super) fn in_ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut lowered = false;
    for c in text.chars() {
        match c {
            // What the lexer knows as it is stays: a Chinese comma is no thousands separator.
            '，' | '；' | '：' => out.push(c),
            '\u{ff01}'..='\u{ff5e}' => out.extend(char::from_u32(c as u32 - 0xFEE0)),
            '﹣' => out.push('-'),
            '₀'..='₉' => {
                // `x₁₂` is one index.
                match out.strip_suffix('}').filter(|_| lowered).map(str::len) {
                    Some(length) => out.truncate(length),
                    None => out.push_str("_{"),
                }
                out.extend(char::from_digit(c as u32 - '₀' as u32, 10));
                out.push('}');
                lowered = true;
                continue;
            }
            c => out.push(c),
        }
        lowered = false;
    }
    let out = in_base(out).replace("+/-", "±");
    for word in ["negative ", "minus ", "Negative ", "Minus ", "负"] {
        if let Some(rest) = out.trim_start_matches('$').strip_prefix(word)
            && rest.trim_start().starts_with(|c: char| c.is_ascii_digit())
        {
            return format!("-{}", rest.trim_start());
        }
    }
    out
}

/// `(1010)_2`, `1010_{(2)}` and `1010_{2}` in one spelling.
fn in_base(text: String) -> String {
    static BRACKETS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\(([0-9A-F]{2,64})\)_").expect("the pattern is valid, as the tests show"));
    static INDEX: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"([0-9A-F])_\{?\(([0-9]{1,2})\)\}?").expect("the pattern is valid, as the tests show")
    });
    if !text.contains('_') || !text.contains('(') {
        return text;
    }
    let text = BRACKETS.replace_all(&text, "${1}_").into_owned();
    INDEX.replace_all(&text, "${1}_{$2}").into_owned()
}

/// A point with its name in front: `P(2,3)`.
pub(super) fn named_point(text: &str) -> Option<&str> {
    let text = text.trim().trim_matches('$');
    let rest = text.strip_prefix(|c: char| c.is_ascii_uppercase())?;
    let inside = rest.strip_prefix('(')?.strip_suffix(')')?;
    (inside.contains(',') && !inside.contains(['(', ')'])).then_some(rest)
}

/// An answer with its unit in brackets, `20 (cm)` or `7（个）`, without those; `None` when there is none. `is_unit`
/// knows units.
pub(super) fn without_unit_brackets(text: &str, is_unit: impl Fn(&str) -> bool) -> Option<String> {
    let text = text.trim().trim_end_matches(['.', '。', '$']);
    let inside = text.strip_suffix([')', '）'])?;
    let open = inside.rfind(['(', '（'])?;
    let (value, unit) = (&inside[..open], inside[open..].trim_start_matches(['(', '（']).trim());
    let counted = unit.contains(char::is_alphabetic) && !unit.contains(|c: char| c.is_ascii_digit());
    (counted && value.contains(|c: char| c.is_ascii_digit()) && is_unit(unit)).then(|| format!("{value} {unit}"))
}
