//! Differences between two rows of a study over seeds and items at once: what varies with the seed of training and what
//! varies with the problems that happen to be asked.
//!
//! Both rows of a comparison are trained from the same seeds and asked the same items, so a difference is a table of
//! seeds by items. The crossed bootstrap draws seeds and items anew, each with replacement, and takes the mean of the
//! table so drawn; the spread of these means is the error of the difference (Owen, The pigeonhole bootstrap, 2007: it
//! is a little too large, never too small). With few seeds its percentiles are too narrow, so intervals and tests take
//! its standard error with Student's t of `seeds - 1` degrees of freedom.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::stats::{mean, standard_deviation};

/// Tables drawn.
const DRAWS: usize = 4000;
/// Power of [`Crossed::smallest`].
const POWER: f64 = 0.8;

/// A difference of two rows, in the unit of the items (accuracies: shares).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Crossed {
    /// Seeds.
    pub seeds: usize,
    /// Items.
    pub items: usize,
    /// Mean of the table.
    pub difference: f64,
    /// Its standard error, by the crossed bootstrap.
    pub error: f64,
}

impl Crossed {
    /// Of a table with a list per seed, each with one difference per item. `None` of fewer than two seeds, of no items,
    /// and of lists that differ in length.
    pub(crate) fn of(table: &[Vec<f64>]) -> Option<Self> {
        let (seeds, items) = (table.len(), table.first()?.len());
        if seeds < 2 || items == 0 || table.iter().any(|row| row.len() != items) {
            return None;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(0x0063_726f_7373_6564); // "crossed"
        let mut draw = || {
            let mut times = vec![0_u32; items];
            (0..items).for_each(|_| times[rng.random_range(0..items)] += 1);
            let total: f64 = (0..seeds)
                .map(|_| {
                    let row = &table[rng.random_range(0..seeds)];
                    row.iter().zip(&times).map(|(value, times)| value * f64::from(*times)).sum::<f64>()
                })
                .sum();
            total / (seeds * items) as f64
        };
        let means: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
        let difference = mean(&table.iter().map(|row| mean(row)).collect::<Vec<_>>());
        Some(Self { seeds, items, difference, error: standard_deviation(&means) })
    }

    fn student(&self) -> Option<StudentsT> {
        StudentsT::new(0.0, 1.0, self.seeds as f64 - 1.0).ok()
    }

    /// Half the width of the interval with probability `level`, such as 0.95.
    pub(crate) fn half(&self, level: f64) -> f64 {
        self.student().map_or(f64::NAN, |t| t.inverse_cdf(0.5 + level / 2.0) * self.error)
    }

    /// Two-sided p of no difference; 1 where nothing differs.
    pub(crate) fn p(&self) -> f64 {
        match self.student() {
            Some(t) if self.error > 0.0 => 2.0 * t.cdf(-(self.difference / self.error).abs()),
            Some(_) if self.difference == 0.0 => 1.0,
            _ => f64::NAN,
        }
    }

    /// p of the two one-sided tests that the difference lies within `margin` of 0 (Schuirmann): the larger of the two.
    pub(crate) fn equivalence(&self, margin: f64) -> f64 {
        match self.student() {
            Some(t) if self.error > 0.0 => {
                let below = t.cdf(-(self.difference + margin) / self.error);
                let above = t.cdf((self.difference - margin) / self.error);
                below.max(above)
            }
            _ => f64::from(u8::from(self.difference.abs() >= margin)),
        }
    }

    /// The smallest difference that a two-sided test at `alpha` finds in 80 of 100 such studies:
    /// `(t(1 - alpha / 2) + t(.8)) error`.
    pub(crate) fn smallest(&self, alpha: f64) -> f64 {
        self.student().map_or(f64::NAN, |t| (t.inverse_cdf(1.0 - alpha / 2.0) + t.inverse_cdf(POWER)) * self.error)
    }
}

/// Holm's correction: what each of some p values becomes when all are read together; in their order. Values that are
/// not numbers stay so, and count among the tests.
pub(crate) fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![f64::NAN; p.len()];
    let mut least: f64 = 0.0;
    for (rank, &at) in order.iter().enumerate() {
        if p[at].is_finite() {
            least = least.max(((p.len() - rank) as f64 * p[at]).min(1.0));
            adjusted[at] = least;
        }
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64, within: f64) {
        assert!((a - b).abs() < within, "{a} is not {b}");
    }

    /// R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") gives 0.03 0.06 0.06 0.02.
    #[test]
    fn holm_as_r_does_it() {
        let found = holm(&[0.01, 0.04, 0.03, 0.005]);
        [0.03, 0.06, 0.06, 0.02].iter().zip(&found).for_each(|(a, b)| near(*a, *b, 1e-12));
        assert_eq!(holm(&[0.5, 0.9]), [1.0, 1.0]);
        let some = holm(&[f64::NAN, 0.02]);
        assert!(some[0].is_nan() && some[1] == 0.04 && holm(&[]).is_empty());
    }

    /// Where only seeds differ the error is that of their mean (with n, not n - 1, in the bootstrap's variance), and
    /// where only items do, that of the items'.
    #[test]
    fn the_error_is_that_of_what_varies() {
        let seeds: Vec<Vec<f64>> = [0.1, 0.3, -0.1, 0.1].iter().map(|v| vec![*v; 50]).collect();
        let found = Crossed::of(&seeds).unwrap();
        near(found.difference, 0.1, 1e-12);
        near(found.error, (0.02_f64 / 4.0).sqrt(), 0.003);
        let items: Vec<f64> = (0..400).map(|k| f64::from(k % 2)).collect();
        let found = Crossed::of(&vec![items; 3]).unwrap();
        near(found.error, (0.25_f64 / 400.0).sqrt(), 0.001);
        assert!(Crossed::of(&[vec![1.0]]).is_none() && Crossed::of(&[vec![1.0], vec![]]).is_none());
        assert!(Crossed::of(&[vec![], vec![]]).is_none() && Crossed::of(&[]).is_none());
    }

    /// Student's t of 7 degrees of freedom (R: qt(.975, 7) = 2.364624, qt(.8, 7) = 0.8960296, pt(-2, 7) = 0.04280966).
    #[test]
    fn tests_as_r_does_them() {
        let found = Crossed { seeds: 8, items: 10, difference: 0.02, error: 0.01 };
        near(found.half(0.95), 0.023_646_24, 1e-7);
        near(found.p(), 2.0 * 0.042_809_66, 1e-7);
        near(found.smallest(0.05), 0.032_606_54, 1e-7);
        // The upper test: (0.02 - 0.04) / 0.01 = -2.
        near(found.equivalence(0.04), 0.042_809_66, 1e-7);
        assert!(found.equivalence(0.01) > 0.5);
        let same = Crossed { difference: 0.0, error: 0.0, ..found };
        assert_eq!((same.p(), same.equivalence(0.02)), (1.0, 0.0));
    }

    /// 5% of studies without an effect are called one at 5%, give or take.
    #[test]
    fn nothing_is_rarely_found_where_there_is_nothing() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut noise = move || (0..4).map(|_| rng.random_range(-1.0..1.0)).sum::<f64>();
        let found = (0..60).filter(|_| {
            let of_items: Vec<f64> = (0..40).map(|_| noise()).collect();
            let table: Vec<Vec<f64>> = (0..6)
                .map(|_| {
                    let of_seed = noise() / 4.0;
                    of_items.iter().map(|item| of_seed + item + noise()).collect()
                })
                .collect();
            Crossed::of(&table).unwrap().p() < 0.05
        });
        assert!(found.count() <= 8);
    }
}
