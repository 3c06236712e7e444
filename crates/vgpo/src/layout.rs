//! The padded layout `[R, T]`: which cells hold tokens, and which rows form a group.

use crate::VgpoError;
use burn::tensor::{Bool, DType, Tensor, TensorData, backend::Backend};
use std::collections::HashMap;

/// The responses of a batch, one row each. All three slices have one entry per response.
#[derive(Debug, Clone, Copy)]
pub struct Responses<'a> {
    /// Tokens of each response; 0 is allowed and leaves its factors at 1.
    pub lengths: &'a [usize],
    /// Group of each response: equal numbers share a prompt. Any numbers, in any order.
    pub groups: &'a [usize],
    /// Whether the prompt has an image. Without one there is nothing to look at and the factors are 1.
    pub has_image: &'a [bool],
    /// What each response is known by, whatever batch it is in and whichever rank asks. Read by
    /// [`Control::Permuted`](crate::Control::Permuted) alone, and may be empty without it.
    pub names: &'a [u64],
}

impl Responses<'_> {
    /// Checks the slices against a visual focus of `rows` x `width`.
    pub(crate) fn check(&self, rows: usize, width: usize) -> Result<(), VgpoError> {
        for (what, found) in
            [("lengths", self.lengths.len()), ("groups", self.groups.len()), ("has_image", self.has_image.len())]
        {
            if found != rows {
                return Err(VgpoError::Rows { what, found, rows });
            }
        }
        match self.lengths.iter().position(|&length| length > width) {
            Some(row) => Err(VgpoError::Length { row, length: self.lengths[row], width }),
            None => Ok(()),
        }
    }

    /// Checks that each of `rows` responses has a name.
    pub(crate) fn check_names(&self, rows: usize) -> Result<(), VgpoError> {
        match self.names.len() {
            found if found == rows => Ok(()),
            found => Err(VgpoError::Rows { what: "names", found, rows }),
        }
    }

    /// Tokens that take part in the equations: those of responses whose prompt has an image.
    pub(crate) fn visual_lengths(&self) -> Vec<usize> {
        std::iter::zip(self.lengths, self.has_image).map(|(&length, &image)| if image { length } else { 0 }).collect()
    }
}

/// Geometry of a batch on the device; a row of length 0 takes no part.
pub(crate) struct Layout<B: Backend> {
    /// Tokens of each row that take part.
    pub lengths: Vec<usize>,
    /// `[R, T]`, true where there is no token.
    pub padding: Tensor<B, 2, Bool>,
    /// `[R, 1]` number of tokens, at least 1 so that it can divide.
    pub counts: Tensor<B, 2>,
    /// `[1, T]` 1-based token positions `t`.
    pub positions: Tensor<B, 2>,
    /// Where everything lives.
    pub device: B::Device,
}

impl<B: Backend> Layout<B> {
    pub(crate) fn new(lengths: Vec<usize>, width: usize, device: &B::Device) -> Self {
        let rows = lengths.len();
        // Positions are made on the host in f32: an integer range turned into the backend's float would round above 256
        // in bf16.
        let positions = from_host((1..=width).map(|t| t as f32).collect(), [1, width], device);
        let limits = column(lengths.iter().map(|&t| t as f32), device);
        let counts = limits.clone().clamp_min(1.0);
        let padding = positions.clone().expand([rows, width]).greater(limits.expand([rows, width]));
        Self { lengths, padding, counts, positions, device: device.clone() }
    }

    /// Number of rows `R` and columns `T`.
    pub(crate) fn dims(&self) -> [usize; 2] {
        self.padding.dims()
    }

    /// Whether the batch has cells without a token of its own making: rows of different lengths, or a row that takes no
    /// part. Columns beyond the longest row do not count.
    pub(crate) fn is_ragged(&self) -> bool {
        self.lengths.windows(2).any(|pair| pair[0] != pair[1]) || self.lengths.first() == Some(&0)
    }

    /// Mean over each row's tokens, `[R, T] -> [R, 1]`; `x` must hold 0 in the padding.
    pub(crate) fn row_mean(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        x.sum_dim(1) / self.counts.clone()
    }

    /// Min-max over each row's tokens: `(x - min) / (max - min + eps)`, 0 in the padding. `[R, T] -> [R, T]`
    pub(crate) fn row_min_max(&self, x: Tensor<B, 2>, eps: f64) -> Tensor<B, 2> {
        min_max(x, self.padding.clone(), eps)
    }
}

/// `(x - min) / (max - min + eps)` along dimension 1, ignoring and zeroing the cells where `skip` is true.
pub(crate) fn min_max<B: Backend>(x: Tensor<B, 2>, skip: Tensor<B, 2, Bool>, eps: f64) -> Tensor<B, 2> {
    let (low, high) = extremes(x.clone(), skip.clone());
    let range = (high - low.clone()).add_scalar(eps);
    // A row that is skipped whole has an infinite range here; the fill makes it 0.
    ((x - low) / range).mask_fill(skip, 0.0)
}

/// Smallest and largest along dimension 1 without the cells where `skip` is true, `[R, T] -> ([R, 1], [R, 1])`; the
/// largest and the smallest float where all are skipped.
pub(crate) fn extremes<B: Backend>(x: Tensor<B, 2>, skip: Tensor<B, 2, Bool>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let low = x.clone().mask_fill(skip.clone(), f32::MAX).min_dim(1);
    let high = x.mask_fill(skip, f32::MIN).max_dim(1);
    (low, high)
}

/// Membership of rows in groups, built from explicit ids.
pub(crate) struct Groups<B: Backend> {
    /// `[G, R]`, true where the row is not a member of the group.
    pub outside: Tensor<B, 2, Bool>,
    /// `[G, 1]` members, at least 1.
    pub counts: Tensor<B, 2>,
}

impl<B: Backend> Groups<B> {
    /// Rows with `lengths` 0 belong to no group: they neither stretch nor shift the scores of the others.
    pub(crate) fn new(groups: &[usize], lengths: &[usize], device: &B::Device) -> Self {
        let mut dense = HashMap::new();
        let index: Vec<usize> = groups
            .iter()
            .map(|id| {
                let next = dense.len();
                *dense.entry(*id).or_insert(next)
            })
            .collect();
        let (rows, number) = (groups.len(), dense.len());
        let mut outside = vec![true; number * rows];
        let mut counts = vec![0_f32; number];
        for (row, &group) in index.iter().enumerate() {
            if lengths[row] > 0 {
                outside[group * rows + row] = false;
                counts[group] += 1.0;
            }
        }
        Self {
            outside: Tensor::from_data(TensorData::new(outside, [number, rows]), device),
            counts: from_host(counts, [number, 1], device).clamp_min(1.0),
        }
    }
}

/// A host vector as an f32 tensor, whatever the backend's default float is.
pub(crate) fn from_host<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// One number per row, as `[R, 1]` f32.
pub(crate) fn column<B: Backend>(values: impl IntoIterator<Item = f32>, device: &B::Device) -> Tensor<B, 2> {
    let values: Vec<f32> = values.into_iter().collect();
    let rows = values.len();
    from_host(values, [rows, 1], device)
}

/// Reads a tensor into f32 host memory.
pub(crate) fn to_host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, VgpoError> {
    let data = tensor.try_into_data().map_err(|error| VgpoError::Device(format!("{error:?}")))?;
    data.convert::<f32>().into_vec().map_err(|error| VgpoError::Device(format!("{error:?}")))
}
