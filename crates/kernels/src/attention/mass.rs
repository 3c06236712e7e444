//! How much of the last layer's attention falls on image, prompt text and generated text: what the figures of visual
//! forgetting show.
//!
//! Only rows of responses are looked at, a few queries at a time: nothing of the size of tokens squared is kept.

use std::ops::Range;

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::forward::fold_queries;
use super::packed::flat;
use super::plan::AttentionPlan;
use super::scores::{PLAIN_SCORES, causal_mask};
use crate::collective;
use crate::host::{self, DeviceError};
use crate::layers::{Attend, TransformerBlock};
use crate::ops::Kernels;
use crate::params::to_f32;
use crate::rope::Rotary;

/// Attention of each token of a response, from its own position, mean over the heads of the last layer. The three sum
/// to 1.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AttentionMass {
    /// On image tokens `[T]`; zero without images.
    pub image: Vec<f32>,
    /// On the other tokens of the prompt `[T]`.
    pub prompt: Vec<f32>,
    /// On generated tokens, the token itself included `[T]`.
    pub generated: Vec<f32>,
}

/// Whose attention is measured, in rows of the packed batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Looker {
    /// The response.
    pub rows: Range<usize>,
    /// Its prompt.
    pub prompt: Range<usize>,
    /// The prompt's image tokens.
    pub images: Vec<usize>,
}

/// Packed attention that measures the masses in layer `last`.
#[derive(Debug)]
pub struct MassMeter<'a, B: Backend> {
    /// Who attends to whom.
    pub plan: &'a AttentionPlan<B>,
    /// Where the tokens stand.
    pub rotary: &'a Rotary<B>,
    /// The layer that is measured.
    pub last: usize,
    /// Whose attention.
    pub lookers: Vec<Looker>,
    /// `[T, 3]` each, in the order of `lookers`.
    pub masses: Vec<Tensor<B, 2>>,
}

impl<B: Kernels> Attend<B> for MassMeter<'_, B> {
    fn attend(&mut self, block: &TransformerBlock<B>, h: Tensor<B, 2>) -> Tensor<B, 2> {
        let [q, k, v] = block.heads(h, self.rotary, None);
        if block.index == self.last {
            // All ranks have the same number of heads.
            let mean = |own: Tensor<B, 2>| match block.ranks.size() {
                1 => own,
                ranks => collective::sum(own, &block.ranks, "attention masses").div_scalar(ranks as f64),
            };
            self.masses = self.lookers.iter().map(|looker| mean(masses(&q, &k, looker))).collect();
        }
        flat(B::packed_attention(q, k, v, self.plan).0)
    }
}

/// `q [N, H, hd]`, `k [N, Hkv, hd]` to the masses `[T, 3]` of one response on image, prompt, generated.
fn masses<B: Kernels>(q: &Tensor<B, 3>, k: &Tensor<B, 3>, looker: &Looker) -> Tensor<B, 2> {
    let device = q.device();
    let [_, heads, hd] = q.dims();
    let hkv = k.dims()[1];
    let g = heads / hkv;
    let (p, t) = (looker.prompt.len(), looker.rows.len());
    let rows = |x: &Tensor<B, 3>, r: Range<usize>| {
        let [_, h, d] = x.dims();
        x.clone().slice([r, 0..h, 0..d])
    };
    let keys = Tensor::cat(vec![rows(k, looker.prompt.clone()), rows(k, looker.rows.clone())], 0);
    let keys = to_f32(fold_queries(keys, 1, 1, hkv)).transpose(); // [Hkv, hd, P + T]
    let mut kinds = vec![0f32; (p + t) * 3];
    let images: std::collections::BTreeSet<usize> = looker.images.iter().map(|i| i - looker.prompt.start).collect();
    for key in 0..p + t {
        let kind = match key {
            key if key >= p => 2,
            key if images.contains(&key) => 0,
            _ => 1,
        };
        kinds[key * 3 + kind] = 1.0;
    }
    let kinds = Tensor::<B, 2>::from_data(TensorData::new(kinds, [p + t, 3]), &device);
    let step = (PLAIN_SCORES / (heads * (p + t))).clamp(1, t.max(1));
    let scale = 1.0 / (hd as f64).sqrt();
    let parts = (0..t)
        .step_by(step)
        .map(|t0| {
            let t1 = (t0 + step).min(t);
            let c = t1 - t0;
            let own = rows(q, looker.rows.start + t0..looker.rows.start + t1);
            let own = to_f32(fold_queries(own, 1, 1, hkv)); // [Hkv, c G, hd]
            let seen = p + t1;
            let scores = B::matmul(own, keys.clone().slice([0..hkv, 0..hd, 0..seen])).mul_scalar(scale);
            let open = Tensor::zeros([1, c * g, p], &device);
            let scores = scores.add(Tensor::cat(vec![open, causal_mask(t0, t1, g, t1, &device)], 2));
            let mass = softmax(scores, 2).reshape([hkv, c, g * seen]).mean_dim(0); // mean over K/V heads
            let mass: Tensor<B, 2> = mass.reshape([c, g, seen]).mean_dim(1).reshape([c, seen]); // and their query heads
            B::matmul(mass, kinds.clone().slice([0..seen, 0..3]))
        })
        .collect();
    Tensor::cat(parts, 0)
}

/// Reads the masses of a [`MassMeter`] from the device.
///
/// # Errors
/// A device that cannot be read.
pub fn read<B: Backend>(masses: Vec<Tensor<B, 2>>) -> Result<Vec<AttentionMass>, DeviceError> {
    masses
        .into_iter()
        .map(|m| {
            let values = host::floats(m)?;
            let kind = |k: usize| values.iter().skip(k).step_by(3).copied().collect();
            Ok(AttentionMass { image: kind(0), prompt: kind(1), generated: kind(2) })
        })
        .collect()
}
