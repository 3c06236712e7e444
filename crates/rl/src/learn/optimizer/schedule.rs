//! What the configuration says of the optimizer: number formats, and the learning rate of each step.

use burn::tensor::{DType, backend::Backend};
use kernels::{Gradients, Kernels};

use crate::config::{GradsDtype, LrScheduler, MomentsDtype, Optim};
use crate::error::TrainError;

/// Whether the device has the number formats that are kept between updates.
///
/// # Errors
/// [`TrainError::Input`] names the key.
pub fn check_formats<B: Backend>(config: &Optim, device: &B::Device) -> Result<(), TrainError> {
    let wanted = [
        (config.moments_dtype == MomentsDtype::Bf16, "moments_dtype"),
        (config.grads_dtype == GradsDtype::Bf16, "grads_dtype"),
    ];
    for (_, key) in wanted.iter().filter(|(wanted, _)| *wanted) {
        if !B::supports_dtype(device, DType::BF16) {
            return Err(TrainError::Input(format!(
                "actor.optim.{key}: this backend does not store bf16; write \"f32\", or take another backend"
            )));
        }
    }
    Ok(())
}

/// Empty gradients in the format that the configuration wants.
pub fn gradients<B: Kernels>(config: &Optim) -> Gradients<B> {
    Gradients::kept_in(match config.grads_dtype {
        GradsDtype::F32 => DType::F32,
        GradsDtype::Bf16 => DType::BF16,
    })
}

/// The learning rate of update `step` (from 1) of `total`.
pub fn learning_rate(optim: &Optim, step: usize, total: usize) -> f64 {
    let warmup = if optim.lr_warmup_steps > 0 {
        optim.lr_warmup_steps
    } else {
        (optim.lr_warmup_ratio * total as f64).round() as usize
    };
    if step <= warmup {
        return optim.lr * step as f64 / warmup as f64;
    }
    match optim.lr_scheduler_type {
        LrScheduler::Constant => optim.lr,
        LrScheduler::Cosine => {
            let progress = (step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
            optim.lr * (optim.min_lr_ratio + (1.0 - optim.min_lr_ratio) * cosine)
        }
    }
}
