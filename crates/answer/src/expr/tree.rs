//! The expression tree that the parsers build.

use std::rc::Rc;

use num_rational::BigRational;

/// An expression. Parsers bound its depth, so it may be walked recursively.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Num(BigRational),
    Pi,
    /// Euler's number.
    E,
    /// The imaginary unit.
    I,
    /// Positive infinity.
    Infinity,
    Var(Rc<str>),
    Add(Vec<Expr>),
    Mul(Vec<Expr>),
    Pow(Box<Expr>, Box<Expr>),
    /// The real n-th root for odd n, the principal one for even n.
    Root(u32, Box<Expr>),
    Call(Func, Vec<Expr>),
}

/// A function with a meaning; [`Func::Named`] is one without.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Func {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    /// Natural logarithm.
    Ln,
    /// log(base, x).
    Log,
    Abs,
    Floor,
    Ceil,
    Factorial,
    /// binomial(n, k).
    Binomial,
    Gcd,
    Lcm,
    Max,
    Min,
    Re,
    Im,
    /// An unknown function: two calls are the same when their names and arguments are.
    Named(Rc<str>),
}

impl Expr {
    pub(crate) fn int(value: i64) -> Self {
        Self::Num(BigRational::from_integer(value.into()))
    }

    pub(crate) fn ratio(above: i64, below: i64) -> Self {
        Self::Num(BigRational::new(above.into(), below.into()))
    }

    /// The name of the variable that is written first.
    pub(crate) fn first_variable(&self) -> Option<&str> {
        match self {
            Self::Var(name) => Some(name),
            Self::Add(all) | Self::Mul(all) | Self::Call(_, all) => all.iter().find_map(Self::first_variable),
            Self::Pow(base, exponent) => base.first_variable().or_else(|| exponent.first_variable()),
            Self::Root(_, base) => base.first_variable(),
            Self::Num(_) | Self::Pi | Self::E | Self::I | Self::Infinity => None,
        }
    }

    /// Whether a variable of that name stands in it.
    pub(crate) fn has_variable(&self, name: &str) -> bool {
        match self {
            Self::Var(own) => **own == *name,
            Self::Add(all) | Self::Mul(all) | Self::Call(_, all) => all.iter().any(|part| part.has_variable(name)),
            Self::Pow(base, exponent) => base.has_variable(name) || exponent.has_variable(name),
            Self::Root(_, base) => base.has_variable(name),
            Self::Num(_) | Self::Pi | Self::E | Self::I | Self::Infinity => false,
        }
    }

    /// Whether a name in it is a word of three letters or more.
    pub(crate) fn has_long_name(&self) -> bool {
        match self {
            Self::Var(own) => own.len() > 2 && own.bytes().all(|b| b.is_ascii_alphabetic()),
            Self::Add(all) | Self::Mul(all) | Self::Call(_, all) => all.iter().any(Self::has_long_name),
            Self::Pow(base, exponent) => base.has_long_name() || exponent.has_long_name(),
            Self::Root(_, base) => base.has_long_name(),
            Self::Num(_) | Self::Pi | Self::E | Self::I | Self::Infinity => false,
        }
    }

    pub(crate) fn var(name: &str) -> Self {
        Self::Var(name.into())
    }

    pub(crate) fn neg(self) -> Self {
        match self {
            Self::Num(value) => Self::Num(-value),
            other => Self::Mul(vec![Self::int(-1), other]),
        }
    }

    pub(crate) fn recip(self) -> Self {
        self.pow(Self::int(-1))
    }

    pub(crate) fn div(self, other: Self) -> Self {
        Self::Mul(vec![self, other.recip()])
    }

    pub(crate) fn pow(self, exponent: Self) -> Self {
        Self::Pow(Box::new(self), Box::new(exponent))
    }

    pub(crate) fn sqrt(self) -> Self {
        self.pow(Self::ratio(1, 2))
    }

    pub(crate) fn call(func: Func, argument: Self) -> Self {
        Self::Call(func, vec![argument])
    }
}
