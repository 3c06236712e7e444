//! The sentence of a text that answers.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// What a model writes behind its answer and means nothing by.
const CLOSINGS: &[&str] = &["<|", "I hope it is correct", "I hope this helps", "Hope this helps"];
/// Most sentences that are looked at, from the end.
const MAX_SENTENCES: usize = 400;

static FONTS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"\\(?:text|textbf|textit|textrm|textnormal|mbox|emph)\s*\{([^{}]*)\}";
    Regex::new(pattern).expect("the pattern is valid, as the tests show")
});
static LABEL_BREAK: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"([:：])[*_ ]*\s*\n\s*").expect("the pattern is valid, as the tests show"));

/// The text without emphasis, fonts of words, and what closes a letter.
pub(super) fn without_markup(text: &str) -> String {
    let mut text = text;
    for closing in CLOSINGS {
        if let Some(at) = text.find(closing)
            && text[..at].contains(|c: char| c.is_alphanumeric())
        {
            text = text[..at].trim_end();
        }
    }
    let mut text: Cow<str> = text.into();
    if text.contains('\\') {
        text = FONTS.replace_all(&text, " $1 ").into_owned().into();
    }
    if text.contains('\n') {
        text = LABEL_BREAK.replace_all(&text, "$1 ").into_owned().into();
    }
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let doubled = || text[at + 1..].starts_with(c) || text[..at].ends_with(c);
        match c {
            '*' if doubled() => {}
            '_' if doubled() => {}
            '`' | '"' | '“' | '”' => {}
            '’' => out.push('\''),
            '#' if out.is_empty() || out.ends_with(['\n', '#']) => {}
            _ => out.push(c),
        }
    }
    out
}

/// The sentences, without those signs that end them; a question keeps its sign.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut from, mut formula, mut display, mut depth) = (0, false, false, 0i32);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            // `$$` and `\[` may hold line breaks.
            '$' if text[at..].starts_with("$$") => {
                display = !display;
                chars.next();
                continue;
            }
            '\\' if text[at..].starts_with("\\[") => display = true,
            '\\' if text[at..].starts_with("\\]") => display = false,
            '$' => formula = !formula && text[at + 1..].contains('$'),
            '{' => depth += 1,
            '}' => depth = (depth - 1).max(0),
            _ => {}
        }
        let next = chars.peek().map(|(_, next)| *next);
        let ends = match c {
            '.' => next.is_none_or(char::is_whitespace) && !abbreviated(&text[from..at]),
            '!' => next.is_none_or(char::is_whitespace) && !text[..at].ends_with(|c: char| c.is_ascii_digit()),
            '?' | '。' | '！' | '？' | ';' | '；' => true,
            '\n' => true,
            _ => false,
        };
        let broken = c == '\n' && !display;
        if ends && (broken || !formula && !display && depth == 0) {
            (formula, depth) = (false, 0);
            let keep = if matches!(c, '?' | '？') { at + c.len_utf8() } else { at };
            found.push(text[from..keep].trim());
            from = at + c.len_utf8();
        }
    }
    found.push(text[from..].trim());
    found.retain(|sentence| sentence.contains(|c: char| c.is_alphanumeric() || c == '$'));
    found
}

/// `i.e.` and `approx.` end no sentence.
fn abbreviated(text: &str) -> bool {
    ["i.e", "e.g", "approx", " vs", " etc", "Dr", "Mr", "Mrs"].iter().any(|word| text.ends_with(word))
}

/// Words behind an answer that take it back or leave it open.
#[rustfmt::skip]
const REVISIONS: &[&str] = &[
    "wait", "no", "not", "wrong", "incorrect", "actually", "but", "however", "instead", "correction", "mistake",
    "sorry", "maybe", "perhaps", "or", "unless",
    "except", "isn't", "false", "doubt", "unsure", "alternatively", "otherwise",
];
const REVISIONS_HAN: &[&str] = &["不对", "不是", "错", "但", "或", "等等", "除", "可能", "也许"];

/// The sentence that answers: the last that announces an answer, else the last with something to compute with.
pub(super) fn answering(text: &str) -> Option<String> {
    let all = sentences(text);
    let all = &all[all.len().saturating_sub(MAX_SENTENCES)..];
    let announces = |sentence: &&str| sentence.to_ascii_lowercase().contains("answer") || sentence.contains("答案");
    let at = all
        .iter()
        .rposition(|sentence| announces(sentence) && says_more(sentence))
        .or_else(|| all.iter().rposition(|sentence| super::has_value(sentence)))
        .or(all.len().checked_sub(1))?;
    let revised = all[at + 1..].iter().any(|after| {
        let lower = after.to_ascii_lowercase();
        let word = |word: &str| REVISIONS.contains(&word.trim_end_matches(|c: char| !c.is_ascii_alphabetic()));
        lower.split_whitespace().any(word) || REVISIONS_HAN.iter().any(|word| after.contains(word))
    });
    let asked = all[at].ends_with(['?', '？']);
    (!revised && !asked).then(|| all[at].to_owned())
}

/// Whether there is more than the word `answer` in it.
fn says_more(sentence: &str) -> bool {
    let lower = sentence.to_ascii_lowercase();
    let after =
        lower.rfind("answer").map(|at| &lower[at + "answer".len()..]).or_else(|| Some(&lower[lower.rfind("答案")?..]));
    super::has_value(sentence) || after.is_some_and(|after| after.split_whitespace().count() > 1)
}
