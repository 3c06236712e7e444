//! The block that the vision tower and the decoder share: RMSNorm, attention, RMSNorm, SwiGLU, with its hand-written backward.
//!
//! Weights stay in Hugging Face's layout `[out, in]`, so loading and saving never transpose. Gradients are those of the
//! same expression under autodiff (tested), computed without a graph: `dx = dy W`, `dW = dy^T x`.

use burn::tensor::{Tensor, backend::Backend};

use crate::attention::AttentionSaved;
use crate::attention::decode::{Prefill, PromptKv};
use crate::attention::packed::{KvGradients, Packed};
use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor, to_f32};
use crate::rope::Rotary;

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

impl<B: Backend> Linear<B> {
    /// Adds the gradients of weight and bias under `name.weight`, `name.bias` and returns `dx [N, in]`.
    pub fn backward(&self, x: Tensor<B, 2>, dy: Tensor<B, 2>, name: &str, grads: &mut Gradients<B>) -> Tensor<B, 2> {
        grads.add(&format!("{name}.weight"), dy.clone().transpose().matmul(x));
        if self.bias.is_some() {
            grads.add(&format!("{name}.bias"), to_f32(dy.clone()).sum_dim(0));
        }
        dy.matmul(self.weight.clone())
    }

    pub(crate) fn visit(&mut self, name: &str, visitor: &mut impl ParamVisitor<B>) {
        let shape = self.weight.dims();
        visitor.visit(&format!("{name}.weight"), &shape, &mut self.weight);
        if let Some(bias) = &mut self.bias {
            let shape = bias.dims();
            visitor.visit(&format!("{name}.bias"), &shape, bias);
        }
    }
}

/// The query, key and value projections: one fused matrix (vision tower) or three (decoder), as the checkpoint has them.
#[derive(Debug, Clone)]
pub enum Qkv<B: Backend> {
    /// `attn.qkv`, `[3 hidden, hidden]`.
    Fused(Linear<B>),
    /// `q_proj`, `k_proj`, `v_proj`.
    Split([Linear<B>; 3]),
}

/// Sizes of one block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockShape {
    /// Query heads, `H`.
    pub heads: usize,
    /// Key/value heads, `Hkv`.
    pub kv_heads: usize,
    /// Head size, `hd`.
    pub head_dim: usize,
    /// RMSNorm epsilon.
    pub eps: f64,
}

/// Parts of a tensor's name that differ between tower and decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockNames {
    /// Before attention.
    pub norm1: &'static str,
    /// Before the SwiGLU.
    pub norm2: &'static str,
    /// Attention's prefix.
    pub attn: &'static str,
    /// Attention's output projection.
    pub proj: &'static str,
}

/// Names in the decoder.
pub const DECODER_NAMES: BlockNames =
    BlockNames { norm1: "input_layernorm", norm2: "post_attention_layernorm", attn: "self_attn", proj: "o_proj" };
/// Names in the vision tower.
pub const VISION_NAMES: BlockNames = BlockNames { norm1: "norm1", norm2: "norm2", attn: "attn", proj: "proj" };

/// One transformer block.
#[derive(Debug, Clone)]
pub struct TransformerBlock<B: Backend> {
    /// Place in its stack.
    pub(crate) index: usize,
    pub(crate) shape: BlockShape,
    pub(crate) names: BlockNames,
    pub(crate) norm1: Tensor<B, 1>,
    pub(crate) qkv: Qkv<B>,
    pub(crate) proj: Linear<B>,
    pub(crate) norm2: Tensor<B, 1>,
    pub(crate) gate: Linear<B>,
    pub(crate) up: Linear<B>,
    pub(crate) down: Linear<B>,
}

/// Where keys and values go: a plan over packed tokens, or a cache that is decoded from.
pub trait Attend<B: Backend> {
    /// `q [N, H, hd]`, `k, v [N, Hkv, hd]`, rotated, to `o [N, H, hd]`, in block `index` of its stack.
    fn attend(&mut self, index: usize, q: Tensor<B, 3>, k: Tensor<B, 3>, v: Tensor<B, 3>) -> Tensor<B, 3>;
}

/// Activations of one block that its backward needs. `None` fields were dropped and are computed again.
#[derive(Debug, Clone)]
pub struct BlockSaved<B: Backend> {
    pub(crate) x: Tensor<B, 2>,
    inner: Option<Inner<B>>,
}

#[derive(Debug, Clone)]
struct Inner<B: Backend> {
    h1: Tensor<B, 2>,
    qkv: [Tensor<B, 3>; 3],
    o: Tensor<B, 3>,
    attention: AttentionSaved<B>,
    x_mid: Tensor<B, 2>,
    h2: Tensor<B, 2>,
    gate: Tensor<B, 2>,
    up: Tensor<B, 2>,
}

impl<B: Kernels> TransformerBlock<B> {
    /// Rotated queries and keys, and values, of normed input `h [N, d]`.
    fn project(&self, h: Tensor<B, 2>, rotary: &Rotary<B>) -> [Tensor<B, 3>; 3] {
        let BlockShape { heads, kv_heads, head_dim: hd, .. } = self.shape;
        let n = h.dims()[0];
        let [q, k, v] = match &self.qkv {
            Qkv::Split([q, k, v]) => [
                q.forward(h.clone()).reshape([n, heads, hd]),
                k.forward(h.clone()).reshape([n, kv_heads, hd]),
                v.forward(h).reshape([n, kv_heads, hd]),
            ],
            Qkv::Fused(qkv) => {
                let y = qkv.forward(h); // [N, (q | k | v)]
                let d = heads * hd;
                [0, 1, 2].map(|i| y.clone().slice([0..n, i * d..(i + 1) * d]).reshape([n, heads, hd]))
            }
        };
        [B::rotate(q, rotary), B::rotate(k, rotary), v]
    }

    /// `x [N, d]` to `[N, d]`, with attention left to `attend`.
    pub fn forward(&self, x: Tensor<B, 2>, rotary: &Rotary<B>, attend: &mut impl Attend<B>) -> Tensor<B, 2> {
        let n = x.dims()[0];
        let h = B::rms_norm(x.clone(), self.norm1.clone(), self.shape.eps);
        let [q, k, v] = self.project(h, rotary);
        let o = attend.attend(self.index, q, k, v).reshape([n, self.shape.heads * self.shape.head_dim]);
        let x = x.add(self.proj.forward(o));
        let h = B::rms_norm(x.clone(), self.norm2.clone(), self.shape.eps);
        let act = B::swiglu(self.gate.forward(h.clone()), self.up.forward(h));
        x.add(self.down.forward(act))
    }

    /// As [`forward`](Self::forward) over packed tokens, keeping what the backward needs: only the input if `recompute`. Keys and
    /// values go to `kv` too, if it is there.
    pub fn forward_saving(
        &self,
        x: Tensor<B, 2>,
        packed: Packed<B>,
        recompute: bool,
        kv: Option<&mut PromptKv<B>>,
    ) -> (Tensor<B, 2>, BlockSaved<B>) {
        if recompute {
            let y = match kv {
                Some(kv) => {
                    debug_assert!(packed.before.is_none(), "a prompt continues nothing");
                    let mut prefill = Prefill { plan: packed.plan, kv: std::mem::take(kv) };
                    let y = self.forward(x.clone(), packed.rotary, &mut prefill);
                    *kv = prefill.kv;
                    y
                }
                None => self.forward(x.clone(), packed.rotary, &mut { packed }),
            };
            return (y, BlockSaved { x, inner: None });
        }
        let inner = self.inner(x.clone(), packed);
        if let Some(kv) = kv {
            let [_, k, v] = inner.qkv.clone();
            kv.push((k, v));
        }
        let act = B::swiglu(inner.gate.clone(), inner.up.clone());
        let y = inner.x_mid.clone().add(self.down.forward(act));
        (y, BlockSaved { x, inner: Some(inner) })
    }

    fn inner(&self, x: Tensor<B, 2>, packed: Packed<B>) -> Inner<B> {
        let n = x.dims()[0];
        let h1 = B::rms_norm(x.clone(), self.norm1.clone(), self.shape.eps);
        let qkv = self.project(h1.clone(), packed.rotary);
        let (o, attention) = packed.forward(self.index, qkv.clone());
        let x_mid = x.add(self.proj.forward(o.clone().reshape([n, self.shape.heads * self.shape.head_dim])));
        let h2 = B::rms_norm(x_mid.clone(), self.norm2.clone(), self.shape.eps);
        let (gate, up) = (self.gate.forward(h2.clone()), self.up.forward(h2.clone()));
        Inner { h1, qkv, o, attention, x_mid, h2, gate, up }
    }

    /// Adds this block's parameter gradients under `prefix` and returns the gradient of its input. What crosses between a prompt
    /// and responses that were computed apart from it goes through `kv`.
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
        let Inner { h1, qkv, o, attention, x_mid, h2, gate, up } = match inner {
            Some(inner) => inner,
            None => self.inner(x.clone(), packed),
        };
        let n = x.dims()[0];
        let BlockShape { heads, head_dim: hd, eps, .. } = self.shape;
        let names = self.names;
        // SwiGLU
        let act = B::swiglu(gate.clone(), up.clone());
        let d_act = self.down.backward(act, dy.clone(), &format!("{prefix}.mlp.down_proj"), grads);
        let (d_gate, d_up) = B::swiglu_backward(gate, up, d_act);
        let dh2 = self.gate.backward(h2.clone(), d_gate, &format!("{prefix}.mlp.gate_proj"), grads);
        let dh2 = dh2.add(self.up.backward(h2, d_up, &format!("{prefix}.mlp.up_proj"), grads));
        let (dx, dw) = B::rms_norm_backward(x_mid, self.norm2.clone(), eps, dh2);
        grads.add(&format!("{prefix}.{}.weight", names.norm2), dw);
        let dx_mid = dy.add(dx);
        // attention
        let o_flat = o.clone().reshape([n, heads * hd]);
        let d_o = self.proj.backward(o_flat, dx_mid.clone(), &format!("{prefix}.{}.{}", names.attn, names.proj), grads);
        let [dq, dk, dv] = packed.backward(self.index, qkv, o, &attention, d_o.reshape([n, heads, hd]), kv);
        let dq = B::rotate_backward(dq, packed.rotary);
        let dk = B::rotate_backward(dk, packed.rotary);
        let flat = |t: Tensor<B, 3>| {
            let [n, h, hd] = t.dims();
            t.reshape([n, h * hd])
        };
        let dh1 = match &self.qkv {
            Qkv::Split([q, k, v]) => {
                let dh = q.backward(h1.clone(), flat(dq), &format!("{prefix}.{}.q_proj", names.attn), grads);
                let dh = dh.add(k.backward(h1.clone(), flat(dk), &format!("{prefix}.{}.k_proj", names.attn), grads));
                dh.add(v.backward(h1, flat(dv), &format!("{prefix}.{}.v_proj", names.attn), grads))
            }
            Qkv::Fused(qkv) => {
                let d = Tensor::cat(vec![flat(dq), flat(dk), flat(dv)], 1);
                qkv.backward(h1, d, &format!("{prefix}.{}.qkv", names.attn), grads)
            }
        };
        let (dx, dw) = B::rms_norm_backward(x, self.norm1.clone(), eps, dh1);
        grads.add(&format!("{prefix}.{}.weight", names.norm1), dw);
        dx_mid.add(dx)
    }

    pub(crate) fn visit(&mut self, prefix: &str, visitor: &mut impl ParamVisitor<B>) {
        let names = self.names;
        let mut norm = |name: &str, w: &mut Tensor<B, 1>| {
            let shape = w.dims();
            visitor.visit(&format!("{prefix}.{name}.weight"), &shape, w);
        };
        norm(names.norm1, &mut self.norm1);
        norm(names.norm2, &mut self.norm2);
        match &mut self.qkv {
            Qkv::Fused(qkv) => qkv.visit(&format!("{prefix}.{}.qkv", names.attn), visitor),
            Qkv::Split(parts) => {
                for (part, name) in parts.iter_mut().zip(["q_proj", "k_proj", "v_proj"]) {
                    part.visit(&format!("{prefix}.{}.{name}", names.attn), visitor);
                }
            }
        }
        self.proj.visit(&format!("{prefix}.{}.{}", names.attn, names.proj), visitor);
        self.gate.visit(&format!("{prefix}.mlp.gate_proj"), visitor);
        self.up.visit(&format!("{prefix}.mlp.up_proj"), visitor);
        self.down.visit(&format!("{prefix}.mlp.down_proj"), visitor);
    }
}
