//! Tensors of several ranks.
//!
//! [`Kernels::all_reduce`] and its neighbours move them; unless a backend has a way of its own, through the host: what
//! stands here. They return errors, and so do optimizers and writers that call them.
//!
//! Passes through a model do not: they return tensors, as Burn's operations do, and call [`sum`] and [`rows`]. After a
//! collective call that did not come to its end no rank can go on, since the others have other numbers or wait. So these
//! *panic*, with what [`CommError`] or the device says, as a backend does whose device fails while something is queued.
//! In a test the panic unwinds through one rank, and the others' calls fail; in a program of many ranks the panic hook
//! ends them all.

use std::fmt::Display;

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use comm::{CommError, Ranks};

use crate::host::{self, DeviceError};
use crate::ops::Kernels;
use crate::params::to_f32;

impl From<CommError> for DeviceError {
    fn from(error: CommError) -> Self {
        Self(error.to_string())
    }
}

/// What a call gave, where an error ends this rank.
///
/// # Panics
/// With the error: see the [module](self).
pub fn done<T>(result: Result<T, impl Display>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// The sum over `ranks` of `x`, the same on all of them, in the type of `x`; where there is one rank, `x`. `name` is what
/// a person reads of the call.
///
/// # Panics
/// Where a rank is gone or the device fails: see the [module](self).
pub fn sum<B: Kernels, const D: usize>(x: Tensor<B, D>, ranks: &Ranks, name: &'static str) -> Tensor<B, D> {
    if ranks.is_solo() { x } else { done(B::all_reduce(x, ranks, name)) }
}

/// What all ranks have, one below the other: `x [rows[rank], d]` to `[sum of rows, d]`, the same on all of them; where
/// there is one rank, `x`. `rows` is the same on all ranks.
///
/// # Panics
/// As [`sum`].
pub fn rows<B: Kernels>(x: Tensor<B, 2>, rows: &[usize], ranks: &Ranks, name: &'static str) -> Tensor<B, 2> {
    if ranks.is_solo() {
        return x;
    }
    let ([own, d], most) = (x.dims(), rows.iter().copied().max().unwrap_or(0));
    debug_assert_eq!((rows.len(), rows[ranks.rank()]), (ranks.size(), own), "`{name}`: rows of other ranks");
    let missing = || Tensor::zeros([most - own, d], (&x.device(), x.dtype()));
    let equal = match own {
        own if own == most => x,
        0 => missing(),
        _ => Tensor::cat(vec![x.clone(), missing()], 0),
    };
    let all = done(B::all_gather(equal.reshape([most * d]), ranks, name)).reshape([ranks.size() * most, d]);
    if rows.iter().all(|rows| *rows == most) {
        return all;
    }
    let parts = rows.iter().enumerate().filter(|(_, rows)| **rows > 0);
    Tensor::cat(parts.map(|(rank, rows)| all.clone().narrow(0, rank * most, *rows)).collect(), 0)
}

/// See [`Kernels::all_reduce`].
pub(crate) fn all_reduce<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<Tensor<B, D>, DeviceError> {
    if ranks.is_solo() {
        return Ok(x);
    }
    let (shape, dtype, device) = (x.shape(), x.dtype(), x.device());
    let mut values = host::floats(x)?;
    ranks.sum_f32(name, &mut values)?;
    Ok(Tensor::from_data(TensorData::new(values, shape), (&device, dtype)))
}

/// See [`Kernels::reduce_scatter`].
pub(crate) fn reduce_scatter<B: Backend>(
    x: Tensor<B, 1>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<Tensor<B, 1>, DeviceError> {
    if ranks.is_solo() {
        return Ok(to_f32(x));
    }
    let device = x.device();
    let part = ranks.reduce_scatter(name, host::floats(x)?)?;
    let shape = [part.len()];
    Ok(Tensor::from_data(TensorData::new(part, shape), (&device, DType::F32)))
}

/// See [`Kernels::all_gather`].
pub(crate) fn all_gather<B: Backend>(
    x: Tensor<B, 1>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<Tensor<B, 1>, DeviceError> {
    if ranks.is_solo() {
        return Ok(x);
    }
    let (device, dtype, len) = (x.device(), x.dtype(), x.dims()[0]);
    let bytes = ranks.concat(name, host::bytes(x)?)?;
    let data = TensorData::from_bytes_vec(bytes, [len * ranks.size()], dtype);
    Ok(Tensor::from_data(data, (&device, dtype)))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use comm::threads;

    use super::*;
    use crate::params::cast_to;

    type B = burn_flex::Flex<f32, i32>;

    fn tensor(values: &[f32], dtype: DType) -> Tensor<B, 1> {
        cast_to(Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Default::default()), dtype)
    }

    fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect()
    }

    #[test]
    fn parts_and_wholes() {
        for dtype in [DType::F32, DType::BF16] {
            let parts = threads::run(3, |ranks| {
                let values: Vec<f32> = (0..12).map(|i| (i + 100 * ranks.rank()) as f32).collect();
                let part = B::reduce_scatter(tensor(&values, dtype), &ranks, "sum").unwrap();
                assert_eq!((part.dtype(), part.dims()), (DType::F32, [4]));
                let all = B::all_gather(cast_to(part.clone(), dtype), &ranks, "all").unwrap();
                assert_eq!(all.dtype(), dtype);
                host::floats(all).unwrap()
            });
            let expected: Vec<f32> = (0..12).map(|i| (3 * i + 300) as f32).collect();
            let expected = if dtype == DType::F32 { expected } else { rounded(&expected) };
            assert!(parts.iter().all(|part| *part == expected), "{parts:?}");
        }
    }

    /// 256 and twice 0.75 are 257.5 in f32 and 258 in bf16; bf16 sums would have stayed at 256.
    #[test]
    fn sums_are_rounded_once() {
        let sums = threads::run(3, |ranks| {
            let x = tensor(&[if ranks.is_first() { 256.0 } else { 0.75 }], DType::BF16);
            let sum = sum(x, &ranks, "sum");
            assert_eq!(sum.dtype(), DType::BF16);
            host::floats(sum).unwrap()[0]
        });
        assert_eq!(sums, [258.0; 3]);
        assert_eq!(host::floats(sum(tensor(&[1.0], DType::F32), &Ranks::solo(), "sum")).unwrap(), [1.0]);
    }

    #[test]
    fn rows_come_in_the_order_of_ranks() {
        let of = |rank: usize, count: usize| (0..2 * count).map(|i| (10 * rank + i) as f32).collect::<Vec<_>>();
        for counts in [[1, 0, 2], [2, 2, 2], [0, 0, 1]] {
            let all = threads::run(3, |ranks| {
                let own = counts[ranks.rank()];
                let x = tensor(&of(ranks.rank(), own), DType::BF16).reshape([own, 2]);
                host::floats(rows(x, &counts, &ranks, "rows")).unwrap()
            });
            let expected: Vec<f32> = counts.iter().enumerate().flat_map(|(rank, count)| of(rank, *count)).collect();
            assert_eq!(all, vec![expected; 3]);
        }
    }

    /// A rank that ends leaves the others a panic that names the call.
    #[test]
    fn a_failure_is_a_panic_that_says_why() {
        let said = std::panic::catch_unwind(|| {
            threads::run(2, |ranks| {
                if ranks.is_first() {
                    sum(tensor(&[0.0], DType::F32), &ranks, "the mlp");
                }
            })
        });
        let said = *said.unwrap_err().downcast::<String>().unwrap();
        assert!(said.contains("`the mlp`") && said.contains("rank 1 has ended"), "{said}");
    }
}
