//! What an answer can be.

use super::token::Rel;
use super::units::Unit;
use crate::expr::Expr;

/// A number or an expression, with what stood behind it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantity {
    /// A percentage is already divided by 100.
    pub(super) expr: Expr,
    pub(super) percent: bool,
    pub(super) unit: Option<Unit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetOp {
    Union,
    Intersection,
    Difference,
    /// Parts joined by `or`: their union, when none overlaps.
    Apart,
    /// Conditions in a row: what fulfils all; when nothing does, they are parts.
    Joint,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Quantity(Quantity),
    /// Words, in lower case with single blanks.
    Text(String),
    /// `(a, b)`, `[a, b)`, `⟨a, b⟩`: a point, a vector or an interval, whichever the other side says.
    Sequence {
        open: char,
        close: char,
        items: Vec<Value>,
    },
    /// `\{a, b\}`, or the two values of `±`.
    Set(Vec<Value>),
    /// `a, b` without brackets.
    List(Vec<Value>),
    Combined(SetOp, Box<Value>, Box<Value>),
    Matrix(Vec<Vec<Expr>>),
    /// `a < b = c`: one more value than signs.
    Relation(Vec<Value>, Vec<Rel>),
    /// `3 : 4`; `clock` when a part is written as in `12:05`.
    Ratio {
        parts: Vec<Expr>,
        clock: bool,
    },
    /// All real numbers.
    Reals,
    Empty,
}

impl Value {
    pub(super) fn expr(expr: Expr) -> Self {
        Self::Quantity(Quantity { expr, percent: false, unit: None })
    }

    /// Whether a variable of that name stands in it.
    pub(super) fn has_variable(&self, name: &str) -> bool {
        match self {
            Self::Quantity(quantity) => quantity.expr.has_variable(name),
            Self::Sequence { items, .. } | Self::Set(items) | Self::List(items) | Self::Relation(items, _) => {
                items.iter().any(|item| item.has_variable(name))
            }
            Self::Combined(_, a, b) => a.has_variable(name) || b.has_variable(name),
            Self::Matrix(rows) => rows.iter().flatten().any(|cell| cell.has_variable(name)),
            Self::Ratio { parts, .. } => parts.iter().any(|part| part.has_variable(name)),
            Self::Text(_) | Self::Reals | Self::Empty => false,
        }
    }

    pub(super) fn as_expr(&self) -> Option<&Expr> {
        match self {
            Self::Quantity(quantity) => Some(&quantity.expr),
            _ => None,
        }
    }
}
