//! Collective operations on tensors through the host, for devices without collectives of their own: see
//! [`Kernels::reduce_scatter`](crate::Kernels::reduce_scatter) and its neighbours.

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use comm::{CommError, Ranks};

use crate::host::{self, DeviceError};
use crate::params::to_f32;

impl From<CommError> for DeviceError {
    fn from(error: CommError) -> Self {
        Self(error.to_string())
    }
}

/// See [`Kernels::reduce_scatter`](crate::Kernels::reduce_scatter).
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

/// See [`Kernels::all_gather`](crate::Kernels::all_gather).
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
    use super::*;
    use crate::ops::Kernels;
    use crate::params::cast_to;

    type B = burn_flex::Flex<f32, i32>;

    #[test]
    fn parts_and_wholes() {
        for dtype in [DType::F32, DType::BF16] {
            let parts = comm::threads::run(3, |ranks| {
                let values: Vec<f32> = (0..12).map(|i| (i + 100 * ranks.rank()) as f32).collect();
                let x = Tensor::<B, 1>::from_data(TensorData::new(values, [12]), &Default::default());
                let part = B::reduce_scatter(cast_to(x, dtype), &ranks, "sum").unwrap();
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

    fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect()
    }
}
