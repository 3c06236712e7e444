//! The letters that a multiple-choice answer picks.
//!
//! An answer that names two options has not chosen: `B or C` is the set of both, and equals only a truth with both.

use crate::simple::unwrap_markup;

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
    "$",
    " ",
];
/// What may stand behind it.
const CLOSERS: &[&str] = &[r"\)", r"\]", ")", "]", "）", "】", "}", "*", "\"", "$"];
/// What stands between two letters that are picked together.
const SEPARATORS: &[&str] = &[",", "，", "、", ";", "；", "/", r"\&", "&", "and", "or", "和", "或", "与", "及"];
/// Blanks and fonts around those.
const BLANKS: &[&str] = &[r"\textbf{", r"\text{", r"\mathrm{", r"\quad", r"\,", r"\ ", "}", "~", " ", "\n"];
/// How many words behind `answer` are searched for its letter, and behind a letter for a judgement on it.
const NEAR: usize = 4;

/// The letters that `text` picks, one bit each, A the lowest; 0 when it picks none.
pub(crate) fn choice_letters(text: &str) -> u32 {
    let text = unwrap_markup(text);
    match leading(text) {
        // `A, B and C lie on a line, so the answer is D`
        Some(list) if list.letters.count_ones() == 1 || ends(list.rest) => list.letters,
        Some(list) => match named(text) {
            0 => list.letters,
            letters => letters,
        },
        None => named(text),
    }
}

/// Letters and what follows them.
struct List<'a> {
    letters: u32,
    /// A bracket or a font sets the last letter apart from what follows.
    closed: bool,
    lower: bool,
    rest: &'a str,
}

/// The letters that an answer begins with, when they are picked and no word or variable.
fn leading(text: &str) -> Option<List<'_>> {
    let list = list(text, true)?;
    let rest = list.rest;
    if ends(rest) {
        return Some(list);
    }
    if computes(&list) {
        return None;
    }
    let option = list.closed || rest.starts_with(['.', ':', ',', '\n', '．', '：', '，', '、', '。']);
    let picked = match judgement(rest) {
        Some(right) => right,
        // `B 35 cm`, but not `A cat sat`: English has the one-letter words a and I.
        None => option || rest.starts_with(' ') && !list.lower && !text.starts_with(['A', 'I']),
    };
    picked.then_some(list)
}

/// Whether only signs are left.
fn ends(rest: &str) -> bool {
    rest.chars().all(|c| c.is_whitespace() || matches!(c, '.' | ':' | ',' | '．' | '：' | '。'))
}

/// The letters behind the last `answer`, `option` or `choice` of a sentence, or the Chinese words for them.
fn named(text: &str) -> u32 {
    let words: Vec<&str> = text.split([' ', '\t', '\r', '\n', ':']).filter(|word| !word.is_empty()).collect();
    // `The answer is B, because option C is wrong`
    let mut refused = 0;
    for (at, word) in words.iter().enumerate().rev() {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if !["answer", "option", "choice"].iter().any(|name| bare.eq_ignore_ascii_case(name)) {
            continue;
        }
        // `B, not option C`
        let mut denied = at > 0 && is_negation(words[at - 1]);
        for next in words[at + 1..].iter().take(NEAR) {
            denied |= is_negation(next);
            // A small letter without a sign is a word.
            let marked = next.len() > 1 && !next.ends_with(|c: char| c.is_ascii_alphabetic());
            let Some(list) = list(&text[next.as_ptr() as usize - text.as_ptr() as usize..], marked) else { continue };
            if denied || computes(&list) || judgement(list.rest) == Some(false) {
                refused |= list.letters;
                break;
            }
            return if list.letters & refused == 0 { list.letters } else { 0 };
        }
    }
    chinese(text) & !refused
}

fn chinese(text: &str) -> u32 {
    let Some((at, word)) = ["答案", "选"].iter().filter_map(|word| Some((text.rfind(word)?, *word))).max() else {
        return 0;
    };
    let after = text[at + word.len()..].trim_start_matches(['是', '为', '项', '择', '应', '：', ':', ' ']);
    match list(after, false) {
        Some(list) if !text[..at].ends_with('不') && !computes(&list) && judgement(list.rest) != Some(false) => {
            list.letters
        }
        _ => 0,
    }
}

/// One letter, or several more that `and`, `or` or signs join to it. `lower`: a small letter without brackets will do.
fn list(text: &str, lower: bool) -> Option<List<'_>> {
    let mut list = label(text, lower)?;
    let mut count = 0;
    while let Some(after) = separated(&list) {
        let Some(next) = label(after, list.lower) else { break };
        // `B, a cat`; `B, I think`
        let word = !next.closed && matches!(next.letters, 1 | 0x100) && next.rest.starts_with(' ');
        let followed = || separated(&next).is_some_and(|rest| label(rest, false).is_some());
        if word && judgement(next.rest).is_none() && !followed() {
            break;
        }
        // More than the alphabet is no choice.
        count += 1;
        if count > 26 {
            return None;
        }
        let letters = list.letters | next.letters;
        list = List { letters, ..next };
    }
    Some(list)
}

/// What follows the signs or words between two letters. A blank alone parts letters only where the second one ends the text.
fn separated<'a>(list: &List<'a>) -> Option<&'a str> {
    let mut rest = list.rest;
    let mut found = false;
    loop {
        if let Some(after) = BLANKS.iter().find_map(|blank| rest.strip_prefix(blank)) {
            rest = after;
            continue;
        }
        let joined = |word: &&&str| {
            let word_ends = |after: &str| !after.starts_with(|c: char| c.is_ascii_alphanumeric());
            rest.strip_prefix(**word).is_some_and(|after| !word.is_ascii() || word.len() == 1 || word_ends(after))
        };
        match SEPARATORS.iter().find(joined) {
            Some(word) => {
                rest = &rest[word.len()..];
                found = true;
            }
            None => break,
        }
    }
    let alone =
        || rest.len() < list.rest.len() && !list.closed && label(rest, false).is_some_and(|next| ends(next.rest));
    (found || alone()).then_some(rest)
}

/// One letter in its brackets and fonts, or capitals in a row: `AC`.
fn label(text: &str, lower: bool) -> Option<List<'_>> {
    let mut rest = text.trim_start();
    let mut bracketed = false;
    while let Some(opener) = OPENERS.iter().find(|opener| rest.starts_with(**opener)) {
        bracketed |= opener.ends_with(['(', '[', '（', '{']);
        rest = &rest[opener.len()..];
    }
    let first = rest.chars().next().filter(char::is_ascii_alphabetic)?;
    if first.is_ascii_lowercase() && !lower && !bracketed {
        return None;
    }
    let run = rest.bytes().take_while(|b| matches!(b, b'A'..=b'H')).count();
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
    (closed || !goes_on).then_some(List { letters, closed, lower: first.is_ascii_lowercase(), rest })
}

/// Whether the letter is part of a formula: `C = 2\pi r`. Behind a bracket only what no option begins with counts.
fn computes(list: &List) -> bool {
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

fn is_negation(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_ascii_lowercase();
    let words = ["not", "cannot", "neither", "never", "except", "incorrect", "wrong", "false"];
    words.contains(&word.as_str()) || word.ends_with("n't") || word.ends_with("n’t")
}

/// What is said of a letter right behind it: `is correct` is true, `is not correct` and `is wrong` are false.
fn judgement(rest: &str) -> Option<bool> {
    let rest = rest.trim_start();
    let chinese = rest.trim_start_matches(['项', '是']);
    if chinese.starts_with(['不', '错']) {
        return Some(false);
    }
    if chinese.starts_with("正确") {
        return Some(true);
    }
    const VERBS: &[&str] =
        &["is", "are", "was", "isn't", "aren't", "cannot", "can't", "must", "should", "would", "does", "doesn't"];
    let mut right = None;
    for (at, word) in rest.split_whitespace().take(NEAR + 1).enumerate() {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if at == 0 && !VERBS.contains(&bare) {
            return None;
        }
        if is_negation(bare) {
            return Some(false);
        }
        if matches!(bare, "correct" | "right" | "true" | "answer" | "best" | "choice" | "option") {
            right = Some(true);
        }
        if bare.len() < word.len() {
            break;
        }
    }
    right
}

#[cfg(test)]
mod tests {
    use crate::simple::{choice_letter, multiple_choice};

    #[test]
    fn one_letter() {
        for given in [
            "B",
            "b",
            "(B)",
            "B.",
            "B)",
            "[B]",
            r"\text{B}",
            r"\text{B.}",
            r"$\text{(B)}$",
            r"\textbf{(B)}",
            "**B**",
            "B. 35 cm",
            "(b) west",
            "B: west",
            "B - west",
            "(B) -5",
            "The answer is B.",
            "the correct option is (b)",
            r"\(B\)",
            "Answer: B",
            "Answer:B",
            "B 35",
            r"\boxed{B}.",
            r"\textbf{(B)}\ 35",
            "B is correct",
            "B is the correct answer.",
            "B, not C",
            "(B) is right, not (C)",
            "B, because a cat is one",
            "B, a cat",
            "The answer is B, because option C is wrong.",
            "Option B",
            "Option B, not option C",
            "B．",
            "选B",
            "故选：B．",
            "答案：B",
            "答案是B。",
            "B、45°",
            "选项B正确",
        ] {
            assert!(multiple_choice(given, "B"), "{given}");
            assert!(!multiple_choice(given, "C"), "{given}");
        }
        assert!(multiple_choice("A is correct", "A"));
        assert!(multiple_choice("A, B and C lie on a line, so the answer is D.", "D"));
        for given in
            ["", "Bob", "A cat", "I think so", "None", "12", "the answer is a cat", "é", "()", "C's", "B_1", "(((("]
        {
            assert_eq!(choice_letter(given), None, "{given}");
        }
        // The single-letter rule of other graders, "truth contained in the answer", makes `None` right for N, O and E.
        assert!(!multiple_choice("None", "N"));
        assert!(!multiple_choice("", ""));
    }

    #[test]
    fn no_letter_is_picked() {
        for given in [
            "B, C",
            "B or C",
            "B and C",
            "B/C",
            "B & C",
            "(B) and (C)",
            "(B) or (C) fits",
            r"\text{B} \text{ or } \text{C}",
            "$B$ or $C$",
            "B C",
            "BC",
            "B、C",
            "B或C",
            "The answer is B or C.",
            "The answer is either B or C",
            "the answer is not B",
            "The answer isn't B",
            "B is wrong",
            "B is not correct",
            "Option B is incorrect",
            r"B = 2\pi r",
            "B + 1",
            "B - 3",
            r"B \cdot 2",
            "(B) = 5",
            "the answer is B + 2",
            "不选B",
            "选项B错误",
        ] {
            assert_eq!(choice_letter(given), None, "{given}");
            assert!(!multiple_choice(given, "B"), "{given}");
        }
    }

    #[test]
    fn sets_of_letters() {
        for given in ["A, C", "AC", "A and C", "C, A", "(A) and (C)", "A,C.", "The answer is A and C.", "选AC", "a, c"]
        {
            assert!(multiple_choice(given, "A, C"), "{given}");
            assert!(multiple_choice(given, "AC"), "{given}");
            for truth in ["A", "C", "A, B", "ABC"] {
                assert!(!multiple_choice(given, truth), "{given} {truth}");
            }
        }
        for given in ["A", "C", "A, B", "ABC", "A, B, C"] {
            assert!(!multiple_choice(given, "A, C"), "{given}");
        }
    }
}
