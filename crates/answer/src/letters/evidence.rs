//! What a text says of letters, each thing with its place: that one is the answer, is right, is meant, or is not.

use super::label::{List, computes, list};
use super::verdict::{is_negation, judgement};
use super::words::{Word, occurrences, stops};

/// How a letter is named, the strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Said not to be it: `not B`, `B is wrong`, `排除B`.
    Denied,
    /// Only compared with: `than option C`, `unlike A`.
    Contrasted,
    /// `option B`, and nothing more.
    Mentioned,
    /// Said to be right: `B is correct`.
    Judged,
    /// Stated to be the answer: `the answer is B`, `I choose B`, `选B`, `\boxed{B}`.
    Stated,
}

/// One thing that is said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    pub(super) at: usize,
    pub(super) class: Class,
    /// One bit each; none when it is left open which.
    pub(super) letters: u32,
}

/// Names of what is chosen.
const NOUNS: &[&str] =
    &["answer", "answers", "option", "options", "choice", "choices", "ans", "selection", "response", "solution"];
/// Verbs of choosing.
#[rustfmt::skip]
const CHOOSE: &[&str] = &[
    "choose", "chose", "choosing", "pick", "picked", "picking", "select", "selected", "selecting", "going", "go",
    "opt", "circle", "tick", "conclude",
    "answered",
];
/// Between a verb of choosing, or a copula, and the letter.
#[rustfmt::skip]
const FILLERS: &[&str] = &[
    "the", "option", "options", "choice", "choices", "letter", "answer", "answers", "with", "for", "is", "be",
    "clearly", "definitely", "indeed",
    "therefore", "thus", "simply", "just", "actually", "then", "only", "both", "most", "likely", "probably",
    "obviously", "certainly", "in", "fact",
    "that", "correct", "one", "final", "best", "again", "now", "instead", "it", "to", "as",
];
/// What leaves open whether it is so.
const HEDGES: &[&str] = &["may", "might", "could", "can", "either", "possibly", "perhaps", "maybe"];
const COPULAS: &[&str] =
    &["is", "are", "was", "were", "be", "equals", "becomes", "remains", "isn't", "wasn't", "aren't", "cannot", "can't"];
/// What compares, and what excludes.
const CONTRAST: &[&str] = &["than", "unlike", "versus", "vs", "against", "over", "compared", "contrast", "instead"];
const EXCLUDE: &[&str] = &[
    "eliminate",
    "eliminates",
    "eliminated",
    "eliminating",
    "exclude",
    "excludes",
    "excluding",
    "reject",
    "discard",
    "rule",
    "rules",
    "ruling",
    "ruled",
    "dismiss",
];
/// How many words a copula may stand behind its noun, and a letter behind its copula.
const REACH: usize = 14;
const NEAR: usize = 5;

/// The letters at a place in the text, behind signs that mean nothing.
fn letters_at(text: &str, at: usize) -> Option<(usize, List<'_>)> {
    let rest = &text[at..];
    let start = rest.trim_start_matches([
        ':', '：', ' ', '\n', '\t', '\r', '=', '-', '–', '—', '>', '→', '“', '#', '_', '~', '\'', '‘',
    ]);
    let place = at + rest.len() - start.len();
    let found = list(start, true)?;
    let bare = !found.closed && !start.starts_with(['(', '*', '"', '`', '[', '{', '\\', '$', '（', '【']);
    let rest = found.rest;
    let ended = rest.trim_start_matches(' ').is_empty()
        || rest.starts_with(['.', ',', ';', ':', '!', '?', '\n', '。', '，', '；', '）', ')']);
    // A small letter without a sign is a word, and so are A and I before one.
    if bare && found.lower && !ended {
        return None;
    }
    if bare
        && matches!(found.letters, 1 | 0x100)
        && start.len() - rest.len() == 1
        && rest.starts_with(' ')
        && judgement(rest).is_none()
    {
        let next: String = rest.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
        let goes_on = next.starts_with(|c: char| c.is_ascii_lowercase())
            && !matches!(
                next.as_str(),
                "because"
                    | "since"
                    | "as"
                    | "and"
                    | "or"
                    | "but"
                    | "rather"
                    | "not"
                    | "instead"
                    | "so"
                    | "which"
                    | "for"
                    | "due"
                    | "by"
                    | "with"
                    | "in"
                    | "from"
                    | "over"
            );
        if goes_on || found.letters == 0x100 && !ended {
            return None;
        }
    }
    (!computes(&found)).then_some((place, found))
}

/// Everything that English words say.
pub(super) fn english(text: &str, words: &[Word]) -> Vec<Evidence> {
    let mut found = Vec::new();
    for (k, word) in words.iter().enumerate() {
        if word.is_one_of(NOUNS) {
            found.extend(noun(text, words, k));
        } else if word.is_one_of(CHOOSE) {
            found.extend(chosen(text, words, k));
        } else if matches!(word.lower.as_str(), "it's" | "that's" | "it" | "that" | "this" | "which") {
            found.extend(pronoun(text, words, k));
        } else if matches!(word.lower.as_str(), "so" | "thus" | "therefore" | "hence" | "boxed" | "conclusion") {
            found.extend(concluded(text, word));
        } else if is_negation(&word.lower) || word.is_one_of(CONTRAST) || word.is_one_of(EXCLUDE) {
            found.extend(excluded(text, words, k));
        } else if word.lower.len() <= 10 && word.end - word.start <= 10 {
            found.extend(judged(text, words, k));
        }
    }
    found
}

/// Passes fillers from word `k` on; where the letter should be, and whether it was denied or hedged on the way.
fn behind(words: &[Word], mut k: usize, from: usize) -> (usize, bool, bool) {
    let (mut at, mut denied, mut open) = (from, false, false);
    for _ in 0..NEAR {
        let Some(word) = words.get(k) else { break };
        let negative = is_negation(&word.lower) && !word.is_one_of(&["wrong", "false", "incorrect"]);
        let hedge = word.is_one_of(HEDGES);
        if !(negative || hedge || word.is_one_of(FILLERS)) {
            break;
        }
        (denied, open) = (denied | negative, open | hedge);
        at = word.end;
        if word.stops() {
            break;
        }
        k += 1;
    }
    (at, denied, open)
}

/// What a letter behind a copula or a verb of choosing amounts to; after `not B`, what `but C` says.
fn stated(text: &str, at: usize, denied: bool, open: bool) -> Vec<Evidence> {
    let Some((place, list)) = letters_at(text, at) else { return Vec::new() };
    if denied || judgement(list.rest) == Some(false) {
        let mut found = vec![Evidence { at: place, class: Class::Denied, letters: list.letters }];
        let rest = list.rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix("but ").or_else(|| rest.strip_prefix("but rather ")) {
            found.extend(stated(text, text.len() - rest.len(), false, false));
        }
        return found;
    }
    let letters = if open { 0 } else { list.picked() };
    vec![Evidence { at: place, class: Class::Stated, letters }]
}

/// `the answer (to this question) is B`, `Answer: B`, `option B`.
fn noun(text: &str, words: &[Word], k: usize) -> Vec<Evidence> {
    let word = &words[k];
    let wrong = k > 0 && words[k - 1].is_one_of(&["wrong", "incorrect", "another", "other", "possible", "false"]);
    if wrong {
        return Vec::new();
    }
    if !word.gap.contains([':', '：', '=']) {
        // The letter right behind it.
        if let Some((place, list)) = letters_at(text, word.end)
            && !stops(&text[word.end..place])
        {
            return at_once(words, k, place, &list);
        }
        if word.stops() {
            return Vec::new();
        }
    } else {
        let (at, denied, open) = behind(words, k + 1, word.end);
        return stated(text, at, denied, open);
    }
    for (step, next) in words[k + 1..].iter().enumerate().take(REACH) {
        let modal = next.is_one_of(HEDGES);
        let negative = next.is_one_of(&["isn't", "wasn't", "aren't", "cannot", "can't"]);
        if next.is_one_of(COPULAS) || next.gap.contains([':', '：', '=']) {
            let before = &words[k + 1..k + 1 + step];
            let elsewhere = before.iter().any(|word| word.is_one_of(&["previous", "last", "earlier"]));
            if elsewhere || before.last().is_some_and(|word| word.lower == "would") && is_supposed(words, k) {
                return Vec::new();
            }
            let hedged = modal || before.last().is_some_and(|word| word.is_one_of(HEDGES));
            let (at, denied, open) = behind(words, k + step + 2, next.end);
            let refused = denied || negative || before.last().is_some_and(|word| is_negation(&word.lower));
            return stated(text, at, refused, open || hedged);
        }
        if next.stops() || next.is_one_of(NOUNS) {
            break;
        }
    }
    Vec::new()
}

/// Whether the sentence of word `k` says what would be if something else were: `Had it been 30°, the answer would be
/// C`.
fn is_supposed(words: &[Word], k: usize) -> bool {
    let from = words[..k].iter().rposition(Word::stops).map_or(0, |at| at + 1);
    let end = words[k..].iter().position(Word::stops).map_or(words.len(), |at| k + at + 1);
    words[from].is_one_of(&["had", "were"]) || words[from..end].iter().any(|word| word.lower == "if")
}

/// Takes out what is only asked, and denies what is doubted: `Is the answer B?`, `I don't think B is right`.
pub(super) fn without_doubts(text: &str, words: &[Word], found: &mut Vec<Evidence>) {
    found.retain(|found| {
        let end = text[found.at..].find(['.', '?', '!', '\n', '。', '？', '！', ';', '；']);
        !end.is_some_and(|end| text[found.at + end..].starts_with(['?', '？']))
    });
    for found in found.iter_mut().filter(|found| found.class >= Class::Judged) {
        let k = words.partition_point(|word| word.start < found.at);
        let clause = words[..k].iter().rev().take(NEAR + 3).take_while(|word| !word.stops() && !word.gap.contains(','));
        let clause: Vec<&Word> = clause.collect();
        let doubted = clause.iter().enumerate().any(|(at, word)| {
            let denied = clause.get(at + 1).is_some_and(|before| is_negation(&before.lower) || before.lower == "no");
            word.is_one_of(&["doubt", "unlikely", "doubtful"]) && !denied
                || word.is_one_of(&["think", "believe", "way"]) && denied
        });
        if doubted {
            found.class = Class::Denied;
        }
    }
}

/// `option B` is a mention; `answer B` states where it stands alone.
fn at_once(words: &[Word], k: usize, place: usize, list: &List) -> Vec<Evidence> {
    if let Some(right) = judgement(list.rest) {
        let class = if right { Class::Judged } else { Class::Denied };
        return vec![Evidence { at: place, class, letters: if right { list.picked() } else { list.letters } }];
    }
    let before = k.checked_sub(1).map(|k| &words[k]);
    let alone = list.rest.trim_start_matches(' ').is_empty() || stops(list.rest.get(..2).unwrap_or(list.rest));
    let states = words[k].is_one_of(&["answer", "ans"]) && alone
        || before.is_some_and(|word| !word.stops() && word.is_one_of(&["correct", "right", "best", "final"]));
    let class = if states { Class::Stated } else { Class::Mentioned };
    vec![Evidence { at: place, class, letters: list.picked() }]
}

/// `I choose B`, but not `I first chose B`.
fn chosen(text: &str, words: &[Word], k: usize) -> Vec<Evidence> {
    let word = &words[k];
    if word.is_one_of(&["go", "going"]) && !words.get(k + 1).is_some_and(|next| next.is_one_of(&["with", "for"])) {
        return Vec::new();
    }
    let before = &words[k.saturating_sub(3)..k];
    let earlier = before.iter().any(|word| {
        word.is_one_of(&[
            "first",
            "initially",
            "tempted",
            "originally",
            "might",
            "may",
            "could",
            "some",
            "students",
            "people",
            "who",
        ])
    });
    let denied = before.iter().any(|word| is_negation(&word.lower));
    let (at, refused, open) = behind(words, k + 1, word.end);
    if earlier { Vec::new() } else { stated(text, at, denied || refused, open) }
}

/// `it is B`, `that would be B`, `which is B`, where the sentence ends with it or goes on to explain.
fn pronoun(text: &str, words: &[Word], k: usize) -> Vec<Evidence> {
    let mut k = k;
    let (mut open, mut denied) = (false, false);
    if !words[k].lower.ends_with("'s") {
        let mut copula = false;
        for _ in 0..3 {
            let Some(next) = words.get(k + 1).filter(|_| !words[k].stops()) else { break };
            let known = next.is_one_of(COPULAS)
                || next.is_one_of(&["would", "should", "must", "has", "to", "corresponds", "matches", "option"]);
            if !(known || next.is_one_of(HEDGES)) {
                break;
            }
            open |= next.is_one_of(HEDGES);
            denied |= next.lower.ends_with("n't") || next.lower == "cannot";
            copula |= next.is_one_of(COPULAS) || next.is_one_of(&["corresponds", "matches"]);
            k += 1;
        }
        if !copula {
            return Vec::new();
        }
    }
    let (at, refused, hedged) = behind(words, k + 1, words[k].end);
    let (denied, open) = (denied || refused, open || hedged);
    let Some((_, list)) = letters_at(text, at) else { return Vec::new() };
    let after = list.rest.trim_start();
    let next: String = after.chars().take_while(char::is_ascii_alphabetic).collect();
    let ends = after.is_empty() || after.starts_with(['.', ',', ';', '!', '\n', '。', '(']);
    let explained =
        matches!(next.as_str(), "because" | "since" | "as" | "not" | "rather" | "that" | "which" | "but" | "and");
    if ends || explained { stated(text, at, denied, open) } else { Vec::new() }
}

/// `so B.`, `therefore (B)`, `\boxed{B}`.
fn concluded(text: &str, word: &Word) -> Vec<Evidence> {
    let boxed = word.lower == "boxed" && text[..word.start].ends_with('\\');
    let from = if boxed { word.start - 1 } else { word.end + usize::from(word.gap.starts_with(',')) };
    let Some((place, list)) = letters_at(text, from) else { return Vec::new() };
    let rest = list.rest.trim_start_matches(['$', ' ', '}']);
    let ends = rest.is_empty() || rest.starts_with(['.', '\n', '!', '。', ';']);
    if boxed || ends {
        return vec![Evidence { at: place, class: Class::Stated, letters: list.picked() }];
    }
    Vec::new()
}

/// `not B`, `than option C`, `rule out A`.
fn excluded(text: &str, words: &[Word], k: usize) -> Vec<Evidence> {
    let word = &words[k];
    let mut at = word.end;
    for next in words[k + 1..].iter().take(3) {
        if !next.is_one_of(&[
            "option", "options", "choice", "choices", "answer", "of", "out", "with", "to", "the", "letter", "both",
            "text",
        ]) {
            break;
        }
        at = next.end;
    }
    if stops(&text[word.end..at]) || word.stops() {
        return Vec::new();
    }
    let Some((place, list)) = letters_at(text, at) else { return Vec::new() };
    let contrast = word.is_one_of(CONTRAST) && !(word.lower == "than" && k > 0 && words[k - 1].lower == "rather");
    let class = if contrast { Class::Contrasted } else { Class::Denied };
    let mut found = vec![Evidence { at: place, class, letters: list.letters }];
    let rest = list.rest.trim_start_matches([',', ' ']);
    if class == Class::Denied
        && let Some(rest) = rest.strip_prefix("but ")
    {
        found.extend(stated(text, text.len() - rest.len(), false, false));
    }
    found
}

/// `B is correct`, `B and C are wrong`.
fn judged(text: &str, words: &[Word], k: usize) -> Vec<Evidence> {
    let word = &words[k];
    let raw = &text[word.start..word.end];
    let capitals = raw.bytes().all(|b| b.is_ascii_uppercase());
    let bracketed = text[..word.start].ends_with(['(', '（']);
    if !(capitals || bracketed && raw.len() == 1) {
        return Vec::new();
    }
    // The whole list is judged where it begins.
    let Some(list) = list(&text[word.start..], bracketed) else { return Vec::new() };
    if computes(&list) {
        return Vec::new();
    }
    match judgement(list.rest) {
        Some(true) => vec![Evidence { at: word.start, class: Class::Judged, letters: list.picked() }],
        Some(false) => vec![Evidence { at: word.start, class: Class::Denied, letters: list.letters }],
        None => Vec::new(),
    }
}

/// Words behind which a Chinese answer names its letter, with what they make of it.
#[rustfmt::skip]
const HAN: &[(&str, Class)] = &[
    ("不选", Class::Denied), ("排除", Class::Denied), ("不是", Class::Denied), ("并非", Class::Denied), ("除了", Class::Denied),
    ("不为", Class::Denied),
    ("不同于", Class::Contrasted), ("相比", Class::Contrasted), ("比", Class::Contrasted),
    ("选项", Class::Mentioned),
    ("而是", Class::Stated), ("答案", Class::Stated), ("选择", Class::Stated), ("选", Class::Stated), ("正确的是", Class::Stated),
    ("正确的为", Class::Stated), ("正确选项", Class::Stated), ("正确的选项", Class::Stated), ("所以是", Class::Stated), ("结论是", Class::Stated), ("应为", Class::Stated),
    ("应该是", Class::Stated),
];

/// Everything that Chinese words say.
pub(super) fn chinese(text: &str) -> Vec<Evidence> {
    let names: Vec<&str> = HAN.iter().map(|(word, _)| *word).collect();
    let mut found = Vec::new();
    let mut from = 0;
    for (at, word) in occurrences(text, &names) {
        // `选项` within `正确选项`
        if at < from {
            continue;
        }
        from = at + word.len();
        let mut class = HAN.iter().find(|(name, _)| *name == word).map_or(Class::Mentioned, |(_, class)| *class);
        let rest = &text[from..];
        let mut after = rest.trim_start_matches(['*', ' ']);
        let mut denied = false;
        let mut open = ["可能", "也许", "或许", "大概"].iter().any(|word| text[..at].ends_with(word));
        for _ in 0..NEAR {
            let before = after.len();
            for word in [
                "应该", "应当", "应", "就是", "是", "为", "选项", "选择", "选", "项", "】", "：", ":", "*", " ", "\n",
                "=", "的",
            ] {
                after = after.strip_prefix(word).unwrap_or(after);
            }
            for word in ["不是", "不为", "不应", "不", "并非", "不能", "不会"] {
                if let Some(rest) = after.strip_prefix(word) {
                    (after, denied) = (rest, true);
                }
            }
            for word in ["可能", "也许", "或许", "大概"] {
                if let Some(rest) = after.strip_prefix(word) {
                    (after, open) = (rest, true);
                }
            }
            if after.len() == before {
                break;
            }
        }
        let Some((place, list)) = letters_at(text, text.len() - after.len()) else { continue };
        if !text[text.len() - after.len()..place].trim_matches([' ', '\n', ':', '：', '=']).is_empty() {
            continue;
        }
        denied |=
            ["不", "别", "不能", "不要", "不会", "不认为", "不觉得"].iter().any(|word| text[..at].ends_with(word));
        match judgement(list.rest) {
            Some(false) => class = Class::Denied,
            Some(true) if class == Class::Mentioned => class = Class::Judged,
            _ if denied && class >= Class::Mentioned => class = Class::Denied,
            _ => {}
        }
        let letters = match class {
            Class::Denied | Class::Contrasted => list.letters,
            _ if open => 0,
            _ => list.picked(),
        };
        found.push(Evidence { at: place, class, letters });
    }
    found
}
