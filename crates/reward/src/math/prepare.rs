//! Before an answer is read: one spelling of signs, and what says that the number in a text is not its value.

use crate::simple::unwrap_markup;

/// An answer that begins with one of these is not the number behind it.
#[rustfmt::skip]
const FIRST: &[&str] = &[
    r"\neq", r"\ne ", r"\not", r"\ge", r"\le ", r"\leq", r"\lt", r"\gt", "≠", "!=", "<", ">", "≤", "≥", "≮", "≯",
    "not ", "no more than ", "no less than ", "at least ", "at most ", "more than ", "less than ", "fewer than ",
    "greater than ", "larger than ", "smaller than ",
    "不是", "不等于", "不大于", "不小于", "大于", "小于", "至少", "至多", "超过", "少于", "多于",
];
/// In a short text they say that its number stands for another.
#[rustfmt::skip]
const ANYWHERE: &[&str] = &[
    "million", "billion", "trillion", "thousand", "dozen", "half of", "twice ", "square root", "cube root", "万", "亿",
];

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
    for c in text.chars() {
        match c {
            // What the lexer knows as it is stays: a Chinese comma is no thousands separator.
            '，' | '；' | '：' => out.push(c),
            '\u{ff01}'..='\u{ff5e}' => out.extend(char::from_u32(c as u32 - 0xFEE0)),
            '﹣' => out.push('-'),
            '₀'..='₉' => {
                out.push('_');
                out.extend(char::from_digit(c as u32 - '₀' as u32, 10));
            }
            c => out.push(c),
        }
    }
    for word in ["negative ", "minus ", "Negative ", "Minus ", "负"] {
        if let Some(rest) = out.trim_start_matches('$').strip_prefix(word)
            && rest.trim_start().starts_with(|c: char| c.is_ascii_digit())
        {
            return format!("-{}", rest.trim_start());
        }
    }
    out
}

/// Whether the text says that the number in it is not the value: `\neq 5`, `> 5`, `not 5`, `at least 5`, `half of 10`,
/// `about 5 million`.
pub(super) fn is_hedged(text: &str) -> bool {
    let text = unwrap_markup(text).trim_start_matches(['$', '\u{7b}', ' ']).to_lowercase();
    let negated = |word: &str| {
        // A word may begin a longer sentence, and `<` a tag.
        text.strip_prefix(word).is_some_and(|rest| match word.starts_with(['<', '>']) {
            true => rest.trim_start_matches(['=', ' ', '-', '\\', '$']).starts_with(|c: char| c.is_ascii_digit()),
            false => !word.ends_with(' ') || text.len() < 24,
        })
    };
    FIRST.iter().any(|word| negated(word)) || text.len() < 40 && ANYWHERE.iter().any(|word| text.contains(word))
}

/// A point with its name in front: `P(2,3)`.
pub(super) fn named_point(text: &str) -> Option<&str> {
    let text = text.trim().trim_matches('$');
    let rest = text.strip_prefix(|c: char| c.is_ascii_uppercase())?;
    let inside = rest.strip_prefix('(')?.strip_suffix(')')?;
    (inside.contains(',') && !inside.contains(['(', ')'])).then_some(rest)
}
