//! A linear layer.

use burn::tensor::{Tensor, backend::Backend};

use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor};

/// `y = x W^T + b` with `weight [out, in]`.
#[derive(Debug, Clone)]
pub struct Linear<B: Backend> {
    /// `[out, in]`
    pub weight: Tensor<B, 2>,
    /// `[out]`
    pub bias: Option<Tensor<B, 1>>,
}

impl<B: Kernels> Linear<B> {
    /// `x [N, in]` to `[N, out]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        B::affine(x, &self.weight, self.bias.as_ref())
    }
}

impl<B: Kernels> Linear<B> {
    /// Adds the gradients of weight and bias under `name.weight`, `name.bias` and returns `dx [N, in]`.
    pub fn backward(&self, x: Tensor<B, 2>, dy: Tensor<B, 2>, name: &str, grads: &mut Gradients<B>) -> Tensor<B, 2> {
        grads.add(&format!("{name}.weight"), dy.clone().transpose().matmul(x));
        if self.bias.is_some() {
            grads.add_columns(&format!("{name}.bias"), dy.clone());
        }
        dy.matmul(self.weight.clone())
    }

    /// Shows its parameters to `visitor`, named as in [`backward`](Self::backward).
    pub fn visit(&mut self, name: &str, visitor: &mut impl ParamVisitor<B>) {
        let shape = self.weight.dims();
        visitor.visit(&format!("{name}.weight"), &shape, &mut self.weight);
        if let Some(bias) = &mut self.bias {
            let shape = bias.dims();
            visitor.visit(&format!("{name}.bias"), &shape, bias);
        }
    }
}
