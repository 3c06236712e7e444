//! The decoder: embedding, layers, final norm, head.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, backend::Backend};

use crate::attention::decode::PromptKv;
use crate::attention::packed::{KvGradients, Packed};
use crate::config::TextConfig;
use crate::layers::{Attend, BlockSaved, TransformerBlock};
use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor};
use crate::rope::Rotary;

/// The decoder's parameters.
#[derive(Debug, Clone)]
pub struct Decoder<B: Backend> {
    pub(crate) config: TextConfig,
    /// `[V, d]`
    pub(crate) embed: Tensor<B, 2>,
    pub(crate) layers: Vec<TransformerBlock<B>>,
    pub(crate) norm: Tensor<B, 1>,
    /// `[V, d]`; none if tied to the embedding.
    pub(crate) lm_head: Option<Tensor<B, 2>>,
}

/// Name of the embedding table.
pub const EMBED: &str = "model.embed_tokens.weight";
/// Name of an untied head.
pub const LM_HEAD: &str = "lm_head.weight";

/// What the decoder's backward needs.
pub struct DecoderSaved<B: Backend> {
    blocks: Vec<BlockSaved<B>>,
    last: Tensor<B, 2>,
}

impl<B: Kernels> Decoder<B> {
    /// The head's matrix `[V, d]` and the name its gradient goes under.
    pub fn head(&self) -> (&Tensor<B, 2>, &'static str) {
        match &self.lm_head {
            Some(w) => (w, LM_HEAD),
            None => (&self.embed, EMBED),
        }
    }

    /// Embedded tokens `x [N, d]` to final-normed hidden states `[N, d]`.
    pub fn forward(&self, mut x: Tensor<B, 2>, rotary: &Rotary<B>, attend: &mut impl Attend<B>) -> Tensor<B, 2> {
        for layer in &self.layers {
            x = layer.forward(x, rotary, attend);
        }
        B::rms_norm(x, self.norm.clone(), self.config.rms_norm_eps)
    }

    /// As [`forward`](Self::forward) over packed tokens, keeping each layer's input, and its inside too unless `recompute`. Keys and
    /// values of every layer go to `kv` too, if it is there.
    pub fn forward_saving(
        &self,
        mut x: Tensor<B, 2>,
        packed: Packed<B>,
        recompute: bool,
        mut kv: Option<&mut PromptKv<B>>,
    ) -> (Tensor<B, 2>, DecoderSaved<B>) {
        let mut blocks = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let (y, saved) = layer.forward_saving(x, packed, recompute, kv.as_deref_mut());
            x = y;
            blocks.push(saved);
        }
        let y = B::rms_norm(x.clone(), self.norm.clone(), self.config.rms_norm_eps);
        (y, DecoderSaved { blocks, last: x })
    }

    /// Gradient of the embedded tokens `[N, d]` for `dy [N, d]`, the gradient of the normed hidden states; layer by layer
    /// (design decision 3), so that one layer's activations are alive if they are recomputed.
    pub fn backward(
        &self,
        saved: DecoderSaved<B>,
        packed: Packed<B>,
        dy: Tensor<B, 2>,
        kv: &mut KvGradients<B>,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let DecoderSaved { mut blocks, last } = saved;
        let (mut dx, dw) = B::rms_norm_backward(last, self.norm.clone(), self.config.rms_norm_eps, dy);
        grads.add("model.norm.weight", dw);
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let Some(saved) = blocks.pop() else { break };
            dx = layer.backward(saved, packed, dx, kv, &format!("model.layers.{i}"), grads);
        }
        dx
    }

    /// Adds the embedding's gradient: `dx [M, d]` at token ids `ids [M]`.
    pub fn embed_backward(&self, ids: Tensor<B, 1, Int>, dx: Tensor<B, 2>, grads: &mut Gradients<B>) {
        let [v, d] = self.embed.dims();
        let table = match grads.remove(EMBED) {
            Some(sum) => sum.reshape([v, d]),
            None => Tensor::zeros([v, d], &dx.device()),
        };
        let dx = crate::params::to_f32(dx);
        grads.add(EMBED, table.select_assign(0, ids, dx, IndexingUpdateOp::Add));
    }

    pub(crate) fn visit(&mut self, visitor: &mut impl ParamVisitor<B>) {
        let shape = self.embed.dims();
        visitor.visit(EMBED, &shape, &mut self.embed);
        for (i, layer) in self.layers.iter_mut().enumerate() {
            layer.visit(&format!("model.layers.{i}"), visitor);
        }
        let norm = self.norm.dims();
        visitor.visit("model.norm.weight", &norm, &mut self.norm);
        if let Some(head) = &mut self.lm_head {
            visitor.visit(LM_HEAD, &shape, head);
        }
    }
}
