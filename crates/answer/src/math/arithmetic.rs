//! Reading sums, products, powers, and the percent signs and degrees behind a number.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::operations::{add, divide, multiply, negate, raise};
use super::parser::Parser;
use super::token::Kind;
use super::value::Value;
use crate::expr::{Expr, Func};

/// Most signs behind one value: `x^2!%`.
const MAX_POSTFIX: usize = 8;

impl Parser<'_> {
    pub(super) fn sum(&mut self) -> Option<Value> {
        self.enter()?;
        let mut left = self.signed()?;
        let italic = self.italic;
        loop {
            let negative = match self.peek() {
                Some(Kind::Plus) => false,
                Some(Kind::Minus) if !matches!(left, Value::Reals) => true,
                Some(Kind::PlusMinus) => self.either(false),
                Some(Kind::MinusPlus) => self.either(true),
                _ => break,
            };
            self.at += 1;
            // `3 + -2`, `3 - -2`
            let mut negative = negative;
            while let Some(Kind::Plus | Kind::Minus) = self.peek() {
                negative ^= self.peek() == Some(&Kind::Minus);
                self.at += 1;
            }
            let right = self.product()?;
            // `2 + 3 m` is a polynomial.
            if self.italic > italic {
                return None;
            }
            left = add(left, if negative { negate(right)? } else { right })?;
        }
        self.depth -= 1;
        Some(left)
    }

    /// Whether `±` (or `∓`) is a minus in this reading.
    fn either(&mut self, flipped: bool) -> bool {
        self.saw_sign = true;
        self.lower != flipped
    }

    fn signed(&mut self) -> Option<Value> {
        let mut negative = false;
        loop {
            let minus = match self.peek() {
                Some(Kind::Plus) => false,
                Some(Kind::Minus) => true,
                Some(Kind::PlusMinus) => self.either(false),
                Some(Kind::MinusPlus) => self.either(true),
                _ => break,
            };
            negative ^= minus;
            self.at += 1;
        }
        let value = self.product()?;
        if negative { negate(value) } else { Some(value) }
    }

    pub(super) fn product(&mut self) -> Option<Value> {
        let mut left = self.factor()?;
        loop {
            if let Some(scaled) = self.scale_word(&left) {
                left = scaled;
                continue;
            }
            if self.unit_after(&left) {
                while let Some(sum) = self.smaller_unit(&left) {
                    left = sum;
                }
                continue;
            }
            match self.peek() {
                Some(Kind::Times) => {
                    self.at += 1;
                    let right = self.signed_factor()?;
                    left = multiply(left, right)?;
                }
                Some(Kind::Divide) => {
                    self.at += 1;
                    let right = self.signed_factor()?;
                    left = divide(left, right)?;
                }
                Some(_) if self.starts_factor() => {
                    // 3 1/2 and 3\frac{1}{2}
                    if let Some(mixed) = self.mixed(&left) {
                        left = mixed;
                        continue;
                    }
                    // Two numbers side by side are no product: `1 2`, but `2 \frac{...}` is.
                    if matches!(self.peek(), Some(Kind::Number(..)))
                        && matches!(self.tokens[self.at - 1].kind, Kind::Number(..))
                    {
                        return None;
                    }
                    let right = self.factor()?;
                    left = multiply(left, right)?;
                }
                _ => return Some(left),
            }
        }
    }

    pub(super) fn signed_factor(&mut self) -> Option<Value> {
        match self.peek() {
            Some(Kind::Minus) => {
                self.at += 1;
                negate(self.factor()?)
            }
            Some(Kind::Plus) => {
                self.at += 1;
                self.factor()
            }
            _ => self.factor(),
        }
    }

    pub(super) fn starts_factor(&self) -> bool {
        match self.peek() {
            Some(Kind::Number(..) | Kind::Letter(_) | Kind::Word(_) | Kind::Infinity) => {
                // `(1,2)U(3,4)` is a union.
                !(self.peek() == Some(&Kind::Letter('U')) && matches!(self.peek_at(1), Some(Kind::Open(_))))
            }
            Some(Kind::Open(open)) => matches!(open, '(' | '{' | '['),
            Some(Kind::Begin(_)) => true,
            Some(Kind::Bar) => self.bars == 0,
            Some(Kind::Command(name)) => !matches!(name.as_str(), "rfloor" | "rceil" | "pmod" | "bmod" | "mod"),
            _ => false,
        }
    }

    /// A proper fraction of digits after a whole number is added to it.
    fn mixed(&mut self, left: &Value) -> Option<Value> {
        if !matches!(self.tokens.get(self.at.checked_sub(1)?)?.kind, Kind::Number(_, Some(_))) {
            return None;
        }
        let whole = match left.as_expr()? {
            Expr::Num(value) if value.is_integer() => value.clone(),
            _ => return None,
        };
        let digits = |kind: Option<&Kind>| match kind {
            Some(Kind::Number(value, Some(_))) => Some(value.clone()),
            _ => None,
        };
        let (above, below, length) = match self.peek()? {
            Kind::Number(fraction, None) if fraction < &BigRational::one() && !fraction.is_integer() => {
                // 3½; a decimal without its zero is none.
                if self.spaced() {
                    return None;
                }
                (fraction.clone(), BigRational::one(), 1)
            }
            Kind::Number(..) if self.spaced() && self.peek_at(1) == Some(&Kind::Divide) => {
                (digits(self.peek())?, digits(self.peek_at(2))?, 3)
            }
            Kind::Command(name) if name == "frac" => match self.peek_at(1)? {
                Kind::Open('{') => {
                    let closed =
                        self.peek_at(3) == Some(&Kind::Close('}')) && self.peek_at(4) == Some(&Kind::Open('{'));
                    (closed && self.peek_at(6) == Some(&Kind::Close('}'))).then_some(())?;
                    (digits(self.peek_at(2))?, digits(self.peek_at(5))?, 7)
                }
                _ => (digits(self.peek_at(1))?, digits(self.peek_at(2))?, 3),
            },
            _ => return None,
        };
        if below.is_zero() || above >= below {
            return None;
        }
        self.at += length;
        let part = above / below;
        Some(Value::expr(Expr::Num(if whole.is_negative() { whole - part } else { whole + part })))
    }

    /// A primary with its signs behind it: `x^2`, `5!`, `30°`, `28%`.
    pub(super) fn factor(&mut self) -> Option<Value> {
        self.enter()?;
        let mut value = self.primary()?;
        for signs in 0.. {
            // Each sign wraps the expression once more.
            if signs > MAX_POSTFIX {
                return None;
            }
            match self.peek() {
                Some(Kind::Power) => {
                    self.at += 1;
                    if self.eat(&Kind::Prime) {
                        continue;
                    }
                    // Primes may be written as a power: f^{\prime}.
                    if self.peek() == Some(&Kind::Open('{')) && self.peek_at(1) == Some(&Kind::Prime) {
                        while matches!(self.peek(), Some(Kind::Open('{') | Kind::Prime | Kind::Close('}'))) {
                            self.at += 1;
                        }
                        continue;
                    }
                    let exponent = self.exponent()?;
                    value = raise(value, exponent)?;
                }
                Some(Kind::Bang) => {
                    self.at += 1;
                    value = Value::expr(Expr::call(Func::Factorial, value.as_expr()?.clone()));
                }
                Some(Kind::Percent) => {
                    self.at += 1;
                    value = self.percent(value)?;
                }
                Some(Kind::Word(word) | Kind::Text(word))
                    if matches!(word.to_ascii_lowercase().as_str(), "percent" | "percentage" | "pct" | "per cent") =>
                {
                    self.at += 1;
                    value = self.percent(value)?;
                }
                Some(Kind::Degree) => {
                    self.at += 1;
                    if self.angle {
                        let turn = Expr::Mul(vec![Expr::ratio(1, 180), Expr::Pi]);
                        value = Value::expr(Expr::Mul(vec![value.as_expr()?.clone(), turn]));
                    } else {
                        value.as_expr()?;
                    }
                }
                _ => break,
            }
        }
        self.depth -= 1;
        Some(value)
    }

    fn percent(&mut self, value: Value) -> Option<Value> {
        self.percent_at = self.at;
        let expr = match value.as_expr()? {
            Expr::Num(value) => Expr::Num(value / BigRational::from_integer(100.into())),
            other => Expr::Mul(vec![other.clone(), Expr::ratio(1, 100)]),
        };
        Some(Value::expr(expr))
    }

    pub(super) fn exponent(&mut self) -> Option<Expr> {
        self.enter()?;
        let negative = self.eat(&Kind::Minus);
        if !negative {
            self.eat(&Kind::Plus);
        }
        let mut value = match self.peek()? {
            Kind::Open('{') => {
                self.at += 1;
                self.bracket('{')?
            }
            _ => self.primary()?,
        };
        // 2^3^2 is 2^(3^2).
        if self.eat(&Kind::Power) {
            let upper = self.exponent()?;
            value = Value::expr(value.as_expr()?.clone().pow(upper));
        }
        self.depth -= 1;
        let expr = value.as_expr()?.clone();
        Some(if negative { expr.neg() } else { expr })
    }

    /// A brace group or one factor without signs behind it, as an expression.
    pub(super) fn argument(&mut self) -> Option<Expr> {
        let value = if self.eat(&Kind::Open('{')) { self.bracket('{')? } else { self.primary()? };
        value.as_expr().cloned()
    }

    fn primary(&mut self) -> Option<Value> {
        self.enter()?;
        let token = self.tokens.get(self.at)?;
        self.at += 1;
        let value = match &token.kind {
            Kind::Number(value, digits) => {
                let number = Expr::Num(value.clone());
                if digits.is_some() && self.peek() == Some(&Kind::Subscript) {
                    // 204_5: digits in a base.
                    self.at += 1;
                    let base = self.argument()?;
                    Value::expr(in_base(digits.as_deref()?, base))
                } else {
                    Value::expr(number)
                }
            }
            Kind::Letter(letter) => self.letter(*letter)?,
            Kind::Word(word) => self.word(word)?,
            Kind::Text(text) if matches!(self.peek(), Some(Kind::Rel(_))) => Value::expr(Expr::var(text)),
            Kind::Infinity => Value::expr(Expr::Infinity),
            Kind::Open(open) => self.bracket(*open)?,
            Kind::Bar => {
                self.bars += 1;
                let inner = self.sum()?;
                if !self.eat(&Kind::Bar) {
                    return None;
                }
                self.bars -= 1;
                Value::expr(Expr::call(Func::Abs, inner.as_expr()?.clone()))
            }
            Kind::Begin(name) => self.table(name)?,
            Kind::Command(name) => self.command(name)?,
            _ => return None,
        };
        self.depth -= 1;
        Some(value)
    }
}

/// Digits in a base from 2 to 36 keep their base: 10_2 is not 2 as an answer, and not 10.
fn in_base(digits: &str, base: Expr) -> Expr {
    let value = Expr::Num(BigRational::from_integer(digits.parse::<BigInt>().unwrap_or_default()));
    Expr::Call(Func::Named("in base".into()), vec![value, base])
}
