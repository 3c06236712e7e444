//! One letter, or several that are picked together, as they are written: `B`, `(b)`, `\text{B}`, `A, C`, `AC`.

use super::verdict::judgement;

/// What may stand before a letter and belongs to it.
const OPENERS: &[&str] = &[
    r"\textbf{",
    r"\text{",
    r"\mathrm{",
    r"\mathbf{",
    r"\boxed{",
    r"\(",
    r"\[",
    "(",
    "[",
    "（",
    "【",
    "*",
    "\"",
    "“",
    "`",
    "$",
    " ",
];
/// What may stand behind it.
const CLOSERS: &[&str] = &[r"\)", r"\]", ")", "]", "）", "】", "}", "*", "\"", "”", "`", "$"];
/// What stands between two letters that are picked together.
const SEPARATORS: &[&str] = &[",", "，", "、", ";", "；", r"\&", "&", "and", "和", "与", "及"];
/// What leaves open which of them it is.
const ALTERNATIVES: &[&str] = &["and/or", "or", "/", "或者", "或"];
/// Blanks and fonts around those.
const BLANKS: &[&str] = &[r"\textbf{", r"\text{", r"\mathrm{", r"\quad", r"\,", r"\ ", "}", "~", " ", "\n"];

/// So many brackets, fonts and blanks may stand before a letter. Without a bound `\boxed{\boxed{...` would be read to
/// its end from each of its boxes.
const MAX_OPENERS: usize = 64;

/// Letters and what follows them.
pub(super) struct List<'a> {
    /// One bit each, A the lowest.
    pub(super) letters: u32,
    /// A bracket or a font sets the last letter apart from what follows.
    pub(super) closed: bool,
    /// The last one is a small letter.
    pub(super) lower: bool,
    /// `or` stands between two of them.
    pub(super) open: bool,
    pub(super) rest: &'a str,
}

impl List<'_> {
    /// The letters, none when it is left open which.
    pub(super) fn picked(&self) -> u32 {
        if self.open { 0 } else { self.letters }
    }
}

/// Whether only signs are left.
pub(super) fn ends(rest: &str) -> bool {
    rest.chars().all(|c| c.is_whitespace() || matches!(c, '.' | ':' | ',' | '．' | '：' | '。'))
}

/// One letter, or several more that `and`, `or` or signs join to it. `lower`: a small letter without brackets will do.
pub(super) fn list(text: &str, lower: bool) -> Option<List<'_>> {
    let mut list = label(text, lower)?;
    let mut count = 0;
    while let Some((after, open)) = separated(&list) {
        let Some(next) = label(after, list.lower) else { break };
        // `B, a cat`; `B, I think`
        let word = !next.closed && matches!(next.letters, 1 | 0x100) && next.rest.starts_with(' ');
        let followed = || separated(&next).is_some_and(|(rest, _)| label(rest, false).is_some());
        if word && judgement(next.rest).is_none() && !followed() {
            break;
        }
        // `B，A项错误`; `B, A is wrong`: the next clause begins.
        let between = &list.rest[..list.rest.len() - after.len()];
        let parted =
            between.chars().all(|c| c.is_whitespace() || matches!(c, ',' | '，')) && between.contains([',', '，']);
        let judged = next.rest.starts_with(['项', '选', '错', '不', '正', '对']) || next.rest.starts_with(" is ");
        let said = next.rest.starts_with(['项', '是']);
        if parted && (said || judged && judgement(next.rest).is_some()) {
            break;
        }
        // More than the alphabet is no choice.
        count += 1;
        if count > 26 {
            return None;
        }
        let letters = list.letters | next.letters;
        list = List { letters, open: open | list.open, ..next };
    }
    Some(list)
}

/// What follows the signs or words between two letters, and whether they mean `or`. A blank alone parts letters only
/// where the second one ends the text.
fn separated<'a>(list: &List<'a>) -> Option<(&'a str, bool)> {
    let mut rest = list.rest;
    let (mut found, mut open) = (false, false);
    loop {
        if let Some(after) = BLANKS.iter().find_map(|blank| rest.strip_prefix(blank)) {
            rest = after;
            continue;
        }
        let joined = |word: &&&str| {
            let word_ends = |after: &str| !after.starts_with(|c: char| c.is_ascii_alphanumeric());
            rest.strip_prefix(**word).is_some_and(|after| !word.is_ascii() || word.len() == 1 || word_ends(after))
        };
        let alternative = ALTERNATIVES.iter().find(joined);
        match alternative.or_else(|| SEPARATORS.iter().find(joined)) {
            Some(word) => {
                rest = &rest[word.len()..];
                found = true;
                open |= alternative.is_some();
            }
            None => break,
        }
    }
    let alone =
        || rest.len() < list.rest.len() && !list.closed && label(rest, false).is_some_and(|next| ends(next.rest));
    (found || alone()).then_some((rest, open))
}

/// One letter in its brackets and fonts, or capitals in a row: `AC`.
fn label(text: &str, lower: bool) -> Option<List<'_>> {
    let mut rest = text.trim_start();
    let mut bracketed = false;
    for _ in 0..MAX_OPENERS {
        let Some(opener) = OPENERS.iter().find(|opener| rest.starts_with(**opener)) else { break };
        bracketed |= opener.ends_with(['(', '[', '（', '{']);
        rest = &rest[opener.len()..];
    }
    let first = rest.chars().next().filter(char::is_ascii_alphabetic)?;
    if first.is_ascii_lowercase() && !lower && !bracketed {
        return None;
    }
    let run = rest.bytes().take_while(|b| matches!(b, b'A'..=b'J')).count();
    // In their order, or any word in capitals would be a choice.
    let run = if run > 1 && rest.as_bytes()[..run].windows(2).all(|pair| pair[0] < pair[1]) { run } else { 1 };
    let letters = rest[..run].bytes().fold(0u32, |letters, b| letters | 1 << (b.to_ascii_uppercase() - b'A'));
    rest = &rest[run..];
    let mut closed = false;
    loop {
        // `\text{B.}`
        let brace = rest.trim_start_matches([' ', '.', ':']);
        if bracketed && brace.starts_with('}') {
            rest = brace;
        }
        let Some(closer) = CLOSERS.iter().find(|closer| rest.starts_with(**closer)) else { break };
        closed |= closer.ends_with([')', ']', '）', '】', '}']);
        rest = &rest[closer.len()..];
    }
    let goes_on = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '\'' | '’' | '^'));
    let lower = first.is_ascii_lowercase();
    (closed || !goes_on).then_some(List { letters, closed, lower, open: false, rest })
}

/// Whether the letter is part of a formula: `C = 2\pi r`. Behind a bracket only what no option begins with counts.
pub(super) fn computes(list: &List) -> bool {
    let rest = list.rest.trim_start();
    let Some(sign) = rest.chars().next() else { return false };
    let after = &rest[sign.len_utf8()..];
    match sign {
        '=' | '+' | '*' | '/' | '^' | '_' | '×' | '·' => true,
        '<' | '>' | '≤' | '≥' | '≠' | '≈' | '÷' | '±' | '∈' | '∪' | '∩' => !list.closed,
        // `B - west`
        '-' | '−' => !list.closed && after.trim_start().chars().take_while(|c| c.is_alphabetic()).count() < 2,
        '\\' => {
            let length = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            match &after[..length] {
                "cdot" | "times" | "cup" | "cap" => true,
                "le" | "leq" | "ge" | "geq" | "lt" | "gt" | "ne" | "neq" | "approx" | "pm" | "in" | "div" => {
                    !list.closed
                }
                _ => false,
            }
        }
        _ => false,
    }
}
