//! What a focus map is drawn with: rectangles, text, pictures, and the colours of values.

use image::{Rgb, RgbImage};

/// Background.
pub(crate) const PAPER: Rgb<u8> = Rgb([250, 250, 248]);
/// Text.
pub(crate) const INK: Rgb<u8> = Rgb([28, 28, 34]);
/// Text that stands back.
pub(crate) const FAINT: Rgb<u8> = Rgb([112, 112, 120]);
/// Side of a glyph at scale 1.
pub(crate) const GLYPH: u32 = 8;

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

/// Text as the font has it: one line, ASCII, at most `limit` characters.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
        if out.len() > limit {
            out.truncate(limit.saturating_sub(2));
            out.push_str("..");
            break;
        }
    }
    out
}

/// Words laid into lines of at most `limit` characters; longer words are cut into pieces.
pub(crate) fn wrap(text: &str, limit: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let chars: Vec<char> = word.chars().collect();
        for piece in chars.chunks(limit) {
            let room = lines.last().map_or(0, |l| if l.is_empty() { limit } else { limit.saturating_sub(l.len() + 1) });
            if piece.len() > room {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.extend(piece);
            }
        }
    }
    lines
}

/// The sheet that everything is drawn on; what lies outside is not drawn.
pub(crate) struct Sheet(pub RgbImage);

impl Sheet {
    fn dot(&mut self, x: u32, y: u32, colour: Rgb<u8>) {
        if let Some(pixel) = self.0.get_pixel_mut_checked(x, y) {
            *pixel = colour;
        }
    }
    /// A filled rectangle.
    pub(crate) fn rect(&mut self, x: u32, y: u32, width: u32, height: u32, colour: Rgb<u8>) {
        for row in y..y + height {
            for column in x..x + width {
                self.dot(column, row, colour);
            }
        }
    }
    /// A frame of thickness `t` around a rectangle.
    pub(crate) fn frame(&mut self, x: u32, y: u32, width: u32, height: u32, t: u32, colour: Rgb<u8>) {
        self.rect(x - t, y - t, width + 2 * t, t, colour);
        self.rect(x - t, y + height, width + 2 * t, t, colour);
        self.rect(x - t, y, t, height, colour);
        self.rect(x + width, y, t, height, colour);
    }
    /// One line of text whose glyphs are `scale` times [`GLYPH`] wide.
    pub(crate) fn text(&mut self, x: u32, y: u32, scale: u32, colour: Rgb<u8>, text: &str) {
        for (k, c) in text.chars().enumerate() {
            let glyph = font8x8::legacy::BASIC_LEGACY.get(c as usize).copied().unwrap_or_default();
            for (row, bits) in glyph.iter().enumerate() {
                for column in (0..GLYPH).filter(|b| bits >> b & 1 == 1) {
                    let left = x + (k as u32 * GLYPH + column) * scale;
                    self.rect(left, y + row as u32 * scale, scale, scale, colour);
                }
            }
        }
    }
    /// Another picture, its left upper corner at `x`, `y`.
    pub(crate) fn picture(&mut self, x: u32, y: u32, picture: &RgbImage) {
        for (column, row, pixel) in picture.enumerate_pixels() {
            self.dot(x + column, y + row, *pixel);
        }
    }
    /// The colours with the numbers at both ends: `low [bar] high`, all in `width`.
    pub(crate) fn legend(&mut self, x: u32, y: u32, width: u32, scale: HeatScale) {
        let (low, high) = (format!("{:.3}", scale.low), format!("{:.3}", scale.high));
        let text = |s: &str| s.len() as u32 * GLYPH;
        let left = x + text(&low) + 8;
        let bar = width.saturating_sub(text(&low) + text(&high) + 16).max(2);
        self.text(x, y + 2, 1, INK, &low);
        for k in 0..bar {
            self.rect(left + k, y, 1, 12, heat(k as f32 / (bar - 1) as f32));
        }
        self.text(left + bar + 8, y + 2, 1, INK, &high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_ascii_and_short() {
        assert_eq!(printable("a\n\u{e9}\u{7f}~ ", 20), "a\\n??~ ");
        assert_eq!(printable("abcdefgh", 6), "abcd..");
        assert_eq!(printable("abcdef", 6), "abcdef");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
    }

    #[test]
    fn equal_values_have_a_colour() {
        let scale = HeatScale::of(&[0.5, 0.5]);
        assert_eq!(scale.share(0.5), 0.5);
        assert_eq!(heat(0.0), Rgb([13, 8, 135]));
        assert_eq!(heat(1.0), Rgb([240, 249, 33]));
        assert_eq!(heat(f32::NAN), heat(0.0));
    }
}
