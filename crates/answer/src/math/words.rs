//! Reading letters and words into tokens: names, words of other scripts, and the words that join two answers.

use super::lexer::Lexer;
use super::token::{Kind, Token};

/// The words that join two answers.
pub(super) fn conjunction(word: &str) -> Option<Kind> {
    // Longer ones are none, and would cost their length.
    if word.len() > 6 {
        return None;
    }
    match word.to_ascii_lowercase().as_str() {
        "and" | ", and" | ",and" | "和" | "与" | "及" | "且" | "以及" | "并且" => Some(Kind::And),
        "or" | ", or" | ",or" | "and/or" | "或" | "或者" | "或是" => Some(Kind::Or),
        _ => None,
    }
}

impl Lexer<'_> {
    /// Greek letters are names; runs of any other script are words, which a Chinese `and` or `or` parts.
    pub(super) fn foreign(&mut self, first: char) {
        if ('α'..='ω').contains(&first) || ('Α'..='Ω').contains(&first) || matches!(first, 'ϕ' | 'ϵ' | 'ϑ') {
            self.push(Kind::Letter(first));
            return;
        }
        let joins = |c: char| matches!(c, '或' | '和' | '与' | '及' | '且');
        let mut word = first.to_string();
        while let Some(c) = self.rest().chars().next().filter(|c| c.is_alphabetic() && !c.is_ascii()) {
            let doubled = word == "或" && matches!(c, '者' | '是') || matches!(word.as_str(), "以" | "并") && joins(c);
            if !doubled && (joins(c) || conjunction(&word).is_some()) {
                break;
            }
            word.push(c);
            self.at += c.len_utf8();
        }
        self.push(conjunction(&word).unwrap_or(Kind::Text(word)));
    }

    pub(super) fn letters(&mut self) {
        let rest = self.rest();
        let length = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let mut word = &rest[..length];
        // `1orW(x)`: a conjunction squeezed between two answers.
        let after_value = matches!(self.out.last(), Some(Token { kind: Kind::Number(..) | Kind::Close(_), .. }));
        for (joining, kind) in [("and", Kind::And), ("or", Kind::Or)] {
            let squeezed = after_value && word.len() > joining.len() && !self.spaced;
            if word.eq_ignore_ascii_case(joining)
                || (squeezed
                    && word.starts_with(joining)
                    && word[joining.len()..].starts_with(|c: char| c.is_ascii_uppercase()))
            {
                self.at += joining.len();
                self.push(kind);
                word = &word[joining.len()..];
                break;
            }
        }
        self.at += word.len();
        match word.len() {
            0 => {}
            1 => self.push(Kind::Letter(char::from(word.as_bytes()[0]))),
            _ => self.push(Kind::Word(word.to_owned())),
        }
    }
}
