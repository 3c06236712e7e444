//! Canonical form: a quotient of two sums of monomials over "atoms".
//!
//! An atom is what algebra cannot take apart: a variable, a prime under a root, pi, `sin(x)`, the root of a sum. A
//! monomial is a product of atoms to rational exponents. The form is kept reduced:
//!
//! | atom | exponent | beyond it |
//! |---|---|---|
//! | prime p | in [0, 1) | whole powers go into the coefficient: 8^(1/2) = 2 * 2^(1/2) |
//! | -1 | in [0, 1) | the sign: i = (-1)^(1/2), i^2 = -1 |
//! | sum P under a root | in (0, 1) | P itself is multiplied in |
//! | cos(a) | 0 or 1 | cos(a)^2 = 1 - sin(a)^2 |
//! | all others | any | |
//!
//! Monomials in roots of primes, pi and variables are linearly independent over the rationals, so where only those
//! occur (`Ctx::independent`), two values are equal exactly when their difference has no terms left. Elsewhere
//! [`super::probe`] decides.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

use super::mono::{FractFloor as _, Mono, merge, product, push, times};
use super::number::{self, Exp, MAX_BITS};
use super::tree::Func;

/// Why no canonical form could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Halt {
    /// It would be larger, or take longer, than is allowed.
    TooBig,
    /// There is no such value: 1/0.
    Undefined,
}

pub(crate) type Res<T> = Result<T, Halt>;

/// Over which numbers the variables range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Domain {
    /// Real numbers: sqrt(x^2) = |x|, odd roots of negative numbers are negative.
    Real,
    /// Complex numbers with principal values, as sympy takes symbols without assumptions.
    Complex,
}

/// Monomials and their coefficients, none zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Poly(pub(crate) BTreeMap<Mono, BigRational>);

/// A quotient; the denominator is not the zero polynomial, and is 1 wherever it can be folded away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Frac {
    pub(crate) num: Poly,
    pub(crate) den: Poly,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Atom {
    Prime(BigUint),
    MinusOne,
    Pi,
    Infinity,
    Var(Rc<str>),
    /// e to a monomial; e itself is e to the empty one.
    Exp(Mono),
    /// A sum, or a product of unknown signs, that occurs only under a root.
    Base(Poly),
    /// A quotient that is not looked into.
    Opaque(Box<Frac>),
    /// A base that may be negative, to a monomial.
    Power(Box<Frac>, Mono),
    Call(Func, Vec<Frac>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) atom: Atom,
    /// Has a value without variables and unknown functions.
    pub(crate) constant: bool,
    /// Monomials in such atoms are linearly independent.
    independent: bool,
    /// Never negative.
    positive: bool,
}

/// The atoms of one comparison, and what may still be spent on it.
pub(crate) struct Ctx {
    pub(crate) domain: Domain,
    pub(crate) entries: Vec<Entry>,
    /// What is left to spend on this comparison.
    pub(crate) budget: Cell<u64>,
    /// A factor may be composite, or an exponent was left unreduced.
    doubtful: bool,
}

/// What one comparison may cost: term products weighed by coefficient length, evaluated functions weighed by precision.
/// A unit is roughly a quarter of a microsecond.
pub(crate) const MAX_WORK: u64 = 8_000;
/// Atoms in one comparison; they are found by linear search.
const MAX_ATOMS: usize = 200;
/// Highest power that a sum is expanded to.
const MAX_EXPANSION: i64 = 40;

impl Poly {
    pub(crate) fn constant(value: BigRational) -> Self {
        let mut poly = Self::default();
        if !value.is_zero() {
            poly.0.insert(Mono::new(), value);
        }
        poly
    }

    pub(crate) fn one() -> Self {
        Self::constant(BigRational::one())
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_one(&self) -> bool {
        self.as_rational().is_some_and(|value| value.is_one())
    }

    /// The value when there is no atom.
    pub(crate) fn as_rational(&self) -> Option<BigRational> {
        match self.0.len() {
            0 => Some(BigRational::zero()),
            1 => self.0.get(&Mono::new()).cloned(),
            _ => None,
        }
    }

    /// The only term, when there is one.
    pub(crate) fn single(&self) -> Option<(&Mono, &BigRational)> {
        if self.0.len() == 1 { self.0.iter().next() } else { None }
    }

    pub(crate) fn atoms(&self) -> impl Iterator<Item = u32> {
        self.0.keys().flatten().map(|&(atom, _)| atom)
    }

    /// The sum of the costs of [`Self::scale`].
    fn scale_cost(&self, factor: &BigRational) -> u64 {
        self.0.values().map(|value| 1 + number::cost(value, factor)).sum()
    }

    fn scale(&self, factor: &BigRational) -> Self {
        Self(self.0.iter().map(|(mono, c)| (mono.clone(), number::mul(c, factor))).collect())
    }

    fn add_term(&mut self, mono: Mono, value: BigRational) {
        use std::collections::btree_map::Entry;
        match self.0.entry(mono) {
            Entry::Vacant(place) => {
                if !value.is_zero() {
                    place.insert(value);
                }
            }
            Entry::Occupied(mut place) => {
                number::add_to(place.get_mut(), &value);
                if place.get().is_zero() {
                    place.remove();
                }
            }
        }
    }
}

impl Frac {
    pub(crate) fn constant(value: BigRational) -> Self {
        Poly::constant(value).into()
    }

    pub(crate) fn int(value: i64) -> Self {
        Self::constant(BigRational::from_integer(value.into()))
    }

    pub(crate) fn as_rational(&self) -> Option<BigRational> {
        if self.den.is_one() { self.num.as_rational() } else { None }
    }

    /// The only term of a numerator over 1.
    pub(crate) fn single(&self) -> Option<(&Mono, &BigRational)> {
        if self.den.is_one() { self.num.single() } else { None }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.num.is_zero()
    }
}

impl From<Poly> for Frac {
    fn from(num: Poly) -> Self {
        Self { num, den: Poly::one() }
    }
}

/// What [`Ctx::reduce`] leaves of a raw monomial: coefficient, canonical monomial, and sums to be multiplied in.
type Reduced = (BigRational, Mono, Vec<(Poly, i64)>);

impl Ctx {
    /// An empty context that may spend `budget`, at most [`MAX_WORK`] by convention.
    pub(crate) fn new(domain: Domain, budget: u64) -> Self {
        Self { domain, entries: Vec::new(), budget: Cell::new(budget), doubtful: false }
    }

    pub(crate) fn spend(&self, work: u64) -> Res<()> {
        let left = self.budget.get().checked_sub(work);
        self.budget.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(Halt::TooBig)
    }

    /// The number of an atom, new or known.
    pub(crate) fn intern(&mut self, atom: Atom) -> Res<u32> {
        if let Some(at) = self.entries.iter().position(|entry| entry.atom == atom) {
            return Ok(at as u32);
        }
        if self.entries.len() >= MAX_ATOMS {
            return Err(Halt::TooBig);
        }
        let constant_mono = |mono: &Mono| mono.iter().all(|&(atom, _)| self.entries[atom as usize].constant);
        let constant = match &atom {
            Atom::Prime(_) | Atom::MinusOne | Atom::Pi => true,
            Atom::Infinity | Atom::Var(_) | Atom::Call(Func::Named(_), _) => false,
            Atom::Exp(mono) => constant_mono(mono),
            Atom::Base(poly) => self.is_constant(poly),
            Atom::Opaque(frac) => self.is_constant_frac(frac),
            Atom::Power(frac, mono) => self.is_constant_frac(frac) && constant_mono(mono),
            Atom::Call(_, arguments) => arguments.iter().all(|argument| self.is_constant_frac(argument)),
        };
        let independent = matches!(atom, Atom::Prime(_) | Atom::MinusOne | Atom::Pi | Atom::Var(_));
        let positive = match &atom {
            Atom::Prime(_) | Atom::Pi | Atom::Infinity | Atom::Call(Func::Abs, _) => true,
            Atom::Exp(mono) => {
                let real = |&(atom, _): &(u32, Exp)| !matches!(self.entries[atom as usize].atom, Atom::MinusOne);
                (constant || self.domain == Domain::Real) && mono.iter().all(real)
            }
            // The sign of a constant sum is taken out before it comes here.
            Atom::Base(_) => constant,
            _ => false,
        };
        self.entries.push(Entry { atom, constant, independent, positive });
        Ok((self.entries.len() - 1) as u32)
    }

    pub(crate) fn atom(&self, at: u32) -> &Atom {
        &self.entries[at as usize].atom
    }

    pub(crate) fn positive(&self, at: u32) -> bool {
        self.entries[at as usize].positive
    }

    pub(crate) fn is_constant(&self, poly: &Poly) -> bool {
        poly.atoms().all(|atom| self.entries[atom as usize].constant)
    }

    pub(crate) fn is_constant_frac(&self, frac: &Frac) -> bool {
        self.is_constant(&frac.num) && self.is_constant(&frac.den)
    }

    /// Whether a sum over these atoms is zero only when it has no terms.
    pub(crate) fn independent(&self, poly: &Poly) -> bool {
        !self.doubtful
            && poly.0.keys().flatten().all(|&(atom, exponent)| {
                let entry = &self.entries[atom as usize];
                // Other powers of -1 are roots of unity with relations of their own.
                entry.independent && (entry.atom != Atom::MinusOne || exponent == Exp::new_raw(1, 2))
            })
    }

    /// One atom to a power that needs no reduction.
    pub(crate) fn atom_power(&mut self, atom: Atom, exponent: Exp) -> Res<Frac> {
        let at = self.intern(atom)?;
        self.frac_of_raw(BigRational::one(), vec![(at, exponent)])
    }

    /// A prime, or what is taken for one.
    pub(crate) fn prime(&mut self, factor: BigUint) -> Res<u32> {
        self.intern(Atom::Prime(factor))
    }

    /// The factors of a positive rational as atoms with exponents.
    pub(crate) fn prime_powers(&mut self, value: &BigRational) -> Res<Mono> {
        let mut raw = Mono::new();
        for (integer, sign) in [(value.numer(), 1), (value.denom(), -1)] {
            self.spend(integer.bits())?;
            let (factors, sure) = number::factor(integer.magnitude());
            self.doubtful |= !sure;
            for (prime, power) in factors {
                let at = self.prime(prime)?;
                merge(&mut raw, at, Exp::from_integer(sign * power))?;
            }
        }
        Ok(raw)
    }

    /// Brings the exponents of a monomial into their ranges.
    fn reduce(&mut self, raw: Mono) -> Res<Reduced> {
        let mut coefficient = BigRational::one();
        let mut mono = Mono::with_capacity(raw.len());
        let mut sums = Vec::new();
        for (at, exponent) in raw {
            let whole = exponent.floor().to_integer();
            match &self.entries[at as usize].atom {
                Atom::Prime(prime) => {
                    let mut rest = exponent;
                    if whole != 0 {
                        let base = BigRational::from_integer(BigInt::from(prime.clone()));
                        match number::power(&base, whole) {
                            Some(power) => {
                                coefficient = number::mul(&coefficient, &power);
                                rest = exponent.fract_floor();
                            }
                            None => self.doubtful = true,
                        }
                    }
                    push(&mut mono, at, rest);
                }
                Atom::MinusOne => {
                    if whole % 2 != 0 {
                        coefficient = -coefficient;
                    }
                    push(&mut mono, at, exponent.fract_floor());
                }
                Atom::Base(poly) => {
                    if whole != 0 {
                        sums.push((poly.clone(), whole));
                    }
                    push(&mut mono, at, exponent.fract_floor());
                }
                Atom::Call(Func::Cos, arguments) if exponent.is_integer() && !(0..2).contains(&whole) => {
                    if whole > 0 {
                        let arguments = arguments.clone();
                        let sine = self.intern(Atom::Call(Func::Sin, arguments))?;
                        let mut square = Poly::one();
                        square.add_term(vec![(sine, Exp::from_integer(2))], -BigRational::one());
                        sums.push((square, whole / 2));
                        push(&mut mono, at, Exp::from_integer(whole % 2));
                    } else {
                        let mut cosine = Poly::default();
                        cosine.add_term(vec![(at, Exp::one())], BigRational::one());
                        sums.push((cosine, whole));
                    }
                }
                _ => push(&mut mono, at, exponent),
            }
        }
        mono.sort_unstable();
        Ok((coefficient, mono, sums))
    }

    /// A term with any exponents as a canonical quotient.
    pub(crate) fn frac_of_raw(&mut self, coefficient: BigRational, raw: Mono) -> Res<Frac> {
        let (factor, mono, sums) = self.reduce(raw)?;
        let mut num = Poly::default();
        num.add_term(mono, number::mul(&coefficient, &factor));
        let mut den = Poly::one();
        for (sum, power) in sums {
            let expanded = self.poly_power(&sum, power.abs())?;
            let side = if power > 0 { &mut num } else { &mut den };
            *side = self.poly_mul(side, &expanded)?;
        }
        if den.is_one() { Ok(num.into()) } else { self.quotient(num, den) }
    }

    pub(crate) fn poly_mul(&mut self, a: &Poly, b: &Poly) -> Res<Poly> {
        if a.is_one() {
            return Ok(b.clone());
        }
        if b.is_one() {
            return Ok(a.clone());
        }
        let mut out = Poly::default();
        for (mono_a, value_a) in &a.0 {
            for (mono_b, value_b) in &b.0 {
                self.spend(1 + number::cost(value_a, value_b) + (mono_a.len() + mono_b.len()) as u64 / 4)?;
                let value = number::mul(value_a, value_b);
                if number::bits(&value) > MAX_BITS {
                    return Err(Halt::TooBig);
                }
                if mono_a.is_empty() || mono_b.is_empty() {
                    let mono = if mono_a.is_empty() { mono_b } else { mono_a };
                    out.add_term(mono.clone(), value);
                    continue;
                }
                let (factor, mono, sums) = self.reduce(product(mono_a, mono_b)?)?;
                let value = if factor.is_one() { value } else { number::mul(&value, &factor) };
                if sums.is_empty() {
                    out.add_term(mono, value);
                    continue;
                }
                let mut term = Poly::default();
                term.add_term(mono, value);
                for (sum, power) in sums {
                    let expanded = self.poly_power(&sum, power)?;
                    term = self.poly_mul(&term, &expanded)?;
                }
                for (mono, value) in term.0 {
                    out.add_term(mono, value);
                }
            }
        }
        Ok(out)
    }

    fn poly_power(&mut self, base: &Poly, power: i64) -> Res<Poly> {
        if power > MAX_EXPANSION {
            return Err(Halt::TooBig);
        }
        let mut out = Poly::one();
        for _ in 0..power {
            out = self.poly_mul(&out, base)?;
        }
        Ok(out)
    }

    fn poly_add(&mut self, a: &Poly, b: &Poly) -> Res<Poly> {
        let (mut sum, other) = if a.0.len() >= b.0.len() { (a.clone(), b) } else { (b.clone(), a) };
        self.spend(sum.0.len() as u64 / 16)?; // the copy
        for (mono, value) in &other.0 {
            // What it is added to may be far longer than itself.
            let place = sum.0.get(mono).unwrap_or(value);
            self.spend(1 + number::cost(value, place))?;
            sum.add_term(mono.clone(), value.clone());
        }
        Ok(sum)
    }

    pub(crate) fn add(&mut self, a: &Frac, b: &Frac) -> Res<Frac> {
        if a.den == b.den {
            let num = self.poly_add(&a.num, &b.num)?;
            return if a.den.is_one() { Ok(num.into()) } else { self.quotient(num, a.den.clone()) };
        }
        let left = self.poly_mul(&a.num, &b.den)?;
        let right = self.poly_mul(&b.num, &a.den)?;
        let num = self.poly_add(&left, &right)?;
        let den = self.poly_mul(&a.den, &b.den)?;
        self.quotient(num, den)
    }

    pub(crate) fn neg(&self, a: &Frac) -> Frac {
        Frac { num: a.num.scale(&-BigRational::one()), den: a.den.clone() }
    }

    pub(crate) fn mul(&mut self, a: &Frac, b: &Frac) -> Res<Frac> {
        let num = self.poly_mul(&a.num, &b.num)?;
        if a.den.is_one() && b.den.is_one() {
            return Ok(num.into());
        }
        let den = self.poly_mul(&a.den, &b.den)?;
        self.quotient(num, den)
    }

    pub(crate) fn recip(&mut self, a: &Frac) -> Res<Frac> {
        self.quotient(a.den.clone(), a.num.clone())
    }

    pub(crate) fn div(&mut self, a: &Frac, b: &Frac) -> Res<Frac> {
        let inverse = self.recip(b)?;
        self.mul(a, &inverse)
    }

    /// num / den, with whatever can be folded out of the denominator.
    fn quotient(&mut self, mut num: Poly, mut den: Poly) -> Res<Frac> {
        // Folding a root turns den into the sum below the root, which may be a root's product again: roots are finite.
        for _ in 0..16 {
            if den.is_zero() {
                return Err(Halt::Undefined);
            }
            if num.is_zero() {
                return Ok(Frac::int(0));
            }
            if den.is_one() {
                return Ok(num.into());
            }
            let Some((mono, value)) = den.single() else { break };
            // A cosine has no negative power here: it stays.
            let (stay, fold): (Mono, Mono) =
                mono.iter().partition(|(at, _)| matches!(self.entries[*at as usize].atom, Atom::Call(Func::Cos, _)));
            if fold.is_empty() && value.is_one() {
                return Ok(Frac { num, den });
            }
            let inverse = fold.into_iter().map(|(at, exponent)| (at, -exponent)).collect();
            let (factor, mono, sums) = self.reduce(inverse)?;
            let mut over = Poly::default();
            over.add_term(mono, factor / value);
            num = self.poly_mul(&num, &over)?;
            den = Poly::default();
            den.add_term(stay, BigRational::one());
            for (sum, power) in sums {
                let expanded = self.poly_power(&sum, power.abs())?;
                let side = if power > 0 { &mut num } else { &mut den };
                *side = self.poly_mul(side, &expanded)?;
            }
        }
        let mut lead = number::content(den.0.values());
        if den.0.values().next().is_some_and(Signed::is_negative) {
            lead = -lead;
        }
        if !lead.is_one() {
            let inverse = lead.recip();
            self.spend(num.scale_cost(&inverse) + den.scale_cost(&inverse))?;
            num = num.scale(&inverse);
            den = den.scale(&inverse);
        }
        // The same sum above and below.
        if num == den {
            return Ok(Frac::int(1));
        }
        Ok(Frac { num, den })
    }

    /// Whole power.
    pub(crate) fn power(&mut self, base: &Frac, exponent: i64) -> Res<Frac> {
        if exponent == 0 {
            return Ok(Frac::int(1));
        }
        if let Some((mono, value)) = base.single() {
            let value = number::power(value, exponent);
            if let Some(value) = value {
                let raw = times(mono, Exp::from_integer(exponent))?;
                return self.frac_of_raw(value, raw);
            }
        }
        if base.is_zero() {
            return if exponent > 0 { Ok(Frac::int(0)) } else { Err(Halt::Undefined) };
        }
        if base.num.0.len().max(base.den.0.len()) == 1 && base.as_rational().is_some() || exponent.abs() > MAX_EXPANSION
        {
            return self.atom_power(Atom::Opaque(Box::new(base.clone())), Exp::from_integer(exponent));
        }
        let num = self.poly_power(&base.num, exponent.abs())?;
        let den = self.poly_power(&base.den, exponent.abs())?;
        if exponent > 0 { self.quotient(num, den) } else { self.quotient(den, num) }
    }

    /// a - b as one numerator, whose being zero says whether a = b.
    pub(crate) fn difference(&mut self, a: &Frac, b: &Frac) -> Res<Poly> {
        if a == b {
            return Ok(Poly::default());
        }
        let b = self.neg(b);
        if a.den == b.den {
            return self.poly_add(&a.num, &b.num);
        }
        let left = self.poly_mul(&a.num, &b.den)?;
        let right = self.poly_mul(&b.num, &a.den)?;
        self.poly_add(&left, &right)
    }
}
