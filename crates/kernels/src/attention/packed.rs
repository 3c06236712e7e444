//! Packed tokens in a layer: attention among themselves and, if they continue a prompt that was computed before, to its
//! keys and values; and the gradients that cross this border.

use std::collections::HashMap;

use burn::tensor::{Tensor, backend::Backend};

use super::decode::PromptKv;
use super::forward::behind;
use super::{AttentionPlan, AttentionSaved};
use crate::layers::{Attend, Dropout, TransformerBlock};
use crate::ops::Kernels;
use crate::params::{cast_to, to_f32};
use crate::rope::Rotary;

/// Packed tokens: where they stand and what they attend to.
#[derive(Debug)]
pub struct Packed<'a, B: Backend> {
    /// Positions.
    pub rotary: &'a Rotary<B>,
    /// Who attends to whom; with [`before`](Self::before) an [`AttentionPlan::continuing`] of that many rows.
    pub plan: &'a AttentionPlan<B>,
    /// Keys and values of the prompt that these tokens continue, if it was computed before them.
    pub before: Option<&'a PromptKv<B>>,
    /// Which inputs adapters drop; none but in training.
    pub dropout: Option<Dropout<'a>>,
}

impl<B: Backend> Clone for Packed<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Packed<'_, B> {}

impl<'a, B: Backend> Packed<'a, B> {
    /// Tokens that attend to nothing but each other.
    pub fn new(rotary: &'a Rotary<B>, plan: &'a AttentionPlan<B>) -> Self {
        Self { rotary, plan, before: None, dropout: None }
    }

    /// The prompt's keys and values in block `index`.
    fn kv_before(&self, index: usize) -> Option<&'a (Tensor<B, 3>, Tensor<B, 3>)> {
        let before = self.before.and_then(|kv| kv.get(index));
        debug_assert_eq!(self.plan.looked_at, before.map_or(0, |(k, _)| k.dims()[0]), "the plan is of another batch");
        before
    }
}

/// Gradients of a prompt's rotated keys and of its values in each layer, in f32: parts of its group add to them in
/// their backward pass, the prompt's own takes them.
#[derive(Debug, Clone)]
pub struct KvGradients<B: Backend>(HashMap<usize, [Tensor<B, 3>; 2]>);

impl<B: Backend> Default for KvGradients<B> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<B: Backend> KvGradients<B> {
    fn add(&mut self, index: usize, part: [Tensor<B, 3>; 2]) {
        let [dk, dv] = part.map(to_f32);
        let sum = match self.0.remove(&index) {
            Some([k, v]) => [k.add(dk), v.add(dv)],
            None => [dk, dv],
        };
        self.0.insert(index, sum);
    }
}

impl<B: Kernels> Packed<'_, B> {
    /// `q [N, H, hd]`, `k, v [N, Hkv, hd]` of block `index`, rotated, to `o [N, H, hd]` and what the backward needs.
    pub(crate) fn forward(&self, index: usize, qkv: [Tensor<B, 3>; 3]) -> (Tensor<B, 3>, AttentionSaved<B>) {
        let [q, k, v] = qkv;
        let Some((kp, vp)) = self.kv_before(index) else { return B::packed_attention(q, k, v, self.plan) };
        let [p, ..] = kp.dims();
        let (q, k, v) = (behind(p, q), Tensor::cat(vec![kp.clone(), k], 0), Tensor::cat(vec![vp.clone(), v], 0));
        let (o, saved) = B::packed_attention(q, k, v, self.plan);
        let n = o.dims()[0] - p;
        (o.narrow(0, p, n), saved)
    }

    /// Gradients of `q`, `k` and `v`. Tokens that continue a prompt add its share to `d_kv`; a prompt takes what was
    /// added.
    pub(crate) fn backward(
        &self,
        index: usize,
        qkv: [Tensor<B, 3>; 3],
        o: Tensor<B, 3>,
        saved: &AttentionSaved<B>,
        d_o: Tensor<B, 3>,
        d_kv: &mut KvGradients<B>,
    ) -> [Tensor<B, 3>; 3] {
        let Some((kp, vp)) = self.kv_before(index) else {
            let [dq, dk, dv] = B::packed_attention_backward(qkv, o, saved, d_o, self.plan);
            let Some([k_parts, v_parts]) = d_kv.0.remove(&index) else { return [dq, dk, dv] };
            let dtype = dk.dtype();
            let sum = |own: Tensor<B, 3>, parts: Tensor<B, 3>| cast_to(to_f32(own).add(parts), dtype);
            return [dq, sum(dk, k_parts), sum(dv, v_parts)];
        };
        let [p, ..] = kp.dims();
        let [q, k, v] = qkv;
        let qkv = [behind(p, q), Tensor::cat(vec![kp.clone(), k], 0), Tensor::cat(vec![vp.clone(), v], 0)];
        let [dq, dk, dv] = B::packed_attention_backward(qkv, behind(p, o), saved, behind(p, d_o), self.plan);
        d_kv.add(index, [dk.clone().narrow(0, 0, p), dv.clone().narrow(0, 0, p)]);
        [dq, dk, dv].map(|d| {
            let n = d.dims()[0] - p;
            d.narrow(0, p, n)
        })
    }
}

impl<B: Kernels> Attend<B> for Packed<'_, B> {
    fn attend(&mut self, block: &TransformerBlock<B>, h: Tensor<B, 2>) -> Tensor<B, 2> {
        flat(self.forward(block.index, block.heads(h, self.rotary, self.dropout)).0)
    }

    fn dropout(&self) -> Option<Dropout<'_>> {
        self.dropout
    }
}

/// `[N, H, hd]` as `[N, H hd]`.
pub(super) fn flat<B: Backend>(o: Tensor<B, 3>) -> Tensor<B, 2> {
    let [n, heads, hd] = o.dims();
    o.reshape([n, heads * hd])
}
