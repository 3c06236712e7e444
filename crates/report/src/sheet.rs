//! What a focus map is drawn with: rectangles, text, pictures, and the colours of values. A sheet is an SVG file.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data::ImageError;
use image::{Rgb, RgbImage};

use crate::fonts::Fonts;
use crate::svg::{Svg, escape};

/// Background.
pub(crate) const PAPER: Rgb<u8> = Rgb([250, 250, 248]);
/// Text.
pub(crate) const INK: Rgb<u8> = Rgb([28, 28, 34]);
/// Text that stands back.
pub(crate) const FAINT: Rgb<u8> = Rgb([112, 112, 120]);
/// Font size of small text, in pixels.
pub(crate) const SMALL: u32 = 11;
/// Wherever the font of this crate is not at hand, its relatives.
const FAMILY: &str = "'DejaVu Sans', Verdana, sans-serif";

/// Colours from low to high: dark blue, violet, red, orange, yellow. Brightness rises with the value, so that it reads
/// in grey too.
pub(crate) const HEAT: [[f32; 3]; 6] = [
    [13.0, 8.0, 135.0],
    [106.0, 0.0, 168.0],
    [177.0, 42.0, 144.0],
    [225.0, 100.0, 98.0],
    [252.0, 166.0, 54.0],
    [240.0, 249.0, 33.0],
];

/// The colour of a share from 0 to 1.
pub(crate) fn heat(share: f32) -> Rgb<u8> {
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let at = share * (HEAT.len() - 1) as f32;
    let low = (at as usize).min(HEAT.len() - 2);
    let (a, b) = (HEAT[low], HEAT[low + 1]);
    Rgb([0, 1, 2].map(|c| (a[c] + (b[c] - a[c]) * (at - low as f32)).round() as u8))
}

fn hex(Rgb([r, g, b]): Rgb<u8>) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Smallest and largest value, and where others lie between them. Equal values all lie in the middle.
#[derive(Clone, Copy)]
pub(crate) struct HeatScale {
    /// Smallest.
    pub low: f32,
    /// Largest.
    pub high: f32,
}

impl HeatScale {
    /// The range of some values.
    pub(crate) fn of(values: &[f32]) -> Self {
        let low = values.iter().copied().fold(f32::INFINITY, f32::min);
        let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Self { low, high }
    }
    /// Where a value lies in the range, from 0 to 1.
    pub(crate) fn share(self, value: f32) -> f32 {
        if self.high > self.low { (value - self.low) / (self.high - self.low) } else { 0.5 }
    }
}

/// The sheet that everything is drawn on. Coordinates are pixels from the left upper corner.
pub(crate) struct Sheet<'a> {
    svg: Svg,
    fonts: &'a Fonts,
    missing: BTreeSet<char>,
}

impl<'a> Sheet<'a> {
    /// An empty sheet.
    pub(crate) fn new(width: u32, height: u32, fonts: &'a Fonts) -> Self {
        let mut svg = Svg::on(f64::from(width), f64::from(height), &hex(PAPER), FAMILY);
        let stop = |k: usize| {
            let share = k as f32 / (HEAT.len() - 1) as f32;
            format!(r#"<stop offset="{share}" stop-color="{}"/>"#, hex(heat(share)))
        };
        let stops: String = (0..HEAT.len()).map(stop).collect();
        svg.element(&format!(r#"<defs><linearGradient id="heat">{stops}</linearGradient></defs>"#));
        Self { svg, fonts, missing: BTreeSet::new() }
    }
    /// A filled rectangle.
    pub(crate) fn rect(&mut self, x: u32, y: u32, width: u32, height: u32, colour: Rgb<u8>) {
        let [x, y, width, height] = [x, y, width, height].map(f64::from);
        self.svg.rect(x, y, width, height, &hex(colour), 1.0);
    }
    /// A frame of thickness `t` around a rectangle.
    pub(crate) fn frame(&mut self, x: u32, y: u32, width: u32, height: u32, t: u32, colour: Rgb<u8>) {
        self.rect(x - t, y - t, width + 2 * t, t, colour);
        self.rect(x - t, y + height, width + 2 * t, t, colour);
        self.rect(x - t, y, t, height, colour);
        self.rect(x + width, y, t, height, colour);
    }
    /// One line of text in a row of height `size`, its font size; returns how wide it is.
    pub(crate) fn text(&mut self, x: u32, y: u32, size: u32, colour: Rgb<u8>, text: &str) -> u32 {
        let (fill, baseline) = (hex(colour), f64::from(y) + (0.86 * f64::from(size)).round());
        let mut at = f64::from(x);
        for run in self.fonts.runs(text) {
            let width = f64::from(run.width) * f64::from(size);
            if run.font.is_none() {
                self.missing.extend(run.text.chars());
            }
            // The font of this crate has neither kerning nor ligatures: its runs are as wide as was measured, and
            // another font is made to.
            let length = match run.font == Some(self.fonts.own()) && width > 0.0 {
                true => format!(r#" textLength="{width:.2}" lengthAdjust="spacingAndGlyphs""#),
                false => String::new(),
            };
            self.svg.element(&format!(
                r#"<text x="{at:.2}" y="{baseline}" font-size="{size}" fill="{fill}" xml:space="preserve"{length}>{}</text>"#,
                escape(&run.text)
            ));
            at += width;
        }
        (at - f64::from(x)).ceil() as u32
    }
    /// Another picture, its left upper corner at `x`, `y`; `hard`: pixels stay squares where it is enlarged.
    ///
    /// # Errors
    /// A picture without pixels.
    pub(crate) fn picture(&mut self, x: u32, y: u32, picture: &RgbImage, hard: bool) -> Result<(), ImageError> {
        let [width, height] = [picture.width(), picture.height()];
        let rendering = if hard { r#" image-rendering="optimizeSpeed" style="image-rendering:pixelated""# } else { "" };
        let png = STANDARD.encode(data::image::png(picture)?);
        self.svg.element(&format!(
            r#"<image x="{x}" y="{y}" width="{width}" height="{height}"{rendering} href="data:image/png;base64,{png}"/>"#
        ));
        Ok(())
    }
    /// The colours with the numbers at both ends: `low [bar] high`, all in `width`.
    pub(crate) fn legend(&mut self, x: u32, y: u32, width: u32, scale: HeatScale) {
        let (low, high) = (format!("{:.3}", scale.low), format!("{:.3}", scale.high));
        let left = x + self.text(x, y + 1, SMALL, INK, &low) + 8;
        let after = self.fonts.width(&high, f64::from(SMALL)).ceil() as u32;
        let bar = (x + width).saturating_sub(left + after + 8).max(2);
        self.svg.rect(f64::from(left), f64::from(y), f64::from(bar), 12.0, "url(#heat)", 1.0);
        self.text(left + bar + 8, y + 1, SMALL, INK, &high);
    }
    /// The file, and the characters that no font has.
    pub(crate) fn finish(self) -> (String, BTreeSet<char>) {
        (self.svg.finish(), self.missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_a_colour() {
        let scale = HeatScale::of(&[0.5, 0.5]);
        assert_eq!(scale.share(0.5), 0.5);
        assert_eq!(heat(0.0), Rgb([13, 8, 135]));
        assert_eq!(heat(1.0), Rgb([240, 249, 33]));
        assert_eq!(heat(f32::NAN), heat(0.0));
    }
}
