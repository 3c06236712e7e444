//! A linear layer, and several of one input in one.

use burn::tensor::{Tensor, backend::Backend};
use comm::Ranks;

use crate::collective;
use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor, Shard, StackPart};

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

    /// As [`forward`](Self::forward) where ranks share the inputs out, each with the columns of the weight that are its:
    /// `x [N, this rank's]` to the sum over ranks of the products, `[N, out]`.
    pub(crate) fn forward_shared(&self, x: Tensor<B, 2>, ranks: &Ranks, name: &'static str) -> Tensor<B, 2> {
        debug_assert!(ranks.is_solo() || self.bias.is_none(), "a bias would be added by every rank");
        collective::sum(self.forward(x), ranks, name)
    }

    /// Adds the gradients of weight and bias under `name.weight`, `name.bias` and returns `dx [N, in]`.
    pub fn backward(&self, x: Tensor<B, 2>, dy: Tensor<B, 2>, name: &str, grads: &mut Gradients<B>) -> Tensor<B, 2> {
        grads.add(&format!("{name}.weight"), B::weight_gradient(dy.clone(), x));
        if self.bias.is_some() {
            grads.add_columns(&format!("{name}.bias"), dy.clone());
        }
        B::matmul(dy, self.weight.clone())
    }
}

impl<B: Backend> Linear<B> {
    /// Shows its parameters to `visitor`, named as in [`backward`](Self::backward).
    pub fn visit(&mut self, name: &str, visitor: &mut impl ParamVisitor<B>) {
        let shard = Shard::whole(&self.weight.dims());
        visitor.visit(&format!("{name}.weight"), &shard, &mut self.weight);
        if let Some(bias) = &mut self.bias {
            let shard = Shard::whole(&bias.dims());
            visitor.visit(&format!("{name}.bias"), &shard, bias);
        }
    }
}

/// Linear layers of the same input, whose weights lie one below the other in one matrix: one product computes them all,
/// side by side. Elsewhere each has its own name.
#[derive(Debug, Clone)]
pub struct LinearStack<B: Backend> {
    /// All of them: `[sum of out, in]`.
    pub linear: Linear<B>,
    /// What each is called behind the stack's prefix, and its `out`, from the first row on.
    pub parts: Vec<(&'static str, usize)>,
}

impl<B: Kernels> LinearStack<B> {
    /// `x [N, in]` to `[N, sum of out]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.linear.forward(x)
    }

    /// Adds the gradients of all weights and biases behind `prefix` and returns `dx [N, in]` for `dy [N, sum of out]`.
    pub fn backward(&self, x: Tensor<B, 2>, dy: Tensor<B, 2>, prefix: &str, grads: &mut Gradients<B>) -> Tensor<B, 2> {
        let weight = B::weight_gradient(dy.clone(), x);
        grads.add_stack(&Self::names(prefix, &self.parts, "weight"), weight);
        if self.linear.bias.is_some() {
            grads.add_stack_columns(&Self::names(prefix, &self.parts, "bias"), dy.clone());
        }
        B::matmul(dy, self.linear.weight.clone())
    }
}

impl<B: Backend> LinearStack<B> {
    /// Names of the `weight`s or `bias`es of layers `parts` behind `prefix`, with their rows.
    pub fn names(prefix: &str, parts: &[(&'static str, usize)], tensor: &str) -> Vec<StackPart> {
        let part = |&(name, rows): &(&str, usize)| StackPart { name: format!("{prefix}.{name}.{tensor}"), rows };
        parts.iter().map(part).collect()
    }

    /// Shows its parameters to `visitor`, named as in [`backward`](Self::backward).
    pub fn visit(&mut self, prefix: &str, visitor: &mut impl ParamVisitor<B>) {
        let [_, width] = self.linear.weight.dims();
        let shards: Vec<Shard> = self.parts.iter().map(|(_, rows)| Shard::whole(&[*rows, width])).collect();
        visitor.visit_stack(&Self::names(prefix, &self.parts, "weight"), &shards, &mut self.linear.weight);
        if let Some(bias) = &mut self.linear.bias {
            let shards: Vec<Shard> = self.parts.iter().map(|(_, rows)| Shard::whole(&[*rows])).collect();
            visitor.visit_stack(&Self::names(prefix, &self.parts, "bias"), &shards, bias);
        }
    }
}
