//! How a collective on NCCL's stream and the kernels on CubeCL's keep their order. CubeCL shows nobody its stream, so
//! there are two ways that need none:
//!
//! - *Events of the context*: an event that captures all work of the device's context so far, which NCCL's stream waits
//!   for; and one on NCCL's stream that all later work of the context waits for. The host waits for nothing. The driver
//!   has them from CUDA 12.5 on.
//! - *Waiting*: the host waits for all kernels before the call and for the call after it.

use std::ffi::{CStr, c_int, c_void};

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

/// NCCL's stream and what it is ordered by.
#[derive(Debug)]
pub(super) struct OrderedStream {
    context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    before: sys::CUevent,
    after: sys::CUevent,
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
        Ok(Self { context, stream, before: event()?, after: event()?, events })
    }

    pub(super) fn order(&self) -> StreamOrder {
        if self.events.is_some() { StreamOrder::Events } else { StreamOrder::Waiting }
    }

    /// Makes the context current on this thread.
    pub(super) fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: it is kept for the life of the process.
        unsafe { driver::ctx::set_current(self.context) }
    }

    /// Before the call: all that was launched so far comes first. Where the host waits, it has waited already.
    pub(super) fn begin(&self) -> Result<(), DriverError> {
        let Some(events) = self.events else { return Ok(()) };
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
}
