//! JPEG through libjpeg (the mozjpeg fork of libjpeg-turbo): its slow integer transform and its smooth chroma
//! upsampling are what Pillow uses, bit for bit. Pure Rust decoders round and interpolate otherwise: a quarter of the
//! values differ, by up to 4.

use std::cell::Cell;
use std::io::{BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, Decompress};

use super::RgbImage;
use crate::error::ImageError;

/// Width and height from the frame header.
pub(super) fn header_size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let cut = || ImageError::Decode("the JPEG file ends before its frame header".to_owned());
    let mut at = 2;
    loop {
        // A marker is 0xFF, repeated at will, and a code.
        while *bytes.get(at).ok_or_else(cut)? != 0xFF {
            at += 1;
        }
        while *bytes.get(at).ok_or_else(cut)? == 0xFF {
            at += 1;
        }
        let code = bytes[at];
        at += 1;
        match code {
            // Frame headers; C4, C8 and CC are tables that share the range.
            0xC0..=0xCF if !matches!(code, 0xC4 | 0xC8 | 0xCC) => {
                let frame = bytes.get(at + 3..at + 7).ok_or_else(cut)?;
                let height = u16::from_be_bytes([frame[0], frame[1]]);
                let width = u16::from_be_bytes([frame[2], frame[3]]);
                return Ok((width.into(), height.into()));
            }
            // Markers without a body.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            0xD9 | 0xDA => {
                return Err(ImageError::Decode("the JPEG file has no frame header".to_owned()));
            }
            _ => {
                let length = bytes.get(at..at + 2).ok_or_else(cut)?;
                at += usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}

/// Decodes to RGB; CMYK as Pillow converts it. `size` is that of the frame header.
pub(super) fn decode(bytes: &[u8], size: (u32, u32)) -> Result<RgbImage, ImageError> {
    let ran_dry = Cell::new(false);
    let source = JpegBytes { rest: bytes, ran_dry: &ran_dry };
    // libjpeg reports a fatal error by unwinding; no panic hook runs for it.
    let decoded = catch_unwind(AssertUnwindSafe(|| read(source, size)));
    if ran_dry.get() {
        return Err(ImageError::Decode("the JPEG file is truncated".to_owned()));
    }
    match decoded {
        Ok(Ok(image)) => Ok(image),
        Ok(Err(e)) => Err(ImageError::Decode(e.to_string())),
        Err(panic) => Err(ImageError::Decode(match panic.downcast_ref::<String>() {
            Some(message) => message.trim_start_matches("libjpeg fatal error: ").to_owned(),
            None => "libjpeg failed".to_owned(),
        })),
    }
}

fn read(source: JpegBytes<'_>, size: (u32, u32)) -> std::io::Result<RgbImage> {
    let decoder = Decompress::new_reader(source)?;
    let (width, height) = decoder.size();
    // What was checked against the limits must be what is decoded.
    if (width, height) != (size.0 as usize, size.1 as usize) {
        return Err(std::io::Error::other("the JPEG file has several sizes"));
    }
    let pixels = match decoder.color_space() {
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => {
            let mut started = decoder.to_colorspace(ColorSpace::JCS_CMYK)?;
            let cmyk: Vec<[u8; 4]> = started.read_scanlines()?;
            cmyk.into_iter().flat_map(cmyk_to_rgb).collect()
        }
        _ => decoder.rgb()?.read_scanlines::<u8>()?,
    };
    RgbImage::from_raw(width as u32, height as u32, pixels)
        .ok_or_else(|| std::io::Error::other("the JPEG file has fewer rows than its header states"))
}

/// Adobe stores ink inverted, and Pillow takes every CMYK JPEG for one of Adobe's; then Pillow's product rounded to
/// bytes.
fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    // Inverted twice: `k` is what is left of white, `255 - v` the ink.
    let white = u32::from(k);
    [c, m, y].map(|v| {
        let product = u32::from(255 - v) * white + 128;
        (white - (((product >> 8) + product) >> 8)) as u8
    })
}

/// The bytes, and whether more were wanted than there are: libjpeg would make up a grey rest.
struct JpegBytes<'a> {
    rest: &'a [u8],
    ran_dry: &'a Cell<bool>,
}

impl Read for JpegBytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.rest.read(buffer)
    }
}

impl BufRead for JpegBytes<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ran_dry.set(true);
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = &self.rest[amount.min(self.rest.len())..];
    }
}
