//! The stream that blocks add to.

use burn::tensor::{Tensor, backend::Backend};
use comm::Ranks;

use super::lora::Dropout;
use super::{Linear, Norm};
use crate::ops::{Kernels, plain};

/// Hidden states `[N, d]` between layers, and what the last layer gave and is still to be added: the addition and the
/// norm behind it are one pass over memory.
#[derive(Debug, Clone)]
pub struct Residual<B: Backend> {
    x: Tensor<B, 2>,
    pending: Option<Pending<B>>,
}

/// What is still to be added.
#[derive(Debug, Clone)]
enum Pending<B: Backend> {
    /// `[N, d]`
    Whole(Tensor<B, 2>),
    /// Partial sums of a product of few rows, `[s, N, d]`.
    Parts(Tensor<B, 3>),
}

/// Most rows of a product that is taken in parts: what decoding has.
pub(super) const FEW: usize = 128;

impl<B: Kernels> Residual<B> {
    /// The input of the first block.
    pub fn new(x: Tensor<B, 2>) -> Self {
        Self { x, pending: None }
    }

    /// Adds what `linear` makes of `y [N, in]`, whose columns `ranks` share out.
    pub(crate) fn add(
        &mut self,
        linear: &Linear<B>,
        y: Tensor<B, 2>,
        dropout: Option<Dropout>,
        ranks: &Ranks,
        name: &'static str,
    ) {
        self.sum();
        self.pending = Some(match ranks.is_solo() && linear.bias.is_none() && y.dims()[0] <= FEW {
            true => Pending::Parts(linear.partial(y, dropout)),
            false => Pending::Whole(linear.forward_shared(y, dropout, ranks, name)),
        });
    }

    /// The norm of all that was added, `[N, d]`.
    pub fn normed(&mut self, norm: &Norm<B>) -> Tensor<B, 2> {
        let (sum, normed) = match (self.pending.take(), norm) {
            (None, _) => return norm.forward(self.x.clone()),
            (Some(Pending::Parts(parts)), Norm::Rms { weight, eps }) => {
                B::add_parts_rms_norm(self.x.clone(), parts, weight.clone(), *eps)
            }
            (Some(y), _) => norm.forward_sum(self.x.clone(), self.whole(y)),
        };
        self.x = sum;
        normed
    }

    /// All that was added, `[N, d]`.
    pub fn sum(&mut self) -> Tensor<B, 2> {
        if let Some(y) = self.pending.take() {
            self.x = self.x.clone().add(self.whole(y));
        }
        self.x.clone()
    }

    fn whole(&self, y: Pending<B>) -> Tensor<B, 2> {
        match y {
            Pending::Whole(y) => y,
            Pending::Parts(parts) => plain::whole(parts, self.x.dtype()),
        }
    }
}
