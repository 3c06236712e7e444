//! Names, commands, functions and tables: what stands where a number could.

use super::operations::multiply;
use super::parser::{Parser, constant_word, small};
use super::token::{Kind, Token};
use super::value::Value;
use crate::expr::{Expr, Func};

impl Parser<'_> {
    /// The name behind `_`, spelled out.
    pub(super) fn subscript(&mut self) -> Option<String> {
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

    /// `C_5^2`, `A_5^2` and `P_5^2`, how many choices and arrangements of 2 in 5 there are; `None` where it is a name
    /// to a power.
    fn combination(&mut self, letter: char) -> Option<Value> {
        if !matches!(letter, 'C' | 'A' | 'P') {
            return None;
        }
        let start = self.at;
        let (mut lower, mut upper) = (None, None);
        for _ in 0..2 {
            match self.peek() {
                Some(Kind::Subscript) if lower.is_none() => lower = Some(self.count()),
                Some(Kind::Power) if upper.is_none() => upper = Some(self.count()),
                _ => {}
            }
        }
        let value = lower.flatten().zip(upper.flatten()).and_then(|(n, k)| {
            let meant = match (small(&n), small(&k)) {
                (Some(n), Some(k)) => (0..=n).contains(&k) && n <= 1000,
                (None, _) => matches!(&n, Expr::Var(name) if matches!(&**name, "n" | "m" | "N")),
                _ => false,
            };
            let factorial = |of: Expr| Expr::call(Func::Factorial, of);
            meant.then(|| match letter {
                'C' => Expr::Call(Func::Binomial, vec![n, k]),
                _ => factorial(n.clone()).div(factorial(Expr::Add(vec![n, k.neg()]))),
            })
        });
        if value.is_none() {
            self.at = start;
        }
        value.map(Value::expr)
    }

    /// The number or letter behind the sign at the cursor, in braces or not.
    fn count(&mut self) -> Option<Expr> {
        self.at += 1;
        let braced = self.eat(&Kind::Open('{'));
        let found = match self.peek()? {
            Kind::Number(value, _) => Expr::Num(value.clone()),
            Kind::Letter(letter) => Expr::var(letter.encode_utf8(&mut [0; 4])),
            _ => return None,
        };
        self.at += 1;
        (!braced || self.eat(&Kind::Close('}'))).then_some(found)
    }

    pub(super) fn letter(&mut self, letter: char) -> Option<Value> {
        if let Some(value) = self.combination(letter) {
            return Some(value);
        }
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

    pub(super) fn word(&mut self, word: &str) -> Option<Value> {
        match word {
            "pi" => return Some(Value::expr(Expr::Pi)),
            "inf" | "infinity" | "oo" | "infty" => return Some(Value::expr(Expr::Infinity)),
            _ => {}
        }
        if super::names::function_name(word) {
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
        if matches!(self.peek(), Some(Kind::Word(next)) if !super::names::function_name(next) && !constant_word(next) && word.len() > 2)
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
        // `7 apples left`: a word of its own in an answer is no product.
        let before = self.at.checked_sub(2).map(|at| &self.tokens[at].kind);
        let beside = matches!(before, Some(Kind::Word(_) | Kind::Text(_) | Kind::Number(..)));
        if letters.len() > 2 && !self.known.trusted && beside && self.tokens[self.at - 1].spaced {
            return None;
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

    pub(super) fn command(&mut self, name: &str) -> Option<Value> {
        if super::names::function_name(name) && name != "sqrt" {
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
                            super::names::function_name(name) && name != "sqrt"
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
    pub(super) fn table(&mut self, name: &str) -> Option<Value> {
        let matrix = name.ends_with("matrix") || name == "array";
        if !matrix {
            // cases, aligned: rows of values.
            let mut items = Vec::new();
            while !matches!(self.peek()?, Kind::End(_)) {
                match self.peek()? {
                    Kind::Row | Kind::Cell | Kind::Comma | Kind::And | Kind::Or | Kind::Semicolon => self.at += 1,
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
