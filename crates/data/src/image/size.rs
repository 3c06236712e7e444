//! Sizes only: what a picture is resized to, found from its width and height.

use super::ImageLimits;
use crate::error::ImageError;

/// The resizing steps of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Width and height after EasyR1's `process_image`, where it changes them.
    pub first: Option<(u32, u32)>,
    /// Final width and height: multiples of `patch_size * merge_size`.
    pub last: (u32, u32),
}

/// The steps for a picture of `width` x `height`.
///
/// # Errors
/// No pixels, an aspect ratio above 200, or impossible limits.
pub fn plan(width: u32, height: u32, limits: &ImageLimits) -> Result<Plan, ImageError> {
    limits.validate()?;
    let (mut w, mut h) = (width, height);
    if limits.process_image && w > 0 && h > 0 {
        // Both tests, in this order: cutting to whole pixels after shrinking can fall below the lower limit.
        let area = |w: u32, h: u32| w as u64 * h as u64;
        let scaled = |limit: u64, w: u32, h: u32| {
            let factor = (limit as f64 / area(w, h) as f64).sqrt();
            ((w as f64 * factor) as u32, (h as f64 * factor) as u32)
        };
        if area(w, h) > limits.max_pixels {
            (w, h) = scaled(limits.max_pixels, w, h);
        }
        if w > 0 && h > 0 && area(w, h) < limits.min_pixels {
            (w, h) = scaled(limits.min_pixels, w, h);
        }
        if w == 0 || h == 0 {
            return Err(ImageError::AspectRatio { width, height });
        }
    }
    let (last_h, last_w) = smart_resize(h, w, limits.factor() as u32, limits.min_pixels, limits.max_pixels)?;
    let first = ((w, h) != (width, height)).then_some((w, h));
    Ok(Plan { first, last: (last_w, last_h) })
}

/// Qwen2-VL's `smart_resize`: (height, width) rounded to multiples of `factor`, with `min_pixels <= height * width <=
/// max_pixels`, at nearly the same aspect ratio.
///
/// # Errors
/// No pixels, or an aspect ratio above 200.
pub fn smart_resize(
    height: u32,
    width: u32,
    factor: u32,
    min_pixels: u64,
    max_pixels: u64,
) -> Result<(u32, u32), ImageError> {
    if height == 0 || width == 0 {
        return Err(ImageError::NoPixels { width, height });
    }
    if height.max(width) as f64 / height.min(width) as f64 > 200.0 {
        return Err(ImageError::AspectRatio { width, height });
    }
    let f = factor as f64;
    let (h, w) = (height as f64, width as f64);
    // Python's `round` takes halves to even.
    let mut h_bar = (h / f).round_ties_even() * f;
    let mut w_bar = (w / f).round_ties_even() * f;
    if h_bar * w_bar > max_pixels as f64 {
        let beta = (h * w / max_pixels as f64).sqrt();
        h_bar = f.max((h / beta / f).floor() * f);
        w_bar = f.max((w / beta / f).floor() * f);
    } else if h_bar * w_bar < min_pixels as f64 {
        let beta = (min_pixels as f64 / (h * w)).sqrt();
        h_bar = (h * beta / f).ceil() * f;
        w_bar = (w * beta / f).ceil() * f;
    }
    Ok((h_bar as u32, w_bar as u32))
}

/// Frames, rows and columns of patches of a picture of `width` x `height`, no pixel decoded.
///
/// # Errors
/// As [`plan`].
pub fn grid_of(width: u32, height: u32, limits: &ImageLimits) -> Result<[usize; 3], ImageError> {
    let (w, h) = plan(width, height, limits)?.last;
    Ok([1, h as usize / limits.patch_size, w as usize / limits.patch_size])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smart_resize_values_of_the_reference() {
        // (height, width) -> transformers.models.qwen2_vl smart_resize with factor 28 and the given limits.
        for (h, w, min, max, expected) in [
            (100, 100, 3136, 1_003_520, (112, 112)),
            (14, 14, 3136, 1_003_520, (56, 56)),
            (1, 200, 3136, 1_003_520, (28, 812)),
            (4000, 3000, 3136, 1_003_520, (1148, 840)),
            (42, 70, 784, 1_003_520, (56, 56)),
            (28, 28, 784, 262_144, (28, 28)),
        ] {
            assert_eq!(smart_resize(h, w, 28, min, max).unwrap(), expected, "{h}x{w}");
        }
        assert!(matches!(smart_resize(1, 201, 28, 3136, 1_003_520), Err(ImageError::AspectRatio { .. })));
        assert!(matches!(smart_resize(0, 5, 28, 3136, 1_003_520), Err(ImageError::NoPixels { .. })));
    }

    #[test]
    fn process_image_first() {
        let limits =
            ImageLimits { min_pixels: 262_144, max_pixels: 1_048_576, process_image: true, ..Default::default() };
        // sqrt(1048576 / 12e6) = 0.29560...: 4000 -> 1182, 3000 -> 886.
        assert_eq!(plan(4000, 3000, &limits).unwrap().first, Some((1182, 886)));
        // 300 * sqrt(262144 / 60000) = 627.06, 200 -> 418.04; their product is below the limit, and so smart_resize enlarges.
        let small = plan(300, 200, &limits).unwrap();
        assert_eq!(small.first, Some((627, 418)));
        assert!(small.last.0 as u64 * small.last.1 as u64 >= 262_144);
        assert_eq!(plan(800, 700, &limits).unwrap().first, None);
    }

    #[test]
    fn impossible_limits_are_named() {
        let limits = ImageLimits { min_pixels: 10, max_pixels: 5, ..Default::default() };
        assert!(plan(100, 100, &limits).unwrap_err().to_string().contains("min_pixels (10)"));
        let limits = ImageLimits { min_pixels: 10, max_pixels: 500, ..Default::default() };
        assert!(plan(100, 100, &limits).unwrap_err().to_string().contains("28x28"));
    }
}
