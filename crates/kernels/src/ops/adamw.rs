//! AdamW for one tensor, and rounding to bf16 by chance: small updates of a 16-bit weight or moment add up instead of
//! being lost.
//!
//! The chance is a hash of a seed and of the element's place, the same on every backend, so that a run can be repeated
//! and resumed anywhere.

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};

use crate::params::{cast_to, to_f32};

/// A parameter and what AdamW keeps of it, all flat and of one length.
#[derive(Debug, Clone)]
pub struct AdamWParameter<B: Backend> {
    /// The parameter, in any float type.
    pub param: Tensor<B, 1>,
    /// First moment, f32 or bf16.
    pub m: Tensor<B, 1>,
    /// Second moment, f32 or bf16.
    pub v: Tensor<B, 1>,
    /// The parameter in f32, where it is kept so beside its 16-bit form: the step is taken here, and `param` becomes
    /// its nearest value.
    pub master: Option<Tensor<B, 1>>,
}

/// Settings of one AdamW step for one parameter.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of this parameter.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub step: usize,
    /// Factor that clips the gradient to the global norm.
    pub grad_scale: f64,
    /// What is rounded by chance.
    pub rounding: Rounding,
}

/// What a step rounds to numbers of bf16 by chance, whatever type it is kept in. The rest is rounded to the nearest
/// number of its type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rounding {
    /// Names the tensor and the step: equal seeds round alike.
    pub seed: u64,
    /// Which element of that tensor the first one here is: a part of a tensor is rounded as it is in the whole.
    pub first: usize,
    /// A parameter without master.
    pub param: bool,
    /// Both moments.
    pub moments: bool,
}

/// Which of a step's results is rounded: each has its own noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounded {
    /// The parameter.
    Param,
    /// The first moment.
    M,
    /// The second moment.
    V,
}

/// Elements of a tensor that are counted from 0 in 32 bits. The next such part takes the next seed.
pub(crate) const PART: usize = 1 << 30;

/// First factor of [`mixed`].
pub(crate) const MIX1: u32 = 0x7FEB_352D;
/// Second factor of [`mixed`].
pub(crate) const MIX2: u32 = 0x846C_A68B;
/// Sets the parameter's noise apart from that of the moments.
pub(crate) const APART: u32 = 0x9E37_79B9;

/// A bijection of 32 bits in which every bit depends on every other ("lowbias32", C. Wellons, hash-prospector).
fn mixed(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(MIX1);
    let x = (x ^ (x >> 15)).wrapping_mul(MIX2);
    x ^ (x >> 16)
}

/// The low half of a seed, spread over all bits: seeds that follow each other would else give the elements of a tensor
/// the same noise in another order, and sums over them the same error in every update.
pub(crate) fn low_of(seed: u64) -> u32 {
    mixed(seed as u32 ^ APART)
}

/// The noise of element `i`, from 0 to 65,535: what is added to the 16 bits that bf16 has not, before they are cut off.
pub fn noise(seed: u64, i: usize, of: Rounded) -> u32 {
    let seed = seed.wrapping_add((i / PART) as u64);
    let both = mixed(mixed((i % PART) as u32 ^ low_of(seed)) ^ (seed >> 32) as u32);
    match of {
        Rounded::M => both >> 16,
        Rounded::V => both & 0xFFFF,
        Rounded::Param => mixed(both ^ APART) >> 16,
    }
}

/// Elements that are rounded at one time: the steps between need several times their memory.
const CHUNK: usize = 1 << 26;

/// `x` in f32, of numbers that bf16 has: the one below or the one above, with probabilities that make the expectation
/// that of `x` (to `2^-16` of their distance). `x` begins at element `first` of the tensor that `seed` names.
pub fn by_chance<B: Backend>(x: Tensor<B, 1>, seed: u64, first: usize, of: Rounded) -> Tensor<B, 1> {
    by_chance_in_chunks(x, (seed, first), of, CHUNK)
}

fn by_chance_in_chunks<B: Backend>(
    x: Tensor<B, 1>,
    (seed, first): (u64, usize),
    of: Rounded,
    chunk: usize,
) -> Tensor<B, 1> {
    let len = x.dims()[0];
    let part = |start: usize| {
        let part = x.clone().narrow(0, start, chunk.min(len - start));
        let noise = (start..start + part.dims()[0]).map(|i| noise(seed, first + i, of) as f32 / 65536.0);
        let noise = TensorData::new(noise.collect::<Vec<f32>>(), part.dims());
        rounded(part, Tensor::from_data(noise, (&x.device(), DType::F32)))
    };
    let mut parts: Vec<_> = (0..len).step_by(chunk).map(part).collect();
    if parts.len() < 2 { parts.pop().unwrap_or(x) } else { Tensor::cat(parts, 0) }
}

/// Towards zero, or away from it where the part cut off and `noise`, as shares of the distance of two numbers of bf16,
/// make a whole.
fn rounded<B: Backend>(x: Tensor<B, 1>, noise: Tensor<B, 1>) -> Tensor<B, 1> {
    let size = x.clone().abs();
    let distance = distance(size.clone());
    let steps = size.div(distance.clone());
    let whole = steps.clone().floor();
    let up = steps.sub(whole.clone()).add(noise).greater_equal_elem(1.0).float();
    whole.add(cast_to(up, DType::F32)).mul(distance).mul(x.sign())
}

/// The distance of the numbers of bf16 at `size`: `2^(floor(log2 size) - 7)`.
fn distance<B: Backend>(size: Tensor<B, 1>) -> Tensor<B, 1> {
    let tiny = size.clamp_min(1e-37);
    let exponent = tiny.clone().log().mul_scalar(std::f64::consts::LOG2_E).floor().sub_scalar(7.0);
    // The exponential is off by an ulp or two; bf16 has none between it and the power of two.
    let near = to_f32(cast_to(exponent.mul_scalar(std::f64::consts::LN_2).exp(), DType::BF16));
    // The logarithm, too: beside a power of two the exponent may be that of the other side.
    let steps = tiny.div(near.clone());
    let (high, low) = (steps.clone().greater_equal_elem(256.0), steps.lower_elem(128.0));
    let double = near.clone().mul_scalar(2.0);
    let half = near.clone().mul_scalar(0.5);
    near.mask_where(high, double).mask_where(low, half)
}

/// See [`Kernels::adamw`](super::Kernels::adamw).
pub fn plain_adamw<B: Backend>(p: AdamWParameter<B>, grad: Tensor<B, 1>, h: &AdamWStep) -> AdamWParameter<B> {
    adamw_by(p, grad, h, plain_step)
}

/// Any types around a `step` in f32, of `[weight, grad, m, v]` to new weight and moments.
pub(crate) fn adamw_by<B: Backend>(
    p: AdamWParameter<B>,
    grad: Tensor<B, 1>,
    h: &AdamWStep,
    step: impl FnOnce([Tensor<B, 1>; 4], &AdamWStep) -> [Tensor<B, 1>; 3],
) -> AdamWParameter<B> {
    let AdamWParameter { param, m, v, master } = p;
    let types = [&param, &m, &v].map(|t| t.dtype());
    let has_master = master.is_some();
    let weight = master.unwrap_or_else(|| to_f32(param));
    let [weight, m, v] = step([weight, to_f32(grad), to_f32(m), to_f32(v)], h);
    let rounding = h.rounding;
    let kept = |t: Tensor<B, 1>, by_chance_of: Option<Rounded>, dtype| match by_chance_of {
        Some(of) => cast_to(by_chance(t, rounding.seed, rounding.first, of), dtype),
        None => cast_to(t, dtype),
    };
    let param = (rounding.param && !has_master).then_some(Rounded::Param);
    let moment = |of| rounding.moments.then_some(of);
    AdamWParameter {
        m: kept(m, moment(Rounded::M), types[1]),
        v: kept(v, moment(Rounded::V), types[2]),
        master: has_master.then(|| weight.clone()),
        param: kept(weight, param, types[0]),
    }
}

fn plain_step<B: Backend>([weight, grad, m, v]: [Tensor<B, 1>; 4], h: &AdamWStep) -> [Tensor<B, 1>; 3] {
    let grad = grad.mul_scalar(h.grad_scale);
    let m = m.mul_scalar(h.beta1).add(grad.clone().mul_scalar(1.0 - h.beta1));
    let v = v.mul_scalar(h.beta2).add(grad.powi_scalar(2).mul_scalar(1.0 - h.beta2));
    let denominator = v.clone().sqrt().div_scalar((1.0 - h.beta2.powf(h.step as f64)).sqrt()).add_scalar(h.eps);
    let step = m.clone().div(denominator).mul_scalar(h.lr / (1.0 - h.beta1.powf(h.step as f64)));
    [weight.mul_scalar(1.0 - h.lr * h.weight_decay).sub(step), m, v]
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    type B = burn_flex::Flex<f32, i32>;

    fn of(values: &[f32]) -> Tensor<B, 1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Default::default())
    }

    fn values(t: Tensor<B, 1>) -> Vec<f32> {
        to_f32(t).into_data().to_vec().unwrap()
    }

    #[test]
    fn rounding_by_chance_is_unbiased() {
        for (i, x) in [1.003f32, -0.020_01, 3.0e-9, 0.999_9, -1.996].into_iter().enumerate() {
            for of in [Rounded::Param, Rounded::M, Rounded::V] {
                let n = 100_000;
                let rounded = values(by_chance(Tensor::<B, 1>::full([n], x, &Default::default()), 7 + i as u64, 0, of));
                let mean = rounded.iter().map(|y| f64::from(*y)).sum::<f64>() / n as f64;
                let distance = f64::from(2f32.powf(x.abs().log2().floor() - 7.0));
                // Five standard errors of a coin with the most variance.
                assert!((mean - f64::from(x)).abs() < 2.5 * distance / (n as f64).sqrt(), "{x}, {of:?}: {mean}");
            }
        }
    }

    /// The bits of f32 that bf16 has not, plus noise, cut off: what GPUs do, to the bit, beside powers of two as well.
    #[test]
    fn rounding_adds_noise_below_the_last_bit() {
        let mut x: Vec<f32> = vec![0.0, -0.0];
        for exponent in -110..110 {
            let power = 2f32.powi(exponent);
            let near = [-70000i32, -257, -2, -1, 0, 1, 2, 255, 65535];
            x.extend(near.map(|ulps| f32::from_bits((power.to_bits() as i32 + ulps) as u32)));
        }
        x.extend((0..20_000).map(|i| (noise(1, i, Rounded::M) as f32 - 32768.0) * 2f32.powi(i as i32 % 90 - 60)));
        for seed in [0, 1, u64::MAX, 0x1234_5678_9ABC_DEF0] {
            for rounded in [Rounded::Param, Rounded::M, Rounded::V] {
                let cut = |(i, x): (usize, &f32)| f32::from_bits((x.to_bits() + noise(seed, i, rounded)) & 0xFFFF_0000);
                let expected: Vec<f32> = x.iter().enumerate().map(cut).collect();
                assert_eq!(values(by_chance(of(&x), seed, 0, rounded)), expected);
            }
        }
    }

    #[test]
    fn what_bf16_holds_is_not_moved() {
        let held: Vec<f32> = (0..20_000).map(|i| half::bf16::from_bits(0x3000 + i as u16 % 0x1800).to_f32()).collect();
        for seed in 0..20 {
            assert_eq!(values(by_chance(of(&held), seed, 0, Rounded::M)), held);
        }
    }

    /// A tensor larger than a chunk: every value is rounded as in one piece.
    #[test]
    fn rounding_in_chunks_is_rounding() {
        let x: Vec<f32> = (0..1000).map(|i| 1.0 + i as f32 * 1.234e-4).collect();
        for chunk in [1, 7, 999, 1000, 1001] {
            let whole = values(by_chance(of(&x), 5, 0, Rounded::V));
            let parts = by_chance_in_chunks(of(&x), (5, 0), Rounded::V, chunk);
            assert_eq!(values(parts), whole, "{chunk}");
            let tail = by_chance(of(&x[chunk.min(1000)..]), 5, chunk.min(1000), Rounded::V);
            assert_eq!(values(tail), whole[chunk.min(1000)..], "from {chunk}");
        }
        assert_eq!(by_chance(of(&[]), 5, 0, Rounded::V).dims(), [0]);
        assert_ne!(noise(5, PART, Rounded::V), noise(5, 0, Rounded::V), "the next part is another");
    }

    /// Noise of neighbours, of seeds and of the three results has nothing in common.
    #[test]
    fn noise_is_independent() {
        let n = 1 << 16;
        let line = |seed: u64, of: Rounded, shift: usize| -> Vec<f64> {
            (0..n).map(|i| (f64::from(noise(seed, i + shift, of)) - 32767.5) / 65536.0).collect()
        };
        let base = line(3, Rounded::M, 0);
        let others = [
            line(3, Rounded::M, 1),
            line(3, Rounded::M, 64),
            line(4, Rounded::M, 0),
            line(3 + (1 << 32), Rounded::M, 0),
            line(3, Rounded::V, 0),
            line(3, Rounded::Param, 0),
        ];
        for (k, other) in others.iter().enumerate() {
            let product = base.iter().zip(other).map(|(a, b)| a * b).sum::<f64>() / n as f64;
            // The product of two independent uniform numbers around 0 has variance 1/144.
            assert!(product.abs() < 5.0 / 12.0 / (n as f64).sqrt(), "{k}: {product}");
        }
        let mut found = vec![0u32; 256];
        (0..n).for_each(|i| found[noise(9, i, Rounded::Param) as usize >> 8] += 1);
        assert!(found.iter().all(|f| (156..=356).contains(f)), "{found:?}");
    }
}
