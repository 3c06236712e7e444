//! Encoded bytes -> RGB, with the values that PIL's `convert("RGB")` gives.

use ::image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::bounds::{self, Metered};
use super::{ImageLimits, RgbImage, jpeg};
use crate::error::ImageError;

/// Width and height from the header; no pixel is decoded.
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

/// [`decode_within`] the default limit of [`ImageLimits`].
///
/// # Errors
/// As [`decode_within`].
pub fn decode(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode_within(bytes, ImageLimits::default().max_decoded_pixels)
}

/// Decodes a PNG, JPEG, WebP, GIF, BMP or TIFF image; of an animation the first frame. Alpha is dropped, not blended; EXIF
/// orientation is not applied; 16-bit grey is clipped at 255, which is what PIL does and Qwen's processor sees.
///
/// # Errors
/// Bytes that are no image, damaged images, more than `max_decoded_pixels` pixels, or a decoder that
/// would take more memory or time than so many pixels are worth.
pub fn decode_within(bytes: &[u8], max_decoded_pixels: u64) -> Result<RgbImage, ImageError> {
    let (width, height) = header_size(bytes)?;
    if width as u64 * height as u64 > max_decoded_pixels {
        return Err(ImageError::TooLarge { width, height, limit: max_decoded_pixels });
    }
    let format = format_of(bytes)?;
    bounds::check_length(format, bytes, width, height)?;
    let _turn = bounds::turn(width, height);
    if format == ImageFormat::Jpeg {
        bounds::check_jpeg(bytes, (width, height), max_decoded_pixels)?;
        let image = jpeg::decode(bytes, (width, height))?;
        return match image.dimensions() == (width, height) {
            true => Ok(image),
            false => Err(ImageError::Decode("the JPEG file has several sizes".to_owned())),
        };
    }
    caught(|| {
        let mut reader = ImageReader::with_format(Metered::new(bytes), format);
        reader.limits(bounds::decoder_limits(format, max_decoded_pixels));
        let decoder = reader.into_decoder().map_err(fail)?;
        bounds::check_buffers(format, bytes, decoder.total_bytes(), max_decoded_pixels)?;
        let grey16 = decoder.original_color_type() == ::image::ExtendedColorType::L16;
        let image = DynamicImage::from_decoder(decoder).map_err(fail)?;
        Ok(to_rgb(image, grey16))
    })
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
    ::image::guess_format(bytes).map_err(|_| {
        let head: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
        ImageError::Format(format!("it starts with {}", head.join(" ")))
    })
}

/// `convert("RGB")`. `grey16`: the file is 16-bit grey, whose values PIL clips; other 16-bit files it reads by the high byte.
fn to_rgb(image: DynamicImage, grey16: bool) -> RgbImage {
    let (w, h) = (image.width(), image.height());
    let high = |v: u16| (v >> 8) as u8;
    let grey = |v: u16| if grey16 { v.min(255) as u8 } else { high(v) };
    let pixels: Vec<u8> = match image {
        DynamicImage::ImageRgb8(image) => return image,
        DynamicImage::ImageLuma8(image) => image.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
        DynamicImage::ImageRgba8(image) => image.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect(),
        DynamicImage::ImageLuma16(image) => image.pixels().flat_map(|p| [grey(p.0[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => image.pixels().flat_map(|p| [grey(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.pixels().flat_map(|p| p.0.map(high)).collect(),
        DynamicImage::ImageRgba16(image) => {
            image.pixels().flat_map(|p| [high(p.0[0]), high(p.0[1]), high(p.0[2])]).collect()
        }
        other => return other.into_rgb8(),
    };
    // Three bytes a pixel by construction.
    RgbImage::from_raw(w, h, pixels).unwrap_or_default()
}
