//! Ragged values of responses as padded tables, on the device.

use burn::tensor::Tensor;
use kernels::Kernels;
use kernels::host::int_tensor;

/// Ragged `[M]` to padded `[R, T]` and back, on the device.
pub struct Ragged {
    lengths: Vec<usize>,
    width: usize,
}

impl Ragged {
    /// For rows of these lengths.
    pub fn new(lengths: &[usize]) -> Self {
        Self { lengths: lengths.to_vec(), width: lengths.iter().copied().max().unwrap_or(0) }
    }

    /// `[M]` to `[R, T]`; padding repeats the first value.
    pub fn pad<B: Kernels>(&self, x: Tensor<B, 1>) -> Tensor<B, 2> {
        let mut index = Vec::with_capacity(self.lengths.len() * self.width);
        let mut start = 0;
        for &len in &self.lengths {
            index.extend((0..self.width).map(|t| if t < len { start + t } else { 0 }));
            start += len;
        }
        let device = x.device();
        x.select(0, int_tensor(index, &device)).reshape([self.lengths.len(), self.width])
    }

    /// `[R, T]` to `[M]`.
    pub fn flatten<B: Kernels>(&self, x: Tensor<B, 2>) -> Tensor<B, 1> {
        let width = self.width;
        let index: Vec<usize> =
            self.lengths.iter().enumerate().flat_map(|(r, &len)| (0..len).map(move |t| r * width + t)).collect();
        let device = x.device();
        x.reshape([self.lengths.len() * width]).select(0, int_tensor(index, &device))
    }

    /// Longest row.
    pub fn width(&self) -> usize {
        self.width
    }
}
