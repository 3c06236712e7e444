//! From tokens to a [`Value`]: lists, relations, sets and brackets. What stands between them is read in
//! [`super::arithmetic`].

use super::statement::Known;
use super::text;
use super::token::{Kind, Rel, Token};
use super::value::{Quantity, SetOp, Value};
use crate::expr::Expr;

/// Deepest nesting that is read.
pub(super) const MAX_DEPTH: usize = 48;

pub(super) struct Parser<'a> {
    pub(super) tokens: &'a [Token],
    /// Which words may stand beside a value.
    pub(super) known: Known<'a>,
    pub(super) at: usize,
    pub(super) depth: usize,
    /// Which of the two values of `±` is being read.
    pub(super) lower: bool,
    pub(super) saw_sign: bool,
    /// Inside the argument of a trigonometric function, where degrees are angles.
    pub(super) angle: bool,
    /// Inside `|...|`, where a bar closes.
    pub(super) bars: usize,
    /// The unit that was read last, if any.
    pub(super) unit: Option<super::units::Unit>,
    /// Where the last percent sign was read.
    pub(super) percent_at: usize,
    /// Whether letters may be units, and which were.
    pub(super) unit_letters: bool,
    pub(super) letters: Vec<char>,
    /// How many of them were written as variables are.
    pub(super) italic: usize,
}

/// The value of all tokens.
pub(super) fn parse(tokens: &[Token], known: Known) -> Option<Value> {
    parse_letters(tokens, known, false).map(|(value, _)| value)
}

/// The value when letters may be units, and the letters that were.
pub(super) fn parse_with_units(tokens: &[Token], known: Known) -> Option<(Value, Vec<char>)> {
    parse_letters(tokens, known, true).filter(|(_, letters)| !letters.is_empty())
}

fn parse_letters(tokens: &[Token], known: Known, unit_letters: bool) -> Option<(Value, Vec<char>)> {
    let mut parser = Parser {
        tokens,
        known,
        at: 0,
        depth: 0,
        lower: false,
        saw_sign: false,
        angle: false,
        bars: 0,
        unit: None,
        percent_at: usize::MAX,
        unit_letters,
        letters: Vec::new(),
        italic: 0,
    };
    let groups = parser.groups(true)?;
    (parser.at == tokens.len()).then_some(())?;
    let mut letters = parser.letters;
    letters.sort_unstable();
    letters.dedup();
    Some((list(groups)?, letters))
}

/// A single value stays itself; several become a list; several groups a list of lists.
fn list(groups: Vec<Vec<Value>>) -> Option<Value> {
    let mut values: Vec<Value> = groups
        .into_iter()
        .filter(|group| !group.is_empty())
        .map(|mut group| if group.len() == 1 { group.remove(0) } else { Value::List(group) })
        .collect();
    match values.len() {
        0 => None,
        1 => Some(values.remove(0)),
        _ => Some(Value::List(values)),
    }
}

impl Parser<'_> {
    pub(super) fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    pub(super) fn spaced(&self) -> bool {
        self.tokens.get(self.at).is_some_and(|token| token.spaced)
    }

    pub(super) fn eat(&mut self, kind: &Kind) -> bool {
        let found = self.peek() == Some(kind);
        if found {
            self.at += 1;
        }
        found
    }

    pub(super) fn enter(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    /// Values up to a closing bracket or the end, parted by commas; groups parted by semicolons.
    /// `apart`: each value's `±` is resolved on its own.
    fn groups(&mut self, apart: bool) -> Option<Vec<Vec<Value>>> {
        let mut groups = vec![Vec::new()];
        loop {
            match self.peek() {
                None | Some(Kind::Close(_) | Kind::End(_)) => return Some(groups),
                Some(Kind::Comma | Kind::And | Kind::Or | Kind::Row | Kind::Cell) => self.at += 1,
                Some(Kind::Semicolon) => {
                    self.at += 1;
                    groups.push(Vec::new());
                }
                Some(_) => {
                    let value = if apart { self.item()? } else { self.relation()? };
                    let ended = matches!(
                        self.peek(),
                        None | Some(
                            Kind::Close(_)
                                | Kind::End(_)
                                | Kind::Comma
                                | Kind::And
                                | Kind::Or
                                | Kind::Row
                                | Kind::Cell
                                | Kind::Semicolon
                        )
                    );
                    if !ended {
                        return None;
                    }
                    groups.last_mut()?.push(value);
                }
            }
        }
    }

    /// One value; with `±` in it, the set of both.
    fn item(&mut self) -> Option<Value> {
        let start = self.at;
        let outer = std::mem::replace(&mut self.saw_sign, false);
        let upper = self.relation()?;
        let both = std::mem::replace(&mut self.saw_sign, outer);
        if !both || self.lower {
            return Some(upper);
        }
        let end = std::mem::replace(&mut self.at, start);
        self.lower = true;
        let lower = self.relation();
        self.lower = false;
        self.saw_sign = outer;
        (self.at == end).then_some(())?;
        Some(Value::Set(vec![upper, lower?]))
    }

    /// `a < b <= c`, `x = 5`, `x ∈ A`, or a value alone.
    pub(super) fn relation(&mut self) -> Option<Value> {
        if let Some(words) = self.words() {
            return Some(words);
        }
        // `= 5` and `≈ 5` are 5.
        while matches!(self.peek(), Some(Kind::Rel(Rel::Eq | Rel::Approx) | Kind::In)) {
            self.at += 1;
        }
        let italic = self.italic;
        let mut values = vec![self.set_value()?];
        let mut signs = Vec::new();
        while let Some(kind) = self.peek() {
            match *kind {
                Kind::In => {
                    // Membership is the set.
                    self.at += 1;
                    values = vec![self.set_value()?];
                    signs.clear();
                }
                Kind::Rel(Rel::Approx) if signs.contains(&Rel::Eq) => {
                    // A rounded repetition of what was said exactly.
                    self.at += 1;
                    self.set_value()?;
                }
                Kind::Rel(sign) => {
                    self.at += 1;
                    signs.push(if sign == Rel::Approx { Rel::Eq } else { sign });
                    values.push(self.set_value()?);
                }
                _ => break,
            }
        }
        // `V = 3 h` relates two variables.
        if !signs.is_empty() && self.italic > italic {
            return None;
        }
        // x = (-1)^n pi, n ∈ Z: the membership of an index says nothing about the value.
        Some(if signs.is_empty() { values.pop()? } else { Value::Relation(values, signs) })
    }

    /// An answer in words: names and text only, up to the next separator.
    fn words(&mut self) -> Option<Value> {
        let mut end = self.at;
        let mut words = Vec::new();
        let mut wordy = false;
        while let Some(token) = self.tokens.get(end) {
            match &token.kind {
                Kind::Word(word) => {
                    wordy |= !super::names::function_name(word) && !constant_word(word);
                    words.push(word.clone());
                }
                Kind::Text(text) => {
                    wordy = true;
                    words.push(text.clone());
                }
                Kind::Letter(letter) => words.push(letter.to_string()),
                Kind::Minus if wordy => {}
                Kind::Comma
                | Kind::And
                | Kind::Or
                | Kind::Row
                | Kind::Cell
                | Kind::Semicolon
                | Kind::Close(_)
                | Kind::End(_) => {
                    break;
                }
                _ => return None,
            }
            end += 1;
        }
        if let [Token { kind: Kind::Word(word), .. }] = &self.tokens[self.at..end] {
            // Two letters are two points or two factors, and commute.
            let verdict = matches!(word.as_str(), "no" | "No");
            if word.chars().count() == 2 && !verdict {
                return None;
            }
            wordy |= verdict;
        }
        if !wordy {
            return None;
        }
        self.at = end;
        Some(Value::Text(text::folded(&words.join(" "))))
    }

    /// Sets joined by ∪, ∩ and ∖, ratios, or arithmetic.
    fn set_value(&mut self) -> Option<Value> {
        let mut left = self.ratio()?;
        loop {
            let operation = match self.peek() {
                Some(Kind::Cup) => SetOp::Union,
                // `(1,2)U(3,4)`
                Some(Kind::Letter('U')) if is_set(&left) && matches!(self.peek_at(1), Some(Kind::Open(_))) => {
                    SetOp::Union
                }
                Some(Kind::Cap) => SetOp::Intersection,
                Some(Kind::SetMinus) => SetOp::Difference,
                Some(Kind::Minus) if matches!(left, Value::Reals) => SetOp::Difference,
                _ => return Some(left),
            };
            self.at += 1;
            let right = self.ratio()?;
            left = Value::Combined(operation, Box::new(left), Box::new(right));
        }
    }

    fn ratio(&mut self) -> Option<Value> {
        let start = self.at;
        let first = self.sum()?;
        if self.peek() != Some(&Kind::Colon) {
            return Some(self.quantity(first));
        }
        let mut parts = vec![first.as_expr()?.clone()];
        while self.eat(&Kind::Colon) {
            parts.push(self.sum()?.as_expr()?.clone());
        }
        let clock = self.tokens[start..self.at].iter().skip(1).any(|token| {
            matches!(&token.kind, Kind::Number(_, Some(digits)) if digits.len() == 2 && digits.starts_with('0'))
        });
        Some(Value::Ratio { parts, clock })
    }

    /// Attaches the unit and percent sign that were just read.
    fn quantity(&mut self, value: Value) -> Value {
        let unit = self.unit.take();
        match value {
            Value::Quantity(quantity) => {
                let percent = self.percent_at == self.at;
                Value::Quantity(Quantity { expr: quantity.expr, percent, unit })
            }
            other => other,
        }
    }

    /// What stands in a bracket whose opening sign has been read, up to and with its closing sign.
    pub(super) fn bracket(&mut self, open: char) -> Option<Value> {
        self.enter()?;
        let bars = std::mem::replace(&mut self.bars, 0);
        let (unit, percent_at) = (self.unit.take(), self.percent_at);
        // A set builder: {x | x < 3}, {x : x < 3}.
        if matches!(open, 'S' | '{')
            && matches!(self.peek(), Some(Kind::Letter(_)))
            && matches!(self.peek_at(1), Some(Kind::Bar | Kind::Colon))
        {
            self.at += 2;
        }
        let groups = self.groups(open == 'S')?;
        let close = match self.peek() {
            Some(&Kind::Close(close)) => close,
            _ => return None,
        };
        self.at += 1;
        self.bars = bars;
        self.depth -= 1;
        let fits = match open {
            '(' | '[' => matches!(close, ')' | ']'),
            // \left{ without its backslash, and the reverse.
            '{' | 'S' => matches!(close, '}' | 'S'),
            _ => close == open || (open == '⟨' && close == '⟩'),
        };
        fits.then_some(())?;
        let grouped = groups.len() > 1;
        let mut items: Vec<Value> = if grouped && groups.iter().any(|group| group.len() > 1) {
            groups.into_iter().filter(|group| !group.is_empty()).map(Value::List).collect()
        } else {
            groups.into_iter().flatten().collect()
        };
        if open == 'S' {
            return Some(match items.as_slice() {
                [] => Value::Empty,
                [Value::Relation(..) | Value::Combined(..) | Value::Reals] => items.remove(0),
                _ => Value::Set(items),
            });
        }
        match items.len() {
            0 => None,
            // Brackets around one value only group it.
            1 => {
                let only = items.remove(0);
                if let Value::Quantity(Quantity { percent: true, .. }) = &only {
                    self.percent_at = self.at;
                } else {
                    self.percent_at = percent_at;
                }
                self.unit = match &only {
                    Value::Quantity(Quantity { unit: Some(unit), .. }) => Some(unit.clone()),
                    _ => unit,
                };
                Some(only)
            }
            _ if open == '{' => Some(Value::List(items)),
            _ => Some(Value::Sequence { open, close, items }),
        }
    }
}

fn is_set(value: &Value) -> bool {
    matches!(value, Value::Sequence { .. } | Value::Set(_) | Value::Combined(..))
}

pub(super) fn constant_word(word: &str) -> bool {
    matches!(word, "pi" | "inf" | "infinity" | "oo" | "infty" | "percent" | "pct" | "percentage")
}

/// The value of an integer literal.
pub(super) fn small(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Num(value) if value.is_integer() => i64::try_from(value.to_integer()).ok(),
        _ => None,
    }
}
