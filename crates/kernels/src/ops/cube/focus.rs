//! Visual focus: one cube a token, which reads its state and the prototypes once.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;
use vgpo::{Prototype, RowPrototypes};

use super::launch::{Launch, countable, empty, float, grid, held, tensor, units};
use super::reduce::{LOWEST, sum};
use crate::params::zeros;

/// Equations 3 and 4 of the states `hidden [rows, d]`: `focus [rows]`, of the prototypes `means [images, d]`, or
/// `[rows, images, d]` where `each` row has its own.
#[cube(launch)]
fn focus<F: Float>(
    hidden: &Array<F>,
    means: &Array<f32>,
    focus: &mut Array<f32>,
    rows: usize,
    images: usize,
    d: usize,
    eps: f32,
    #[comptime] each: bool,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(units);
    let mut first = 0usize;
    if comptime!(each) {
        first = row * images * d;
    }
    let mut nearest = f32::new(LOWEST);
    for image in 0..images {
        let mean = first + image * d;
        let mut dot = 0.0f32;
        let mut of_state = 0.0f32;
        let mut of_mean = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < d {
            let h = f32::cast_from(hidden[row * d + i]);
            let m = means[mean + i];
            dot += h * m;
            of_state += h * h;
            of_mean += m * m;
            i += units;
        }
        let dot = sum(dot, &mut shared, units);
        let norms = sum(of_state, &mut shared, units).sqrt() * sum(of_mean, &mut shared, units).sqrt();
        let cosine = dot / (norms + eps); // (3)
        nearest = select(cosine > nearest, cosine, nearest);
    }
    if UNIT_POS == 0 {
        focus[row] = (nearest + 1.0f32) / 2.0f32; // (4)
    }
}

fn launch_focus<R: CubeRuntime>(hidden: CubeTensor<R>, means: CubeTensor<R>, eps: f32, each: bool) -> CubeTensor<R> {
    let (hidden, means) = (into_contiguous(hidden), into_contiguous(means));
    let (client, dtype) = (hidden.client.clone(), hidden.dtype);
    let (rows, d) = (hidden.meta.shape()[0], hidden.meta.shape()[1]);
    let images = means.meta.shape()[means.meta.num_dims() - 2];
    let out = empty(&hidden, Shape::new([rows]), DType::F32);
    let units = units(&client, d);
    focus::launch::<R>(
        &client,
        grid(&client, rows),
        CubeDim::new_1d(units as u32),
        hidden.into_array_arg(),
        means.into_array_arg(),
        out.clone().into_array_arg(),
        rows,
        images,
        d,
        eps,
        each,
        units,
        dtype.into(),
    );
    out
}

fn covered<B: Launch>(hidden: &Tensor<B, 2>, means: DType) -> bool {
    hidden.shape().num_elements() > 0 && float(hidden.dtype()) && means == DType::F32 && countable([hidden.shape()])
}

/// See [`Kernels::visual_focus`](crate::Kernels::visual_focus).
pub(super) fn visual_focus<B: Launch>(hidden: Tensor<B, 2>, prototype: &Prototype<B>, eps: f64) -> Tensor<B, 1> {
    if hidden.dims()[0] == 0 {
        return zeros([0], &hidden.device(), DType::F32); // Burn's operations panic on it
    }
    if !covered(&hidden, prototype.means.dtype()) {
        return vgpo::visual_focus(hidden, prototype, eps);
    }
    tensor(launch_focus(held(hidden), held(prototype.means.clone()), eps as f32, false))
}

/// See [`Kernels::visual_focus_of_rows`](crate::Kernels::visual_focus_of_rows).
pub(super) fn visual_focus_of_rows<B: Launch>(
    hidden: Tensor<B, 2>,
    prototypes: &RowPrototypes<B>,
    eps: f64,
) -> Tensor<B, 1> {
    let means = prototypes.means();
    if !covered(&hidden, means.dtype()) || !countable([means.shape()]) {
        return prototypes.visual_focus(hidden, eps);
    }
    assert_eq!(hidden.dims()[0], means.dims()[0], "prototypes of other rows");
    tensor(launch_focus(held(hidden), held(means.clone()), eps as f32, true))
}
