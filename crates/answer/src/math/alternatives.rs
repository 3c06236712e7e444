//! Other ways to mean a list: `x<1 or x>3` is a set, and `x_1=1, x_2=3` are the values of x.

use super::relations::{assignment, is_constant, is_solved};
use super::sets;
use super::token::{Kind, Rel, Token};
use super::value::{SetOp, Value};
use crate::expr::Expr;

/// Longest list that is looked at.
const MAX_ITEMS: usize = 40;

/// The one set that a list of solved inequalities, or of sets joined by words, describes.
pub(super) fn as_set(value: &Value, tokens: &[Token]) -> Option<Value> {
    let Value::List(items) = value else { return None };
    if items.len() > MAX_ITEMS {
        return None;
    }
    let (and, or) = (tokens.iter().any(|t| t.kind == Kind::And), tokens.iter().any(|t| t.kind == Kind::Or));
    let inequality = |item: &Value| match item {
        Value::Relation(_, signs) => (or || signs.iter().all(|&sign| sign != Rel::Eq)) && is_solved(item),
        _ => false,
    };
    let equations = |item: &Value| matches!(item, Value::Relation(_, signs) if signs.contains(&Rel::Eq));
    let operation = if items.iter().all(inequality) && !items.iter().all(equations) {
        let name = sets::unknown(&items[0]);
        items.iter().all(|item| sets::unknown(item) == name).then_some(())?;
        match (and, or) {
            (true, true) => return None,
            (_, false) => SetOp::Joint,
            (false, true) => SetOp::Apart,
        }
    } else if (and != or) && items.iter().all(sets::is_set) {
        // `increasing on (-\infty, 1) and (3, \infty)`
        SetOp::Apart
    } else {
        return None;
    };
    items.iter().cloned().reduce(|a, b| Value::Combined(operation, Box::new(a), Box::new(b)))
}

/// `x_1 = 1, x_2 = -3` and `x = 1, -3` as `x = 1, x = -3`, and whether subscripts were dropped for it.
pub(super) fn as_values(value: &Value) -> Option<(Value, bool)> {
    let Value::List(items) = value else { return None };
    if items.len() > MAX_ITEMS {
        return None;
    }
    let (mut stem, mut subscripts, mut bare) = ("", 0, 0);
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        if let Some((Value::Quantity(name), value)) = assignment(item)
            && let Expr::Var(name) = &name.expr
        {
            let (own, subscript) = name.split_once('_').unwrap_or((name, ""));
            if !values.is_empty() && own != stem {
                return None;
            }
            stem = own;
            subscripts += usize::from(!subscript.is_empty());
            values.push(value);
        } else if !values.is_empty() && item.as_expr().is_some_and(is_constant) {
            bare += 1;
            values.push(item);
        } else {
            return None;
        }
    }
    let all_subscripted = subscripts == items.len();
    let repeated = subscripts == 0 && bare + 1 == items.len() && bare > 0;
    let name = || Value::expr(Expr::var(stem));
    (all_subscripted || repeated).then(|| {
        let relation = |value: &Value| Value::Relation(vec![name(), value.clone()], vec![Rel::Eq]);
        (Value::List(values.into_iter().map(relation).collect()), all_subscripted)
    })
}
