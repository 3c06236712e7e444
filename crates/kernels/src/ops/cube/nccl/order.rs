//! How a collective on NCCL's stream and the kernels on CubeCL's keep their order. CubeCL shows nobody its stream, so
//! there are two ways that need none:
//!
//! - *Events of the context*: an event that captures all work of the device's context so far, which NCCL's stream waits
//!   for; and one on NCCL's stream that all later work of the context waits for. The host waits for nothing. The driver
//!   has them from CUDA 12.5 on.
//! - *Waiting*: the host waits for all kernels before the call and for the call after it.
//!
//! A call whose result is not needed at once has a mark of its own behind it on NCCL's stream, an event that is waited
//! for later in the same two ways. An event of the context stands for the work of all streams, NCCL's too, and in the
//! other order the host waits for all others of these: so a call of any communicator comes behind all earlier ones of
//! all communicators, and no two run beside each other, whose kernels might wait for each other's places on the device.

use std::ffi::{CStr, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::{DriverError, result as driver, sys};

/// The version of the driver, as it numbers them, from which on contexts have events.
const CONTEXT_EVENTS: c_int = 12_050;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamOrder {
    /// Events of the context.
    Events,
    /// The host waits.
    Waiting,
}

/// `cuCtxRecordEvent` and `cuCtxWaitEvent`: of a context and an event.
type ContextCall = unsafe extern "C" fn(sys::CUcontext, sys::CUevent) -> sys::CUresult;

/// The two calls. They are asked of the driver by name, because bindings for an older toolkit do not have them.
#[derive(Debug, Clone, Copy)]
pub(super) struct ContextEvents {
    record: ContextCall,
    wait: ContextCall,
}

impl ContextEvents {
    /// None where the driver is too old.
    pub(super) fn of_driver() -> Option<Self> {
        let mut version = 0;
        // SAFETY: a place for a number.
        unsafe { sys::cuDriverGetVersion(&mut version) }.result().ok()?;
        if version < CONTEXT_EVENTS {
            return None;
        }
        let call = |name: &CStr| {
            let mut found: *mut c_void = std::ptr::null_mut();
            // SAFETY: a name, a place for the address, and nothing asked about the status.
            let asked =
                unsafe { sys::cuGetProcAddress_v2(name.as_ptr(), &mut found, CONTEXT_EVENTS, 0, std::ptr::null_mut()) };
            asked.result().ok()?;
            // SAFETY: the driver has given the address of the function of this name, whose type this is.
            (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, ContextCall>(found) })
        };
        Some(Self { record: call(c"cuCtxRecordEvent")?, wait: call(c"cuCtxWaitEvent")? })
    }

    /// Lets `event` stand for all that was given to the context so far.
    pub(super) fn record(self, context: sys::CUcontext, event: sys::CUevent) -> Result<(), DriverError> {
        // SAFETY: both are alive as long as the communicator that has them.
        unsafe { (self.record)(context, event) }.result()
    }

    /// Lets all that is given to the context from now on wait for `event`.
    pub(super) fn wait(self, context: sys::CUcontext, event: sys::CUevent) -> Result<(), DriverError> {
        // SAFETY: as above.
        unsafe { (self.wait)(context, event) }.result()
    }
}

/// A stream of a communicator.
struct NcclStream(sys::CUstream);

// SAFETY: a handle, which the driver takes from any thread.
unsafe impl Send for NcclStream {}

/// Those of all communicators that were made; one lives as long as the program.
static STREAMS: Mutex<Vec<NcclStream>> = Mutex::new(Vec::new());

/// An event behind a call on NCCL's stream.
#[derive(Debug)]
pub(super) struct StreamMark(sys::CUevent);

// SAFETY: a handle, which the driver takes from any thread.
unsafe impl Send for StreamMark {}

/// NCCL's stream and what it is ordered by.
#[derive(Debug)]
pub(super) struct OrderedStream {
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    before: sys::CUevent,
    after: sys::CUevent,
    /// Marks that nobody waits for any more.
    marks: Mutex<Vec<StreamMark>>,
    /// None: the host waits.
    events: Option<ContextEvents>,
}

impl OrderedStream {
    /// A stream on device `index`, ordered as asked for, or as the driver allows.
    ///
    /// # Errors
    /// The driver's; [`StreamOrder::Events`] of a driver that has none.
    pub(super) fn new(index: i32, wanted: Option<StreamOrder>) -> Result<Self, String> {
        let text = |e: DriverError| e.to_string();
        driver::init().map_err(text)?;
        let device = driver::device::get(index).map_err(text)?;
        // SAFETY: the context of the device is CubeCL's own, kept for the life of the process.
        let context = unsafe { driver::primary_ctx::retain(device) }.map_err(text)?;
        // SAFETY: it is alive.
        unsafe { driver::ctx::set_current(context) }.map_err(text)?;
        let event = || driver::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(text);
        let events = match wanted {
            Some(StreamOrder::Waiting) => None,
            None => ContextEvents::of_driver(),
            Some(StreamOrder::Events) => {
                let found = ContextEvents::of_driver();
                Some(found.ok_or("the driver is older than CUDA 12.5 and has no events of contexts")?)
            }
        };
        let stream = driver::stream::create(driver::stream::StreamKind::NonBlocking).map_err(text)?;
        STREAMS.lock().unwrap_or_else(PoisonError::into_inner).push(NcclStream(stream));
        Ok(Self { context, stream, before: event()?, after: event()?, marks: Mutex::default(), events })
    }

    pub(super) fn order(&self) -> StreamOrder {
        if self.events.is_some() { StreamOrder::Events } else { StreamOrder::Waiting }
    }

    /// Makes the context current on this thread.
    pub(super) fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: it is kept for the life of the process.
        unsafe { driver::ctx::set_current(self.context) }
    }

    /// The host waits for the calls of other communicators.
    fn wait_for_others(&self) -> Result<(), DriverError> {
        let streams = STREAMS.lock().unwrap_or_else(PoisonError::into_inner);
        let others = streams.iter().filter(|stream| stream.0 != self.stream);
        // SAFETY: streams live as long as the program.
        others.map(|stream| unsafe { driver::stream::synchronize(stream.0) }).collect()
    }

    /// Before the call: all that was launched so far comes first, and the calls of other communicators. Where the host
    /// waits, it has waited for kernels already.
    pub(super) fn begin(&self) -> Result<(), DriverError> {
        let Some(events) = self.events else { return self.wait_for_others() };
        events.record(self.context, self.before)?;
        // SAFETY: both are this communicator's own.
        unsafe { driver::stream::wait_event(self.stream, self.before, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }
    }

    /// After it: all that is launched from now on comes later.
    pub(super) fn end(&self) -> Result<(), DriverError> {
        match self.events {
            Some(events) => {
                // SAFETY: both are this communicator's own.
                unsafe { driver::event::record(self.after, self.stream) }?;
                events.wait(self.context, self.after)
            }
            // SAFETY: it is this communicator's own.
            None => unsafe { driver::stream::synchronize(self.stream) },
        }
    }

    /// In place of [`end`](Self::end): a mark that [`wait_for`](Self::wait_for) waits for.
    pub(super) fn mark(&self) -> Result<StreamMark, DriverError> {
        let free = self.marks.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mark = match free {
            Some(mark) => mark,
            None => StreamMark(driver::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?),
        };
        // SAFETY: both are this communicator's own.
        unsafe { driver::event::record(mark.0, self.stream) }?;
        Ok(mark)
    }

    /// Lets all that is launched from now on come behind a mark.
    pub(super) fn wait_for(&self, mark: StreamMark) -> Result<(), DriverError> {
        match self.events {
            Some(events) => events.wait(self.context, mark.0)?,
            // SAFETY: it is this communicator's own.
            None => unsafe { driver::event::synchronize(mark.0) }?,
        }
        // Whoever waits for an event waits for it as it was recorded then: it can stand for another call.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
        Ok(())
    }
}
