//! The log-prob head: logits of a chunk of rows, then one pass over them.

use burn::tensor::{Int, Tensor};
use rayon::prelude::*;

use super::host::{F, Host, Matrix, matmul, tensor, zeros};
use super::simd::{exp, max, sum, vectorised};
use crate::head::{CPU_LOGITS, HeadOutput, chunks};

vectorised! {
    /// Log-sum-exp of a row that is scaled in place.
    fn log_sum_exp(z: &mut [f32], inverse: f32) -> f32 {
        for v in z.iter_mut() {
            *v *= inverse;
        }
        let top = max(z);
        top + sum(z.len(), |i| exp(z[i] - top)).ln()
    }
}

vectorised! {
    /// `sum p z` of a row. Dividing by the sum of `p` as computed cancels the rounding of `lse`, which all `p` share.
    fn mean_logit(z: &[f32], lse: f32) -> f32 {
        sum(z.len(), |i| exp(z[i] - lse) * z[i]) / sum(z.len(), |i| exp(z[i] - lse))
    }
}

vectorised! {
    /// Logits to their gradient but for the target's one: `-p (dl + de (log p + H)) inverse`.
    fn row_backward(z: &mut [f32], lse: f32, dl: f32, de: f32, entropy: f32, inverse: f32) {
        if de == 0.0 {
            for v in z.iter_mut() {
                *v = exp(*v - lse) * (-dl * inverse);
            }
        } else {
            for v in z.iter_mut() {
                let log_p = *v - lse;
                *v = -exp(log_p) * (dl + de * (log_p + entropy)) * inverse;
            }
        }
    }
}

fn targets_of(targets: Tensor<F, 1, Int>) -> Vec<usize> {
    targets.into_data().convert::<i32>().iter::<i32>().map(|t| t.max(0) as usize).collect()
}

/// Log-probs and entropies of one chunk whose logits `z` are.
fn read(
    z: &mut [f32],
    targets: &[usize],
    vocab: usize,
    inverse: f32,
    with_entropy: bool,
    out: &mut [f32],
    entropy: &mut [f32],
) {
    z.par_chunks_exact_mut(vocab).zip(out.par_iter_mut()).zip(entropy.par_iter_mut()).zip(targets).for_each(
        |(((z, out), entropy), &t)| {
            let lse = log_sum_exp(z, inverse);
            *out = z[t] - lse;
            if with_entropy {
                *entropy = lse - mean_logit(z, lse);
            }
        },
    );
}

/// The first `len` values of what the chunks share.
fn scratch(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if values.len() < len {
        *values = zeros(len);
    }
    &mut values[..len]
}

pub(super) fn log_probs(
    hidden: Tensor<F, 2>,
    weight: &Tensor<F, 2>,
    targets: Tensor<F, 1, Int>,
    temperature: f64,
    with_entropy: bool,
) -> HeadOutput<F> {
    let ([m, d], vocab) = (hidden.dims(), weight.dims()[0]);
    let targets = targets_of(targets);
    let (h, w) = (Host::new(&hidden), Host::new(weight));
    let (h, w) = (h.values(), w.values());
    let (mut out, mut entropy) = (zeros(m), zeros(m));
    let mut logits = Vec::new();
    for (a, b) in chunks(m, vocab, CPU_LOGITS) {
        let (states, rows) = (Matrix::rows(&h[a * d..b * d], d), b - a);
        let z = scratch(&mut logits, rows * vocab);
        matmul(z, vocab, false, states, Matrix::rows(w, d).transposed(), rows, vocab, d, true);
        read(z, &targets[a..b], vocab, (1.0 / temperature) as f32, with_entropy, &mut out[a..b], &mut entropy[a..b]);
    }
    HeadOutput { log_probs: tensor(out, [m]), entropy: with_entropy.then(|| tensor(entropy, [m])) }
}

pub(super) fn log_probs_backward(
    hidden: Tensor<F, 2>,
    weight: &Tensor<F, 2>,
    targets: Tensor<F, 1, Int>,
    temperature: f64,
    d_log_probs: Tensor<F, 1>,
    d_entropy: Option<Tensor<F, 1>>,
    learns: bool,
) -> (Tensor<F, 2>, Option<Tensor<F, 2>>) {
    let ([m, d], vocab) = (hidden.dims(), weight.dims()[0]);
    let targets = targets_of(targets);
    let (h, w, dl) = (Host::new(&hidden), Host::new(weight), Host::new(&d_log_probs));
    let de = d_entropy.as_ref().map(Host::new);
    let (h, w, dl, de) = (h.values(), w.values(), dl.values(), de.as_ref().map(Host::values));
    let inverse = (1.0 / temperature) as f32;
    let (mut dh, mut dw) = (zeros(m * d), learns.then(|| zeros(vocab * d)));
    let mut logits = Vec::new();
    for (a, b) in chunks(m, vocab, CPU_LOGITS) {
        let rows = b - a;
        let z = scratch(&mut logits, rows * vocab);
        let states = Matrix::rows(&h[a * d..b * d], d);
        matmul(z, vocab, false, states, Matrix::rows(w, d).transposed(), rows, vocab, d, true);
        z.par_chunks_exact_mut(vocab).enumerate().for_each(|(r, z)| {
            let (dl, de) = (dl[a + r], de.map_or(0.0, |de| de[a + r]));
            let lse = log_sum_exp(z, inverse);
            let entropy = if de == 0.0 { 0.0 } else { lse - mean_logit(z, lse) };
            row_backward(z, lse, dl, de, entropy, inverse);
            z[targets[a + r]] += dl * inverse;
        });
        if let Some(dw) = &mut dw {
            matmul(dw, d, true, Matrix::rows(z, vocab).transposed(), states, vocab, d, rows, true);
        }
        matmul(&mut dh[a * d..b * d], d, false, Matrix::rows(z, vocab), Matrix::rows(w, d), rows, d, vocab, true);
    }
    (tensor(dh, [m, d]), dw.map(|dw| tensor(dw, [vocab, d])))
}
