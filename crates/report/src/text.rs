//! Text as it is drawn: escaped, cut, wrapped and measured with the fonts that draw it.

use std::collections::BTreeSet;

use resvg::usvg::fontdb::ID;

use crate::fonts::Fonts;

/// Neighbouring characters of one font.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TextRun {
    /// The characters.
    pub text: String,
    /// None: no font has them.
    pub font: Option<ID>,
    /// Sum of the characters' widths, in units of the font size. Shaped text may be narrower.
    pub width: f32,
}

/// Whether a character would be obeyed or be invisible: control characters, those that turn the direction of text, line
/// separators, tags, and what no XML file may hold.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
        || matches!(u32::from(c), 0x2028..=0x202E | 0x2060..=0x206F | 0xFFF9..=0xFFFB | 0xE0000..=0xE007F)
        || u32::from(c) & 0xFFFE == 0xFFFE
}

/// Whether a character only changes how its neighbours are drawn: joiners and selectors of variants.
fn is_selector(c: char) -> bool {
    matches!(u32::from(c), 0x200C | 0x200D | 0xFE00..=0xFE0F | 0xE0100..=0xE01EF)
}

/// Text in one line of at most about `most` characters, hidden ones written out.
pub(crate) fn printable(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (k, c) in text.chars().enumerate() {
        if k == most {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_hidden(c) => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

impl Fonts {
    /// The text in pieces of one font each. Spaces, punctuation and marks stay with what stands before them where its
    /// font has them, so that scripts that join letters or run from right to left are not torn.
    pub(crate) fn runs(&self, text: &str) -> Vec<TextRun> {
        let mut runs: Vec<TextRun> = vec![];
        for c in text.chars() {
            let last = runs.last().and_then(|run| run.font);
            let joined = last.filter(|_| !c.is_alphanumeric()).and_then(|font| match is_selector(c) {
                true => Some((Some(font), 0.0)),
                false => Some((Some(font), self.advance(font, c)?)),
            });
            let (font, advance) = joined.unwrap_or_else(|| match is_selector(c) {
                true => (Some(self.own()), 0.0),
                false => {
                    let choice = self.find(c);
                    (choice.font, choice.advance)
                }
            });
            match runs.last_mut().filter(|run| run.font == font) {
                Some(run) => {
                    run.text.push(c);
                    run.width += advance;
                }
                None => runs.push(TextRun { text: c.to_string(), font, width: advance }),
            }
        }
        runs
    }

    /// Width in pixels at a font size.
    pub(crate) fn width(&self, text: &str, size: f64) -> f64 {
        self.runs(text).iter().map(|run| f64::from(run.width)).sum::<f64>() * size
    }

    /// Bytes of the longest beginning that is no wider than `most`, and at least one character.
    fn fits(&self, text: &str, size: f64, most: f64) -> usize {
        let mut width = 0.0;
        for (at, c) in text.char_indices() {
            let advance = if is_selector(c) { 0.0 } else { f64::from(self.find(c).advance) * size };
            width += advance;
            // A mark stays with its letter.
            if at > 0 && advance > 0.0 && width > most {
                return at;
            }
        }
        text.len()
    }

    /// The text, cut so that it is no wider than `most`.
    pub(crate) fn cut(&self, text: &str, size: f64, most: f64) -> String {
        if self.width(text, size) <= most {
            return text.to_owned();
        }
        let end = self.fits(text, size, most - self.width("…", size));
        format!("{}…", &text[..end])
    }

    /// Words laid into lines no wider than `most`; longer words are cut into pieces.
    pub(crate) fn wrap(&self, text: &str, size: f64, most: f64) -> Vec<String> {
        let mut lines = vec![String::new()];
        for mut word in text.split(' ') {
            while !word.is_empty() {
                let (piece, rest) = word.split_at(self.fits(word, size, most));
                word = rest;
                let line = lines.last().map(String::as_str).unwrap_or_default();
                let joined = if line.is_empty() { piece.to_owned() } else { format!("{line} {piece}") };
                match (lines.last_mut(), self.width(&joined, size) <= most) {
                    (Some(line), fits) if fits || line.is_empty() => *line = joined,
                    _ => lines.push(piece.to_owned()),
                }
            }
        }
        lines
    }
}

/// Characters that a warning names.
const NAMED: usize = 12;

/// What to say of characters that no font has: which they are, and how to get fonts; none if there are none.
pub fn missing_note(missing: &BTreeSet<char>) -> Option<String> {
    let named: Vec<String> = missing.iter().take(NAMED).map(|c| format!("{c} (U+{:04X})", u32::from(*c))).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let among = |ranges: &[std::ops::RangeInclusive<u32>]| {
        missing.iter().any(|c| ranges.iter().any(|range| range.contains(&u32::from(*c))))
    };
    let (asian, emoji) =
        (&[0x2E80..=0xFAFF, 0xFF00..=0xFFEF, 0x20000..=0x3FFFF], &[0x2600..=0x27BF, 0x1F000..=0x1FAFF]);
    let mut packages = vec![];
    if among(asian) {
        packages.push("fonts-noto-cjk");
    }
    if among(emoji) {
        packages.push("fonts-noto-color-emoji");
    }
    if packages.is_empty() {
        packages.push("fonts-noto");
    }
    (!missing.is_empty()).then(|| {
        format!(
            "no font here has {}{more}: drawn as boxes. Any font with them helps, such as those of `apt install {}`; a \
             focus map as .svg or .html leaves them to the browser",
            named.join(", "),
            packages.join(" ")
        )
    })
}
