//! Numbers of sampled tokens that wait on the device, so that a token costs one read and not three.

use burn::tensor::Tensor;
use kernels::Kernels;
use kernels::host::{self, DeviceError};

use crate::request::RequestId;

/// The response that a number belongs to: a request and the place among its responses.
pub(crate) type ResponsePlace = (RequestId, usize);

/// One number per row and step, in the order of the steps.
#[derive(Debug)]
pub(crate) struct WaitingNumbers<B: Kernels> {
    parts: Vec<Tensor<B, 1>>,
    /// Whose each number is; none of a row that had finished.
    owners: Vec<Option<ResponsePlace>>,
}

impl<B: Kernels> Default for WaitingNumbers<B> {
    fn default() -> Self {
        Self { parts: vec![], owners: vec![] }
    }
}

impl<B: Kernels> WaitingNumbers<B> {
    /// Adds the numbers `[S]` of one step; one owner each.
    pub(crate) fn push(&mut self, values: Tensor<B, 1>, owners: impl Iterator<Item = Option<ResponsePlace>>) {
        self.parts.push(values);
        self.owners.extend(owners);
    }

    /// Steps that wait.
    pub(crate) fn steps(&self) -> usize {
        self.parts.len()
    }

    /// Gives every number to its response, in the order of the tokens, in one transfer.
    ///
    /// # Errors
    /// A device that cannot be read; the numbers are lost.
    pub(crate) fn read(&mut self, mut give: impl FnMut(ResponsePlace, f32)) -> Result<(), DeviceError> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let values = host::floats(Tensor::cat(std::mem::take(&mut self.parts), 0))?;
        for (owner, value) in self.owners.drain(..).zip(values) {
            if let Some(owner) = owner {
                give(owner, value);
            }
        }
        Ok(())
    }
}
