//! Rows with a name, a mean and its interval, under one axis: the picture of a table.

use super::axis::Axis;
use super::{Anchor, COLOURS, FAINT, GRID, INK, Svg, width_of};

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct ForestRow {
    /// Its name.
    pub label: String,
    /// Its mean; NaN draws nothing.
    pub mean: f64,
    /// Half the width of its interval; NaN draws none.
    pub half: f64,
    /// The single values, drawn faintly.
    pub values: Vec<f64>,
}

/// A forest plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    /// What it shows.
    pub title: String,
    /// A line under the title.
    pub note: String,
    /// The axis.
    pub x: Axis,
    /// Rows from the top.
    pub rows: Vec<ForestRow>,
    /// A vertical line at this value, such as no difference.
    pub mark: Option<f64>,
}

const WIDTH: f64 = 820.0;
const RIGHT: f64 = 100.0;
const ROW: f64 = 30.0;

impl Forest {
    /// The plot as an SVG file.
    pub fn draw(&self) -> String {
        let widest = self.rows.iter().map(|r| width_of(&r.label, 14.0)).fold(60.0, f64::max);
        let left = (widest + 34.0).min(WIDTH * 0.45);
        let top = if self.note.is_empty() { 52.0 } else { 70.0 };
        let bottom = top + ROW * self.rows.len().max(1) as f64 + 8.0;
        let mut svg = Svg::new(WIDTH, bottom + 58.0);
        svg.text(24.0, 28.0, 18.0, INK, Anchor::Start, &self.title);
        svg.text(24.0, 48.0, 12.5, FAINT, Anchor::Start, &self.note);
        let ends = self.rows.iter().flat_map(|r| {
            let h = if r.half.is_finite() { r.half } else { 0.0 };
            [r.mean - h, r.mean + h].into_iter().chain(r.values.iter().copied())
        });
        let scale = self.x.resolve(ends.chain(self.mark));
        let x = |v: f64| left + scale.share(v).clamp(0.0, 1.0) * (WIDTH - RIGHT - left);
        for tick in scale.ticks() {
            svg.line((x(tick), top), (x(tick), bottom), GRID, 1.0);
            svg.text(x(tick), bottom + 18.0, 13.0, INK, Anchor::Middle, &scale.tick(tick));
        }
        if let Some(mark) = self.mark {
            svg.path(&[(x(mark), top), (x(mark), bottom)], INK, 1.4, "5 4");
        }
        svg.line((left, bottom), (WIDTH - RIGHT, bottom), INK, 1.2);
        svg.text((left + WIDTH - RIGHT) / 2.0, bottom + 42.0, 14.0, INK, Anchor::Middle, &self.x.label);
        for (k, row) in self.rows.iter().enumerate() {
            let y = top + ROW * (k as f64 + 0.5);
            svg.text(left - 12.0, y + 5.0, 14.0, INK, Anchor::End, &row.label);
            if !row.mean.is_finite() {
                svg.text(left + 8.0, y + 5.0, 13.0, FAINT, Anchor::Start, "not run yet");
                continue;
            }
            for v in row.values.iter().filter(|v| v.is_finite()) {
                svg.circle(x(*v), y, 3.0, COLOURS[5], 0.7);
            }
            if row.half.is_finite() {
                let (a, b) = (x(row.mean - row.half), x(row.mean + row.half));
                svg.line((a, y), (b, y), COLOURS[0], 2.2);
                [a, b].into_iter().for_each(|end| svg.line((end, y - 5.0), (end, y + 5.0), COLOURS[0], 2.2));
            }
            svg.circle(x(row.mean), y, 5.0, COLOURS[0], 1.0);
            let text = match self.x.percent {
                true => format!("{:.1}%", 100.0 * row.mean),
                false => format!("{:.3}", row.mean),
            };
            svg.text(WIDTH - RIGHT + 14.0, y + 5.0, 14.0, INK, Anchor::Start, &text);
        }
        svg.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_an_interval_are_drawn() {
        let row = |label: &str, mean, half| ForestRow { label: label.into(), mean, half, values: vec![mean] };
        let forest = Forest {
            title: "Difference".into(),
            note: String::new(),
            x: Axis::new("points").percent(),
            rows: vec![row("a", 0.01, 0.02), row("b", 0.03, f64::NAN), row("c", f64::NAN, f64::NAN)],
            mark: Some(0.0),
        };
        let svg = forest.draw();
        assert!(svg.contains(">a<") && svg.contains(">3.0%<") && svg.contains("not run yet") && !svg.contains("NaN"));
    }
}
