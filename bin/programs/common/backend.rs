//! The choice of a backend, and what runs on the one that was chosen.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::{DType, Tensor, backend::Backend as _};
use cli::device;
use comm::Ranks;
use rl::TrainError;
use rl::config::{Backend, Dtype};
use rl::progress::Progress;

use super::Failure;
#[cfg(feature = "cuda")]
use super::cuda::{CudaPresence, presence};
#[cfg(feature = "cuda")]
use super::kernel_cache;

/// A job that runs on whichever backend was chosen.
pub trait OnBackend {
    /// What it gives back.
    type Output;
    /// Runs on `B`.
    fn run<B: model_qwen2vl::Kernels>(self, device: B::Device, dtype: DType) -> Self::Output;
}

/// A run of training, of `train` and of each child of `study`.
pub(crate) struct Train {
    /// What to train.
    pub config: rl::config::Config,
    /// Set to stop after a checkpoint.
    pub interrupt: Arc<AtomicBool>,
    /// The ranks of the run.
    pub ranks: Ranks,
    /// Where a person looks.
    pub progress: Progress,
}

impl OnBackend for Train {
    type Output = Result<rl::trainer::Summary, TrainError>;
    fn run<B: model_qwen2vl::Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        launch::train_on::<B>(self.ranks, self.config, dtype, &device, self.progress, self.interrupt)
    }
}

/// Backends that were compiled in, fastest first: the order in which `auto` tries them. That Flex stands before ndarray
/// was measured (docs/performance.md).
pub(crate) fn compiled() -> Vec<Backend> {
    let mut all = Vec::new();
    if cfg!(feature = "cuda") {
        all.push(Backend::Cuda);
    }
    if cfg!(feature = "vulkan") {
        all.push(Backend::Vulkan);
    } else if cfg!(feature = "wgpu") {
        all.push(Backend::Wgpu);
    }
    if cfg!(feature = "flex") {
        all.push(Backend::Flex);
    }
    if cfg!(feature = "ndarray") {
        all.push(Backend::Ndarray);
    }
    all
}

/// Whether a first computation on the device succeeds, and what it fails of.
fn first_computation<B: burn::tensor::backend::Backend>(device: &B::Device) -> Result<(), String> {
    let sum = || Tensor::<B, 1>::ones([2], device).sum().try_into_data().map_err(|e| device::explain(&e.to_string()));
    device::try_out(sum)?.map(|_| ())
}

/// What a wgpu program would compute on is a driver that pretends to be a graphics card on the CPU. Sets the device up,
/// so it may be asked once only. None without any device.
#[cfg(feature = "wgpu")]
fn software_adapter(device: &burn_wgpu::WgpuDevice) -> Option<bool> {
    let setup = || burn_wgpu::init_setup::<burn_wgpu::graphics::AutoGraphicsApi>(device, Default::default());
    let setup = device::try_out(setup).ok()?;
    // Its type is an enum of a crate that Burn does not re-export.
    Some(format!("{:?}", setup.adapter.get_info().device_type) == "Cpu")
}

/// Runs `job` on the chosen backend; `auto` takes the first compiled-in one that has a device.
pub fn on_backend<J: OnBackend>(backend: Backend, dtype: Dtype, job: J) -> Result<J::Output, Failure> {
    let candidates = if backend == Backend::Auto { compiled() } else { vec![backend] };
    let mut job = Some(job);
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    if candidates.iter().any(|candidate| matches!(candidate, Backend::Cuda | Backend::Wgpu | Backend::Vulkan)) {
        configure(&candidates);
    }
    for candidate in &candidates {
        if let Some(result) = attempt(*candidate, dtype, backend == Backend::Auto, &mut job)? {
            return Ok(result);
        }
    }
    Err(Failure::input("no backend finds a device; build with --features flex for the CPU"))
}

/// CubeCL's settings, before it is used for the first time: one stream, as a second one has memory of its own that the
/// first one's does not go back to, and compiled kernels kept where there is CUDA.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn configure(candidates: &[Backend]) {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.streaming.max_streams = 1;
    config.compilation.cache = kept_kernels(candidates).map(CacheConfig::File);
    CubeClRuntimeConfig::set(config);
}

#[cfg(feature = "cuda")]
fn kept_kernels(candidates: &[Backend]) -> Option<std::path::PathBuf> {
    match candidates.contains(&Backend::Cuda).then(presence)? {
        CudaPresence::There(card) => kernel_cache::open(&card),
        CudaPresence::Absent | CudaPresence::Unusable(_) => None,
    }
}

/// Only CUDA's can be kept.
#[cfg(all(feature = "wgpu", not(feature = "cuda")))]
fn kept_kernels(_: &[Backend]) -> Option<std::path::PathBuf> {
    None
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn no_device(backend: Backend) -> Failure {
    Failure::input(format!(
        "backend {}: no usable device was found (is the driver installed?); --backend flex runs on the CPU",
        backend.as_str()
    ))
}

/// `None` if `optional` and the backend has no device.
fn attempt<J: OnBackend>(
    backend: Backend,
    dtype: Dtype,
    #[cfg_attr(not(any(feature = "wgpu", feature = "cuda")), expect(unused_variables))] optional: bool,
    job: &mut Option<J>,
) -> Result<Option<J::Output>, Failure> {
    #[allow(unused_macros)]
    macro_rules! run {
        ($type:ty, $bf16:expr) => {
            run!($type, $bf16, <$type as burn::tensor::backend::BackendTypes>::Device::default())
        };
        ($type:ty, $bf16:expr, $device:expr) => {{
            let device = $device;
            if let Err(fault) = first_computation::<$type>(&device) {
                // Also where `auto` could go on to the next: a device that is there is not left aside without a word.
                return Err(Failure::other(format!(
                    "backend {}: its first computation fails: {fault}; --backend flex runs on the CPU",
                    backend.as_str()
                )));
            }
            let dtype = match dtype {
                Dtype::Bf16 => DType::BF16,
                Dtype::F32 => DType::F32,
                Dtype::Auto => {
                    if $bf16 {
                        DType::BF16
                    } else {
                        DType::F32
                    }
                }
            };
            if dtype == DType::BF16 && !<$type>::supports_dtype(&device, DType::BF16) {
                return Err(Failure::input(format!(
                    "backend {} does not compute in bf16; use --dtype f32",
                    backend.as_str()
                )));
            }
            Ok(job.take().map(|job| job.run::<$type>(device, dtype)))
        }};
    }
    match backend {
        #[cfg(feature = "flex")]
        Backend::Flex => run!(burn_flex::Flex<f32, i32>, false),
        #[cfg(feature = "ndarray")]
        Backend::Ndarray => run!(burn_ndarray::NdArray<f32>, false),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu | Backend::Vulkan if backend == Backend::Wgpu || cfg!(feature = "vulkan") => {
            match software_adapter(&Default::default()) {
                // A CPU backend is faster.
                None | Some(true) if optional => return Ok(None),
                None => return Err(no_device(backend)),
                Some(true) => eprintln!(
                    "warning: backend {} found no graphics card, only a slow software device; --backend flex runs on the CPU",
                    backend.as_str()
                ),
                Some(false) => {}
            }
            run!(burn_wgpu::Wgpu<f32, i32>, false)
        }
        #[cfg(feature = "cuda")]
        Backend::Cuda => match presence() {
            CudaPresence::Absent if optional => Ok(None),
            CudaPresence::Absent => Err(no_device(backend)),
            CudaPresence::Unusable(why) => Err(Failure::other(format!("backend cuda: {why}"))),
            CudaPresence::There(_) => {
                run!(burn_cuda::Cuda<f32, i32>, true, burn_cuda::CudaDevice::new(super::cuda::chosen()))
            }
        },
        other => Err(Failure::input(format!(
            "backend {} was not compiled in; this program has {}; build with --features {}",
            other.as_str(),
            compiled().iter().map(|b| b.as_str()).collect::<Vec<_>>().join(", "),
            other.as_str()
        ))),
    }
}
