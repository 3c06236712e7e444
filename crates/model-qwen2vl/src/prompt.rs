//! Prompts of these models: checked, and with their M-RoPE positions.

use std::sync::Arc;

use policy::{ModelError, Packing, Prompt};

use crate::config::QwenVlConfig;
use crate::rope::mrope_positions;

impl From<&QwenVlConfig> for Packing {
    fn from(config: &QwenVlConfig) -> Self {
        Self { image_token_id: config.image_token_id, rope: config.text.rope() }
    }
}

impl QwenVlConfig {
    /// Checks that placeholders, grids and pixels agree and computes the positions. `pixel_values` are the normalised
    /// patches of all images, row-major `[patches, patch_dim]`, and `image_grid_thw` has `[t, h, w]` in patches for
    /// each of them.
    ///
    /// # Errors
    /// An empty prompt, an id outside the vocabulary, a video token, or images and placeholders that differ.
    pub fn prompt(
        &self,
        input_ids: Vec<u32>,
        pixel_values: Vec<f32>,
        image_grid_thw: Vec<[usize; 3]>,
    ) -> Result<Prompt, ModelError> {
        let position_ids = self.checked_positions(&input_ids, &pixel_values, &image_grid_thw)?;
        Ok(Prompt { input_ids, position_ids, pixel_values: Arc::new(pixel_values), image_grid_thw })
    }

    /// Whether [`prompt`](Self::prompt) would make this prompt.
    ///
    /// # Errors
    /// As there, and positions that are not those of its tokens.
    pub fn check_prompt(&self, prompt: &Prompt) -> Result<(), ModelError> {
        let Prompt { input_ids, position_ids, pixel_values, image_grid_thw } = prompt;
        match self.checked_positions(input_ids, pixel_values, image_grid_thw)? == *position_ids {
            true => Ok(()),
            false => Err(ModelError::Input("the positions of the prompt are not those of its tokens".into())),
        }
    }

    fn checked_positions(
        &self,
        input_ids: &[u32],
        pixel_values: &[f32],
        image_grid_thw: &[[usize; 3]],
    ) -> Result<[Vec<i64>; 3], ModelError> {
        if input_ids.is_empty() {
            return Err(ModelError::Input("the prompt is empty".into()));
        }
        if let Some(id) = input_ids.iter().find(|&&id| id as usize >= self.text.vocab_size) {
            return Err(ModelError::Input(format!(
                "token id {id} is outside the model's vocabulary of {}; is the tokenizer another model's?",
                self.text.vocab_size
            )));
        }
        let merge = self.vision.spatial_merge_size;
        if let Some([t, h, w]) =
            image_grid_thw.iter().find(|[t, h, w]| t * h * w == 0 || h % merge != 0 || w % merge != 0)
        {
            return Err(ModelError::Input(format!(
                "an image grid of {t} x {h} x {w} patches cannot be merged {merge} x {merge}"
            )));
        }
        let patches: usize = image_grid_thw.iter().map(|g| g.iter().product::<usize>()).sum();
        if patches * self.vision.patch_dim() != pixel_values.len() {
            return Err(ModelError::Input(format!(
                "the image grids need {patches} patches of {} values, {} values were given",
                self.vision.patch_dim(),
                pixel_values.len()
            )));
        }
        mrope_positions(self, input_ids, image_grid_thw)
    }

    /// The prompt as it is without its pictures: image tokens and the vision start and end around them are gone, and
    /// the positions are those of the text that is left. The chat template writes the same of a message without a
    /// picture, but for text that touches across the gap, which a tokenizer might join. `None` if nothing is left.
    pub fn without_images(&self, prompt: &Prompt) -> Option<Prompt> {
        let vision = self.vision_token_ids();
        let input_ids: Vec<u32> = prompt.input_ids.iter().copied().filter(|id| !vision.contains(id)).collect();
        if input_ids.is_empty() {
            return None;
        }
        let position_ids = mrope_positions(self, &input_ids, &[]).ok()?;
        Some(Prompt { input_ids, position_ids, pixel_values: Arc::default(), image_grid_thw: vec![] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prompt is checked again where it is answered: whatever does not fit is named.
    #[test]
    fn a_changed_prompt_is_refused() {
        let config = QwenVlConfig::preset("small").unwrap();
        let [image, start, end] = [config.image_token_id, config.vision_start_token_id, config.vision_end_token_id];
        let prompt =
            config.prompt(vec![10, start, image, end], vec![0.5; 4 * config.vision.patch_dim()], vec![[1, 2, 2]]);
        let prompt = prompt.unwrap();
        config.check_prompt(&prompt).unwrap();
        type Change = fn(&mut Prompt);
        let changes: [(Change, &str); 5] = [
            (|p| p.pixel_values = Arc::default(), "4 patches"),
            (|p| p.image_grid_thw = vec![[1, 2, 4]], "8 patches"),
            (|p| p.input_ids[2] = 11, "do not match"),
            (|p| p.input_ids[0] = u32::MAX, "outside the model's vocabulary"),
            (|p| p.position_ids[1][0] = 7, "positions"),
        ];
        for (change, why) in changes {
            let mut changed = prompt.clone();
            change(&mut changed);
            let error = config.check_prompt(&changed).unwrap_err().to_string();
            assert!(error.contains(why), "{error} instead of {why}");
        }
    }

    /// Without its pictures a prompt is its text, and positions count as text's do.
    #[test]
    fn a_prompt_without_its_pictures_is_its_text() {
        let config = QwenVlConfig::preset("small").unwrap();
        let [image, start, end] = [config.image_token_id, config.vision_start_token_id, config.vision_end_token_id];
        let values = |patches: usize| vec![0.5; patches * config.vision.patch_dim()];
        // text <2x3 tokens> text <1x1 token> text
        let ids = [&[10, start], &[image; 6][..], &[end, 11, 12, start, image, end, 13]].concat();
        let prompt = config.prompt(ids, values(28), vec![[1, 4, 6], [1, 2, 2]]).unwrap();
        let text = config.without_images(&prompt).unwrap();
        assert_eq!(text, config.prompt(vec![10, 11, 12, 13], vec![], vec![]).unwrap());
        assert_eq!((text.position_ids[0].clone(), text.next_position()), (vec![0, 1, 2, 3], 4));
        assert!(prompt.next_position() > 4, "the pictures had positions of their own");
        assert_eq!(config.without_images(&text), Some(text.clone()), "nothing to take out");
        let bare = config.prompt(vec![start, image, end], values(4), vec![[1, 2, 2]]).unwrap();
        assert_eq!(config.without_images(&bare), None);
    }
}
