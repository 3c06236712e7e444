//! Visual focus (equations 2-4) where the hidden states are: rows being decoded, and packed groups.

use std::ops::Range;

use ::vgpo::{Prototype, PrototypeMode, prototype as prototype_of, visual_focus};
use burn::tensor::Tensor;
use model_qwen2vl::Kernels;
use model_qwen2vl::params::to_f32;

/// The epsilon of equation 3.
pub const EPS: f64 = 1e-8;

/// The prototypes of one prompt, `[images or 1, d]` in f32.
pub type Rows<B> = Prototype<B>;

/// Rows of each image of a prompt inside a packed batch: its image rows cut by the grids' token counts.
pub fn image_ranges(image_rows: &[usize], prompt: &Range<usize>, grids: &[[usize; 3]]) -> Vec<Range<usize>> {
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
pub fn prototype<B: Kernels>(
    hidden: &Tensor<B, 2>,
    image_rows: &[usize],
    prompt: &Range<usize>,
    mode: PrototypeMode,
    grids: &[[usize; 3]],
) -> Option<Rows<B>> {
    prototype_of(hidden.clone(), &image_ranges(image_rows, prompt, grids), mode).ok().flatten()
}

/// The prototypes of rows that are decoded together; it is as good as the rows stay the same.
pub struct Stack<B: Kernels> {
    /// `[S, images, d]` in f32.
    means: Tensor<B, 3>,
    /// Their norms, `[S, images, 1]`.
    norms: Tensor<B, 3>,
}

impl<B: Kernels> Stack<B> {
    /// Of rows with these prototypes; none if no row has one.
    pub fn new(prototypes: &[Option<&Rows<B>>]) -> Option<Self> {
        let first = prototypes.iter().flatten().next()?;
        let (d, device) = (first.means.dims()[1], first.means.device());
        let images = prototypes.iter().flatten().map(|p| p.means.dims()[0]).max()?;
        // Prompts with fewer images repeat their first: a maximum does not mind.
        let stacked: Vec<Tensor<B, 3>> = prototypes
            .iter()
            .map(|p| match p {
                Some(p) => {
                    let k = p.means.dims()[0];
                    let more = || p.means.clone().slice([0..1, 0..d]).repeat_dim(0, images - k);
                    let means =
                        if k == images { p.means.clone() } else { Tensor::cat(vec![p.means.clone(), more()], 0) };
                    means.unsqueeze()
                }
                None => Tensor::zeros([1, images, d], &device),
            })
            .collect();
        let means = Tensor::cat(stacked, 0);
        Some(Self { norms: norms(means.clone()), means })
    }

    /// Focus of each row of `states [S, d]` to its own prototypes, `[S]` on the device; without meaning for rows without one.
    pub fn focus(&self, states: &Tensor<B, 2>) -> Tensor<B, 1> {
        let h: Tensor<B, 3> = to_f32(states.clone()).unsqueeze_dim(1);
        let dot = h.clone().mul(self.means.clone()).sum_dim(2);
        let cosine = dot.div(norms(h).mul(self.norms.clone()).add_scalar(EPS)); // (3) [S, images, 1]
        cosine.max_dim(1).add_scalar(1.0).mul_scalar(0.5).reshape([states.dims()[0]]) // (4)
    }
}

fn norms<B: Kernels>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    x.powi_scalar(2).sum_dim(2).sqrt()
}

/// Focus of the packed rows `rows` of `hidden [N, d]` to one prompt's prototypes, `[rows]` on the device.
pub fn of_range<B: Kernels>(hidden: &Tensor<B, 2>, rows: Range<usize>, prototype: &Rows<B>) -> Tensor<B, 1> {
    let d = hidden.dims()[1];
    visual_focus(hidden.clone().slice([rows, 0..d]), prototype, EPS)
}
