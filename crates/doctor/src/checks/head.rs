//! The log-prob head and divergences of predictions.

use burn::tensor::{DType, Tensor};
use kernels::Kernels;
use kernels::head::{plain_kl_divergence, plain_log_probs, plain_log_probs_backward};
use rl::TrainError;

use crate::finding::Comparisons;
use crate::sides::flat;
use crate::sides::{Cpu, Sides};

/// Rows, hidden size and vocabulary: the run's hidden size over few words, and its vocabulary over narrow states. Both
/// together would be gigabytes on the CPU.
fn cases<B: Kernels>(sides: &Sides<B>) -> [[usize; 3]; 2] {
    let text = &sides.config.text;
    [[5, text.hidden_size, 999], [3, 64, text.vocab_size]]
}

/// Weights that make logits of a few units: where one word has all the probability, an entropy is its rounding error.
fn head<B: Kernels>(sides: &Sides<B>, v: usize, d: usize, dtype: DType) -> (Tensor<B, 2>, Tensor<Cpu, 2>) {
    sides.both(sides.values(v * d, 2.0 / (d as f32).sqrt(), dtype), [v, d], dtype)
}

pub(crate) fn log_probs<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let cases = cases(sides);
    let mut tally = Comparisons::new(format!(
        "log-probs, entropies and gradients over {} and {} words beside plain operations",
        cases[0][2], cases[1][2]
    ));
    for ([m, d, v], dtype) in cases.into_iter().flat_map(|case| sides.dtypes().into_iter().map(move |t| (case, t))) {
        let ((h, ph), (w, pw)) = (sides.random([m, d], dtype), head(sides, v, d, dtype));
        let (targets, plain_targets) = sides.indices((0..m).map(|i| (i * 7919 + v - 1) % v).collect());
        let [(dl, pdl), (de, pde)] = [(); 2].map(|()| sides.random([m], DType::F32));
        let temperature = 0.7;
        let device = || {
            let out = B::log_probs(h.clone(), &w, targets.clone(), temperature, true);
            let (t, dl, de) = (targets.clone(), dl.clone(), Some(de.clone()));
            let (dh, dw) = B::log_probs_backward(h.clone(), &w, t, temperature, dl, de);
            let entropy = out.entropy.into_iter();
            [out.log_probs].into_iter().chain(entropy).chain([flat(dh), flat(dw)]).collect()
        };
        let out = plain_log_probs(ph.clone(), &pw, plain_targets.clone(), temperature, true);
        let (dh, dw) = plain_log_probs_backward(ph, &pw, plain_targets, temperature, pdl, Some(pde));
        let cpu = [out.log_probs].into_iter().chain(out.entropy).chain([flat(dh), flat(dw)]).collect();
        let what = format!("head of {d} and {v} words in {dtype:?}");
        sides.compare(&mut tally, sides.product_bound(dtype).max(2e-4), &what, device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn kl_divergence<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let cases = cases(sides);
    let mut tally = Comparisons::new(format!(
        "two predictions over {} and {} words beside plain operations",
        cases[0][2], cases[1][2]
    ));
    for ([m, d, v], dtype) in cases.into_iter().flat_map(|case| sides.dtypes().into_iter().map(move |t| (case, t))) {
        let ((p, pp), (q, pq)) = (sides.random([m, d], dtype), sides.random([m, d], dtype));
        let (w, pw) = head(sides, v, d, dtype);
        let device = || vec![B::kl_divergence(p.clone(), q.clone(), &w, 1.0)];
        let cpu = vec![plain_kl_divergence(pp, pq, &pw, 1.0, 1 << 22)];
        let what = format!("divergence over {v} words in {dtype:?}");
        sides.compare(&mut tally, sides.product_bound(dtype).max(2e-4), &what, device, cpu)?;
    }
    Ok(tally)
}
