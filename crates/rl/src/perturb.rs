//! Perturbed images: what VPPO, PGPO, SRPO and PAPO compare a token's log-prob with.
//!
//! | perturbation | what happens |
//! |---|---|
//! | patch blackout, `resized` | 14x14 blocks of the picture within the run's pixel limits turn black (released VPPO) |
//! | patch blackout, `stored` | 14x14 blocks of the picture before any resize turn black (released PAPO) |
//! | patch blackout, `grid` | each patch that the vision tower sees turns black, wholly or not at all |
//! | Gaussian noise | noise on every pixel of the resized picture, cut to black and white |
//! | blank | all black |

use std::sync::Arc;

use crate::config::field::choices;
use crate::config::section::section;
use ::policy::Prompt;
use data::image::{RgbImage, process, process_image, to_patches};
use data::{ImageSource, Processor};
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::sampler::uniform;
use crate::shaping::{Draw, Stream};

/// Side of a block in pixels, whatever the patch size of the model: the released code knows no other.
const BLOCK: u32 = 14;

/// Where the blocks of a patch blackout lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// On the patches of the vision tower: every block is one patch, all black or all there.
    #[default]
    Grid,
    /// On the picture as it is stored, which is resized afterwards.
    Stored,
    /// On the picture that EasyR1's `process_image` made of it with the run's pixel limits, which is resized once
    /// more, within the limits of the model folder.
    Resized,
}

/// How an algorithm perturbs pictures in its released code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// How often a picture is drawn.
    pub draw: Draw,
    /// Where blocks lie.
    pub align: Align,
}

impl Published {
    /// VPPO's; SRPO, whose code is not known here, takes it too.
    pub const VPPO: Self = Self { draw: Draw::Response, align: Align::Resized };
    /// PAPO's.
    pub const PAPO: Self = Self { draw: Draw::Prompt, align: Align::Stored };
}

/// What is done to a picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Perturbation {
    /// Blocks turn black.
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
    pub(crate) fn is_certain(&self) -> bool {
        match *self {
            Self::PatchBlackout { probability, .. } => probability >= 1.0,
            Self::GaussianNoise { .. } => false,
            Self::Blank => true,
        }
    }
}

/// The kind of a perturbation, as the configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DrawChoice {
    /// As the algorithm was published.
    #[default]
    Published,
    /// [`Draw::Response`].
    Response,
    /// [`Draw::Prompt`].
    Prompt,
}

/// Where the configuration wants the blocks of a blackout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AlignChoice {
    /// As in the algorithm's released code.
    #[default]
    Published,
    /// [`Align::Grid`].
    Grid,
    /// [`Align::Stored`].
    Stored,
    /// [`Align::Resized`].
    Resized,
}

choices!(PerturbationKind { PatchBlackout = "patch_blackout", GaussianNoise = "gaussian_noise", Blank = "blank", });
choices!(AlignChoice { Published = "published", Grid = "grid", Stored = "stored", Resized = "resized", });
choices!(DrawChoice { Published = "published", Response = "response", Prompt = "prompt", });

section! {
    /// How the picture is perturbed where VPPO, SRPO or PAPO compare with a perturbed one. (PGPO compares with none.)
    pub struct PerturbationConfig {
        /// "patch_blackout" turns blocks of 14x14 pixels black, each with the `mask_probability` of the algorithm;
        /// "gaussian_noise" adds noise to every pixel of the resized picture; "blank" turns all of it black.
        kind: PerturbationKind = PerturbationKind::PatchBlackout,
        /// Where the blocks of a blackout lie: on the "resized" picture (within `data.min_pixels` and
        /// `data.max_pixels`, before the model folder's own resize; released code of VPPO), on the "stored" picture
        /// before any resize (released code of PAPO), on the "grid" of the vision tower's patches, or as "published":
        /// VPPO and SRPO resized, PAPO stored.
        align: AlignChoice = AlignChoice::Published,
        /// Standard deviation of the noise, where black is 0 and white 1.
        sigma: f64 = 0.5 => ..=1e6,
        /// A new draw for each "response", one for each "prompt" (cheaper: its responses share the pass), or as
        /// "published": VPPO and SRPO per response, PAPO per prompt.
        draw: DrawChoice = DrawChoice::Published,
    }
}

impl PerturbationConfig {
    /// The stream of an algorithm that was published like this and blacks blocks out with `probability`.
    pub fn stream(&self, published: Published, probability: f64) -> Stream {
        let align = match self.align {
            AlignChoice::Published => published.align,
            AlignChoice::Grid => Align::Grid,
            AlignChoice::Stored => Align::Stored,
            AlignChoice::Resized => Align::Resized,
        };
        let perturbation = match self.kind {
            PerturbationKind::PatchBlackout => Perturbation::PatchBlackout { probability, align },
            PerturbationKind::GaussianNoise => Perturbation::GaussianNoise { sigma: self.sigma },
            PerturbationKind::Blank => Perturbation::Blank,
        };
        let draw = match self.draw {
            // What is the same in every draw is computed once per prompt.
            _ if perturbation.is_certain() => Draw::Prompt,
            DrawChoice::Published => published.draw,
            DrawChoice::Response => Draw::Response,
            DrawChoice::Prompt => Draw::Prompt,
        };
        Stream::PerturbedLogProbs { draw, perturbation }
    }
}

/// Perturbed copies of one prompt.
pub(crate) struct Perturber<'a> {
    prompt: &'a Prompt,
    processor: &'a Processor,
    perturbation: Perturbation,
    /// The pictures that blocks are blacked out of, where those are not the patches.
    pictures: Vec<RgbImage>,
    seed: u64,
    key: u64,
}

impl<'a> Perturber<'a> {
    /// For `prompt`, whose pictures are `images`; `seed` and `key` name its draws.
    ///
    /// # Errors
    /// A picture that cannot be read any more, where its pixels are asked for.
    pub(crate) fn new(
        prompt: &'a Prompt,
        images: &[ImageSource],
        processor: &'a Processor,
        perturbation: Perturbation,
        seed: u64,
        key: u64,
    ) -> Result<Self, TrainError> {
        let limits = processor.limits();
        let decode = |source: &ImageSource| -> Result<RgbImage, data::ImageError> {
            let picture = processor.picture(source)?;
            match perturbation {
                Perturbation::PatchBlackout { align: Align::Resized, .. } => {
                    Ok(process_image(&picture, limits)?.into_owned())
                }
                _ => Ok(picture),
            }
        };
        let pictures = match perturbation {
            Perturbation::PatchBlackout { align: Align::Stored | Align::Resized, .. } => {
                images.iter().map(decode).collect::<Result<_, _>>().map_err(|e| {
                    TrainError::Input(format!("a picture that was read before cannot be read again: {e}"))
                })?
            }
            _ => vec![],
        };
        Ok(Self { prompt, processor, perturbation, pictures, seed, key })
    }

    /// One copy; the same `draw` gives the same one.
    ///
    /// # Errors
    /// Stored pictures that are not those of the prompt.
    pub(crate) fn draw(&self, draw: u64) -> Result<Prompt, TrainError> {
        let chance = |i: usize| f64::from(uniform(self.seed, self.key, draw, i as u64));
        let limits = self.processor.limits();
        let mut prompt = self.prompt.clone();
        match self.perturbation {
            Perturbation::PatchBlackout { probability, align: Align::Grid } => {
                self.black_out(&mut prompt, |patch| chance(patch) < probability);
            }
            Perturbation::Blank => self.black_out(&mut prompt, |_| true),
            Perturbation::PatchBlackout { probability, align } => {
                prompt.pixel_values = self.black_blocks(align, |block| chance(block) < probability)?.into();
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

    /// The patches of the pictures when some of their blocks, counted over all pictures, turn black.
    fn black_blocks(&self, align: Align, is_black: impl Fn(usize) -> bool) -> Result<Vec<f32>, TrainError> {
        let limits = self.processor.limits();
        let mut values = Vec::with_capacity(self.prompt.pixel_values.len());
        let mut blocks = 0;
        for picture in &self.pictures {
            let mut picture = picture.clone();
            let (across, down) = (picture.width().div_ceil(BLOCK), picture.height().div_ceil(BLOCK));
            let black: Vec<bool> = (0..(across * down) as usize).map(|i| is_black(blocks + i)).collect();
            blocks += black.len();
            for (x, y, pixel) in picture.enumerate_pixels_mut() {
                if black[(y / BLOCK * across + x / BLOCK) as usize] {
                    pixel.0 = [0; 3];
                }
            }
            let patches = match align {
                Align::Resized => to_patches(&picture, limits),
                Align::Stored | Align::Grid => process(&picture, limits),
            };
            values.extend(patches.map_err(|e| TrainError::Input(e.to_string()))?.values);
        }
        match values.len() == self.prompt.pixel_values.len() {
            true => Ok(values),
            false => Err(TrainError::Input(
                "the pictures of a prompt changed between two passes over it (or are not kept with it)".into(),
            )),
        }
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
        launch::write_toy_folder(dir.path()).unwrap();
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
        for align in [Align::Grid, Align::Stored, Align::Resized] {
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
        let perturbation = Perturbation::PatchBlackout { probability: 0.5, align: Align::Stored };
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
            Perturbation::PatchBlackout { probability: 1.0, align: Align::Stored },
            Perturbation::PatchBlackout { probability: 1.0, align: Align::Resized },
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

    /// A processor with the run's own limits, as EasyR1 has them.
    fn limited(patch_size: usize, min_pixels: u64, max_pixels: u64) -> Processor {
        let dir = tempfile::tempdir().unwrap();
        launch::write_toy_folder(dir.path()).unwrap();
        let path = dir.path().join("preprocessor_config.json");
        let mut settings: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        settings["patch_size"] = patch_size.into();
        std::fs::write(&path, settings.to_string()).unwrap();
        Processor::from_folder(dir.path()).unwrap().with_limits(min_pixels, max_pixels).unwrap()
    }

    /// A white picture with blocks blacked out at one of the two places: its patches, and those that the written-out
    /// steps give.
    fn blacked_out(processor: &Processor, size: (u32, u32), align: Align) -> (Vec<f32>, Vec<f32>) {
        let (seed, key, draw, probability) = (5, 6, 7, 0.5);
        let limits = processor.limits();
        let white = RgbImage::from_pixel(size.0, size.1, [255; 3].into());
        let mut png = Cursor::new(Vec::new());
        white.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let patches = process(&white, limits).unwrap();
        let prompt = Prompt {
            input_ids: vec![],
            position_ids: Default::default(),
            pixel_values: patches.values.into(),
            image_grid_thw: vec![patches.grid_thw],
        };
        let images = [ImageSource::Bytes(png.into_inner().into())];
        let perturbation = Perturbation::PatchBlackout { probability, align };
        let drawn = Perturber::new(&prompt, &images, processor, perturbation, seed, key).unwrap().draw(draw).unwrap();
        // By hand: 14x14 blocks of the picture at its place, row by row.
        let mut picture = match align {
            Align::Resized => process_image(&white, limits).unwrap().into_owned(),
            _ => white,
        };
        assert_eq!(picture.dimensions() == size, align == Align::Stored, "the limits ask for another size");
        let across = picture.width().div_ceil(14);
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            if f64::from(uniform(seed, key, draw, u64::from(y / 14 * across + x / 14))) < probability {
                pixel.0 = [0; 3];
            }
        }
        let expected = match align {
            Align::Resized => to_patches(&picture, limits),
            _ => process(&picture, limits),
        };
        (drawn.pixel_values.to_vec(), expected.unwrap().values)
    }

    /// VPPO's blocks have 14 pixels of the picture within the run's limits, PAPO's 14 of the stored one, for a tower
    /// with larger patches as well.
    #[test]
    fn blocks_lie_where_the_released_codes_put_them() {
        for patch_size in [14, 16] {
            // 100 x 80 becomes 370 x 296: a block of the stored picture covers 3.7 blocks per side there.
            let processor = limited(patch_size, 110_000, 1_000_000);
            let of = |align| blacked_out(&processor, (100, 80), align);
            let ((stored, by_hand_stored), (resized, by_hand_resized)) = (of(Align::Stored), of(Align::Resized));
            assert_eq!(stored, by_hand_stored, "patches of {patch_size}");
            assert_eq!(resized, by_hand_resized, "patches of {patch_size}");
            assert_ne!(stored, resized);
            // Neighbouring pixels go from white (1.93) to black (-1.79) where blocks end: far more often with small
            // blocks, and at once only where no enlargement comes after.
            let edges = |values: &[f32]| values.windows(2).filter(|w| (w[0] - w[1]).abs() > 1.5).count();
            assert!(edges(&resized) > 2 * edges(&stored), "{} {}", edges(&resized), edges(&stored));
            // 2000 x 21 becomes 3236 x 33, which a second `process_image` would enlarge once more.
            let (resized, by_hand) = blacked_out(&processor, (2000, 21), Align::Resized);
            assert_eq!(resized, by_hand, "patches of {patch_size}");
        }
    }

    #[test]
    fn each_algorithm_has_its_own_place() {
        let place = |align, published| {
            let config = PerturbationConfig { align, ..PerturbationConfig::default() };
            match config.stream(published, 0.5) {
                Stream::PerturbedLogProbs { perturbation: Perturbation::PatchBlackout { align, .. }, .. } => align,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(place(AlignChoice::Published, Published::VPPO), Align::Resized);
        assert_eq!(place(AlignChoice::Published, Published::PAPO), Align::Stored);
        for published in [Published::VPPO, Published::PAPO] {
            assert_eq!(place(AlignChoice::Grid, published), Align::Grid);
            assert_eq!(place(AlignChoice::Stored, published), Align::Stored);
            assert_eq!(place(AlignChoice::Resized, published), Align::Resized);
        }
    }

    #[test]
    fn draws_follow_the_configuration() {
        let draw = |config: PerturbationConfig, draw, probability| match config
            .stream(Published { draw, align: Align::Grid }, probability)
        {
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
        let perturbation = Perturbation::PatchBlackout { probability: 0.5, align: Align::Stored };
        let gone = [ImageSource::Path("no/such.png".into())];
        assert!(Perturber::new(&prompt, &gone, &processor, perturbation, 1, 2).is_err());
        assert!(Perturber::new(&prompt, &[], &processor, perturbation, 1, 2).unwrap().draw(0).is_err());
    }
}
