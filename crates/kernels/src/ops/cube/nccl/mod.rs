//! Collectives between CUDA devices, by NCCL: what [`Kernels::reduce_scatter`](crate::Kernels::reduce_scatter) and its
//! neighbours do on CUDA. Data goes from device to device; ranks only tell each other how to find NCCL's ring.
//!
//! NCCL is loaded when the first group of ranks asks for it, function by function: a program without it starts and
//! trains on one device. A group has a communicator of its own, made when the group is first used.
//!
//! Nothing of this has run on a GPU yet (docs/nccl.md).
//!
//! | file | what |
//! |---|---|
//! | `communicator` | NCCL's ranks, its errors, and who watches for those that come later |
//! | `order` | how a collective and the kernels around it keep their order |

mod communicator;
mod order;

use std::any::Any;
use std::sync::Arc;

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use comm::Ranks;
use cubecl::cuda::{CudaDevice, CudaRuntime};

use super::launch::{Launch, empty, held, owned, tensor};
use crate::host::DeviceError;
use crate::params::to_f32;
use crate::pending::PendingSum;
pub use communicator::{CallInFlight, Communicator, version};
pub use order::StreamOrder;

/// A tensor of the runtime `T`, if that is what `R` is.
fn same<R: CubeRuntime, T: CubeRuntime>(t: CubeTensor<R>) -> Result<CubeTensor<T>, DeviceError> {
    let found = (Box::new(t) as Box<dyn Any>).downcast::<CubeTensor<T>>();
    found.map(|t| *t).map_err(|_| DeviceError("a tensor of another runtime came to NCCL".into()))
}

/// Whether the data of `B` lie on CUDA devices, where `ranks` are more than one: whether the calls below are for them.
pub(super) fn applies<B: Launch>(device: &B::Device, ranks: &Ranks) -> bool {
    !ranks.is_solo() && (device as &dyn Any).is::<CudaDevice>()
}

/// The communicator of `ranks` for a call over `x`, which is made on the first call; and `x` as it lies there.
fn communicator<B: Launch, const D: usize>(
    x: Tensor<B, D>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<(Arc<Communicator>, CubeTensor<CudaRuntime>), DeviceError> {
    let x: CubeTensor<CudaRuntime> = same(held(x))?;
    ranks.agree(name)?;
    let communicator = ranks.attached(|| Communicator::new(&x.device, ranks, None))?;
    ranks.count(name, x.meta.num_elements() * x.elem_size());
    Ok((communicator, x))
}

/// Makes `call` on the communicator of `ranks`.
fn on<B: Launch, const D: usize>(
    x: Tensor<B, D>,
    ranks: &Ranks,
    name: &'static str,
    call: impl FnOnce(&Communicator, CubeTensor<CudaRuntime>) -> Result<CubeTensor<CudaRuntime>, DeviceError>,
) -> Result<Tensor<B, D>, DeviceError> {
    let (communicator, x) = communicator(x, ranks, name)?;
    Ok(tensor(same(call(&communicator, x)?)?))
}

/// The sum over `ranks` in the type of `x`, in place where nothing else holds it. 16-bit sums are rounded by each rank
/// that adds to them.
pub(super) fn all_reduce<B: Launch, const D: usize>(
    x: Tensor<B, D>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<Tensor<B, D>, DeviceError> {
    on(x, ranks, name, Communicator::all_reduce)
}

/// This rank's part of the sum over `ranks` of `x [n ranks]`: `[n]` in f32, summed in f32.
pub(super) fn reduce_scatter<B: Launch>(
    x: Tensor<B, 1>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<Tensor<B, 1>, DeviceError> {
    on(to_f32(x), ranks, name, Communicator::reduce_scatter)
}

/// [`reduce_scatter`] that later kernels need not wait for.
pub(super) fn begin_reduce_scatter<B: Launch>(
    x: Tensor<B, 1>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<PendingSum<B>, DeviceError> {
    let (communicator, x) = communicator(to_f32(x), ranks, name)?;
    let (part, call) = communicator.begin_reduce_scatter(x)?;
    let part = tensor(same(part)?);
    Ok(match call {
        Some(call) => PendingSum::under_way(part, Arc::new(call)),
        None => PendingSum::done(part),
    })
}

/// The parts `x [n]` of all ranks, one after the other: `[n ranks]`.
pub(super) fn all_gather<B: Launch>(
    x: Tensor<B, 1>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<Tensor<B, 1>, DeviceError> {
    on(x, ranks, name, Communicator::all_gather)
}

impl Communicator {
    /// The sum over ranks of `x`, in its type; in place where nothing else holds `x`.
    ///
    /// # Errors
    /// NCCL's or the driver's; a type that neither sums.
    pub fn all_reduce(&self, x: CubeTensor<CudaRuntime>) -> Result<CubeTensor<CudaRuntime>, DeviceError> {
        let x = owned(x);
        let count = x.meta.num_elements();
        if count > 0 {
            self.call([&x, &x], |[from, to], stream| self.sum_all([from, to], count, x.dtype, stream))?;
        }
        Ok(x)
    }

    /// This rank's part `[n]` of the sum over ranks of `x [n ranks]`, in its type.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce), and a length that the ranks do not divide.
    pub fn reduce_scatter(&self, x: CubeTensor<CudaRuntime>) -> Result<CubeTensor<CudaRuntime>, DeviceError> {
        let (x, part, count) = self.parts(x)?;
        if count > 0 {
            self.call([&x, &part], |[from, to], stream| self.sum_parts([from, to], count, x.dtype, stream))?;
        }
        Ok(part)
    }

    /// The same, which kernels that are queued after it need not wait for; the part may be read once the call was
    /// waited for. No call where nothing is to be summed.
    ///
    /// # Errors
    /// As [`reduce_scatter`](Self::reduce_scatter).
    pub fn begin_reduce_scatter(
        self: &Arc<Self>,
        x: CubeTensor<CudaRuntime>,
    ) -> Result<(CubeTensor<CudaRuntime>, Option<CallInFlight>), DeviceError> {
        let (x, part, count) = self.parts(x)?;
        if count == 0 {
            return Ok((part, None));
        }
        let call = self.begin([&x, &part], |[from, to], stream| self.sum_parts([from, to], count, x.dtype, stream))?;
        Ok((part, Some(call)))
    }

    /// `x` in order, memory for a rank's part of it, and the part's elements.
    fn parts(
        &self,
        x: CubeTensor<CudaRuntime>,
    ) -> Result<(CubeTensor<CudaRuntime>, CubeTensor<CudaRuntime>, usize), DeviceError> {
        let x = burn_cubecl::kernel::into_contiguous(x);
        let all = x.meta.num_elements();
        if !all.is_multiple_of(self.size()) {
            return Err(DeviceError(format!("{all} elements are no {} equal parts", self.size())));
        }
        let count = all / self.size();
        let part = empty(&x, Shape::new([count]), x.dtype);
        Ok((x, part, count))
    }

    /// The parts `x [n]` of all ranks, one after the other: `[n ranks]`.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn all_gather(&self, x: CubeTensor<CudaRuntime>) -> Result<CubeTensor<CudaRuntime>, DeviceError> {
        let x = burn_cubecl::kernel::into_contiguous(x);
        let count = x.meta.num_elements();
        let all = empty(&x, Shape::new([count * self.size()]), x.dtype);
        if count > 0 {
            self.call([&x, &all], |[from, to], stream| self.join([from, to], count, x.dtype, stream))?;
        }
        Ok(all)
    }
}

/// What NCCL calls a type.
///
/// # Errors
/// A type that it does not sum.
fn nccl_type(dtype: DType) -> Result<cudarc::nccl::sys::ncclDataType_t, DeviceError> {
    use cudarc::nccl::sys::ncclDataType_t as Type;
    match dtype {
        DType::F32 => Ok(Type::ncclFloat32),
        DType::BF16 => Ok(Type::ncclBfloat16),
        DType::F16 => Ok(Type::ncclFloat16),
        other => Err(DeviceError(format!("{other:?} is no type that devices tell each other"))),
    }
}
