//! The pixels of a run in the folder that it saves: transformers and vLLM resize once, a run twice.
//!
//! A run keeps pictures within its own limits and rounds each side to the nearest multiple of a token's side
//! (`process_image`, then `smart_resize`, which has nothing left to do but round). A server has `smart_resize` alone,
//! which rounds down at its upper limit and up at its lower one. With limits that are half a token's side wider,
//! rounding down and up land where rounding to the nearest does: for square pictures, and mostly for others
//! (docs/pixels.md has the shares). These limits are written where servers look for them, and the run's own beside
//! them under [`KEY`], which transformers hands on and does not use.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::image::{Alpha, ExifOrientation, ImageLimits, RunPixels};

/// Key in the settings of an image processor: how pictures became patches in training.
pub const KEY: &str = "training_pixels";

/// The value of [`KEY`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TrainingPixels {
    /// The run's limits; 0 is none.
    min_pixels: u64,
    max_pixels: u64,
    /// The limits of the model folder that the run began with.
    shortest_edge: u64,
    longest_edge: u64,
    #[serde(default)]
    alpha: Alpha,
    #[serde(default)]
    exif_orientation: ExifOrientation,
}

/// Fewest and most pixels with which one `smart_resize` comes closest to what `limits` do in two steps.
pub fn one_resize(limits: &ImageLimits) -> (u64, u64) {
    let factor = limits.factor() as f64;
    // The side of a square picture at a limit of the run, and what it is rounded to.
    let side = |pixels: u64| (pixels as f64).sqrt().floor();
    let rounded = |side: f64| (side / factor).round_ties_even() * factor;
    let RunPixels { min_pixels, max_pixels } = limits.run;
    let least = match side(min_pixels) {
        _ if min_pixels == 0 => limits.min_pixels,
        side => {
            let (wished, to) = ((side - factor / 2.0).max(0.0).powi(2), rounded(side));
            // So that the square comes out as in training, also where it lies between two multiples. Half a pixel a
            // side is beyond what floating point can lose.
            let wished = if to > 0.0 { wished.min(to * to - to).max((to - factor).powi(2) + to) } else { wished };
            (wished as u64).max(limits.min_pixels)
        }
    };
    let most = match side(max_pixels) {
        _ if max_pixels == 0 => limits.max_pixels,
        side => {
            let (wished, to) = ((side + factor / 2.0).powi(2), rounded(side));
            let wished = wished.max(to * to + to).min((to + factor).powi(2) - to - factor);
            (wished as u64).min(limits.max_pixels)
        }
    };
    // Limits of the run outside the folder's own: those of the folder have the last word.
    let least = least.min(limits.max_pixels);
    (least, most.max(least).max((limits.factor() * limits.factor()) as u64))
}

/// The file `name` of a model folder, whose content is `bytes`, with `limits` in it, so that a server sees the pictures
/// as nearly as it can as the model was trained on them, and [`super::Processor::from_folder`] gives exactly `limits`
/// again. `None` where the file stays as it is: it holds no processor settings, or they say all of it already.
///
/// # Errors
/// Settings that are no JSON object; the file is named.
pub fn restate(name: &str, bytes: &[u8], limits: &ImageLimits) -> Result<Option<Vec<u8>>, String> {
    let nested = match name {
        "processor_config.json" => true,
        "preprocessor_config.json" => false,
        _ => return Ok(None),
    };
    let plain = (limits.run, limits.alpha, limits.exif_orientation) == Default::default();
    let mut file: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|e| format!("{name} is not usable: {e}"))?;
    let settings =
        if nested { file.get_mut("image_processor").and_then(Value::as_object_mut) } else { Some(&mut file) };
    // An older run may have left what it needed.
    let Some(settings) = settings.filter(|settings| !plain || settings.contains_key(KEY)) else { return Ok(None) };
    let (least, most) = one_resize(limits);
    // Older and newer servers look in different places.
    settings.insert("min_pixels".into(), json!(least));
    settings.insert("max_pixels".into(), json!(most));
    settings.insert("size".into(), json!({"shortest_edge": least, "longest_edge": most}));
    settings.shift_remove(KEY);
    if !plain {
        let training = TrainingPixels {
            min_pixels: limits.run.min_pixels,
            max_pixels: limits.run.max_pixels,
            shortest_edge: limits.min_pixels,
            longest_edge: limits.max_pixels,
            alpha: limits.alpha,
            exif_orientation: limits.exif_orientation,
        };
        settings.insert(KEY.into(), json!(training));
    }
    Ok(Some(format!("{:#}\n", Value::Object(file)).into_bytes()))
}

/// `limits` as the settings of an image processor state them, with what [`restate`] has left there. Where somebody has
/// changed the limits since, theirs count.
pub(super) fn read(settings: &Map<String, Value>, limits: ImageLimits) -> Result<ImageLimits, String> {
    let Some(value) = settings.get(KEY).filter(|v| !v.is_null()) else { return Ok(limits) };
    let training = TrainingPixels::deserialize(value).map_err(|e| format!("{KEY} is not usable: {e}"))?;
    let limits = ImageLimits { alpha: training.alpha, exif_orientation: training.exif_orientation, ..limits };
    let trained = ImageLimits {
        min_pixels: training.shortest_edge,
        max_pixels: training.longest_edge,
        run: RunPixels { min_pixels: training.min_pixels, max_pixels: training.max_pixels },
        ..limits.clone()
    };
    let untouched = one_resize(&trained) == (limits.min_pixels, limits.max_pixels);
    Ok(if untouched { trained } else { limits })
}
