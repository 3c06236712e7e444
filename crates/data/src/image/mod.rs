//! Encoded picture -> pixel patches, as transformers' Qwen2-VL image processor (the PIL one) computes them.
//!
//! ```text
//! bytes -> decode -> RGB -> (EasyR1's process_image) -> smart_resize, bicubic -> (x / 255 - mean) / std -> patches [N, 1176]
//! ```

mod bounds;
mod decode;
mod jpeg;
mod resample;
mod size;

use serde::{Deserialize, Serialize};

pub use ::image::RgbImage;

pub use decode::{decode, decode_within, header_size};
pub use resample::resize_bicubic;
pub use size::{Plan, grid_of, plan, smart_resize};

use crate::error::ImageError;

/// CLIP's channel means.
pub const CLIP_MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
/// CLIP's channel standard deviations.
pub const CLIP_STD: [f32; 3] = [0.26862954, 0.261_302_6, 0.275_777_1];

/// Settings of the image processor: `preprocessor_config.json`, with the run's own pixel limits on top.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageLimits {
    /// Fewest pixels of a resized picture (`size.shortest_edge` in newer files).
    pub min_pixels: u64,
    /// Most pixels of a resized picture (`size.longest_edge` in newer files).
    pub max_pixels: u64,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Patches merged into one token, a side.
    pub merge_size: usize,
    /// Frames in a patch; a picture is repeated.
    pub temporal_patch_size: usize,
    /// Subtracted from each channel after scaling to 0..1.
    pub mean: [f32; 3],
    /// Divides each channel.
    pub std: [f32; 3],
    /// Pictures whose header states more pixels are refused before decoding.
    pub max_decoded_pixels: u64,
    /// Whether EasyR1's `process_image` runs first: shrink to `max_pixels`, then enlarge to `min_pixels`, keeping the aspect
    /// ratio and cutting sizes to whole pixels. On when a run sets its own limits
    /// ([`crate::Processor::with_limits`]); off with the limits of the model folder, as transformers does it.
    pub process_image: bool,
}

impl Default for ImageLimits {
    /// transformers' defaults: 56 * 56 to 28 * 28 * 1280 pixels, patches of 14, 2x2 merged; the limit of
    /// `guard::limits`, which is Pillow's.
    fn default() -> Self {
        Self {
            min_pixels: 56 * 56,
            max_pixels: 28 * 28 * 1280,
            patch_size: 14,
            merge_size: 2,
            temporal_patch_size: 2,
            mean: CLIP_MEAN,
            std: CLIP_STD,
            max_decoded_pixels: guard::limits().decoded_pixels.value,
            process_image: false,
        }
    }
}

impl ImageLimits {
    /// Resized sides are multiples of this many pixels: `patch_size * merge_size`.
    pub fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    /// Values of one patch: `3 * temporal_patch_size * patch_size^2`, 1176 for Qwen2.5-VL.
    pub fn patch_dim(&self) -> usize {
        3 * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Tokens of a picture with this grid: `t * h * w / merge_size^2`.
    pub fn tokens(&self, grid_thw: [usize; 3]) -> usize {
        grid_thw.iter().product::<usize>() / (self.merge_size * self.merge_size)
    }

    /// Checks that some picture can satisfy the limits.
    ///
    /// # Errors
    /// [`ImageError::Limits`] naming the setting.
    pub fn validate(&self) -> Result<(), ImageError> {
        let bad = |what: &str| Err(ImageError::Limits(what.to_owned()));
        if self.patch_size == 0 || self.merge_size == 0 || self.temporal_patch_size == 0 {
            return bad("patch_size, merge_size and temporal_patch_size must be at least 1");
        }
        if self.patch_size > 1024 || self.merge_size > 64 || self.temporal_patch_size > 64 {
            return bad("patch_size, merge_size or temporal_patch_size is absurdly large");
        }
        if self.min_pixels == 0 || self.min_pixels > self.max_pixels {
            return Err(ImageError::Limits(format!(
                "min_pixels ({}) must be at least 1 and at most max_pixels ({})",
                self.min_pixels, self.max_pixels
            )));
        }
        // What lies beyond is not reached by a picture that may be decoded, but a small one would be enlarged to it.
        let limit = guard::limits().resized_pixels;
        if self.min_pixels > limit.value {
            return Err(ImageError::Limits(format!(
                "min_pixels ({}) must be at most {}; {}",
                self.min_pixels,
                limit.value,
                limit.raise()
            )));
        }
        if self.max_pixels < (self.factor() * self.factor()) as u64 {
            return Err(ImageError::Limits(format!(
                "max_pixels ({}) must hold one token of {f}x{f} pixels",
                self.max_pixels,
                f = self.factor()
            )));
        }
        if !self.std.iter().all(|s| s.is_finite() && *s != 0.0) || !self.mean.iter().all(|m| m.is_finite()) {
            return bad("image_mean must be finite and image_std finite and not zero");
        }
        Ok(())
    }
}

/// A picture as the vision tower takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Patches {
    /// `[N, patch_dim]`, row-major; patches of one merged token follow each other; a patch is (channel, frame, y, x).
    pub values: Vec<f32>,
    /// Frames, rows and columns of patches; their product is N.
    pub grid_thw: [usize; 3],
}

impl Patches {
    /// Number of patches N.
    pub fn len(&self) -> usize {
        self.grid_thw.iter().product()
    }

    /// Whether there are no patches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Resizes, normalises and cuts a picture.
///
/// # Errors
/// An aspect ratio above 200, or limits that no picture can satisfy.
pub fn process(image: &RgbImage, limits: &ImageLimits) -> Result<Patches, ImageError> {
    let plan = plan(image.width(), image.height(), limits)?;
    let mut resized = None;
    if let Some((w, h)) = plan.first {
        resized = Some(resize_bicubic(image, w, h));
    }
    let (w, h) = plan.last;
    check_patches(w, h, limits)?;
    let resized = resize_bicubic(resized.as_ref().unwrap_or(image), w, h);
    Ok(patchify(&resized, limits))
}

/// Refuses what would have more patches than a picture may have, by the bytes of the published models' patches.
fn check_patches(width: u32, height: u32, limits: &ImageLimits) -> Result<(), ImageError> {
    let limit = guard::limits().resized_pixels;
    let pixels = u64::from(width) * u64::from(height);
    // A pixel is repeated for each frame of a patch; two are usual.
    match pixels.saturating_mul(limits.temporal_patch_size as u64) <= limit.value.saturating_mul(2) {
        true => Ok(()),
        false => Err(ImageError::Limits(format!(
            "{width}x{height} pixels, {} frames a patch, are more than {} resized pixels; {}",
            limits.temporal_patch_size,
            limit.value,
            limit.raise()
        ))),
    }
}

/// Cuts a picture whose sides are multiples of `patch_size * merge_size`.
fn patchify(image: &RgbImage, limits: &ImageLimits) -> Patches {
    let (p, m, t) = (limits.patch_size, limits.merge_size, limits.temporal_patch_size);
    let (w, h) = (image.width() as usize, image.height() as usize);
    let grid_thw = [1, h / p, w / p];
    let table = normalisation(limits);
    let pixels = image.as_raw();
    let mut values = Vec::with_capacity(grid_thw[1] * grid_thw[2] * limits.patch_dim());
    for block_y in 0..grid_thw[1] / m {
        for block_x in 0..grid_thw[2] / m {
            for cell in 0..m * m {
                let y0 = (block_y * m + cell / m) * p;
                let x0 = (block_x * m + cell % m) * p;
                for (c, table) in table.iter().enumerate() {
                    let start = values.len();
                    for y in y0..y0 + p {
                        let row = (y * w + x0) * 3;
                        let row = &pixels[row..row + p * 3];
                        values.extend(row.iter().skip(c).step_by(3).map(|v| table[*v as usize]));
                    }
                    // One frame, repeated.
                    let end = values.len();
                    for _ in 1..t {
                        values.extend_from_within(start..end);
                    }
                }
            }
        }
    }
    Patches { values, grid_thw }
}

/// `(v / 255 - mean) / std` for every byte: in f64 up to the scaling, then in f32, as the reference rounds it.
fn normalisation(limits: &ImageLimits) -> [[f32; 256]; 3] {
    let mut table = [[0f32; 256]; 3];
    for (c, row) in table.iter_mut().enumerate() {
        for (v, out) in row.iter_mut().enumerate() {
            let scaled = (v as f64 * (1.0 / 255.0)) as f32;
            *out = (scaled - limits.mean[c]) / limits.std[c];
        }
    }
    table
}
