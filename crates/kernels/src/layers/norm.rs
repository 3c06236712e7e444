//! The two norms of transformer blocks.

use burn::tensor::{Tensor, backend::Backend};

use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor, Shard};

/// A norm over the last axis.
#[derive(Debug, Clone)]
pub enum Norm<B: Backend> {
    /// `x / sqrt(mean(x^2) + eps) * weight`.
    Rms {
        /// `[d]`
        weight: Tensor<B, 1>,
        /// Added to the mean square.
        eps: f64,
    },
    /// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`.
    Layer {
        /// `[d]`
        weight: Tensor<B, 1>,
        /// `[d]`
        bias: Tensor<B, 1>,
        /// Added to the variance.
        eps: f64,
    },
}

impl<B: Kernels> Norm<B> {
    /// `x [N, d]` to `[N, d]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Rms { weight, eps } => B::rms_norm(x, weight.clone(), *eps),
            Self::Layer { weight, bias, eps } => <B as Kernels>::layer_norm(x, weight.clone(), bias.clone(), *eps),
        }
    }

    /// Adds the gradients of its parameters under `name` and returns `dx [N, d]`, with `residual` added: the gradient
    /// that went around the norm, if anything did.
    pub fn backward(
        &self,
        x: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        residual: Option<Tensor<B, 2>>,
        name: &str,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        match self {
            Self::Rms { weight, eps } => {
                let (dx, dw) = B::rms_norm_backward(x, weight.clone(), *eps, dy, residual);
                grads.add_columns(&format!("{name}.weight"), dw);
                dx
            }
            Self::Layer { weight, eps, .. } => {
                let (dx, dw, db) = B::layer_norm_backward(x, weight.clone(), *eps, dy);
                grads.add(&format!("{name}.weight"), dw);
                grads.add(&format!("{name}.bias"), db);
                match residual {
                    Some(residual) => residual.add(dx),
                    None => dx,
                }
            }
        }
    }

    /// `x + residual` and its norm, `[N, d]` each: `(sum, normed)`.
    pub fn forward_sum(&self, x: Tensor<B, 2>, residual: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
        match self {
            Self::Rms { weight, eps } => B::add_rms_norm(x, residual, weight.clone(), *eps),
            Self::Layer { .. } => {
                let sum = x.add(residual);
                (sum.clone(), self.forward(sum))
            }
        }
    }

    /// The same for heads: `x [N, heads, hd]` under a norm of `hd`.
    pub(crate) fn forward_heads(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [n, heads, hd] = x.dims();
        self.forward(x.reshape([n * heads, hd])).reshape([n, heads, hd])
    }

    /// As [`backward`](Self::backward), for heads.
    pub(crate) fn backward_heads(
        &self,
        x: Tensor<B, 3>,
        dy: Tensor<B, 3>,
        name: &str,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 3> {
        let [n, heads, hd] = x.dims();
        let flat = |t: Tensor<B, 3>| t.reshape([n * heads, hd]);
        self.backward(flat(x), flat(dy), None, name, grads).reshape([n, heads, hd])
    }
}

impl<B: Backend> Norm<B> {
    /// Shows its parameters to `visitor`, named as in [`backward`](Self::backward).
    pub fn visit(&mut self, name: &str, visitor: &mut impl ParamVisitor<B>) {
        let (weight, bias) = match self {
            Self::Rms { weight, .. } => (weight, None),
            Self::Layer { weight, bias, .. } => (weight, Some(bias)),
        };
        let shard = Shard::whole(&weight.dims());
        visitor.visit(&format!("{name}.weight"), &shard, weight);
        if let Some(bias) = bias {
            visitor.visit(&format!("{name}.bias"), &shard, bias);
        }
    }
}
