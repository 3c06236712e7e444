//! Sizes only: what a picture is resized to, found from its width and height.

use super::ImageLimits;
use crate::error::ImageError;

/// The resizing steps of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResizePlan {
    /// Width and height after EasyR1's `process_image` has reduced it to the run's `max_pixels`, where it does.
    pub reduced: Option<(u32, u32)>,
    /// Width and height after EasyR1's `process_image` has enlarged that to the run's `min_pixels`, where it does.
    pub enlarged: Option<(u32, u32)>,
    /// Final width and height: multiples of `patch_size * merge_size` within the model folder's limits.
    pub last: (u32, u32),
}

/// The steps for a picture of `width` x `height`, turned upright.
///
/// # Errors
/// No pixels, an aspect ratio above 200, or impossible limits.
pub fn plan(width: u32, height: u32, limits: &ImageLimits) -> Result<ResizePlan, ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::NoPixels { width, height });
    }
    let area = |(w, h): (u32, u32)| u64::from(w) * u64::from(h);
    // Python's `int` cuts towards zero.
    let scaled = |limit: u64, (w, h): (u32, u32)| {
        let factor = (limit as f64 / area((w, h)) as f64).sqrt();
        ((f64::from(w) * factor) as u32, (f64::from(h) * factor) as u32)
    };
    let too_elongated = |resized| ImageError::AspectRatio { width, height, resized };
    let size = (width, height);
    let most = limits.run.max_pixels;
    let reduced = (most > 0 && area(size) > most).then(|| scaled(most, size));
    let size = reduced.unwrap_or(size);
    // A side that was cut to nothing cannot be enlarged again.
    if area(size) == 0 {
        return Err(too_elongated(Some(size)));
    }
    // Both tests, in this order: cutting to whole pixels after reducing can fall below the lower limit.
    let least = limits.run.min_pixels;
    let enlarged = (area(size) < least).then(|| scaled(least, size));
    let size = enlarged.unwrap_or(size);
    let last = within_folder(size.0, size.1, limits).map_err(|e| match e {
        // The message names the picture as it is stored, which its owner knows.
        ImageError::AspectRatio { .. } => too_elongated(reduced.or(enlarged).and(Some(size))),
        other => other,
    })?;
    Ok(ResizePlan { reduced, enlarged, last })
}

/// Width and height after `smart_resize` within the limits of the model folder.
pub(super) fn within_folder(width: u32, height: u32, limits: &ImageLimits) -> Result<(u32, u32), ImageError> {
    limits.validate()?;
    let (h, w) = smart_resize(height, width, limits.factor() as u32, limits.min_pixels, limits.max_pixels)?;
    Ok((w, h))
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
        return Err(ImageError::AspectRatio { width, height, resized: None });
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

/// Frames, rows and columns of patches of a picture of `width` x `height` (turned upright), no pixel decoded.
///
/// # Errors
/// As [`plan`].
pub fn grid_of(width: u32, height: u32, limits: &ImageLimits) -> Result<[usize; 3], ImageError> {
    let (w, h) = plan(width, height, limits)?.last;
    Ok([1, h as usize / limits.patch_size, w as usize / limits.patch_size])
}

#[cfg(test)]
mod tests {
    use super::super::RunPixels;
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

    fn with_run(min_pixels: u64, max_pixels: u64) -> ImageLimits {
        let run = RunPixels { min_pixels, max_pixels };
        ImageLimits { min_pixels: 3136, max_pixels: 12_845_056, run, ..Default::default() }
    }

    #[test]
    fn the_run_s_limits_act_before_smart_resize_and_not_in_it() {
        // 224 x 224 -> 512 x 512 -> 504 x 504, 36 x 36 patches; not 532 x 532, as the limit in smart_resize would
        // make it.
        let grid = |w, h, min, max| grid_of(w, h, &with_run(min, max)).unwrap();
        assert_eq!(grid(224, 224, 262_144, 4_194_304), [1, 36, 36]);
        // 1000 x 1010 -> 996 x 1006 -> 1008 x 1008, although that is more than max_pixels.
        assert_eq!(plan(1000, 1010, &with_run(0, 1_003_520)).unwrap().reduced, Some((996, 1006)));
        assert_eq!(grid(1000, 1010, 0, 1_003_520), [1, 72, 72]);
        // Without limits of the run there is one step only.
        let plan = plan(127, 2077, &with_run(0, 0)).unwrap();
        assert_eq!((plan.reduced, plan.enlarged), (None, None));
    }

    #[test]
    fn process_image_cuts_to_whole_pixels() {
        let limits = with_run(262_144, 1_048_576);
        // sqrt(1048576 / 12e6) = 0.29560...: 4000 -> 1182, 3000 -> 886.
        assert_eq!(plan(4000, 3000, &limits).unwrap().reduced, Some((1182, 886)));
        // 300 * sqrt(262144 / 60000) = 627.06, 200 -> 418.04.
        assert_eq!(plan(300, 200, &limits).unwrap().enlarged, Some((627, 418)));
        let none = plan(800, 700, &limits).unwrap();
        assert_eq!((none.reduced, none.enlarged), (None, None));
        // Both: 200 x 200 -> 99 x 99 (sqrt(9990) = 99.95), 9801 pixels, less than 9900 -> 99 * sqrt(9900 / 9801) =
        // 99.498.
        let both = plan(200, 200, &with_run(9900, 9990)).unwrap();
        assert_eq!((both.reduced, both.enlarged), (Some((99, 99)), Some((99, 99))));
    }

    #[test]
    fn too_elongated_is_said_of_the_stored_size() {
        let error = plan(201, 1, &with_run(262_144, 0)).unwrap_err().to_string();
        assert!(error.starts_with("201x1 is too elongated") && error.contains("7258x36"), "{error}");
        let error = plan(30_000, 2, &with_run(0, 400)).unwrap_err().to_string();
        assert!(error.starts_with("30000x2 is too elongated"), "{error}");
        let error = plan(201, 1, &with_run(0, 0)).unwrap_err().to_string();
        assert_eq!(error, "201x1 is too elongated: the aspect ratio must not exceed 200");
    }

    #[test]
    fn impossible_limits_are_named() {
        let limits = ImageLimits { min_pixels: 10, max_pixels: 5, ..Default::default() };
        assert!(plan(100, 100, &limits).unwrap_err().to_string().contains("min_pixels (10)"));
        let error = plan(100, 100, &with_run(50, 40)).unwrap_err().to_string();
        assert!(error.contains("min_pixels (50) of the run") && error.contains("max_pixels (40)"), "{error}");
        assert!(plan(100, 100, &with_run(5_000_000_000, 0)).unwrap_err().to_string().contains("5000000000"));
        let limits = ImageLimits { min_pixels: 10, max_pixels: 500, ..Default::default() };
        assert!(plan(100, 100, &limits).unwrap_err().to_string().contains("28x28"));
    }
}
