//! CUDA before its first use: what there is, and the memory that is left.

use std::sync::atomic::{AtomicUsize, Ordering};

use cudarc::driver::result::{ctx, device, init, mem_get_info, primary_ctx};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::nvrtc::sys as nvrtc;

/// The card of this process, as the driver numbers those that it may see.
static CARD: AtomicUsize = AtomicUsize::new(0);

/// The number of this process's card.
pub(crate) fn chosen() -> usize {
    CARD.load(Ordering::Relaxed)
}

/// Takes the card for the process of this number on its node, before anything is computed: its number modulo that of
/// cards. The card's name among all, `GPU-..`; none where there is no card.
pub(crate) fn choose(local_rank: usize) -> Option<String> {
    // SAFETY: looks for a library by its name, and calls nothing.
    if !unsafe { sys::is_culib_present() } || init().is_err() {
        return None;
    }
    let count = device::get_count().ok().filter(|count| *count > 0)?;
    CARD.store(local_rank % count as usize, Ordering::Relaxed);
    let uuid = device::get_uuid(device::get(chosen() as i32).ok()?).ok()?;
    let hex: String = uuid.bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect();
    Some(format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// What the driver calls this process's card; none where there is none.
pub(crate) fn name() -> Option<String> {
    // SAFETY: looks for a library by its name, and calls nothing.
    if !unsafe { sys::is_culib_present() } || init().is_err() {
        return None;
    }
    device::get_name(device::get(chosen() as i32).ok()?).ok()
}

/// What compiled kernels depend on besides the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CudaCard {
    /// Compute capability times 10.
    capability: i32,
    /// Version of the driver, as it numbers them: 13000.
    driver: i32,
    /// Version of NVRTC.
    compiler: [i32; 2],
}

impl CudaCard {
    /// Compute capability, major and minor.
    pub(crate) fn capability(&self) -> [i32; 2] {
        [self.capability / 10, self.capability % 10]
    }

    /// The CUDA version that the driver is for, major and minor.
    pub(crate) fn driver(&self) -> [i32; 2] {
        [self.driver / 1000, self.driver % 1000 / 10]
    }

    /// NVRTC's version, major and minor.
    pub(crate) fn compiler(&self) -> [i32; 2] {
        self.compiler
    }
}

impl std::fmt::Display for CudaCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor] = self.compiler;
        write!(f, "sm{}-driver{}-nvrtc{major}.{minor}", self.capability, self.driver)
    }
}

/// What a program finds.
pub(crate) enum CudaPresence {
    /// No driver, or one without a card.
    Absent,
    /// A card that cannot be used, and why.
    Unusable(String),
    /// A card and its compiler.
    There(CudaCard),
}

/// Looks for the driver, a card and NVRTC; computes nothing.
pub(crate) fn presence() -> CudaPresence {
    // SAFETY: looks for a library by its name, and calls nothing.
    if !unsafe { sys::is_culib_present() } || init().is_err() {
        return CudaPresence::Absent;
    }
    match device::get_count() {
        Ok(0) | Err(_) => return CudaPresence::Absent,
        Ok(_) => {}
    }
    // SAFETY: as above.
    if !unsafe { nvrtc::is_culib_present() } {
        return CudaPresence::Unusable(
            "NVRTC, which compiles its kernels, was not found; install the CUDA toolkit, or set LD_LIBRARY_PATH to the \
             folder of libnvrtc"
                .into(),
        );
    }
    match card() {
        Ok(card) => CudaPresence::There(card),
        Err(e) => CudaPresence::Unusable(format!("the driver does not answer: {e}")),
    }
}

fn card() -> Result<CudaCard, cudarc::driver::DriverError> {
    let device = device::get(chosen() as i32)?;
    let [mut driver, mut major, mut minor] = [0; 3];
    // SAFETY: a device that the driver gave, and places for numbers.
    unsafe {
        let part = |name| device::get_attribute(device, name);
        let capability = 10 * part(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?
            + part(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        sys::cuDriverGetVersion(&mut driver).result()?;
        // A version that is not told leaves zeros: still a key.
        let _ = nvrtc::nvrtcVersion(&mut major, &mut minor);
        Ok(CudaCard { capability, driver, compiler: [major, minor] })
    }
}

/// Bytes of this process's card that are free, and all of its bytes; from any thread.
pub(crate) fn memory() -> Option<[u64; 2]> {
    // SAFETY: a library that is not there is not called.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    // SAFETY: the context of the device is CubeCL's own, kept for the life of the process; it becomes current on this
    // thread, which asks and ends.
    let (free, all) = unsafe {
        let context = primary_ctx::retain(device::get(chosen() as i32).ok()?).ok()?;
        ctx::set_current(context).ok()?;
        mem_get_info().ok()?
    };
    Some([free as u64, all as u64])
}
