//! Sums, products, quotients and powers of values.

use num_rational::BigRational;
use num_traits::Zero;

use super::parser::small;
use super::value::Value;
use crate::expr::Expr;

/// Largest matrix, in rows and in columns, that is multiplied out.
const MAX_MATRIX: usize = 12;
/// Largest product of matrices, in nodes of its cells.
const MAX_PRODUCT: usize = 4000;

pub(super) fn add(a: Value, b: Value) -> Option<Value> {
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
    value.numer().bits() < 128 && value.denom().bits() < 128
}

pub(super) fn negate(value: Value) -> Option<Value> {
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

pub(super) fn multiply(a: Value, b: Value) -> Option<Value> {
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

pub(super) fn divide(a: Value, b: Value) -> Option<Value> {
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

pub(super) fn raise(value: Value, exponent: Expr) -> Option<Value> {
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
