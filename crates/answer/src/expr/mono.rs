//! Monomials: atoms with exponents, sorted by atom.

use num_traits::{CheckedAdd, CheckedMul, Zero};

use super::canon::{Halt, Res};
use super::number::Exp;

/// Atoms by number, ascending, each once, with an exponent that is not zero.
pub(crate) type Mono = Vec<(u32, Exp)>;

pub(super) trait FractFloor {
    /// The part above the floor, in [0, 1).
    fn fract_floor(self) -> Self;
}

impl FractFloor for Exp {
    fn fract_floor(self) -> Self {
        self - self.floor()
    }
}

pub(super) fn push(mono: &mut Mono, at: u32, exponent: Exp) {
    if !exponent.is_zero() {
        mono.push((at, exponent));
    }
}

/// Adds to the exponent of one atom.
pub(crate) fn merge(mono: &mut Mono, at: u32, exponent: Exp) -> Res<()> {
    match mono.binary_search_by_key(&at, |&(atom, _)| atom) {
        Ok(place) => {
            let sum = bounded(mono[place].1.checked_add(&exponent))?;
            if sum.is_zero() {
                mono.remove(place);
            } else {
                mono[place].1 = sum;
            }
        }
        Err(_) if exponent.is_zero() => {}
        Err(place) => mono.insert(place, (at, exponent)),
    }
    Ok(())
}

/// The product of two monomials, before reduction.
pub(crate) fn product(a: &Mono, b: &Mono) -> Res<Mono> {
    let mut out = a.clone();
    for &(at, exponent) in b {
        merge(&mut out, at, exponent)?;
    }
    Ok(out)
}

/// A monomial to a power, before reduction.
pub(crate) fn times(mono: &Mono, power: Exp) -> Res<Mono> {
    mono.iter().map(|&(at, exponent)| Ok((at, bounded(exponent.checked_mul(&power))?))).collect()
}

/// Exponents far from overflow, so that what is done with one of them need not be checked.
fn bounded(exponent: Option<Exp>) -> Res<Exp> {
    match exponent {
        Some(value) if value.numer().abs() < 1 << 45 && *value.denom() < 1 << 45 => Ok(value),
        _ => Err(Halt::TooBig),
    }
}
