//! What the paper's figures read from the visual focus. Host side, on plain slices: saved rollouts are analysed with the same code.

/// Cuts a response of `length` tokens into `parts` and returns the 0-based ends of the first and the start of the last part.
/// With an odd length the middle token is late, as in the tail of equation 6.
fn cuts(length: usize, parts: usize) -> (usize, usize) {
    (length / parts, length - length.div_ceil(parts))
}
fn mean(values: &[f32]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64)
}

/// Late/early ratio of visual focus: the mean over the last part of a response over the mean over its first.
///
/// `parts` is 2 for halves (the paper's text) or 3 for thirds (the released code's metrics). `None` when the response is too
/// short to have a first part, or when nothing there looks at the picture.
pub fn late_early_ratio(rho: &[f32], parts: usize) -> Option<f64> {
    let (early, late) = cuts(rho.len(), parts);
    let early = mean(&rho[..early])?;
    let late = mean(&rho[late..])?;
    (early > 0.0).then_some(late / early)
}

/// Share of a response's top visual tokens that lie in its late half; the early half holds the rest.
///
/// The top tokens are the `ceil(share T)` with the largest focus, the earlier of two equals first. `None` for no tokens.
pub fn top_tokens_late(rho: &[f32], share: f64) -> Option<f64> {
    let mut order: Vec<usize> = (0..rho.len()).collect();
    order.sort_by(|&a, &b| rho[b].total_cmp(&rho[a]));
    order.truncate((share * rho.len() as f64).ceil() as usize);
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
    /// Share of the top 40% visual tokens that lie in the late half.
    pub top_tokens_late: f64,
}

impl FocusMetrics {
    /// Metrics of a batch; `rho` holds one list a response, without padding. Responses for which a figure is undefined do not
    /// take part in it; a figure that no response defines is NaN.
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
    }

    #[test]
    fn spread() {
        let spread = Spread::new([1.0, 2.0, 6.0]);
        assert_eq!((spread.mean, spread.min, spread.max), (3.0, 1.0, 6.0));
    }
}
