//! Sampling: a row of logits stays in the cache while its token is drawn.

use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;

use super::host::{F, Host, PARALLEL, tensor};
use super::simd::{exp, max, sum, vectorised};
use crate::sampling::{BISECTIONS, FLOOR, RowChoice};

vectorised! {
    /// `z = logits inverse`, and the log-sum-exp of it.
    fn scale(z: &mut [f32], logits: &[f32], inverse: f32) -> f32 {
        for (z, v) in z.iter_mut().zip(logits) {
            *z = v * inverse;
        }
        let top = max(z);
        top + sum(z.len(), |i| exp(z[i] - top)).ln()
    }
}

vectorised! {
    /// `z + mask` in place; nothing where there is no mask.
    fn forbid(z: &mut [f32], mask: &[f32]) {
        for (z, m) in z.iter_mut().zip(mask) {
            *z += m;
        }
    }
}

vectorised! {
    /// Probabilities up to a factor in place, the largest 1.
    fn exponentials(z: &mut [f32]) {
        let top = max(z);
        for v in z.iter_mut() {
            *v = exp(*v - top);
        }
    }
}

vectorised! {
    /// The sum of the values that are no smaller than `threshold`.
    fn mass_from(e: &[f32], threshold: f32) -> f32 {
        sum(e.len(), |i| if e[i] < threshold { 0.0 } else { e[i] })
    }
}

vectorised! {
    fn cut(e: &mut [f32], threshold: f32) {
        for v in e.iter_mut() {
            *v = if *v < threshold { 0.0 } else { *v };
        }
    }
}

vectorised! {
    /// The sums of the blocks of `size` values.
    fn block_sums(sums: &mut [f32], e: &[f32], size: usize) {
        for (total, block) in sums.iter_mut().zip(e.chunks(size)) {
            *total = sum(block.len(), |i| block[i]);
        }
    }
}

/// The first entry whose cumulative sum exceeds the share `u` of the total, and how far into it the share reaches, as a
/// share again.
fn pick(e: &[f32], u: f32) -> (usize, f32) {
    let total: f32 = e.iter().sum();
    let target = total * u.clamp(0.0, 1.0 - 1e-6);
    let (mut before, mut at) = (0.0, 0);
    while at + 1 < e.len() && before + e[at] <= target {
        before += e[at];
        at += 1;
    }
    (at, ((target - before) / e[at].max(1e-30)).clamp(0.0, 1.0))
}

/// Keeps the fewest likeliest tokens whose probability reaches `top_p` of all of it.
fn nucleus(e: &mut [f32], top_p: f64) {
    let target = mass_from(e, 0.0) * top_p as f32;
    let (mut low, mut high) = (FLOOR.ln() as f32, 0f32);
    for _ in 0..BISECTIONS {
        let middle = (low + high) * 0.5;
        if mass_from(e, middle.exp()) >= target { low = middle } else { high = middle }
    }
    cut(e, low.exp());
}

/// Room for one row.
#[derive(Default)]
struct RowScratch {
    z: Vec<f32>,
    sums: Vec<f32>,
}

/// One row's token and its log-prob.
fn draw(scratch: &mut RowScratch, logits: &[f32], mask: &[f32], choice: &RowChoice) -> (usize, f32) {
    let RowScratch { z, sums } = scratch;
    let vocab = logits.len();
    let inverse = if choice.temperature > 0.0 { (1.0 / choice.temperature) as f32 } else { 1.0 };
    z.resize(vocab, 0.0);
    let lse = scale(z, logits, inverse);
    forbid(z, mask);
    let id = if choice.temperature == 0.0 {
        let top = max(z);
        z.iter().position(|v| *v == top).unwrap_or(0)
    } else {
        exponentials(z);
        if choice.top_p < 1.0 {
            nucleus(z, choice.top_p);
        }
        let size = (vocab as f64).sqrt().ceil() as usize;
        sums.resize(vocab.div_ceil(size), 0.0);
        block_sums(sums, z, size);
        let (block, left) = pick(sums, choice.uniform);
        let start = block * size;
        start + pick(&z[start..vocab.min(start + size)], left).0
    };
    (id, logits[id] * inverse - lse)
}

/// See [`Kernels::sample`](crate::Kernels::sample); everything in f32.
pub(super) fn sample(
    logits: Tensor<F, 2>,
    choices: &[RowChoice],
    forbidden: Option<&Tensor<F, 2>>,
) -> (Tensor<F, 1, Int>, Tensor<F, 1>) {
    let [rows, vocab] = logits.dims();
    let shared = forbidden.is_some_and(|mask| mask.dims()[0] == 1);
    let (logits, mask) = (Host::new(&logits), forbidden.map(Host::new));
    let (values, mask) = (logits.values(), mask.as_ref().map_or(&[][..], Host::values));
    let mask_of = |row: usize| match (mask.is_empty(), shared) {
        (true, _) => mask,
        (_, true) => &mask[..vocab],
        (_, false) => &mask[row * vocab..(row + 1) * vocab],
    };
    let one = |scratch: &mut RowScratch, row: usize| {
        draw(scratch, &values[row * vocab..(row + 1) * vocab], mask_of(row), &choices[row])
    };
    let drawn: Vec<(usize, f32)> = if rows * vocab < PARALLEL {
        let mut scratch = RowScratch::default();
        (0..rows).map(|row| one(&mut scratch, row)).collect()
    } else {
        (0..rows).into_par_iter().map_init(RowScratch::default, one).collect()
    };
    let ids: Vec<i32> = drawn.iter().map(|d| d.0 as i32).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [rows]), &Default::default());
    (ids, tensor(drawn.into_iter().map(|d| d.1).collect(), [rows]))
}
