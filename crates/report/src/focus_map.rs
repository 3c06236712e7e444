//! A picture of where a response looked: the images as the model sees them, heat over them for the tokens of highest
//! visual focus, and all generated tokens coloured by their focus.

use std::collections::BTreeSet;
use std::path::Path;

use crate::fonts::Fonts;
use crate::sheet::{FAINT, HeatScale, INK, SMALL, Sheet, heat};
use crate::text::printable;
use data::{ImageError, ImageLimits, Patches};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use vgpo::metrics::top_tokens;

/// Panels beside the plain picture.
pub(crate) const PANELS: usize = 4;

/// One image of the prompt.
#[derive(Debug)]
pub struct Picture {
    /// Pixels after resizing.
    pub pixels: RgbImage,
    /// Rows and columns of image tokens; row-major, they cover the pixels.
    pub tokens: [usize; 2],
}

impl Picture {
    /// Undoes the image processor's normalisation and cutting: the resized image, to the last bit of each byte.
    pub fn from_patches(patches: &Patches, limits: &ImageLimits) -> Self {
        let [_, rows, columns] = patches.grid_thw;
        let pixels = data::image::from_patches(&patches.values, patches.grid_thw, limits);
        Self { pixels, tokens: [rows / limits.merge_size, columns / limits.merge_size] }
    }
}

/// A token whose similarity to each image token is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Index among the generated tokens, from 0.
    pub token: usize,
    /// Cosine of its hidden state to that of each image token, all pictures in order. `[M]`
    pub cosines: Vec<f32>,
}

/// What is drawn.
#[derive(Debug)]
pub struct FocusMap<'a> {
    /// The prompt as it was given.
    pub prompt: &'a str,
    /// At least one.
    pub pictures: &'a [Picture],
    /// Text of each generated token. `[G]`
    pub texts: &'a [String],
    /// Visual focus (equation 4) of each generated token. `[G]`
    pub focus: &'a [f32],
    /// At most `PANELS`.
    pub panels: &'a [Panel],
}

/// How a focus map is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapFormat {
    /// Pixels, with the fonts that this machine has.
    Png,
    /// A drawing; whatever shows it draws the text with its own fonts.
    Svg,
    /// The drawing in a page.
    Html,
}

impl MapFormat {
    /// The format that the name of a file says: `.svg`, `.html`, and `.png` or none for pixels.
    ///
    /// # Errors
    /// Another ending, with what there is.
    pub fn of(path: &Path) -> Result<Self, String> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            None | Some("png") => Ok(Self::Png),
            Some("svg") => Ok(Self::Svg),
            Some("html" | "htm") => Ok(Self::Html),
            Some(other) => Err(format!("a focus map is a .png, .svg or .html file, not .{other}")),
        }
    }
}

/// A focus map as it is drawn.
#[derive(Debug)]
pub struct DrawnMap<'a> {
    svg: String,
    missing: BTreeSet<char>,
    fonts: &'a Fonts,
}

impl DrawnMap<'_> {
    /// Its characters that no font of this machine has: boxes among the pixels.
    pub fn missing(&self) -> &BTreeSet<char> {
        &self.missing
    }

    /// The pixels, with fonts of this machine.
    ///
    /// # Errors
    /// A drawing that takes more memory than there is.
    pub fn pixels(&self) -> Result<RgbImage, ImageError> {
        crate::raster::pixels(&self.svg, self.fonts)
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// As of [`DrawnMap::pixels`].
    pub fn file(&self, format: MapFormat) -> Result<Vec<u8>, ImageError> {
        match format {
            MapFormat::Png => data::image::png(&self.pixels()?),
            MapFormat::Svg => Ok(self.svg.clone().into_bytes()),
            MapFormat::Html => {
                let head = "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>Visual focus</title>\n";
                Ok(format!("{head}{}", self.svg).into_bytes())
            }
        }
    }
}

/// The tokens of highest focus, the highest first and the earlier of two equals first.
pub fn highest(focus: &[f32]) -> Vec<usize> {
    top_tokens(focus, PANELS)
}

const MARGIN: u32 = 24;
/// Width of one of the three columns, and the largest height of a panel's pictures.
const COLUMN: u32 = 380;
const WIDTH: u32 = 3 * COLUMN + 4 * MARGIN;
/// Enlargement of small pictures stops here.
const MAX_ZOOM: u32 = 16;
const LINE: u32 = 22;
/// Font sizes of the title and of most text, in pixels.
const TITLE: u32 = 24;
const TEXT: u32 = 16;
/// Height of a token's box and distance between rows of them.
const BOX: u32 = 24;
const ROW: u32 = 34;
/// Height of the notes.
const NOTES: u32 = 214;
/// Longer responses are cut in the picture, which would be too tall to open.
const MAX_TOKENS: usize = 2000;
/// Rows of tokens, for the same reason: a token may end its row.
const MAX_ROWS: u32 = 300;
/// Characters of a token that are shown, and the width in pixels that they may take.
const MAX_CHARS: usize = 28;
const MAX_WIDTH: f64 = 448.0;
/// Lines of the prompt, and characters of it that are looked at.
const PROMPT_LINES: usize = 3;
const PROMPT_CHARS: usize = 1000;

/// How the pictures of a prompt are laid into one panel.
struct Arrangement {
    /// Pictures of a row.
    columns: usize,
    /// Size of each cell, in pixels of the sheet.
    cell: [u32; 2],
    /// Size of each picture on the sheet.
    sizes: Vec<[u32; 2]>,
}

/// Between pictures of one panel.
const GAP: u32 = 6;

impl Arrangement {
    /// The number of columns that shows the pictures largest.
    fn new(pictures: &[Picture]) -> Self {
        let width = pictures.iter().map(|p| p.pixels.width()).max().unwrap_or(1);
        let height = pictures.iter().map(|p| p.pixels.height()).max().unwrap_or(1);
        let zoom = |columns: usize| {
            let rows = pictures.len().div_ceil(columns) as u32;
            let columns = columns as u32;
            let across = COLUMN.saturating_sub(GAP * (columns - 1)) as f64 / (columns * width) as f64;
            let down = COLUMN.saturating_sub(GAP * (rows - 1)) as f64 / (rows * height) as f64;
            across.min(down)
        };
        let columns = (1..=pictures.len()).max_by(|&a, &b| zoom(a).total_cmp(&zoom(b))).unwrap_or(1);
        // Whole factors keep the pixels of a small picture square.
        let factor = zoom(columns);
        let factor = if factor >= 1.0 { factor.floor().min(MAX_ZOOM as f64) } else { factor };
        let scaled = |side: u32| ((side as f64 * factor) as u32).max(1);
        let sizes = pictures.iter().map(|p| [scaled(p.pixels.width()), scaled(p.pixels.height())]).collect();
        Self { columns, cell: [scaled(width), scaled(height)], sizes }
    }

    fn width(&self) -> u32 {
        let columns = self.columns as u32;
        columns * self.cell[0] + columns.saturating_sub(1) * GAP
    }

    fn height(&self) -> u32 {
        let rows = self.sizes.len().div_ceil(self.columns) as u32;
        rows * self.cell[1] + rows.saturating_sub(1) * GAP
    }

    /// Draws the pictures, under heat if there are shares (one per image token, all pictures in order).
    fn draw(
        &self,
        sheet: &mut Sheet,
        [x, y]: [u32; 2],
        pictures: &[Picture],
        shares: Option<&[f32]>,
    ) -> Result<(), ImageError> {
        let mut first = 0;
        for (k, (picture, [w, h])) in pictures.iter().zip(&self.sizes).enumerate() {
            let enlarged = *w >= picture.pixels.width();
            let filter = if enlarged { FilterType::Nearest } else { FilterType::Triangle };
            let mut pixels = resize(&picture.pixels, *w, *h, filter);
            let [rows, columns] = picture.tokens;
            if let Some(shares) = shares.and_then(|s| s.get(first..first + rows * columns)) {
                lay_heat(&mut pixels, shares, rows, columns);
            }
            first += rows * columns;
            let left = x + (k % self.columns) as u32 * (self.cell[0] + GAP);
            let top = y + (k / self.columns) as u32 * (self.cell[1] + GAP);
            sheet.picture(left, top, &pixels, enlarged)?;
            sheet.frame(left, top, *w, *h, 1, FAINT);
        }
        Ok(())
    }
}

/// Blends each image token's colour over its part of the picture, which is greyed so that the only colour is the heat.
fn lay_heat(pixels: &mut RgbImage, shares: &[f32], rows: usize, columns: usize) {
    let (w, h) = (pixels.width() as usize, pixels.height() as usize);
    for (x, y, pixel) in pixels.enumerate_pixels_mut() {
        let cell = |v: u32, cells: usize, side: usize| (v as usize * cells / side).min(cells - 1);
        let (row, column) = (cell(y, rows, h), cell(x, columns, w));
        let [r, g, b] = pixel.0.map(f32::from);
        let grey = 0.299 * r + 0.587 * g + 0.114 * b;
        let colour = heat(shares[row * columns + column]);
        *pixel = Rgb(colour.0.map(|c| (0.6 * f32::from(c) + 0.4 * grey).round() as u8));
    }
}

impl FocusMap<'_> {
    /// Draws everything on one sheet of fixed width.
    ///
    /// # Errors
    /// A picture without pixels.
    pub fn draw<'f>(&self, fonts: &'f Fonts) -> Result<DrawnMap<'f>, ImageError> {
        let arrangement = Arrangement::new(self.pictures);
        let prompt = self.prompt_lines(fonts);
        let top = MARGIN + 40 + prompt.len() as u32 * LINE + 22;
        // Title, pictures, legend, and the space below; flat pictures leave room for the notes.
        let panel_height = (LINE + arrangement.height() + 12 + 18).max(NOTES) + 26;
        let rows = (2 + self.panels.len()).div_ceil(3) as u32;
        let tokens_top = top + rows * panel_height;
        let (boxes, below) = self.boxes(tokens_top + 62, fonts);
        let mut sheet = Sheet::new(WIDTH, below + MARGIN, fonts);

        sheet.text(MARGIN, MARGIN, TITLE, INK, "Visual focus");
        for (k, line) in prompt.iter().enumerate() {
            sheet.text(MARGIN, MARGIN + 40 + k as u32 * LINE, TEXT, FAINT, line);
        }
        let place = |k: usize| [MARGIN + (k % 3) as u32 * (COLUMN + MARGIN), top + (k / 3) as u32 * panel_height];
        let [x, y] = place(0);
        sheet.text(x, y, TEXT, INK, "as the model sees it");
        arrangement.draw(&mut sheet, [x, y + LINE], self.pictures, None)?;
        for (k, panel) in self.panels.iter().enumerate() {
            self.panel(&mut sheet, fonts, &arrangement, place(k + 1), panel)?;
        }
        self.notes(&mut sheet, fonts, place(self.panels.len() + 1));
        self.tokens(&mut sheet, &boxes, tokens_top);
        if self.texts.len() > boxes.len() {
            let text = format!("{} more tokens are not drawn", self.texts.len() - boxes.len());
            sheet.text(MARGIN, below - LINE, TEXT, FAINT, &text);
        }
        let (svg, missing) = sheet.finish();
        Ok(DrawnMap { svg, missing, fonts })
    }

    /// The prompt in at most three lines.
    fn prompt_lines(&self, fonts: &Fonts) -> Vec<String> {
        let (size, most) = (f64::from(TEXT), f64::from(WIDTH - 2 * MARGIN));
        let mut lines = fonts.wrap(&printable(self.prompt, PROMPT_CHARS), size, most);
        if lines.len() > PROMPT_LINES {
            lines.truncate(PROMPT_LINES);
            if let Some(last) = lines.last_mut() {
                *last = format!("{}…", fonts.cut(last, size, most - fonts.width("…", size)).trim_end_matches('…'));
            }
        }
        lines
    }

    fn panel(
        &self,
        sheet: &mut Sheet,
        fonts: &Fonts,
        arrangement: &Arrangement,
        [x, y]: [u32; 2],
        panel: &Panel,
    ) -> Result<(), ImageError> {
        let (text, focus) = (&self.texts[panel.token], self.focus[panel.token]);
        let (before, value) = (format!("#{} \"", panel.token + 1), format!("focus {focus:.3}"));
        let size = f64::from(TEXT);
        let taken = fonts.width(&before, size) + fonts.width("\"", size) + fonts.width(&value, f64::from(SMALL)) + 8.0;
        let text = fonts.cut(&printable(text, MAX_CHARS), size, f64::from(COLUMN) - taken);
        let width = sheet.text(x, y, TEXT, INK, &format!("{before}{text}\""));
        sheet.text(x + width + 8, y + 4, SMALL, FAINT, &value);
        let scale = HeatScale::of(&panel.cosines);
        let shares: Vec<f32> = panel.cosines.iter().map(|&c| scale.share(c)).collect();
        arrangement.draw(sheet, [x, y + LINE], self.pictures, Some(&shares))?;
        // As wide as the pictures, but never so narrow that the colours vanish.
        let width = arrangement.width().clamp(200, COLUMN);
        sheet.legend(x, y + LINE + arrangement.height() + 10, width, scale);
        Ok(())
    }

    /// How to read the sheet, and the response in numbers.
    fn notes(&self, sheet: &mut Sheet, fonts: &Fonts, [x, y]: [u32; 2]) {
        let scale = HeatScale::of(self.focus);
        let mean = self.focus.iter().sum::<f32>() / self.focus.len().max(1) as f32;
        let late_early = vgpo::metrics::late_early_ratio(self.focus, 2).map_or("-".into(), |r| format!("{r:.3}"));
        let images: usize = self.pictures.iter().map(|p| p.tokens[0] * p.tokens[1]).sum();
        let figures = [
            ("image tokens", images.to_string()),
            ("generated tokens", self.texts.len().to_string()),
            ("visual focus", format!("{mean:.3} mean")),
            ("", format!("{:.3} to {:.3}", scale.low, scale.high)),
            ("late/early ratio", late_early),
        ];
        sheet.text(x, y, TEXT, INK, "in numbers");
        let mut at = y + LINE + 6;
        for (name, value) in figures {
            sheet.text(x, at, SMALL, INK, name);
            sheet.text(x + 120, at, SMALL, INK, &value);
            at += 16;
        }
        let text = "Panels: the tokens of highest focus, with number, text and focus. Colour: cosine between the token's \
                    hidden state and that of each image token; each panel has its own range. Focus: (cosine to the mean image \
                    token + 1) / 2.";
        at += 8;
        for line in fonts.wrap(text, f64::from(SMALL), f64::from(COLUMN)) {
            sheet.text(x, at, SMALL, FAINT, &line);
            at += 14;
        }
    }

    /// Where each token's box lies when the first row begins at `top`, and where the last row ends.
    fn boxes(&self, top: u32, fonts: &Fonts) -> (Vec<TokenBox>, u32) {
        let (mut x, mut row) = (MARGIN, 0);
        let mut boxes = Vec::new();
        let size = f64::from(TEXT);
        for (index, text) in self.texts.iter().take(MAX_TOKENS).enumerate() {
            let shown = fonts.cut(&printable(text, MAX_CHARS), size, MAX_WIDTH);
            let width = (fonts.width(&shown, size).ceil() as u32).max(TEXT / 2) + 8;
            if x + width > WIDTH - MARGIN {
                (x, row) = (MARGIN, row + 1);
            }
            if row == MAX_ROWS {
                break;
            }
            boxes.push(TokenBox { index, text: shown, x, y: top + row * ROW, width });
            x += width + 8;
            if text.contains('\n') {
                (x, row) = (MARGIN, row + 1);
            }
        }
        let more = if self.texts.len() > boxes.len() { LINE + 8 } else { 0 };
        (boxes, top + (row + 1).min(MAX_ROWS) * ROW + more)
    }

    /// The generated tokens, each in its colour.
    fn tokens(&self, sheet: &mut Sheet, boxes: &[TokenBox], top: u32) {
        let focus = HeatScale::of(self.focus);
        sheet.text(MARGIN, top, TEXT, INK, "Generated tokens, coloured by visual focus");
        sheet.legend(MARGIN, top + 28, 420, focus);
        for token in boxes {
            let index = token.index;
            let colour = heat(focus.share(self.focus.get(index).copied().unwrap_or(focus.low)));
            sheet.rect(token.x, token.y, token.width, BOX, colour);
            let [r, g, b] = colour.0.map(f32::from);
            let dark = 0.299 * r + 0.587 * g + 0.114 * b < 130.0;
            let ink = if dark { Rgb([255, 255, 255]) } else { INK };
            sheet.text(token.x + 4, token.y + 4, TEXT, ink, &token.text);
            if self.panels.iter().any(|p| p.token == index) {
                sheet.frame(token.x, token.y, token.width, BOX, 3, INK);
            }
        }
    }
}

/// A token on the sheet.
struct TokenBox {
    index: usize,
    text: String,
    x: u32,
    y: u32,
    width: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_become_the_picture_again() {
        let mut state = 1u32;
        let image = RgbImage::from_fn(84, 56, |_, _| {
            Rgb([0; 3].map(|_: u8| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }))
        });
        // A picture of this size is not resized.
        let limits = ImageLimits { min_pixels: 1, ..ImageLimits::default() };
        let patches = data::image::process(&image, &limits).unwrap();
        let picture = Picture::from_patches(&patches, &limits);
        assert_eq!(picture.pixels, image);
        assert_eq!(picture.tokens, [2, 3]);
    }

    #[test]
    fn highest_focus_first() {
        assert_eq!(highest(&[0.1, 0.9, 0.5, 0.9, 0.2, 0.6]), [1, 3, 5, 2]);
        assert_eq!(highest(&[0.5]), [0]);
        assert!(highest(&[]).is_empty());
    }
}
