//! Reading the unit behind a value.
//!
//! A letter is a variable first: `5 N` is five times N. Only a second reading of the same answer takes it for a unit,
//! and the grader uses that one where the other side knows no variable of that name.

use super::operations::{add, multiply};
use super::parser::{Parser, constant_word};
use super::relations::is_constant;
use super::token::{Kind, Token};
use super::units::{self, Unit};
use super::value::Value;
use crate::expr::Expr;

/// Whether a second reading, with letters as units, may differ.
pub(super) fn has_unit_letter(tokens: &[Token]) -> bool {
    (1..tokens.len()).any(|at| letter_begins(tokens, at))
}

/// Whether the letter there may begin a unit: it is upright, or apart from the number, or `m/s` or `m²` behind digits.
fn letter_begins(tokens: &[Token], at: usize) -> bool {
    let (Some(before), Some(token)) = (at.checked_sub(1).map(|at| &tokens[at].kind), tokens.get(at)) else {
        return false;
    };
    let Kind::Letter(letter) = token.kind else { return false };
    if matches!(before, Kind::Number(..)) && prefixed(tokens, at).is_some() {
        return true;
    }
    if !units::is_symbol(letter) {
        return false;
    }
    let joined = match (tokens.get(at + 1).map(|token| &token.kind), tokens.get(at + 2).map(|token| &token.kind)) {
        (Some(Kind::Divide), Some(Kind::Letter(letter))) => units::is_symbol(*letter),
        (Some(Kind::Divide), Some(Kind::Word(word))) => units::is_unit_word(word),
        // Only a superscript sign has no digits.
        (Some(Kind::Power), Some(Kind::Number(_, None))) => true,
        _ => false,
    };
    let digits = matches!(before, Kind::Number(..));
    let degrees = *before == Kind::Degree && matches!(letter, 'C' | 'F');
    if token.upright || degrees || digits && letter == 'Ω' {
        return true;
    }
    // `\frac{1}{2} h` is more often half of a height than half an hour.
    let common = letter == 'm' || !letter.is_ascii_lowercase();
    token.spaced && (digits || common) || digits && joined
}

/// A unit that is two tokens, a prefix and a symbol: `k\Omega`, `\text{k}\Omega`, `\mu\mathrm{m}`.
fn prefixed(tokens: &[Token], at: usize) -> Option<Unit> {
    let prefix = match &tokens.get(at)?.kind {
        Kind::Letter(prefix) => *prefix,
        Kind::Text(text) => Some(text.chars()).filter(|text| text.clone().count() == 1)?.next()?,
        _ => return None,
    };
    let symbol = tokens.get(at + 1)?;
    let name = match &symbol.kind {
        Kind::Letter('Ω') => "Ω".to_owned(),
        // `2 \mu m` is a product.
        Kind::Letter(letter) if prefix == 'μ' && (symbol.upright || !symbol.spaced || letter.is_ascii_uppercase()) => {
            letter.to_string()
        }
        Kind::Text(name) if prefix == 'μ' => name.clone(),
        _ => return None,
    };
    units::prefixed(prefix, &name)
}

fn is_percent(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "percent" | "percentage" | "pct" | "per cent")
}

impl Parser<'_> {
    /// A word that scales the number before it: `5 million`.
    pub(super) fn scale_word(&mut self, left: &Value) -> Option<Value> {
        let (Some(Expr::Num(_)), Some(Kind::Word(word) | Kind::Text(word))) = (left.as_expr(), self.peek()) else {
            return None;
        };
        let scale: u64 = match word.to_ascii_lowercase().as_str() {
            "dozen" => 12,
            "hundred" => 100,
            "thousand" | "千" => 1000,
            "万" => 10_000,
            "million" | "百万" => 1_000_000,
            "亿" => 100_000_000,
            "billion" => 1_000_000_000,
            "trillion" => 1_000_000_000_000,
            _ => return None,
        };
        self.at += 1;
        multiply(left.clone(), Value::expr(Expr::Num(num_rational::BigRational::from_integer(scale.into()))))
    }

    /// Reads a unit, or any text, behind a value.
    pub(super) fn unit_after(&mut self, left: &Value) -> bool {
        let Some(expr) = left.as_expr().filter(|left| self.unit_begins(left)) else { return false };
        let (start, letters, italic) = (self.at, self.letters.len(), self.italic);
        let factors = self.unit_factors(expr);
        let ended = matches!(
            self.peek(),
            None | Some(Kind::Comma | Kind::And | Kind::Or | Kind::Semicolon | Kind::Row | Kind::Rel(_))
        );
        // `1 h 30 min`
        let goes_on = matches!(self.peek(), Some(Kind::Number(..)))
            && matches!(self.peek_at(1), Some(Kind::Word(name) | Kind::Text(name)) if units::is_unit_word(name));
        if self.letters.len() > letters && !ended && !goes_on {
            (self.at, self.italic) = (start, italic);
            self.letters.truncate(letters);
            return false;
        }
        self.unit = units::product(factors);
        true
    }

    /// Adds what is left over in a smaller unit, as in `5 feet 6 inches`: the sum in the larger one.
    pub(super) fn smaller_unit(&mut self, left: &Value) -> Option<Value> {
        let larger = self.unit.clone()?;
        let (at, letters, italic) = (self.at, self.letters.len(), self.italic);
        let rest = match (left.as_expr()?, self.peek()?) {
            (Expr::Num(_), Kind::Number(rest, _)) => rest.clone(),
            _ => return None,
        };
        self.at += 1;
        let rest = Expr::Num(rest);
        if self.unit_after(&Value::expr(rest.clone()))
            && let Some(smaller) = &self.unit
            && smaller.dimension == larger.dimension
            && smaller.scale < larger.scale
        {
            let share = Expr::Num(&smaller.scale / &larger.scale);
            self.unit = Some(larger);
            return add(left.clone(), multiply(Value::expr(rest), Value::expr(share))?);
        }
        (self.at, self.italic, self.unit) = (at, italic, Some(larger));
        self.letters.truncate(letters);
        None
    }

    fn unit_begins(&self, left: &Expr) -> bool {
        let numeric = matches!(left, Expr::Num(_));
        let spaced = self.spaced();
        match self.peek() {
            // A percent word is left for the factor's own postfix signs: they divide by 100.
            Some(Kind::Text(text)) => !is_percent(text) && self.known.phrase(text),
            Some(Kind::Word(word)) => {
                let worded = numeric && spaced && self.noun_phrase(left) > 0;
                // `\frac{\sqrt3}{2}mg` is a weight.
                let glued = || numeric || word != "mg" && is_constant(left);
                !is_percent(word)
                    && (worded || units::is_unit_word(word) && (spaced || glued()))
                    && (numeric || word != "in")
            }
            Some(Kind::Letter(_)) => self.unit_letters && letter_begins(self.tokens, self.at) && is_constant(left),
            _ => false,
        }
    }

    /// How many words from the cursor on say what is counted: `red apples`, or one noun behind 1 and its parts.
    fn noun_phrase(&self, left: &Expr) -> usize {
        let word = |ahead: usize| match self.peek_at(ahead) {
            Some(Kind::Word(word)) if !super::names::function_name(word) && !constant_word(word) => Some(word.as_str()),
            _ => None,
        };
        if let Some(last) = (0..4)
            .take_while(|&ahead| word(ahead).is_some())
            .find(|&ahead| word(ahead).is_some_and(|word| self.known.beside(word)))
        {
            let adjectives = (0..last).all(|ahead| word(ahead).is_some_and(|word| self.known.may_be_noun(word)));
            return if adjectives { last + 1 } else { 0 };
        }
        let few = matches!(left, Expr::Num(value) if value <= &num_rational::BigRational::from_integer(1.into()));
        usize::from(few && word(0).is_some_and(|word| self.known.may_be_noun(word)))
    }

    /// Units with their powers, products and quotients: cm^2, m/s, N m, square inches per hour.
    fn unit_factors(&mut self, left: &Expr) -> Vec<(Option<Unit>, i32)> {
        let (tokens, start) = (self.tokens, self.at);
        let (mut sign, mut power) = (1, 1);
        let mut factors: Vec<(Option<Unit>, i32)> = Vec::new();
        // What is counted has no size, and may be several words.
        let noun = match self.peek() {
            Some(Kind::Word(word)) if !units::is_unit_word(word) => self.noun_phrase(left),
            _ => 0,
        };
        if noun > 0 {
            factors.push((None, 1));
            self.at += noun;
        }
        while let Some(token) = tokens.get(self.at) {
            let before = self.at.checked_sub(1).map(|at| &tokens[at].kind);
            let letter = matches!(token.kind, Kind::Letter(_));
            if (!letter || self.unit_letters && self.at == start)
                && let Some(unit) = prefixed(tokens, self.at)
            {
                let letters = tokens[self.at..self.at + 2].iter().filter_map(|token| match token.kind {
                    Kind::Letter(letter) => Some(letter),
                    _ => None,
                });
                self.letters.extend(letters.filter(|_| letter));
                factors.push((Some(unit), sign * power));
                power = 1;
                self.at += 2;
                continue;
            }
            match &token.kind {
                Kind::Text(name) | Kind::Word(name) => {
                    if let Some(word) = units::power_word(name) {
                        power = word;
                    } else if name == "per" {
                        sign = -1;
                    } else if !(self.known.phrase(name) || sign < 0 && self.known.may_be_noun(name)) {
                        break;
                    } else {
                        let degrees = before == Some(&Kind::Degree) && matches!(name.as_str(), "C" | "F");
                        let phrase = if degrees { units::factors(&format!("°{name}")) } else { units::factors(name) };
                        // A power behind it is that of its last unit: `\text{m/s}^2`.
                        for (unit, own) in phrase.unwrap_or(vec![(None, 1)]) {
                            factors.push((unit, sign * power * own));
                            power = 1;
                        }
                    }
                }
                &Kind::Letter(letter) if units::is_symbol(letter) => {
                    let divided = before == Some(&Kind::Divide);
                    let beside = token.spaced || token.upright || before == Some(&Kind::Times);
                    if !(divided || self.unit_letters && (self.at == start || beside)) {
                        break;
                    }
                    if !divided {
                        self.letters.push(letter);
                        self.italic += usize::from(!token.upright && before != Some(&Kind::Degree));
                    }
                    let degrees = before == Some(&Kind::Degree) && matches!(letter, 'C' | 'F');
                    let name = if degrees { format!("°{letter}") } else { letter.to_string() };
                    factors.push((units::unit(&name), sign * power));
                    power = 1;
                }
                Kind::Divide if self.unit_follows(|_| true) => sign = -1,
                Kind::Times if self.unit_follows(|name| units::phrase(name).is_some()) => {}
                Kind::Power => {
                    let Some((exponent, length)) = self.unit_power() else { break };
                    let Some(last) = factors.last_mut() else { break };
                    last.1 = last.1.saturating_mul(exponent);
                    self.at += length;
                    continue;
                }
                Kind::Degree if !factors.is_empty() => {}
                _ => break,
            }
            self.at += 1;
        }
        factors
    }

    /// Whether the next token but one is a unit, a word only if it is `named` so.
    fn unit_follows(&self, named: impl Fn(&str) -> bool) -> bool {
        match self.peek_at(1) {
            Some(Kind::Text(name) | Kind::Word(name)) => named(name),
            Some(Kind::Letter(letter)) => {
                units::is_symbol(*letter) && (self.unit_letters || self.peek() == Some(&Kind::Divide))
            }
            _ => false,
        }
    }

    /// The exponent at the cursor and how many tokens it takes; 0, which no unit has, for one that is no small integer.
    fn unit_power(&self) -> Option<(i32, usize)> {
        let braced = usize::from(self.peek_at(1) == Some(&Kind::Open('{')));
        let negative = usize::from(self.peek_at(1 + braced) == Some(&Kind::Minus));
        let number = 1 + braced + negative;
        let Some(Kind::Number(value, _)) = self.peek_at(number) else { return None };
        if braced == 1 && self.peek_at(number + 1) != Some(&Kind::Close('}')) {
            return None;
        }
        let power = i32::try_from(value.to_integer()).unwrap_or(0);
        let power = if value.is_integer() { power.saturating_mul(1 - 2 * negative as i32) } else { 0 };
        Some((power, number + 1 + braced))
    }
}
