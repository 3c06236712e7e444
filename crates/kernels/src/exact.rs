//! Sums of gradients that do not depend on their order: as whole numbers of `2^-40`, each pass rounded once. Whoever
//! cuts a step into the same passes gets the same sums, to the bit, on however many ranks.

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};

use crate::host::{self, DeviceError};
use crate::ops::Kernels;
use crate::params::Gradients;
use crate::zero::{GRADIENTS, GradientList, GradientOf, OwnElements, OwnSums, ZeroLayout};

/// Numbers in 1.
const SCALE: f64 = (1u64 << 40) as f64;

/// Sums in whole numbers of all elements, in the host's memory.
#[derive(Debug, Clone)]
pub struct ExactSums<B: Backend> {
    layout: ZeroLayout,
    device: B::Device,
    all: Vec<GradientOf>,
    /// One list a tensor that has had a gradient.
    sums: Vec<Vec<i64>>,
    failed: Option<DeviceError>,
    /// Whether a gradient was infinite, NaN or too large.
    lost: bool,
}

impl<B: Kernels> ExactSums<B> {
    /// For the tensors of a model, which `list` has seen.
    pub fn new(layout: &ZeroLayout, device: &B::Device, list: GradientList) -> Self {
        let (all, layout, device) = (list.into_order(), layout.clone(), device.clone());
        let sums = vec![Vec::new(); all.len()];
        Self { layout, device, all, sums, failed: None, lost: false }
    }

    /// Adds the gradients of a pass.
    pub(crate) fn end_pass(&mut self, grads: &mut Gradients<B>) {
        for (of, sum) in std::iter::zip(&self.all, &mut self.sums) {
            let Some(grad) = of.taken(grads) else { continue };
            let values = match host::floats(grad) {
                Ok(values) => values,
                Err(error) => {
                    self.failed.get_or_insert(error);
                    return;
                }
            };
            sum.resize(of.len, 0);
            for (sum, value) in std::iter::zip(sum, values) {
                let whole = (f64::from(value) * SCALE).round();
                // Room for the sums of 2^15 passes.
                self.lost |= whole.is_nan() || whole.abs() >= (1u64 << 48) as f64;
                *sum = sum.wrapping_add(whole as i64);
            }
        }
    }

    /// The sums over ranks.
    ///
    /// # Errors
    /// A device that could not be read; a rank that is gone.
    pub fn take(self) -> Result<OwnSums<B>, DeviceError> {
        let Self { layout, device, all, sums, failed, lost } = self;
        let ranks = &layout.ranks;
        failed.map_or(Ok(()), Err)?;
        let mut held: Vec<f64> = sums.iter().map(|sum| f64::from(u8::from(!sum.is_empty()))).collect();
        ranks.sum("which gradients", &mut held)?;
        let lost = ranks.any("gradients that are lost", lost)?;
        let (mut found, mut squared) = (OwnSums::new(), 0u128);
        for ((of, mut sum), held) in all.into_iter().zip(sums).zip(held) {
            if held == 0.0 {
                continue;
            }
            sum.resize(of.len, 0);
            ranks.sum_i64(GRADIENTS, &mut sum)?;
            squared = sum.iter().fold(squared, |all, v| all.wrapping_add(u128::from(v.unsigned_abs()).pow(2)));
            let range = OwnElements::of(of.len, &layout).range;
            if !range.is_empty() {
                let values: Vec<f32> = sum[range.clone()].iter().map(|v| (*v as f64 / SCALE) as f32).collect();
                let shape = [values.len()];
                let values = Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32));
                found.add(&of, range, values);
            }
            found.updated.insert(of.name);
        }
        found.squared = Some(if lost { f64::NAN } else { squared as f64 / SCALE / SCALE });
        Ok(found)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::params::{ParamVisitor, Shard};
    use comm::Ranks;

    type B = burn_flex::Flex<f32, i32>;

    /// Passes in any order on any ranks.
    #[test]
    fn sums_do_not_depend_on_who_makes_them() {
        let pass = |k: usize| -> Tensor<B, 1> {
            let values: Vec<f32> =
                (0..10).map(|i| ((k * 31 + i) as f32 * 1.234).sin() * [1.0, 1e-1, 1e-3, 1e-4, 1e-6][i % 5]).collect();
            Tensor::from_data(TensorData::new(values, [10]), &Default::default())
        };
        let sums = |size: usize| {
            let parts = comm::threads::run(size, |ranks| {
                let mut list = GradientList::default();
                ParamVisitor::<B>::visit(&mut list, "a", &Shard::whole(&[10]), &mut pass(0));
                ParamVisitor::<B>::visit(&mut list, "never", &Shard::whole(&[10]), &mut pass(0));
                let mut exact =
                    ExactSums::<B>::new(&ZeroLayout::of(&ranks, &Ranks::solo()).unwrap(), &Default::default(), list);
                for k in (0..12).rev().filter(|k| k % size == ranks.rank()) {
                    let mut grads = Gradients::default();
                    grads.add("a", pass(k));
                    exact.end_pass(&mut grads);
                }
                let sums = exact.take().unwrap();
                assert_eq!(sums.updated.into_iter().collect::<Vec<_>>(), ["a"]);
                (host::floats(sums.own["a"].clone()).unwrap(), sums.squared.unwrap())
            });
            let squared = parts[0].1;
            assert!(parts.iter().all(|part| part.1.to_bits() == squared.to_bits()));
            (parts.into_iter().flat_map(|part| part.0).collect::<Vec<f32>>(), squared)
        };
        let (alone, squared) = sums(1);
        let plain: Vec<f64> =
            (0..10).map(|i| (0..12).map(|k| f64::from(host::floats(pass(k)).unwrap()[i])).sum()).collect();
        for (a, b) in alone.iter().zip(&plain) {
            assert!((f64::from(*a) - b).abs() < 1e-6);
        }
        assert!((squared - plain.iter().map(|v| v * v).sum::<f64>()).abs() < 1e-6);
        for size in 2..=4 {
            assert_eq!(sums(size), (alone.clone(), squared), "{size}");
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_is_no_sum() {
        let mut list = GradientList::default();
        let mut x = Tensor::<B, 1>::full([2], f32::NAN, &Default::default());
        ParamVisitor::<B>::visit(&mut list, "a", &Shard::whole(&[2]), &mut x);
        let mut exact = ExactSums::<B>::new(&ZeroLayout::default(), &Default::default(), list);
        let mut grads = Gradients::default();
        grads.add("a", x);
        exact.end_pass(&mut grads);
        assert!(exact.take().unwrap().squared.unwrap().is_nan());
    }
}
