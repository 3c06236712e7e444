//! Matrix products in the three layouts of training, right or wrong against sums in f64, and how fast.

use std::time::Instant;

use burn::tensor::{DType, Distribution, Tensor};
use kernels::params::to_f32;
use kernels::{DeviceError, Kernels, host};

use crate::fault;

/// How the operands of a product `[m, n]` over a contraction `k` lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductLayout {
    /// `x W^T`, `x [m, k]` and `W [n, k]`: every projection.
    Affine,
    /// `x w`, `x [m, k]` and `w [k, n]`: the gradient of a projection's input, and attention over values.
    Plain,
    /// `dy^T x`, `dy [k, m]` and `x [k, n]`: the gradient of a weight, in f32; `k` counts tokens.
    WeightGradient,
}

impl ProductLayout {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Affine, Self::Plain, Self::WeightGradient];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "x W^T",
            Self::Plain => "x w",
            Self::WeightGradient => "dy^T x",
        }
    }
}

/// Sizes of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProductShape {
    /// Rows of the answer.
    pub m: usize,
    /// Columns of the answer.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

impl ProductShape {
    /// Multiplications and additions.
    pub fn flops(self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }

    /// Bytes of both operands and the answer, each moved once.
    pub fn bytes(self, layout: ProductLayout, dtype: DType) -> f64 {
        let width = dtype.size() as f64;
        let answer = if layout == ProductLayout::WeightGradient { 4.0 } else { width };
        let Self { m, n, k } = self;
        width * ((m + n) * k) as f64 + answer * (m * n) as f64
    }
}

/// A product on the device, with operands that the device drew.
pub struct MatrixProduct<B: Kernels> {
    layout: ProductLayout,
    shape: ProductShape,
    left: Tensor<B, 2>,
    right: Tensor<B, 2>,
}

/// Rows and columns of the answer that are looked at: 64 entries, the corners among them.
const SAMPLED: usize = 8;

/// `SAMPLED` numbers below `len`, the first and the last among them, the rest spread unevenly.
fn sampled(len: usize) -> Vec<usize> {
    (0..SAMPLED).map(|i| (i * (len - 1) * (SAMPLED + i)) / ((SAMPLED - 1) * (2 * SAMPLED - 1))).collect()
}

/// Whether these may be values of mean 0 and variance 1; there are at least eight.
fn is_drawn(values: &[f32]) -> bool {
    let mean_square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
    (1e-2..1e2).contains(&mean_square)
}

impl<B: Kernels> MatrixProduct<B> {
    /// Operands of mean 0 and variance 1.
    pub fn random(layout: ProductLayout, shape: ProductShape, dtype: DType, device: &B::Device) -> Self {
        let ProductShape { m, n, k } = shape;
        let draw = |shape| Tensor::random(shape, Distribution::Normal(0.0, 1.0), (device, dtype));
        let (left, right) = match layout {
            ProductLayout::Affine => (draw([m, k]), draw([n, k])),
            ProductLayout::Plain => (draw([m, k]), draw([k, n])),
            ProductLayout::WeightGradient => (draw([k, m]), draw([k, n])),
        };
        Self { layout, shape, left, right }
    }

    /// The answer `[m, n]`, by the function that training uses for this layout.
    pub fn answer(&self) -> Tensor<B, 2> {
        match self.layout {
            ProductLayout::Affine => B::affine(self.left.clone(), &self.right, None),
            ProductLayout::Plain => B::matmul(self.left.clone(), self.right.clone()),
            ProductLayout::WeightGradient => B::weight_gradient(self.left.clone(), self.right.clone()),
        }
    }

    /// How far 64 entries of the answer are from sums in f64, as a share of the sum or of what such sums spread by,
    /// `sqrt k`; NaN where one is no number, or where the operands that come back are not drawn ones: with zeros
    /// everything would agree. `check` names who asks.
    ///
    /// # Errors
    /// A device that cannot be read.
    pub fn difference(&self, check: &str) -> Result<f64, DeviceError> {
        let ProductShape { m, n, k } = self.shape;
        let (rows, columns) = (sampled(m), sampled(n));
        let device = self.left.device();
        let of = |t: &Tensor<B, 2>, dim: usize, at: &[usize]| {
            host::floats(to_f32(t.clone().select(dim, host::int_tensor(at.iter().copied(), &device))))
        };
        let found = of(&self.answer(), 0, &rows)?; // [8, n]
        let (left_dim, right_dim) = match self.layout {
            ProductLayout::Affine => (0, 0),
            ProductLayout::Plain => (0, 1),
            ProductLayout::WeightGradient => (1, 1),
        };
        let mut left = of(&self.left, left_dim, &rows)?;
        let right = of(&self.right, right_dim, &columns)?;
        fault::touch(check, &mut left);
        if !(is_drawn(&left) && is_drawn(&right)) {
            return Ok(f64::NAN);
        }
        // The value of term `t` of line `line`: lines are rows `[8, k]` or columns `[k, 8]`.
        let term = |values: &[f32], dim: usize, line: usize, t: usize| {
            f64::from(if dim == 0 { values[line * k + t] } else { values[t * SAMPLED + line] })
        };
        let mut largest = 0f64;
        for i in 0..SAMPLED {
            for (j, column) in columns.iter().enumerate() {
                let sum: f64 = (0..k).map(|t| term(&left, left_dim, i, t) * term(&right, right_dim, j, t)).sum();
                let difference = (f64::from(found[i * n + column]) - sum).abs() / sum.abs().max((k as f64).sqrt());
                if difference.is_nan() {
                    return Ok(f64::NAN);
                }
                largest = largest.max(difference);
            }
        }
        Ok(largest)
    }

    /// Seconds of one product: the mean of as many as take a twentieth of a second, best of three such runs.
    ///
    /// # Errors
    /// A device that cannot be waited for.
    pub fn seconds(&self) -> Result<f64, DeviceError> {
        let device = self.left.device();
        best_seconds::<B>(&device, || {
            self.answer();
        })
    }
}

/// Seconds of one `work`, which queues something on the device.
///
/// # Errors
/// A device that cannot be waited for.
pub fn best_seconds<B: Kernels>(device: &B::Device, work: impl Fn()) -> Result<f64, DeviceError> {
    work();
    host::sync::<B>(device)?;
    let clock = Instant::now();
    work();
    host::sync::<B>(device)?;
    let repeats = (0.05 / clock.elapsed().as_secs_f64().max(1e-6)).clamp(1.0, 1000.0) as usize;
    let mut best = f64::MAX;
    for _ in 0..3 {
        let clock = Instant::now();
        (0..repeats).for_each(|_| work());
        host::sync::<B>(device)?;
        best = best.min(clock.elapsed().as_secs_f64() / repeats as f64);
    }
    Ok(best)
}

/// Fills about `bytes` of the device's memory with NaN, in pieces of many sizes, and gives it back: what reads behind
/// its operands from now on, or leaves a part of its answer as it was, shows.
///
/// # Errors
/// A device that cannot be waited for.
pub fn poison<B: Kernels>(bytes: usize, device: &B::Device) -> Result<(), DeviceError> {
    // Pools keep pieces of like sizes together: from 1 KiB on, each size takes an equal part.
    let sizes: Vec<usize> = (10..=26).step_by(2).map(|bits| 1usize << bits).collect();
    let part = bytes / sizes.len();
    let fill = |size: usize| Tensor::<B, 1>::full([size / 4], f32::NAN, (device, DType::F32));
    let pieces: Vec<_> =
        sizes.into_iter().flat_map(|size| std::iter::repeat_n(size, (part / size).min(64))).map(fill).collect();
    host::sync::<B>(device)?;
    drop(pieces);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type B = crate::sides::Cpu;

    #[test]
    fn samples_have_both_ends() {
        for len in [1, 2, 3, 64, 18_944] {
            let at = sampled(len);
            assert_eq!((at[0], at[SAMPLED - 1]), (0, len - 1), "{len}: {at:?}");
        }
    }

    #[test]
    fn a_right_product_is_near_and_a_wrong_one_far() {
        let device = Default::default();
        for layout in ProductLayout::ALL {
            let shape = ProductShape { m: 17, n: 33, k: 24 };
            let mut product = MatrixProduct::<B>::random(layout, shape, DType::F32, &device);
            assert!(product.difference("").unwrap() < 1e-5, "{layout:?}");
            // Another operand than the one that was multiplied.
            let right = product.difference("").unwrap();
            let answer = product.answer();
            assert_eq!(answer.dims(), [17, 33]);
            product.left = product.left.clone().narrow(0, 0, 1).repeat_dim(0, product.left.dims()[0]);
            assert!(product.difference("").unwrap() < 1e-5 + right, "{layout:?}: a product is its operands' own");
            let wrong = crate::fault::wrong_in("products", || product.difference("products").unwrap());
            assert!(wrong > 0.05, "{layout:?}: {wrong}");
            // What a device that computes nothing gives back.
            product.left = product.left.zeros_like();
            assert!(product.difference("").unwrap().is_nan(), "{layout:?}: zeros");
        }
    }

    #[test]
    fn bytes_and_operations_are_counted() {
        let shape = ProductShape { m: 2, n: 3, k: 5 };
        assert_eq!(shape.flops(), 60.0);
        assert_eq!(shape.bytes(ProductLayout::Affine, DType::BF16), 2.0 * 25.0 + 2.0 * 6.0);
        assert_eq!(shape.bytes(ProductLayout::WeightGradient, DType::BF16), 2.0 * 25.0 + 4.0 * 6.0);
    }
}
