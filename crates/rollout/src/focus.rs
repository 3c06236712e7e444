//! Where the image tokens of a packed batch are, and the visual focus (equations 2 to 4, in the `vgpo` crate) of its
//! rows.

use std::ops::Range;

use burn::tensor::Tensor;
use kernels::Kernels;
use kernels::host::int_tensor;
use kernels::params::to_f32;
use vgpo::{Prototype, PrototypeMode, VgpoError, prototype as prototype_of};

/// The epsilon of equation 3.
pub use vgpo::FOCUS_EPS as EPS;

/// Rows of each image of a prompt inside a packed batch: its image rows cut by the grids' token counts.
pub(crate) fn image_ranges(image_rows: &[usize], prompt: &Range<usize>, grids: &[[usize; 3]]) -> Vec<Range<usize>> {
    let rows: Vec<usize> = image_rows.iter().copied().filter(|r| prompt.contains(r)).collect();
    let patches: usize = grids.iter().map(|g| g.iter().product::<usize>()).sum();
    if rows.is_empty() || patches == 0 {
        return vec![];
    }
    let mut at = 0;
    grids
        .iter()
        .map(|g| {
            let tokens = g.iter().product::<usize>() * rows.len() / patches;
            let range = rows[at]..rows[at + tokens - 1] + 1;
            at += tokens;
            range
        })
        .collect()
}

/// The prototypes of a prompt from packed hidden states `[N, d]`; none without an image.
///
/// # Errors
/// [`VgpoError::ImageRange`] where image rows lie outside of the hidden states.
pub fn prototype<B: Kernels>(
    hidden: &Tensor<B, 2>,
    image_rows: &[usize],
    prompt: &Range<usize>,
    mode: PrototypeMode,
    grids: &[[usize; 3]],
) -> Result<Option<Prototype<B>>, VgpoError> {
    prototype_of(hidden.clone(), &image_ranges(image_rows, prompt, grids), mode)
}

/// Focus of the packed rows `rows` of `hidden [N, d]` to one prompt's prototypes, `[rows]` on the device.
pub fn of_range<B: Kernels>(hidden: &Tensor<B, 2>, rows: Range<usize>, prototype: &Prototype<B>) -> Tensor<B, 1> {
    let d = hidden.dims()[1];
    B::visual_focus(hidden.clone().slice([rows, 0..d]), prototype, EPS)
}

/// Cosine (equation 3) of each of the packed rows `rows` of `hidden [N, d]` to each of the rows `images`, `[R, M]` f32
/// on the device.
pub fn cosines<B: Kernels>(hidden: &Tensor<B, 2>, rows: impl Into<Vec<usize>>, images: &[usize]) -> Tensor<B, 2> {
    let device = hidden.device();
    let unit = |rows: Vec<usize>| {
        let x = to_f32(hidden.clone().select(0, int_tensor(rows, &device)));
        let norm = x.clone().powi_scalar(2).sum_dim(1).sqrt().add_scalar(EPS);
        x.div(norm)
    };
    B::matmul(unit(rows.into()), unit(images.to_vec()).transpose())
}

#[cfg(test)]
mod tests {
    use super::*;

    type B = burn_flex::Flex<f32, i32>;

    /// Regression: the error was dropped, and the responses had no focus as if there were no picture.
    #[test]
    fn image_rows_outside_of_the_states_are_an_error() {
        let hidden = Tensor::<B, 2>::ones([4, 2], &Default::default());
        let of = |rows: &[usize]| prototype(&hidden, rows, &(0..6), PrototypeMode::Mean, &[[1, 2, 4]]);
        assert!(of(&[2, 3]).unwrap().is_some());
        assert!(of(&[]).unwrap().is_none());
        assert!(matches!(of(&[4, 5]), Err(VgpoError::ImageRange { end: 6, tokens: 4, .. })));
    }
}
