//! Visual focus (equations 2-4): the cosine between a generated token's last hidden state and the image prototype.
//!
//! The hidden state is the one at the position of the generated token itself, after the final norm, not the state that
//! predicted it.

use crate::{PrototypeMode, VgpoError};
use burn::tensor::{DType, Tensor, backend::Backend};
use std::ops::Range;

/// The epsilon of equation 3 wherever hidden states are: the focus is computed before any setting of VGPO is known.
pub const FOCUS_EPS: f64 = 1e-8;

/// What a token looks at: one mean hidden state, or one per image.
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
    let sum = |rows: &Range<usize>| hidden.clone().slice([rows.clone(), 0..width]).cast(DType::F32).sum_dim(0); // [1, d]
    let sums: Vec<(Tensor<B, 2>, usize)> = filled.iter().map(|rows| (sum(rows), rows.len())).collect();
    let sums = match mode {
        PrototypeMode::PerImage => sums,
        PrototypeMode::Mean => {
            let (sums, sizes): (Vec<_>, Vec<usize>) = sums.into_iter().unzip();
            vec![(Tensor::cat(sums, 0).sum_dim(0), sizes.iter().sum())]
        }
    };
    let means = sums.into_iter().map(|(sum, size)| sum.div_scalar(size as f32)).collect(); // (2)
    Ok(Some(Prototype { means: Tensor::cat(means, 0) }))
}

/// Visual focus of packed tokens of one prompt (equations 3 and 4), each measured against the same prototypes.
///
/// - `hidden`: `[T, d]` hidden states at the positions of the generated tokens, any float type.
///
/// Returns `[T]` in f32, within `[0, 1]` up to rounding.
pub fn visual_focus<B: Backend>(hidden: Tensor<B, 2>, prototype: &Prototype<B>, eps: f64) -> Tensor<B, 1> {
    let hidden = hidden.cast(DType::F32);
    let norms = norm(hidden.clone(), 1) * norm(prototype.means.clone(), 1).transpose(); // [T, 1] [1, K] -> [T, K]
    let dots = hidden.matmul(prototype.means.clone().transpose()); // [T, K]
    focus_of(cosine(dots, norms, eps))
}

/// The prototypes of rows that are decoded together, each row with those of its own prompt.
#[derive(Debug, Clone)]
pub struct RowPrototypes<B: Backend> {
    /// `[S, K, d]` f32, `K` the most that a row has.
    means: Tensor<B, 3>,
    /// `[S, K]`, their norms.
    norms: Tensor<B, 2>,
}

impl<B: Backend> RowPrototypes<B> {
    /// One entry per row; `None` if no row has a prototype. All prototypes must be of one model, and so of one width.
    pub fn new(prototypes: &[Option<&Prototype<B>>]) -> Option<Self> {
        let first = prototypes.iter().flatten().next()?;
        let (width, device) = (first.means.dims()[1], first.means.device());
        let images = prototypes.iter().flatten().map(|p| p.means.dims()[0]).max()?;
        let of_row = |prototype: &Option<&Prototype<B>>| {
            let Some(Prototype { means }) = prototype else {
                return Tensor::zeros([1, images, width], (&device, DType::F32));
            };
            // A prompt with fewer images repeats its first: a maximum does not mind.
            let missing = images - means.dims()[0];
            let first = || means.clone().slice([0..1, 0..width]).repeat_dim(0, missing);
            match missing {
                0 => means.clone().unsqueeze(),
                _ => Tensor::cat(vec![means.clone(), first()], 0).unsqueeze(),
            }
        };
        let means: Tensor<B, 3> = Tensor::cat(prototypes.iter().map(of_row).collect(), 0);
        Some(Self { norms: norm(means.clone(), 2).reshape([prototypes.len(), images]), means })
    }

    /// The prototypes of each row, `[S, K, d]` f32.
    pub fn means(&self) -> &Tensor<B, 3> {
        &self.means
    }

    /// Visual focus of one token for each row (equations 3 and 4).
    ///
    /// - `hidden`: `[S, d]` their hidden states, any float type; `S` is the number of entries given to
    ///   [`new`](Self::new).
    ///
    /// Returns `[S]` in f32 on the device; without meaning for rows without a prototype.
    pub fn visual_focus(&self, hidden: Tensor<B, 2>, eps: f64) -> Tensor<B, 1> {
        let [rows, images, _] = self.means.dims();
        let hidden: Tensor<B, 3> = hidden.cast(DType::F32).unsqueeze_dim(1); // [S, 1, d]
        let norms = norm(hidden.clone(), 2).reshape([rows, 1]) * self.norms.clone(); // [S, K]
        let dots = (hidden * self.means.clone()).sum_dim(2).reshape([rows, images]); // [S, K]
        focus_of(cosine(dots, norms, eps))
    }
}

/// Euclidean norms along dimension `dim`, which becomes 1.
fn norm<B: Backend, const D: usize>(x: Tensor<B, D>, dim: usize) -> Tensor<B, D> {
    x.square().sum_dim(dim).sqrt()
}

/// Equation 3: `S = <h, mu> / (|h| |mu| + eps)`, from the dot products and the products of the norms, all `[T, K]`.
fn cosine<B: Backend>(dots: Tensor<B, 2>, norms: Tensor<B, 2>, eps: f64) -> Tensor<B, 2> {
    dots / norms.add_scalar(eps) // (3)
}

/// Equation 4: `rho = (S + 1) / 2` of the largest of a token's cosines, `[T, K] -> [T]`.
fn focus_of<B: Backend>(cosine: Tensor<B, 2>) -> Tensor<B, 1> {
    let [tokens, images] = cosine.dims();
    let nearest = match images {
        1 => cosine,
        _ => cosine.max_dim(1), // [T, 1]
    };
    nearest.add_scalar(1.0).div_scalar(2.0).reshape([tokens]) // (4)
}

/// The cosine `S` behind a focus: equation 4 the other way round. Exact in floats where the focus is 1/4 or more.
pub(crate) fn cosine_of<B: Backend>(focus: Tensor<B, 2>) -> Tensor<B, 2> {
    focus.mul_scalar(2.0).sub_scalar(1.0)
}
