//! The canonical forms of function calls, and the exact values that a table or a rule gives.

use num_bigint::{BigInt, Sign};
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};

use super::canon::{Atom, Ctx, Domain, Frac, Halt, Poly, Res};
use super::number::{self, Exp};
use super::tree::Func;

impl Ctx {
    pub(crate) fn call(&mut self, func: &Func, mut arguments: Vec<Frac>) -> Res<Frac> {
        match (func, arguments.as_slice()) {
            (Func::Sin, [x]) => self.sine(&x.clone()),
            (Func::Cos, [x]) => self.cosine(&x.clone()),
            (Func::Tan, [x]) => {
                let (sine, cosine) = (self.sine(x)?, self.cosine(x)?);
                self.div(&sine, &cosine)
            }
            (Func::Cot, [x]) => {
                let (sine, cosine) = (self.sine(x)?, self.cosine(x)?);
                self.div(&cosine, &sine)
            }
            (Func::Sec, [x]) => {
                let cosine = self.cosine(x)?;
                self.recip(&cosine)
            }
            (Func::Csc, [x]) => {
                let sine = self.sine(x)?;
                self.recip(&sine)
            }
            (Func::Sinh | Func::Cosh | Func::Tanh, [x]) => {
                let up = self.exponential(x)?;
                let down = self.recip(&up)?;
                let (sum, down) = (self.add(&up, &down)?, self.neg(&down));
                let difference = self.add(&up, &down)?;
                match func {
                    Func::Tanh => self.div(&difference, &sum),
                    Func::Sinh => self.div(&difference, &Frac::int(2)),
                    _ => self.div(&sum, &Frac::int(2)),
                }
            }
            (Func::Asin | Func::Atan, [x]) => self.odd(func, &x.clone()),
            (Func::Acos, [x]) => {
                // acos x = pi/2 - asin x
                let pi = self.atom_power(Atom::Pi, Exp::one())?;
                let quarter = self.div(&pi, &Frac::int(2))?;
                let sine = self.odd(&Func::Asin, x)?;
                let sine = self.neg(&sine);
                self.add(&quarter, &sine)
            }
            (Func::Ln, [x]) => self.logarithm(&x.clone()),
            (Func::Log, [base, x]) => {
                let (above, below) = (self.logarithm(x)?, self.logarithm(base)?);
                self.div(&above, &below)
            }
            (Func::Abs, [x]) => self.absolute(&x.clone()),
            (Func::Floor | Func::Ceil, [x]) => self.floor_or_ceil(func, x.clone()),
            (Func::Factorial, [x]) => {
                match Self::whole(x).and_then(|n| u64::try_from(n).ok()).and_then(number::factorial) {
                    Some(value) => Ok(Frac::constant(value.into())),
                    None => self.atom_power(Atom::Call(Func::Factorial, arguments), Exp::one()),
                }
            }
            (Func::Binomial, [n, k]) => {
                let whole = |frac| Self::whole(frac).and_then(|n| u64::try_from(n).ok());
                match whole(n).zip(whole(k)).and_then(|(n, k)| number::binomial(n, k)) {
                    Some(value) => Ok(Frac::constant(value.into())),
                    None => self.atom_power(Atom::Call(Func::Binomial, arguments), Exp::one()),
                }
            }
            (Func::Gcd | Func::Lcm | Func::Max | Func::Min, _) => {
                arguments.sort_unstable();
                arguments.dedup();
                let values: Option<Vec<_>> = arguments.iter().map(Frac::as_rational).collect();
                match values.and_then(|values| fold(func, values)) {
                    Some(value) => Ok(Frac::constant(value)),
                    None => self.atom_power(Atom::Call(func.clone(), arguments), Exp::one()),
                }
            }
            (Func::Re | Func::Im, [x]) if x.den.is_one() => self.complex_part(func, &x.num.clone()),
            _ => self.atom_power(Atom::Call(func.clone(), arguments), Exp::one()),
        }
    }

    /// Whether the first coefficient is negative: one of x and -x has this, the other does not.
    fn leads_negative(frac: &Frac) -> bool {
        frac.num.0.values().next().is_some_and(Signed::is_negative)
    }

    /// f(-x) = -f(x)
    fn odd(&mut self, func: &Func, x: &Frac) -> Res<Frac> {
        if x.is_zero() {
            return Ok(Frac::int(0));
        }
        if Self::leads_negative(x) {
            let positive = self.atom_power(Atom::Call(func.clone(), vec![self.neg(x)]), Exp::one())?;
            return Ok(self.neg(&positive));
        }
        self.atom_power(Atom::Call(func.clone(), vec![x.clone()]), Exp::one())
    }

    fn sine(&mut self, x: &Frac) -> Res<Frac> {
        if let Some(turns) = self.over_pi(x) {
            return self.sine_of_turn(turns);
        }
        self.odd(&Func::Sin, x)
    }

    fn cosine(&mut self, x: &Frac) -> Res<Frac> {
        if let Some(turns) = self.over_pi(x) {
            // cos t = sin(t + pi/2)
            return self.sine_of_turn(turns + BigRational::new(1.into(), 2.into()));
        }
        let x = if Self::leads_negative(x) { self.neg(x) } else { x.clone() };
        self.atom_power(Atom::Call(Func::Cos, vec![x]), Exp::one())
    }

    /// x / pi when that is rational.
    fn over_pi(&self, x: &Frac) -> Option<BigRational> {
        if x.is_zero() {
            return Some(BigRational::zero());
        }
        let (mono, value) = x.single()?;
        match mono.as_slice() {
            &[(at, exponent)] if exponent.is_one() && *self.atom(at) == Atom::Pi => Some(value.clone()),
            _ => None,
        }
    }

    /// sin(turn * pi), exactly for multiples of pi/12 and pi/10.
    fn sine_of_turn(&mut self, turn: BigRational) -> Res<Frac> {
        let two = BigRational::from_integer(2.into());
        let mut turn = &turn - (&turn / &two).floor() * &two;
        let mut negative = false;
        if turn > BigRational::one() {
            turn -= BigRational::one();
            negative = true;
        }
        if turn > BigRational::new(1.into(), 2.into()) {
            turn = BigRational::one() - turn;
        }
        let in_12ths = &turn * BigRational::from_integer(12.into());
        let in_10ths = &turn * BigRational::from_integer(10.into());
        let small = |value: &BigRational| if value.is_integer() { value.to_integer().to_i64() } else { None };
        let root = |ctx: &mut Self, n: i64| ctx.root(&Frac::int(n), Exp::new_raw(1, 2));
        // Each value is (a + b sqrt(m)) / d, or (sqrt 6 ± sqrt 2) / 4.
        let value = match (small(&in_12ths), small(&in_10ths)) {
            (Some(0), _) => Frac::int(0),
            (Some(2), _) => Frac::constant(BigRational::new(1.into(), 2.into())),
            (Some(6), _) => Frac::int(1),
            (Some(3), _) => {
                let root = root(self, 2)?;
                self.div(&root, &Frac::int(2))?
            }
            (Some(4), _) => {
                let root = root(self, 3)?;
                self.div(&root, &Frac::int(2))?
            }
            (Some(k), _) => {
                let (six, two) = (root(self, 6)?, root(self, 2)?);
                let two = if k == 1 { self.neg(&two) } else { two };
                let sum = self.add(&six, &two)?;
                self.div(&sum, &Frac::int(4))?
            }
            (None, Some(k)) if k % 2 == 1 => {
                let five = root(self, 5)?;
                let sum = self.add(&five, &Frac::int(if k == 1 { -1 } else { 1 }))?;
                self.div(&sum, &Frac::int(4))?
            }
            _ => {
                // Past pi/4 the cosine of the complement, so that sin(3pi/8) and cos(pi/8) are one atom.
                let quarter = BigRational::new(1.into(), 4.into());
                let (func, turn) = if turn > quarter {
                    (Func::Cos, BigRational::new(1.into(), 2.into()) - turn)
                } else {
                    (Func::Sin, turn)
                };
                let pi = self.intern(Atom::Pi)?;
                let mut angle = Poly::default();
                angle.0.insert(vec![(pi, Exp::one())], turn);
                self.atom_power(Atom::Call(func, vec![angle.into()]), Exp::one())?
            }
        };
        Ok(if negative { self.neg(&value) } else { value })
    }

    /// ln of an atom, as an atom.
    pub(crate) fn ln_atom(&mut self, at: u32) -> Res<u32> {
        let mut one = Poly::default();
        one.0.insert(vec![(at, Exp::one())], BigRational::one());
        let argument = match self.atom(at) {
            // Kept as a plain number: e^(ln 2) is 2.
            Atom::Prime(prime) => Frac::constant(BigInt::from(prime.clone()).into()),
            _ => one.into(),
        };
        self.intern(Atom::Call(Func::Ln, vec![argument]))
    }

    /// Natural logarithm: positive factors come out as a sum.
    fn logarithm(&mut self, x: &Frac) -> Res<Frac> {
        if x.is_zero() {
            return Err(Halt::Undefined);
        }
        if !x.den.is_one() {
            let constant = self.is_constant_frac(x);
            if constant && self.constant_sign(&x.den) == Some(Sign::Plus) {
                let (above, below) = (self.logarithm(&x.num.clone().into())?, self.logarithm(&x.den.clone().into())?);
                let below = self.neg(&below);
                return self.add(&above, &below);
            }
            return self.atom_power(Atom::Call(Func::Ln, vec![x.clone()]), Exp::one());
        }
        let content = number::content(x.num.0.values());
        let (mut positive, mut rest) = (self.prime_powers(&content)?, Poly::default());
        let inverse = content.recip();
        match x.num.single() {
            Some((mono, value)) => {
                let (mono, value) = (mono.clone(), value * &inverse);
                let (out, stay): (Vec<_>, Vec<_>) = mono.into_iter().partition(|&(at, _)| self.positive(at));
                positive.extend(out);
                rest.0.insert(stay, value);
            }
            None => rest.0.extend(x.num.0.iter().map(|(mono, value)| (mono.clone(), value * &inverse))),
        }
        let mut sum = Frac::int(0);
        for (at, exponent) in positive {
            let factor = Frac::constant(number::from_exp(exponent));
            let term = if let Atom::Exp(mono) = self.atom(at) {
                let mut power = Poly::default();
                power.0.insert(mono.clone(), BigRational::one());
                power.into()
            } else {
                let logarithm = self.ln_atom(at)?;
                self.frac_of_raw(BigRational::one(), vec![(logarithm, Exp::one())])?
            };
            let term = self.mul(&factor, &term)?;
            sum = self.add(&sum, &term)?;
        }
        if !rest.is_one() {
            let term = self.atom_power(Atom::Call(Func::Ln, vec![rest.into()]), Exp::one())?;
            sum = self.add(&sum, &term)?;
        }
        Ok(sum)
    }

    pub(crate) fn absolute(&mut self, x: &Frac) -> Res<Frac> {
        if let Some(value) = x.as_rational() {
            return Ok(Frac::constant(value.abs()));
        }
        if !x.den.is_one() {
            let (above, below) = (self.absolute(&x.num.clone().into())?, self.absolute(&x.den.clone().into())?);
            return self.div(&above, &below);
        }
        if self.is_constant(&x.num) {
            match self.constant_sign(&x.num) {
                Some(Sign::Minus) => return Ok(self.neg(x)),
                Some(_) => return Ok(x.clone()),
                None => {}
            }
        }
        let Some((mono, value)) = x.num.single().map(|(m, c)| (m.clone(), c.clone())) else {
            let x = if Self::leads_negative(x) { self.neg(x) } else { x.clone() };
            return self.atom_power(Atom::Call(Func::Abs, vec![x]), Exp::one());
        };
        let mut result = Frac::constant(value.abs());
        for (at, exponent) in mono {
            let squared = self.domain == Domain::Real && exponent.is_integer() && exponent.numer().is_even();
            let factor = if squared || self.positive(at) || matches!(self.atom(at), Atom::Base(_)) {
                self.frac_of_raw(BigRational::one(), vec![(at, exponent)])?
            } else {
                let mut one = Poly::default();
                one.0.insert(vec![(at, Exp::one())], BigRational::one());
                self.atom_power(Atom::Call(Func::Abs, vec![one.into()]), exponent)?
            };
            result = self.mul(&result, &factor)?;
        }
        Ok(result)
    }

    fn floor_or_ceil(&mut self, func: &Func, x: Frac) -> Res<Frac> {
        let up = *func == Func::Ceil;
        if let Some(value) = x.as_rational() {
            return Ok(Frac::constant(if up { value.ceil() } else { value.floor() }));
        }
        if self.is_constant_frac(&x) {
            // ceil x = -floor(-x)
            let inside = if up { self.neg(&x) } else { x.clone() };
            if let Some(value) = self.constant_floor(&inside) {
                let value = BigRational::from_integer(value);
                return Ok(Frac::constant(if up { -value } else { value }));
            }
        }
        self.atom_power(Atom::Call(func.clone(), vec![x]), Exp::one())
    }

    /// Real or imaginary part of a sum whose atoms other than i are real.
    fn complex_part(&mut self, func: &Func, x: &Poly) -> Res<Frac> {
        let (real, imaginary) = self.split_complex(x).ok_or(Halt::TooBig)?;
        match func {
            Func::Re => Ok(real.into()),
            _ => Ok(imaginary.into()),
        }
    }

    /// Real and imaginary part, taking every atom but i for real; `None` with other roots of -1.
    pub(crate) fn split_complex(&self, x: &Poly) -> Option<(Poly, Poly)> {
        let (mut real, mut imaginary) = (Poly::default(), Poly::default());
        for (mono, value) in &x.0 {
            match mono.iter().position(|&(at, _)| *self.atom(at) == Atom::MinusOne) {
                None => {
                    real.0.insert(mono.clone(), value.clone());
                }
                Some(place) if mono[place].1 == Exp::new_raw(1, 2) => {
                    let mut mono = mono.clone();
                    mono.remove(place);
                    imaginary.0.insert(mono, value.clone());
                }
                Some(_) => return None,
            }
        }
        Some((real, imaginary))
    }
}

fn fold(func: &Func, values: Vec<BigRational>) -> Option<BigRational> {
    match func {
        Func::Max => values.into_iter().max(),
        Func::Min => values.into_iter().min(),
        _ => {
            let mut integers = values.iter().map(|value| value.is_integer().then(|| value.to_integer()));
            let first = integers.next()??;
            let result = integers.try_fold(first, |all, next| {
                let next = next?;
                Some(if *func == Func::Gcd { all.gcd(&next) } else { all.lcm(&next) })
            })?;
            (result.bits() <= number::MAX_BITS).then(|| result.into())
        }
    }
}
