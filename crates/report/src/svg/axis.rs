//! An axis: what it covers, where its ticks stand, how numbers are written.

/// One axis of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// Smallest and largest value; none: what the data needs.
    pub range: Option<(f64, f64)>,
    /// Write shares as percentages.
    pub percent: bool,
}

impl Axis {
    /// An axis that covers the data.
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), range: None, percent: false }
    }

    /// The same with a fixed range.
    pub fn range(self, low: f64, high: f64) -> Self {
        Self { range: Some((low, high)), ..self }
    }

    /// The same with shares written as percentages.
    pub fn percent(self) -> Self {
        Self { percent: true, ..self }
    }

    /// What it covers for this data: the given range, or the data's widened to round numbers.
    pub(crate) fn resolve(&self, values: impl Iterator<Item = f64>) -> Scale {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values.filter(|v| v.is_finite()) {
            low = low.min(v);
            high = high.max(v);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if let Some(range) = self.range {
            (low, high) = range;
        }
        if high - low < 1e-12 {
            // One value: some room on both sides, in proportion.
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low, high) = (low - room, high + room);
        }
        let step = round_step((high - low) / 6.0);
        if self.range.is_none() {
            (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        }
        Scale { low, high, step, percent: self.percent }
    }
}

/// An axis with its numbers settled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    /// Smallest value.
    pub low: f64,
    /// Largest value.
    pub high: f64,
    step: f64,
    percent: bool,
}

impl Scale {
    /// Where a value lies, from 0 to 1 within the range.
    pub(crate) fn share(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Values of the ticks.
    pub(crate) fn ticks(&self) -> Vec<f64> {
        let first = (self.low / self.step - 1e-9).ceil() as i64;
        let last = (self.high / self.step + 1e-9).floor() as i64;
        (first..=last).map(|k| k as f64 * self.step).collect()
    }

    /// A tick as text.
    pub(crate) fn tick(&self, value: f64) -> String {
        let factor = if self.percent { 100.0 } else { 1.0 };
        let digits = (-(self.step * factor * 1.000_001).log10().floor()).clamp(0.0, 6.0) as usize;
        // No "-0".
        let value = if (value * factor).abs() < self.step * factor * 1e-6 { 0.0 } else { value * factor };
        format!("{value:.digits$}{}", if self.percent { "%" } else { "" })
    }
}

/// 1, 2 or 5 times a power of ten, the next above.
fn round_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw * 0.999).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let scale = Axis::new("x").resolve([0.503, 0.871].into_iter());
        assert_eq!((scale.low, scale.high), (0.5, 0.9));
        assert_eq!(
            scale.ticks().iter().map(|t| scale.tick(*t)).collect::<Vec<_>>(),
            ["0.5", "0.6", "0.7", "0.8", "0.9"]
        );
        let percent = Axis::new("x").percent().range(-0.05, 0.05).resolve(std::iter::empty());
        assert_eq!(
            percent.ticks().iter().map(|t| percent.tick(*t)).collect::<Vec<_>>(),
            ["-4%", "-2%", "0%", "2%", "4%"]
        );
    }

    #[test]
    fn data_without_extent_has_an_axis() {
        for values in [vec![], vec![3.0], vec![0.0, 0.0], vec![f64::NAN, f64::INFINITY]] {
            let scale = Axis::new("x").resolve(values.into_iter());
            assert!(scale.high > scale.low && scale.ticks().len() >= 2, "{scale:?}");
        }
    }
}
