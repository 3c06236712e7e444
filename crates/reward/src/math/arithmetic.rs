//! Sums, products, powers, functions and matrices.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::parser::{Parser, constant_word, small};
use super::token::{Kind, Token};
use super::units;
use super::value::Value;
use crate::expr::{Expr, Func};

/// Largest matrix, in rows and in columns, that is multiplied out.
const MAX_MATRIX: usize = 12;

/// Most signs behind one value: `x^2!%`.
const MAX_POSTFIX: usize = 8;
/// Largest product of matrices, in nodes of its cells.
const MAX_PRODUCT: usize = 4000;

impl Parser<'_> {
    pub(super) fn sum(&mut self) -> Option<Value> {
        self.enter()?;
        let mut left = self.signed()?;
        loop {
            let negative = match self.peek() {
                Some(Kind::Plus) => false,
                Some(Kind::Minus) if !matches!(left, Value::Reals) => true,
                Some(Kind::PlusMinus) => self.either(false),
                Some(Kind::MinusPlus) => self.either(true),
                _ => break,
            };
            self.at += 1;
            let right = self.product()?;
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

    fn product(&mut self) -> Option<Value> {
        let mut left = self.factor()?;
        loop {
            if self.unit_after(&left) {
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

    fn signed_factor(&mut self) -> Option<Value> {
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

    fn starts_factor(&self) -> bool {
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

    /// Reads a unit, a percent word or any text behind a value.
    fn unit_after(&mut self, left: &Value) -> bool {
        let Some(expr) = left.as_expr() else { return false };
        let numeric = matches!(expr, Expr::Num(_));
        let spaced = self.spaced();
        let (name, plain) = match self.peek() {
            Some(Kind::Text(text)) => (text.clone(), false),
            Some(Kind::Word(word)) => (word.clone(), true),
            _ => return false,
        };
        if matches!(name.to_ascii_lowercase().as_str(), "percent" | "percentage" | "pct" | "per cent") {
            // Left for the factor's own postfix signs: they divide by 100.
            return false;
        }
        if plain {
            let known = units::is_unit_word(&name);
            let worded =
                numeric && spaced && name.len() >= 3 && !super::lexer::function_name(&name) && !constant_word(&name);
            if !(known && (numeric || spaced) || worded) || name == "in" && !numeric {
                return false;
            }
        }
        self.at += 1;
        let mut unit = units::phrase(&name);
        // Powers, quotients and further words of the unit: cm^2, m/s, square inches per hour.
        loop {
            match self.peek() {
                Some(Kind::Power) => {
                    let (power, length) = match (self.peek_at(1), self.peek_at(2), self.peek_at(3)) {
                        (Some(Kind::Number(power, _)), ..) => (power.clone(), 2),
                        (Some(Kind::Open('{')), Some(Kind::Number(power, _)), Some(Kind::Close('}'))) => {
                            (power.clone(), 4)
                        }
                        (Some(Kind::Open('{')), Some(Kind::Minus), Some(Kind::Number(..))) => {
                            unit = None;
                            self.at += 5;
                            continue;
                        }
                        _ => break,
                    };
                    let power = i32::try_from(power.to_integer()).unwrap_or(0);
                    unit = unit.and_then(|unit| unit.power(power));
                    self.at += length;
                }
                Some(Kind::Divide)
                    if matches!(self.peek_at(1), Some(Kind::Text(_) | Kind::Word(_) | Kind::Letter(_))) =>
                {
                    unit = None;
                    self.at += 2;
                }
                Some(Kind::Text(more)) => {
                    unit = if name.trim_end_matches('.').ends_with("quare") || name == "cubic" || name == "sq" {
                        units::phrase(&format!("{name} {more}"))
                    } else {
                        None
                    };
                    self.at += 1;
                }
                Some(Kind::Word(more)) => {
                    unit = units::phrase(&format!("{name} {more}"));
                    self.at += 1;
                }
                Some(Kind::Degree) => self.at += 1,
                _ => break,
            }
        }
        self.unit = unit;
        true
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

    fn exponent(&mut self) -> Option<Expr> {
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
    fn argument(&mut self) -> Option<Expr> {
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

    /// The name behind `_`, spelled out.
    fn subscript(&mut self) -> Option<String> {
        let mut name = String::from("_");
        if !self.eat(&Kind::Open('{')) {
            name.push_str(&spell(self.tokens.get(self.at)?)?);
            self.at += 1;
            return Some(name);
        }
        let mut depth = 1;
        loop {
            let token = self.tokens.get(self.at)?;
            self.at += 1;
            match token.kind {
                Kind::Open('{') => depth += 1,
                Kind::Close('}') => depth -= 1,
                _ => name.push_str(&spell(token)?),
            }
            if depth == 0 {
                return Some(name);
            }
            if name.len() > 200 {
                return None;
            }
        }
    }

    fn letter(&mut self, letter: char) -> Option<Value> {
        let mut name = letter.to_string();
        let mut plain = true;
        loop {
            if self.eat(&Kind::Subscript) {
                name.push_str(&self.subscript()?);
            } else if self.eat(&Kind::Prime) {
                name.push('\'');
            } else {
                break;
            }
            plain = false;
        }
        if plain {
            match letter {
                'e' => return Some(Value::expr(Expr::E)),
                'i' => return Some(Value::expr(Expr::I)),
                'π' => return Some(Value::expr(Expr::Pi)),
                _ => {}
            }
        }
        // f(x) is a function's value; x(y+1) is a product.
        if self.peek() == Some(&Kind::Open('(')) && !self.spaced() {
            let single = matches!(self.peek_at(1), Some(Kind::Letter(_) | Kind::Number(..)))
                && self.peek_at(2) == Some(&Kind::Close(')'));
            if matches!(letter, 'f' | 'g' | 'h') || (letter.is_ascii_uppercase() && single) || (!plain && single) {
                self.at += 1;
                let arguments = match self.bracket('(')? {
                    Value::Sequence { items, .. } => {
                        items.iter().map(|item| item.as_expr().cloned()).collect::<Option<Vec<_>>>()?
                    }
                    value => vec![value.as_expr()?.clone()],
                };
                return Some(Value::expr(Expr::Call(Func::Named(name.into()), arguments)));
            }
        }
        Some(Value::expr(Expr::var(&name)))
    }

    fn word(&mut self, word: &str) -> Option<Value> {
        match word {
            "pi" => return Some(Value::expr(Expr::Pi)),
            "inf" | "infinity" | "oo" | "infty" => return Some(Value::expr(Expr::Infinity)),
            _ => {}
        }
        if super::lexer::function_name(word) {
            return self.function(word);
        }
        // sinx, lnx, 2pir
        for name in ["arcsin", "arccos", "arctan", "sin", "cos", "tan", "ln", "log", "pi"] {
            if let Some(rest) = word.strip_prefix(name)
                && rest.len() == 1
            {
                let argument = self.letter(rest.chars().next()?)?.as_expr()?.clone();
                return Some(Value::expr(match (func(name), name) {
                    (_, "pi") => Expr::Mul(vec![Expr::Pi, argument]),
                    (Some(func), _) => Expr::call(func, argument),
                    (None, _) => Expr::Call(Func::Log, vec![Expr::int(10), argument]),
                }));
            }
        }
        // Words side by side are a sentence, not a product.
        if matches!(self.peek(), Some(Kind::Word(next)) if !super::lexer::function_name(next) && !constant_word(next) && word.len() > 2)
        {
            return None;
        }
        let letters: Vec<char> = word.chars().collect();
        let short = letters.len() == 2 || (letters.len() <= 4 && letters.iter().all(char::is_ascii_lowercase));
        if !short || letters.iter().any(|c| !c.is_alphabetic()) {
            let mut name = word.to_owned();
            if self.eat(&Kind::Subscript) {
                name.push_str(&self.subscript()?);
            }
            return Some(Value::expr(Expr::var(&name)));
        }
        // A product of letters; what follows binds to the last one.
        let (last, first) = letters.split_last()?;
        let mut factors = Vec::with_capacity(letters.len());
        for &letter in first {
            factors.push(match letter {
                'e' => Expr::E,
                'i' => Expr::I,
                _ => Expr::var(letter.encode_utf8(&mut [0; 4])),
            });
        }
        let mut last = self.letter(*last)?.as_expr()?.clone();
        if self.eat(&Kind::Power) {
            last = last.pow(self.exponent()?);
        }
        factors.push(last);
        Some(Value::expr(Expr::Mul(factors)))
    }

    fn command(&mut self, name: &str) -> Option<Value> {
        if super::lexer::function_name(name) && name != "sqrt" {
            return self.function(name);
        }
        let expr = match name {
            "frac" => {
                let above = self.argument()?;
                let below = self.argument()?;
                above.div(below)
            }
            "sqrt" => return self.root(),
            "pi" => Expr::Pi,
            "imath" | "jmath" => Expr::I,
            "binom" => {
                let above = self.argument()?;
                Expr::Call(Func::Binomial, vec![above, self.argument()?])
            }
            "lfloor" | "lceil" => {
                let inner = self.sum()?.as_expr()?.clone();
                let (close, func) = if name == "lfloor" { ("rfloor", Func::Floor) } else { ("rceil", Func::Ceil) };
                if !self.eat(&Kind::Command(close.into())) {
                    return None;
                }
                Expr::call(func, inner)
            }
            "boxed" | "fbox" | "mathopen" | "mathclose" => {
                return if self.eat(&Kind::Open('{')) { self.bracket('{') } else { None };
            }
            "emptyset" => return Some(Value::Empty),
            "R" => {
                if self.eat(&Kind::Power) {
                    return Some(Value::expr(Expr::var("ℝ").pow(self.exponent()?)));
                }
                return Some(Value::Reals);
            }
            "sum" | "prod" | "int" | "lim" | "iint" | "oint" => {
                let mut name = name.to_owned();
                loop {
                    if self.eat(&Kind::Subscript) {
                        name.push_str(&self.subscript()?);
                    } else if self.eat(&Kind::Power) {
                        name.push('^');
                        name.push_str(&self.subscript()?);
                    } else {
                        break;
                    }
                }
                let body = self.product_expr()?;
                Expr::Call(Func::Named(name.into()), vec![body])
            }
            "ldots" | "cdots" | "dots" | "vdots" | "dotsc" | "dotsb" => Expr::var("…"),
            _ => {
                // An unknown command is a name.
                let mut name = name.to_owned();
                if self.eat(&Kind::Subscript) {
                    name.push_str(&self.subscript()?);
                }
                Expr::var(&format!("\\{name}"))
            }
        };
        Some(Value::expr(expr))
    }

    fn product_expr(&mut self) -> Option<Expr> {
        self.product()?.as_expr().cloned()
    }

    fn root(&mut self) -> Option<Value> {
        let mut index = Expr::int(2);
        if self.eat(&Kind::Open('[')) {
            index = self.sum()?.as_expr()?.clone();
            if !self.eat(&Kind::Close(']')) {
                return None;
            }
        }
        let inside = self.argument()?;
        Some(Value::expr(match small(&index) {
            Some(2) => inside.sqrt(),
            Some(n @ 1..=1000) => Expr::Root(n as u32, Box::new(inside)),
            _ => inside.pow(index.recip()),
        }))
    }

    /// A function, with a power between its name and its argument: sin^2 x.
    fn function(&mut self, name: &str) -> Option<Value> {
        if name == "sqrt" {
            return self.root();
        }
        if name == "cbrt" {
            let inside = self.argument()?;
            return Some(Value::expr(Expr::Root(3, Box::new(inside))));
        }
        let mut base = None;
        let mut power = None;
        loop {
            if self.eat(&Kind::Subscript) {
                base = Some(self.argument()?);
            } else if self.eat(&Kind::Power) {
                power = Some(self.exponent()?);
            } else {
                break;
            }
        }
        let angle = std::mem::replace(&mut self.angle, true);
        let arguments = self.function_arguments();
        self.angle = angle;
        let mut arguments = arguments?;
        let first = arguments.first()?.clone();
        let one = arguments.len() == 1;
        let inverse = power.as_ref().and_then(small) == Some(-1);
        let expr = match (name, func(name)) {
            ("sin", _) if inverse => {
                power = None;
                Expr::call(Func::Asin, first)
            }
            ("cos", _) if inverse => {
                power = None;
                Expr::call(Func::Acos, first)
            }
            ("tan", _) if inverse => {
                power = None;
                Expr::call(Func::Atan, first)
            }
            ("log" | "lg", _) if one => {
                let base = base.unwrap_or_else(|| Expr::int(10));
                Expr::Call(Func::Log, vec![base, first])
            }
            ("exp", _) if one => Expr::E.pow(first),
            ("arcsec" | "arccsc" | "arccot", _) if one => {
                let func = match name {
                    "arcsec" => Func::Acos,
                    "arccsc" => Func::Asin,
                    _ => Func::Atan,
                };
                Expr::call(func, first.recip())
            }
            ("det", _) => return None,
            (_, Some(func @ (Func::Gcd | Func::Lcm | Func::Max | Func::Min))) => {
                Expr::Call(func, std::mem::take(&mut arguments))
            }
            (_, Some(func)) if one => Expr::call(func, first),
            _ => return None,
        };
        Some(Value::expr(match power {
            Some(power) => expr.pow(power),
            None => expr,
        }))
    }

    fn function_arguments(&mut self) -> Option<Vec<Expr>> {
        self.enter()?;
        let arguments = match self.peek()? {
            Kind::Open(open @ ('(' | '{' | '[')) => {
                let open = *open;
                self.at += 1;
                match self.bracket(open)? {
                    Value::Sequence { items, .. } | Value::List(items) => {
                        items.iter().map(|item| item.as_expr().cloned()).collect::<Option<Vec<_>>>()?
                    }
                    value => vec![value.as_expr()?.clone()],
                }
            }
            _ => {
                // sin 2x cos y: factors up to the next function.
                let negative = self.eat(&Kind::Minus);
                let mut product = self.factor()?;
                loop {
                    let function = match self.peek() {
                        Some(Kind::Command(name) | Kind::Word(name)) => {
                            super::lexer::function_name(name) && name != "sqrt"
                        }
                        Some(Kind::Open('(' | '[') | Kind::Begin(_)) => true,
                        Some(Kind::Number(..)) => true,
                        _ => false,
                    };
                    if function || !self.starts_factor() {
                        break;
                    }
                    product = multiply(product, self.factor()?)?;
                }
                let expr = product.as_expr()?.clone();
                vec![if negative { expr.neg() } else { expr }]
            }
        };
        self.depth -= 1;
        Some(arguments)
    }

    /// A matrix, or the rows of `cases`.
    fn table(&mut self, name: &str) -> Option<Value> {
        let matrix = name.ends_with("matrix") || name == "array";
        if !matrix {
            // cases, aligned: rows of values.
            let mut items = Vec::new();
            while !matches!(self.peek()?, Kind::End(_)) {
                match self.peek()? {
                    Kind::Row | Kind::Cell | Kind::Comma | Kind::And | Kind::Semicolon => self.at += 1,
                    _ => items.push(self.bracket_free()?),
                }
            }
            self.at += 1;
            return Some(if items.len() == 1 { items.remove(0) } else { Value::List(items) });
        }
        let mut rows: Vec<Vec<Expr>> = vec![Vec::new()];
        loop {
            match self.peek()? {
                Kind::End(_) => {
                    self.at += 1;
                    break;
                }
                Kind::Row => {
                    self.at += 1;
                    rows.push(Vec::new());
                }
                Kind::Cell => self.at += 1,
                Kind::Command(line) if line == "hline" => self.at += 1,
                _ => {
                    let cell = self.sum()?.as_expr()?.clone();
                    rows.last_mut()?.push(cell);
                }
            }
        }
        rows.retain(|row| !row.is_empty());
        let width = rows.first()?.len();
        rows.iter().all(|row| row.len() == width).then_some(Value::Matrix(rows))
    }

    fn bracket_free(&mut self) -> Option<Value> {
        self.enter()?;
        let value = self.relation()?;
        self.depth -= 1;
        Some(value)
    }
}

fn func(name: &str) -> Option<Func> {
    Some(match name {
        "sin" => Func::Sin,
        "cos" => Func::Cos,
        "tan" | "tg" => Func::Tan,
        "cot" | "ctg" => Func::Cot,
        "sec" => Func::Sec,
        "csc" => Func::Csc,
        "arcsin" | "asin" => Func::Asin,
        "arccos" | "acos" => Func::Acos,
        "arctan" | "atan" | "arctg" => Func::Atan,
        "sinh" => Func::Sinh,
        "cosh" => Func::Cosh,
        "tanh" => Func::Tanh,
        "ln" => Func::Ln,
        "abs" => Func::Abs,
        "floor" => Func::Floor,
        "ceil" => Func::Ceil,
        "gcd" => Func::Gcd,
        "lcm" => Func::Lcm,
        "max" => Func::Max,
        "min" => Func::Min,
        "Re" => Func::Re,
        "Im" => Func::Im,
        _ => return None,
    })
}

/// Digits in a base from 2 to 36 keep their base: 10_2 is not 2 as an answer, and not 10.
fn in_base(digits: &str, base: Expr) -> Expr {
    let value = Expr::Num(BigRational::from_integer(digits.parse::<BigInt>().unwrap_or_default()));
    Expr::Call(Func::Named("in base".into()), vec![value, base])
}

fn spell(token: &Token) -> Option<String> {
    Some(match &token.kind {
        Kind::Number(value, _) => value.to_string(),
        Kind::Letter(letter) => letter.to_string(),
        Kind::Word(word) | Kind::Text(word) | Kind::Command(word) => word.clone(),
        Kind::Plus => "+".into(),
        Kind::Minus => "-".into(),
        Kind::Times => "*".into(),
        Kind::Divide => "/".into(),
        Kind::Power => "^".into(),
        Kind::Subscript => "_".into(),
        Kind::Prime => "'".into(),
        Kind::Comma => ",".into(),
        Kind::Colon => ":".into(),
        Kind::Bang => "!".into(),
        Kind::Infinity => "∞".into(),
        Kind::Rel(_) => "=".into(),
        Kind::Open(bracket) | Kind::Close(bracket) => bracket.to_string(),
        _ => return None,
    })
}

fn add(a: Value, b: Value) -> Option<Value> {
    match (a, b) {
        (Value::Matrix(a), Value::Matrix(b)) => {
            (a.len() == b.len() && a[0].len() == b[0].len()).then_some(())?;
            let rows =
                a.into_iter().zip(b).map(|(a, b)| a.into_iter().zip(b).map(|(a, b)| Expr::Add(vec![a, b])).collect());
            Some(Value::Matrix(rows.collect()))
        }
        (Value::Quantity(a), Value::Quantity(b)) => Some(Value::expr(match (a.expr, b.expr) {
            (Expr::Num(a), Expr::Num(b)) if short(&a) && short(&b) => Expr::Num(a + b),
            (Expr::Add(mut terms), b) => {
                terms.push(b);
                Expr::Add(terms)
            }
            (a, b) => Expr::Add(vec![a, b]),
        })),
        _ => None,
    }
}

/// Numbers that are computed with at once; longer ones wait for the bounded arithmetic.
fn short(value: &BigRational) -> bool {
    value.numer().bits() < 512 && value.denom().bits() < 512
}

fn negate(value: Value) -> Option<Value> {
    match value {
        Value::Quantity(mut quantity) => {
            quantity.expr = quantity.expr.neg();
            Some(Value::Quantity(quantity))
        }
        Value::Matrix(rows) => {
            Some(Value::Matrix(rows.into_iter().map(|row| row.into_iter().map(Expr::neg).collect()).collect()))
        }
        _ => None,
    }
}

fn multiply(a: Value, b: Value) -> Option<Value> {
    match (a, b) {
        (Value::Quantity(a), Value::Quantity(b)) => Some(Value::expr(match (a.expr, b.expr) {
            (Expr::Num(a), Expr::Num(b)) if short(&a) && short(&b) => Expr::Num(a * b),
            (Expr::Mul(mut factors), b) => {
                factors.push(b);
                Expr::Mul(factors)
            }
            (a, b) => Expr::Mul(vec![a, b]),
        })),
        (Value::Quantity(scalar), Value::Matrix(rows)) | (Value::Matrix(rows), Value::Quantity(scalar)) => {
            (nodes(&scalar.expr) * rows.len() * rows[0].len() <= MAX_PRODUCT).then_some(())?;
            let scale = |cell| Expr::Mul(vec![scalar.expr.clone(), cell]);
            Some(Value::Matrix(rows.into_iter().map(|row| row.into_iter().map(scale).collect()).collect()))
        }
        (Value::Matrix(a), Value::Matrix(b)) => {
            let (inner, width) = (b.len(), b[0].len());
            (a[0].len() == inner && a.len().max(inner).max(width) <= MAX_MATRIX).then_some(())?;
            // Every cell of either side is copied into a whole row or column of the product.
            let size = |rows: &[Vec<Expr>]| rows.iter().flatten().map(nodes).sum::<usize>();
            (size(&a) * width + size(&b) * a.len() <= MAX_PRODUCT).then_some(())?;
            let cell = |row: &[Expr], column: usize| {
                Expr::Add((0..inner).map(|k| Expr::Mul(vec![row[k].clone(), b[k][column].clone()])).collect())
            };
            Some(Value::Matrix(a.iter().map(|row| (0..width).map(|column| cell(row, column)).collect()).collect()))
        }
        _ => None,
    }
}

fn nodes(expr: &Expr) -> usize {
    match expr {
        Expr::Add(all) | Expr::Mul(all) | Expr::Call(_, all) => 1 + all.iter().map(nodes).sum::<usize>(),
        Expr::Pow(base, exponent) => 1 + nodes(base) + nodes(exponent),
        Expr::Root(_, base) => 1 + nodes(base),
        _ => 1,
    }
}

fn divide(a: Value, b: Value) -> Option<Value> {
    let below = b.as_expr()?;
    match (&a, below) {
        (Value::Quantity(above), Expr::Num(below)) if !below.is_zero() => {
            if let Expr::Num(above) = &above.expr
                && short(above)
                && short(below)
            {
                return Some(Value::expr(Expr::Num(above / below)));
            }
        }
        _ => {}
    }
    multiply(a, Value::expr(below.clone().recip()))
}

fn raise(value: Value, exponent: Expr) -> Option<Value> {
    match value {
        Value::Quantity(quantity) => Some(Value::expr(quantity.expr.pow(exponent))),
        Value::Matrix(rows) => {
            let power = small(&exponent).filter(|power| (1..=6).contains(power))?;
            let base = Value::Matrix(rows);
            (1..power).try_fold(base.clone(), |result, _| multiply(result, base.clone()))
        }
        _ => None,
    }
}
