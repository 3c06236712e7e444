//! Which tokens of a response look most at its pictures, and the picture of it.

use burn::tensor::Tensor;
use data::{DataError, Patches, Processor};
use image::ImageFormat;
use model_qwen2vl::model::Prompt;
use model_qwen2vl::{DeviceError, Kernels, host};
use report::focus_map::{FocusMap, Panel, Picture, highest};

/// Cosines of the tokens of highest focus to all image tokens. `hidden` is final-normed, `[R, d]`; the response begins
/// at row `first`, the image tokens are the rows `images`, and `focus` has one number per generated token.
///
/// # Errors
/// A device that cannot be read.
pub fn panels<B: Kernels>(
    hidden: &Tensor<B, 2>,
    first: usize,
    images: &[usize],
    focus: &[f32],
) -> Result<Vec<Panel>, DeviceError> {
    let chosen = highest(focus);
    let rows: Vec<usize> = chosen.iter().map(|token| first + token).collect();
    let all = host::floats(rl::focus::cosines(hidden, rows, images))?; // [chosen, M]
    let cosines = all.chunks(images.len().max(1));
    Ok(chosen.into_iter().zip(cosines).map(|(token, cosines)| Panel { token, cosines: cosines.to_vec() }).collect())
}

/// A response and its prompt, to be drawn.
pub struct Drawn<'a> {
    /// What stands above.
    pub title: &'a str,
    /// The prompt with its pictures.
    pub prompt: &'a Prompt,
    /// `[G]` generated tokens.
    pub ids: &'a [u32],
    /// `[G]` visual focus.
    pub focus: &'a [f32],
    /// Of [`panels`].
    pub panels: &'a [Panel],
}

impl Drawn<'_> {
    /// The focus map as a PNG file.
    ///
    /// # Errors
    /// A tokenizer that cannot decode the response, a picture too large to be written.
    pub fn png(&self, processor: &Processor) -> Result<Vec<u8>, DataError> {
        let limits = processor.limits();
        let mut values = &self.prompt.pixel_values[..];
        let picture = |&grid_thw: &[usize; 3]| {
            let (own, rest) = values.split_at(grid_thw.iter().product::<usize>() * limits.patch_dim());
            values = rest;
            Picture::from_patches(&Patches { values: own.to_vec(), grid_thw }, limits)
        };
        let pictures: Vec<Picture> = self.prompt.image_grid_thw.iter().map(picture).collect();
        let texts = self.ids.iter().map(|&id| processor.decode(&[id], false)).collect::<Result<Vec<_>, _>>()?;
        let map =
            FocusMap { prompt: self.title, pictures: &pictures, texts: &texts, focus: self.focus, panels: self.panels };
        let mut png = std::io::Cursor::new(Vec::new());
        map.draw()
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|e| DataError::Write { path: "the focus map".into(), source: std::io::Error::other(e) })?;
        Ok(png.into_inner())
    }
}
