//! NCCL's ranks.

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use comm::Ranks;
use cubecl::Runtime;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUstream;
use cudarc::nccl::{result as nccl, sys};

use super::nccl_type;
use super::order::{OrderedStream, StreamMark, StreamOrder};
use crate::host::DeviceError;
use crate::pending::PendingCall;

/// What to do where it is missing. cudarc looks for names that NVIDIA's own package does not have.
const MISSING: &str = "NCCL was not found, by which CUDA devices talk to each other; install libnccl-dev, or, where only \
    libnccl.so.2 is there, make a link to it in a folder of LD_LIBRARY_PATH: ln -s /PATH/libnccl.so.2 libnccl.so";

/// How often errors are looked for that come after a call.
const LOOK: Duration = Duration::from_secs(1);

/// Exit code of a run that ends by such an error.
const FAILED: i32 = 1;

/// The version of NCCL, as it numbers them (22703 is 2.27.3).
///
/// # Errors
/// What to do where there is none.
pub fn version() -> Result<i32, DeviceError> {
    // SAFETY: looks for a library by its name, and calls nothing.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError(MISSING.into()));
    }
    nccl::get_nccl_version().map_err(|e| failed("version", &e))
}

/// An error of NCCL in words.
fn failed(call: &str, error: &nccl::NcclError) -> DeviceError {
    // SAFETY: a text that lives as long as the library.
    let text = unsafe { CStr::from_ptr(sys::ncclGetErrorString(error.0)) };
    DeviceError(format!("NCCL's {call}: {} (NCCL_DEBUG=WARN says more)", text.to_string_lossy()))
}

/// The ranks of one group on their devices.
#[derive(Debug)]
pub struct Communicator {
    comm: sys::ncclComm_t,
    stream: OrderedStream,
    device: CudaDevice,
    size: usize,
}

// SAFETY: handles, which NCCL and the driver take from any thread. Which thread gives them work is the caller's affair:
// one at a time, as the ranks' other calls.
unsafe impl Send for Communicator {}
// SAFETY: as above.
unsafe impl Sync for Communicator {}

impl Communicator {
    /// Of `ranks`, each of which calls it with its own device; of one rank, too. `order` is for checks; without one it
    /// is the better that the driver has.
    ///
    /// # Errors
    /// A rank without NCCL; NCCL's and the driver's; two ranks on one device.
    pub fn new(device: &CudaDevice, ranks: &Ranks, order: Option<StreamOrder>) -> Result<Self, DeviceError> {
        let missing = ranks.gather("NCCL", &version().err().map(|e| e.0))?;
        if let Some((rank, why)) = missing.iter().enumerate().find_map(|(rank, why)| Some((rank, why.as_ref()?))) {
            return Err(DeviceError(format!("rank {rank}: {why}")));
        }
        // Through words and not as an error of its own: it comes from another rank.
        let id = ranks.from_first("NCCL's id", || match nccl::get_uniqueid() {
            Ok(id) => Ok(id.internal.to_vec()),
            Err(e) => Err(failed("unique id", &e).0),
        })?;
        let id: Vec<c_char> = id.map_err(DeviceError)?;
        let internal = id.try_into().map_err(|_| DeviceError("an id of NCCL of another length".into()))?;
        let stream = OrderedStream::new(device.index as i32, order).map_err(DeviceError)?;
        let mut comm = MaybeUninit::uninit();
        let (size, rank) = (ranks.size() as i32, ranks.rank() as i32);
        // SAFETY: a place for the communicator; the context of the device is current on this thread.
        let made = unsafe { nccl::comm_init_rank(comm.as_mut_ptr(), size, sys::ncclUniqueId { internal }, rank) };
        made.map_err(|e| failed("start", &e))?;
        // SAFETY: it was made.
        let comm = unsafe { comm.assume_init() };
        watch(comm, ranks);
        Ok(Self { comm, stream, device: device.clone(), size: ranks.size() })
    }

    /// Ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How its calls keep their order among kernels.
    pub fn order(&self) -> StreamOrder {
        self.stream.order()
    }

    /// Lets `call` do its work on NCCL's stream, from the memory of the first tensor to that of the second: behind all
    /// that was queued on the device, and before all that will be.
    pub(super) fn call(
        &self,
        tensors: [&CubeTensor<CudaRuntime>; 2],
        call: impl FnOnce([u64; 2], CUstream) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.enqueue(tensors, call)?;
        // What takes the memory next is ordered behind this.
        self.stream.end().map_err(of_driver)
    }

    /// The same, but what is queued after it need not wait for it: until it is waited for, the tensors are held.
    pub(super) fn begin(
        self: &Arc<Self>,
        tensors: [&CubeTensor<CudaRuntime>; 2],
        call: impl FnOnce([u64; 2], CUstream) -> Result<(), DeviceError>,
    ) -> Result<CallInFlight, DeviceError> {
        self.enqueue(tensors, call)?;
        let mark = Mutex::new(Some(self.stream.mark().map_err(of_driver)?));
        Ok(CallInFlight { communicator: self.clone(), held: tensors.map(Clone::clone), mark })
    }

    /// Gives `call` to NCCL's stream behind all that was queued on the device.
    fn enqueue(
        &self,
        tensors: [&CubeTensor<CudaRuntime>; 2],
        call: impl FnOnce([u64; 2], CUstream) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        if self.order() == StreamOrder::Waiting {
            cubecl::future::block_on(CudaRuntime::client(&self.device).sync())
                .map_err(|e| DeviceError(e.to_string()))?;
        }
        // Asking for the memory waits until all that was queued before is launched, and holds it.
        let [from, to] = tensors.map(|t| t.client.get_resource(t.handle.clone()));
        let memory = [from, to].into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| DeviceError(e.to_string()))?;
        let places = [memory[0].resource().ptr, memory[1].resource().ptr];
        self.stream.enter().map_err(of_driver)?;
        self.stream.begin().map_err(of_driver)?;
        call(places, self.stream.stream)
    }

    pub(super) fn sum_all(
        &self,
        [from, to]: [u64; 2],
        count: usize,
        dtype: DType,
        stream: CUstream,
    ) -> Result<(), DeviceError> {
        let (dtype, sum) = (nccl_type(dtype)?, sys::ncclRedOp_t::ncclSum);
        let (from, to) = (from as *const c_void, to as *mut c_void);
        // SAFETY: both are memory of `count` elements, held by the caller.
        let done = unsafe { nccl::all_reduce(from, to, count, dtype, sum, self.comm, stream.cast()) };
        done.map(drop).map_err(|e| failed("all-reduce", &e))
    }

    pub(super) fn sum_parts(
        &self,
        [from, to]: [u64; 2],
        count: usize,
        dtype: DType,
        stream: CUstream,
    ) -> Result<(), DeviceError> {
        let (dtype, sum) = (nccl_type(dtype)?, sys::ncclRedOp_t::ncclSum);
        let (from, to) = (from as *const c_void, to as *mut c_void);
        // SAFETY: memory of `count` elements for each rank, and of `count`, held by the caller.
        let done = unsafe { nccl::reduce_scatter(from, to, count, dtype, sum, self.comm, stream.cast()) };
        done.map(drop).map_err(|e| failed("reduce-scatter", &e))
    }

    pub(super) fn join(
        &self,
        [from, to]: [u64; 2],
        count: usize,
        dtype: DType,
        stream: CUstream,
    ) -> Result<(), DeviceError> {
        let (from, to, dtype) = (from as *const c_void, to as *mut c_void, nccl_type(dtype)?);
        // SAFETY: memory of `count` elements, and of `count` for each rank, held by the caller.
        let done = unsafe { nccl::all_gather(from, to, count, dtype, self.comm, stream.cast()) };
        done.map(drop).map_err(|e| failed("all-gather", &e))
    }
}

/// A call that goes on while kernels run that were queued after it.
#[derive(Debug)]
pub struct CallInFlight {
    communicator: Arc<Communicator>,
    /// What it reads and writes: nobody else gets this memory before later work waits for the call.
    held: [CubeTensor<CudaRuntime>; 2],
    /// None once it was waited for.
    mark: Mutex<Option<StreamMark>>,
}

impl PendingCall for CallInFlight {
    fn wait(&self) -> Result<(), DeviceError> {
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mark) = mark.take() else { return Ok(()) };
        // What was queued is launched first, so that it runs beside the call and does not wait for it.
        let [_, to] = &self.held;
        let launched = to.client.get_resource(to.handle.clone()).map_err(|e| DeviceError(e.to_string()));
        let stream = &self.communicator.stream;
        stream.enter().and_then(|()| stream.wait_for(mark)).map_err(of_driver)?;
        launched.map(drop)
    }
}

impl Drop for CallInFlight {
    /// Waits for a call that was given up: another may have its memory only after it.
    fn drop(&mut self) {
        if self.wait().is_err() {
            std::mem::forget(self.held.clone());
        }
    }
}

/// An error of the driver.
fn of_driver(error: DriverError) -> DeviceError {
    DeviceError(error.to_string())
}

/// A communicator whose later errors are looked for.
struct WatchedRanks(sys::ncclComm_t);

// SAFETY: NCCL tells of a communicator's errors on any thread.
unsafe impl Send for WatchedRanks {}

/// All that were made; a communicator lives as long as the program.
static WATCHED: Mutex<Vec<WatchedRanks>> = Mutex::new(Vec::new());

/// Ends the run with one line where a call of `comm` fails after it was made, as when another rank is gone: whoever
/// waits for its result would wait for ever.
fn watch(comm: sys::ncclComm_t, ranks: &Ranks) {
    let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.push(WatchedRanks(comm));
    if watched.len() > 1 {
        return;
    }
    let ranks = ranks.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            if let Some(error) = late_error() {
                eprintln!("error: rank {}: {error}", ranks.rank());
                ranks.abort(FAILED);
            }
        }
    });
}

/// An error of any communicator that came after its call.
fn late_error() -> Option<DeviceError> {
    let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    watched.iter().find_map(|WatchedRanks(comm)| {
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: a communicator that is never freed, and a place for its state.
        let asked = unsafe { sys::ncclCommGetAsyncError(*comm, &mut state) };
        let failed_in = |result: sys::ncclResult_t| match result {
            sys::ncclResult_t::ncclSuccess | sys::ncclResult_t::ncclInProgress => None,
            error => Some(failed("call", &nccl::NcclError(error))),
        };
        failed_in(asked).or_else(|| failed_in(state))
    })
}
