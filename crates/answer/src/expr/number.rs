//! Exact numbers with bounds: powers that may not explode, factors that may not take long.

use num_bigint::{BigInt, BigUint};
use num_integer::Integer;
use num_rational::{BigRational, Ratio};
use num_traits::{One, Pow, Signed, ToPrimitive, Zero};

/// An exponent inside a monomial.
pub(crate) type Exp = Ratio<i64>;

/// Longest numerator or denominator that is computed with, in bits.
pub(crate) const MAX_BITS: u64 = 1 << 16;

/// Bits of the longer of numerator and denominator.
pub(crate) fn bits(value: &BigRational) -> u64 {
    value.numer().bits().max(value.denom().bits())
}

/// What a product or sum of the two costs, in units of [`super::canon::MAX_WORK`]: fractions are reduced, and a
/// greatest common divisor costs a shift of the whole for each bit of the longer number.
pub(crate) fn cost(a: &BigRational, b: &BigRational) -> u64 {
    let words = |value: &BigRational| bits(value) / 64 + 1;
    let (a_words, b_words) = (words(a), words(b));
    if a.denom().is_one() && b.denom().is_one() {
        a_words * b_words / 64
    } else {
        let longer = a_words.max(b_words);
        8 + (a_words * b_words).max(longer * longer / 32)
    }
}

/// digits / 10^places in lowest terms. Only twos and fives can be common, so no greatest common divisor is needed.
pub(crate) fn decimal(mut digits: BigInt, places: u64) -> BigRational {
    if digits.is_zero() {
        return BigRational::zero();
    }
    let twos = digits.trailing_zeros().unwrap_or(0).min(places);
    digits >>= twos;
    let mut fives = 0;
    while fives < places {
        let (quotient, rest) = digits.div_rem(&BigInt::from(5));
        if !rest.is_zero() {
            break;
        }
        digits = quotient;
        fives += 1;
    }
    let denominator: BigInt = Pow::pow(&BigInt::from(5), places - fives) << (places - twos);
    Ratio::new_raw(digits, denominator)
}

/// a * b. Whole numbers, nearly all there are, need no greatest common divisor.
pub(crate) fn mul(a: &BigRational, b: &BigRational) -> BigRational {
    if a.denom().is_one() && b.denom().is_one() {
        return Ratio::new_raw(a.numer() * b.numer(), BigInt::one());
    }
    a * b
}

/// a + b
pub(crate) fn add(a: &BigRational, b: &BigRational) -> BigRational {
    if a.denom().is_one() && b.denom().is_one() {
        return Ratio::new_raw(a.numer() + b.numer(), BigInt::one());
    }
    a + b
}

/// a += b
pub(crate) fn add_to(a: &mut BigRational, b: &BigRational) {
    if a.denom().is_one() && b.denom().is_one() {
        *a = Ratio::new_raw(a.numer() + b.numer(), BigInt::one());
    } else {
        *a += b;
    }
}

/// `value` to an integer power; `None` when the result would be longer than [`MAX_BITS`], or for zero to a negative
/// power.
pub(crate) fn power(value: &BigRational, exponent: i64) -> Option<BigRational> {
    if value.is_zero() && exponent < 0 {
        return None;
    }
    if !value.is_zero() && !value.abs().is_one() && bits(value).checked_mul(exponent.unsigned_abs())? > MAX_BITS {
        return None;
    }
    if value.abs().is_one() {
        let negative = value.is_negative() && exponent % 2 != 0;
        return Some(if negative { -BigRational::one() } else { BigRational::one() });
    }
    let size = u32::try_from(exponent.unsigned_abs()).ok()?;
    // Powers of coprime numbers stay coprime, so nothing is left to reduce.
    let result = Ratio::new_raw(Pow::pow(value.numer(), size), Pow::pow(value.denom(), size));
    Some(if exponent < 0 { result.recip() } else { result })
}

/// A small fraction as an exponent.
pub(crate) fn as_exp(value: &BigRational) -> Option<Exp> {
    let (above, below) = (value.numer().to_i64()?, value.denom().to_i64()?);
    // Products and sums of a few of these still fit.
    (above.abs() < 1 << 30 && below < 1 << 30).then(|| Ratio::new_raw(above, below))
}

pub(crate) fn from_exp(value: Exp) -> BigRational {
    Ratio::new_raw(BigInt::from(*value.numer()), BigInt::from(*value.denom()))
}

/// The factors of a number and their powers; the last may be composite when `value` is large (then `false`).
pub(crate) fn factor(value: &BigUint) -> (Vec<(BigUint, i64)>, bool) {
    let mut factors = Vec::new();
    let Some(mut rest) = value.to_u64() else { return factor_big(value) };
    let mut take = |p: u64, rest: &mut u64| {
        let mut count = 0;
        while rest.is_multiple_of(p) {
            *rest /= p;
            count += 1;
        }
        if count > 0 {
            factors.push((BigUint::from(p), count));
        }
    };
    if rest == 0 {
        return (factors, true);
    }
    take(2, &mut rest);
    let mut p = 3;
    while p < TRIAL_LIMIT && p * p <= rest {
        take(p, &mut rest);
        p += 2;
    }
    if rest > 1 {
        // Trial division stopped early only for a large rest.
        if p * p > rest || is_prime(rest) {
            factors.push((BigUint::from(rest), 1));
        } else {
            let root = (rest as f64).sqrt().round() as u64;
            if root.checked_mul(root) == Some(rest) && is_prime(root) {
                factors.push((BigUint::from(root), 2));
            } else {
                factors.push((BigUint::from(rest), 1));
                return (factors, false);
            }
        }
    }
    (factors, true)
}

const TRIAL_LIMIT: u64 = 2000;

fn factor_big(value: &BigUint) -> (Vec<(BigUint, i64)>, bool) {
    let mut factors = Vec::new();
    let mut rest = value.clone();
    let twos = rest.trailing_zeros().unwrap_or(0);
    if twos > 0 {
        rest >>= twos;
        factors.push((BigUint::from(2u32), twos as i64));
    }
    // A long number costs a division for each prime tried; it gets fewer.
    let limit = if rest.bits() > 1024 { 50 } else { TRIAL_LIMIT };
    let mut p = 3u64;
    while p < limit && !rest.is_one() {
        let mut count = 0;
        while (&rest % p).is_zero() {
            rest /= p;
            count += 1;
        }
        if count > 0 {
            factors.push((BigUint::from(p), count));
        }
        p += 2;
        if rest.bits() <= 64 {
            let (more, sure) = factor(&rest);
            factors.extend(more);
            return (factors, sure);
        }
    }
    if rest.is_one() {
        return (factors, true);
    }
    factors.push((rest, 1));
    (factors, false)
}

/// Miller-Rabin with the bases that are certain for 64 bits.
fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 {
        return false;
    }
    if let Some(&divisor) = BASES.iter().find(|&&p| n.is_multiple_of(p)) {
        return n == divisor;
    }
    let times = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(n)) as u64;
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    BASES.iter().all(|&base| {
        let (mut x, mut square, mut left) = (1, base, odd);
        while left > 0 {
            if left & 1 == 1 {
                x = times(x, square);
            }
            square = times(square, square);
            left >>= 1;
        }
        if x == 1 || x == n - 1 {
            return true;
        }
        (1..twos).any(|_| {
            x = times(x, x);
            x == n - 1
        })
    })
}

/// n!, for n up to a few thousand.
pub(crate) fn factorial(n: u64) -> Option<BigInt> {
    (n <= 3000).then(|| {
        // Halves first: products of numbers of equal length are the cheap ones.
        fn range(low: u64, high: u64) -> BigInt {
            if high - low < 8 {
                (low..=high).fold(BigInt::one(), |product, k| product * k)
            } else {
                let middle = low.midpoint(high);
                range(low, middle) * range(middle + 1, high)
            }
        }
        range(1, n.max(1))
    })
}

/// Binomial coefficient for 0 <= k <= n, bounded.
pub(crate) fn binomial(n: u64, k: u64) -> Option<BigInt> {
    if k > n {
        return Some(BigInt::zero());
    }
    let k = k.min(n - k);
    if k > 2000 {
        return None;
    }
    let mut result = BigInt::one();
    for step in 1..=k {
        result = result * (n - k + step) / step;
        if result.bits() > MAX_BITS {
            return None;
        }
    }
    Some(result)
}

/// The positive greatest common divisor of fractions: that of the numerators over the least common multiple of the
/// denominators.
pub(crate) fn content<'a>(values: impl Iterator<Item = &'a BigRational>) -> BigRational {
    let (mut above, mut below) = (BigInt::zero(), BigInt::one());
    for value in values {
        above = above.gcd(value.numer());
        below = below.lcm(value.denom());
    }
    if above.is_zero() { BigRational::one() } else { Ratio::new_raw(above, below) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(a: i64, b: i64) -> BigRational {
        BigRational::new(a.into(), b.into())
    }

    #[test]
    fn decimals_are_reduced() {
        for (digits, places) in [(0i64, 3u64), (125, 3), (125, 2), (-1000, 3), (7, 0), (1 << 20, 5), (300, 1), (15, 1)]
        {
            let exact = BigRational::new(digits.into(), BigInt::from(10).pow(places as u32));
            let found = decimal(digits.into(), places);
            assert_eq!((found.numer(), found.denom()), (exact.numer(), exact.denom()), "{digits} {places}");
        }
    }

    #[test]
    fn powers_are_bounded() {
        assert_eq!(power(&ratio(-2, 3), -3), Some(ratio(-27, 8)));
        assert_eq!(power(&ratio(0, 1), 0), Some(ratio(1, 1)));
        assert_eq!(power(&ratio(0, 1), -1), None);
        assert_eq!(power(&ratio(-1, 1), i64::MIN + 1), Some(ratio(-1, 1)));
        assert_eq!(power(&ratio(10, 1), 1 << 40), None);
    }

    #[test]
    fn factors_multiply_back() {
        let prime = (1u64 << 61) - 1;
        for value in
            [1, 2, 12, 97, 1 << 40, 1_000_003 * 1_000_003, prime, 2 * 3 * 5 * 7 * 11 * 13 * 1999, 600_851_475_143]
        {
            let (factors, sure) = factor(&BigUint::from(value));
            assert!(sure, "{value}");
            let product: BigUint = factors.iter().map(|(p, n)| p.pow(*n as u32)).product();
            assert_eq!(product, BigUint::from(value));
            assert!(factors.iter().all(|(p, _)| is_prime(p.to_u64().unwrap())));
        }
        let (factors, sure) = factor(&(BigUint::from(prime) * 12u32 * BigUint::from(prime)));
        assert!(!sure && factors.len() == 3);
        assert!(!factor(&BigUint::from(1_000_003u64 * 1_000_033)).1);
    }

    #[test]
    fn combinatorics() {
        assert_eq!(factorial(0), Some(1.into()));
        assert_eq!(factorial(20), Some(2_432_902_008_176_640_000i64.into()));
        assert_eq!(factorial(5000), None);
        assert_eq!(binomial(10, 3), Some(120.into()));
        assert_eq!(binomial(3, 10), Some(0.into()));
        assert_eq!(content([ratio(4, 3), ratio(-10, 9)].iter()), ratio(2, 9));
    }
}
