//! One prompt as a model takes it.

use std::sync::Arc;

/// One prompt, ready for the model: ids with expanded image placeholders, positions, pixels. A
/// [model](crate::Scoring::prompt) makes and checks it.
///
/// ```
/// // Three tokens of text; a model makes prompts with pictures.
/// let position_ids = [vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]];
/// let prompt = policy::Prompt {
///     input_ids: vec![5, 9, 7],
///     position_ids,
///     pixel_values: Default::default(),
///     image_grid_thw: vec![],
/// };
/// assert_eq!((prompt.len(), prompt.next_position()), (3, 3));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Token ids `[P]`.
    pub input_ids: Vec<u32>,
    /// M-RoPE positions `[3][P]` (temporal, height, width).
    pub position_ids: [Vec<i64>; 3],
    /// Normalised patches of all images, row-major `[patches, patch_dim]`. Copies of a prompt share them.
    pub pixel_values: Arc<Vec<f32>>,
    /// `[t, h, w]` in patches, one per image.
    pub image_grid_thw: Vec<[usize; 3]>,
}

impl Prompt {
    /// Tokens, `P`.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether there are no tokens; never true for a prompt that a model made.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// Indices of the image tokens, in order; `packing` names their id.
    pub fn image_rows(&self, packing: impl Into<crate::Packing>) -> Vec<usize> {
        let id = packing.into().image_token_id;
        (0..self.len()).filter(|&i| self.input_ids[i] == id).collect()
    }

    /// Position of the first response token: one past the largest of the prompt.
    pub fn next_position(&self) -> i64 {
        self.position_ids.iter().flatten().max().map_or(0, |m| m + 1)
    }
}
