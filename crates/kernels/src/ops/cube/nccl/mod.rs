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

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use comm::Ranks;
use cubecl::cuda::{CudaDevice, CudaRuntime};

use super::launch::{Launch, empty, held, owned, tensor};
use crate::host::DeviceError;
use crate::params::to_f32;
pub use communicator::{Communicator, version};
pub use order::StreamOrder;

/// A tensor of the runtime `T`, if that is what `R` is.
fn same<R: CubeRuntime, T: CubeRuntime>(t: CubeTensor<R>) -> Option<CubeTensor<T>> {
    (Box::new(t) as Box<dyn Any>).downcast::<CubeTensor<T>>().ok().map(|t| *t)
}

/// What a backend holds of a float tensor, where the backend is CUDA's.
fn on_cuda<B: Launch, const D: usize>(t: Tensor<B, D>) -> Option<CubeTensor<CudaRuntime>> {
    same(held(t))
}

/// The same back.
fn from_cuda<B: Launch, const D: usize>(t: CubeTensor<CudaRuntime>) -> Result<Tensor<B, D>, DeviceError> {
    let found = same(t).ok_or_else(|| DeviceError("a tensor of CUDA came where there is none".into()))?;
    Ok(tensor(found))
}

/// The communicator of `ranks` on the device of `t`; made on the first call.
fn of(t: &CubeTensor<CudaRuntime>, ranks: &Ranks) -> Result<std::sync::Arc<Communicator>, DeviceError> {
    ranks.attached(|| Communicator::new(&t.device, ranks, None))
}

/// Whether the data of `B` lie on CUDA devices, where `ranks` are more than one.
fn applies<B: Launch>(device: &B::Device, ranks: &Ranks) -> bool {
    !ranks.is_solo() && (device as &dyn Any).is::<CudaDevice>()
}

/// The sum over `ranks` in the type of `x`, in place where nothing else holds it; none where this is not CUDA's to do.
/// 16-bit sums are rounded at each rank that adds to them.
pub(super) fn all_reduce<B: Launch, const D: usize>(
    x: &Tensor<B, D>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<Option<Tensor<B, D>>, DeviceError> {
    if !applies::<B>(&x.device(), ranks) {
        return Ok(None);
    }
    let Some(x) = on_cuda(x.clone()) else { return Ok(None) };
    let communicator = of(&x, ranks)?;
    ranks.agree(name)?;
    ranks.count(name, x.meta.num_elements() * x.elem_size());
    from_cuda(communicator.all_reduce(x)?).map(Some)
}

/// This rank's part of the sum over `ranks` of `x [n ranks]`: `[n]` in f32, summed in f32; none where this is not
/// CUDA's to do.
pub(super) fn reduce_scatter<B: Launch>(
    x: &Tensor<B, 1>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<Option<Tensor<B, 1>>, DeviceError> {
    if !applies::<B>(&x.device(), ranks) {
        return Ok(None);
    }
    let Some(x) = on_cuda(to_f32(x.clone())) else { return Ok(None) };
    let communicator = of(&x, ranks)?;
    ranks.agree(name)?;
    ranks.count(name, x.meta.num_elements() * x.elem_size());
    from_cuda(communicator.reduce_scatter(x)?).map(Some)
}

/// The parts `x [n]` of all ranks, one after the other: `[n ranks]`; none where this is not CUDA's to do.
pub(super) fn all_gather<B: Launch>(
    x: &Tensor<B, 1>,
    ranks: &Ranks,
    name: &'static str,
) -> Result<Option<Tensor<B, 1>>, DeviceError> {
    if !applies::<B>(&x.device(), ranks) {
        return Ok(None);
    }
    let Some(x) = on_cuda(x.clone()) else { return Ok(None) };
    let communicator = of(&x, ranks)?;
    ranks.agree(name)?;
    ranks.count(name, x.meta.num_elements() * x.elem_size());
    from_cuda(communicator.all_gather(x)?).map(Some)
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
        let x = burn_cubecl::kernel::into_contiguous(x);
        let all = x.meta.num_elements();
        if !all.is_multiple_of(self.size()) {
            return Err(DeviceError(format!("{all} elements are no {} equal parts", self.size())));
        }
        let count = all / self.size();
        let part = empty(&x, Shape::new([count]), x.dtype);
        if count > 0 {
            self.call([&x, &part], |[from, to], stream| self.sum_parts([from, to], count, x.dtype, stream))?;
        }
        Ok(part)
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
