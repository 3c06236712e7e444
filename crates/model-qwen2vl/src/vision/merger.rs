//! The merger: patches of a square become one token of the decoder's width.

use burn::tensor::{Tensor, backend::Backend};
use kernels::layers::{Linear, LinearShow, Norm};
use kernels::params::{Gradients, ParamVisitor};
use kernels::{Activation, Kernels};

use crate::config::TowerNames;

/// Norm, `fc1`, GELU (the exact one in every family), `fc2`.
#[derive(Debug, Clone)]
pub(crate) struct Merger<B: Backend> {
    /// Over `w` values of a patch, or with `join_first` over all `u w` of a token.
    pub(crate) norm: Norm<B>,
    /// `[u w, u w]`
    pub(crate) fc1: Linear<B>,
    /// `[d, u w]`
    pub(crate) fc2: Linear<B>,
    /// Patches a token, `u`.
    pub(crate) unit: usize,
    /// Whether the patches are joined before the norm (DeepStack) or behind it.
    pub(crate) join_first: bool,
    pub(crate) names: &'static TowerNames,
}

impl<B: Kernels> Merger<B> {
    /// What the norm takes: `x [N, w]`, joined or not.
    fn input(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let [n, w] = x.dims();
        if self.join_first { x.reshape([n / self.unit, self.unit * w]) } else { x }
    }

    /// Normed and joined: `[N / u, u w]`.
    fn joined(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let [rows, width] = input.dims();
        let y = self.norm.forward(input);
        if self.join_first { y } else { y.reshape([rows / self.unit, self.unit * width]) }
    }

    /// `x [N, w]` to `[N / u, d]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let pre = self.fc1.forward(self.joined(self.input(x)));
        self.fc2.forward(B::activate(pre, Activation::Gelu))
    }

    /// Adds its gradients under `name` and returns `dx [N, w]` for `dy [N / u, d]`. What it needs is computed again.
    pub(crate) fn backward(
        &self,
        x: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        name: &str,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let dims = x.dims();
        let input = self.input(x);
        let normed = input.dims();
        let joined = self.joined(input.clone());
        let pre = self.fc1.forward(joined.clone());
        let [fc1, fc2] = self.names.merger.map(|fc| format!("{name}.{fc}"));
        let d = self.fc2.backward(B::activate(pre.clone(), Activation::Gelu), dy, &fc2, grads);
        let d = self.fc1.backward(joined, B::activate_backward(pre, Activation::Gelu, d), &fc1, grads);
        self.norm
            .backward(input, d.reshape(normed), None, &format!("{name}.{}", self.names.merger_norm), grads)
            .reshape(dims)
    }

    pub(crate) fn linears(&mut self, name: &str, show: &mut LinearShow<B>) {
        self.fc1.show(&format!("{name}.{}", self.names.merger[0]), show);
        self.fc2.show(&format!("{name}.{}", self.names.merger[1]), show);
    }

    pub(crate) fn visit(&mut self, name: &str, visitor: &mut impl ParamVisitor<B>) {
        self.norm.visit(&format!("{name}.{}", self.names.merger_norm), visitor);
        self.fc1.visit(&format!("{name}.{}", self.names.merger[0]), visitor);
        self.fc2.visit(&format!("{name}.{}", self.names.merger[1]), visitor);
    }
}
