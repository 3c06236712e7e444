//! Equations and inequalities, the same up to what may be done to both sides.

use num_traits::{Signed, Zero as _};

use super::token::Rel;
use super::value::Value;
use crate::expr::canon::{Frac, Poly};
use crate::expr::{Ctx, Expr, Func, Zero};

/// What stands on the left of an assignment: a name, a function's value, a segment, a point of names, a ratio of names.
fn is_name(value: &Value) -> bool {
    match value {
        Value::Quantity(quantity) => names_only(&quantity.expr),
        Value::Sequence { items, .. } | Value::List(items) => items.iter().all(is_name),
        Value::Ratio { parts, .. } => parts.iter().all(names_only),
        Value::Text(_) => true,
        // D = (0, 1): the name of a set.
        _ => false,
    }
}

fn names_only(expr: &Expr) -> bool {
    match expr {
        Expr::Var(_) | Expr::E | Expr::I | Expr::Call(Func::Named(_), _) => true,
        Expr::Call(Func::Abs | Func::Sin | Func::Cos | Func::Tan, arguments) => arguments.iter().all(names_only),
        Expr::Mul(factors) => factors.iter().all(names_only),
        // A ratio of two segments.
        Expr::Pow(base, exponent) => names_only(base) && **exponent == Expr::int(-1),
        _ => false,
    }
}

/// The name and the value of `x = ... = value`.
pub(super) fn assignment(value: &Value) -> Option<(&Value, &Value)> {
    let Value::Relation(values, signs) = value else { return None };
    let (first, last) = (values.first()?, values.last()?);
    (signs.iter().all(|&sign| sign == Rel::Eq) && is_name(first)).then_some((first, last))
}

/// Whether all are values of different names: `x = 3, y = 4`.
pub(super) fn names_apart(values: &[Value]) -> bool {
    let names: Option<Vec<&Value>> = values.iter().map(|value| assignment(value).map(|(name, _)| name)).collect();
    names.is_some_and(|names| names.len() > 1 && (1..names.len()).all(|k| !names[..k].contains(&names[k])))
}

/// The value that a chain of equations ends in, where it may stand for an answer: `x = 5`, `2 + 3 = 5`, `a + b = 2b =
/// 5`, but not `x^2 - 1 = 0`.
pub(super) fn conclusion(value: &Value) -> Option<&Value> {
    let Value::Relation(values, signs) = value else { return None };
    if signs.iter().any(|&sign| sign != Rel::Eq) {
        return None;
    }
    let first = values.first()?;
    (is_name(first) || values.len() > 2 || first.as_expr().is_some_and(is_constant)).then_some(values.last()?)
}

pub(super) fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Num(_) | Expr::Pi | Expr::E => true,
        // Variables stand last in what is being read.
        Expr::Add(all) | Expr::Mul(all) | Expr::Call(_, all) => all.iter().rev().all(is_constant),
        Expr::Pow(base, exponent) => is_constant(base) && is_constant(exponent),
        Expr::Root(_, base) => is_constant(base),
        Expr::Var(_) | Expr::I | Expr::Infinity => false,
    }
}

/// Whether an inequality is a solution already: a name between constants.
pub(super) fn is_solved(value: &Value) -> bool {
    let Value::Relation(values, _) = value else { return false };
    let mut names = 0;
    values.iter().all(|value| match value.as_expr() {
        Some(Expr::Var(_) | Expr::Call(Func::Named(_), _)) => {
            names += 1;
            names == 1
        }
        Some(expr) => is_constant(expr),
        None => false,
    }) && names == 1
}

/// `left - right` with a sign that is one of =, ≠, <, <=.
type Normal = (Frac, Rel);

fn normal(ctx: &mut Ctx, values: &[Value], signs: &[Rel]) -> Option<Vec<Normal>> {
    let mut all = Vec::new();
    for (pair, &sign) in values.windows(2).zip(signs) {
        let (mut left, mut right) = (ctx.build(pair[0].as_expr()?).ok()?, ctx.build(pair[1].as_expr()?).ok()?);
        let mut sign = sign;
        if matches!(sign, Rel::Gt | Rel::Ge) {
            std::mem::swap(&mut left, &mut right);
            sign = sign.flipped();
        }
        let right = ctx.neg(&right);
        all.push((ctx.add(&left, &right).ok()?, sign));
    }
    Some(all)
}

/// Whether two chains say the same, each pair up to a constant factor; the order of the pairs is free.
pub(super) fn same(ctx: &mut Ctx, truth: (&[Value], &[Rel]), given: (&[Value], &[Rel])) -> bool {
    if truth.1.len() != given.1.len() || truth.1.len() > 12 {
        return false;
    }
    let (Some(truth), Some(mut given)) = (normal(ctx, truth.0, truth.1), normal(ctx, given.0, given.1)) else {
        return false;
    };
    truth.iter().all(|truth| match given.iter().position(|given| same_pair(ctx, truth, given)) {
        Some(place) => {
            given.remove(place);
            true
        }
        None => false,
    })
}

fn same_pair(ctx: &mut Ctx, a: &Normal, b: &Normal) -> bool {
    if a.1 != b.1 {
        return false;
    }
    // An equation is that of its numerator; an inequality is not, unless both have the same denominator.
    let either_sign = matches!(a.1, Rel::Eq | Rel::Ne);
    let sides = if either_sign || a.0.den == b.0.den {
        Some((a.0.num.clone(), b.0.num.clone()))
    } else {
        ctx.poly_mul(&a.0.num, &b.0.den).ok().zip(ctx.poly_mul(&b.0.num, &a.0.den).ok())
    };
    let Some((left, right)) = sides else { return false };
    proportional(ctx, &left, &right, either_sign)
}

/// Whether `left = k right` for a rational k that is not zero; positive unless `either_sign`.
fn proportional(ctx: &mut Ctx, left: &Poly, right: &Poly, either_sign: bool) -> bool {
    if left.is_zero() || right.is_zero() {
        return left.is_zero() && right.is_zero();
    }
    // Rational functions may differ by a monomial: 1/x = 2 is 2x = 1.
    let mut candidates = left.0.iter().filter_map(|(mono, a)| right.0.get(mono).map(|b| (a.clone(), b.clone())));
    let Some((a, b)) = candidates.next_back() else { return false };
    if a.is_zero() || b.is_zero() || (!either_sign && a.is_negative() != b.is_negative()) {
        return false;
    }
    let scaled = Poly(right.0.iter().map(|(mono, value)| (mono.clone(), value * &a / &b)).collect());
    match ctx.difference(&left.clone().into(), &scaled.into()) {
        Ok(difference) => ctx.is_zero(&difference) == Zero::Yes,
        Err(_) => false,
    }
}
