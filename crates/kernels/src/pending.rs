//! Sums over ranks that are under way while a rank goes on computing.
//!
//! [`Kernels::begin_reduce_scatter`](crate::Kernels::begin_reduce_scatter) begins one. On CUDA it runs on a stream of
//! its own beside the kernels that are launched after it; what it reads and writes is held until these wait for it, so
//! that a memory pool gives none of it to anybody else. Elsewhere it is done when it is begun: on a processor the ranks
//! share the cores that compute, so nothing would be won.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Tensor, backend::Backend};

use crate::host::DeviceError;

/// What goes on where a [`PendingSum`] is under way.
pub trait PendingCall: Debug + Send + Sync {
    /// Lets all that is queued on the device from now on come behind it; what was queued before does not wait. Asked
    /// for again, it does nothing.
    ///
    /// # Errors
    /// The device's.
    fn wait(&self) -> Result<(), DeviceError>;
}

/// A sum over ranks that was begun. Nobody may read it before it was waited for, so it shows nothing before that.
#[derive(Debug, Clone)]
pub struct PendingSum<B: Backend> {
    /// Where the sum will be.
    sum: Tensor<B, 1>,
    /// None where it is there.
    call: Option<Arc<dyn PendingCall>>,
}

impl<B: Backend> PendingSum<B> {
    /// That is there.
    pub fn done(sum: Tensor<B, 1>) -> Self {
        Self { sum, call: None }
    }

    /// That `call` writes to `sum`.
    #[cfg(feature = "cuda")]
    pub(crate) fn under_way(sum: Tensor<B, 1>, call: Arc<dyn PendingCall>) -> Self {
        Self { sum, call: Some(call) }
    }

    /// The sum, for what is queued from now on.
    ///
    /// # Errors
    /// The device's.
    pub fn wait(self) -> Result<Tensor<B, 1>, DeviceError> {
        if let Some(call) = self.call {
            call.wait()?;
        }
        Ok(self.sum)
    }
}
