//! Pictures of the toy world, encoded as PNG so that the production decoder reads them.

use image::{ExtendedColorType, ImageEncoder, RgbImage};

use super::digits;

/// Side of a cell in pixels: one merged vision token of Qwen2.5-VL.
pub(crate) const CELL: usize = 28;
/// Each pixel of a digit becomes this many.
const ZOOM: usize = 3;

/// A colour with its name in problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    /// Lower-case word.
    pub name: &'static str,
    /// Red, green, blue.
    pub rgb: [u8; 3],
}

/// The colours of shapes and bars.
pub const COLOURS: [Colour; 6] = [
    Colour { name: "red", rgb: [214, 39, 40] },
    Colour { name: "green", rgb: [44, 160, 44] },
    Colour { name: "blue", rgb: [31, 81, 200] },
    Colour { name: "yellow", rgb: [235, 200, 20] },
    Colour { name: "purple", rgb: [148, 60, 189] },
    Colour { name: "black", rgb: [20, 20, 20] },
];

/// The shapes of counting problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A disc.
    Circle,
    /// A filled square.
    Square,
    /// A filled triangle, point up.
    Triangle,
}

/// All shapes.
pub(crate) const SHAPES: [Shape; 3] = [Shape::Circle, Shape::Square, Shape::Triangle];

impl Shape {
    /// Plural, as problems write it.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Circle => "circles",
            Self::Square => "squares",
            Self::Triangle => "triangles",
        }
    }

    fn covers(self, dx: f32, dy: f32, radius: f32) -> bool {
        match self {
            Self::Circle => dx * dx + dy * dy <= radius * radius,
            Self::Square => dx.abs().max(dy.abs()) <= radius * 0.9,
            Self::Triangle => dy.abs() <= radius && dx.abs() <= (dy + radius) / 2.0,
        }
    }
}

/// A grid of digits, dark on white; each is 24 pixels in the middle of a 28-pixel cell. PNG, grey.
pub(crate) fn digit_grid(cells: &[usize], cols: usize) -> Vec<u8> {
    let rows = cells.len() / cols.max(1);
    let (width, height) = (cols * CELL, rows * CELL);
    let mut grey = vec![255u8; width * height];
    let margin = (CELL - digits::SIDE * ZOOM) / 2;
    for (k, &digit) in cells.iter().enumerate() {
        let (x0, y0) = (k % cols * CELL + margin, k / cols * CELL + margin);
        for (i, &ink) in digits::pixels(digit).iter().enumerate() {
            let value = 255 - (ink as u32 * 255 / 16) as u8;
            for dy in 0..ZOOM {
                let row = (y0 + i / digits::SIDE * ZOOM + dy) * width + x0 + i % digits::SIDE * ZOOM;
                grey[row..row + ZOOM].fill(value);
            }
        }
    }
    png(&grey, width, height, ExtendedColorType::L8)
}

/// A shape in a cell: what, in which colour, how large, how far off the middle (pixels).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    /// What.
    pub shape: Shape,
    /// Index into [`COLOURS`].
    pub colour: usize,
    /// Half its size.
    pub radius: f32,
    /// Offset from the middle of the cell.
    pub offset: (f32, f32),
}

/// A grid of shapes on white; `None` is an empty cell. PNG, RGB.
pub(crate) fn shape_grid(cells: &[Option<Placed>], cols: usize) -> Vec<u8> {
    let rows = cells.len() / cols.max(1);
    let mut picture = white(cols * CELL, rows * CELL);
    for (k, cell) in cells.iter().enumerate() {
        let Some(placed) = cell else { continue };
        let (x0, y0) = (k % cols * CELL, k / cols * CELL);
        for y in 0..CELL {
            for x in 0..CELL {
                let middle = (CELL as f32 - 1.0) / 2.0;
                let (dx, dy) = (x as f32 - middle - placed.offset.0, y as f32 - middle - placed.offset.1);
                if placed.shape.covers(dx, dy, placed.radius) {
                    picture.put_pixel((x0 + x) as u32, (y0 + y) as u32, image::Rgb(COLOURS[placed.colour].rgb));
                }
            }
        }
    }
    png(picture.as_raw(), cols * CELL, rows * CELL, ExtendedColorType::Rgb8)
}

/// Highest value of a bar.
pub(crate) const MAX_BAR: u32 = 9;
/// Pixels of one unit of a bar.
const UNIT: usize = 11;

/// A bar chart, one 28-pixel column a bar, with a grey line at each unit: `(colour, value)`. PNG, RGB.
pub(crate) fn bar_chart(bars: &[(usize, u32)]) -> Vec<u8> {
    let (width, height) = (bars.len() * CELL, 4 * CELL);
    let mut picture = white(width, height);
    let base = height - 6;
    for unit in 0..=MAX_BAR as usize {
        let shade = if unit == 0 { 60 } else { 205 };
        for x in 0..width {
            picture.put_pixel(x as u32, (base - unit * UNIT) as u32, image::Rgb([shade; 3]));
        }
    }
    for (k, &(colour, value)) in bars.iter().enumerate() {
        for y in base - value as usize * UNIT..base {
            for x in k * CELL + 6..(k + 1) * CELL - 6 {
                picture.put_pixel(x as u32, y as u32, image::Rgb(COLOURS[colour].rgb));
            }
        }
    }
    png(picture.as_raw(), width, height, ExtendedColorType::Rgb8)
}

fn white(width: usize, height: usize) -> RgbImage {
    RgbImage::from_pixel(width as u32, height as u32, image::Rgb([255; 3]))
}

fn png(pixels: &[u8], width: usize, height: usize, kind: ExtendedColorType) -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut out);
    // Writing to memory a buffer of the stated size cannot fail.
    let written = encoder.write_image(pixels, width as u32, height as u32, kind);
    debug_assert!(written.is_ok(), "{written:?}");
    out
}
