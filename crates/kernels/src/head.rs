//! The log-prob head (design decision 5): log-probabilities and entropies of chosen tokens, their gradients, and
//! divergences of two predictions, without ever holding `[tokens, vocabulary]`: rows are taken in chunks and the
//! softmax is computed again in the backward.

mod lm_head;
mod shared;

pub use lm_head::{LmHead, VocabShards};

use burn::tensor::{DType, Int, Tensor, backend::Backend};

use crate::ops::Kernels;
use crate::params::{Gradients, cast_to, to_f32, zeros};
use shared::SharedHead;

/// Logits held at one time, in elements: what fits a CPU's cache.
pub(crate) const CPU_LOGITS: usize = 1 << 22;

/// Log-probabilities of the targets and, if asked for, entropies of the full distributions; both `[M]` in f32.
#[derive(Debug, Clone)]
pub struct HeadOutput<B: Backend> {
    /// `log softmax(h W^T / temperature)[target]`
    pub log_probs: Tensor<B, 1>,
    /// `-sum p log p`
    pub entropy: Option<Tensor<B, 1>>,
}

/// Rows `a..b` of each chunk of `m` rows, if `most` logits may be held at one time.
pub(crate) fn chunks(m: usize, vocab: usize, most: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    let step = (most / vocab.max(1)).clamp(1, m.max(1));
    (0..m).step_by(step).map(move |a| (a, (a + step).min(m)))
}

/// Scaled logits in f32 and their log-sum-exp: `([c, V], [c, 1])`.
fn scaled<B: Backend>(logits: Tensor<B, 2>, temperature: f64) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let mut z = to_f32(logits);
    if temperature != 1.0 {
        z = z.mul_scalar(1.0 / temperature);
    }
    let max = z.clone().max_dim(1);
    let lse = z.clone().sub(max.clone()).exp().sum_dim(1).log().add(max);
    (z, lse)
}

/// `hidden [M, d]` (after the final norm), the head's weight `[V, d]`, `targets [M]`. Ranks that share the head out all
/// call this with the same hidden states and targets, and get the same; so for the functions below.
pub fn log_probs<'a, B: Kernels>(
    hidden: Tensor<B, 2>,
    head: impl Into<LmHead<'a, B>>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    with_entropy: bool,
) -> HeadOutput<B> {
    let head = head.into();
    match SharedHead::new(head, temperature) {
        Some(shared) => shared.log_probs(&hidden, &targets, with_entropy),
        None => B::log_probs(hidden, head.weight, targets, temperature, with_entropy),
    }
}

/// How far the distributions that two sets of hidden states predict are apart, token by token and over the full
/// vocabulary: `KL(P || Q) = sum_v P_v (log P_v - log Q_v)` with `P = softmax(p W^T / temperature)` and `Q` likewise
/// of `q`; `[M]` in f32, 0 or more.
///
/// `p [M, d]` and `q [M, d]` (after the final norm), the head's weight `[V, d]`. There is no gradient: algorithms take
/// it as a constant.
pub fn kl_divergence<'a, B: Kernels>(
    p: Tensor<B, 2>,
    q: Tensor<B, 2>,
    head: impl Into<LmHead<'a, B>>,
    temperature: f64,
) -> Tensor<B, 1> {
    let head = head.into();
    match SharedHead::new(head, temperature) {
        Some(shared) => shared.kl_divergence(&p, &q),
        None => B::kl_divergence(p, q, head.weight, temperature),
    }
}

/// The gradient of [`log_probs`]: `d_log_probs [M]`, `d_entropy [M]` in f32 to `dhidden [M, d]`; the head's own
/// gradient is added to `grads` under `name`, unless it is frozen.
#[allow(clippy::too_many_arguments)] // those of `log_probs`, their gradients, and where the head's own goes
pub fn log_probs_backward<'a, B: Kernels>(
    hidden: Tensor<B, 2>,
    head: impl Into<LmHead<'a, B>>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    d_log_probs: Tensor<B, 1>,
    d_entropy: Option<Tensor<B, 1>>,
    name: &str,
    grads: &mut Gradients<B>,
) -> Tensor<B, 2> {
    let head = head.into();
    let learns = !head.frozen;
    let (dh, dw) = match SharedHead::new(head, temperature) {
        Some(shared) => shared.backward(hidden, &targets, &d_log_probs, d_entropy.as_ref(), learns),
        None => B::log_probs_backward(hidden, head.weight, targets, temperature, d_log_probs, d_entropy, learns),
    };
    if let Some(dw) = dw {
        grads.add(name, dw);
    }
    dh
}

/// The head in chunks of at most `most` logits: `read` makes log-probs and, if asked for, entropies `[c]` of logits
/// `[c, V]`, as the matmul leaves them, and targets `[c]`.
pub(crate) fn log_probs_by<B: Kernels>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    with_entropy: bool,
    most: usize,
    read: impl Fn(Tensor<B, 2>, Tensor<B, 1, Int>) -> HeadOutput<B>,
) -> HeadOutput<B> {
    let [m, d] = hidden.dims();
    if m == 0 {
        let none = zeros([0], &hidden.device(), DType::F32);
        return HeadOutput { entropy: with_entropy.then(|| none.clone()), log_probs: none };
    }
    let (mut log_probs, mut entropies) = (Vec::new(), Vec::new());
    for (a, b) in chunks(m, weight.dims()[0], most) {
        let logits = B::matmul(hidden.clone().slice([a..b, 0..d]), weight.clone().transpose());
        let part = read(logits, targets.clone().slice(a..b));
        log_probs.push(part.log_probs);
        entropies.extend(part.entropy);
    }
    HeadOutput { log_probs: Tensor::cat(log_probs, 0), entropy: with_entropy.then(|| Tensor::cat(entropies, 0)) }
}

/// The head's gradients in chunks of at most `most` logits: `gradient` turns logits `[c, V]`, as the matmul leaves
/// them, targets `[c]` and the gradients of log-probs and entropies `[c]` into that of the logits, in the logits' type.
#[allow(clippy::too_many_arguments)] // those of `log_probs_backward`, and how
pub(crate) fn log_probs_backward_by<B: Kernels>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    d_log_probs: Tensor<B, 1>,
    d_entropy: Option<Tensor<B, 1>>,
    most: usize,
    learns: bool,
    gradient: impl Fn(Tensor<B, 2>, Tensor<B, 1, Int>, Tensor<B, 1>, Option<Tensor<B, 1>>) -> Tensor<B, 2>,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    let [m, d] = hidden.dims();
    let mut parts = Vec::new();
    let mut dw: Option<Tensor<B, 2>> = None;
    for (a, b) in chunks(m, weight.dims()[0], most) {
        let h = hidden.clone().slice([a..b, 0..d]);
        let logits = B::matmul(h.clone(), weight.clone().transpose());
        let dl = d_log_probs.clone().slice(a..b);
        let de = d_entropy.as_ref().map(|de| de.clone().slice(a..b));
        let dz = gradient(logits, targets.clone().slice(a..b), dl, de);
        if learns {
            let part = B::weight_gradient(dz.clone(), h);
            dw = Some(match dw {
                None => part,
                Some(sum) => sum.add(part),
            });
        }
        parts.push(B::matmul(dz, weight.clone()));
    }
    if parts.is_empty() {
        // No rows, no gradient.
        return (hidden, learns.then(|| Tensor::zeros(weight.dims(), (&weight.device(), DType::F32))));
    }
    (Tensor::cat(parts, 0), dw)
}

/// See [`Kernels::log_probs`](crate::Kernels::log_probs).
pub fn plain_log_probs<B: Kernels>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    with_entropy: bool,
) -> HeadOutput<B> {
    log_probs_by(hidden, weight, targets, with_entropy, CPU_LOGITS, |logits, targets| {
        let c = logits.dims()[0];
        let (z, lse) = scaled(logits, temperature);
        let log_probs = z.clone().gather(1, targets.reshape([c, 1])).sub(lse.clone()).reshape([c]);
        let entropy = with_entropy.then(|| {
            // H = lse - sum p z
            let p = z.clone().sub(lse.clone()).exp();
            lse.sub(p.mul(z).sum_dim(1)).reshape([c])
        });
        HeadOutput { log_probs, entropy }
    })
}

/// See [`Kernels::kl_divergence`](crate::Kernels::kl_divergence); at most `most` logits, of both distributions
/// together, are held at one time.
pub fn plain_kl_divergence<B: Kernels>(
    p: Tensor<B, 2>,
    q: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    temperature: f64,
    most: usize,
) -> Tensor<B, 1> {
    let [m, d] = p.dims();
    if m == 0 {
        return zeros([0], &p.device(), DType::F32);
    }
    let parts = chunks(m, weight.dims()[0], most / 2).map(|(a, b)| {
        let log_softmax = |states: &Tensor<B, 2>| {
            let logits = B::matmul(states.clone().slice([a..b, 0..d]), weight.clone().transpose());
            let (z, lse) = scaled(logits, temperature);
            z.sub(lse)
        };
        let (log_p, log_q) = (log_softmax(&p), log_softmax(&q)); // [c, V]
        let p = log_p.clone().exp();
        // The sum of -P + Q is 0. With it no term is negative, and what rounding the two log-sum-exps does cancels.
        let terms = p.clone().mul(log_p.sub(log_q.clone())).sub(p).add(log_q.exp());
        let sum = terms.sum_dim(1).reshape([b - a]);
        // Not a clamp: on some backends that turns NaN into 0.
        let below = sum.clone().lower_elem(0.0);
        sum.mask_fill(below, 0.0)
    });
    Tensor::cat(parts.collect(), 0)
}

/// See [`Kernels::log_probs_backward`](crate::Kernels::log_probs_backward).
pub fn plain_log_probs_backward<B: Kernels>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    d_log_probs: Tensor<B, 1>,
    d_entropy: Option<Tensor<B, 1>>,
    learns: bool,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    let dtype = hidden.dtype();
    let most = CPU_LOGITS;
    log_probs_backward_by(hidden, weight, targets, d_log_probs, d_entropy, most, learns, |logits, targets, dl, de| {
        let c = logits.dims()[0];
        let (z, lse) = scaled(logits, temperature);
        let log_p = z.sub(lse);
        let p = log_p.clone().exp();
        let dl = dl.reshape([c, 1]);
        // d logp_target / dz = onehot - p ; dH / dz = -p (log p + H)
        let mut dz = p.clone().mul(dl.clone().neg());
        if let Some(de) = de {
            let h_neg = p.clone().mul(log_p.clone()).sum_dim(1); // -H
            dz = dz.sub(p.mul(log_p.sub(h_neg)).mul(de.reshape([c, 1])));
        }
        let mut dz = dz.scatter(1, targets.reshape([c, 1]), dl, burn::tensor::IndexingUpdateOp::Add);
        if temperature != 1.0 {
            dz = dz.mul_scalar(1.0 / temperature);
        }
        cast_to(dz, dtype)
    })
}

#[cfg(test)]
mod tests;
