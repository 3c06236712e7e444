//! Whether two values are the same answer. Truth first: the two sides are not treated alike.

use num_rational::BigRational;
use num_traits::Zero as _;

use super::token::Rel;
use super::value::{Quantity, Value};
use super::{relations, sets, text};
use crate::expr::canon::MAX_WORK;
use crate::expr::{Ctx, Domain, Expr, Zero};

/// What every comparison costs at least.
const STEP: u64 = 8;

/// Compares values within one budget.
pub(super) struct Comparer {
    budget: u64,
}

impl Comparer {
    pub(super) fn new() -> Self {
        Self { budget: MAX_WORK }
    }

    /// Runs `work` in a context of its own, charged to the common budget.
    fn with<T>(&mut self, work: impl FnOnce(&mut Ctx) -> T) -> T {
        let mut ctx = Ctx::new(Domain::Real, self.budget);
        let result = work(&mut ctx);
        self.budget = ctx.budget.get();
        result
    }

    pub(super) fn same_expr(&mut self, a: &Expr, b: &Expr) -> bool {
        if let (Expr::Num(a), Expr::Num(b)) = (a, b) {
            return a == b;
        }
        if a == b {
            return true;
        }
        self.with(|ctx| {
            let difference = ctx.build(a).and_then(|a| {
                let b = ctx.build(b)?;
                ctx.difference(&a, &b)
            });
            difference.is_ok_and(|poly| ctx.is_zero(&poly) == Zero::Yes)
        })
    }

    /// Whether two quantities differ in nothing but their units.
    pub(super) fn same_but_unit(&mut self, truth: &Value, given: &Value) -> bool {
        match (truth, given) {
            (Value::Quantity(a), Value::Quantity(b)) if a.unit.is_some() && b.unit.is_some() => {
                self.same_expr(&a.expr, &b.expr)
            }
            _ => false,
        }
    }

    fn same_quantity(&mut self, truth: &Quantity, given: &Quantity) -> bool {
        let scaled = |expr: &Expr, factor: &BigRational| Expr::Mul(vec![expr.clone(), Expr::Num(factor.clone())]);
        if let (Some(a), Some(b)) = (&truth.unit, &given.unit) {
            if a.dimension != b.dimension && !a.both_lengths(b) {
                return false;
            }
            // 1 m is 100 cm, and 5 m is not 5 cm.
            if a.dimension == b.dimension && a.scale != b.scale {
                return self.same_expr(&scaled(&truth.expr, &a.scale), &scaled(&given.expr, &b.scale));
            }
        }
        if self.same_expr(&truth.expr, &given.expr) {
            return true;
        }
        // One side may leave the percent sign to the question.
        let hundred = BigRational::from_integer(100.into());
        match (truth.percent, given.percent) {
            (true, false) => self.same_expr(&scaled(&truth.expr, &hundred), &given.expr),
            (false, true) => self.same_expr(&truth.expr, &scaled(&given.expr, &hundred)),
            _ => false,
        }
    }

    /// Whether `given` is right when `truth` is the answer.
    pub(super) fn same(&mut self, truth: &Value, given: &Value) -> bool {
        let Some(left) = self.budget.checked_sub(STEP) else { return false };
        self.budget = left;
        match (truth, given) {
            (Value::Quantity(truth), Value::Quantity(given)) => self.same_quantity(truth, given),
            (Value::Text(truth), Value::Text(given)) => text::same(given, truth),
            (Value::Relation(..), _) | (_, Value::Relation(..)) => self.same_relation(truth, given),
            (Value::Text(words), Value::Quantity(quantity)) | (Value::Quantity(quantity), Value::Text(words)) => {
                // \text{E} is E.
                matches!(&quantity.expr, Expr::Var(name) if name.to_lowercase() == *words)
            }
            (Value::Text(words), other) | (other, Value::Text(words)) => match text::synonym(words) {
                "ℝ" => self.same_set(&Value::Reals, other),
                "∅" => self.same_set(&Value::Empty, other),
                _ => false,
            },
            // `x = 3, y = 4` is 3, 4 and not 4, 3.
            (Value::List(a), Value::List(b)) if relations::names_apart(a) != relations::names_apart(b) => {
                self.same_in_order(a, b)
            }
            (Value::List(a) | Value::Set(a), Value::List(b) | Value::Set(b)) => {
                self.same_members(a, b) || (self.same_set(truth, given))
            }
            (Value::Sequence { open: '(', close: ')', items: a }, Value::List(b))
            | (Value::List(a), Value::Sequence { open: '(', close: ')', items: b }) => self.same_in_order(a, b),
            (Value::Sequence { open, close, items: a }, Value::Sequence { open: open_b, close: close_b, items: b }) => {
                // Two ends make an interval, whose brackets count; more make a vector.
                let brackets = (open, close) == (open_b, close_b) || a.len() > 2 || *open == '⟨' || *open_b == '⟨';
                brackets && self.same_in_order(a, b)
            }
            (Value::Matrix(a), Value::Matrix(b)) => {
                a.len() == b.len()
                    && a[0].len() == b[0].len()
                    && a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| self.same_expr(a, b))
            }
            (Value::Matrix(rows), Value::Sequence { items, .. } | Value::List(items))
            | (Value::Sequence { items, .. } | Value::List(items), Value::Matrix(rows)) => {
                // A vector as a point.
                let vector = rows.len() == 1 || rows[0].len() == 1;
                let cells: Vec<&Expr> = rows.iter().flatten().collect();
                vector
                    && cells.len() == items.len()
                    && cells
                        .iter()
                        .zip(items)
                        .all(|(cell, item)| item.as_expr().is_some_and(|item| self.same_expr(cell, item)))
            }
            (Value::Matrix(rows), Value::Quantity(quantity)) | (Value::Quantity(quantity), Value::Matrix(rows)) => {
                matches!(rows.as_slice(), [row] if row.len() == 1 && self.same_expr(&row[0], &quantity.expr))
            }
            (Value::Ratio { parts: a, clock: clock_a }, Value::Ratio { parts: b, clock: clock_b }) => {
                if a.len() != b.len() {
                    return false;
                }
                // Cross products with 0 are all 0.
                let zero = |parts: &[Expr]| parts.iter().any(|part| matches!(part, Expr::Num(n) if n.is_zero()));
                if *clock_a || *clock_b || zero(a) || zero(b) {
                    return a.iter().zip(b).all(|(a, b)| self.same_expr(a, b));
                }
                // Proportional: a1 b2 = a2 b1.
                let cross = |x: &Expr, y: &Expr| Expr::Mul(vec![x.clone(), y.clone()]);
                (1..a.len()).all(|k| self.same_expr(&cross(&a[0], &b[k]), &cross(&a[k], &b[0])))
            }
            (Value::Ratio { parts, clock: false }, Value::Quantity(quantity))
            | (Value::Quantity(quantity), Value::Ratio { parts, clock: false }) => match parts.as_slice() {
                [a, b] => self.same_expr(&a.clone().div(b.clone()), &quantity.expr),
                _ => false,
            },
            (Value::Combined(operation, a, b), Value::Combined(other, c, d)) => {
                self.same_set(truth, given)
                    || (operation == other
                        && (self.same(a, c) && self.same(b, d) || self.same(a, d) && self.same(b, c)))
            }
            _ if sets::is_set(truth) || sets::is_set(given) => {
                self.same_set(truth, given) || self.same_singleton(truth, given)
            }
            _ => false,
        }
    }

    /// `{5}` is 5.
    fn same_singleton(&mut self, truth: &Value, given: &Value) -> bool {
        match (truth, given) {
            (Value::Set(items), other) | (other, Value::Set(items)) => match items.split_first() {
                Some((first, rest)) => {
                    rest.iter().all(|item| item == first)
                        && matches!(other, Value::Quantity(_) | Value::Sequence { .. })
                        && self.same(first, other)
                }
                None => false,
            },
            _ => false,
        }
    }

    fn same_set(&mut self, a: &Value, b: &Value) -> bool {
        // A bare number is no set: `\{5\}` against 5 is another rule's.
        if matches!(a, Value::Quantity(_)) || matches!(b, Value::Quantity(_)) {
            return false;
        }
        // x > 1 is not y > 1; a set names no unknown.
        if let (Some(a), Some(b)) = (sets::unknown(a), sets::unknown(b))
            && a != b
        {
            return false;
        }
        self.with(|ctx| sets::same(ctx, a, b) == Some(true))
    }

    fn same_in_order(&mut self, truth: &[Value], given: &[Value]) -> bool {
        truth.len() == given.len() && truth.iter().zip(given).all(|(truth, given)| self.same(truth, given))
    }

    /// The same values, each as often or not, in any order.
    fn same_members(&mut self, truth: &[Value], given: &[Value]) -> bool {
        let (truth, given) = (flat(truth), flat(given));
        let mut left: Vec<&Value> = given;
        if truth.len() == left.len() {
            let mut places = Vec::with_capacity(left.len());
            for value in &truth {
                let Some(place) = left.iter().position(|given| self.same(value, given)) else { break };
                left.remove(place);
                places.push(place);
            }
            return places.len() == truth.len();
        }
        false
    }

    fn same_relation(&mut self, truth: &Value, given: &Value) -> bool {
        match (truth, given) {
            (Value::Relation(values_a, signs_a), Value::Relation(values_b, signs_b)) => {
                if let (Some((name_a, a)), Some((name_b, b))) =
                    (relations::assignment(truth), relations::assignment(given))
                    && self.same(name_a, name_b)
                    && self.same(a, b)
                {
                    return true;
                }
                self.with(|ctx| relations::same(ctx, (values_a, signs_a), (values_b, signs_b)))
            }
            (_, Value::Relation(_, signs)) => {
                if let Some(value) = relations::conclusion(given) {
                    return self.same(truth, value);
                }
                // An inequality for a set: only when it is solved, or repeating the question would be right.
                signs.iter().all(|sign| *sign != Rel::Eq)
                    && sets::is_set(truth)
                    && relations::is_solved(given)
                    && self.same_set(truth, given)
            }
            (Value::Relation(_, signs), _) => {
                if let Some((_, value)) = relations::assignment(truth) {
                    return self.same(value, given);
                }
                signs.iter().all(|sign| *sign != Rel::Eq) && sets::is_set(given) && self.same_set(truth, given)
            }
            _ => false,
        }
    }
}

/// The members without repetition, the sets of `±` opened.
fn flat(values: &[Value]) -> Vec<&Value> {
    let mut all: Vec<&Value> = Vec::with_capacity(values.len());
    for value in values {
        let members = match value {
            Value::Set(members) => members.as_slice(),
            _ => std::slice::from_ref(value),
        };
        for member in members {
            // Quadratic, so only for lists of a human's length.
            if all.len() > 100 || !all.contains(&member) {
                all.push(member);
            }
        }
    }
    all
}
