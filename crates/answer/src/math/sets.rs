//! Sets of real numbers: unions of intervals and points, with exact ends.

use std::cmp::Ordering;

use num_bigint::Sign;
use num_rational::BigRational;

use super::token::Rel;
use super::value::{SetOp, Value};
use crate::expr::canon::{Atom, Frac, Poly};
use crate::expr::number::Exp;
use crate::expr::{Ctx, Expr, Func, Zero};

/// Most intervals in a set.
const MAX_PARTS: usize = 40;

/// One interval; an end of `None` is infinite. A point has equal ends, both inside.
#[derive(Debug, Clone)]
struct Part {
    low: Option<Frac>,
    low_in: bool,
    high: Option<Frac>,
    high_in: bool,
}

/// Disjoint intervals in ascending order, none touching the next.
#[derive(Debug, Clone)]
pub(super) struct RealSet(Vec<Part>);

/// Whether two sets are the same; `None` when one of the values is no set of real numbers with known ends.
pub(super) fn same(ctx: &mut Ctx, a: &Value, b: &Value) -> Option<bool> {
    let a = real_set(ctx, a, 0)?;
    let b = real_set(ctx, b, 0)?;
    equal(ctx, &a, &b)
}

fn equal(ctx: &mut Ctx, a: &RealSet, b: &RealSet) -> Option<bool> {
    if a.0.len() != b.0.len() {
        return Some(false);
    }
    for (a, b) in a.0.iter().zip(&b.0) {
        let ends = [(&a.low, &b.low), (&a.high, &b.high)];
        for (a, b) in ends {
            let equal = match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => order(ctx, a, b)? == Ordering::Equal,
                _ => false,
            };
            if !equal {
                return Some(false);
            }
        }
        if (a.low_in, a.high_in) != (b.low_in, b.high_in) {
            return Some(false);
        }
    }
    Some(true)
}

/// The unknown of inequalities.
pub(super) fn unknown(value: &Value) -> Option<&str> {
    match value {
        Value::Relation(values, _) => values.iter().filter_map(Value::as_expr).find_map(|side| side.first_variable()),
        Value::Combined(_, a, b) => unknown(a).or_else(|| unknown(b)),
        _ => None,
    }
}

/// Whether a value can only be meant as a set of numbers.
pub(super) fn is_set(value: &Value) -> bool {
    match value {
        Value::Combined(..) | Value::Reals | Value::Empty | Value::Set(_) => true,
        Value::Sequence { open, close, items } => {
            items.len() == 2 && matches!(open, '(' | '[') && matches!(close, ')' | ']')
        }
        _ => false,
    }
}

fn real_set(ctx: &mut Ctx, value: &Value, depth: usize) -> Option<RealSet> {
    if depth > 60 {
        return None;
    }
    match value {
        Value::Reals => Some(RealSet(vec![Part { low: None, low_in: false, high: None, high_in: false }])),
        Value::Empty => Some(RealSet(Vec::new())),
        Value::Sequence { open, close, items } => {
            let [low, high] = items.as_slice() else { return None };
            let (low, high) = (end(ctx, low, Sign::Minus)?, end(ctx, high, Sign::Plus)?);
            let part =
                Part { low_in: low.is_some() && *open == '[', high_in: high.is_some() && *close == ']', low, high };
            normal(ctx, vec![part])
        }
        Value::Set(items) | Value::List(items) => {
            let mut parts = Vec::new();
            for item in items {
                let point = ctx.build(item.as_expr()?).ok()?;
                ctx.is_constant_frac(&point).then_some(())?;
                parts.push(Part { low: Some(point.clone()), low_in: true, high: Some(point), high_in: true });
            }
            normal(ctx, parts)
        }
        Value::Combined(operation, left, right) => {
            let left = real_set(ctx, left, depth + 1)?;
            let right = real_set(ctx, right, depth + 1)?;
            match operation {
                SetOp::Union => normal(ctx, [left.0, right.0].concat()),
                SetOp::Intersection => intersection(ctx, left, right),
                SetOp::Apart | SetOp::Joint => {
                    let both = intersection(ctx, left.clone(), right.clone())?;
                    if both.0.is_empty() {
                        return normal(ctx, [left.0, right.0].concat());
                    }
                    // `x > 1, x > 3` leaves open which is meant.
                    let one = *operation == SetOp::Apart || equal(ctx, &both, &left)? || equal(ctx, &both, &right)?;
                    (!one).then_some(both)
                }
                SetOp::Difference => {
                    let left = complement(left);
                    Some(complement(normal(ctx, [left.0, right.0].concat())?))
                }
            }
        }
        Value::Relation(values, signs) => solve(ctx, values, signs),
        _ => None,
    }
}

/// An end of an interval, `None` for the infinity of that sign.
fn end(ctx: &mut Ctx, value: &Value, infinite: Sign) -> Option<Option<Frac>> {
    match value.as_expr()? {
        Expr::Infinity => (infinite == Sign::Plus).then_some(None),
        Expr::Mul(factors) if matches!(factors.as_slice(), [Expr::Num(_), Expr::Infinity]) => {
            (infinite == Sign::Minus).then_some(None)
        }
        expr => {
            let end = ctx.build(expr).ok()?;
            ctx.is_constant_frac(&end).then_some(Some(end))
        }
    }
}

fn order(ctx: &mut Ctx, a: &Frac, b: &Frac) -> Option<Ordering> {
    let negative = ctx.neg(b);
    let difference = ctx.add(a, &negative).ok()?;
    if ctx.is_zero(&difference.num) == Zero::Yes {
        return Some(Ordering::Equal);
    }
    match ctx.constant_frac_sign(&difference)? {
        Sign::Plus => Some(Ordering::Greater),
        Sign::Minus => Some(Ordering::Less),
        Sign::NoSign => Some(Ordering::Equal),
    }
}

/// Sorts, drops empty parts and joins those that touch.
fn normal(ctx: &mut Ctx, parts: Vec<Part>) -> Option<RealSet> {
    if parts.len() > MAX_PARTS {
        return None;
    }
    let mut sorted: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        if let (Some(low), Some(high)) = (&part.low, &part.high) {
            match order(ctx, low, high)? {
                // (5, 3) is no interval: more likely a point of the plane.
                Ordering::Greater => return None,
                Ordering::Equal if !(part.low_in && part.high_in) => continue,
                _ => {}
            }
        }
        let mut place = sorted.len();
        while place > 0 && starts_before(ctx, &part, &sorted[place - 1])? {
            place -= 1;
        }
        sorted.insert(place, part);
    }
    let mut joined: Vec<Part> = Vec::with_capacity(sorted.len());
    for part in sorted {
        let Some(last) = joined.last_mut() else {
            joined.push(part);
            continue;
        };
        let touches = match (&last.high, &part.low) {
            (None, _) | (_, None) => true,
            (Some(high), Some(low)) => match order(ctx, high, low)? {
                Ordering::Greater => true,
                Ordering::Equal => last.high_in || part.low_in,
                Ordering::Less => false,
            },
        };
        if !touches {
            joined.push(part);
            continue;
        }
        let further = match (&last.high, &part.high) {
            (None, _) => false,
            (_, None) => true,
            (Some(a), Some(b)) => match order(ctx, a, b)? {
                Ordering::Less => true,
                Ordering::Equal => part.high_in,
                Ordering::Greater => false,
            },
        };
        if further {
            last.high = part.high;
            last.high_in = part.high_in;
        }
    }
    Some(RealSet(joined))
}

fn starts_before(ctx: &mut Ctx, a: &Part, b: &Part) -> Option<bool> {
    Some(match (&a.low, &b.low) {
        (_, None) => false,
        (None, _) => true,
        (Some(low_a), Some(low_b)) => match order(ctx, low_a, low_b)? {
            Ordering::Less => true,
            Ordering::Equal => a.low_in && !b.low_in,
            Ordering::Greater => false,
        },
    })
}

fn intersection(ctx: &mut Ctx, left: RealSet, right: RealSet) -> Option<RealSet> {
    let (left, right) = (complement(left), complement(right));
    Some(complement(normal(ctx, [left.0, right.0].concat())?))
}

/// All other real numbers.
fn complement(set: RealSet) -> RealSet {
    let mut parts = Vec::with_capacity(set.0.len() + 1);
    // What is not yet decided begins here.
    let mut from: Option<(Option<Frac>, bool)> = Some((None, false));
    for part in set.0 {
        if let (Some((low, low_in)), Some(high)) = (from.take(), part.low) {
            parts.push(Part { low, low_in, high: Some(high), high_in: !part.low_in });
        }
        from = part.high.map(|high| (Some(high), !part.high_in));
    }
    if let Some((low, low_in)) = from {
        parts.push(Part { low, low_in, high: None, high_in: false });
    }
    RealSet(parts)
}

/// The solutions of inequalities that are linear in one unknown: a variable, a function's value or an absolute value.
fn solve(ctx: &mut Ctx, values: &[Value], signs: &[Rel]) -> Option<RealSet> {
    let mut unknown = None;
    let mut outside = RealSet(Vec::new());
    for (pair, sign) in values.windows(2).zip(signs) {
        let (left, right) = (ctx.build(pair[0].as_expr()?).ok()?, ctx.build(pair[1].as_expr()?).ok()?);
        let right = ctx.neg(&right);
        let difference = ctx.add(&left, &right).ok()?;
        let below = ctx.constant_sign(&difference.den).filter(|_| ctx.is_constant(&difference.den))?;
        let (at, slope, rest) = linear(ctx, &difference.num)?;
        if unknown.replace(at).is_some_and(|other| other != at) {
            return None;
        }
        let mut sign = *sign;
        if ctx.constant_sign(&slope)? * below == Sign::Minus {
            sign = sign.flipped();
        }
        let rest = ctx.neg(&rest.into());
        let bound = ctx.div(&rest, &slope.into()).ok()?;
        let solutions = half_line(ctx, at, sign, bound)?;
        outside = normal(ctx, [outside.0, complement(solutions).0].concat())?;
    }
    Some(complement(outside))
}

/// The values of the unknown `at` with `at sign bound`, as values of the variable inside it.
fn half_line(ctx: &mut Ctx, at: u32, sign: Rel, bound: Frac) -> Option<RealSet> {
    let part = |low: Option<(Frac, bool)>, high: Option<(Frac, bool)>| {
        let (low, low_in) = low.map_or((None, false), |(end, inside)| (Some(end), inside));
        let (high, high_in) = high.map_or((None, false), |(end, inside)| (Some(end), inside));
        Part { low, low_in, high, high_in }
    };
    let inside = matches!(sign, Rel::Le | Rel::Ge);
    let absolute = match ctx.atom(at) {
        Atom::Call(Func::Abs, arguments) => {
            // Only |x| itself.
            let (mono, value) = arguments.first()?.single()?;
            matches!(mono.as_slice(), &[(_, exponent)] if exponent == Exp::from_integer(1)).then_some(())?;
            (*value == BigRational::from_integer(1.into())).then_some(())?;
            true
        }
        Atom::Var(_) | Atom::Call(Func::Named(_), _) => false,
        _ => return None,
    };
    let parts = match (absolute, sign) {
        (false, Rel::Lt | Rel::Le) => vec![part(None, Some((bound, inside)))],
        (false, Rel::Gt | Rel::Ge) => vec![part(Some((bound, inside)), None)],
        (false, Rel::Eq) => vec![part(Some((bound.clone(), true)), Some((bound, true)))],
        (false, Rel::Ne) => vec![part(None, Some((bound.clone(), false))), part(Some((bound, false)), None)],
        (true, Rel::Lt | Rel::Le | Rel::Gt | Rel::Ge) => {
            // A negative bound would need more care than such an answer deserves.
            (ctx.constant_frac_sign(&bound)? == Sign::Plus).then_some(())?;
            let minus = ctx.neg(&bound);
            if matches!(sign, Rel::Lt | Rel::Le) {
                vec![part(Some((minus, inside)), Some((bound, inside)))]
            } else {
                vec![part(None, Some((minus, inside))), part(Some((bound, inside)), None)]
            }
        }
        _ => return None,
    };
    Some(RealSet(parts))
}

/// Splits `slope * unknown + rest`, both constant, with one unknown atom to the first power.
fn linear(ctx: &Ctx, poly: &Poly) -> Option<(u32, Poly, Poly)> {
    let (mut slope, mut rest) = (Poly::default(), Poly::default());
    let mut unknown = None;
    for (mono, value) in &poly.0 {
        let mut free = mono.iter().filter(|(at, _)| !ctx.entries[*at as usize].constant);
        match (free.next(), free.next()) {
            (None, _) => {
                rest.0.insert(mono.clone(), value.clone());
            }
            (Some(&(at, exponent)), None) if exponent == Exp::from_integer(1) => {
                if unknown.replace(at).is_some_and(|other| other != at) {
                    return None;
                }
                let constant = mono.iter().copied().filter(|&(other, _)| other != at).collect();
                slope.0.insert(constant, value.clone());
            }
            _ => return None,
        }
    }
    Some((unknown?, slope, rest))
}
