//! What the reader of answers sees: tokens.

use num_rational::BigRational;

/// A sign of comparison. `Approx` is cut off by the parser: what follows it is a rounded repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rel {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Approx,
}

impl Rel {
    /// The sign when both sides are exchanged, or multiplied by a negative number.
    pub(super) fn flipped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            other => other,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// The value, and the digits when it was written with digits only (`007`, `12:05`).
    Number(BigRational, Option<String>),
    /// One letter, Latin or Greek, or a symbol that acts as a name.
    Letter(char),
    /// Two or more letters in a row.
    Word(String),
    /// The content of `\text{...}` and its relatives.
    Text(String),
    /// A command that has a meaning, without the backslash.
    Command(String),
    /// `( [ ⟨`, a brace that groups, and `S` for the brace of a set.
    Open(char),
    Close(char),
    Plus,
    Minus,
    PlusMinus,
    MinusPlus,
    Times,
    Divide,
    Power,
    Subscript,
    Bang,
    Prime,
    Percent,
    Degree,
    Comma,
    Semicolon,
    Colon,
    Bar,
    Rel(Rel),
    In,
    Cup,
    Cap,
    SetMinus,
    /// `&` of a table.
    Cell,
    /// `\\`, or a line break between answers.
    Row,
    Begin(String),
    End(String),
    Infinity,
    /// `and`, in words or as a command.
    And,
    /// `or`, the same.
    Or,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// Whether blanks stand before it.
    pub(super) spaced: bool,
    /// Whether it stands in `\mathrm`, as units do and variables do not.
    pub(super) upright: bool,
}
