//! Plots as SVG: lines with bands, points, histograms and rows with intervals. No fonts and no system libraries are
//! needed; every viewer and browser draws the files, and so does a Markdown page.
//!
//! | file | what |
//! |---|---|
//! | [`axis`] | ranges, round ticks, numbers as text |
//! | [`chart`] | two axes with series and a legend |
//! | [`forest`] | labelled rows, each with a mean and its interval |

pub mod axis;
pub mod chart;
pub mod forest;

use std::fmt::Write;

use crate::fonts::is_wide;

/// Colours that people with any colour vision tell apart (Okabe and Ito), darkest first.
pub(crate) const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31"];
/// Text.
pub(crate) const INK: &str = "#22222a";
/// Text that stands back.
pub(crate) const FAINT: &str = "#66666e";
/// Lines behind the data.
pub(crate) const GRID: &str = "#e2e2e6";

/// Colour of series `k`.
pub(crate) fn colour(k: usize) -> &'static str {
    COLOURS[k % COLOURS.len()]
}

/// Where a text stands relative to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// To its right.
    Start,
    /// Around it.
    Middle,
    /// To its left.
    End,
}

/// A picture being written. Coordinates are pixels from the left upper corner.
#[derive(Debug, Clone)]
pub(crate) struct Svg {
    width: f64,
    height: f64,
    /// Fonts of its text, the best first.
    family: &'static str,
    body: String,
}

impl Svg {
    /// An empty white picture.
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self::on(width, height, "#ffffff", "Helvetica, Arial, 'DejaVu Sans', sans-serif")
    }

    /// An empty picture of one colour, with the fonts of its text.
    pub(crate) fn on(width: f64, height: f64, paper: &str, family: &'static str) -> Self {
        let mut svg = Self { width, height, family, body: String::new() };
        svg.rect(0.0, 0.0, width, height, paper, 1.0);
        svg
    }

    /// An element as it stands; its text is escaped already.
    pub(crate) fn element(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }

    /// A filled rectangle.
    pub(crate) fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str, opacity: f64) {
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}" fill="{fill}" fill-opacity="{opacity}"/>"#
        );
    }

    /// A straight line.
    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), stroke: &str, width: f64) {
        let _ = writeln!(
            self.body,
            r#"<line x1="{:.2}" y1="{:.2}" x2="{:.2}" y2="{:.2}" stroke="{stroke}" stroke-width="{width}"/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    /// A line through points; dashed where `dash` says how (`"6 4"`), solid for `""`.
    pub(crate) fn path(&mut self, points: &[(f64, f64)], stroke: &str, width: f64, dash: &str) {
        let _ = writeln!(
            self.body,
            r#"<polyline points="{}" fill="none" stroke="{stroke}" stroke-width="{width}" stroke-linejoin="round" stroke-dasharray="{}"/>"#,
            coordinates(points),
            if dash.is_empty() { "none" } else { dash }
        );
    }

    /// A filled polygon.
    pub(crate) fn polygon(&mut self, points: &[(f64, f64)], fill: &str, opacity: f64) {
        let _ = writeln!(
            self.body,
            r#"<polygon points="{}" fill="{fill}" fill-opacity="{opacity}"/>"#,
            coordinates(points)
        );
    }

    /// A filled circle.
    pub(crate) fn circle(&mut self, x: f64, y: f64, radius: f64, fill: &str, opacity: f64) {
        let _ = writeln!(
            self.body,
            r#"<circle cx="{x:.2}" cy="{y:.2}" r="{radius:.2}" fill="{fill}" fill-opacity="{opacity}"/>"#
        );
    }

    /// One line of text whose baseline is at `y`; `size` in pixels.
    pub(crate) fn text(&mut self, x: f64, y: f64, size: f64, fill: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.2}" y="{y:.2}" font-size="{size}" fill="{fill}" text-anchor="{anchor}">{}</text>"#,
            escape(text)
        );
    }

    /// Text that reads upwards, its middle at the point.
    pub(crate) fn upright(&mut self, x: f64, y: f64, size: f64, fill: &str, text: &str) {
        let _ = writeln!(
            self.body,
            r#"<text transform="translate({x:.2} {y:.2}) rotate(-90)" font-size="{size}" fill="{fill}" text-anchor="middle">{}</text>"#,
            escape(text)
        );
    }

    /// The file.
    pub(crate) fn finish(self) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w:.0} {h:.0}\" width=\"{w:.0}\" height=\"{h:.0}\" \
             font-family=\"{}\">\n{}</svg>\n",
            self.family,
            self.body,
            w = self.width,
            h = self.height,
        )
    }
}

fn coordinates(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.2},{y:.2}")).collect::<Vec<_>>().join(" ")
}

/// Text inside an element. What no XML file may hold becomes the sign for it, U+FFFD.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\t' | '\n' | '\r' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// About how wide a text is, in pixels: exact widths need a font.
pub(crate) fn width_of(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if is_wide(c) { size } else { 0.56 * size }).sum()
}

/// The text in lines no wider than `most`, as far as its words allow.
pub(crate) fn wrapped(text: &str, size: f64, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width_of(line, size) + width_of(" ", size) + width_of(word, size) <= most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_wrapped() {
        let lines = wrapped("one two three four", 10.0, width_of("one two 3", 10.0));
        assert_eq!(lines, ["one two", "three", "four"]);
        assert_eq!(wrapped("/a/path/that/is/long is", 10.0, 20.0), ["/a/path/that/is/long", "is"]);
        assert!(wrapped("", 10.0, 20.0).is_empty());
    }

    #[test]
    fn text_is_escaped() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text(1.0, 2.0, 12.0, INK, Anchor::Start, "a<b & c\u{1b}°");
        let text = svg.finish();
        assert!(text.contains("a&lt;b &amp; c\u{fffd}°"), "{text}");
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    }
}
