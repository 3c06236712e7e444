//! Answers that are one number: the reader of `numeric`.

use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};

use super::lexer::{self, Commas};
use super::relations::{conclusion, is_constant};
use super::statement::Known;
use super::token::Kind;
use super::units::Unit;
use super::value::{Quantity, Value};
use super::{Answer, MAX_BYTES};
use crate::expr::{Expr, Func};

/// A number as an answer gives it.
struct Number {
    /// Exact, where it is rational.
    exact: Option<BigRational>,
    value: f64,
    percent: bool,
    unit: Option<Unit>,
}

/// The number that a text is: its first reading as one, a percentage as its hundredth.
pub(crate) fn number(text: &str) -> Option<f64> {
    numbers(text).into_iter().map(|number| number.value).find(|value| value.is_finite())
}

/// Whether two texts are numbers with |given - truth| <= tolerance |truth|, or |given| <= tolerance where the truth
/// is 0.
///
/// Where one side has a percent sign the other may leave it to the question, and units convert, both as in
/// [`super::equal`].
pub(crate) fn close(given: &str, truth: &str, tolerance: f64) -> bool {
    let (truth, given) = (numbers(truth), numbers(given));
    truth.iter().any(|truth| given.iter().any(|given| within(given, truth, tolerance)))
}

fn within(given: &Number, truth: &Number, tolerance: f64) -> bool {
    let mut scale = BigRational::from_integer(1.into());
    if let (Some(a), Some(b)) = (&truth.unit, &given.unit) {
        if a.dimension != b.dimension && !a.both_lengths(b) {
            return false;
        }
        if a.dimension == b.dimension {
            scale = &b.scale / &a.scale;
        }
    }
    let hundred = BigRational::from_integer(100.into());
    let plain = near(given, truth, &scale, tolerance);
    plain
        || match (truth.percent, given.percent) {
            (true, false) => near(given, truth, &(scale / hundred), tolerance),
            (false, true) => near(given, truth, &(scale * hundred), tolerance),
            _ => false,
        }
}

/// Whether `given` times `scale` is within the tolerance of `truth`.
fn near(given: &Number, truth: &Number, scale: &BigRational, tolerance: f64) -> bool {
    // As it is written: 0.01 means a hundredth, not the double next to it.
    let bound = numbers_of_decimal(tolerance);
    if let (Some(given), Some(truth), Some(bound)) = (&given.exact, &truth.exact, bound) {
        let size = if truth.is_zero() { BigRational::from_integer(1.into()) } else { truth.abs() };
        return (given * scale - truth).abs() <= bound * size;
    }
    let given = given.value * scale.to_f64().unwrap_or(f64::NAN);
    let size = if truth.value == 0.0 { 1.0 } else { truth.value.abs() };
    (given - truth.value).abs() <= tolerance * size * (1.0 + 8.0 * f64::EPSILON)
}

/// A tolerance as the decimal that it is written as.
fn numbers_of_decimal(value: f64) -> Option<BigRational> {
    let tokens = lexer::tokens(&format!("{value:e}"), Commas::Thousands)?;
    match tokens.as_slice() {
        [token] => match &token.kind {
            Kind::Number(value, _) => Some(value.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// All numbers that a text may be read as.
fn numbers(text: &str) -> Vec<Number> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_BYTES {
        return Vec::new();
    }
    let answer = Answer::new(text);
    let sum = is_sum(answer.body.rsplit('=').next().unwrap_or(&answer.body));
    let known = Known { trusted: false, truth: "", rounded: true };
    let readings = answer.readings(known);
    let quantities = readings.iter().filter_map(|reading| match conclusion(&reading.value).unwrap_or(&reading.value) {
        Value::Quantity(quantity) => Some(quantity),
        _ => None,
    });
    quantities.filter(|quantity| !sum && is_constant(&quantity.expr)).filter_map(of_quantity).collect()
}

fn of_quantity(quantity: &Quantity) -> Option<Number> {
    let exact = match &quantity.expr {
        Expr::Num(value) => Some(value.clone()),
        _ => None,
    };
    let value = value(&quantity.expr, 0)?;
    Some(Number { exact, value, percent: quantity.percent, unit: quantity.unit.clone() })
}

/// Whether a text leaves an addition to be done: an expression, which is no number yet.
fn is_sum(text: &str) -> bool {
    let Some(tokens) = lexer::tokens(text, Commas::Thousands) else { return false };
    let mut depth = 0i32;
    let mut divided = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open(_) => depth += 1,
            Kind::Close(_) => depth -= 1,
            Kind::Divide if depth == 0 => divided += 1,
            Kind::Plus | Kind::Minus if depth == 0 && at > 0 => {
                let before = &tokens[at - 1].kind;
                if matches!(before, Kind::Number(..) | Kind::Close(_) | Kind::Letter(_) | Kind::Bang | Kind::Percent) {
                    return true;
                }
            }
            _ => {}
        }
    }
    divided > 1
        || matches!(tokens.as_slice(), [first, second, ..] if first.kind == Kind::Minus && second.kind == Kind::Minus)
}

/// The value of a constant in floating point.
fn value(expr: &Expr, depth: usize) -> Option<f64> {
    if depth > 200 {
        return None;
    }
    let of = |expr: &Expr| value(expr, depth + 1);
    let result = match expr {
        Expr::Num(value) => value.to_f64()?,
        Expr::Pi => std::f64::consts::PI,
        Expr::E => std::f64::consts::E,
        Expr::Add(all) => all.iter().map(of).sum::<Option<f64>>()?,
        Expr::Mul(all) => all.iter().map(of).product::<Option<f64>>()?,
        Expr::Pow(base, exponent) => of(base)?.powf(of(exponent)?),
        Expr::Root(n, base) => {
            let base = of(base)?;
            let root = base.abs().powf(1.0 / f64::from(*n));
            if base < 0.0 && n % 2 == 1 {
                -root
            } else if base < 0.0 {
                return None;
            } else {
                root
            }
        }
        Expr::Call(func, arguments) => {
            let [x] = arguments.as_slice() else {
                return match (func, arguments.as_slice()) {
                    (Func::Log, [base, x]) => Some(of(x)?.ln() / of(base)?.ln()),
                    _ => None,
                };
            };
            let x = of(x)?;
            match func {
                Func::Sin => x.sin(),
                Func::Cos => x.cos(),
                Func::Tan => x.tan(),
                Func::Asin => x.asin(),
                Func::Acos => x.acos(),
                Func::Atan => x.atan(),
                Func::Ln => x.ln(),
                Func::Abs => x.abs(),
                _ => return None,
            }
        }
        Expr::Var(_) | Expr::I | Expr::Infinity => return None,
    };
    (!result.is_nan()).then_some(result)
}
