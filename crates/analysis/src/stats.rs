//! Means with intervals, paired tests, correlation, histograms: on plain slices, in f64.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean of some values; NaN of none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Unbiased standard deviation (`n - 1`); NaN of fewer than two values.
pub(crate) fn standard_deviation(values: &[f64]) -> f64 {
    let m = mean(values);
    let squares: f64 = values.iter().map(|v| (v - m).powi(2)).sum();
    if values.len() < 2 { f64::NAN } else { (squares / (values.len() - 1) as f64).sqrt() }
}

/// A mean and half the width of its 95% confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Values.
    pub n: usize,
    /// Their mean; NaN of none.
    pub mean: f64,
    /// Half the interval by Student's t with `n - 1` degrees of freedom; NaN of fewer than two values.
    pub half: f64,
}

impl Interval {
    /// The interval of some independent values.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len();
        let half = match student(n) {
            Some(t) => t.inverse_cdf(0.975) * standard_deviation(values) / (n as f64).sqrt(),
            None => f64::NAN,
        };
        Self { n, mean: mean(values), half }
    }
}

/// Student's t for `n` values; none where there are no degrees of freedom.
fn student(n: usize) -> Option<StudentsT> {
    (n >= 2).then(|| StudentsT::new(0.0, 1.0, (n - 1) as f64).ok()).flatten()
}

/// Two rows of numbers compared pair by pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Paired {
    /// The differences `a - b`.
    pub difference: Interval,
    /// Two-sided p of the paired t test; NaN of fewer than two pairs or when all differences are equal.
    pub p_t: f64,
    /// Two-sided p of the exact permutation test that flips the sign of each difference. With `n` pairs it cannot fall
    /// below `2 / 2^n`.
    pub p_flip: f64,
}

/// Above this many pairs the permutations are no longer counted out.
const MAX_FLIPS: usize = 20;

impl Paired {
    /// Compares `a` with `b`. `None` where there are no pairs or the lists differ in length.
    pub(crate) fn of(a: &[f64], b: &[f64]) -> Option<Self> {
        if a.len() != b.len() || a.is_empty() {
            return None;
        }
        let d: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let difference = Interval::of(&d);
        let error = standard_deviation(&d) / (d.len() as f64).sqrt();
        let p_t = match student(d.len()) {
            Some(t) if error > 0.0 => 2.0 * t.cdf(-(difference.mean / error).abs()),
            _ => f64::NAN,
        };
        Some(Self { difference, p_t, p_flip: sign_flip(&d) })
    }
}

/// Share of the `2^n` sign patterns whose sum is at least as far from 0 as the one seen; NaN above [`MAX_FLIPS`]
/// values.
fn sign_flip(d: &[f64]) -> f64 {
    if d.len() > MAX_FLIPS {
        return f64::NAN;
    }
    let seen = d.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ by rounding.
    let tolerance = 1e-12 * d.iter().map(|v| v.abs()).sum::<f64>();
    let patterns = 1u64 << d.len();
    let as_far = (0..patterns)
        .filter(|bits| {
            let sum: f64 = d.iter().enumerate().map(|(i, v)| if bits >> i & 1 == 1 { -v } else { *v }).sum();
            sum.abs() >= seen - tolerance
        })
        .count();
    as_far as f64 / patterns as f64
}

/// Pearson's correlation; `None` of fewer than two pairs, of lists that differ in length, or where one side does not
/// vary.
pub(crate) fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 2 {
        return None;
    }
    let (mx, my) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx).powi(2);
        yy += (b - my).powi(2);
    }
    let scale = (xx * yy).sqrt();
    (scale > 0.0 && scale.is_finite()).then(|| (xy / scale).clamp(-1.0, 1.0))
}

/// Counts of values in bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Left end of the first bin.
    pub low: f64,
    /// Right end of the last bin, which belongs to it.
    pub high: f64,
    /// Values in each bin.
    pub counts: Vec<usize>,
}

impl Histogram {
    /// `bins` bins from `low` to `high`; what lies outside is counted in the bin at that end, so that no value is lost.
    pub fn of(values: &[f64], low: f64, high: f64, bins: usize) -> Self {
        let bins = bins.max(1);
        let mut counts = vec![0; bins];
        for v in values.iter().filter(|v| v.is_finite()) {
            let share = if high > low { (v - low) / (high - low) } else { 0.0 };
            counts[((share.max(0.0) * bins as f64) as usize).min(bins - 1)] += 1;
        }
        Self { low, high, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-4, "{a} is not {b}");
    }

    /// Against R: t.test(c(1, 2, 4, 8)) gives -1.197 to 8.697.
    #[test]
    fn an_interval_as_r_gives_it() {
        let i = Interval::of(&[1.0, 2.0, 4.0, 8.0]);
        near(i.mean, 3.75);
        near(i.half, 3.182_446 * 3.095_696 / 2.0);
        assert!(Interval::of(&[1.0]).half.is_nan() && Interval::of(&[]).mean.is_nan());
    }

    /// Student's own sleep data; R: t.test(..., paired = TRUE) gives t = -4.0621, p = 0.002833.
    #[test]
    fn the_sleep_data() {
        let a = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let b = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let p = Paired::of(&a, &b).unwrap();
        near(p.difference.mean, -1.58);
        near(p.p_t, 0.002_833);
        // One difference is 0 and all others are negative: 4 of 1024 patterns are as far.
        near(p.p_flip, 4.0 / 1024.0);
    }

    #[test]
    fn five_pairs_cannot_be_below_a_sixteenth() {
        let p = Paired::of(&[1.0, 2.0, 3.0, 4.0, 5.0], &[0.0; 5]).unwrap();
        assert_eq!(p.p_flip, 2.0 / 32.0);
        let same = Paired::of(&[1.0, 1.0], &[1.0, 1.0]).unwrap();
        assert!(same.p_t.is_nan());
        assert_eq!(same.p_flip, 1.0);
        assert!(Paired::of(&[1.0], &[]).is_none() && Paired::of(&[], &[]).is_none());
    }

    #[test]
    fn correlation() {
        near(pearson(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]).unwrap(), 1.0);
        near(pearson(&[1.0, 2.0, 3.0], &[1.0, 0.0, 1.0]).unwrap(), 0.0);
        // covariance 1, variances 2 and 2
        near(pearson(&[1.0, 2.0, 3.0], &[1.0, 3.0, 2.0]).unwrap(), 0.5);
        assert_eq!(pearson(&[1.0, 2.0], &[3.0, 3.0]), None);
        assert_eq!(pearson(&[1.0], &[3.0]), None);
    }

    #[test]
    fn no_value_is_lost() {
        let h = Histogram::of(&[-1.0, 0.0, 0.49, 0.5, 1.0, 7.0, f64::NAN], 0.0, 1.0, 2);
        assert_eq!(h.counts, [3, 3]);
        assert_eq!(Histogram::of(&[1.0], 0.0, 0.0, 0).counts, [1]);
    }
}
