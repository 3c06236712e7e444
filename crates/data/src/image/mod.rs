//! Encoded picture -> pixel patches, as transformers' Qwen2-VL image processor (the PIL one) computes them.
//!
//! ```text
//! bytes -> decode -> RGB, upright -> EasyR1's process_image (the run's limits)
//!       -> smart_resize (the model folder's limits), bicubic -> (x / 255 - mean) / std -> patches [N, 1176]
//! ```

mod alpha;
mod bounds;
mod decode;
mod exif;
mod gif;
mod jpeg;
mod png;
mod resample;
mod size;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use ::image::RgbImage;

pub use alpha::Alpha;
pub use decode::{decode, decode_with, decode_within, header_size, upright_size};
pub use exif::ExifOrientation;
pub use resample::resize_bicubic;
pub use size::{ResizePlan, grid_of, plan, smart_resize};

use crate::error::ImageError;

/// CLIP's channel means.
pub(crate) const CLIP_MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
/// CLIP's channel standard deviations.
pub(crate) const CLIP_STD: [f32; 3] = [0.26862954, 0.261_302_6, 0.275_777_1];

/// The pixel limits of a run, EasyR1's `data.min_pixels` and `data.max_pixels`: what its `process_image` keeps a
/// picture within before the image processor sees it. 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPixels {
    /// Pictures with fewer pixels are enlarged to about this many; 0: none is.
    pub min_pixels: u64,
    /// Pictures with more pixels are reduced to about this many; 0: none is.
    pub max_pixels: u64,
}

impl RunPixels {
    /// Whether there is no limit at all.
    pub fn is_empty(&self) -> bool {
        self.min_pixels == 0 && self.max_pixels == 0
    }
}

/// How a picture becomes patches: the model folder's `preprocessor_config.json`, and what a run adds to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageLimits {
    /// Fewest pixels of a resized picture, of the model folder (`size.shortest_edge` in newer files).
    pub min_pixels: u64,
    /// Most pixels of a resized picture, of the model folder (`size.longest_edge` in newer files).
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
    /// The run's own limits, applied by [`process_image`] before `smart_resize` applies the folder's.
    pub run: RunPixels,
    /// What becomes of transparency.
    pub alpha: Alpha,
    /// Whether pictures are turned as their EXIF says.
    pub exif_orientation: ExifOrientation,
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
            run: RunPixels::default(),
            alpha: Alpha::default(),
            exif_orientation: ExifOrientation::default(),
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
        let RunPixels { min_pixels, max_pixels } = self.run;
        if max_pixels > 0 && min_pixels > max_pixels {
            return Err(ImageError::Limits(format!(
                "min_pixels ({min_pixels}) of the run must be at most its max_pixels ({max_pixels})"
            )));
        }
        let most = guard::limits().resized_pixels;
        if min_pixels > most.value {
            return Err(ImageError::Limits(format!(
                "min_pixels ({min_pixels}) of the run is more than {} resized pixels; {}",
                most.value,
                most.raise()
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

/// Resizes, normalises and cuts a picture: [`process_image`], then [`to_patches`].
///
/// # Errors
/// An aspect ratio above 200, or limits that no picture can satisfy.
pub fn process(image: &RgbImage, limits: &ImageLimits) -> Result<Patches, ImageError> {
    let plan = plan(image.width(), image.height(), limits)?;
    let (w, h) = plan.last;
    check_patches(w, h, limits)?;
    Ok(patchify(&resize_bicubic(&resize_for_run(image, &plan), w, h), limits))
}

/// EasyR1's `process_image`: keeps a picture within the limits of the run ([`ImageLimits::run`]) and changes nothing
/// else. Its result is what [`to_patches`] takes; a picture that is changed between the two (VPPO's blackout) goes
/// through both.
///
/// # Errors
/// As [`process`].
pub fn process_image<'a>(image: &'a RgbImage, limits: &ImageLimits) -> Result<Cow<'a, RgbImage>, ImageError> {
    Ok(resize_for_run(image, &plan(image.width(), image.height(), limits)?))
}

/// What transformers' image processor makes of a picture that [`process_image`] has resized: `smart_resize` within
/// the model folder's limits, normalisation, patches. The limits of the run are not applied again.
///
/// # Errors
/// As [`process`].
pub fn to_patches(image: &RgbImage, limits: &ImageLimits) -> Result<Patches, ImageError> {
    let (w, h) = size::within_folder(image.width(), image.height(), limits)?;
    check_patches(w, h, limits)?;
    Ok(patchify(&resize_bicubic(image, w, h), limits))
}

/// The first two steps of a plan, one after the other, as EasyR1 takes them.
fn resize_for_run<'a>(image: &'a RgbImage, plan: &ResizePlan) -> Cow<'a, RgbImage> {
    [plan.reduced, plan.enlarged]
        .into_iter()
        .flatten()
        .fold(Cow::Borrowed(image), |image, (w, h)| Cow::Owned(resize_bicubic(&image, w, h)))
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

/// Undoes normalisation and cutting: the resized picture, to the last bit of each byte. `values` are its patches as in
/// [`Patches::values`]; what is missing of them stays black.
pub fn from_patches(values: &[f32], grid_thw: [usize; 3], limits: &ImageLimits) -> RgbImage {
    let (p, m) = (limits.patch_size, limits.merge_size);
    let [_, rows, columns] = grid_thw;
    let mut pixels = RgbImage::new((columns * p) as u32, (rows * p) as u32);
    for (n, patch) in values.chunks_exact(limits.patch_dim()).enumerate() {
        // Patches of one merged token follow each other.
        let (token, cell) = (n / (m * m), n % (m * m));
        let (token_y, token_x) = (token / (columns / m), token % (columns / m));
        let (top, left) = ((token_y * m + cell / m) * p, (token_x * m + cell % m) * p);
        for (c, channel) in patch.chunks_exact(limits.temporal_patch_size * p * p).enumerate() {
            for (i, value) in channel[..p * p].iter().enumerate() {
                let byte = (value * limits.std[c] + limits.mean[c]) * 255.0;
                let (x, y) = (left + i % p, top + i / p);
                pixels.get_pixel_mut(x as u32, y as u32).0[c] = byte.round() as u8;
            }
        }
    }
    pixels
}

/// The bytes of a PNG file of `picture`, without loss.
///
/// # Errors
/// A picture without pixels.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ::image::ImageFormat::Png)
        .map_err(|error| ImageError::Limits(format!("the picture cannot be written as PNG: {error}")))?;
    Ok(bytes.into_inner())
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
