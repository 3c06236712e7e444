//! Tensors of several ranks, through the memory of the host: what [`Kernels::all_reduce`] and [`Kernels::all_gather`] do
//! unless a backend has a way of its own.
//!
//! How a failure travels: forward and backward passes return tensors and no `Result`, as Burn's operations do, and after
//! a collective call that did not come to its end no rank can go on: the others have other numbers or wait. So the call
//! *panics*, with what [`CommError`](comm::CommError) or the device says, as a backend does whose device fails while
//! something is queued. The panic unwinds through one rank of a test; in a program of many ranks the panic hook ends them
//! all.

use std::fmt::Display;

use burn::tensor::{Tensor, TensorData};
use comm::Ranks;

use crate::host;
use crate::ops::Kernels;

/// What a call gave.
///
/// # Panics
/// With its error: see the [module](self).
pub fn done<T>(result: Result<T, impl Display>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// See [`Kernels::all_reduce`].
pub(crate) fn all_reduce<B: Kernels, const D: usize>(
    x: Tensor<B, D>,
    ranks: &Ranks,
    name: &'static str,
) -> Tensor<B, D> {
    if ranks.is_solo() {
        return x;
    }
    let (shape, dtype, device) = (x.shape(), x.dtype(), x.device());
    let mut values = done(host::floats(x));
    done(ranks.sum_f32(name, &mut values));
    Tensor::from_data(TensorData::new(values, shape), (&device, dtype))
}

/// See [`Kernels::all_gather`].
pub(crate) fn all_gather<B: Kernels>(
    x: Tensor<B, 2>,
    rows: &[usize],
    ranks: &Ranks,
    name: &'static str,
) -> Tensor<B, 2> {
    if ranks.is_solo() {
        return x;
    }
    let ([own, d], dtype, device) = (x.dims(), x.dtype(), x.device());
    debug_assert_eq!((rows.len(), rows[ranks.rank()]), (ranks.size(), own), "`{name}`: rows of other ranks");
    let values = if own == 0 { Vec::new() } else { done(host::floats(x)) };
    let values = gather_rows(&values, d, rows, ranks, name);
    Tensor::from_data(TensorData::new(values, [rows.iter().sum(), d]), (&device, dtype))
}

/// The rows of `d` numbers that ranks have, in the order of ranks; all give as many as the one that has most.
fn gather_rows(own: &[f32], d: usize, rows: &[usize], ranks: &Ranks, name: &'static str) -> Vec<f32> {
    let most = rows.iter().max().map_or(0, |rows| rows * d);
    let mut bytes: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
    bytes.resize(4 * most, 0);
    let all = done(ranks.concat(name, bytes));
    let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let part = |(rank, rows): (usize, &usize)| all[4 * rank * most..][..4 * rows * d].chunks_exact(4).map(float);
    rows.iter().enumerate().flat_map(part).collect()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::DType;
    use comm::threads;

    type B = burn_flex::Flex<f32, i32>;

    fn matrix(rows: usize, first: f32, dtype: DType) -> Tensor<B, 2> {
        let values: Vec<f32> = (0..rows * 2).map(|i| first + i as f32).collect();
        Tensor::from_data(TensorData::new(values, [rows, 2]), (&Default::default(), dtype))
    }

    fn values(x: Tensor<B, 2>) -> Vec<f32> {
        x.into_data().convert::<f32>().to_vec().unwrap()
    }

    /// 256 and twice 0.75 are 257.5 in f32 and 258 in bf16; bf16 sums would have stayed at 256.
    #[test]
    fn sums_are_rounded_once() {
        let sums = threads::run(3, |ranks| {
            let x = matrix(1, if ranks.is_first() { 256.0 } else { 0.75 }, DType::BF16);
            let sum = B::all_reduce(x, &ranks, "sum");
            assert_eq!(sum.dtype(), DType::BF16);
            values(sum)[0]
        });
        assert_eq!(sums, [258.0; 3]);
        let alone = B::all_reduce(matrix(2, 1.0, DType::F32), &Ranks::solo(), "sum");
        assert_eq!(values(alone), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn rows_come_in_the_order_of_ranks() {
        let rows = [1, 0, 2];
        let all = threads::run(3, |ranks| {
            let own = matrix(rows[ranks.rank()], 10.0 * ranks.rank() as f32, DType::F32);
            values(B::all_gather(own, &rows, &ranks, "rows"))
        });
        assert_eq!(all, vec![vec![0.0, 1.0, 20.0, 21.0, 22.0, 23.0]; 3]);
    }

    /// A rank that ends leaves the others a panic that names the call.
    #[test]
    fn a_failure_is_a_panic_that_says_why() {
        let said = std::panic::catch_unwind(|| {
            threads::run(2, |ranks| {
                if ranks.is_first() {
                    values(B::all_reduce(matrix(1, 0.0, DType::F32), &ranks, "the mlp"));
                }
            })
        });
        let said = *said.unwrap_err().downcast::<String>().unwrap();
        assert!(said.contains("`the mlp`") && said.contains("rank 1 has ended"), "{said}");
    }
}
