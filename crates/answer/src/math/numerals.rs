//! Numbers as they are written: decimals, separators of thousands of both conventions, exponents.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Pow;

use super::lexer::{Commas, Lexer};
use super::token::Kind;
use crate::expr::number;

/// Longest number, in digits, and largest decimal exponent.
const MAX_DIGITS: usize = 4000;

impl<'a> Lexer<'a> {
    pub(super) fn digits_from(&self, at: usize) -> &'a str {
        let rest = &self.text[at..];
        &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())]
    }

    /// The length of a separator of thousands at `at`, when exactly three digits follow it.
    fn thousands(&self, at: usize, first: &str) -> Option<usize> {
        if first.is_empty() || first.len() > 3 || first.starts_with('0') {
            return None;
        }
        let rest = &self.text[at..];
        // Blanks may stand after the separators of TeX, whose own blanks mean nothing.
        let length = if let Some(after) = rest.strip_prefix(r",\!").or_else(|| rest.strip_prefix(r"\!,\!")) {
            rest.len() - after.trim_start_matches(' ').len()
        } else if let Some(after) = rest.strip_prefix("{,}").or_else(|| rest.strip_prefix("{,\\!}")) {
            rest.len() - after.trim_start_matches(' ').len()
        } else if rest.starts_with(" {, }") || rest.starts_with(" {,}") {
            rest.find('}')? + 1
        } else if rest.starts_with(r"\,") || rest.starts_with(r"\ ") {
            2
        } else if self.commas == Commas::Thousands && rest.starts_with(',') {
            1
        } else if rest.starts_with([' ', '\u{a0}', '\u{202f}', '\'', '’']) {
            rest.chars().next()?.len_utf8()
        } else {
            return None;
        };
        (self.digits_from(at + length).len() == 3).then_some(length)
    }

    pub(super) fn number(&mut self) -> Option<()> {
        let mut whole = self.digits_from(self.at).to_owned();
        let mut at = self.at + whole.len();
        let mut plain = true;
        // The first separator found is the one that must go on.
        let mut separator: Option<&str> = None;
        while let Some(length) = self.thousands(at, if separator.is_none() { &whole } else { "1" }) {
            let this = &self.text[at..at + length];
            if separator.is_some_and(|first| first.trim() != this.trim()) {
                break;
            }
            separator = Some(this);
            whole.push_str(self.digits_from(at + length));
            at += length + 3;
            plain = false;
        }
        let mut fraction = "";
        let rest = &self.text[at..];
        let dots = continental(&self.text[self.at..]);
        if let (true, Some((length, digits, tail))) = (plain, dots) {
            // 1.234.567 and 1.234,56
            whole = digits;
            at = self.at + length;
            plain = false;
            if let Some(tail) = tail {
                fraction = self.digits_from(at + 1);
                at += 1 + tail;
            }
        } else if rest.starts_with('.') || (rest.starts_with("{.}")) {
            let length = if rest.starts_with('{') { 3 } else { 1 };
            fraction = self.digits_from(at + length);
            if !fraction.is_empty() || !rest[length..].starts_with(|c: char| c.is_alphabetic()) {
                at += length + fraction.len();
                plain = false;
            }
        } else if self.commas == Commas::Decimal && rest.starts_with(',') {
            let digits = self.digits_from(at + 1);
            if !digits.is_empty() {
                fraction = digits;
                at += 1 + digits.len();
                plain = false;
            }
        }
        // 6.02e23, but not 2e^x nor 3em.
        let mut exponent = 0i64;
        let rest = &self.text[at..];
        if let Some(after) = rest.strip_prefix(['e', 'E']) {
            let unsigned = after.strip_prefix(['+', '-']).unwrap_or(after);
            let digits = self.digits_from(self.text.len() - unsigned.len());
            if (1..=5).contains(&digits.len()) {
                exponent = digits.parse().ok()?;
                if after.starts_with('-') {
                    exponent = -exponent;
                }
                at = self.text.len() - unsigned.len() + digits.len();
                plain = false;
            }
        }
        self.at = at;
        let value = decimal(&whole, fraction, exponent)?;
        self.push(Kind::Number(value, plain.then_some(whole)));
        Some(())
    }
}

/// `1.234.567` or `1.234,56`: the length and digits of the whole part, and the number of digits after the comma.
fn continental(text: &str) -> Option<(usize, String, Option<usize>)> {
    let mut groups = 0;
    let mut at = text.find(|c: char| !c.is_ascii_digit())?;
    if at == 0 || at > 3 || text.starts_with('0') {
        return None;
    }
    let digits = |at: usize| text[at..].bytes().take_while(u8::is_ascii_digit).count();
    while text[at..].starts_with('.') && digits(at + 1) == 3 {
        at += 4;
        groups += 1;
    }
    let whole: String = text[..at].chars().filter(char::is_ascii_digit).collect();
    let decimals = if text[at..].starts_with(',') { digits(at + 1) } else { 0 };
    let tail = (decimals > 0 && decimals != 3).then_some(decimals);
    (groups > 1 || (groups == 1 && tail.is_some())).then_some((at, whole, tail))
}

/// An exact decimal.
fn decimal(whole: &str, fraction: &str, exponent: i64) -> Option<BigRational> {
    if whole.len() + fraction.len() > MAX_DIGITS || exponent.unsigned_abs() as usize > MAX_DIGITS {
        return None;
    }
    let digits: BigInt = format!("0{whole}{fraction}").parse().ok()?;
    let scale = exponent - fraction.len() as i64;
    Some(if scale >= 0 {
        BigRational::from_integer(digits * Pow::pow(&BigInt::from(10), scale.unsigned_abs()))
    } else {
        number::decimal(digits, scale.unsigned_abs())
    })
}

pub(super) fn superscript(c: char) -> Option<char> {
    Some(match c {
        '⁰' => '0',
        '¹' => '1',
        '²' => '2',
        '³' => '3',
        '⁴'..='⁹' => char::from(b'4' + (c as u32 - '⁴' as u32) as u8),
        _ => return None,
    })
}
