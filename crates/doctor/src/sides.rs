//! The device and the CPU beside each other: the same numbers on both, and how far their answers are apart.

use std::cell::Cell;

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use kernels::{DeviceError, Kernels, host};
use model_qwen2vl::QwenVlConfig;

use crate::finding::Comparisons;
use crate::{Examined, fault};

/// What the device is compared with: plain tensor operations, and the model, on the CPU in f32.
pub(crate) type Cpu = burn_flex::Flex<f32, i32>;

/// Numbers for both sides.
pub(crate) struct Sides<B: Kernels> {
    /// The model whose widths are looked at.
    pub config: QwenVlConfig,
    /// Number format of the run.
    pub dtype: DType,
    /// The device.
    pub device: B::Device,
    /// Whether all is looked at, or what takes seconds.
    pub long: bool,
    check: Cell<&'static str>,
    state: Cell<u64>,
}

impl<B: Kernels> Sides<B> {
    pub(crate) fn new(subject: &Examined<B>, long: bool) -> Self {
        let (config, device) = (subject.config.clone(), subject.device.clone());
        Self { config, dtype: subject.dtype, device, long, check: Cell::new(""), state: Cell::new(0) }
    }

    /// Each check has numbers of its own, whatever ran before it.
    pub(crate) fn begin(&self, check: &'static str) {
        self.check.set(check);
        self.state.set(check.bytes().fold(7u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b))));
    }

    /// Name of the check at work.
    pub(crate) fn check(&self) -> &'static str {
        self.check.get()
    }

    /// Whether memory and time are a device's own, and not the processor's.
    pub(crate) fn is_gpu(&self) -> bool {
        B::device_memory(&self.device).is_some()
    }

    /// The number formats to look at: that of the run, and f32 and bf16 where there is time and the device has them.
    pub(crate) fn dtypes(&self) -> Vec<DType> {
        let all = [DType::F32, DType::BF16];
        let looks = |dtype: &DType| {
            *dtype == self.dtype || self.long && self.is_gpu() && B::supports_dtype(&self.device, *dtype)
        };
        all.into_iter().filter(looks).collect()
    }

    /// SplitMix64.
    fn next(&self) -> u64 {
        self.state.set(self.state.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut z = self.state.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A whole number below `n`.
    pub(crate) fn below(&self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Values of mean 0 and variance `scale^2`, nearly normal, that `dtype` holds exactly.
    pub(crate) fn values(&self, len: usize, scale: f32, dtype: DType) -> Vec<f32> {
        let value = |_| {
            let bits = self.next();
            // The sum of four uniform numbers of 16 bits: variance 4 / 12.
            let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xFFFF).sum();
            rounded((sum as f32 / 65536.0 - 2.0) * 3f32.sqrt() * scale, dtype)
        };
        (0..len).map(value).collect()
    }

    /// The same values on the device in `dtype` and on the CPU in f32.
    pub(crate) fn both<const D: usize>(
        &self,
        values: Vec<f32>,
        shape: [usize; D],
        dtype: DType,
    ) -> (Tensor<B, D>, Tensor<Cpu, D>) {
        let cpu = Tensor::from_data(TensorData::new(values.clone(), shape), &Default::default());
        (self.upload(values, shape, dtype), cpu)
    }

    /// Values on the device.
    pub(crate) fn upload<const D: usize>(&self, mut values: Vec<f32>, shape: [usize; D], dtype: DType) -> Tensor<B, D> {
        fault::touch(self.check(), &mut values);
        Tensor::from_data(TensorData::new(values, shape), (&self.device, dtype))
    }

    /// Random values of variance 1 on both sides.
    pub(crate) fn random<const D: usize>(&self, shape: [usize; D], dtype: DType) -> (Tensor<B, D>, Tensor<Cpu, D>) {
        self.both(self.values(shape.iter().product(), 1.0, dtype), shape, dtype)
    }

    /// Indices on both sides.
    pub(crate) fn indices(&self, values: Vec<usize>) -> (Tensor<B, 1, Int>, Tensor<Cpu, 1, Int>) {
        let cpu = host::int_tensor(values.iter().copied(), &Default::default());
        (host::int_tensor(values, &self.device), cpu)
    }

    /// How coarse `dtype` is: the bound of one operation, relative to the largest value of the answer.
    pub(crate) fn bound(&self, dtype: DType) -> f64 {
        if dtype == DType::F32 { 3e-5 } else { 2e-2 }
    }

    /// The same of products and sums of many terms. CUDA multiplies f32 by tensor cores, with 10 bits (TF32).
    pub(crate) fn product_bound(&self, dtype: DType) -> f64 {
        match dtype {
            DType::F32 if B::name(&self.device).contains("cuda") => 4e-3,
            DType::F32 => 1e-4,
            _ => 2e-2,
        }
    }

    /// Runs an operation twice on the device, where both answers have to be equal bit for bit, and compares them with
    /// the CPU's: each value within `bound` of the largest one.
    pub(crate) fn compare(
        &self,
        tally: &mut Comparisons,
        bound: f64,
        what: &str,
        device: impl Fn() -> Vec<Tensor<B, 1>>,
        cpu: Vec<Tensor<Cpu, 1>>,
    ) -> Result<(), DeviceError> {
        let (first, second) = (device(), device());
        if first.len() != cpu.len() || second.len() != cpu.len() {
            tally.add(f64::INFINITY, bound, || format!("{what}: the number of outputs"));
        }
        for (part, ((first, second), cpu)) in first.into_iter().zip(second).zip(cpu).enumerate() {
            let bytes = host::bytes(first.clone())?;
            tally.equal(&bytes, &host::bytes(second)?, || format!("{what} (output {part})"));
            let difference = apart(&host::floats(first)?, &host::floats(cpu)?);
            tally.add(difference, bound, || format!("{what} (output {part})"));
        }
        Ok(())
    }
}

/// As `dtype` holds it.
pub(crate) fn rounded(value: f32, dtype: DType) -> f32 {
    match dtype {
        DType::BF16 => half::bf16::from_f32(value).to_f32(),
        DType::F16 => half::f16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// All elements in one dimension.
pub(crate) fn flat<B: Backend, const D: usize>(t: Tensor<B, D>) -> Tensor<B, 1> {
    let len = t.shape().num_elements();
    t.reshape([len])
}

/// The largest difference, as a share of the largest expected value; NaN where a value is none.
pub(crate) fn apart(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let largest = expected.iter().fold(1e-3f64, |m, x| m.max(f64::from(x.abs())));
    let mut difference = 0f64;
    for (a, b) in found.iter().zip(expected) {
        let d = (f64::from(*a) - f64::from(*b)).abs();
        if d.is_nan() {
            return f64::NAN;
        }
        difference = difference.max(d);
    }
    difference / largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_a_share_of_the_largest_value() {
        assert_eq!(apart(&[1.0, 2.0], &[1.0, 4.0]), 0.5);
        assert!(apart(&[f32::NAN, 1.0], &[0.0, 1.0]).is_nan());
        assert_eq!(apart(&[1.0], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(apart(&[], &[]), 0.0);
    }
}
