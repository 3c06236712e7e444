//! The decision whether a canonical sum is zero: exactly where its atoms are independent, otherwise by values.
//!
//! A value is a ball ([`super::ball`]). A ball without zero proves that the sum is not zero. A ball with zero is
//! believed only at high precision, relative to the largest term: constants at 1024 bits, sums with variables at
//! several seeded points.

use num_bigint::{BigInt, Sign};
use num_rational::BigRational;

use super::ball::{Ball, MAX_PRECISION, NoValue};
use super::canon::{Atom, Ctx, Domain, Frac, Poly};
use super::mono::Mono;
use super::number::Exp;
use super::tree::Func;

/// What is known about a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zero {
    Yes,
    No,
    /// It has no value anywhere that was looked, or cannot be evaluated at all.
    Unknown,
}

/// Values of the variables by the number of their atom.
type SamplePoint<'a> = &'a dyn Fn(u32) -> Option<Ball>;

/// Precision, in bits, at the points of sums with variables.
const PROBE_PRECISION: u64 = 192;
/// So many points with a zero value are enough.
const POINTS_WANTED: usize = 5;
/// So many points are tried at most.
const POINTS_TRIED: u64 = 24;

impl Ctx {
    pub(crate) fn is_zero(&self, poly: &Poly) -> Zero {
        if poly.is_zero() {
            return Zero::Yes;
        }
        if self.independent(poly) {
            return Zero::No;
        }
        let Some((real, imaginary)) = self.split_complex(poly) else { return Zero::Unknown };
        match (self.is_real_zero(&real), self.is_real_zero(&imaginary)) {
            (Zero::Yes, Zero::Yes) => Zero::Yes,
            (Zero::No, _) | (_, Zero::No) => Zero::No,
            _ => Zero::Unknown,
        }
    }

    fn is_real_zero(&self, poly: &Poly) -> Zero {
        if poly.is_zero() {
            return Zero::Yes;
        }
        if self.independent(poly) {
            return Zero::No;
        }
        if self.is_constant(poly) {
            for precision in [128, MAX_PRECISION] {
                match self.zero_at(poly, &|_| None, precision) {
                    Zero::No => return Zero::No,
                    Zero::Yes if precision == MAX_PRECISION => return Zero::Yes,
                    _ => {}
                }
            }
            return Zero::Unknown;
        }
        if self.domain == Domain::Complex {
            // Real points would show an identity of real numbers only.
            return Zero::Unknown;
        }
        // Fractions first; whole numbers for what is defined only there: (-1)^n, n!.
        for whole in [false, true] {
            let mut zeros = 0;
            for seed in 0..POINTS_TRIED {
                let point = |at: u32| matches!(self.atom(at), Atom::Var(_)).then(|| sample(seed, at, whole));
                match self.zero_at(poly, &point, PROBE_PRECISION) {
                    Zero::No => return Zero::No,
                    Zero::Yes => zeros += 1,
                    Zero::Unknown => {}
                }
                if zeros == POINTS_WANTED {
                    return Zero::Yes;
                }
            }
        }
        Zero::Unknown
    }

    fn zero_at(&self, poly: &Poly, point: SamplePoint, precision: u64) -> Zero {
        let mut sum = Ball::zero();
        let mut scale = i64::MIN / 4;
        for (mono, value) in &poly.0 {
            let Ok(term) = self.term(mono, value, point, precision) else { return Zero::Unknown };
            scale = scale.max(term.top());
            match sum.add(&term, precision) {
                Ok(next) => sum = next,
                Err(_) => return Zero::Unknown,
            }
        }
        if !sum.contains_zero() {
            Zero::No
        } else if sum.top() <= scale - (precision as i64) * 3 / 4 {
            Zero::Yes
        } else {
            Zero::Unknown
        }
    }

    fn term(&self, mono: &Mono, value: &BigRational, point: SamplePoint, precision: u64) -> Result<Ball, NoValue> {
        self.spend(super::number::bits(value) / 256).map_err(|_| NoValue::Lost)?;
        let mut result = Ball::rational(value, precision)?;
        for &(at, exponent) in mono {
            let factor = self.atom_value(at, exponent, point, precision)?;
            result = result.mul(&factor, precision)?;
        }
        Ok(result)
    }

    fn value(&self, poly: &Poly, point: SamplePoint, precision: u64) -> Result<Ball, NoValue> {
        let mut sum = Ball::zero();
        for (mono, value) in &poly.0 {
            sum = sum.add(&self.term(mono, value, point, precision)?, precision)?;
        }
        Ok(sum)
    }

    fn frac_value(&self, frac: &Frac, point: SamplePoint, precision: u64) -> Result<Ball, NoValue> {
        let above = self.value(&frac.num, point, precision)?;
        if frac.den.is_one() { Ok(above) } else { above.div(&self.value(&frac.den, point, precision)?, precision) }
    }

    /// The value of one atom to a power.
    fn atom_value(&self, at: u32, exponent: Exp, point: SamplePoint, precision: u64) -> Result<Ball, NoValue> {
        self.spend(1 + precision / 64).map_err(|_| NoValue::Lost)?;
        let base = match self.atom(at) {
            Atom::Prime(prime) => Ball::rational(&BigRational::from_integer(prime.clone().into()), precision)?,
            Atom::MinusOne | Atom::Infinity => return Err(NoValue::Undefined),
            Atom::Pi => Ball::pi(precision),
            Atom::Var(_) => point(at).ok_or(NoValue::Undefined)?,
            Atom::Exp(mono) => {
                let words = precision / 64;
                self.spend(20 + 4 * words * words).map_err(|_| NoValue::Lost)?;
                let inner = self.term(mono, &BigRational::from_integer(1.into()), point, precision)?;
                let scaled = inner.mul(&Ball::rational(&super::number::from_exp(exponent), precision)?, precision)?;
                return scaled.exp(precision);
            }
            Atom::Base(poly) => self.value(poly, point, precision)?,
            Atom::Opaque(frac) => self.frac_value(frac, point, precision)?,
            Atom::Power(frac, mono) => {
                let base = self.frac_value(frac, point, precision)?;
                let inner = self.term(mono, &super::number::from_exp(exponent), point, precision)?;
                return real_power(&base, &inner, precision);
            }
            Atom::Call(func, arguments) => self.call_value(func, arguments, point, precision)?,
        };
        let root = match exponent.denom() {
            1 => base,
            &n => {
                let n = u32::try_from(n).map_err(|_| NoValue::Lost)?;
                self.spend(Ball::root_cost(n, precision)).map_err(|_| NoValue::Lost)?;
                base.root(n, precision)?
            }
        };
        root.powi(*exponent.numer(), precision)
    }

    fn call_value(&self, func: &Func, arguments: &[Frac], point: SamplePoint, precision: u64) -> Result<Ball, NoValue> {
        let first = arguments.first().ok_or(NoValue::Undefined)?;
        let words = precision / 64;
        self.spend(20 + 4 * words * words).map_err(|_| NoValue::Lost)?;
        let x = self.frac_value(first, point, precision)?;
        match func {
            Func::Sin => Ok(x.sin_cos(precision)?.0),
            Func::Cos => Ok(x.sin_cos(precision)?.1),
            Func::Atan => x.atan(precision),
            Func::Asin => {
                // asin x = 2 atan(x / (1 + sqrt(1 - x^2)))
                let one = Ball::integer(1);
                let below = one.sub(&x.mul(&x, precision)?, precision)?.root(2, precision)?.add(&one, precision)?;
                x.div(&below, precision)?.atan(precision)?.mul(&Ball::integer(2), precision)
            }
            Func::Ln => x.ln(precision),
            Func::Abs => Ok(x.abs()),
            Func::Floor | Func::Ceil => {
                let up = *func == Func::Ceil;
                let floor = if up { x.neg().floor() } else { x.floor() }.ok_or(NoValue::Lost)?;
                let value = Ball::rational(&BigRational::from_integer(floor), precision)?;
                Ok(if up { value.neg() } else { value })
            }
            Func::Factorial => {
                let n = x.floor().and_then(|n| u64::try_from(n).ok()).ok_or(NoValue::Undefined)?;
                if !x.sub(&Ball::integer(n as i64), precision)?.contains_zero() {
                    return Err(NoValue::Undefined);
                }
                let value = super::number::factorial(n).ok_or(NoValue::Lost)?;
                Ball::rational(&value.into(), precision)
            }
            Func::Max | Func::Min => {
                let mut best = x;
                for argument in &arguments[1..] {
                    let next = self.frac_value(argument, point, precision)?;
                    let ahead = next.sub(&best, precision)?.sign().ok_or(NoValue::Lost)?;
                    if ahead == if *func == Func::Max { Sign::Plus } else { Sign::Minus } {
                        best = next;
                    }
                }
                Ok(best)
            }
            _ => Err(NoValue::Undefined),
        }
    }

    /// The sign of a constant sum; `None` when it has no real value, or is too near zero to tell.
    pub(crate) fn constant_sign(&self, poly: &Poly) -> Option<Sign> {
        if let Some(value) = poly.as_rational() {
            return Some(value.numer().sign());
        }
        [128, MAX_PRECISION].into_iter().find_map(|precision| self.value(poly, &|_| None, precision).ok()?.sign())
    }

    /// The sign of a constant.
    pub(crate) fn constant_frac_sign(&self, frac: &Frac) -> Option<Sign> {
        Some(self.constant_sign(&frac.num)? * self.constant_sign(&frac.den)?)
    }

    /// The whole number below a constant, when it is certain.
    pub(crate) fn constant_floor(&self, frac: &Frac) -> Option<BigInt> {
        [128, MAX_PRECISION].into_iter().find_map(|precision| self.frac_value(frac, &|_| None, precision).ok()?.floor())
    }
}

/// base^exponent over the reals: whole exponents for any base, others for a positive one.
fn real_power(base: &Ball, exponent: &Ball, precision: u64) -> Result<Ball, NoValue> {
    match base.sign() {
        Some(Sign::Plus) => base.ln(precision)?.mul(exponent, precision)?.exp(precision),
        None => Err(NoValue::Lost),
        Some(_) => {
            let whole = exponent.floor().and_then(|n| i64::try_from(n).ok()).ok_or(NoValue::Undefined)?;
            if !exponent.sub(&Ball::integer(whole), precision)?.contains_zero() {
                return Err(NoValue::Undefined);
            }
            base.powi(whole, precision)
        }
    }
}

/// A point: a fraction with a small denominator, of either sign, often below 1; or a small whole number.
fn sample(seed: u64, at: u32, whole: bool) -> Ball {
    // SplitMix64
    let mut z = (seed << 32 | u64::from(at)).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    if whole {
        return Ball::integer((z % 9) as i64 + 1);
    }
    let below = [7, 11, 13, 17][(z >> 8) as usize % 4];
    // Even seeds lie in (0, 1), where the inverse functions are at home; odd ones reach from -4 to 4.
    let above = if seed.is_multiple_of(2) {
        1 + (z >> 16) as i64 % (below - 1)
    } else {
        let above = 1 + (z >> 16) as i64 % (4 * below);
        if z & 1 == 0 { -above } else { above }
    };
    Ball::rational(&BigRational::new(above.into(), below.into()), 256).unwrap_or_else(|_| Ball::integer(1))
}
