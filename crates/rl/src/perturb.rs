//! Perturbed images: what VPPO, PGPO, SRPO and PAPO compare a token's log-prob with.
//!
//! | perturbation | what happens |
//! |---|---|
//! | patch blackout, grid | each 14x14 patch that the vision tower sees turns black with a probability |
//! | patch blackout, pixels | each 14x14 block of the picture as it is stored turns black, before it is resized (released code of VPPO and PAPO) |
//! | Gaussian noise | noise on every pixel of the resized picture, cut to black and white |
//! | blank | all black |

use std::sync::Arc;

use data::image::{RgbImage, process};
use data::{ImageSource, Processor};
use model_qwen2vl::model::Prompt;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::sampler::uniform;
use crate::shaping::{Draw, Stream};

/// Side of a block in pixels of the stored picture.
const BLOCK: u32 = 14;

/// What the blocks of a patch blackout follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// The patches of the vision tower: every block is one patch, all black or all there.
    #[default]
    Grid,
    /// The pixels of the stored picture, which is resized afterwards.
    Pixels,
}

/// What is done to a picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Perturbation {
    /// Blocks of 14x14 turn black.
    PatchBlackout {
        /// Of each block, in (0, 1].
        probability: f64,
        /// Where blocks lie.
        align: Align,
    },
    /// Noise on every pixel.
    GaussianNoise {
        /// Standard deviation, where black is 0 and white 1.
        sigma: f64,
    },
    /// The whole picture turns black.
    Blank,
}

impl Perturbation {
    /// Whether every draw is the same.
    pub fn is_certain(&self) -> bool {
        match *self {
            Self::PatchBlackout { probability, .. } => probability >= 1.0,
            Self::GaussianNoise { .. } => false,
            Self::Blank => true,
        }
    }
}

/// The kind of a perturbation, as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PerturbationKind {
    /// [`Perturbation::PatchBlackout`].
    #[default]
    PatchBlackout,
    /// [`Perturbation::GaussianNoise`].
    GaussianNoise,
    /// [`Perturbation::Blank`].
    Blank,
}

/// How often the configuration wants a picture drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrawChoice {
    /// As the algorithm was published.
    #[default]
    Published,
    /// [`Draw::Response`].
    Response,
    /// [`Draw::Prompt`].
    Prompt,
}

/// What the configuration says of perturbed pictures, whichever algorithm asks for them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PerturbationConfig {
    /// What is done.
    pub kind: PerturbationKind,
    /// Where the blocks of a blackout lie.
    pub align: Align,
    /// Strength of the noise.
    pub sigma: f64,
    /// How often it is drawn.
    pub draw: DrawChoice,
}

impl Default for PerturbationConfig {
    fn default() -> Self {
        Self { kind: PerturbationKind::default(), align: Align::default(), sigma: 0.5, draw: DrawChoice::default() }
    }
}

impl PerturbationConfig {
    /// The stream of an algorithm that was published with this draw and blacks blocks out with `probability`.
    pub fn stream(&self, published: Draw, probability: f64) -> Stream {
        let perturbation = match self.kind {
            PerturbationKind::PatchBlackout => Perturbation::PatchBlackout { probability, align: self.align },
            PerturbationKind::GaussianNoise => Perturbation::GaussianNoise { sigma: self.sigma },
            PerturbationKind::Blank => Perturbation::Blank,
        };
        let draw = match self.draw {
            // What is the same in every draw is computed once a prompt.
            _ if perturbation.is_certain() => Draw::Prompt,
            DrawChoice::Published => published,
            DrawChoice::Response => Draw::Response,
            DrawChoice::Prompt => Draw::Prompt,
        };
        Stream::PerturbedLogProbs { draw, perturbation }
    }
}

/// Perturbed copies of one prompt.
pub struct Perturber<'a> {
    prompt: &'a Prompt,
    processor: &'a Processor,
    perturbation: Perturbation,
    /// The stored pictures, where blocks follow their pixels.
    stored: Vec<RgbImage>,
    seed: u64,
    key: u64,
}

impl<'a> Perturber<'a> {
    /// For `prompt`, whose pictures are `images`; `seed` and `key` name its draws.
    ///
    /// # Errors
    /// A picture that cannot be read any more, where its pixels are asked for.
    pub fn new(
        prompt: &'a Prompt,
        images: &[ImageSource],
        processor: &'a Processor,
        perturbation: Perturbation,
        seed: u64,
        key: u64,
    ) -> Result<Self, TrainError> {
        let stored = match perturbation {
            Perturbation::PatchBlackout { align: Align::Pixels, .. } => {
                images.iter().map(|source| processor.picture(source)).collect::<Result<_, _>>().map_err(|e| {
                    TrainError::Input(format!("a picture that was read before cannot be read again: {e}"))
                })?
            }
            _ => vec![],
        };
        Ok(Self { prompt, processor, perturbation, stored, seed, key })
    }

    /// One copy; the same `draw` gives the same one.
    ///
    /// # Errors
    /// Stored pictures that are not those of the prompt.
    pub fn draw(&self, draw: u64) -> Result<Prompt, TrainError> {
        let chance = |i: usize| f64::from(uniform(self.seed, self.key, draw, i as u64));
        let limits = self.processor.limits();
        let mut prompt = self.prompt.clone();
        match self.perturbation {
            Perturbation::PatchBlackout { probability, align: Align::Grid } => {
                self.black_out(&mut prompt, |patch| chance(patch) < probability);
            }
            Perturbation::Blank => self.black_out(&mut prompt, |_| true),
            Perturbation::PatchBlackout { probability, align: Align::Pixels } => {
                let mut values = Vec::with_capacity(prompt.pixel_values.len());
                let mut blocks = 0;
                for picture in &self.stored {
                    let mut picture = picture.clone();
                    let (across, down) = (picture.width().div_ceil(BLOCK), picture.height().div_ceil(BLOCK));
                    let black: Vec<bool> =
                        (0..(across * down) as usize).map(|i| chance(blocks + i) < probability).collect();
                    blocks += black.len();
                    for (x, y, pixel) in picture.enumerate_pixels_mut() {
                        if black[(y / BLOCK * across + x / BLOCK) as usize] {
                            pixel.0 = [0; 3];
                        }
                    }
                    let patches = process(&picture, limits).map_err(|e| TrainError::Input(e.to_string()))?;
                    values.extend(patches.values);
                }
                if values.len() != prompt.pixel_values.len() {
                    return Err(TrainError::Input(
                        "the pictures of a prompt changed between two passes over it (or are not kept with it)".into(),
                    ));
                }
                prompt.pixel_values = values.into();
            }
            Perturbation::GaussianNoise { sigma } => {
                let plane = limits.patch_size * limits.patch_size;
                let frames = limits.temporal_patch_size;
                for (i, frame) in Arc::make_mut(&mut prompt.pixel_values).chunks_exact_mut(plane * frames).enumerate() {
                    let channel = i % 3;
                    let (mean, std) = (f64::from(limits.mean[channel]), f64::from(limits.std[channel]));
                    let (first, repeated) = frame.split_at_mut(plane);
                    for (j, value) in first.iter_mut().enumerate() {
                        let at = 2 * (i * plane + j);
                        // Box-Muller; `chance` is never 0.
                        let normal = (-2.0 * chance(at).ln()).sqrt() * (std::f64::consts::TAU * chance(at + 1)).cos();
                        let pixel = (f64::from(*value) * std + mean + sigma * normal).clamp(0.0, 1.0);
                        *value = ((pixel - mean) / std) as f32;
                    }
                    // A picture is one frame, repeated.
                    repeated.chunks_exact_mut(plane).for_each(|frame| frame.copy_from_slice(first));
                }
            }
        }
        Ok(prompt)
    }

    /// Turns patches black.
    fn black_out(&self, prompt: &mut Prompt, is_black: impl Fn(usize) -> bool) {
        let limits = self.processor.limits();
        let width = limits.patch_dim();
        let black: Vec<f32> = (0..3).map(|c| -limits.mean[c] / limits.std[c]).collect();
        for (i, patch) in Arc::make_mut(&mut prompt.pixel_values).chunks_exact_mut(width).enumerate() {
            if is_black(i) {
                for (values, black) in patch.chunks_exact_mut(width / 3).zip(&black) {
                    values.fill(*black);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::image::process;
    use std::io::Cursor;

    fn processor() -> Processor {
        let dir = tempfile::tempdir().unwrap();
        crate::launch::write_toy_folder(dir.path()).unwrap();
        Processor::from_folder(dir.path()).unwrap()
    }

    /// A grey picture, its prompt and its file.
    fn picture(processor: &Processor, width: u32, height: u32) -> (Prompt, Vec<ImageSource>) {
        let image = RgbImage::from_pixel(width, height, [128, 100, 200].into());
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let patches = process(&image, processor.limits()).unwrap();
        let prompt = Prompt {
            input_ids: vec![],
            position_ids: Default::default(),
            pixel_values: patches.values.into(),
            image_grid_thw: vec![patches.grid_thw],
        };
        (prompt, vec![ImageSource::Bytes(png.into_inner().into())])
    }

    fn draws(size: (u32, u32), perturbation: Perturbation, count: u64) -> (Prompt, Vec<Prompt>, Processor) {
        let processor = processor();
        let (prompt, images) = picture(&processor, size.0, size.1);
        let perturber = Perturber::new(&prompt, &images, &processor, perturbation, 1, 2).unwrap();
        let drawn: Vec<Prompt> = (0..count).map(|i| perturber.draw(i).unwrap()).collect();
        assert_eq!(drawn[0], perturber.draw(0).unwrap(), "the same draw is the same picture");
        (prompt.clone(), drawn, processor)
    }

    /// Share of the patches that are black, and of those that are as they were.
    fn shares(prompt: &Prompt, perturbed: &Prompt, processor: &Processor) -> (f64, f64) {
        let limits = processor.limits();
        let width = limits.patch_dim();
        let darkest = |c: usize| -limits.mean[c] / limits.std[c];
        let pairs = || prompt.pixel_values.chunks(width).zip(perturbed.pixel_values.chunks(width));
        let is_black =
            |p: &[f32]| p.chunks(width / 3).enumerate().all(|(c, v)| v.iter().all(|v| (v - darkest(c)).abs() < 1e-5));
        let count = pairs().count() as f64;
        (
            pairs().filter(|(_, p)| is_black(p)).count() as f64 / count,
            pairs().filter(|(before, p)| before == p).count() as f64 / count,
        )
    }

    #[test]
    fn patches_turn_black_at_the_given_rate() {
        for align in [Align::Grid, Align::Pixels] {
            let (prompt, drawn, processor) =
                draws((560, 392), Perturbation::PatchBlackout { probability: 0.3, align }, 2);
            let (black, same) = shares(&prompt, &drawn[0], &processor);
            // A picture that is not resized: blocks of its pixels are the patches.
            assert!((black - 0.3).abs() < 0.05 && (black + same - 1.0).abs() < 1e-9, "{align:?}: {black} {same}");
            assert_ne!(drawn[0], drawn[1]);
        }
    }

    #[test]
    fn blocks_of_pixels_lie_askew_in_a_resized_picture() {
        let perturbation = Perturbation::PatchBlackout { probability: 0.5, align: Align::Pixels };
        let (prompt, drawn, processor) = draws((450, 333), perturbation, 1);
        let (black, same) = shares(&prompt, &drawn[0], &processor);
        assert!(black + same < 0.9, "{black} {same}");
        let mean = |p: &Prompt| p.pixel_values.iter().sum::<f32>() / p.pixel_values.len() as f32;
        assert!(mean(&drawn[0]) < mean(&prompt) - 0.3);
    }

    #[test]
    fn what_is_certain_is_black_all_over() {
        for perturbation in [
            Perturbation::Blank,
            Perturbation::PatchBlackout { probability: 1.0, align: Align::Grid },
            Perturbation::PatchBlackout { probability: 1.0, align: Align::Pixels },
        ] {
            let (prompt, drawn, processor) = draws((100, 60), perturbation, 2);
            assert_eq!(shares(&prompt, &drawn[0], &processor).0, 1.0, "{perturbation:?}");
            assert!(drawn[0] == drawn[1] && perturbation.is_certain());
        }
    }

    #[test]
    fn noise_has_its_spread_and_stays_a_picture() {
        let (prompt, drawn, processor) = draws((280, 280), Perturbation::GaussianNoise { sigma: 0.1 }, 2);
        assert_ne!(drawn[0], drawn[1]);
        let limits = processor.limits();
        let plane = limits.patch_size * limits.patch_size;
        let frames = limits.temporal_patch_size;
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        let planes = |p: &Prompt| p.pixel_values.chunks(plane * frames).map(<[f32]>::to_vec).collect::<Vec<_>>();
        for (i, (before, after)) in planes(&prompt).iter().zip(planes(&drawn[0])).enumerate() {
            assert!(after.chunks(plane).all(|frame| frame == &after[..plane]), "frames are one picture");
            for (a, b) in before[..plane].iter().zip(&after) {
                let noise = f64::from((b - a) * limits.std[i % 3]);
                (sum, squares, count) = (sum + noise, squares + noise * noise, count + 1.0);
            }
        }
        let (mean, spread) = (sum / count, (squares / count).sqrt());
        assert!(mean.abs() < 2e-3 && (spread - 0.1).abs() < 2e-3, "{mean} {spread}");
        let (_, loud, processor) = draws((56, 56), Perturbation::GaussianNoise { sigma: 5.0 }, 1);
        let limits = processor.limits();
        for (i, frame) in loud[0].pixel_values.chunks(plane * frames).enumerate() {
            let pixel = |v: &f32| v * limits.std[i % 3] + limits.mean[i % 3];
            assert!(frame.iter().map(pixel).all(|v| (-1e-5..=1.0 + 1e-5).contains(&v)));
        }
    }

    #[test]
    fn draws_follow_the_configuration() {
        let draw = |config: PerturbationConfig, published, probability| match config.stream(published, probability) {
            Stream::PerturbedLogProbs { draw, .. } => draw,
            other => panic!("{other:?}"),
        };
        let of = |choice| PerturbationConfig { draw: choice, ..PerturbationConfig::default() };
        assert_eq!(draw(of(DrawChoice::Published), Draw::Response, 0.5), Draw::Response);
        assert_eq!(draw(of(DrawChoice::Published), Draw::Prompt, 0.5), Draw::Prompt);
        assert_eq!(draw(of(DrawChoice::Prompt), Draw::Response, 0.5), Draw::Prompt);
        assert_eq!(draw(of(DrawChoice::Response), Draw::Prompt, 0.5), Draw::Response);
        // All draws are the same: one is enough.
        assert_eq!(draw(of(DrawChoice::Response), Draw::Response, 1.0), Draw::Prompt);
    }

    #[test]
    fn pictures_that_are_gone_are_an_error() {
        let processor = processor();
        let (prompt, _) = picture(&processor, 56, 56);
        let perturbation = Perturbation::PatchBlackout { probability: 0.5, align: Align::Pixels };
        let gone = [ImageSource::Path("no/such.png".into())];
        assert!(Perturber::new(&prompt, &gone, &processor, perturbation, 1, 2).is_err());
        assert!(Perturber::new(&prompt, &[], &processor, perturbation, 1, 2).unwrap().draw(0).is_err());
    }
}
