//! Transparency: decoded pixels -> RGB, with the values that PIL gives.

use ::image::DynamicImage;
use serde::{Deserialize, Serialize};

use super::RgbImage;

/// What becomes of a picture's transparency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpha {
    /// The picture is laid on white, as transformers' `convert_to_rgb` does with a picture that is handed to its
    /// processor: black lines on a clear ground stay black lines on white.
    #[default]
    White,
    /// The alpha channel is dropped, as PIL's `convert("RGB")` does and with it EasyR1: what stands under clear
    /// pixels shows, which is often black.
    Drop,
}

impl Alpha {
    /// The name in a configuration and on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::White => "white",
            Self::Drop => "drop",
        }
    }
}

impl std::str::FromStr for Alpha {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::White, Self::Drop]
            .into_iter()
            .find(|a| a.name() == name)
            .ok_or_else(|| format!("{name:?} is neither \"white\" nor \"drop\""))
    }
}

/// What a file says about its transparency, beside the pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transparency {
    /// An alpha channel is what it is called.
    Channel,
    /// The colours are multiplied with the alpha channel already (TIFF, associated alpha).
    Premultiplied,
    /// The fourth channel is no alpha channel (TIFF, unspecified extra sample).
    Unspecified,
    /// Pixels of this one colour are clear, whatever an alpha channel says (PNG, grey or RGB with tRNS).
    Colour([u8; 3]),
    /// Clear pixels have this colour, and count as clear or do not (GIF).
    Uncovered {
        /// Of those pixels.
        colour: [u8; 3],
        /// Whether the file has a transparent colour.
        clear: bool,
    },
}

/// `convert("RGB")`, with white under what is clear if `alpha` says so. `grey16`: the file is 16-bit grey, whose
/// values PIL clips; other 16-bit files it reads by the high byte.
pub(super) fn to_rgb(image: DynamicImage, grey16: bool, transparency: Transparency, alpha: Alpha) -> RgbImage {
    let (w, h) = (image.width(), image.height());
    let high = |v: u16| (v >> 8) as u8;
    let grey = |v: u16| if grey16 { v.min(255) as u8 } else { high(v) };
    let pixel = |[r, g, b, a]: [u8; 4]| flatten([r, g, b], a, transparency, alpha);
    let opaque = |rgb: [u8; 3]| flatten(rgb, 255, transparency, alpha);
    let pixels: Vec<u8> = match image {
        DynamicImage::ImageRgb8(image) if !matches!(transparency, Transparency::Colour(_)) => return image,
        DynamicImage::ImageRgb8(image) => image.pixels().flat_map(|p| opaque(p.0)).collect(),
        DynamicImage::ImageLuma8(image) => image.pixels().flat_map(|p| opaque([p.0[0]; 3])).collect(),
        DynamicImage::ImageLumaA8(image) => {
            image.pixels().flat_map(|p| pixel([p.0[0], p.0[0], p.0[0], p.0[1]])).collect()
        }
        DynamicImage::ImageRgba8(image) => image.pixels().flat_map(|p| pixel(p.0)).collect(),
        DynamicImage::ImageLuma16(image) => image.pixels().flat_map(|p| opaque([grey(p.0[0]); 3])).collect(),
        DynamicImage::ImageLumaA16(image) => {
            let pixels = image.pixels().map(|p| (grey(p.0[0]), high(p.0[1])));
            pixels.flat_map(|(v, a)| pixel([v, v, v, a])).collect()
        }
        DynamicImage::ImageRgb16(image) => image.pixels().flat_map(|p| opaque(p.0.map(high))).collect(),
        DynamicImage::ImageRgba16(image) => image.pixels().flat_map(|p| pixel(p.0.map(high))).collect(),
        other => return other.into_rgb8(),
    };
    // Three bytes per pixel by construction.
    RgbImage::from_raw(w, h, pixels).unwrap_or_default()
}

fn flatten(rgb: [u8; 3], a: u8, transparency: Transparency, alpha: Alpha) -> [u8; 3] {
    match (transparency, alpha) {
        (Transparency::Colour(clear), Alpha::White) if rgb == clear => [255; 3],
        (Transparency::Colour(_) | Transparency::Unspecified, _) | (Transparency::Channel, Alpha::Drop) => rgb,
        (Transparency::Uncovered { .. }, _) if a > 0 => rgb,
        (Transparency::Uncovered { clear: true, .. }, Alpha::White) => [255; 3],
        (Transparency::Uncovered { colour, .. }, _) => colour,
        (Transparency::Channel, Alpha::White) => on_white(rgb, a),
        (Transparency::Premultiplied, Alpha::White) => on_white(divided(rgb, a), a),
        (Transparency::Premultiplied, Alpha::Drop) => divided(rgb, a),
    }
}

/// PIL's `alpha_composite` over opaque white: the division by 255 is rounded in fixed point with 7 bits after the
/// point.
fn on_white(rgb: [u8; 3], a: u8) -> [u8; 3] {
    let (a, clear) = (u32::from(a), 255 - u32::from(a));
    rgb.map(|v| {
        let sum = ((u32::from(v) * a + 255 * clear) << 7) + (0x80 << 7);
        ((((sum >> 8) + sum) >> 8) >> 7) as u8
    })
}

/// PIL's reading of colours that are multiplied with alpha.
fn divided(rgb: [u8; 3], a: u8) -> [u8; 3] {
    match a {
        0 | 255 => rgb,
        a => rgb.map(|v| (u32::from(v) * 255 / u32::from(a)).min(255) as u8),
    }
}
