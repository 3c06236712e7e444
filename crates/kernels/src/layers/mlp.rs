//! The two MLPs of transformer blocks.

use burn::tensor::{Tensor, backend::Backend};

use super::Linear;
use crate::ops::{Activation, Kernels};
use crate::params::{Gradients, ParamVisitor};

/// The MLP of a block.
#[derive(Debug, Clone)]
pub enum Mlp<B: Backend> {
    /// SwiGLU: `down(silu(gate(h)) * up(h))`.
    Gated {
        /// `[m, d]`
        gate: Linear<B>,
        /// `[m, d]`
        up: Linear<B>,
        /// `[d, m]`
        down: Linear<B>,
    },
    /// `fc2(act(fc1(h)))`.
    Plain {
        /// `[m, d]`
        fc1: Linear<B>,
        /// `[d, m]`
        fc2: Linear<B>,
        /// Between them.
        act: Activation,
        /// What the two are called.
        names: [&'static str; 2],
    },
}

/// What an MLP's first layers made of its input, `[N, m]` each.
#[derive(Debug, Clone)]
pub(crate) enum MlpSaved<B: Backend> {
    Gated { gate: Tensor<B, 2>, up: Tensor<B, 2> },
    Plain(Tensor<B, 2>),
}

impl<B: Kernels> Mlp<B> {
    /// `h [N, d]` to `[N, d]`.
    pub fn forward(&self, h: Tensor<B, 2>) -> Tensor<B, 2> {
        self.close(self.open(h))
    }

    /// The first layers.
    pub(crate) fn open(&self, h: Tensor<B, 2>) -> MlpSaved<B> {
        match self {
            Self::Gated { gate, up, .. } => MlpSaved::Gated { gate: gate.forward(h.clone()), up: up.forward(h) },
            Self::Plain { fc1, .. } => MlpSaved::Plain(fc1.forward(h)),
        }
    }

    /// The rest.
    pub(crate) fn close(&self, saved: MlpSaved<B>) -> Tensor<B, 2> {
        match (self, saved) {
            (Self::Gated { down, .. }, MlpSaved::Gated { gate, up }) => down.forward(B::swiglu(gate, up)),
            (Self::Plain { fc2, act, .. }, MlpSaved::Plain(pre)) => fc2.forward(B::activate(pre, *act)),
            _ => unreachable!("saved by another kind of MLP"),
        }
    }

    /// Adds the gradients of its parameters under `name` and returns `dh [N, d]`.
    pub(crate) fn backward(
        &self,
        h: Tensor<B, 2>,
        saved: MlpSaved<B>,
        dy: Tensor<B, 2>,
        name: &str,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        match (self, saved) {
            (Self::Gated { gate, up, down }, MlpSaved::Gated { gate: g, up: u }) => {
                let act = B::swiglu(g.clone(), u.clone());
                let d_act = down.backward(act, dy, &format!("{name}.down_proj"), grads);
                let (d_gate, d_up) = B::swiglu_backward(g, u, d_act);
                let dh = gate.backward(h.clone(), d_gate, &format!("{name}.gate_proj"), grads);
                dh.add(up.backward(h, d_up, &format!("{name}.up_proj"), grads))
            }
            (Self::Plain { fc1, fc2, act, names }, MlpSaved::Plain(pre)) => {
                let d = fc2.backward(B::activate(pre.clone(), *act), dy, &format!("{name}.{}", names[1]), grads);
                fc1.backward(h, B::activate_backward(pre, *act, d), &format!("{name}.{}", names[0]), grads)
            }
            _ => unreachable!("saved by another kind of MLP"),
        }
    }

    /// Shows its parameters to `visitor`, named as in `backward`.
    pub fn visit(&mut self, name: &str, visitor: &mut impl ParamVisitor<B>) {
        match self {
            Self::Gated { gate, up, down } => {
                gate.visit(&format!("{name}.gate_proj"), visitor);
                up.visit(&format!("{name}.up_proj"), visitor);
                down.visit(&format!("{name}.down_proj"), visitor);
            }
            Self::Plain { fc1, fc2, names, .. } => {
                fc1.visit(&format!("{name}.{}", names[0]), visitor);
                fc2.visit(&format!("{name}.{}", names[1]), visitor);
            }
        }
    }
}
