//! Layers, and the block that vision towers and decoders share: norm, attention, norm, MLP, with its hand-written
//! backward. Which norm, which MLP and whether queries and keys are normed is a matter of its parts; no family is known
//! here.
//!
//! Weights stay in Hugging Face's layout `[out, in]`, so loading and saving never transpose. Gradients are those of the
//! same expression under autodiff (tested), computed without a graph: `dx = dy W`, `dW = dy^T x`.
//!
//! A block may be shared out over ranks ([`TransformerBlock::ranks`]) as Megatron-LM does it (arXiv 1909.08053): the
//! first layers of attention and MLP by their outputs, the last by their inputs, so that the sum over ranks is taken
//! once behind each last layer and, in the backward, once before each norm. What lies between blocks is the same on all
//! ranks.

mod linear;
mod lora;
mod mlp;
mod norm;
mod residual;

pub use linear::{Linear, LinearShow, LinearStack};
pub use lora::{AdaptersOnly, Dropout, Lora, LoraPart, adapted_module, adapter_names};
pub use mlp::Mlp;
pub use norm::Norm;
pub use residual::Residual;

use burn::tensor::{Tensor, backend::Backend};
use comm::Ranks;

use crate::attention::AttentionSaved;
use crate::attention::decode::{Prefill, PromptKv};
use crate::attention::packed::{KvGradients, Packed};
use crate::collective;
use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor};
use crate::rope::Rotary;
use mlp::{MLP, MlpSaved};

/// Sizes of one block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockShape {
    /// Query heads, `H`.
    pub heads: usize,
    /// Key/value heads, `Hkv`.
    pub kv_heads: usize,
    /// Head size, `hd`.
    pub head_dim: usize,
}

/// Parts of a tensor's name that differ between stacks of blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockNames {
    /// Before attention.
    pub norm1: &'static str,
    /// Before the MLP.
    pub norm2: &'static str,
    /// Attention's prefix.
    pub attn: &'static str,
    /// Attention's output projection.
    pub proj: &'static str,
}

/// What the sum over ranks is called that ends attention.
const ATTENTION: &str = "attention";

/// Norms of queries and keys, behind attention's prefix.
pub const QK_NAMES: [&str; 2] = ["q_norm", "k_norm"];

/// One transformer block.
#[derive(Debug, Clone)]
pub struct TransformerBlock<B: Backend> {
    /// Place in its stack.
    pub index: usize,
    /// Sizes.
    pub shape: BlockShape,
    /// Parts of its tensors' names.
    pub names: BlockNames,
    /// Before attention.
    pub norm1: Norm<B>,
    /// Queries, keys and values of the normed input, `[(H + 2 Hkv) hd, d]`: one layer or three, as the checkpoint has
    /// it.
    pub qkv: LinearStack<B>,
    /// Norms of each head of queries and of keys, before they are rotated.
    pub qk_norm: Option<[Norm<B>; 2]>,
    /// Attention's output projection, `[d, H hd]`.
    pub proj: Linear<B>,
    /// Before the MLP.
    pub norm2: Norm<B>,
    /// The MLP.
    pub mlp: Mlp<B>,
    /// Who shares out its heads and the inside of its MLP. `shape` and weights are this rank's: rows of `qkv` and of
    /// the MLP's first layers, columns of `proj` and of its last. Norms are whole on all ranks.
    pub ranks: Ranks,
}

/// Where keys and values go: a plan over packed tokens, or a cache that is decoded from.
pub trait Attend<B: Backend> {
    /// What the heads of `block` say of its normed input `h [N, d]`: `[N, H hd]`.
    fn attend(&mut self, block: &TransformerBlock<B>, h: Tensor<B, 2>) -> Tensor<B, 2>;

    /// Which inputs adapters drop; none but in training.
    fn dropout(&self) -> Option<Dropout<'_>> {
        None
    }
}

/// Activations of one block that its backward needs. `None` fields were dropped and are computed again.
#[derive(Debug, Clone)]
pub struct BlockSaved<B: Backend> {
    /// The block's input, `[N, d]`.
    pub x: Tensor<B, 2>,
    inner: Option<Inner<B>>,
}

#[derive(Debug, Clone)]
struct Inner<B: Backend> {
    h1: Tensor<B, 2>,
    /// Queries and keys before their norms, where they have any.
    raw: Option<[Tensor<B, 3>; 2]>,
    qkv: [Tensor<B, 3>; 3],
    o: Tensor<B, 3>,
    attention: AttentionSaved<B>,
    x_mid: Tensor<B, 2>,
    h2: Tensor<B, 2>,
    mlp: MlpSaved<B>,
}

/// Rotated queries and keys, and values; and queries and keys before their norms, where they have any.
type Projected<B> = ([Tensor<B, 3>; 3], Option<[Tensor<B, 3>; 2]>);

/// Which inputs the adapters of a block drop: of queries, keys and values, of attention's output projection, and of the
/// MLP's first and last layers. Layers of one input drop the same.
type BlockDropout<'a> = [Option<Dropout<'a>>; 4];

impl<B: Kernels> TransformerBlock<B> {
    fn dropouts<'a>(&self, dropout: Option<Dropout<'a>>) -> BlockDropout<'a> {
        [0, 1, 2, 3].map(|place| dropout.map(|dropout| dropout.at(self.index, place)))
    }

    /// Queries, keys and values of normed input `h [N, d]`, turned.
    pub(crate) fn heads(&self, h: Tensor<B, 2>, rotary: &Rotary<B>, dropout: Option<Dropout>) -> [Tensor<B, 3>; 3] {
        self.project(h, rotary, self.dropouts(dropout)[0]).0
    }

    fn project(&self, h: Tensor<B, 2>, rotary: &Rotary<B>, dropout: Option<Dropout>) -> Projected<B> {
        let qkv = self.qkv.linear.forward_dropping(h, dropout);
        let Some([q_norm, k_norm]) = &self.qk_norm else {
            return (B::rotate_qkv(qkv, self.shape, rotary), None);
        };
        let [q, k, v] = split_qkv(qkv, self.shape);
        let raw = Some([q.clone(), k.clone()]);
        let (q, k) = (q_norm.forward_heads(q), k_norm.forward_heads(k));
        ([B::rotate(q, rotary), B::rotate(k, rotary), v], raw)
    }

    /// Adds to `x`, with attention left to `attend`.
    pub fn forward(&self, x: &mut Residual<B>, attend: &mut impl Attend<B>) {
        let h = x.normed(&self.norm1);
        let heads = attend.attend(self, h);
        let [_, proj, first, last] = self.dropouts(attend.dropout());
        x.add(&self.proj, heads, proj, &self.ranks, ATTENTION);
        let h = x.normed(&self.norm2);
        let (down, between) = self.mlp.until_last(h, first);
        x.add(down, between, last, &self.ranks, MLP);
    }

    /// As [`forward`](Self::forward) over packed tokens, keeping what the backward needs: only the input if
    /// `recompute`. Keys and values go to `kv` too, if it is there.
    pub fn forward_saving(
        &self,
        x: Tensor<B, 2>,
        packed: Packed<B>,
        recompute: bool,
        kv: Option<&mut PromptKv<B>>,
    ) -> (Tensor<B, 2>, BlockSaved<B>) {
        if recompute {
            let mut y = Residual::new(x.clone());
            match kv {
                Some(kv) => {
                    debug_assert!(packed.before.is_none(), "a prompt continues nothing");
                    let Packed { plan, rotary, dropout, .. } = packed;
                    let mut prefill = Prefill { plan, rotary, kv: std::mem::take(kv), dropout };
                    self.forward(&mut y, &mut prefill);
                    *kv = prefill.kv;
                }
                None => self.forward(&mut y, &mut { packed }),
            }
            return (y.sum(), BlockSaved { x, inner: None });
        }
        let inner = self.inner(x.clone(), packed);
        if let Some(kv) = kv {
            let [_, k, v] = inner.qkv.clone();
            kv.push((k, v));
        }
        let [.., last] = self.dropouts(packed.dropout);
        let y = inner.x_mid.clone().add(self.mlp.close(inner.mlp.clone(), last, &self.ranks));
        (y, BlockSaved { x, inner: Some(inner) })
    }

    fn inner(&self, x: Tensor<B, 2>, packed: Packed<B>) -> Inner<B> {
        let n = x.dims()[0];
        let [qkv, proj, first, _] = self.dropouts(packed.dropout);
        let h1 = self.norm1.forward(x.clone());
        let (qkv, raw) = self.project(h1.clone(), packed.rotary, qkv);
        let (o, attention) = packed.forward(self.index, qkv.clone());
        let o_flat = o.clone().reshape([n, self.shape.heads * self.shape.head_dim]);
        let (x_mid, h2) = self.norm2.forward_sum(x, self.proj.forward_shared(o_flat, proj, &self.ranks, ATTENTION));
        let mlp = self.mlp.open(h2.clone(), first);
        Inner { h1, raw, qkv, o, attention, x_mid, h2, mlp }
    }

    /// Adds this block's parameter gradients under `prefix` and returns the gradient of its input. What crosses between
    /// a prompt and responses that were computed apart from it goes through `kv`. Of weights that several ranks hold
    /// each adds what its own heads give: norms of queries and keys, keys and values of heads that it does not have
    /// alone.
    pub fn backward(
        &self,
        saved: BlockSaved<B>,
        packed: Packed<B>,
        dy: Tensor<B, 2>,
        kv: &mut KvGradients<B>,
        prefix: &str,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let BlockSaved { x, inner } = saved;
        let Inner { h1, raw, qkv, o, attention, x_mid, h2, mlp } = match inner {
            Some(inner) => inner,
            None => self.inner(x.clone(), packed),
        };
        let n = x.dims()[0];
        let BlockShape { heads, head_dim: hd, .. } = self.shape;
        let names = self.names;
        let [qkv_dropout, proj_dropout, first, last] = self.dropouts(packed.dropout);
        let dh2 = self.mlp.backward(h2, mlp, dy.clone(), [first, last], &format!("{prefix}.mlp"), grads);
        let dh2 = collective::sum(dh2, &self.ranks, "gradient of the mlp");
        let dx_mid = self.norm2.backward(x_mid, dh2, Some(dy), &format!("{prefix}.{}", names.norm2), grads);
        let attn = format!("{prefix}.{}", names.attn);
        let o_flat = o.clone().reshape([n, heads * hd]);
        let proj = format!("{attn}.{}", names.proj);
        let d_o = self.proj.backward_dropping(o_flat, dx_mid.clone(), proj_dropout, &proj, grads);
        let [dq, dk, dv] = packed.backward(self.index, qkv, o, &attention, d_o.reshape([n, heads, hd]), kv);
        let d_qkv = self.unproject([dq, dk, dv], raw, packed.rotary, &attn, grads);
        let dh1 = self.qkv.backward_dropping(h1, d_qkv, qkv_dropout, &attn, grads);
        let dh1 = collective::sum(dh1, &self.ranks, "gradient of attention");
        self.norm1.backward(x, dh1, Some(dx_mid), &format!("{prefix}.{}", names.norm1), grads)
    }

    /// The gradient of what the projections made, `[N, (H + 2 Hkv) hd]`, from those of queries, keys and values.
    fn unproject(
        &self,
        [dq, dk, dv]: [Tensor<B, 3>; 3],
        raw: Option<[Tensor<B, 3>; 2]>,
        rotary: &Rotary<B>,
        attn: &str,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let (Some([q_norm, k_norm]), Some([q, k])) = (&self.qk_norm, raw) else {
            return B::rotate_qkv_backward([dq, dk, dv], rotary);
        };
        let (dq, dk) = (B::rotate_backward(dq, rotary), B::rotate_backward(dk, rotary));
        let [q_name, k_name] = QK_NAMES.map(|name| format!("{attn}.{name}"));
        join_qkv([q_norm.backward_heads(q, dq, &q_name, grads), k_norm.backward_heads(k, dk, &k_name, grads), dv])
    }

    /// Shows its parameters to `visitor`, named as in [`backward`](Self::backward).
    pub fn visit(&mut self, prefix: &str, visitor: &mut impl ParamVisitor<B>) {
        let names = self.names;
        let attn = format!("{prefix}.{}", names.attn);
        self.norm1.visit(&format!("{prefix}.{}", names.norm1), visitor);
        self.norm2.visit(&format!("{prefix}.{}", names.norm2), visitor);
        self.qkv.visit(&attn, visitor);
        if let Some(norms) = &mut self.qk_norm {
            for (norm, name) in norms.iter_mut().zip(QK_NAMES) {
                norm.visit(&format!("{attn}.{name}"), visitor);
            }
        }
        self.proj.visit(&format!("{attn}.{}", names.proj), visitor);
        self.mlp.visit(&format!("{prefix}.mlp"), visitor);
    }

    /// Shows its linear layers to `show`, named as in [`backward`](Self::backward).
    pub fn linears(&mut self, prefix: &str, show: &mut LinearShow<B>) {
        let attn = format!("{prefix}.{}", self.names.attn);
        self.qkv.show(&attn, show);
        self.proj.show(&format!("{attn}.{}", self.names.proj), show);
        self.mlp.linears(&format!("{prefix}.mlp"), show);
    }
}

/// `[N, (q | k | v)]` as queries `[N, H, hd]`, keys and values `[N, Hkv, hd]`.
pub(crate) fn split_qkv<B: Backend>(qkv: Tensor<B, 2>, shape: BlockShape) -> [Tensor<B, 3>; 3] {
    let (n, BlockShape { heads, kv_heads, head_dim: hd }) = (qkv.dims()[0], shape);
    let part = |first: usize, heads: usize| qkv.clone().narrow(1, first * hd, heads * hd).reshape([n, heads, hd]);
    [part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads)]
}

/// The inverse of [`split_qkv`].
pub(crate) fn join_qkv<B: Backend>(parts: [Tensor<B, 3>; 3]) -> Tensor<B, 2> {
    let flat = parts.map(|t| {
        let [n, heads, hd] = t.dims();
        t.reshape([n, heads * hd])
    });
    Tensor::cat(flat.to_vec(), 1)
}
