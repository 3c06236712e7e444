//! Which tokens of a response look most at its pictures, and the picture of it.

use burn::tensor::Tensor;
use data::{DataError, ImageError, Patches, Processor};
use model_qwen2vl::model::Prompt;
use model_qwen2vl::{DeviceError, Kernels, host};
use report::Fonts;
use report::focus_map::{DrawnMap, FocusMap, Panel, Picture, highest};

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
    /// The focus map, with the fonts of this machine.
    ///
    /// # Errors
    /// A tokenizer that cannot decode the response, a picture without pixels.
    pub fn draw(&self, processor: &Processor) -> Result<DrawnMap<'static>, DataError> {
        let limits = processor.limits();
        let mut values = &self.prompt.pixel_values[..];
        let picture = |&grid_thw: &[usize; 3]| {
            let (own, rest) = values.split_at(grid_thw.iter().product::<usize>() * limits.patch_dim());
            values = rest;
            Picture::from_patches(&Patches { values: own.to_vec(), grid_thw }, limits)
        };
        let pictures: Vec<Picture> = self.prompt.image_grid_thw.iter().map(picture).collect();
        let texts = texts(self.ids, processor)?;
        let map =
            FocusMap { prompt: self.title, pictures: &pictures, texts: &texts, focus: self.focus, panels: self.panels };
        map.draw(Fonts::system()).map_err(cannot_be_drawn)
    }
}

/// What is said of a focus map that has no pixels.
pub fn cannot_be_drawn(error: ImageError) -> DataError {
    DataError::Write { path: "the focus map".into(), source: std::io::Error::other(error) }
}

/// The text of each token, special ones by their names. Of the tokens that share a character the last has it.
fn texts(ids: &[u32], processor: &Processor) -> Result<Vec<String>, DataError> {
    let texts = ids.iter().map(|&id| processor.decode(&[id], false)).collect::<Result<Vec<_>, _>>()?;
    if !texts.iter().any(|text| is_part(text)) {
        return Ok(texts);
    }
    let pieces = processor.pieces(ids, &processor.decode(ids, true)?)?;
    Ok(whole(&texts, &pieces))
}

/// Whether a token holds bytes that are no character by themselves.
fn is_part(text: &str) -> bool {
    text.contains(char::REPLACEMENT_CHARACTER)
}

/// The texts of single tokens, with what each adds to the response in place of those that make a character together.
/// Bytes that become none stay as they are.
fn whole(texts: &[String], pieces: &[String]) -> Vec<String> {
    let shown = |k: usize| {
        let end = (k..pieces.len()).find(|&j| !pieces[j].is_empty());
        let made = end.is_some_and(|j| is_part(&texts[j]) && !is_part(&pieces[j]));
        if is_part(&texts[k]) && made { pieces[k].clone() } else { texts[k].clone() }
    };
    (0..texts.len()).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn a_character_stands_where_it_is_complete() {
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        // Three tokens of an emoji, a special one, and a byte that becomes no character.
        let texts = owned(&["a", "\u{fffd}", "\u{fffd}", "\u{fffd}", "<end>", "\u{fffd}", "b"]);
        let pieces = owned(&["a", "", "", "\u{1f600}", "", "", "\u{fffd}b"]);
        assert_eq!(whole(&texts, &pieces), ["a", "", "", "\u{1f600}", "<end>", "\u{fffd}", "b"]);
    }
}
