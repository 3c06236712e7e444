//! What the paper's figures read from the visual focus. Host side, on plain slices: saved rollouts are analysed with
//! the same code.

use std::collections::HashMap;

/// Cuts a response of `length` tokens into `parts` and returns the 0-based ends of the first and the start of the last
/// part. With an odd length the middle token is late, as in the tail of equation 6.
fn cuts(length: usize, parts: usize) -> (usize, usize) {
    (length / parts, length - length.div_ceil(parts))
}

fn mean(values: &[f32]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64)
}

/// Means of the first and of the last of `parts` parts of a response; `None` when it is too short to have a first part.
fn early_and_late(values: &[f32], parts: usize) -> Option<(f64, f64)> {
    let (early, late) = cuts(values.len(), parts);
    Some((mean(&values[..early])?, mean(&values[late..])?))
}

/// Late/early ratio of visual focus: the mean over the last part of a response over the mean over its first.
///
/// `parts` is 2 for halves (the paper's text) or 3 for thirds (the released code's metrics). `None` when the response
/// is too short to have a first part, or when nothing there looks at the picture.
pub fn late_early_ratio(rho: &[f32], parts: usize) -> Option<f64> {
    let (early, late) = early_and_late(rho, parts)?;
    (early > 0.0).then_some(late / early)
}

/// Late/early ratio of the cosines `S = 2 rho - 1` behind the focus `rho`, one list per response without padding.
///
/// `rho = (S + 1) / 2` pins [`late_early_ratio`] near 1: cosines of 0.1 early and 0.02 late are a ratio of 0.93 there
/// and of 0.2 here. A cosine may be near 0 or below, where the ratio of a single response means nothing, so this is the
/// ratio of two means over responses. `None` when no response is long enough, or when the early cosines are not above 0
/// on average.
pub fn late_early_cosine_ratio<R: AsRef<[f32]>>(rho: &[R], parts: usize) -> Option<f64> {
    let ends: Vec<(f64, f64)> = rho.iter().filter_map(|row| early_and_late(row.as_ref(), parts)).collect();
    let cosine = |of: fn(&(f64, f64)) -> f64| 2.0 * ends.iter().map(of).sum::<f64>() / ends.len() as f64 - 1.0;
    let (early, late) = (cosine(|ends| ends.0), cosine(|ends| ends.1));
    (early > 0.0).then_some(late / early)
}

/// Pearson's correlation of `values` with the lengths of the responses, both less the mean of their group.
///
/// `phi` compares the responses of a group, so how long another prompt's responses are has no part in it. With the sum
/// as the trajectory score `phi` is mostly length: then this is near 1. All slices have one entry per response. `None`
/// when nothing varies within a group.
pub fn length_correlation(values: &[f32], lengths: &[usize], groups: &[usize]) -> Option<f64> {
    let values = centred(values.iter().map(|&v| f64::from(v)), groups);
    let lengths = centred(lengths.iter().map(|&length| length as f64), groups);
    let product = |a: &[f64], b: &[f64]| std::iter::zip(a, b).map(|(a, b)| a * b).sum::<f64>();
    let spread = product(&values, &values).sqrt() * product(&lengths, &lengths).sqrt();
    // Above the rounding of equal values.
    (spread > 1e-9).then(|| product(&values, &lengths) / spread)
}

/// Values less the mean of their group.
fn centred(values: impl Iterator<Item = f64>, groups: &[usize]) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let mut sums: HashMap<usize, (f64, f64)> = HashMap::new();
    for (value, group) in std::iter::zip(&values, groups) {
        let (sum, count) = sums.entry(*group).or_default();
        *sum += value;
        *count += 1.0;
    }
    std::iter::zip(&values, groups).map(|(value, group)| value - sums[group].0 / sums[group].1).collect()
}

/// Indices of the `count` tokens with the largest focus, the largest first and the earlier of two equals first; all
/// where there are fewer.
///
/// ```
/// assert_eq!(vgpo::metrics::top_tokens(&[0.5, 0.9, 0.9, 0.1], 3), [1, 2, 0]);
/// ```
pub fn top_tokens(rho: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rho.len()).collect();
    order.sort_by(|&a, &b| rho[b].total_cmp(&rho[a]));
    order.truncate(count);
    order
}

/// Share of a response's top visual tokens that lie in its late half; the early half holds the rest.
///
/// The top tokens are `ceil(share T)` of them ([`top_tokens`]). `None` for no tokens.
pub fn top_tokens_late(rho: &[f32], share: f64) -> Option<f64> {
    let order = top_tokens(rho, (share * rho.len() as f64).ceil() as usize);
    let half = rho.len() / 2;
    let late = order.iter().filter(|&&t| t >= half).count();
    (!order.is_empty()).then(|| late as f64 / order.len() as f64)
}

/// Means over the responses of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FocusMetrics {
    /// Mean visual focus over all tokens.
    pub focus_mean: f64,
    /// [`late_early_ratio`] by halves. Best runs of the paper sit near 1.
    pub late_early_halves: f64,
    /// [`late_early_ratio`] by thirds.
    pub late_early_thirds: f64,
    /// [`late_early_cosine_ratio`] by halves.
    pub late_early_cosine_halves: f64,
    /// [`late_early_cosine_ratio`] by thirds.
    pub late_early_cosine_thirds: f64,
    /// Share of the top 40% visual tokens that lie in the late half.
    pub top_tokens_late: f64,
}

impl FocusMetrics {
    /// Metrics of a batch; `rho` holds one list per response, without padding. Responses for which a figure is
    /// undefined do not take part in it; a figure that no response defines is NaN.
    pub fn new<R: AsRef<[f32]>>(rho: &[R]) -> Self {
        let average = |of: &dyn Fn(&[f32]) -> Option<f64>| {
            let values: Vec<f64> = rho.iter().filter_map(|r| of(r.as_ref())).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let tokens: usize = rho.iter().map(|r| r.as_ref().len()).sum();
        let sum: f64 = rho.iter().flat_map(|r| r.as_ref()).map(|&v| f64::from(v)).sum();
        Self {
            focus_mean: sum / tokens as f64,
            late_early_halves: average(&|r| late_early_ratio(r, 2)),
            late_early_thirds: average(&|r| late_early_ratio(r, 3)),
            late_early_cosine_halves: late_early_cosine_ratio(rho, 2).unwrap_or(f64::NAN),
            late_early_cosine_thirds: late_early_cosine_ratio(rho, 3).unwrap_or(f64::NAN),
            top_tokens_late: average(&|r| top_tokens_late(r, 0.4)),
        }
    }
}

/// Mean, smallest and largest of some factors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean; NaN of nothing.
    pub mean: f64,
    /// Smallest; infinite of nothing.
    pub min: f64,
    /// Largest; minus infinity of nothing.
    pub max: f64,
}

impl Spread {
    /// Reads the values once.
    pub fn new(values: impl IntoIterator<Item = f32>) -> Self {
        let (mut count, mut sum, mut min, mut max) = (0_usize, 0.0, f64::INFINITY, -f64::INFINITY);
        for value in values.into_iter().map(f64::from) {
            count += 1;
            sum += value;
            min = min.min(value);
            max = max.max(value);
        }
        Self { mean: sum / count as f64, min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_over_early() {
        // halves: (.3 + .3 + .6) / 3 over (.8 + .4) / 2, the middle token being late
        let rho = [0.8, 0.4, 0.3, 0.3, 0.6];
        assert!((late_early_ratio(&rho, 2).unwrap() - 0.4 / 0.6).abs() < 1e-6);
        // thirds: tokens 4-5 over token 1
        assert!((late_early_ratio(&rho, 3).unwrap() - 0.45 / 0.8).abs() < 1e-6);
        assert_eq!(late_early_ratio(&[0.5; 6], 3), Some(1.0));
        assert_eq!(late_early_ratio(&[0.5], 2), None);
        assert_eq!(late_early_ratio(&[], 2), None);
        assert_eq!(late_early_ratio(&[0.0, 0.5], 2), None);
    }

    #[test]
    fn top_tokens() {
        // ceil(.4 * 5) = 2 tokens: .8 (early) and .6 (late)
        assert_eq!(top_tokens_late(&[0.8, 0.4, 0.3, 0.3, 0.6], 0.4), Some(0.5));
        assert_eq!(top_tokens_late(&[0.1, 0.9], 0.4), Some(1.0));
        assert_eq!(top_tokens_late(&[], 0.4), None);
    }

    #[test]
    fn batches_leave_out_what_is_undefined() {
        let metrics = FocusMetrics::new(&[vec![0.5], vec![0.2, 0.4]]);
        assert!((metrics.focus_mean - 1.1 / 3.0).abs() < 1e-6);
        assert!((metrics.late_early_halves - 2.0).abs() < 1e-6);
        assert!(metrics.late_early_thirds.is_nan());
        assert!(metrics.late_early_cosine_halves.is_nan(), "the early cosine is -.6");
    }

    #[test]
    fn cosines_show_what_their_focus_hides() {
        // cosines (.1, .1, .02, .02) and (.3, .1): early .1 and .3, late .02 and .1
        let rho = [vec![0.55, 0.55, 0.51, 0.51], vec![0.65, 0.55]];
        let ratio = late_early_cosine_ratio(&rho, 2).unwrap();
        assert!((ratio - 0.12 / 0.4).abs() < 1e-6, "{ratio}");
        let metrics = FocusMetrics::new(&rho);
        assert_eq!(metrics.late_early_cosine_halves, ratio);
        assert!((metrics.late_early_halves - (0.51 / 0.55 + 0.55 / 0.65) / 2.0).abs() < 1e-6);
        // thirds: the first response's token 1 and tokens 3-4; the second is too short
        assert!((metrics.late_early_cosine_thirds - 0.2).abs() < 1e-5, "{}", metrics.late_early_cosine_thirds);
        // one response near 0 does not decide alone
        assert!((late_early_cosine_ratio(&[[0.5001, 0.6], [0.9, 0.6]], 2).unwrap() - 0.4 / 0.8002).abs() < 1e-4);
        assert_eq!(late_early_cosine_ratio(&[[0.4, 0.9]], 2), None, "the early cosine is -.2");
        assert_eq!(late_early_cosine_ratio::<Vec<f32>>(&[], 2), None);
    }

    #[test]
    fn correlation_with_length_is_within_groups() {
        let groups = [7, 7, 7, 1, 1];
        // phi grows with length in both groups, though the longer group has no larger phi
        let rising = length_correlation(&[-0.5, 0.0, 0.5, -0.5, 0.5], &[10, 20, 30, 500, 520], &groups).unwrap();
        assert!((rising - 1.0).abs() < 1e-12, "{rising}");
        let falling = length_correlation(&[0.5, 0.0, -0.5, 0.5, -0.5], &[10, 20, 30, 500, 520], &groups).unwrap();
        assert!((falling + 1.0).abs() < 1e-12, "{falling}");
        // lengths -1, 0, 1 and values 1, -2, 1 less their means
        assert_eq!(length_correlation(&[1.0, -2.0, 1.0], &[1, 2, 3], &[0; 3]), Some(0.0));
        // values -.5, .5, 0 and lengths -1, 0, 1: .5 over sqrt(.5 * 2)
        let half = length_correlation(&[-0.5, 0.5, 0.0], &[1, 2, 3], &[0; 3]).unwrap();
        assert!((half - 0.5).abs() < 1e-12, "{half}");
        assert_eq!(length_correlation(&[-0.5, 0.5], &[1, 2], &[0, 1]), None, "groups of one");
        assert_eq!(length_correlation(&[0.0, 0.0], &[1, 2], &[0, 0]), None);
        assert_eq!(length_correlation(&[-0.5, 0.5], &[3, 3], &[0, 0]), None);
    }

    #[test]
    fn spread() {
        let spread = Spread::new([1.0, 2.0, 6.0]);
        assert_eq!((spread.mean, spread.min, spread.max), (3.0, 1.0, 6.0));
    }
}
