//! Encoded bytes -> RGB, with the values that Pillow gives.

use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::alpha::{Transparency, to_rgb};
use super::bounds::{self, Metered};
use super::{ExifOrientation, ImageLimits, RgbImage, exif, gif, jpeg, png};
use crate::error::ImageError;

/// Width and height from the header, as stored; no pixel is decoded.
///
/// # Errors
/// Bytes that are no image, or a header that makes no sense.
pub fn header_size(bytes: &[u8]) -> Result<(u32, u32), ImageError> {
    let (width, height) = match format_of(bytes)? {
        ImageFormat::Jpeg => jpeg::header_size(bytes)?,
        format => {
            let mut reader = ImageReader::with_format(Metered::new(bytes), format);
            reader.limits(bounds::header_limits());
            caught(|| reader.into_dimensions().map_err(fail))?
        }
    };
    if width == 0 || height == 0 {
        return Err(ImageError::NoPixels { width, height });
    }
    Ok((width, height))
}

/// Width and height of the picture that [`decode_with`] gives, from header and metadata; no pixel is decoded.
///
/// # Errors
/// As [`header_size`].
pub fn upright_size(bytes: &[u8], setting: ExifOrientation) -> Result<(u32, u32), ImageError> {
    Ok(exif::orientation(bytes, format_of(bytes)?, setting).size(header_size(bytes)?))
}

/// [`decode_with`] the default [`ImageLimits`].
///
/// # Errors
/// As [`decode_with`].
pub fn decode(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode_with(bytes, &ImageLimits::default())
}

/// [`decode_with`] the default [`ImageLimits`] and this limit.
///
/// # Errors
/// As [`decode_with`].
pub fn decode_within(bytes: &[u8], max_decoded_pixels: u64) -> Result<RgbImage, ImageError> {
    decode_with(bytes, &ImageLimits { max_decoded_pixels, ..ImageLimits::default() })
}

/// Decodes a PNG, JPEG, WebP, GIF, BMP or TIFF image; of an animation the first frame. What is clear becomes what
/// [`ImageLimits::alpha`] says, the picture is turned as [`ImageLimits::exif_orientation`] says; 16-bit grey is
/// clipped at 255, which is what PIL does and Qwen's processor sees.
///
/// # Errors
/// Bytes that are no image, damaged images, more than `max_decoded_pixels` pixels, or a decoder that would take more
/// memory or time than so many pixels are worth.
pub fn decode_with(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, ImageError> {
    let (width, height) = header_size(bytes)?;
    let limit = limits.max_decoded_pixels;
    if width as u64 * height as u64 > limit {
        return Err(ImageError::TooLarge { width, height, limit });
    }
    let format = format_of(bytes)?;
    bounds::check_length(format, bytes, width, height)?;
    let _turn = bounds::turn(width, height);
    let image = match format {
        ImageFormat::Jpeg => {
            bounds::check_jpeg(bytes, (width, height), limit)?;
            let image = jpeg::decode(bytes, (width, height))?;
            if image.dimensions() != (width, height) {
                return Err(ImageError::Decode("the JPEG file has several sizes".to_owned()));
            }
            image
        }
        _ => {
            let (image, grey16) = pixels(bytes, format, limit).or_else(|error| {
                // Sixteen bits of four channels, and the filter of each row.
                let most = (u64::from(width) * 8 + 16) * (u64::from(height) + 16);
                let whole = (format == ImageFormat::Png).then(|| png::mended(bytes, most)).flatten();
                whole.and_then(|bytes| pixels(&bytes, format, limit).ok()).ok_or(error)
            })?;
            let transparency = transparency(bytes, format);
            // Grey with a clear colour is decoded to grey with alpha.
            let grey16 = grey16 || matches!(transparency, Transparency::Colour(_));
            to_rgb(image, grey16, transparency, limits.alpha)
        }
    };
    Ok(exif::orientation(bytes, format, limits.exif_orientation).turn(image))
}

/// The pixels as they are stored, and whether they are 16-bit grey.
fn pixels(bytes: &[u8], format: ImageFormat, max_decoded_pixels: u64) -> Result<(DynamicImage, bool), ImageError> {
    caught(|| {
        let mut reader = ImageReader::with_format(Metered::new(bytes), format);
        reader.limits(bounds::decoder_limits(format, max_decoded_pixels));
        let decoder = reader.into_decoder().map_err(fail)?;
        bounds::check_buffers(format, bytes, decoder.total_bytes(), max_decoded_pixels)?;
        let grey16 = decoder.original_color_type() == ::image::ExtendedColorType::L16;
        Ok((DynamicImage::from_decoder(decoder).map_err(fail)?, grey16))
    })
}

/// What the file says about its transparency.
fn transparency(bytes: &[u8], format: ImageFormat) -> Transparency {
    match format {
        ImageFormat::Png => png::clear_colour(bytes).map_or(Transparency::Channel, Transparency::Colour),
        ImageFormat::Gif => gif::uncovered(bytes),
        ImageFormat::Tiff => match exif::extra_sample(bytes) {
            Some(0) => Transparency::Unspecified,
            Some(1) => Transparency::Premultiplied,
            _ => Transparency::Channel,
        },
        _ => Transparency::Channel,
    }
}

fn fail(error: ::image::ImageError) -> ImageError {
    ImageError::Decode(match error {
        ::image::ImageError::Limits(_) => {
            format!("{error} (decompression bomb?); {}", guard::limits().decoded_pixels.raise())
        }
        error => error.to_string(),
    })
}

/// A decoder that panics cannot decode the image.
fn caught<T>(work: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    guard::caught(work).map_err(ImageError::Decode)?
}

fn format_of(bytes: &[u8]) -> Result<ImageFormat, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    if crate::lfs::is_pointer(bytes) {
        return Err(ImageError::LfsPointer);
    }
    ::image::guess_format(bytes).map_err(|_| {
        let head: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
        ImageError::Format(format!("it starts with {}", head.join(" ")))
    })
}
