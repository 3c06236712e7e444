//! Real numbers with an error bound: `(mid ± rad) * 2^exp`, as many bits as asked for.
//!
//! Every operation returns a ball that contains the true result for all numbers in its operands, so that two values
//! whose balls are apart are surely different. Magnitudes, bits and series lengths are bounded: nothing here can run
//! away.

use std::sync::LazyLock;

use num_bigint::{BigInt, BigUint, Sign};
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

/// Why a value could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoValue {
    /// It does not exist: a root of a negative number, a logarithm of zero, a division by zero.
    Undefined,
    /// The error bound swallowed it, or it is too large to hold.
    Lost,
}

type Result<T> = std::result::Result<T, NoValue>;

/// Largest number of bits that a ball is computed with.
pub(crate) const MAX_PRECISION: u64 = 1024;
/// Roots up to this degree are computed digit by digit; higher ones, whose digits cost n times as many, by logarithms.
const ROOT_BY_DIGITS: u32 = 8;
/// Additional bits inside the series.
const GUARD: u64 = 64;
/// Magnitudes beyond 2 to this power, or below its inverse, are given up.
const MAX_EXPONENT: i64 = 1 << 40;
/// Arguments of exp, sin and cos beyond 2 to this power are given up.
const MAX_ARGUMENT_BITS: i64 = 40;

#[derive(Debug, Clone)]
pub(crate) struct Ball {
    mid: BigInt,
    /// Not negative, in units of 2^exp.
    rad: BigInt,
    exp: i64,
}

impl Ball {
    pub(crate) fn zero() -> Self {
        Self { mid: BigInt::zero(), rad: BigInt::zero(), exp: 0 }
    }

    pub(crate) fn integer(value: i64) -> Self {
        Self { mid: value.into(), rad: BigInt::zero(), exp: 0 }
    }

    pub(crate) fn rational(value: &BigRational, precision: u64) -> Result<Self> {
        let exact = |integer: &BigInt| Self { mid: integer.clone(), rad: BigInt::zero(), exp: 0 };
        if value.is_integer() {
            return exact(value.numer()).rounded(precision);
        }
        exact(value.numer()).div(&exact(value.denom()), precision)
    }

    pub(crate) fn pi(precision: u64) -> Self {
        fixed(&PI, CONSTANT_BITS, precision)
    }

    /// Whether zero is one of the numbers that this may be.
    pub(crate) fn contains_zero(&self) -> bool {
        self.mid.magnitude() <= self.rad.magnitude()
    }

    /// The sign, or `None` when it is not certain.
    pub(crate) fn sign(&self) -> Option<Sign> {
        match (self.mid.is_zero(), self.rad.is_zero()) {
            (true, true) => Some(Sign::NoSign),
            _ if self.contains_zero() => None,
            _ => Some(self.mid.sign()),
        }
    }

    /// log2 of the largest absolute value that this may have, rounded up; very low for an exact zero.
    pub(crate) fn top(&self) -> i64 {
        let most = self.mid.magnitude() + self.rad.magnitude();
        if most.is_zero() { i64::MIN / 4 } else { self.exp + bits(&most) }
    }

    /// The integer part below, when all numbers of the ball share it.
    pub(crate) fn floor(&self) -> Option<BigInt> {
        let low = shift_floor(&(&self.mid - &self.rad), self.exp)?;
        (low == shift_floor(&(&self.mid + &self.rad), self.exp)?).then_some(low)
    }

    fn rounded(mut self, precision: u64) -> Result<Self> {
        let excess = self.mid.bits().saturating_sub(precision);
        if excess > 0 {
            self.mid >>= excess;
            self.rad = (self.rad >> excess) + 2;
            self.exp += excess as i64;
        }
        if self.rad.bits() > precision + GUARD || self.exp.abs() > MAX_EXPONENT {
            return Err(NoValue::Lost);
        }
        Ok(self)
    }

    pub(crate) fn neg(mut self) -> Self {
        self.mid = -self.mid;
        self
    }

    pub(crate) fn abs(mut self) -> Self {
        // Where zero is inside, |x| stays within the same bound.
        if self.mid.is_negative() {
            self.mid = -self.mid;
        }
        self
    }

    pub(crate) fn add(&self, other: &Self, precision: u64) -> Result<Self> {
        // What lies far below the larger operand's last bit need not be carried along.
        let top = self.top().max(other.top());
        let exp = self.exp.min(other.exp).max(top - 4 * precision as i64);
        let at = |ball: &Self| -> (BigInt, BigInt) {
            if ball.exp >= exp {
                let up = (ball.exp - exp) as u64;
                if ball.mid.is_zero() && ball.rad.is_zero() {
                    return (BigInt::zero(), BigInt::zero());
                }
                (&ball.mid << up, &ball.rad << up)
            } else {
                let down = (exp - ball.exp) as u64;
                (shift_right(&ball.mid, down), shift_right(&ball.rad, down) + 2)
            }
        };
        let ((m1, r1), (m2, r2)) = (at(self), at(other));
        Self { mid: m1 + m2, rad: r1 + r2, exp }.rounded(precision)
    }

    pub(crate) fn sub(&self, other: &Self, precision: u64) -> Result<Self> {
        self.add(&other.clone().neg(), precision)
    }

    pub(crate) fn mul(&self, other: &Self, precision: u64) -> Result<Self> {
        let rad = self.mid.abs() * &other.rad + other.mid.abs() * &self.rad + &self.rad * &other.rad;
        Self { mid: &self.mid * &other.mid, rad, exp: self.exp + other.exp }.rounded(precision)
    }

    pub(crate) fn div(&self, other: &Self, precision: u64) -> Result<Self> {
        if other.contains_zero() {
            return Err(if other.rad.is_zero() { NoValue::Undefined } else { NoValue::Lost });
        }
        let wanted = precision as i64 + 2 + other.mid.bits() as i64 - self.mid.bits() as i64;
        let up = wanted.clamp(0, MAX_EXPONENT) as u64;
        let mid = (&self.mid << up) / &other.mid;
        // |x/y - m/n| <= (|m| s + |n| r) / (|n| (|n| - s)) for x in m ± r and y in n ± s.
        let below = other.mid.abs();
        let spread = self.mid.abs() * &other.rad + &below * &self.rad;
        let rad = if spread.is_zero() { BigInt::one() } else { (spread << up) / (&below * (&below - &other.rad)) + 2 };
        Self { mid, rad, exp: self.exp - other.exp - up as i64 }.rounded(precision)
    }

    /// Integer power.
    pub(crate) fn powi(&self, power: i64, precision: u64) -> Result<Self> {
        let mut left = power.unsigned_abs();
        let (mut square, mut result) = (self.clone(), Self::integer(1));
        while left > 0 {
            if left & 1 == 1 {
                result = result.mul(&square, precision)?;
            }
            left >>= 1;
            if left > 0 {
                square = square.mul(&square, precision)?;
            }
        }
        if power < 0 { Self::integer(1).div(&result, precision) } else { Ok(result) }
    }

    /// What [`root`](Self::root) costs in the units of `canon::MAX_WORK`.
    pub(crate) fn root_cost(n: u32, precision: u64) -> u64 {
        let words = precision / 64;
        if n > ROOT_BY_DIGITS { 40 + 8 * words * words } else { words * u64::from(n * n) }
    }

    /// The real n-th root, n >= 1; of a negative number only when n is odd.
    pub(crate) fn root(&self, n: u32, precision: u64) -> Result<Self> {
        let (mut low, high) = (&self.mid - &self.rad, &self.mid + &self.rad);
        if high.is_negative() {
            return if n % 2 == 1 { Ok(self.clone().neg().root(n, precision)?.neg()) } else { Err(NoValue::Undefined) };
        }
        if low.is_negative() {
            if n % 2 == 1 {
                return Err(NoValue::Lost);
            }
            low = BigInt::zero();
        }
        if n > ROOT_BY_DIGITS {
            if high.is_zero() {
                return Ok(Self::zero());
            }
            let logarithm = self.ln(precision + GUARD)?;
            return logarithm.div(&Self::integer(n.into()), precision + GUARD)?.exp(precision);
        }
        let n_i64 = i64::from(n);
        // Enough bits below the point for the root to have `precision` of them, and an exponent that n divides.
        let wanted = n_i64 * (precision as i64 + 2) - high.bits() as i64;
        if wanted > 1 << 20 {
            return Err(NoValue::Lost);
        }
        let mut up = wanted.max(0);
        up += (self.exp - up).rem_euclid(n_i64);
        let low = (low << up).nth_root(n);
        let high = (high << up).nth_root(n) + 1;
        let mid: BigInt = (&low + &high) >> 1;
        let rad = (high - low) / 2 + 1;
        Self { mid, rad, exp: (self.exp - up).div_euclid(n_i64) }.rounded(precision)
    }

    /// The middle in units of 2^-scale (cut), and the radius (rounded up) in the same units.
    fn to_fixed(&self, scale: u64) -> Result<(BigInt, BigInt)> {
        let up = self.exp + scale as i64;
        if up >= 0 {
            if self.top() > MAX_ARGUMENT_BITS {
                return Err(NoValue::Lost);
            }
            Ok((&self.mid << up, &self.rad << up))
        } else {
            let down = up.unsigned_abs();
            Ok((shift_right(&self.mid, down), shift_right(&self.rad, down) + 2))
        }
    }

    pub(crate) fn exp(&self, precision: u64) -> Result<Self> {
        if self.top() > MAX_ARGUMENT_BITS {
            return Err(NoValue::Lost);
        }
        let scale = precision + 2 * GUARD;
        let (x, rad) = self.to_fixed(scale)?;
        if rad.bits() >= scale {
            return Err(NoValue::Lost);
        }
        let ln2 = down_to(&LN_2, CONSTANT_BITS, scale);
        let k: BigInt = &x / &ln2;
        let k = k.to_i64().ok_or(NoValue::Lost)?;
        // The reduction is off by k units at most; |k| < 2^41.
        let reduced: BigInt = x - ln2 * k;
        const HALVINGS: u64 = 12;
        let small: BigInt = reduced >> HALVINGS;
        let mut sum = BigInt::one() << scale;
        let mut term = sum.clone();
        for n in 1u32..1000 {
            term = ((term * &small) >> scale) / n;
            if term.is_zero() || term == BigInt::from(-1) {
                break;
            }
            sum += &term;
        }
        for _ in 0..HALVINGS {
            sum = (&sum * &sum) >> scale;
        }
        // Series and squarings: under 2^(12+12) units; reduction: |k| units, carried by exp(reduced) <= 2.
        let error = (BigInt::one() << (2 * HALVINGS + 2)) + BigInt::from(k.unsigned_abs()) * 4;
        // |e^(x+d) - e^x| <= e^x * 2|d| for |d| <= 1.
        let spread = ((&sum * (rad * 2 + 2)) >> scale) + 1;
        Self { mid: sum, rad: error + spread, exp: k - scale as i64 }.rounded(precision)
    }

    pub(crate) fn ln(&self, precision: u64) -> Result<Self> {
        if self.contains_zero() {
            return Err(if self.rad.is_zero() || self.mid.is_negative() { NoValue::Undefined } else { NoValue::Lost });
        }
        if self.mid.is_negative() {
            return Err(NoValue::Undefined);
        }
        let scale = precision + GUARD;
        let bits = self.mid.bits();
        // mid = y * 2^bits with y in [1/2, 1).
        let y = if bits >= scale { &self.mid >> (bits - scale) } else { &self.mid << (scale - bits) };
        let one = BigInt::one() << scale;
        let z: BigInt = ((&y - &one) << scale) / (&y + &one);
        let series = atanh_series(&z, scale);
        let k = self.exp + bits as i64;
        let value = series * 2 + down_to(&LN_2, CONSTANT_BITS, scale) * k;
        // Series: under 2^12 units; the constant: one unit for each k.
        let error = BigInt::from(1 << 12) + BigInt::from(k.unsigned_abs());
        let spread =
            if self.rad.is_zero() { BigInt::zero() } else { (&self.rad << scale) / (&self.mid - &self.rad) + 1 };
        Self { mid: value, rad: error + spread, exp: -(scale as i64) }.rounded(precision)
    }

    /// (sin, cos).
    pub(crate) fn sin_cos(&self, precision: u64) -> Result<(Self, Self)> {
        if self.top() > MAX_ARGUMENT_BITS {
            return Err(NoValue::Lost);
        }
        let scale = precision + 2 * GUARD;
        let (x, rad) = self.to_fixed(scale)?;
        let half_turn = down_to(&PI, CONSTANT_BITS, scale);
        let turn: BigInt = &half_turn * 2;
        let mut turns: BigInt = &x / &turn;
        let mut x: BigInt = x - &turn * &turns;
        if x.magnitude() > half_turn.magnitude() {
            let step = if x.is_negative() { -1 } else { 1 };
            x -= &turn * step;
            turns += step;
        }
        let one = BigInt::one() << scale;
        let series = |mut term: BigInt, first: u32| {
            let square: BigInt = -(&x * &x) >> scale;
            let mut sum = term.clone();
            let mut n = first;
            while n < 2000 {
                term = ((term * &square) >> scale) / (n * (n + 1));
                if term.is_zero() || term == BigInt::from(-1) {
                    break;
                }
                sum += &term;
                n += 2;
            }
            sum
        };
        let (sine, cosine) = (series(x.clone(), 2), series(one, 1));
        let error: BigInt = (BigInt::one() << 20) + turns.abs() * 2 + rad;
        let ball = |mid| Self { mid, rad: error.clone(), exp: -(scale as i64) }.rounded(precision);
        Ok((ball(sine)?, ball(cosine)?))
    }

    pub(crate) fn atan(&self, precision: u64) -> Result<Self> {
        let work = precision + GUARD;
        let one = Self::integer(1);
        if self.top() > 1 {
            if self.contains_zero() {
                return Err(NoValue::Lost);
            }
            // atan x = ±pi/2 - atan(1/x)
            let inverse = one.div(self, work)?.atan(precision)?;
            let quarter = Self::pi(work).mul(&Self::rational(&BigRational::new(1.into(), 2.into()), work)?, work)?;
            let quarter = if self.mid.is_negative() { quarter.neg() } else { quarter };
            return quarter.sub(&inverse, precision);
        }
        // Twice atan x = 2 atan(x / (1 + sqrt(1 + x^2))).
        let mut t = self.clone();
        for _ in 0..2 {
            let root = t.mul(&t, work)?.add(&one, work)?.root(2, work)?;
            t = t.div(&root.add(&one, work)?, work)?;
        }
        let scale = precision + GUARD;
        let (x, rad) = t.to_fixed(scale)?;
        let square: BigInt = -(&x * &x) >> scale;
        let (mut sum, mut power) = (x.clone(), x);
        for n in (3u32..4000).step_by(2) {
            power = (power * &square) >> scale;
            if power.is_zero() || power == BigInt::from(-1) {
                break;
            }
            sum += &power / n;
        }
        Self { mid: sum * 4, rad: rad * 4 + (1 << 14), exp: -(scale as i64) }.rounded(precision)
    }
}

/// z + z^3/3 + z^5/5 ... in units of 2^-scale, for |z| <= 1/2.
fn atanh_series(z: &BigInt, scale: u64) -> BigInt {
    let square: BigInt = (z * z) >> scale;
    let (mut sum, mut power) = (z.clone(), z.clone());
    for n in (3u32..4000).step_by(2) {
        power = (power * &square) >> scale;
        if power.is_zero() || power == BigInt::from(-1) {
            break;
        }
        sum += &power / n;
    }
    sum
}

const CONSTANT_BITS: u64 = MAX_PRECISION + 4 * GUARD;

/// pi by Machin's formula, in units of 2^-CONSTANT_BITS.
static PI: LazyLock<BigInt> = LazyLock::new(|| {
    let scale = CONSTANT_BITS + GUARD;
    let arctan_inverse = |n: u32| {
        let mut power: BigInt = (BigInt::one() << scale) / n;
        let mut sum = power.clone();
        for k in (3u32..).step_by(2) {
            power = -power / (n * n);
            if power.is_zero() {
                break;
            }
            sum += &power / k;
        }
        sum
    };
    (arctan_inverse(5) * 16 - arctan_inverse(239) * 4) >> GUARD
});

/// ln 2 = 2 atanh(1/3), in units of 2^-CONSTANT_BITS.
static LN_2: LazyLock<BigInt> = LazyLock::new(|| {
    let scale = CONSTANT_BITS + GUARD;
    let third = (BigInt::one() << scale) / 3;
    (atanh_series(&third, scale) * 2) >> GUARD
});

fn down_to(constant: &BigInt, from: u64, to: u64) -> BigInt {
    constant >> (from - to)
}

fn fixed(constant: &BigInt, scale: u64, precision: u64) -> Ball {
    let excess = scale.saturating_sub(precision);
    Ball { mid: constant >> excess, rad: BigInt::from(2), exp: excess as i64 - scale as i64 }
}

fn bits(value: &BigUint) -> i64 {
    value.bits() as i64
}

/// `value >> by`, also where `by` is far beyond the value's length.
fn shift_right(value: &BigInt, by: u64) -> BigInt {
    if by > value.bits() + 1 {
        return if value.is_negative() { BigInt::from(-1) } else { BigInt::zero() };
    }
    value >> by
}

/// floor(value * 2^exp); `None` when that has more than a few thousand bits.
fn shift_floor(value: &BigInt, exp: i64) -> Option<BigInt> {
    if exp <= 0 {
        Some(shift_right(value, exp.unsigned_abs()))
    } else if exp < 1 << 12 {
        Some(value << exp)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(a: i64, b: i64) -> BigRational {
        BigRational::new(a.into(), b.into())
    }

    fn ball(a: i64, b: i64, precision: u64) -> Ball {
        Ball::rational(&ratio(a, b), precision).unwrap()
    }

    fn same(a: &Ball, b: &Ball, precision: u64) {
        let difference = a.sub(b, precision).unwrap();
        assert!(difference.contains_zero(), "{a:?} {b:?}");
        let loss = difference.top() - a.top().max(b.top()) + precision as i64;
        assert!(loss < 40, "{loss} bits lost: {a:?} {b:?}");
    }

    fn near(a: &Ball, value: f64) {
        let exact = BigRational::from_float(value).unwrap();
        let gap = a.sub(&Ball::rational(&exact, 128).unwrap(), 128).unwrap();
        assert!(gap.top() <= a.top() - 50, "{a:?} is not {value}");
    }

    #[test]
    fn identities_hold_at_all_precisions() {
        for p in [64, 128, 256, 1024] {
            let two = Ball::integer(2);
            same(&two.root(2, p).unwrap().powi(2, p).unwrap(), &two, p);
            same(&ball(-8, 27, p).root(3, p).unwrap(), &ball(-2, 3, p), p);
            for x in [ball(1, 3, p), ball(-7, 2, p), ball(22, 7, p), ball(100, 3, p), ball(1, 1000, p)] {
                same(&x.exp(p).unwrap().ln(p).unwrap(), &x, p);
                let (s, c) = x.sin_cos(p).unwrap();
                let one = s.mul(&s, p).unwrap().add(&c.mul(&c, p).unwrap(), p).unwrap();
                same(&one, &Ball::integer(1), p);
                let t = x.atan(p).unwrap();
                let (s, c) = t.sin_cos(p).unwrap();
                same(&s.div(&c, p).unwrap(), &x, p);
            }
            let quarter = Ball::integer(1).atan(p).unwrap();
            same(&quarter.mul(&Ball::integer(4), p).unwrap(), &Ball::pi(p), p);
            assert!(Ball::pi(p).sin_cos(p).unwrap().0.contains_zero());
        }
    }

    #[test]
    fn values_agree_with_floating_point() {
        near(&Ball::pi(128), std::f64::consts::PI);
        near(&Ball::integer(1).exp(128).unwrap(), std::f64::consts::E);
        near(&Ball::integer(10).ln(128).unwrap(), std::f64::consts::LN_10);
        near(&ball(-3, 1, 128).exp(128).unwrap(), (-3f64).exp());
        near(&ball(5, 2, 128).sin_cos(128).unwrap().0, 2.5f64.sin());
        near(&ball(-1000, 1, 128).sin_cos(128).unwrap().1, 1000f64.cos());
        near(&ball(-5, 1, 128).atan(128).unwrap(), (-5f64).atan());
    }

    #[test]
    fn what_has_no_value_says_so() {
        let p = 128;
        assert_eq!(Ball::integer(-1).root(2, p).unwrap_err(), NoValue::Undefined);
        assert_eq!(Ball::zero().ln(p).unwrap_err(), NoValue::Undefined);
        assert_eq!(Ball::integer(1).div(&Ball::zero(), p).unwrap_err(), NoValue::Undefined);
        let huge = Ball::integer(10).powi(1 << 39, p);
        assert_eq!(huge.unwrap_err(), NoValue::Lost);
        assert_eq!(Ball::integer(1 << 50).exp(p).unwrap_err(), NoValue::Lost);
        assert_eq!(ball(7, 2, p).floor(), Some(3.into()));
        assert_eq!(ball(-7, 2, p).floor(), Some((-4).into()));
        assert_eq!(Ball::integer(2).root(2, p).unwrap().powi(2, p).unwrap().floor(), None);
    }
}
