//! Numbers as sympy computes them: exact fractions, and decimals rounded to a binary precision after every step.

use num_bigint::BigInt;
use num_rational::{BigRational, Ratio};
use num_traits::{FromPrimitive, One, Signed, ToPrimitive, Zero};

use crate::expr::number::{self, bits, power};

/// Longest number in bits: answers have short ones, and what sympy would do for minutes is cut off.
const MAX_BITS: u64 = 1 << 12;

/// What all operations of one expression may cost together, in the units of [`number::cost`].
pub(super) const MAX_WORK: u64 = 8000;

/// A number of the expression.
#[derive(Debug, Clone)]
pub(super) enum FloatNumber {
    Exact(BigRational),
    Float(Float),
}

/// A decimal. sympy rounds it to `precision` bits when it computes with other numbers, but goes back to a fraction
/// before it simplifies an expression with symbols; both readings are carried.
#[derive(Debug, Clone)]
pub(super) struct Float {
    rounded: BigRational,
    precision: u64,
    /// The value without any rounding.
    pub(super) decimal: BigRational,
}

impl FloatNumber {
    /// n! of a small whole number.
    pub(super) fn factorial(&self, work: &mut u64) -> Option<Self> {
        *work = work.checked_sub(40)?;
        let Self::Exact(value) = self else { return None };
        let n = value.is_integer().then(|| value.to_integer().to_u64())?.filter(|&n| n <= 400)?;
        Some(Self::Exact(number::factorial(n)?.into())).filter(Self::short)
    }

    /// The exact reading.
    pub(super) fn exact(&self) -> &BigRational {
        match self {
            Self::Exact(value) => value,
            Self::Float(float) => &float.decimal,
        }
    }

    /// Whether this is zero after all rounding.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Exact(value) => value.is_zero(),
            Self::Float(float) => float.rounded.is_zero(),
        }
    }

    /// A literal with a point or an exponent: digits before and after the point, and the power of ten.
    pub(super) fn literal(whole: &str, fraction: &str, exponent: i64, work: &mut u64) -> Option<Self> {
        let written = whole.trim_start_matches('0').len() + fraction.len();
        let leading = if whole.trim_start_matches('0').is_empty() {
            fraction.len() - fraction.trim_start_matches('0').len()
        } else {
            0
        };
        // sympy: at least 15 digits, and as many as are written.
        let places = (written - leading).max(15) as f64;
        let precision = ((places + 1.0) * std::f64::consts::LOG2_10).round() as u64;
        // Reading digits costs the square of their number.
        if written as u64 > MAX_BITS / 2 || exponent.unsigned_abs() > MAX_BITS {
            return None;
        }
        *work = work.checked_sub(4 + (written as u64 / 20).pow(2))?;
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        let integer: BigInt = if digits.is_empty() { BigInt::zero() } else { digits.parse().ok()? };
        let scale = exponent.checked_sub(fraction.len() as i64)?;
        let decimal = if scale < 0 {
            number::decimal(integer, scale.unsigned_abs())
        } else {
            BigRational::from_integer(integer) * power(&BigRational::from_integer(10.into()), scale)?
        };
        if bits(&decimal) > MAX_BITS {
            return None;
        }
        Some(Self::Float(Float { rounded: round(&decimal, precision), precision, decimal })).filter(Self::short)
    }

    fn short(&self) -> bool {
        match self {
            Self::Exact(value) => bits(value) <= MAX_BITS,
            Self::Float(float) => bits(&float.decimal) <= MAX_BITS && bits(&float.rounded) <= MAX_BITS,
        }
    }

    pub(super) fn neg(self) -> Self {
        match self {
            Self::Exact(value) => Self::Exact(-value),
            Self::Float(float) => {
                Self::Float(Float { rounded: -float.rounded, decimal: -float.decimal, precision: float.precision })
            }
        }
    }

    /// Applies an operation to both readings; `None` when the result is too long, or `work` is used up.
    fn combine(
        &self,
        other: &Self,
        work: &mut u64,
        apply: impl Fn(&BigRational, &BigRational) -> BigRational,
    ) -> Option<Self> {
        let rounding = if matches!((self, other), (Self::Exact(_), Self::Exact(_))) { 1 } else { 20 };
        *work = work.checked_sub(rounding + number::cost(self.exact(), other.exact()))?;
        let precision = match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => return Some(Self::Exact(apply(a, b))).filter(Self::short),
            (Self::Float(a), Self::Float(b)) => a.precision.max(b.precision),
            (Self::Float(float), Self::Exact(_)) | (Self::Exact(_), Self::Float(float)) => float.precision,
        };
        let rounded = round(&apply(&self.at(precision), &other.at(precision)), precision);
        let decimal = apply(self.exact(), other.exact());
        Some(Self::Float(Float { rounded, precision, decimal })).filter(Self::short)
    }

    /// The value that enters an operation of so many bits.
    fn at(&self, precision: u64) -> BigRational {
        match self {
            Self::Exact(value) => round(value, precision),
            Self::Float(float) => float.rounded.clone(),
        }
    }

    pub(super) fn add(&self, other: &Self, work: &mut u64) -> Option<Self> {
        self.combine(other, work, number::add)
    }

    pub(super) fn mul(&self, other: &Self, work: &mut u64) -> Option<Self> {
        // An exact zero wins over a float.
        for zero in [self, other] {
            if let Self::Exact(value) = zero
                && value.is_zero()
            {
                return Some(zero.clone());
            }
        }
        self.combine(other, work, number::mul)
    }

    pub(super) fn div(&self, other: &Self, work: &mut u64) -> Option<Self> {
        if other.is_zero() || other.exact().is_zero() {
            return None;
        }
        if let (Self::Exact(_), Self::Float(_)) = (self, other) {
            // sympy rounds the inverse first.
            let inverse = Self::Exact(BigRational::one()).combine(other, work, |a, b| a / b)?;
            return self.mul(&inverse, work);
        }
        self.combine(other, work, |a, b| a / b)
    }

    /// `None` for what is neither an exact nor a rounded number: roots of fractions stay symbols.
    pub(super) fn pow(&self, exponent: &Self, work: &mut u64) -> Option<Self> {
        *work = work.checked_sub(40)?;
        match (self, exponent) {
            (Self::Exact(base), Self::Exact(n)) if n.is_integer() => {
                power(base, n.to_integer().to_i64()?).map(Self::Exact).filter(Self::short)
            }
            (Self::Exact(_), Self::Exact(_)) => None,
            (Self::Float(base), Self::Exact(n)) if n.is_integer() => {
                let n = n.to_integer().to_i64().filter(|n| n.abs() <= 64)?;
                let rounded = round(&power(&base.rounded, n)?, base.precision);
                Some(Self::Float(Float { rounded, precision: base.precision, decimal: power(&base.decimal, n)? }))
                    .filter(Self::short)
            }
            _ => {
                let value = self.exact().to_f64()?.powf(exponent.exact().to_f64()?);
                let decimal = BigRational::from_f64(value).filter(|_| value.is_finite())?;
                Some(Self::Float(Float { rounded: decimal.clone(), precision: 53, decimal })).filter(Self::short)
            }
        }
    }
}

/// The nearest number with `precision` significant bits, ties to even.
fn round(value: &BigRational, precision: u64) -> BigRational {
    if value.is_zero() {
        return value.clone();
    }
    let (above, below) = (value.numer().abs(), value.denom());
    // quotient has one bit more than wanted, or two.
    let mut shift = above.bits() as i64 - below.bits() as i64 - precision as i64 - 1;
    let (num, den) = if shift >= 0 { (above, below << shift) } else { (above << -shift, below.clone()) };
    let mut quotient: BigInt = &num / &den;
    // A last bit that is set whenever anything below it was: ties are seen as ties only when they are exact.
    let mut sticky = &quotient * &den != num;
    while quotient.bits() > precision + 1 {
        sticky |= quotient.bit(0);
        quotient >>= 1;
        shift += 1;
    }
    let half = quotient.bit(0);
    quotient >>= 1;
    shift += 1;
    if half && (sticky || quotient.bit(0)) {
        quotient += 1;
    }
    with_sign(quotient, shift, value.is_negative())
}

fn with_sign(quotient: BigInt, shift: i64, negative: bool) -> BigRational {
    let quotient = if negative { -quotient } else { quotient };
    if shift >= 0 {
        BigRational::from_integer(quotient << shift)
    } else {
        let zeros = quotient.trailing_zeros().unwrap_or(0).min(shift.unsigned_abs());
        Ratio::new_raw(quotient >> zeros, BigInt::one() << (shift.unsigned_abs() - zeros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_doubles() {
        for (above, below) in [
            (1i64, 3i64),
            (1, 10),
            (-2, 7),
            (22, 7),
            (1, 1),
            (1 << 60, 3),
            ((1 << 54) + 1, 1),
            ((1 << 54) + 2, 1),
            ((1 << 54) + 3, 1),
        ] {
            let value = BigRational::new(above.into(), below.into());
            let double = BigRational::from_f64(above as f64 / below as f64).unwrap();
            assert_eq!(round(&value, 53), double, "{above}/{below}");
        }
    }

    #[test]
    fn decimals_compute_as_in_sympy() {
        let float = |whole, fraction| FloatNumber::literal(whole, fraction, 0, &mut 100).unwrap();
        let mut work = MAX_WORK;
        let sum = float("0", "1").add(&float("0", "2"), &mut work).unwrap();
        assert!(!sum.add(&float("0", "3").neg(), &mut work).unwrap().is_zero());
        let exact = FloatNumber::Exact(BigRational::new(1811.into(), 1000.into()));
        assert!(float("1", "811").add(&exact.neg(), &mut work).unwrap().is_zero());
        let third = FloatNumber::Exact(BigRational::new(1.into(), 3.into()));
        assert!(!float("0", "3333333333333333").add(&third.neg(), &mut work).unwrap().is_zero());
        assert!(FloatNumber::literal("1", "", 1 << 20, &mut work).is_none());
        assert!(FloatNumber::Exact(BigRational::one()).div(&float("0", "0"), &mut work).is_none());
    }
}
