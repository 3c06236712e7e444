//! The letters that a multiple-choice answer picks.
//!
//! A letter that is *stated* to be the answer counts before one that is judged right, that one before the letter that
//! the text begins with, and that before one that is only named. Among several statements the last one revises the
//! others. What only explains (`because C is longer`) is left out, a letter that is denied or compared with states
//! nothing, and an answer that leaves open which (`B or C`) has chosen none. Several letters together (`A and C`) are
//! a choice of several.
//!
//! `label` reads letters as they are written, `verdict` what is said right behind them, `evidence` what the words of
//! a sentence make of them; here the evidence is weighed.

mod evidence;
mod label;
mod verdict;
mod words;

use crate::simple::unwrap_markup;
use evidence::{Class, Evidence};
use label::{List, computes, ends, list};
use verdict::judgement;
use words::{Word, explanations, occurrences, words};

/// The letters that `text` picks, one bit each, A the lowest; 0 when it picks none.
pub(crate) fn choice_letters(text: &str) -> u32 {
    let text = unwrap_markup(text);
    if let Some(list) = list(text, true)
        && ends(list.rest)
    {
        return list.picked();
    }
    let words = words(text);
    let mut found = evidence::english(text, &words);
    found.extend(evidence::chinese(text));
    evidence::without_doubts(text, &words, &mut found);
    let explained = explanations(text, &words);
    let explains = |found: &Evidence| {
        let next = explained.partition_point(|(from, _)| *from <= found.at);
        next > 0 && found.at < explained[next - 1].1
    };
    let outside: Vec<Evidence> = found.iter().filter(|found| !explains(found)).copied().collect();
    let lead = leading(text).filter(|_| !lists_options(text));
    let kept = if outside.is_empty() && lead.is_none() { found } else { outside };
    weigh(kept, lead, revision(text, &words))
}

/// What a text picks: all that it says, the letters that it begins with, and where it last takes back what it said.
fn weigh(mut found: Vec<Evidence>, lead: Option<u32>, revised: Option<usize>) -> u32 {
    found.sort_by_key(|found| found.at);
    let of = |class: Class| found.iter().filter(move |found| found.class == class);
    let denied_from =
        |at: usize| of(Class::Denied).filter(|found| found.at > at).fold(0, |all, found| all | found.letters);
    let after = |at: usize| revised.is_some_and(|revised| at > revised);
    let judged = |all: &dyn Fn(usize) -> bool| -> Option<u32> {
        let judged: Vec<&Evidence> = of(Class::Judged).filter(|found| all(found.at)).collect();
        let open = judged.iter().any(|found| found.letters == 0);
        let letters = judged.iter().fold(0, |all, found| all | found.letters);
        (!judged.is_empty()).then_some(if open { 0 } else { letters })
    };
    if let Some(last) = of(Class::Stated).next_back() {
        // `The answer is B. Wait, C is correct.`
        if !after(last.at)
            && let Some(letters) = judged(&after)
        {
            return letters;
        }
        // `The answer is B. No, B is wrong.`
        return if denied_from(last.at) & last.letters != 0 { 0 } else { last.letters };
    }
    if let Some(letters) = judged(&|_| true) {
        return letters;
    }
    let denied = denied_from(0);
    if let Some(letters) = lead {
        return if letters & denied != 0 { 0 } else { letters };
    }
    let mut named = of(Class::Mentioned).filter(|found| found.letters & denied == 0 || found.letters == 0);
    match named.next() {
        Some(first) if named.all(|other| other.letters == first.letters) => first.letters,
        _ => 0,
    }
}

/// Where a text last takes back what it has said: `wait`, `no,`, `等等`.
fn revision(text: &str, words: &[Word]) -> Option<usize> {
    let takes_back = |word: &Word| {
        word.is_one_of(&["wait", "correction", "actually", "sorry", "scratch", "oops", "hmm"])
            || word.lower == "no" && word.gap.starts_with([',', '.', '!'])
    };
    let english = words.iter().rev().find(|word| takes_back(word)).map(|word| word.start);
    let chinese = occurrences(text, &["等等", "更正", "不对，", "不对,", "重新"]).last().map(|(at, _)| *at);
    english.max(chinese)
}

/// The letters that an answer begins with, when they are picked and no word or variable; none of them when it is left
/// open which.
fn leading(text: &str) -> Option<u32> {
    let list = list(text, true)?;
    let rest = list.rest;
    if computes(&list) {
        return None;
    }
    let option = list.closed || rest.starts_with(['.', ':', ',', '\n', '．', '：', '，', '、', '。']);
    let picked = match judgement(rest) {
        Some(right) => right,
        // `B 35 cm`, but not `A cat sat`: English has the one-letter words a and I.
        None => option || rest.starts_with(' ') && !list.lower && !text.starts_with(['A', 'I']),
    };
    // `A, B and C lie on a line` picks none of them.
    (picked && (single(&list) || ends(rest) || list.open)).then_some(list.picked())
}

fn single(list: &List) -> bool {
    list.letters.count_ones() == 1
}

/// Whether a text lists the options themselves: `A. ...` and below it `B. ...`, or `A) 3, B) 4`.
fn lists_options(text: &str) -> bool {
    let mut lines = text.lines().filter_map(|line| {
        let mut chars = line.trim_start_matches(['(', '*', ' ', '-']).chars();
        let letter = chars.next().filter(char::is_ascii_uppercase)?;
        chars.next().filter(|sign| matches!(sign, '.' | ')' | ':' | '、' | '．')).map(|_| letter)
    });
    let inline = || {
        let bytes = text.as_bytes();
        let mut labels = text.match_indices(") ").filter_map(|(at, _)| {
            let letter = bytes[at.checked_sub(1)?];
            let free = at < 2 || matches!(bytes[at - 2], b' ' | b'\n');
            (letter.is_ascii_uppercase() && free).then_some(letter)
        });
        labels.next().is_some_and(|first| labels.any(|other| other != first))
    };
    lines.next().is_some_and(|first| lines.any(|other| other != first)) || inline()
}

#[cfg(test)]
mod tests;
