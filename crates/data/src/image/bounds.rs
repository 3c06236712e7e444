//! What decoding a picture may cost. A file of some bytes can ask for any amount of memory and time: a frame larger
//! than its screen, floats of four bytes per channel, a profile that inflates without end, a thousand scans over all
//! pixels.
//!
//! Everything follows from one number, the pixels of a picture: the decoder's own buffers have [`BYTES_A_PIXEL`] for
//! each of them, a PNG has no more than that for each pixel it states, and no file is read more than twice over.

use std::io::{BufRead, Cursor, Error, Read, Result, Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::image::{ImageFormat, Limits};
use guard::limits;

use crate::error::ImageError;

/// A decoder's buffers, beside the three bytes of the picture itself: four channels of 16 bits.
const BYTES_A_PIXEL: u64 = 8;
/// Profiles, texts and previews of one picture; also what an inflated profile may take.
const METADATA_BYTES: u64 = 16 << 20;
/// Pictures with more pixels are decoded one at a time, whatever the number of threads.
const LARGE: u64 = 1 << 23;

fn refuse<T>(reason: String) -> std::result::Result<T, ImageError> {
    Err(ImageError::Decode(format!("{reason}; {}", limits().decoded_pixels.raise())))
}

/// Limits for reading a header.
pub(super) fn header_limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(METADATA_BYTES);
    limits
}

/// Limits for a decoder, whose whole budget follows from the pixel limit.
pub(super) fn decoder_limits(format: ImageFormat, max_decoded_pixels: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(match format {
        // There the limit is only for what is no pixel.
        ImageFormat::Png => METADATA_BYTES,
        _ => BYTES_A_PIXEL.saturating_mul(max_decoded_pixels).saturating_add(METADATA_BYTES),
    });
    limits
}

/// Waits until no other large picture is being decoded.
pub(super) fn turn(width: u32, height: u32) -> Option<MutexGuard<'static, ()>> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let large = u64::from(width) * u64::from(height) > LARGE;
    large.then(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Refuses a PNG that is longer than its pixels can be: all of its data is inflated. Other formats may have more
/// pictures after the first, which are not looked at.
pub(super) fn check_length(
    format: ImageFormat,
    bytes: &[u8],
    width: u32,
    height: u32,
) -> std::result::Result<(), ImageError> {
    let pixels = u64::from(width) * u64::from(height);
    if format != ImageFormat::Png
        || bytes.len() as u64 <= pixels.saturating_mul(BYTES_A_PIXEL).saturating_add(METADATA_BYTES)
    {
        return Ok(());
    }
    Err(ImageError::Decode(format!(
        "{} bytes for {width}x{height} pixels are more than such a picture has (decompression bomb?)",
        bytes.len()
    )))
}

/// Refuses a picture whose decoder would need more than its budget; `decoded` are the bytes of all pixels in the file's
/// own format.
pub(super) fn check_buffers(
    format: ImageFormat,
    bytes: &[u8],
    decoded: u64,
    max_decoded_pixels: u64,
) -> std::result::Result<(), ImageError> {
    // Buffers that exist at the same time, each as large as the decoded picture.
    let buffers = match format {
        ImageFormat::Tiff | ImageFormat::Gif => 2,
        // VP8X with the animation flag: canvas and frame.
        ImageFormat::WebP if bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|f| f & 2 != 0) => 3,
        ImageFormat::WebP => 2,
        _ => 1,
    };
    let needed = decoded.saturating_mul(buffers);
    let budget = BYTES_A_PIXEL.saturating_mul(max_decoded_pixels);
    match needed <= budget {
        true => Ok(()),
        false => refuse(format!("decoding takes {needed} bytes, and the limit is {budget} (decompression bomb?)")),
    }
}

/// Refuses a JPEG whose scans go over all pixels more often than pays, or whose coefficients do not fit the budget.
pub(super) fn check_jpeg(
    bytes: &[u8],
    (width, height): (u32, u32),
    max_decoded_pixels: u64,
) -> std::result::Result<(), ImageError> {
    let pixels = u64::from(width) * u64::from(height);
    let (scans, components) = jpeg_scans(bytes);
    let passes = limits().picture_passes;
    if scans > passes.value && pixels.saturating_mul(scans) > passes.value.saturating_mul(max_decoded_pixels) {
        return Err(ImageError::Decode(format!(
            "{scans} scans over {width}x{height} pixels are more work than the limit of {} passes over {max_decoded_pixels} pixels \
             (decompression bomb?); {}",
            passes.value,
            passes.raise()
        )));
    }
    // Coefficients of two bytes are kept where a component comes in more than one scan; four channels are read before
    // they are converted.
    let kept = if scans > 1 { 2 * components } else { 0 } + if components == 4 { 4 } else { 0 };
    let (needed, budget) = (pixels.saturating_mul(kept), BYTES_A_PIXEL.saturating_mul(max_decoded_pixels));
    match needed <= budget {
        true => Ok(()),
        false => refuse(format!("decoding takes {needed} bytes, and the limit is {budget} (decompression bomb?)")),
    }
}

/// Scans, and components of the frame.
fn jpeg_scans(bytes: &[u8]) -> (u64, u64) {
    let (mut scans, mut components, mut at) = (0, 0, 2);
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == 0xFF)) {
        let code = bytes.get(at + found + 1).copied().unwrap_or(0xD9);
        at += found + 1;
        match code {
            0xC0..=0xCF if !matches!(code, 0xC4 | 0xC8 | 0xCC) => {
                components = components.max(bytes.get(at + 8).copied().map_or(0, u64::from));
                at += 1;
            }
            // What follows is another picture.
            0xD9 => break,
            0xDA => {
                scans += 1;
                at += 1;
            }
            // The body of a table or comment is skipped; stuffed bytes, fill bytes and restarts have none.
            0xC4 | 0xDB..=0xFE => {
                let length = bytes.get(at + 1..at + 3).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
                at += 1 + length;
            }
            _ => {}
        }
    }
    (scans, components)
}

/// The bytes of a file, which may be read about twice in all: a directory that names the same data a million times is
/// refused.
pub(super) struct Metered<'a> {
    bytes: Cursor<&'a [u8]>,
    left: u64,
}

impl<'a> Metered<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: Cursor::new(bytes), left: 2 * bytes.len() as u64 + (1 << 16) }
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Error::other("the file is read over and over (decompression bomb?)")),
        }
    }
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = self.bytes.read(buffer)?;
        self.charge(read)?;
        Ok(read)
    }
}

impl BufRead for Metered<'_> {
    fn fill_buf(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Err(Error::other("the file is read over and over (decompression bomb?)"));
        }
        self.bytes.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount as u64);
        self.bytes.consume(amount);
    }
}

impl Seek for Metered<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.bytes.seek(to)
    }
}
