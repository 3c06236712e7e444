//! The decoder: embedding, layers, final norm, head.

use burn::tensor::{Bool, Int, Tensor, backend::Backend};
use kernels::attention::decode::PromptKv;
use kernels::attention::packed::{KvGradients, Packed};
use kernels::layers::{Attend, BlockSaved, Norm, Residual, TransformerBlock};
use kernels::params::{Gradients, ParamVisitor, Shard};
use kernels::{Kernels, collective};

use crate::tensor::TensorParallel;

/// The decoder's parameters.
#[derive(Debug, Clone)]
pub(crate) struct Decoder<B: Backend> {
    /// `[V, d]`; this rank's rows, where ranks share the decoder out.
    pub(crate) embed: Tensor<B, 2>,
    pub(crate) layers: Vec<TransformerBlock<B>>,
    pub(crate) norm: Norm<B>,
    /// Rows as in `embed`; none if tied to it.
    pub(crate) lm_head: Option<Tensor<B, 2>>,
    /// Who shares it out, and what this rank has.
    pub(crate) tensor: TensorParallel,
}

/// What the first layers take from the vision tower (DeepStack): behind layer `k`, column block `k + 1` of `features`
/// is added to the image rows. Decoding, and tokens that continue a prompt, have none.
#[derive(Debug, Clone)]
pub(crate) struct Deep<B: Backend> {
    /// Rows of image tokens, `[M]`.
    pub rows: Tensor<B, 1, Int>,
    /// `[M, (1 + K) d]`
    pub features: Tensor<B, 2>,
    /// `d`
    pub width: usize,
}

impl<B: Kernels> Deep<B> {
    /// Layers that take something, `K`.
    fn layers(&self) -> usize {
        self.features.dims()[1] / self.width - 1
    }

    /// The output `x [N, d]` of layer `k` with what is added to it.
    fn add(&self, k: usize, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let d = self.width;
        if k >= self.layers() {
            return x;
        }
        B::add_rows(x, self.rows.clone(), self.features.clone().narrow(1, (k + 1) * d, d))
    }
}

/// Collects the gradients of what [`Deep`] added.
#[derive(Debug)]
pub(crate) struct DeepGradients<B: Backend> {
    /// Rows of image tokens, `[M]`.
    pub rows: Tensor<B, 1, Int>,
    /// Layers that took something, `K`.
    pub layers: usize,
    /// `[M, d]` each, the last layer's first.
    pub gradients: Vec<Tensor<B, 2>>,
}

/// Name of the embedding table.
pub(crate) const EMBED: &str = "model.embed_tokens.weight";
/// Name of the final norm.
pub(crate) const NORM: &str = "model.norm";
/// Name of an untied head.
pub(crate) const LM_HEAD: &str = "lm_head.weight";

/// What the decoder's backward needs.
pub(crate) struct DecoderSaved<B: Backend> {
    blocks: Vec<BlockSaved<B>>,
    last: Tensor<B, 2>,
}

impl<B: Kernels> Decoder<B> {
    /// The head's matrix, with the rows that this rank has, and the name its gradient goes under.
    pub(crate) fn head(&self) -> (&Tensor<B, 2>, &'static str) {
        match &self.lm_head {
            Some(w) => (w, LM_HEAD),
            None => (&self.embed, EMBED),
        }
    }

    /// Embedded tokens `x [N, d]` to final-normed hidden states `[N, d]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>, deep: Option<&Deep<B>>, attend: &mut impl Attend<B>) -> Tensor<B, 2> {
        let mut x = Residual::new(x);
        for (k, layer) in self.layers.iter().enumerate() {
            layer.forward(&mut x, attend);
            if let Some(deep) = deep.filter(|deep| k < deep.layers()) {
                x = Residual::new(deep.add(k, x.sum()));
            }
        }
        x.normed(&self.norm)
    }

    /// As [`forward`](Self::forward) over packed tokens, keeping each layer's input, and its inside too unless
    /// `recompute`. Keys and values of every layer go to `kv` too, if it is there.
    pub(crate) fn forward_saving(
        &self,
        mut x: Tensor<B, 2>,
        deep: Option<&Deep<B>>,
        packed: Packed<B>,
        recompute: bool,
        mut kv: Option<&mut PromptKv<B>>,
    ) -> (Tensor<B, 2>, DecoderSaved<B>) {
        let mut blocks = Vec::with_capacity(self.layers.len());
        for (k, layer) in self.layers.iter().enumerate() {
            let (y, saved) = layer.forward_saving(x, packed, recompute, kv.as_deref_mut());
            x = match deep {
                Some(deep) => deep.add(k, y),
                None => y,
            };
            blocks.push(saved);
        }
        (self.norm.forward(x.clone()), DecoderSaved { blocks, last: x })
    }

    /// Gradient of the embedded tokens `[N, d]` for `dy [N, d]`, the gradient of the normed hidden states; layer by
    /// layer (design decision 3), so that one layer's activations are alive if they are recomputed. The gradient of
    /// what was added behind the first layers at `deep.rows` goes to `deep.gradients`.
    pub(crate) fn backward(
        &self,
        saved: DecoderSaved<B>,
        packed: Packed<B>,
        dy: Tensor<B, 2>,
        mut deep: Option<&mut DeepGradients<B>>,
        kv: &mut KvGradients<B>,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let DecoderSaved { mut blocks, last } = saved;
        let mut dx = self.norm.backward(last, dy, None, NORM, grads);
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let Some(saved) = blocks.pop() else { break };
            if let Some(deep) = deep.as_deref_mut().filter(|deep| i < deep.layers) {
                deep.gradients.push(dx.clone().select(0, deep.rows.clone()));
            }
            let prefix = format!("model.layers.{i}");
            let backward = |grads: &mut Gradients<B>| layer.backward(saved, packed, dx, kv, &prefix, grads);
            dx = self.tensor.completing(layer, &prefix, grads, backward);
            grads.done_through(&format!("{prefix}."));
        }
        dx
    }

    /// Embeddings `[M, d]` of token ids `ids [M]`; `take` takes rows of a table.
    pub(crate) fn embed_rows(
        &self,
        ids: Tensor<B, 1, Int>,
        take: impl Fn(&Tensor<B, 2>, Tensor<B, 1, Int>) -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let ranks = self.tensor.ranks();
        if ranks.is_solo() {
            return take(&self.embed, ids);
        }
        let (rows, others) = self.own_rows(ids);
        let own = take(&self.embed, rows);
        let others = others.expand(own.dims());
        collective::sum(own.mask_fill(others, 0.0), ranks, "embeddings")
    }

    /// Adds the embedding's gradient: `dx [M, d]` at token ids `ids [M]`.
    pub(crate) fn embed_backward(&self, ids: Tensor<B, 1, Int>, dx: Tensor<B, 2>, grads: &mut Gradients<B>) {
        if !grads.takes(EMBED) {
            return;
        }
        let (rows, dx) = match self.tensor.ranks().is_solo() {
            true => (ids, dx),
            false => {
                let (rows, others) = self.own_rows(ids);
                let others = others.expand(dx.dims());
                (rows, dx.mask_fill(others, 0.0))
            }
        };
        grads.add_rows(EMBED, self.embed.shape().num_elements(), rows, dx);
        grads.done_through(EMBED);
    }

    /// Which of this rank's rows the ids `[M]` are, and which ids `[M, 1]` are other ranks'.
    fn own_rows(&self, ids: Tensor<B, 1, Int>) -> (Tensor<B, 1, Int>, Tensor<B, 2, Bool>) {
        let own = self.tensor.ids();
        let below = ids.clone().lower_elem(own.start as i32);
        let others = below.bool_or(ids.clone().greater_equal_elem(own.end as i32));
        (ids.sub_scalar(own.start as i32).clamp(0, own.len() as i32 - 1), others.unsqueeze_dim(1))
    }

    pub(crate) fn visit(&mut self, visitor: &mut impl ParamVisitor<B>) {
        let shard = Shard::whole(&self.embed.dims());
        visitor.visit(EMBED, &shard, &mut self.embed);
        for (i, layer) in self.layers.iter_mut().enumerate() {
            layer.visit(&format!("model.layers.{i}"), visitor);
        }
        self.norm.visit(NORM, visitor);
        if let Some(head) = &mut self.lm_head {
            visitor.visit(LM_HEAD, &shard, head);
        }
    }
}
