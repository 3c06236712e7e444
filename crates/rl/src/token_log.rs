//! The lines of `tokens/step_N.jsonl`: every token of a response with what was measured of it, for a program that shows
//! them. The text of the response, its reward and its answer are in the line of `rollouts/step_N.jsonl` that `line`
//! names.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use data::{DataError, Processor};
use serde::Serialize;

use crate::learn::Heat;
use crate::trajectory::{ScoredGroup, Trajectory};

/// Stands in a prompt for the tokens of a picture.
const IMAGE: &str = "<image>";

/// A response of `T` tokens.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TokenLine {
    /// Its line in `rollouts/step_N.jsonl`, from 0.
    pub line: usize,
    /// Its group in the step, from 0.
    pub group: usize,
    /// The prompt's text, each run of image tokens as `<image>`.
    pub prompt: String,
    /// The prompt's pictures, by their paths in the run folder.
    pub pictures: Vec<String>,
    /// Rows and columns of image tokens of each picture.
    pub grids: Vec<[usize; 2]>,
    /// `[T]` token ids.
    pub ids: Vec<u32>,
    /// `[T]` texts, which make up the response: a token that ends inside a character has none, and the one that
    /// completes the character has all of it.
    pub pieces: Vec<String>,
    /// `[T]` each, by name; what is no number is null.
    pub values: BTreeMap<&'static str, Vec<f32>>,
    /// Where the tokens look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heat: Option<HeatBytes>,
}

/// A [`Heat`] in a byte for each pair of tokens.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HeatBytes {
    /// The cosine that 0 stands for.
    low: f32,
    /// The cosine that 255 stands for.
    high: f32,
    /// Base64 of `T * M` bytes, row-major.
    data: String,
}

impl HeatBytes {
    pub(crate) fn of(heat: &Heat) -> Self {
        let finite = || heat.cosines.iter().copied().filter(|cosine| cosine.is_finite());
        let (low, high) = (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 0.0) };
        let scale = if high > low { 255.0 / (high - low) } else { 0.0 };
        // A cast takes what is no number for 0.
        let bytes: Vec<u8> = heat.cosines.iter().map(|cosine| ((cosine - low) * scale).round() as u8).collect();
        Self { low, high, data: BASE64_STANDARD.encode(bytes) }
    }
}

impl TokenLine {
    /// Adds where the tokens look, and their focus where nothing else has measured it.
    pub(crate) fn add_heat(&mut self, heat: &Heat) {
        if heat.focus.len() == self.ids.len() {
            self.values.entry("visual_focus").or_insert_with(|| heat.focus.clone());
        }
        self.heat = Some(HeatBytes::of(heat));
    }
}

/// The lines of a group, without pictures and heat. `group` is its place in the step, `line` the line of its first
/// response.
///
/// # Errors
/// A tokenizer that fails.
pub(crate) fn lines(
    group: &ScoredGroup,
    place: usize,
    line: usize,
    processor: &Processor,
) -> Result<Vec<TokenLine>, DataError> {
    let prompt = prompt_text(&group.item.prompt.input_ids, processor)?;
    let merge = processor.limits().merge_size;
    let grids: Vec<[usize; 2]> =
        group.item.prompt.image_grid_thw.iter().map(|[_, rows, columns]| [rows / merge, columns / merge]).collect();
    let of = |(index, trajectory): (usize, &Trajectory)| {
        Ok(TokenLine {
            line: line + index,
            group: place,
            prompt: prompt.clone(),
            pictures: vec![],
            grids: grids.clone(),
            ids: trajectory.ids.clone(),
            pieces: processor.pieces(&trajectory.ids, &trajectory.text)?,
            values: values(trajectory),
            heat: None,
        })
    };
    group.trajectories.iter().enumerate().map(of).collect()
}

/// What was measured of the tokens of a response, by the names that a reader shows.
fn values(trajectory: &Trajectory) -> BTreeMap<&'static str, Vec<f32>> {
    let streams = &trajectory.streams;
    let same = trajectory.old_log_probs == trajectory.rollout_log_probs;
    let all = [
        ("log_prob", Some(&trajectory.rollout_log_probs)),
        ("old_log_prob", Some(&trajectory.old_log_probs).filter(|_| !same)),
        ("advantage", Some(&trajectory.advantages)),
        ("visual_focus", streams.visual_focus.as_ref()),
        ("entropy", streams.entropy.as_ref()),
        ("dependency", streams.token_visual_dependency.as_ref()),
        ("ref_log_prob", streams.ref_log_probs.as_ref()),
        ("perturbed_log_prob", streams.perturbed_log_probs.as_ref()),
        ("masked_log_prob", streams.masked_log_probs.as_ref()),
        ("unperceived_log_prob", streams.unperceived_log_probs.as_ref()),
    ];
    let tokens = trajectory.ids.len();
    let of_all_tokens = |values: &&Vec<f32>| values.len() == tokens && tokens > 0;
    let mut found: BTreeMap<&'static str, Vec<f32>> =
        all.into_iter().filter_map(|(name, values)| Some((name, values.filter(of_all_tokens)?.clone()))).collect();
    found.extend(factors(trajectory).map(|factors| ("factor", factors)));
    if let Some(mask) = &trajectory.policy_mask {
        found.insert("policy_mask", mask.iter().map(|kept| f32::from(u8::from(*kept))).collect());
    }
    found
}

/// What the advantage of each token was multiplied by, `[T]`; NaN where it was 0. None where nothing was shaped.
fn factors(trajectory: &Trajectory) -> Option<Vec<f32>> {
    let (shaped, plain) = (&trajectory.advantages, &trajectory.unshaped);
    if shaped == plain || shaped.len() != plain.len() {
        return None;
    }
    let factor = |(shaped, plain): (&f32, &f32)| if *plain == 0.0 { f32::NAN } else { shaped / plain };
    Some(std::iter::zip(shaped, plain).map(factor).collect())
}

/// The text of a prompt.
fn prompt_text(ids: &[u32], processor: &Processor) -> Result<String, DataError> {
    let image = processor.image_pad_id();
    let mut text = String::new();
    for run in ids.chunk_by(|a, b| (*a == image) == (*b == image)) {
        match run.first() == Some(&image) {
            true => text.push_str(IMAGE),
            false => text.push_str(&processor.decode(run, false)?),
        }
    }
    Ok(text)
}

/// A hash of a picture's pixels and size, as a name: 32 hexadecimal digits. Two of 64 bits (FNV-1a over words, as it is
/// and rotated), from different beginnings.
pub(crate) fn picture_hash(picture: &data::image::RgbImage) -> String {
    let (mut first, mut second) = (0xCBF2_9CE4_8422_2325_u64, 0x6C62_272E_07BB_0142_u64);
    let mut word = |word: u64| {
        first = (first ^ word).wrapping_mul(0x0000_0100_0000_01B3);
        second = (second ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    };
    word(u64::from(picture.width()));
    word(u64::from(picture.height()));
    for bytes in picture.as_raw().chunks(8) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        word(u64::from_le_bytes(whole));
    }
    format!("{first:016x}{second:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_keeps_its_lowest_and_its_highest() {
        let heat = Heat { image_tokens: 2, focus: vec![], cosines: vec![-0.5, 0.5, 0.0, f32::NAN] };
        let HeatBytes { low, high, data } = HeatBytes::of(&heat);
        assert_eq!((low, high), (-0.5, 0.5));
        assert_eq!(BASE64_STANDARD.decode(data).unwrap(), [0, 255, 128, 0]);
        let flat = HeatBytes::of(&Heat { image_tokens: 1, focus: vec![], cosines: vec![0.25; 3] });
        assert_eq!((flat.low, flat.high, BASE64_STANDARD.decode(flat.data).unwrap()), (0.25, 0.25, vec![0; 3]));
    }

    #[test]
    fn pictures_that_differ_have_names_that_differ() {
        let picture = |width, height, fill| data::image::RgbImage::from_pixel(width, height, ::image::Rgb([fill; 3]));
        let names = [picture(4, 2, 7), picture(2, 4, 7), picture(4, 2, 8)].map(|picture| picture_hash(&picture));
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2], "{names:?}");
        assert_eq!(picture_hash(&picture(4, 2, 7)), names[0]);
    }
}
