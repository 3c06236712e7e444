//! Whether the device has the memory that a run is going to need.

use burn::tensor::{DType, Tensor};
use kernels::params::to_f32;
use kernels::{DeviceError, Kernels, host};

/// Bytes of one piece: far below what a pool of any device takes at once.
const BLOCK: usize = 1 << 28;

/// Takes `bytes` of the device's memory in pieces, writes all of them, reads one number of each, and gives them back.
///
/// # Errors
/// A device that has less, or that lost a piece.
pub fn fill<B: Kernels>(bytes: usize, device: &B::Device) -> Result<(), DeviceError> {
    let mut pieces: Vec<Tensor<B, 1>> = Vec::new();
    let mut left = bytes / 4;
    while left > 0 {
        let len = left.min(BLOCK / 4);
        pieces.push(Tensor::full([len], (pieces.len() % 1000) as f32 + 1.0, (device, DType::F32)));
        left -= len;
    }
    for (at, piece) in pieces.iter().enumerate() {
        let last = piece.dims()[0] - 1;
        let found = host::floats(to_f32(piece.clone().narrow(0, last, 1)))?;
        if found != [(at % 1000) as f32 + 1.0] {
            return Err(DeviceError(format!(
                "piece {at} of {}, of {} MiB, holds {found:?} where {} was written",
                pieces.len(),
                BLOCK >> 20,
                at % 1000 + 1
            )));
        }
    }
    drop(pieces);
    B::memory_cleanup(device);
    host::sync::<B>(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sides::Cpu;

    #[test]
    fn pieces_are_read_again() {
        fill::<Cpu>(1 << 20, &Default::default()).expect("a megabyte");
    }
}
