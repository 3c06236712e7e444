//! What the log-prob head does with a chunk of logits: one cube a row, one pass over the row for its statistics and one
//! more for the gradient.

use burn::tensor::{DType, Int, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{Tensor as Strided, *};

use super::launch::{Launch, countable, empty, float, grid, held, held_int, owned_rows, rows_in_order, tensor, units};
use super::reduce::{LOWEST, max, sum};
use crate::bounds::HEAD_LOGITS;
use crate::head::{
    HeadOutput, log_probs_backward_by, log_probs_by, plain_kl_divergence, plain_log_probs, plain_log_probs_backward,
};

/// Logits of both distributions of a divergence held at one time: the default's, in longer chunks, since each reads
/// the whole head. It keeps some f32 tensors of this size beside each other, so a chunk is shorter than the head's
/// own.
const DIVERGENCE_LOGITS: usize = 1 << 25;

/// Logits of the type of `hidden` held at one time: [`HEAD_LOGITS`], or on smaller devices a quarter of the largest
/// buffer.
fn logits<B: Launch>(hidden: &Tensor<B, 2>) -> usize {
    let largest = held(hidden.clone()).client.properties().memory.max_page_size as usize;
    HEAD_LOGITS.min(largest / 4 / hidden.dtype().size())
}

/// See [`Kernels::kl_divergence`](crate::Kernels::kl_divergence).
pub(super) fn kl_divergence<B: Launch>(
    p: Tensor<B, 2>,
    q: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    temperature: f64,
) -> Tensor<B, 1> {
    plain_kl_divergence(p, q, weight, temperature, DIVERGENCE_LOGITS)
}

/// Of the row of `z` that starts at `first`, scaled by `inverse`: the log-sum-exp and, if asked for, the entropy (else
/// 0).
#[cube]
fn statistics<F: Float>(
    z: &Strided<F>,
    first: usize,
    vocab: usize,
    inverse: f32,
    shared: &mut SharedMemory<f32>,
    #[comptime] with_entropy: bool,
    #[comptime] units: usize,
) -> (f32, f32) {
    // exps = sum exp(z - top), mean = sum exp(z - top) (z - top): both follow when a larger `top` turns up.
    let mut top = f32::new(LOWEST);
    let mut exps = 0.0f32;
    let mut mean = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < vocab {
        let z = f32::cast_from(z[first + i]) * inverse;
        if z > top {
            let shrink = (top - z).exp();
            if comptime!(with_entropy) {
                mean = shrink * (mean + exps * (top - z));
            }
            exps = exps * shrink + 1.0f32;
            top = z;
        } else {
            let e = (z - top).exp();
            exps += e;
            if comptime!(with_entropy) {
                mean += e * (z - top);
            }
        }
        i += units;
    }
    let highest = max(top, shared, units);
    let shrink = (top - highest).exp();
    let all = sum(exps * shrink, shared, units);
    let mut entropy = 0.0f32;
    if comptime!(with_entropy) {
        // H = log sum exp - sum p z, with the row's maximum taken out of both.
        entropy = all.ln() - sum(shrink * (mean + exps * (top - highest)), shared, units) / all;
    }
    (highest + all.ln(), entropy)
}

/// A target that is no token would read beside the row.
#[cube]
fn token<I: Numeric>(targets: &Array<I>, row: usize, vocab: usize) -> usize {
    let target = u32::cast_from(targets[row]) as usize;
    select(target < vocab, target, vocab - 1)
}

/// Logits `z [rows, vocab]`, `targets [rows]` to `log_probs [rows]` and `entropies [rows]`.
#[cube(launch)]
fn read<F: Float, I: Numeric>(
    z: &Strided<F>,
    targets: &Array<I>,
    log_probs: &mut Array<f32>,
    entropies: &mut Array<f32>,
    rows: usize,
    vocab: usize,
    inverse: f32,
    #[comptime] with_entropy: bool,
    #[comptime] units: usize,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(units);
    let first = row * z.stride(0);
    let (lse, entropy) = statistics::<F>(z, first, vocab, inverse, &mut shared, with_entropy, units);
    if UNIT_POS == 0 {
        log_probs[row] = f32::cast_from(z[first + token::<I>(targets, row, vocab)]) * inverse - lse;
        entropies[row] = entropy;
    }
}

/// Logits `z [rows, vocab]` to their gradient, in place, from that of the log-probs `dl [rows]` and of the entropies
/// `de [rows]`: `d log p_target / dz = onehot - p`, `dH / dz = -p (log p + H)`.
#[cube(launch)]
fn gradient<F: Float, I: Numeric>(
    targets: &Array<I>,
    dl: &Array<f32>,
    de: &Array<f32>,
    z: &mut Strided<F>,
    rows: usize,
    vocab: usize,
    inverse: f32,
    #[comptime] with_entropy: bool,
    #[comptime] units: usize,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(units);
    let first = row * z.stride(0);
    let (lse, entropy) = statistics::<F>(z, first, vocab, inverse, &mut shared, with_entropy, units);
    let target = token::<I>(targets, row, vocab);
    let dl = dl[row];
    let mut i = UNIT_POS as usize;
    while i < vocab {
        let log_p = f32::cast_from(z[first + i]) * inverse - lse;
        let mut slope = dl;
        if comptime!(with_entropy) {
            slope += de[row] * (log_p + entropy);
        }
        let chosen = select(i == target, dl, 0.0f32);
        z[first + i] = F::cast_from((chosen - log_p.exp() * slope) * inverse);
        i += units;
    }
}

fn launch_read<R: CubeRuntime>(
    z: CubeTensor<R>,
    targets: CubeTensor<R>,
    inverse: f32,
    with_entropy: bool,
) -> [CubeTensor<R>; 2] {
    let (z, targets) = (rows_in_order(z), into_contiguous(targets));
    let client = z.client.clone();
    let (rows, vocab) = (z.meta.shape()[0], z.meta.shape()[1]);
    let types = [z.dtype.into(), targets.dtype.into()];
    let row = || empty(&z, Shape::new([rows]), DType::F32);
    let (log_probs, entropies) = (row(), row());
    let units = units(&client, vocab);
    read::launch::<R>(
        &client,
        grid(&client, rows),
        CubeDim::new_1d(units as u32),
        z.into_tensor_arg(),
        targets.into_array_arg(),
        log_probs.clone().into_array_arg(),
        entropies.clone().into_array_arg(),
        rows,
        vocab,
        inverse,
        with_entropy,
        units,
        types,
    );
    [log_probs, entropies]
}

fn launch_gradient<R: CubeRuntime>(
    [z, targets, dl, de]: [CubeTensor<R>; 4],
    inverse: f32,
    with_entropy: bool,
) -> CubeTensor<R> {
    let (z, targets, dl, de) = (owned_rows(z), into_contiguous(targets), into_contiguous(dl), into_contiguous(de));
    let client = z.client.clone();
    let (rows, vocab) = (z.meta.shape()[0], z.meta.shape()[1]);
    let types = [z.dtype.into(), targets.dtype.into()];
    let units = units(&client, vocab);
    gradient::launch::<R>(
        &client,
        grid(&client, rows),
        CubeDim::new_1d(units as u32),
        targets.into_array_arg(),
        dl.into_array_arg(),
        de.into_array_arg(),
        z.clone().into_tensor_arg(),
        rows,
        vocab,
        inverse,
        with_entropy,
        units,
        types,
    );
    z
}

fn covered<B: Launch>(hidden: &Tensor<B, 2>, weight: &Tensor<B, 2>, targets: &Tensor<B, 1, Int>) -> bool {
    float(hidden.dtype())
        && weight.dtype() == hidden.dtype()
        && matches!(targets.dtype(), DType::I32 | DType::I64 | DType::U32)
        && weight.dims()[0] > 0
        && countable([hidden.shape(), weight.shape()])
}

/// See [`Kernels::log_probs`](crate::Kernels::log_probs). The default where types differ.
pub(super) fn log_probs<B: Launch>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    with_entropy: bool,
) -> HeadOutput<B> {
    if !covered(&hidden, weight, &targets) {
        return plain_log_probs(hidden, weight, targets, temperature, with_entropy);
    }
    let inverse = (1.0 / temperature) as f32;
    let most = logits(&hidden);
    log_probs_by(hidden, weight, targets, with_entropy, most, |z, targets| {
        let [log_probs, entropies] = launch_read(held(z), held_int(targets), inverse, with_entropy);
        HeadOutput { log_probs: tensor(log_probs), entropy: with_entropy.then(|| tensor(entropies)) }
    })
}

/// See [`Kernels::log_probs_backward`](crate::Kernels::log_probs_backward). The default where types differ.
pub(super) fn log_probs_backward<B: Launch>(
    hidden: Tensor<B, 2>,
    weight: &Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    temperature: f64,
    d_log_probs: Tensor<B, 1>,
    d_entropy: Option<Tensor<B, 1>>,
    learns: bool,
) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
    let f32s = d_log_probs.dtype() == DType::F32 && d_entropy.as_ref().is_none_or(|d| d.dtype() == DType::F32);
    if !f32s || !covered(&hidden, weight, &targets) {
        return plain_log_probs_backward(hidden, weight, targets, temperature, d_log_probs, d_entropy, learns);
    }
    let inverse = (1.0 / temperature) as f32;
    let most = logits(&hidden);
    log_probs_backward_by(hidden, weight, targets, d_log_probs, d_entropy, most, learns, |z, targets, dl, de| {
        let with_entropy = de.is_some();
        // A kernel has a fixed number of operands: without gradients of entropies those of log-probs stand in, unread.
        let de = de.unwrap_or_else(|| dl.clone());
        let inputs = [held(z), held_int(targets), held(dl), held(de)];
        tensor(launch_gradient(inputs, inverse, with_entropy))
    })
}
