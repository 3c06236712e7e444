//! AdamW: parameter and moments read once and written where they are.

use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::launch::{Launch, countable, float, held, owned, tensor};
use crate::ops::{AdamWStep, plain};

/// What a step multiplies and adds, worked out in f64 once.
#[derive(CubeType, CubeLaunch)]
struct StepFactors {
    /// Of the gradient.
    scale: f32,
    beta1: f32,
    /// `1 - beta1`
    rest1: f32,
    beta2: f32,
    /// `1 - beta2`
    rest2: f32,
    /// Root of the second moment's correction, `sqrt(1 - beta2^t)`.
    root: f32,
    eps: f32,
    /// `lr / (1 - beta1^t)`
    rate: f32,
    /// What decay leaves of the parameter.
    keep: f32,
}

/// One step for `param, grad, m, v [len]`.
#[cube(launch)]
fn update<P: Float>(
    grad: &Array<f32>,
    param: &mut Array<P>,
    m: &mut Array<f32>,
    v: &mut Array<f32>,
    len: usize,
    f: &StepFactors,
    #[define(P)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= len {
        terminate!();
    }
    let g = grad[i] * f.scale;
    let m1 = m[i] * f.beta1 + g * f.rest1;
    let v1 = v[i] * f.beta2 + g * g * f.rest2;
    let step = m1 / (v1.sqrt() / f.root + f.eps) * f.rate;
    param[i] = P::cast_from(f32::cast_from(param[i]) * f.keep - step);
    m[i] = m1;
    v[i] = v1;
}

fn launch_update<R: CubeRuntime>([param, grad, m, v]: [CubeTensor<R>; 4], h: &AdamWStep) -> [CubeTensor<R>; 3] {
    let grad = burn_cubecl::kernel::into_contiguous(grad);
    let (param, m, v) = (owned(param), owned(m), owned(v));
    let (client, dtype, len) = (param.client.clone(), param.dtype, param.meta.num_elements());
    if len == 0 {
        return [param, m, v];
    }
    let (correction1, correction2) = (1.0 - h.beta1.powf(h.step as f64), 1.0 - h.beta2.powf(h.step as f64));
    let cube = CubeDim::new(&client, len);
    update::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, len, cube),
        cube,
        grad.into_array_arg(),
        param.clone().into_array_arg(),
        m.clone().into_array_arg(),
        v.clone().into_array_arg(),
        len,
        StepFactorsLaunch::new(
            h.grad_scale as f32,
            h.beta1 as f32,
            (1.0 - h.beta1) as f32,
            h.beta2 as f32,
            (1.0 - h.beta2) as f32,
            correction2.sqrt() as f32,
            h.eps as f32,
            (h.lr / correction1) as f32,
            (1.0 - h.lr * h.weight_decay) as f32,
        ),
        dtype.into(),
    );
    [param, m, v]
}

/// See [`Kernels::adamw`](crate::Kernels::adamw). The default where the gradient or the moments are not f32.
pub(super) fn adamw<B: Launch>(
    param: Tensor<B, 1>,
    grad: Tensor<B, 1>,
    m: Tensor<B, 1>,
    v: Tensor<B, 1>,
    h: &AdamWStep,
) -> [Tensor<B, 1>; 3] {
    let (shape, dtype) = (param.shape(), param.dtype());
    let state = [&grad, &m, &v].map(|t| t.dtype() == DType::F32 && t.shape() == shape);
    if !float(dtype) || state != [true; 3] || !countable([shape]) {
        return plain::adamw(param, grad, m, v, h);
    }
    launch_update([held(param), held(grad), held(m), held(v)], h).map(tensor)
}
