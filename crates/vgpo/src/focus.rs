//! Visual focus (equations 2-4): the cosine between a generated token's last hidden state and the image prototype.
//!
//! The hidden state is the one at the position of the generated token itself, after the final norm, not the state that
//! predicted it.

use crate::{PrototypeMode, VgpoError, layout::from_host};
use burn::tensor::{DType, Tensor, backend::Backend};
use std::ops::Range;

/// What a token looks at: one mean hidden state, or one an image.
#[derive(Debug, Clone)]
pub struct Prototype<B: Backend> {
    /// `[K, d]` f32; `K` is 1 for [`PrototypeMode::Mean`], else the number of images.
    pub means: Tensor<B, 2>,
}

/// Equation 2 with mean pooling: `mu = 1/N_v sum_k h_k^v`.
///
/// - `hidden`: `[N, d]` last-layer hidden states (after the final norm) of the prompt, any float type.
/// - `images`: the rows of each image's tokens.
///
/// Returns `None` when the prompt has no image token: its responses get factors of 1.
///
/// # Errors
/// [`VgpoError::ImageRange`] when a range reaches outside the prompt.
pub fn prototype<B: Backend>(
    hidden: Tensor<B, 2>,
    images: &[Range<usize>],
    mode: PrototypeMode,
) -> Result<Option<Prototype<B>>, VgpoError> {
    let [tokens, width] = hidden.dims();
    if let Some(image) = images.iter().position(|r| r.start > r.end || r.end > tokens) {
        return Err(VgpoError::ImageRange { image, start: images[image].start, end: images[image].end, tokens });
    }
    let filled: Vec<&Range<usize>> = images.iter().filter(|r| !r.is_empty()).collect();
    if filled.is_empty() {
        return Ok(None);
    }
    // Sums of thousands of rows: f32, whatever the model's float type.
    let sums: Vec<Tensor<B, 2>> = filled
        .iter()
        .map(|rows| {
            hidden.clone().slice([(*rows).clone(), 0..width]).cast(DType::F32).sum_dim(0) // [1, d]
        })
        .collect();
    let sizes = filled.iter().map(|rows| rows.len() as f32);
    let sums = Tensor::cat(sums, 0); // [images, d]
    let means = match mode {
        PrototypeMode::Mean => sums.sum_dim(0).div_scalar(sizes.sum::<f32>()), // [1, d]
        PrototypeMode::PerImage => {
            let sizes: Vec<f32> = sizes.collect();
            let column = from_host(sizes, [filled.len(), 1], &sums.device());
            sums / column // [images, d]
        }
    };
    Ok(Some(Prototype { means }))
}

/// Equations 3 and 4: `S = <h, mu> / (|h| |mu| + eps)`, `rho = (S + 1) / 2`; with several prototypes the largest.
///
/// - `hidden`: `[T, d]` hidden states at the positions of the generated tokens, any float type.
///
/// Returns `[T]` in f32, within `[0, 1]` up to rounding.
pub fn visual_focus<B: Backend>(hidden: Tensor<B, 2>, prototype: &Prototype<B>, eps: f64) -> Tensor<B, 1> {
    let [tokens, _] = hidden.dims();
    let [images, _] = prototype.means.dims();
    let hidden = hidden.cast(DType::F32);
    let norm = |x: Tensor<B, 2>| x.square().sum_dim(1).sqrt();
    let lengths = norm(hidden.clone()).matmul(norm(prototype.means.clone()).transpose()); // [T, K]
    let dots = hidden.matmul(prototype.means.clone().transpose()); // [T, K]
    let cosine = dots / lengths.add_scalar(eps); // (3)
    let cosine = match images {
        1 => cosine,
        _ => cosine.max_dim(1), // [T, 1]
    };
    cosine.add_scalar(1.0).div_scalar(2.0).reshape([tokens]) // (4)
}
