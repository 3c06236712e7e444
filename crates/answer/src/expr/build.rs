//! From an expression tree to the canonical form: powers and roots. Functions are in [`super::functions`].

use num_bigint::Sign;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::canon::{Atom, Ctx, Domain, Frac, Halt, Poly, Res};
use super::mono::{Mono, merge, product, times};
use super::number::{self, Exp};
use super::tree::{Expr, Func};

impl Ctx {
    /// The canonical form of `expr`.
    pub(crate) fn build(&mut self, expr: &Expr) -> Res<Frac> {
        let half = Exp::new_raw(1, 2);
        self.spend(4)?;
        match expr {
            Expr::Num(value) => {
                if number::bits(value) > number::MAX_BITS {
                    return Err(Halt::TooBig);
                }
                Ok(Frac::constant(value.clone()))
            }
            Expr::Pi => self.atom_power(Atom::Pi, Exp::one()),
            Expr::E => self.atom_power(Atom::Exp(Mono::new()), Exp::one()),
            Expr::I => self.atom_power(Atom::MinusOne, half),
            Expr::Infinity => self.atom_power(Atom::Infinity, Exp::one()),
            Expr::Var(name) => self.atom_power(Atom::Var(name.clone()), Exp::one()),
            Expr::Add(terms) => {
                let mut sum = Frac::int(0);
                for term in terms {
                    let term = self.build(term)?;
                    sum = self.add(&sum, &term)?;
                }
                Ok(sum)
            }
            Expr::Mul(factors) => {
                let mut result = Frac::int(1);
                for factor in factors {
                    let factor = self.build(factor)?;
                    result = self.mul(&result, &factor)?;
                }
                Ok(result)
            }
            Expr::Pow(base, exponent) => {
                let exponent = self.build(exponent)?;
                let base = self.build(base)?;
                self.pow(&base, &exponent)
            }
            Expr::Root(n, base) => {
                let base = self.build(base)?;
                if *n == 0 {
                    return Err(Halt::Undefined);
                }
                self.root(&base, Exp::new_raw(1, i64::from(*n)))
            }
            Expr::Call(func, arguments) => {
                let arguments = arguments.iter().map(|argument| self.build(argument)).collect::<Res<Vec<_>>>()?;
                self.call(func, arguments)
            }
        }
    }

    pub(crate) fn pow(&mut self, base: &Frac, exponent: &Frac) -> Res<Frac> {
        let Some(value) = exponent.as_rational() else { return self.symbolic_power(base, exponent) };
        if base.as_rational().is_some_and(|b| b.is_one()) {
            return Ok(Frac::int(1));
        }
        let power = number::as_exp(&value).ok_or(Halt::TooBig)?;
        if power.is_integer() { self.power(base, power.to_integer()) } else { self.root(base, power) }
    }

    /// `base` to a power that is not whole.
    pub(crate) fn root(&mut self, base: &Frac, power: Exp) -> Res<Frac> {
        if power.is_integer() {
            return self.power(base, power.to_integer());
        }
        if base.is_zero() {
            return if power.is_positive() { Ok(Frac::int(0)) } else { Err(Halt::Undefined) };
        }
        if !base.den.is_one() {
            return self.root_of_quotient(base, power);
        }
        if let Some((mono, value)) = base.num.single() {
            let (mono, value) = (mono.clone(), value.clone());
            return self.root_of_term(&mono, &value, power);
        }
        self.root_of_sum(&base.num, power)
    }

    /// What (-1)^power is: a sign for odd real roots, a root of unity otherwise.
    fn minus_one(&mut self, power: Exp) -> Res<Frac> {
        if self.domain == Domain::Real && power.denom().is_odd() {
            return Ok(Frac::int(if power.numer().is_odd() { -1 } else { 1 }));
        }
        self.atom_power(Atom::MinusOne, power)
    }

    fn root_of_quotient(&mut self, base: &Frac, power: Exp) -> Res<Frac> {
        let sign = if self.is_constant(&base.den) { self.constant_sign(&base.den) } else { None };
        let Some(sign) = sign else {
            return self.atom_power(Atom::Opaque(Box::new(base.clone())), power);
        };
        // (N / D)^(p/q) = (N D^(q-1))^(p/q) / D^p for D > 0
        let base = if sign == Sign::Minus {
            let (num, den) = (Frac::from(base.num.clone()), Frac::from(base.den.clone()));
            (self.neg(&num), self.neg(&den))
        } else {
            (Frac::from(base.num.clone()), Frac::from(base.den.clone()))
        };
        let lifted = self.power(&base.1, power.denom() - 1)?;
        let lifted = self.mul(&base.0, &lifted)?;
        let above = self.root(&lifted, power)?;
        let below = self.power(&base.1, *power.numer())?;
        self.div(&above, &below)
    }

    /// The root of one term: what is surely positive comes out, the rest stays under the root together.
    fn root_of_term(&mut self, mono: &Mono, value: &BigRational, power: Exp) -> Res<Frac> {
        let odd_real = self.domain == Domain::Real && power.denom().is_odd();
        let mut result = if value.is_negative() { self.minus_one(power)? } else { Frac::int(1) };
        let mut raw = times(&self.prime_powers(&value.abs())?, power)?;
        let mut rest = Mono::new();
        for &(at, exponent) in mono {
            let separable = self.positive(at)
                || odd_real
                // ((-1)^e)^r is principal for e in [0, 1).
                || (*self.atom(at) == Atom::MinusOne && mono.iter().all(|&(other, _)| other == at || self.positive(other)));
            if separable {
                merge(&mut raw, at, times(&vec![(at, exponent)], power)?[0].1)?;
            } else if self.domain == Domain::Real && exponent.is_integer() && exponent.numer().is_even() {
                // sqrt(x^2) = |x|
                let mut one = Poly::default();
                one.0.insert(vec![(at, Exp::one())], BigRational::one());
                let inner = self.absolute(&one.into())?;
                let scaled = times(&vec![(at, exponent)], power)?[0].1;
                let outer = if scaled.is_integer() {
                    self.power(&inner, scaled.to_integer())?
                } else {
                    self.root(&inner, scaled)?
                };
                result = self.mul(&result, &outer)?;
            } else {
                rest.push((at, exponent));
            }
        }
        match rest.as_slice() {
            [] => {}
            // (x^e)^r = x^(er): always for 0 < e <= 1, and for real x wherever the left side exists.
            &[(at, exponent)] if self.domain == Domain::Real || (exponent.is_positive() && exponent <= Exp::one()) => {
                merge(&mut raw, at, times(&rest, power)?[0].1)?;
            }
            _ => {
                let mut poly = Poly::default();
                poly.0.insert(rest, BigRational::one());
                let under = self.atom_power(Atom::Base(poly), power)?;
                result = self.mul(&result, &under)?;
            }
        }
        let outside = self.frac_of_raw(BigRational::one(), raw)?;
        self.mul(&result, &outside)
    }

    /// The root of a sum: its rational content comes out, and for constants the sign.
    fn root_of_sum(&mut self, poly: &Poly, power: Exp) -> Res<Frac> {
        let mut content = number::content(poly.0.values());
        let mut result = Frac::int(1);
        if self.is_constant(poly) {
            match self.constant_sign(poly) {
                Some(Sign::Minus) => {
                    result = self.minus_one(power)?;
                    content = -content;
                }
                Some(_) => {}
                // Zero, or too near to it to tell.
                None => return self.atom_power(Atom::Opaque(Box::new(poly.clone().into())), power),
            }
        }
        let inverse = content.recip();
        let primitive = Poly(poly.0.iter().map(|(mono, c)| (mono.clone(), c * &inverse)).collect());
        let raw = times(&self.prime_powers(&content.abs())?, power)?;
        let outside = self.frac_of_raw(BigRational::one(), raw)?;
        let under = self.atom_power(Atom::Base(primitive), power)?;
        let result = self.mul(&result, &outside)?;
        self.mul(&result, &under)
    }

    /// A power with a variable, a root or a logarithm in the exponent. For a positive base b, b^t = e^(t ln b).
    fn symbolic_power(&mut self, base: &Frac, exponent: &Frac) -> Res<Frac> {
        if base.as_rational().is_some_and(|b| b.is_one()) {
            return Ok(Frac::int(1));
        }
        if base.is_zero() {
            return Err(Halt::Undefined);
        }
        // A denominator of the exponent becomes one opaque factor of its terms.
        let terms = if exponent.den.is_one() {
            exponent.num.clone()
        } else {
            let below = self.intern(Atom::Opaque(Box::new(exponent.den.clone().into())))?;
            let mut inverse = Poly::default();
            inverse.0.insert(vec![(below, -Exp::one())], BigRational::one());
            self.poly_mul(&exponent.num, &inverse)?
        };
        let mut result = Frac::int(1);
        for (mono, value) in terms.0 {
            let factor = if mono.is_empty() {
                let power = number::as_exp(&value).ok_or(Halt::TooBig)?;
                self.root(base, power)?
            } else {
                self.term_power(base, &mono, &value)?
            };
            result = self.mul(&result, &factor)?;
        }
        Ok(result)
    }

    /// base^(value * mono)
    fn term_power(&mut self, base: &Frac, mono: &Mono, value: &BigRational) -> Res<Frac> {
        let power = number::as_exp(value).ok_or(Halt::TooBig)?;
        let Some((factors, coefficient)) = base.single().map(|(m, c)| (m.clone(), c.clone())) else {
            return self.opaque_power(base.clone(), mono, power);
        };
        let mut result = Frac::int(1);
        if coefficient.is_negative() {
            // (-1)^(2n) = 1 for the whole n that such a power is made for.
            let whole = power.is_integer().then(|| Exp::from_integer(power.to_integer().rem_euclid(2)));
            result = self.opaque_power(Frac::int(-1), mono, whole.unwrap_or(power))?;
        }
        let mut all = self.prime_powers(&coefficient.abs())?;
        for &(at, exponent) in &factors {
            merge(&mut all, at, exponent)?;
        }
        for (at, exponent) in all {
            let scaled = times(&vec![(at, exponent)], power)?[0].1;
            let factor = match self.atom(at).clone() {
                Atom::Exp(inner) => {
                    let inner = product(&inner, mono)?;
                    self.exp_term(&inner, scaled)?
                }
                Atom::Prime(_) | Atom::Pi => {
                    let logarithm = self.ln_atom(at)?;
                    let inner = product(mono, &vec![(logarithm, Exp::one())])?;
                    self.exp_term(&inner, scaled)?
                }
                _ => {
                    let mut one = Poly::default();
                    one.0.insert(vec![(at, Exp::one())], BigRational::one());
                    self.opaque_power(one.into(), mono, scaled)?
                }
            };
            result = self.mul(&result, &factor)?;
        }
        Ok(result)
    }

    fn opaque_power(&mut self, base: Frac, mono: &Mono, power: Exp) -> Res<Frac> {
        if power.is_zero() {
            return Ok(Frac::int(1));
        }
        self.atom_power(Atom::Power(Box::new(base), mono.clone()), power)
    }

    /// e^(power * mono), where e^(ln p) = p and e^(i t) = cos t + i sin t.
    pub(crate) fn exp_term(&mut self, mono: &Mono, power: Exp) -> Res<Frac> {
        if let &[(at, exponent)] = mono.as_slice()
            && exponent.is_one()
            && let Atom::Call(Func::Ln, arguments) = self.atom(at).clone()
        {
            return if power.is_integer() {
                self.power(&arguments[0], power.to_integer())
            } else {
                self.root(&arguments[0], power)
            };
        }
        let imaginary =
            mono.iter().position(|&(at, exponent)| *self.atom(at) == Atom::MinusOne && exponent == Exp::new_raw(1, 2));
        if let Some(place) = imaginary {
            let mut real = mono.clone();
            real.remove(place);
            let mut angle = Poly::default();
            angle.0.insert(real, number::from_exp(power));
            let angle = Frac::from(angle);
            let cosine = self.call(&Func::Cos, vec![angle.clone()])?;
            let sine = self.call(&Func::Sin, vec![angle])?;
            let i = self.atom_power(Atom::MinusOne, Exp::new_raw(1, 2))?;
            let imaginary = self.mul(&i, &sine)?;
            return self.add(&cosine, &imaginary);
        }
        self.atom_power(Atom::Exp(mono.clone()), power)
    }

    /// e^x
    pub(crate) fn exponential(&mut self, argument: &Frac) -> Res<Frac> {
        let e = self.atom_power(Atom::Exp(Mono::new()), Exp::one())?;
        self.pow(&e, argument)
    }

    /// A small whole number that a form is.
    pub(crate) fn whole(frac: &Frac) -> Option<i64> {
        frac.as_rational().filter(BigRational::is_integer)?.to_integer().to_i64()
    }
}
