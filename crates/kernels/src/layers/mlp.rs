//! The two MLPs of transformer blocks.

use burn::tensor::{Tensor, backend::Backend};
use comm::Ranks;

use super::lora::Dropout;
use super::residual::FEW;
use super::{Linear, LinearShow, LinearStack};
use crate::ops::{Activation, Kernels};
use crate::params::{Gradients, ParamVisitor};

/// What the sum over ranks is called that ends an MLP.
pub(super) const MLP: &str = "mlp";

/// The MLP of a block.
#[derive(Debug, Clone)]
pub enum Mlp<B: Backend> {
    /// SwiGLU: `down(silu(gate(h)) * up(h))`.
    Gated {
        /// Gate and up, `[2 m, d]`.
        gate_up: LinearStack<B>,
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

/// What an MLP's first layers made of its input.
#[derive(Debug, Clone)]
pub(crate) enum MlpSaved<B: Backend> {
    /// `[N, (gate | up)]`
    Gated(Tensor<B, 2>),
    /// `[N, m]`
    Plain(Tensor<B, 2>),
}

impl<B: Kernels> Mlp<B> {
    /// `h [N, d]` to `[N, d]`.
    pub fn forward(&self, h: Tensor<B, 2>) -> Tensor<B, 2> {
        self.close(self.open(h, None), None, &Ranks::solo())
    }

    /// The last layer, and what it takes.
    pub(crate) fn until_last(&self, h: Tensor<B, 2>, dropout: Option<Dropout>) -> (&Linear<B>, Tensor<B, 2>) {
        match self {
            Self::Gated { gate_up, down } if gate_up.linear.bias.is_none() && h.dims()[0] <= FEW => {
                let dtype = h.dtype();
                (down, B::swiglu_parts(gate_up.linear.partial(h, dropout), dtype))
            }
            Self::Gated { gate_up, down } => (down, B::swiglu(gate_up.linear.forward_dropping(h, dropout))),
            Self::Plain { fc1, fc2, act, .. } => (fc2, B::activate(fc1.forward_dropping(h, dropout), *act)),
        }
    }

    /// The first layers.
    pub(crate) fn open(&self, h: Tensor<B, 2>, dropout: Option<Dropout>) -> MlpSaved<B> {
        match self {
            Self::Gated { gate_up, .. } => MlpSaved::Gated(gate_up.linear.forward_dropping(h, dropout)),
            Self::Plain { fc1, .. } => MlpSaved::Plain(fc1.forward_dropping(h, dropout)),
        }
    }

    /// The rest, where `ranks` share the inside out.
    pub(crate) fn close(&self, saved: MlpSaved<B>, dropout: Option<Dropout>, ranks: &Ranks) -> Tensor<B, 2> {
        let (last, between) = match (self, saved) {
            (Self::Gated { down, .. }, MlpSaved::Gated(gate_up)) => (down, B::swiglu(gate_up)),
            (Self::Plain { fc2, act, .. }, MlpSaved::Plain(pre)) => (fc2, B::activate(pre, *act)),
            _ => unreachable!("saved by another kind of MLP"),
        };
        last.forward_shared(between, dropout, ranks, MLP)
    }

    /// Adds the gradients of its parameters under `name` and returns `dh [N, d]`.
    pub(crate) fn backward(
        &self,
        h: Tensor<B, 2>,
        saved: MlpSaved<B>,
        dy: Tensor<B, 2>,
        [first, last]: [Option<Dropout>; 2],
        name: &str,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        match (self, saved) {
            (Self::Gated { gate_up, down }, MlpSaved::Gated(pre)) => {
                let act = B::swiglu(pre.clone());
                let d_act = down.backward_dropping(act, dy, last, &format!("{name}.down_proj"), grads);
                gate_up.backward_dropping(h, B::swiglu_backward(pre, d_act), first, name, grads)
            }
            (Self::Plain { fc1, fc2, act, names }, MlpSaved::Plain(pre)) => {
                let [fc1_name, fc2_name] = names.map(|part| format!("{name}.{part}"));
                let d = fc2.backward_dropping(B::activate(pre.clone(), *act), dy, last, &fc2_name, grads);
                fc1.backward_dropping(h, B::activate_backward(pre, *act, d), first, &fc1_name, grads)
            }
            _ => unreachable!("saved by another kind of MLP"),
        }
    }

    /// Shows its parameters to `visitor`, named as in `backward`.
    pub fn visit(&mut self, name: &str, visitor: &mut impl ParamVisitor<B>) {
        match self {
            Self::Gated { gate_up, down } => {
                gate_up.visit(name, visitor);
                down.visit(&format!("{name}.down_proj"), visitor);
            }
            Self::Plain { fc1, fc2, names, .. } => {
                fc1.visit(&format!("{name}.{}", names[0]), visitor);
                fc2.visit(&format!("{name}.{}", names[1]), visitor);
            }
        }
    }

    /// Shows its linear layers to `show`, named as in `backward`.
    pub(crate) fn linears(&mut self, name: &str, show: &mut LinearShow<B>) {
        match self {
            Self::Gated { gate_up, down } => {
                gate_up.show(name, show);
                down.show(&format!("{name}.down_proj"), show);
            }
            Self::Plain { fc1, fc2, names, .. } => {
                fc1.show(&format!("{name}.{}", names[0]), show);
                fc2.show(&format!("{name}.{}", names[1]), show);
            }
        }
    }
}
