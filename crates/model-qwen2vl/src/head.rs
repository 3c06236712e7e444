//! The log-prob head (design decision 5): log-probabilities and entropies of chosen tokens, and their gradients, without
//! ever holding `[tokens, vocabulary]`: rows are taken in chunks and the softmax is computed again in the backward.

use burn::tensor::{Int, Tensor, backend::Backend};

use crate::ops::Kernels;
use crate::params::{Gradients, cast_to, to_f32};

/// Logits held at one time, in elements.
const LOGIT_BUDGET: usize = 1 << 22;

/// Log-probabilities of the targets and, if asked for, entropies of the full distributions; both `[M]` in f32.
#[derive(Debug, Clone)]
pub struct HeadOutput<B: Backend> {
    /// `log softmax(h W^T / temperature)[target]`
    pub log_probs: Tensor<B, 1>,
    /// `-sum p log p`
    pub entropy: Option<Tensor<B, 1>>,
}

pub(crate) fn chunks(m: usize, vocab: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    let step = (LOGIT_BUDGET / vocab.max(1)).clamp(1, m.max(1));
    (0..m).step_by(step).map(move |a| (a, (a + step).min(m)))
}

/// Scaled logits in f32 and their log-sum-exp: `([c, V], [c, 1])`.
fn logits<B: Backend>(hidden: Tensor<B, 2>, weight: &Tensor<B, 2>, temperature: f64) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let mut z = to_f32(hidden.matmul(weight.clone().transpose()));
    if temperature != 1.0 {
        z = z.mul_scalar(1.0 / temperature);
    }
    let max = z.clone().max_dim(1);
    let lse = z.clone().sub(max.clone()).exp().sum_dim(1).log().add(max);
    (z, lse)
}

/// `hidden [M, d]` (after the final norm), `weight [V, d]`, `targets [M]`.
pub fn log_probs<B: Kernels>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    with_entropy: bool,
) -> HeadOutput<B> {
    B::log_probs(hidden, weight, targets, temperature, with_entropy)
}

/// The gradient of [`log_probs`]: `d_log_probs [M]`, `d_entropy [M]` in f32 to `dhidden [M, d]`; the head's own gradient is
/// added to `grads` under `name`.
#[allow(clippy::too_many_arguments)]
pub fn log_probs_backward<B: Kernels>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    d_log_probs: Tensor<B, 1>,
    d_entropy: Option<Tensor<B, 1>>,
    name: &str,
    grads: &mut Gradients<B>,
) -> Tensor<B, 2> {
    let (dh, dw) = B::log_probs_backward(hidden, weight, targets, temperature, d_log_probs, d_entropy);
    grads.add(name, dw);
    dh
}

/// See [`Kernels::log_probs`](crate::Kernels::log_probs).
pub fn plain_log_probs<B: Backend>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    with_entropy: bool,
) -> HeadOutput<B> {
    let (m, d) = (hidden.dims()[0], hidden.dims()[1]);
    let (mut lps, mut ents) = (Vec::new(), Vec::new());
    for (a, b) in chunks(m, weight.dims()[0]) {
        let (z, lse) = logits(hidden.clone().slice([a..b, 0..d]), weight, temperature);
        let t = targets.clone().slice(a..b).reshape([b - a, 1]);
        lps.push(z.clone().gather(1, t).sub(lse.clone()).reshape([b - a]));
        if with_entropy {
            // H = lse - sum p z
            let p = z.clone().sub(lse.clone()).exp();
            ents.push(lse.sub(p.mul(z).sum_dim(1)).reshape([b - a]));
        }
    }
    HeadOutput { log_probs: Tensor::cat(lps, 0), entropy: with_entropy.then(|| Tensor::cat(ents, 0)) }
}

/// See [`Kernels::log_probs_backward`](crate::Kernels::log_probs_backward).
pub fn plain_log_probs_backward<B: Backend>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    d_log_probs: Tensor<B, 1>,
    d_entropy: Option<Tensor<B, 1>>,
) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let (m, d) = (hidden.dims()[0], hidden.dims()[1]);
    let dtype = hidden.dtype();
    let mut parts = Vec::new();
    let mut dw: Option<Tensor<B, 2>> = None;
    for (a, b) in chunks(m, weight.dims()[0]) {
        let c = b - a;
        let h = hidden.clone().slice([a..b, 0..d]);
        let (z, lse) = logits(h.clone(), weight, temperature);
        let log_p = z.sub(lse);
        let p = log_p.clone().exp();
        let t = targets.clone().slice(a..b).reshape([c, 1]);
        let dl = d_log_probs.clone().slice(a..b).reshape([c, 1]);
        // d logp_target / dz = onehot - p ; dH / dz = -p (log p + H)
        let mut dz = p.clone().mul(dl.clone().neg());
        if let Some(de) = &d_entropy {
            let de = de.clone().slice(a..b).reshape([c, 1]);
            let h_neg = p.clone().mul(log_p.clone()).sum_dim(1); // -H
            dz = dz.sub(p.mul(log_p.sub(h_neg)).mul(de));
        }
        let mut dz = dz.scatter(1, t, dl, burn::tensor::IndexingUpdateOp::Add);
        if temperature != 1.0 {
            dz = dz.mul_scalar(1.0 / temperature);
        }
        let dz = cast_to(dz, dtype);
        let part = to_f32(dz.clone().transpose().matmul(h));
        dw = Some(match dw {
            None => part,
            Some(sum) => sum.add(part),
        });
        parts.push(dz.matmul(weight.clone()));
    }
    let dw = dw.unwrap_or_else(|| Tensor::zeros(weight.dims(), &weight.device()));
    (Tensor::cat(parts, 0), dw)
}
