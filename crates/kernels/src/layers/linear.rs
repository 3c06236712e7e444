//! A linear layer, and several of one input in one.

use burn::tensor::{Tensor, backend::Backend};
use comm::Ranks;

use super::lora::{Dropout, Lora};
use crate::collective;
use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor, Shard, StackPart, to_f32};

/// `y = x W^T + b` with `weight [out, in]`, and with what an adapter adds.
#[derive(Debug, Clone)]
pub struct Linear<B: Backend> {
    /// `[out, in]`
    pub weight: Tensor<B, 2>,
    /// `[out]`
    pub bias: Option<Tensor<B, 1>>,
    /// What learns in the place of weight and bias, if it has adapters.
    pub lora: Option<Lora<B>>,
}

impl<B: Kernels> Linear<B> {
    /// `x [N, in]` to `[N, out]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.forward_dropping(x, None)
    }

    /// The same in training, where adapters drop some of their inputs.
    pub(crate) fn forward_dropping(&self, x: Tensor<B, 2>, dropout: Option<Dropout>) -> Tensor<B, 2> {
        match &self.lora {
            None => B::affine(x, &self.weight, self.bias.as_ref()),
            Some(lora) => B::affine(x.clone(), &self.weight, self.bias.as_ref()).add(lora.forward(x, dropout)),
        }
    }

    /// `x [N, in]` of few rows to partial sums in f32 without the bias, `[s, N, out]`: see
    /// [`Kernels::partial_affine`].
    pub(crate) fn partial(&self, x: Tensor<B, 2>, dropout: Option<Dropout>) -> Tensor<B, 3> {
        match &self.lora {
            None => B::partial_affine(x, &self.weight),
            Some(lora) => {
                let parts = B::partial_affine(x.clone(), &self.weight);
                Tensor::cat(vec![parts, to_f32(lora.forward(x, dropout)).unsqueeze()], 0)
            }
        }
    }

    /// As [`forward`](Self::forward) where ranks share the inputs out, each with the columns of the weight that are
    /// its: `x [N, this rank's]` to the sum over ranks of the products, `[N, out]`.
    pub(crate) fn forward_shared(
        &self,
        x: Tensor<B, 2>,
        dropout: Option<Dropout>,
        ranks: &Ranks,
        name: &'static str,
    ) -> Tensor<B, 2> {
        debug_assert!(ranks.is_solo() || self.bias.is_none(), "a bias would be added by every rank");
        collective::sum(self.forward_dropping(x, dropout), ranks, name)
    }

    /// Adds the gradients of weight and bias under `name.weight`, `name.bias` and returns `dx [N, in]`. Where adapters
    /// alone learn, theirs are added, under the names of their modules.
    pub fn backward(&self, x: Tensor<B, 2>, dy: Tensor<B, 2>, name: &str, grads: &mut Gradients<B>) -> Tensor<B, 2> {
        self.backward_dropping(x, dy, None, name, grads)
    }

    /// The same behind [`forward_dropping`](Self::forward_dropping).
    pub(crate) fn backward_dropping(
        &self,
        x: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        dropout: Option<Dropout>,
        name: &str,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        if !grads.adapters_only() {
            grads.add(&format!("{name}.weight"), B::weight_gradient(dy.clone(), x.clone()));
            if self.bias.is_some() {
                grads.add_columns(&format!("{name}.bias"), dy.clone());
            }
        }
        self.input_gradient(x, dy, dropout, grads)
    }

    /// `dx [N, in]` for `dy [N, out]`; adapters add their gradients.
    fn input_gradient(
        &self,
        x: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        dropout: Option<Dropout>,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let dx = B::matmul(dy.clone(), self.weight.clone());
        match &self.lora {
            None => dx,
            Some(lora) => dx.add(lora.backward(x, dy, dropout, grads)),
        }
    }
}

/// What is shown linear layers: the layers of one input by name, each with its outputs, and the matrix that they share.
pub type LinearShow<'a, B> = dyn FnMut(&[(String, usize)], &mut Linear<B>) + 'a;

impl<B: Backend> Linear<B> {
    /// Shows it to `show` under `name`.
    pub fn show(&mut self, name: &str, show: &mut LinearShow<B>) {
        let [out, _] = self.weight.dims();
        show(&[(name.to_string(), out)], self);
    }

    /// Shows its parameters to `visitor`, named as in [`backward`](Self::backward).
    pub fn visit(&mut self, name: &str, visitor: &mut impl ParamVisitor<B>) {
        let shard = Shard::whole(&self.weight.dims());
        visitor.visit(&format!("{name}.weight"), &shard, &mut self.weight);
        if let Some(bias) = &mut self.bias {
            let shard = Shard::whole(&bias.dims());
            visitor.visit(&format!("{name}.bias"), &shard, bias);
        }
        if let Some(lora) = &mut self.lora {
            lora.visit(visitor);
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

    /// Adds the gradients of all weights and biases behind `prefix`, or of adapters where they alone learn, and returns
    /// `dx [N, in]` for `dy [N, sum of out]`.
    pub fn backward(&self, x: Tensor<B, 2>, dy: Tensor<B, 2>, prefix: &str, grads: &mut Gradients<B>) -> Tensor<B, 2> {
        self.backward_dropping(x, dy, None, prefix, grads)
    }

    /// The same behind [`Linear::forward_dropping`].
    pub(crate) fn backward_dropping(
        &self,
        x: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        dropout: Option<Dropout>,
        prefix: &str,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        if !grads.adapters_only() {
            let weight = B::weight_gradient(dy.clone(), x.clone());
            grads.add_stack(&Self::names(prefix, &self.parts, "weight"), weight);
            if self.linear.bias.is_some() {
                grads.add_stack_columns(&Self::names(prefix, &self.parts, "bias"), dy.clone());
            }
        }
        self.linear.input_gradient(x, dy, dropout, grads)
    }
}

impl<B: Backend> LinearStack<B> {
    /// Shows its layers to `show`, named behind `prefix`.
    pub(crate) fn show(&mut self, prefix: &str, show: &mut LinearShow<B>) {
        let parts: Vec<_> = self.parts.iter().map(|(name, rows)| (format!("{prefix}.{name}"), *rows)).collect();
        show(&parts, &mut self.linear);
    }

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
        if let Some(lora) = &mut self.linear.lora {
            lora.visit(visitor);
        }
    }
}
