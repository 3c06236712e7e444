//! The choice of a backend, and what runs on the one that was chosen.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::{DType, Tensor, backend::Backend as _};
use rl::TrainError;
use rl::config::{Backend, Dtype};

use super::Failure;

/// A job that runs on whichever backend was chosen.
pub(crate) trait OnBackend {
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
}

impl OnBackend for Train {
    type Output = Result<rl::trainer::Summary, TrainError>;
    fn run<B: model_qwen2vl::Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        launch::train::<B>(self.config, dtype, &device, rl::progress::Progress::new(), self.interrupt)
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

/// The backend named on a command line.
pub(crate) fn parse_backend(name: &str) -> Result<Backend, String> {
    let all = [Backend::Auto, Backend::Flex, Backend::Ndarray, Backend::Wgpu, Backend::Vulkan, Backend::Cuda];
    all.into_iter()
        .find(|b| b.as_str() == name)
        .ok_or_else(|| format!("there is no backend {name:?}; there are auto, flex, ndarray, wgpu, vulkan, cuda"))
}

/// The number format named on a command line.
pub(crate) fn parse_dtype(name: &str) -> Result<Dtype, String> {
    [Dtype::Auto, Dtype::F32, Dtype::Bf16]
        .into_iter()
        .find(|d| d.as_str() == name)
        .ok_or_else(|| format!("there is no dtype {name:?}; there are auto, f32, bf16"))
}

/// Drivers that are missing end in a panic inside the libraries: it is caught, and its text is not shown.
fn quietly<T>(work: impl FnOnce() -> T) -> Option<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    result.ok()
}

/// Whether a first computation on the device succeeds.
fn works<B: burn::tensor::backend::Backend>(device: &B::Device) -> bool {
    quietly(|| Tensor::<B, 1>::ones([2], device).sum().try_into_data().is_ok()).unwrap_or(false)
}

/// What a wgpu program would compute on is a driver that pretends to be a graphics card on the CPU. Sets the device up,
/// so it may be asked once only. None without any device.
#[cfg(feature = "wgpu")]
fn software_adapter(device: &burn_wgpu::WgpuDevice) -> Option<bool> {
    let setup = quietly(|| burn_wgpu::init_setup::<burn_wgpu::graphics::AutoGraphicsApi>(device, Default::default()))?;
    // Its type is an enum of a crate that Burn does not re-export.
    Some(format!("{:?}", setup.adapter.get_info().device_type) == "Cpu")
}

/// Runs `job` on the chosen backend; `auto` takes the first compiled-in one that has a device.
pub(crate) fn on_backend<J: OnBackend>(backend: Backend, dtype: Dtype, job: J) -> Result<J::Output, Failure> {
    let candidates = if backend == Backend::Auto { compiled() } else { vec![backend] };
    let mut job = Some(job);
    for candidate in &candidates {
        if let Some(result) = attempt(*candidate, dtype, backend == Backend::Auto, &mut job)? {
            return Ok(result);
        }
    }
    Err(Failure::input("no backend finds a device; build with --features flex or ndarray for the CPU"))
}

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
    optional: bool,
    job: &mut Option<J>,
) -> Result<Option<J::Output>, Failure> {
    #[allow(unused_macros)]
    macro_rules! run {
        ($type:ty, $bf16:expr) => {{
            let device = <$type as burn::tensor::backend::BackendTypes>::Device::default();
            if !works::<$type>(&device) {
                return if optional { Ok(None) } else { Err(no_device(backend)) };
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
                // A CPU backend is faster, and its matmuls are right.
                None | Some(true) if optional => return Ok(None),
                None => return Err(no_device(backend)),
                Some(true) => eprintln!(
                    "warning: backend {} found no graphics card, only a software device: slow, and its matmuls may be wrong \
                     (docs/architecture.md); --backend flex runs on the CPU",
                    backend.as_str()
                ),
                Some(false) => {}
            }
            run!(burn_wgpu::Wgpu<f32, i32>, false)
        }
        #[cfg(feature = "cuda")]
        Backend::Cuda => run!(burn_cuda::Cuda<f32, i32>, true),
        other => Err(Failure::input(format!(
            "backend {} was not compiled in; this program has {}; build with --features {}",
            other.as_str(),
            compiled().iter().map(|b| b.as_str()).collect::<Vec<_>>().join(", "),
            other.as_str()
        ))),
    }
}
