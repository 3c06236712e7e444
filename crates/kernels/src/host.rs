//! Values between host and device, and waiting for the device: an error where a read fails, never a panic and never an
//! empty list.
//!
//! What can be caught: everything that a backend reports when it is read or waited for, which on CubeCL backends is
//! every error of the operations queued before (a failed kernel, a lost device), and data of another type or length
//! than was asked for. What cannot: Burn's tensor operations return no `Result`, so a backend that panics while an
//! operation is *queued* (no memory for its result, a driver that vanished) ends the program with that panic. On the
//! CPU backends a read is a copy and fails only for want of memory.

use burn::tensor::{Element, Int, Tensor, TensorData, backend::Backend};

/// The device could not be read or waited for; what was computed on it is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the device failed: {0}")]
pub struct DeviceError(pub String);

/// Indices as a tensor `[N]`, from the host to the device.
pub fn int_tensor<B: Backend>(values: impl IntoIterator<Item = usize>, device: &B::Device) -> Tensor<B, 1, Int> {
    let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

/// The values of a float tensor in row-major order, converted to f32.
///
/// # Errors
/// [`DeviceError`] with the backend's reason, or when fewer or other values come than the shape says.
pub fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, DeviceError> {
    seam()?;
    let count = tensor.shape().num_elements();
    values(tensor.try_into_data().map_err(|e| DeviceError(e.to_string())), count)
}

/// The values of an integer tensor in row-major order, converted to i32.
///
/// # Errors
/// As [`floats`].
pub fn ints<B: Backend, const D: usize>(tensor: Tensor<B, D, Int>) -> Result<Vec<i32>, DeviceError> {
    seam()?;
    let count = tensor.shape().num_elements();
    values(tensor.try_into_data().map_err(|e| DeviceError(e.to_string())), count)
}

/// The bytes of a float tensor as the device keeps them, in its own number format.
///
/// # Errors
/// As [`floats`].
pub fn bytes<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<u8>, DeviceError> {
    seam()?;
    let wanted = tensor.shape().num_elements() * tensor.dtype().size();
    let data = tensor.try_into_data().map_err(|e| DeviceError(e.to_string()))?;
    let bytes = data.bytes.to_vec();
    match bytes.len() {
        found if found == wanted => Ok(bytes),
        found => Err(DeviceError(format!("{found} bytes came where {wanted} were asked for"))),
    }
}

/// Waits until everything that was queued is computed.
///
/// # Errors
/// [`DeviceError`] with what failed since the last read.
pub fn sync<B: Backend>(device: &B::Device) -> Result<(), DeviceError> {
    seam()?;
    B::sync(device).map_err(|e| DeviceError(e.to_string()))
}

/// `count` values out of what a read gave.
fn values<E: Element>(data: Result<TensorData, DeviceError>, count: usize) -> Result<Vec<E>, DeviceError> {
    let values: Vec<E> = data?.convert::<E>().into_vec().map_err(|e| DeviceError(format!("{e:?}")))?;
    match values.len() {
        found if found == count => Ok(values),
        found => Err(DeviceError(format!("{found} values came where {count} were asked for"))),
    }
}

#[cfg(not(debug_assertions))]
fn seam() -> Result<(), DeviceError> {
    Ok(())
}

#[cfg(debug_assertions)]
fn seam() -> Result<(), DeviceError> {
    fault::count()
}

/// A device that fails on purpose, for tests; not in release programs.
#[cfg(debug_assertions)]
pub mod fault {
    use std::cell::Cell;

    use super::DeviceError;

    /// What the error of a failure on purpose says.
    pub(crate) const REASON: &str = "lost on purpose";

    thread_local! {
        static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Runs `work`, during which the reads and waits of this thread fail from the `nth` (from 0) on.
    pub fn failing_from<T>(nth: usize, work: impl FnOnce() -> T) -> T {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                LEFT.set(usize::MAX);
            }
        }
        let _restore = Restore;
        LEFT.set(nth);
        work()
    }

    pub(super) fn count() -> Result<(), DeviceError> {
        match LEFT.get() {
            usize::MAX => Ok(()),
            0 => Err(DeviceError(REASON.into())),
            left => {
                LEFT.set(left - 1);
                Ok(())
            }
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    type B = burn_flex::Flex<f32, i32>;

    #[test]
    fn values_come_whole_or_as_an_error() {
        let device = Default::default();
        let x = Tensor::<B, 2>::from_data([[1.0f32, -2.0], [0.5, 4.0]], &device);
        assert_eq!(floats(x.clone()), Ok(vec![1.0, -2.0, 0.5, 4.0]));
        assert_eq!(floats(x.clone().cast(burn::tensor::DType::BF16)), Ok(vec![1.0, -2.0, 0.5, 4.0]));
        assert_eq!(ints(x.clone().int()), Ok(vec![1, -2, 0, 4]));
        assert_eq!(bytes(x.clone()).map(|b| b.len()), Ok(16));
        let data = || Ok(TensorData::new(vec![1.0f32, 2.0], [2]));
        assert_eq!(values::<f32>(data(), 2), Ok(vec![1.0, 2.0]));
        assert_eq!(
            values::<f32>(data(), 3),
            Err(DeviceError("2 values came where 3 were asked for".into())),
            "a short read is no shorter list"
        );
        let lost = Err(DeviceError("gone".into()));
        assert_eq!(values::<f32>(lost, 0).unwrap_err().to_string(), "the device failed: gone");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn the_seam_fails_from_the_nth_read_on() {
        let device = Default::default();
        let x = || Tensor::<B, 1>::zeros([2], &device);
        let read = || [floats(x()).is_ok(), sync::<B>(&device).is_ok(), ints(x().int()).is_ok(), bytes(x()).is_ok()];
        assert_eq!(fault::failing_from(0, read), [false; 4]);
        assert_eq!(fault::failing_from(2, read), [true, true, false, false]);
        assert_eq!(read(), [true; 4]);
    }
}
