//! Reading a normalised answer as sympy's `parse_expr` does with implicit multiplication.
//!
//! The transformations in short: a name that sympy does not know is split into its characters (`xy` is x times y, `x2`
//! is x times 2), unless it has an underscore or is a Greek letter's name; whatever stands side by side is multiplied,
//! with the precedence of `*`, so that `1/2x` is x/2; `!` is a factorial. Python's own syntax decides what a number is.

use num_bigint::BigInt;
use num_rational::BigRational;

use super::float::{FloatNumber, MAX_WORK};
use crate::expr::{Expr, Func};

/// Deepest nesting of brackets and signs; Python gives up at about as many.
const MAX_DEPTH: usize = 90;
/// Most operands of one expression.
const MAX_OPERANDS: usize = 2000;

/// What an expression turned out to be.
#[derive(Debug, Clone)]
pub(super) enum SympyNode {
    FloatNumber(FloatNumber),
    Symbol(Expr),
}

/// Parses the whole of `text`; `None` where Python or sympy raise an error, or where the result could never be zero.
pub(super) fn parse(text: &str) -> Option<SympyNode> {
    let mut parser = SympyParser { text, at: 0, depth: 0, operands: 0, work: MAX_WORK };
    let node = parser.sum()?;
    parser.skip_blanks();
    (parser.at == text.len()).then_some(node)
}

struct SympyParser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    operands: usize,
    /// What arithmetic may still cost.
    work: u64,
}

impl SympyNode {
    fn expr(self) -> Expr {
        match self {
            Self::FloatNumber(number) => Expr::Num(number.exact().clone()),
            Self::Symbol(expr) => expr,
        }
    }

    fn neg(self) -> Self {
        match self {
            Self::FloatNumber(number) => Self::FloatNumber(number.neg()),
            Self::Symbol(expr) => Self::Symbol(expr.neg()),
        }
    }

    fn add(self, other: Self, work: &mut u64) -> Option<Self> {
        Some(match (self, other) {
            (Self::FloatNumber(a), Self::FloatNumber(b)) => Self::FloatNumber(a.add(&b, work)?),
            (Self::Symbol(Expr::Add(mut terms)), b) => {
                terms.push(b.expr());
                Self::Symbol(Expr::Add(terms))
            }
            (a, b) => Self::Symbol(Expr::Add(vec![a.expr(), b.expr()])),
        })
    }

    fn mul(self, other: Self, work: &mut u64) -> Option<Self> {
        Some(match (self, other) {
            (Self::FloatNumber(a), Self::FloatNumber(b)) => Self::FloatNumber(a.mul(&b, work)?),
            (Self::Symbol(Expr::Mul(mut factors)), b) => {
                factors.push(b.expr());
                Self::Symbol(Expr::Mul(factors))
            }
            (a, b) => Self::Symbol(Expr::Mul(vec![a.expr(), b.expr()])),
        })
    }

    fn div(self, other: Self, work: &mut u64) -> Option<Self> {
        Some(match (self, other) {
            (Self::FloatNumber(a), Self::FloatNumber(b)) => Self::FloatNumber(a.div(&b, work)?),
            (a, b) => a.mul(Self::Symbol(b.expr().recip()), work)?,
        })
    }

    fn pow(self, exponent: Self, work: &mut u64) -> Option<Self> {
        if let (Self::FloatNumber(base), Self::FloatNumber(n)) = (&self, &exponent) {
            let roots = matches!((base, n), (FloatNumber::Exact(_), FloatNumber::Exact(n)) if !n.is_integer());
            if !roots {
                return base.pow(n, work).map(Self::FloatNumber);
            }
        }
        Some(Self::Symbol(self.expr().pow(exponent.expr())))
    }

    fn integer(value: BigInt) -> Self {
        Self::FloatNumber(FloatNumber::Exact(BigRational::from_integer(value)))
    }
}

impl SympyParser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    /// All of it stands in brackets, where Python takes a line break for a blank.
    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']).len();
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.rest().chars().next()
    }

    fn eat(&mut self, sign: &str) -> bool {
        let before = self.at;
        self.skip_blanks();
        let found = self.rest().starts_with(sign);
        self.at = if found { self.at + sign.len() } else { before };
        found
    }

    fn sum(&mut self) -> Option<SympyNode> {
        let mut left = self.product()?;
        loop {
            if self.eat("+") {
                let right = self.product()?;
                left = left.add(right, &mut self.work)?;
            } else if self.eat("-") {
                let right = self.product()?.neg();
                left = left.add(right, &mut self.work)?;
            } else {
                return Some(left);
            }
        }
    }

    fn product(&mut self) -> Option<SympyNode> {
        let mut left = self.signed()?;
        loop {
            let lines = self.at;
            match self.peek() {
                // `//` is a floor division.
                Some('/') if !self.rest().starts_with("//") => {
                    self.at += 1;
                    let right = self.signed()?;
                    left = left.div(right, &mut self.work)?;
                }
                Some('*') => {
                    self.at += 1;
                    let right = self.signed()?;
                    left = left.mul(right, &mut self.work)?;
                }
                Some(c) if c == '(' || c == '.' || c == '_' || c.is_alphanumeric() => {
                    if self.text[lines..self.at].contains('\n') {
                        // sympy does not see neighbours across a line break, and Python then finds no operator.
                        return None;
                    }
                    let right = self.power()?;
                    left = left.mul(right, &mut self.work)?;
                }
                _ => return Some(left),
            }
        }
    }

    fn signed(&mut self) -> Option<SympyNode> {
        self.enter()?;
        let node = if self.eat("-") {
            self.signed()?.neg()
        } else if self.eat("+") {
            self.signed()?
        } else {
            self.power()?
        };
        self.depth -= 1;
        Some(node)
    }

    fn enter(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn power(&mut self) -> Option<SympyNode> {
        // A name that is split leaves its last factor to bind with `**` and `!`.
        let (before, base) = self.operand()?;
        let mut base = base;
        let mut signs = 0;
        while self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            signs += 1;
            if signs > 8 {
                return None;
            }
            base = match &base {
                SympyNode::FloatNumber(number) => SympyNode::FloatNumber(number.factorial(&mut self.work)?),
                SympyNode::Symbol(_) => SympyNode::Symbol(Expr::call(Func::Factorial, base.expr())),
            };
        }
        if self.eat("**") {
            let exponent = self.signed()?;
            base = base.pow(exponent, &mut self.work)?;
        }
        // From the left, so that the factors of a long name lie side by side and not within each other.
        let mut factors = before.into_iter().chain([base]);
        let first = factors.next()?;
        factors.try_fold(first, |all, factor| all.mul(factor, &mut self.work))
    }

    /// A number, a name or a bracket; for a name that is split, the earlier factors come first.
    fn operand(&mut self) -> Option<(Vec<SympyNode>, SympyNode)> {
        self.operands += 1;
        if self.operands > MAX_OPERANDS {
            return None;
        }
        let single = |node| Some((Vec::new(), node));
        match self.peek()? {
            '(' => {
                self.at += 1;
                self.enter()?;
                let inner = self.sum()?;
                self.depth -= 1;
                if self.eat(")") { single(inner) } else { None }
            }
            c if c.is_ascii_digit() || c == '.' => single(self.number()?),
            c if c == '_' || c.is_alphabetic() => self.name(),
            // Digits that are not ASCII, such as a superscript, are an error.
            _ => None,
        }
    }

    /// Digits with single underscores between them; returns them without.
    fn digits(&mut self) -> String {
        let mut found = String::new();
        let bytes = self.text.as_bytes();
        while let Some(&b) = bytes.get(self.at) {
            let underscore = b == b'_' && !found.is_empty() && bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit);
            if b.is_ascii_digit() {
                found.push(char::from(b));
            } else if !underscore {
                break;
            }
            self.at += 1;
        }
        found
    }

    fn number(&mut self) -> Option<SympyNode> {
        let start = self.at;
        let whole = self.digits();
        let after_whole = self.at;
        let mut fraction = String::new();
        let point = self.rest().starts_with('.');
        if point {
            self.at += 1;
            fraction = self.digits();
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut exponent = 0;
        let mut has_exponent = false;
        if let Some(rest) = self.rest().strip_prefix('e') {
            let unsigned = rest.strip_prefix(['+', '-']).unwrap_or(rest);
            if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
                let negative = rest.starts_with('-');
                self.at += 1 + rest.len() - unsigned.len();
                exponent = self.digits().parse::<i64>().ok().filter(|&e| e < 10_000)?;
                exponent = if negative { -exponent } else { exponent };
                has_exponent = true;
            }
        }
        if point || has_exponent {
            return FloatNumber::literal(&whole, &fraction, exponent, &mut self.work).map(SympyNode::FloatNumber);
        }
        // An integer that begins with 0 is only its zeros: Python reads 007 as 00 and 7.
        if whole.starts_with('0') && whole.bytes().any(|b| b != b'0') {
            let zeros = whole.bytes().take_while(|&b| b == b'0').count();
            self.at = start + zeros;
            return Some(SympyNode::integer(0.into()));
        }
        self.at = after_whole;
        // Python refuses longer ones.
        if whole.len() > 4300 {
            return None;
        }
        Some(SympyNode::integer(whole.parse().ok()?))
    }

    fn name(&mut self) -> Option<(Vec<SympyNode>, SympyNode)> {
        let rest = self.rest();
        let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        let name = rest[..length].to_owned();
        if name.chars().any(is_other_digit) {
            return None;
        }
        self.at += length;
        let single = |expr| Some((Vec::new(), SympyNode::Symbol(expr)));
        match name.as_str() {
            "pi" => return single(Expr::Pi),
            "sqrt" | "ln" | "csc" | "re" | "im" => {
                if !self.eat("(") {
                    return None;
                }
                self.enter()?;
                let argument = self.sum()?;
                self.depth -= 1;
                if !self.eat(")") {
                    return None;
                }
                // A root of a decimal is a decimal.
                if let ("sqrt", SympyNode::FloatNumber(number @ FloatNumber::Float(_))) = (name.as_str(), &argument) {
                    let half = FloatNumber::Exact(BigRational::new(1.into(), 2.into()));
                    return Some((Vec::new(), SympyNode::FloatNumber(number.pow(&half, &mut self.work)?)));
                }
                let argument = argument.expr();
                return single(match name.as_str() {
                    "sqrt" => argument.sqrt(),
                    "ln" => Expr::call(Func::Ln, argument),
                    "csc" => Expr::call(Func::Csc, argument),
                    "re" => Expr::call(Func::Re, argument),
                    _ => Expr::call(Func::Im, argument),
                });
            }
            // Infinities cancel to nan, the other functions have no use in an answer; the last are Python's own words.
            "oo" | "zoo" | "nan" | "gff" | "rf" | "ff" | "frac" | "li" | "jn" | "yn" | "hn1" | "hn2" | "fft"
            | "ntt" | "fu" | "eye" | "all" | "id" | "as" | "if" | "in" | "is" | "or" => return None,
            _ => {}
        }
        if name.contains('_') || is_greek_name(&name) {
            return single(Expr::var(&name));
        }
        let mut factors = Vec::new();
        let mut chars = name.chars().peekable();
        while let Some(c) = chars.next() {
            if c.is_ascii_digit() {
                let mut digits = c.to_string();
                while let Some(next) = chars.next_if(char::is_ascii_digit) {
                    digits.push(next);
                }
                factors.push(SympyNode::integer(digits.parse().ok().filter(|_| digits.len() <= 4300)?));
            } else {
                factors.push(SympyNode::Symbol(Expr::var(c.encode_utf8(&mut [0; 4]))));
            }
            self.operands += 1;
            if self.operands > MAX_OPERANDS {
                return None;
            }
        }
        let last = factors.pop()?;
        Some((factors, last))
    }
}

/// Superscripts, subscripts and circled digits: Python takes them for digits, and then cannot read them.
fn is_other_digit(c: char) -> bool {
    matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨')
}

/// Names that Unicode knows as a small Greek letter; sympy leaves them whole.
fn is_greek_name(name: &str) -> bool {
    const NAMES: [&str; 25] = [
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lamda", "lambda", "mu",
        "nu", "xi", "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
    ];
    NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(text: &str) -> String {
        match parse(text) {
            None => "-".into(),
            Some(SympyNode::FloatNumber(number)) => number.exact().to_string(),
            Some(SympyNode::Symbol(expr)) => format!("{expr:?}"),
        }
    }

    #[test]
    fn python_syntax() {
        for (text, value) in [
            ("007", "0"),
            ("1_000", "1000"),
            ("2**-1", "1/2"),
            ("--5", "5"),
            ("1/2(3)", "3/2"),
            ("2!3", "-"),
            ("1.5.2", "3/10"),
            ("-2**2", "-4"),
            ("2**3**2", "512"),
            ("5-", "-"),
            ("1,2", "-"),
            ("1:2", "-"),
            ("", "-"),
            ("(1", "-"),
            ("1)", "-"),
            ("()", "-"),
            ("1//2", "-"),
            ("1/0", "-"),
            ("2e3", "2000"),
            ("3.", "3"),
            ("oo", "-"),
            ("x=1", "-"),
            ("sqrt", "-"),
            ("∠a", "-"),
            ("10**10**10", "-"),
            ("1e99999", "-"),
        ] {
            let shown = shows(text);
            assert!(shown == value || (text == "2!3" && shown != "-"), "{text}: {shown}");
        }
        assert_eq!(shows("x2"), shows("x*2"));
        assert_eq!(shows("xy**2"), shows("x*(y**2)"));
        assert_eq!(shows("pix"), shows("p*i*x"));
        assert!(shows("theta").contains("theta") && shows("x_1").contains("x_1"));
        assert_eq!(shows(&"(".repeat(1000)), "-");
        assert_eq!(shows(&"-".repeat(1000)), "-");
    }
}
