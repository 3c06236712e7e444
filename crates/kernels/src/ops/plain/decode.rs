//! One new token a row.

use burn::tensor::Tensor;

use super::{Kernels, whole};
use crate::attention::decode::{DecodeKv, NewTokens, OwnKv};
use crate::layers::split_qkv;
use crate::params::{cast_to, to_f32};
use crate::rope::Rotary;

/// See [`Kernels::decode_heads`](super::super::Kernels::decode_heads).
pub fn decode_heads<B: Kernels>(
    projected: Tensor<B, 3>,
    tokens: NewTokens<'_, B>,
    own: Vec<OwnKv<B>>,
) -> (Tensor<B, 3>, Vec<OwnKv<B>>) {
    let dtype = own.first().map_or(projected.dtype(), |kv| kv.k.dtype());
    let projected = whole(projected, dtype);
    let projected = match tokens.bias {
        Some(bias) => projected.add(bias.clone().unsqueeze()),
        None => projected,
    };
    let [mut q, mut k, v] = split_qkv(projected, tokens.shape);
    if let Some([q_norm, k_norm]) = tokens.qk_norm {
        let norm = |x: Tensor<B, 3>, (weight, eps): (&Tensor<B, 1>, f64)| {
            let [n, heads, hd] = x.dims();
            B::rms_norm(x.reshape([n * heads, hd]), weight.clone(), eps).reshape([n, heads, hd])
        };
        (q, k) = (norm(q, q_norm), norm(k, k_norm));
    }
    let at = |table: &Tensor<B, 3>| table.clone().select(0, tokens.positions.clone());
    let rotary = Rotary { cos: at(&tokens.angles.cos), sin: at(&tokens.angles.sin) };
    let (q, k) = (B::rotate(q, &rotary), B::rotate(k, &rotary));
    let mut start = 0;
    let write = |cache: Tensor<B, 4>, column: usize, values: Tensor<B, 3>| {
        let [rows, _, heads, hd] = cache.dims();
        let values = values.reshape([rows, 1, heads, hd]);
        cache.slice_assign([0..rows, column..column + 1, 0..heads, 0..hd], values)
    };
    let written = own.into_iter().map(|OwnKv { k: ks, v: vs, len }| {
        let rows = ks.dims()[0];
        start += rows;
        let new = |x: &Tensor<B, 3>| x.clone().narrow(0, start - rows, rows);
        OwnKv { k: write(ks, len, new(&k)), v: write(vs, len, new(&v)), len: len + 1 }
    });
    let written = written.collect();
    (q, written)
}

/// See [`Kernels::decode_attention`](super::super::Kernels::decode_attention).
pub fn decode_attention<B: Kernels>(q: Tensor<B, 3>, past: &[DecodeKv<B>]) -> Tensor<B, 3> {
    let mut outputs = Vec::new();
    let mut start = 0;
    for kv in past {
        for (g, prompt) in kv.prompts.ranges.iter().enumerate() {
            let of_group = |own: &Tensor<B, 4>| own.clone().slice([g * kv.n..(g + 1) * kv.n, 0..kv.own.len]);
            let prefix = |x: &Tensor<B, 3>| x.clone().slice([prompt.clone()]);
            let prefix = [prefix(&kv.prefix.0), prefix(&kv.prefix.1)];
            outputs.push(group(q.clone().narrow(0, start, kv.n), prefix, [of_group(&kv.own.k), of_group(&kv.own.v)]));
            start += kv.n;
        }
    }
    if outputs.is_empty() { q } else { Tensor::cat(outputs, 0) }
}

/// Queries `q [n, H, hd]` of a group over its prompt's keys and values `[p, Hkv, hd]` and over its own `[n, len, Hkv,
/// hd]`: `[n, H, hd]`.
fn group<B: Kernels>(q: Tensor<B, 3>, prefix: [Tensor<B, 3>; 2], own: [Tensor<B, 4>; 2]) -> Tensor<B, 3> {
    let [n, heads, hd] = q.dims();
    let [p, kv_heads, _] = prefix[0].dims();
    let g = heads / kv_heads;
    let scale = 1.0 / (hd as f64).sqrt();
    let dtype = q.dtype();
    let q: Tensor<B, 4> = q.reshape([n, kv_heads, g, hd]);
    // The query heads of one K/V head and all responses become rows of one product.
    let together = |x: Tensor<B, 4>| -> Tensor<B, 3> {
        let width = x.dims()[3];
        x.swap_dims(0, 1).reshape([kv_heads, n * g, width])
    };
    let apart = |x: Tensor<B, 3>| -> Tensor<B, 4> {
        let width = x.dims()[2];
        x.reshape([kv_heads, n, g, width]).swap_dims(0, 1)
    };
    let [pk, pv] = prefix.map(|x| x.swap_dims(0, 1)); // [Hkv, p, hd]
    let [k, v] = own.map(|x| x.swap_dims(1, 2)); // [n, Hkv, len, hd]
    let s_own = to_f32(B::matmul(q.clone(), k.transpose())).mul_scalar(scale); // [n, Hkv, G, len]
    if p == 0 {
        let weights = burn::tensor::activation::softmax(s_own, 3);
        return cast_to(to_f32(B::matmul(cast_to(weights, dtype), v)), dtype).reshape([n, heads, hd]);
    }
    let s_prefix = apart(to_f32(B::matmul(together(q), pk.transpose())).mul_scalar(scale)); // [n, Hkv, G, p]
    let max = s_prefix.clone().max_dim(3).max_pair(s_own.clone().max_dim(3));
    let (e_prefix, e_own) = (s_prefix.sub(max.clone()).exp(), s_own.sub(max).exp());
    let sum = e_prefix.clone().sum_dim(3).add(e_own.clone().sum_dim(3));
    let from_prefix = apart(B::matmul(together(cast_to(e_prefix, dtype)), pv));
    let out = B::matmul(cast_to(e_own, dtype), v).add(from_prefix);
    cast_to(to_f32(out).div(sum), dtype).reshape([n, heads, hd])
}
