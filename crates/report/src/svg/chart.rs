//! A chart of two axes: lines with bands, points, bars; title, labels with units, and a legend where there is more than
//! one series.

use super::axis::{Axis, Scale};
use super::{Anchor, FAINT, GRID, INK, Svg, colour, width_of, wrapped};

/// How a series is drawn.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// A line; with `half`, a band of that half width around it (NaN: none there).
    Line {
        /// Half width of the band at each point; empty: no band.
        half: Vec<f64>,
    },
    /// A dashed line.
    Dashed,
    /// Dots.
    Points,
    /// Bars from 0, each `width` wide in units of x.
    Bars {
        /// Width in units of x.
        width: f64,
    },
}

/// Numbers with a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name in the legend; empty: not in it.
    pub name: String,
    /// Points; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub mark: Mark,
}

/// A chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// A line under the title that says how to read it; empty: none.
    pub note: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// What is drawn, first at the bottom.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 22.0;
const BOTTOM: f64 = 58.0;
const TEXT: f64 = 14.0;

impl Chart {
    /// The chart as an SVG file.
    pub fn draw(&self) -> String {
        let names: Vec<(usize, &Series)> = self.series.iter().enumerate().filter(|(_, s)| !s.name.is_empty()).collect();
        // The legend stands under the title, in as many lines as it needs.
        let mut legend = Vec::new();
        let (mut at, mut line) = (LEFT, 0);
        if self.series.len() > 1 {
            for (k, series) in &names {
                let width = 34.0 + width_of(&series.name, TEXT) + 22.0;
                if at > LEFT && at + width > WIDTH - RIGHT {
                    (at, line) = (LEFT, line + 1);
                }
                legend.push((*k, at, line));
                at += width;
            }
        }
        let lines = if legend.is_empty() { 0 } else { line + 1 };
        let title = wrapped(&self.title, 18.0, WIDTH - LEFT - RIGHT);
        let note = wrapped(&self.note, 12.5, WIDTH - LEFT - RIGHT);
        let below = 22.0 * title.len().saturating_sub(1) as f64; // the first line of the title
        let notes = if note.is_empty() { 0.0 } else { 4.0 + 16.0 * note.len() as f64 };
        let top = 46.0 + below + notes + 20.0 * f64::from(lines);
        let height = HEIGHT + top - 46.0;
        let mut svg = Svg::new(WIDTH, height);
        for (k, line) in title.iter().enumerate() {
            svg.text(LEFT, 28.0 + 22.0 * k as f64, 18.0, INK, Anchor::Start, line);
        }
        for (k, line) in note.iter().enumerate() {
            svg.text(LEFT, 48.0 + below + 16.0 * k as f64, 12.5, FAINT, Anchor::Start, line);
        }
        for (k, x, line) in legend {
            let y = 46.0 + below + notes + 20.0 * f64::from(line);
            self.key(&mut svg, k, x, y - 5.0);
            svg.text(x + 34.0, y, TEXT, INK, Anchor::Start, &self.series[k].name);
        }
        let finite = || self.series.iter().flat_map(|s| s.points.iter().enumerate().map(move |(i, p)| (s, i, *p)));
        let xs = self.x.resolve(finite().flat_map(|(s, _, p)| match s.mark {
            Mark::Bars { width } => [p.0 - width / 2.0, p.0 + width / 2.0],
            _ => [p.0, p.0],
        }));
        let ys = self.y.resolve(finite().flat_map(|(s, i, p)| match &s.mark {
            Mark::Line { half } => {
                let h = half.get(i).copied().filter(|h| h.is_finite()).unwrap_or(0.0);
                [p.1 - h, p.1 + h]
            }
            Mark::Bars { .. } => [0.0, p.1],
            _ => [p.1, p.1],
        }));
        let plane = Plane { top, bottom: height - BOTTOM, x: xs, y: ys };
        self.axes(&mut svg, &plane);
        for (k, series) in self.series.iter().enumerate() {
            draw(&mut svg, &plane, series, colour(k));
        }
        svg.finish()
    }

    fn key(&self, svg: &mut Svg, k: usize, x: f64, y: f64) {
        let fill = colour(k);
        match self.series[k].mark {
            Mark::Line { .. } => svg.line((x, y), (x + 26.0, y), fill, 3.0),
            Mark::Dashed => svg.path(&[(x, y), (x + 26.0, y)], fill, 2.0, "6 4"),
            Mark::Points => svg.circle(x + 13.0, y, 5.0, fill, 0.8),
            Mark::Bars { .. } => svg.rect(x + 4.0, y - 6.0, 18.0, 12.0, fill, 0.6),
        }
    }

    fn axes(&self, svg: &mut Svg, plane: &Plane) {
        for tick in plane.y.ticks() {
            let y = plane.y(tick);
            svg.line((LEFT, y), (WIDTH - RIGHT, y), GRID, 1.0);
            svg.text(LEFT - 8.0, y + 4.5, 13.0, INK, Anchor::End, &plane.y.tick(tick));
        }
        for tick in plane.x.ticks() {
            let x = plane.x(tick);
            svg.line((x, plane.bottom), (x, plane.bottom + 5.0), INK, 1.0);
            svg.text(x, plane.bottom + 20.0, 13.0, INK, Anchor::Middle, &plane.x.tick(tick));
        }
        svg.line((LEFT, plane.bottom), (WIDTH - RIGHT, plane.bottom), INK, 1.2);
        svg.line((LEFT, plane.top), (LEFT, plane.bottom), INK, 1.2);
        svg.text((LEFT + WIDTH - RIGHT) / 2.0, plane.bottom + 44.0, TEXT, INK, Anchor::Middle, &self.x.label);
        svg.upright(20.0, (plane.top + plane.bottom) / 2.0, TEXT, INK, &self.y.label);
    }
}

/// From values to pixels.
struct Plane {
    top: f64,
    bottom: f64,
    x: Scale,
    y: Scale,
}

impl Plane {
    fn x(&self, v: f64) -> f64 {
        LEFT + self.x.share(v).clamp(0.0, 1.0) * (WIDTH - RIGHT - LEFT)
    }
    fn y(&self, v: f64) -> f64 {
        self.bottom - self.y.share(v).clamp(0.0, 1.0) * (self.bottom - self.top)
    }
    fn at(&self, p: (f64, f64)) -> (f64, f64) {
        (self.x(p.0), self.y(p.1))
    }
}

fn draw(svg: &mut Svg, plane: &Plane, series: &Series, fill: &str) {
    let finite: Vec<(usize, (f64, f64))> =
        series.points.iter().copied().enumerate().filter(|(_, p)| p.0.is_finite() && p.1.is_finite()).collect();
    let points: Vec<(f64, f64)> = finite.iter().map(|(_, p)| plane.at(*p)).collect();
    match &series.mark {
        Mark::Line { half } => {
            let side = |sign: f64| -> Vec<(f64, f64)> {
                finite
                    .iter()
                    .filter_map(|(i, p)| {
                        let h = half.get(*i).copied().filter(|h| h.is_finite())?;
                        Some(plane.at((p.0, p.1 + sign * h)))
                    })
                    .collect()
            };
            let mut band = side(1.0);
            band.extend(side(-1.0).into_iter().rev());
            if band.len() > 2 {
                svg.polygon(&band, fill, 0.14);
            }
            svg.path(&points, fill, 2.4, "");
            if points.len() <= 24 {
                points.iter().for_each(|p| svg.circle(p.0, p.1, 3.2, fill, 1.0));
            }
        }
        Mark::Dashed => svg.path(&points, fill, 1.8, "6 4"),
        Mark::Points => {
            let (radius, opacity) = if points.len() > 400 { (2.0, 0.35) } else { (3.5, 0.6) };
            points.iter().for_each(|p| svg.circle(p.0, p.1, radius, fill, opacity));
        }
        Mark::Bars { width } => {
            for (_, p) in &finite {
                let (left, right) = (plane.x(p.0 - width / 2.0), plane.x(p.0 + width / 2.0));
                let (y, zero) = (plane.y(p.1), plane.y(0.0));
                svg.rect(left + 0.5, y.min(zero), (right - left - 1.0).max(1.0), (zero - y).abs(), fill, 0.55);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_names_everything() {
        let line = |name: &str, half: Vec<f64>| Series {
            name: name.into(),
            points: vec![(0.0, 0.5), (1.0, f64::NAN), (2.0, 0.7)],
            mark: Mark::Line { half },
        };
        let chart = Chart {
            title: "Accuracy".into(),
            note: "mean of 5 seeds".into(),
            x: Axis::new("steps"),
            y: Axis::new("accuracy").percent(),
            series: vec![line("GRPO", vec![]), line("VGPO", vec![0.1, 0.1, f64::NAN])],
        };
        let svg = chart.draw();
        for text in ["Accuracy", "mean of 5 seeds", "steps", "accuracy", "GRPO", "VGPO", "60%"] {
            assert!(svg.contains(&format!(">{text}<")), "{text} is missing");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn nothing_to_draw_is_drawn() {
        let chart =
            Chart { title: "t".into(), note: String::new(), x: Axis::new("x"), y: Axis::new("y"), series: vec![] };
        assert!(!chart.draw().contains("NaN"));
    }
}
