//! The stream that blocks add to.

use burn::tensor::{Tensor, backend::Backend};

use super::Norm;
use crate::ops::Kernels;

/// Hidden states `[N, d]` between layers, and what the last layer gave and is still to be added: the addition and the
/// norm behind it are one pass over memory.
#[derive(Debug, Clone)]
pub struct Residual<B: Backend> {
    x: Tensor<B, 2>,
    pending: Option<Tensor<B, 2>>,
}

impl<B: Kernels> Residual<B> {
    /// The input of the first block.
    pub fn new(x: Tensor<B, 2>) -> Self {
        Self { x, pending: None }
    }

    /// Adds `y [N, d]`.
    pub fn add(&mut self, y: Tensor<B, 2>) {
        self.pending = Some(match self.pending.take() {
            Some(earlier) => earlier.add(y),
            None => y,
        });
    }

    /// The norm of all that was added, `[N, d]`.
    pub fn normed(&mut self, norm: &Norm<B>) -> Tensor<B, 2> {
        let Some(y) = self.pending.take() else { return norm.forward(self.x.clone()) };
        let (sum, normed) = norm.forward_sum(self.x.clone(), y);
        self.x = sum;
        normed
    }

    /// All that was added, `[N, d]`.
    pub fn sum(&mut self) -> Tensor<B, 2> {
        if let Some(y) = self.pending.take() {
            self.x = self.x.clone().add(y);
        }
        self.x.clone()
    }
}
