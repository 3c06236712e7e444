//! Which part of a text in words is its answer: the whole statement must be understood.
//!
//! A statement is `lead value tail`. A lead ends in a word that says what something *is* (`the sum is`, `there are`,
//! `答案是`) and a tail says what is counted, or explains (`of them`, `because ...`). Words that are not known to leave
//! a value as it is (`at least 7`, `7 or more`, `anything but 7`, `至少7`) leave no value: such a text has no answer.
//! So the lists in here name what is harmless; only within noun phrases, which are open, they name what is not.
//!
//! [`sentences`] finds the sentence that answers, [`english`] and [`chinese`] take its words off.

mod chinese;
mod english;
mod sentences;
mod vocabulary;

pub(super) use vocabulary::{Known, has_prose};

use super::names::is_ideograph;

/// Longest sentence, in bytes, that is looked at.
const MAX_SENTENCE: usize = 1200;

/// The part of the text that is its answer; `None` when it is not understood. `readable` says whether a part is a
/// value.
pub(super) fn stated(text: &str, known: &Known, readable: &dyn Fn(&str) -> bool) -> Option<String> {
    let plain = sentences::without_markup(text);
    let sentence = rounded(sentences::answering(&plain)?, known)?;
    if sentence.len() > MAX_SENTENCE {
        return None;
    }
    if sentence.chars().any(is_ideograph) {
        chinese::stated(&sentence, readable)
    } else {
        english::stated(&sentence, readable)
    }
}

/// A sentence without words like `about`, which only an answer that is rounded anyway may use.
fn rounded(sentence: String, known: &Known) -> Option<String> {
    const ENGLISH: &[&str] = &["about", "approximately", "roughly", "around", "approx.", "approx"];
    const CHINESE: &[&str] = &["大约", "约等于", "约为", "约"];
    let about = sentence.split_whitespace().any(|word| ENGLISH.contains(&word.to_ascii_lowercase().as_str()));
    let about_han = CHINESE.iter().any(|word| sentence.contains(word))
        && !sentence.contains("约分")
        && !sentence.contains("公约数");
    match (about || about_han, known.rounded || known.trusted) {
        (false, _) => Some(sentence),
        (true, false) => None,
        (true, true) => {
            let sentence = CHINESE
                .iter()
                .fold(sentence, |text, word| text.replace(word, if word.ends_with('为') { "为" } else { "" }));
            Some(sentence)
        }
    }
}

/// Whether a part of a text holds something to compute with.
fn has_value(text: &str) -> bool {
    text.contains(|c: char| c.is_ascii_digit() || matches!(c, '$' | '\\' | '½' | '¼' | '¾' | 'π' | '∞' | '√' | '='))
}
