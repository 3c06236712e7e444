//! A number that the device works out anew for each read: where it is not what it should be, work was lost on the way.
//!
//! A launch that fails, or memory that could not be had, may leave what an older computation wrote; a norm of the step
//! before looks like any other norm. The canary changes with every step, so that an old one does not pass.

use burn::tensor::{DType, Tensor};

use crate::host::{self, DeviceError};
use crate::ops::Kernels;
use crate::params::to_f32;

/// Steps after which its values come again; f32 counts further.
const PERIOD: u64 = 1 << 20;

/// The values of `x [n]` in f32, read together with the canary of the `step`-th read: one wait for the device.
///
/// # Errors
/// A device that cannot be read, or whose canary is another number.
pub fn floats_beside_canary<B: Kernels>(x: Tensor<B, 1>, step: u64) -> Result<Vec<f32>, DeviceError> {
    let before = (step % PERIOD) as f32;
    let canary = Tensor::<B, 1>::full([1], before, (&x.device(), DType::F32)).add_scalar(1.0);
    let values = host::floats(Tensor::cat(vec![to_f32(x), canary], 0))?;
    checked(values, before + 1.0)
}

/// All but the last value, which has to be `expected`.
fn checked(mut values: Vec<f32>, expected: f32) -> Result<Vec<f32>, DeviceError> {
    match values.pop() {
        Some(found) if found == expected => Ok(values),
        found => Err(DeviceError(format!(
            "lost work: the canary of this step is {} where it has to be {expected} (trainer.check_device)",
            found.map_or("missing".into(), |found| found.to_string())
        ))),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    type B = burn_flex::Flex<f32, i32>;

    #[test]
    fn a_canary_is_of_its_step() {
        let x = Tensor::<B, 1>::from_data([0.5f32, f32::NAN], &Default::default());
        for step in [0, 1, 7, PERIOD - 1, PERIOD, u64::MAX] {
            let values = floats_beside_canary(x.clone(), step).expect("a device that computes");
            assert!(values.len() == 2 && values[0] == 0.5 && values[1].is_nan(), "{step}");
        }
    }

    /// What a device left that lost the step's work: the answer of the step before, zeros, NaN, nothing.
    #[test]
    fn an_old_answer_does_not_pass() {
        assert_eq!(checked(vec![3.0, 6.0], 6.0), Ok(vec![3.0]));
        for left in [vec![3.0, 5.0], vec![0.0, 0.0], vec![3.0, f32::NAN], vec![]] {
            let error = checked(left, 6.0).unwrap_err().to_string();
            assert!(error.contains("lost work") && error.contains("has to be 6"), "{error}");
        }
    }
}
