//! Element-wise operations: one unit an element, or a pair of elements that turn together.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::{Tensor as Strided, *};

use super::launch::{Launch, countable, empty, float, held, owned, tensor};
use crate::ops::{Kernels, plain};
use crate::rope::Rotary;

/// Without overflow: the exponential is taken of negative numbers only.
#[cube]
fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    select(x < 0.0f32, e, 1.0f32) / (1.0f32 + e)
}

/// `silu(gate)`, rounded to the type of the tensors, times `up`: `x [rows, (gate | up)]` to `y [rows, m]`, `len` in all.
#[cube(launch)]
fn swiglu_forward<F: Float>(x: &Array<F>, y: &mut Array<F>, len: usize, m: usize, #[define(F)] _dtype: StorageType) {
    let i = ABSOLUTE_POS;
    if i >= len {
        terminate!();
    }
    let from = i + i / m * m;
    let g = f32::cast_from(x[from]);
    y[i] = F::cast_from(g * sigmoid(g)) * x[from + m];
}

/// The same of `parts [splits, rows, (gate | up)]`, whose sums are rounded first.
#[cube(launch)]
fn swiglu_of_parts<F: Float>(
    parts: &Array<f32>,
    y: &mut Array<F>,
    len: usize,
    m: usize,
    splits: usize,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= len {
        terminate!();
    }
    let from = i + i / m * m;
    let mut gate = 0.0f32;
    let mut up = 0.0f32;
    for s in 0..splits {
        let part = s * len * 2 + from;
        gate += parts[part];
        up += parts[part + m];
    }
    let g = f32::cast_from(F::cast_from(gate));
    y[i] = F::cast_from(g * sigmoid(g)) * F::cast_from(up);
}

/// The gradient of `x [rows, (gate | up)]` in its place, for `dy [rows, m]`, `len` in all.
#[cube(launch)]
fn swiglu_gradient<F: Float>(dy: &Array<F>, x: &mut Array<F>, len: usize, m: usize, #[define(F)] _dtype: StorageType) {
    let i = ABSOLUTE_POS;
    if i >= len {
        terminate!();
    }
    let from = i + i / m * m;
    let (g, dy) = (f32::cast_from(x[from]), f32::cast_from(dy[i]));
    let s = sigmoid(g);
    let silu = g * s;
    // d silu / d gate = s (1 + g (1 - s)) = s + silu (1 - s)
    x[from] = F::cast_from(dy * f32::cast_from(x[from + m]) * (s + silu * (1.0f32 - s)));
    x[from + m] = F::cast_from(dy * silu);
}

/// Turns the pairs `(x[j], x[j + half])` of `x [n, h, 2 half]` by the angles of `cos, sin [n, 2 half]`, the sines times
/// `sign`.
#[cube(launch)]
fn turn<F: Float>(
    x: &Strided<F>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    y: &mut Array<F>,
    pairs: usize,
    h: usize,
    half: usize,
    sign: f32,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= pairs {
        terminate!();
    }
    let (j, vector) = (i % half, i / half);
    let (token, head) = (vector / h, vector % h);
    let from = token * x.stride(0) + head * x.stride(1) + j * x.stride(2);
    let (x1, x2) = (f32::cast_from(x[from]), f32::cast_from(x[from + half * x.stride(2)]));
    let angle = token * half * 2 + j;
    let to = vector * half * 2 + j;
    y[to] = F::cast_from(x1 * cos[angle] - x2 * (sin[angle] * sign));
    y[to + half] = F::cast_from(x2 * cos[angle + half] + x1 * (sin[angle + half] * sign));
}

fn launch_swiglu<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let x = into_contiguous(x);
    let (client, dtype) = (x.client.clone(), x.dtype);
    let (rows, m) = (x.meta.shape()[0], x.meta.shape()[1] / 2);
    let y = empty(&x, Shape::new([rows, m]), dtype);
    let len = rows * m;
    if len == 0 {
        return y;
    }
    let cube = CubeDim::new(&client, len);
    swiglu_forward::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, len, cube),
        cube,
        x.into_array_arg(),
        y.clone().into_array_arg(),
        len,
        m,
        dtype.into(),
    );
    y
}

fn launch_swiglu_of_parts<R: CubeRuntime>(parts: CubeTensor<R>, dtype: DType) -> CubeTensor<R> {
    let parts = into_contiguous(parts);
    let (splits, rows, m) = (parts.meta.shape()[0], parts.meta.shape()[1], parts.meta.shape()[2] / 2);
    let (client, len) = (parts.client.clone(), rows * m);
    let y = empty(&parts, Shape::new([rows, m]), dtype);
    if len == 0 {
        return y;
    }
    let cube = CubeDim::new(&client, len);
    swiglu_of_parts::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, len, cube),
        cube,
        parts.into_array_arg(),
        y.clone().into_array_arg(),
        len,
        m,
        splits,
        dtype.into(),
    );
    y
}

/// In place where nothing else holds `x`: it is the largest tensor of a layer, and there is no room for two of them.
fn launch_swiglu_gradient<R: CubeRuntime>(x: CubeTensor<R>, dy: CubeTensor<R>) -> CubeTensor<R> {
    let (client, dtype, len, m) = (x.client.clone(), x.dtype, dy.meta.num_elements(), dy.meta.shape()[1]);
    if len == 0 {
        return x;
    }
    let (x, dy) = (owned(x), into_contiguous(dy));
    let cube = CubeDim::new(&client, len);
    swiglu_gradient::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, len, cube),
        cube,
        dy.into_array_arg(),
        x.clone().into_array_arg(),
        len,
        m,
        dtype.into(),
    );
    x
}

fn launch_turn<R: CubeRuntime>([x, cos, sin]: [CubeTensor<R>; 3], sign: f32) -> CubeTensor<R> {
    let (cos, sin) = (into_contiguous(cos), into_contiguous(sin));
    let (client, dtype) = (x.client.clone(), x.dtype);
    let shape = x.meta.shape().clone();
    let (n, h, half) = (shape[0], shape[1], shape[2] / 2);
    let y = empty(&x, shape, dtype);
    let pairs = n * h * half;
    if pairs == 0 {
        return y;
    }
    let cube = CubeDim::new(&client, pairs);
    turn::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, pairs, cube),
        cube,
        x.into_tensor_arg(),
        cos.into_array_arg(),
        sin.into_array_arg(),
        y.clone().into_array_arg(),
        pairs,
        h,
        half,
        sign,
        dtype.into(),
    );
    y
}

/// See [`Kernels::swiglu`](crate::Kernels::swiglu). The default for other types than kernels take.
pub(super) fn swiglu<B: Launch>(gate_up: Tensor<B, 2>) -> Tensor<B, 2> {
    if !float(gate_up.dtype()) || !countable([gate_up.shape()]) {
        return plain::swiglu(gate_up);
    }
    tensor(launch_swiglu(held(gate_up)))
}

/// See [`Kernels::swiglu_parts`]. The default for other types than kernels take.
pub(super) fn swiglu_parts<B: Launch + Kernels>(parts: Tensor<B, 3>, dtype: DType) -> Tensor<B, 2> {
    if !float(dtype) || parts.dtype() != DType::F32 || !countable([parts.shape()]) {
        return B::swiglu(plain::whole(parts, dtype));
    }
    tensor(launch_swiglu_of_parts(held(parts), dtype))
}

/// See [`Kernels::swiglu_backward`](crate::Kernels::swiglu_backward). The default where types differ.
pub(super) fn swiglu_backward<B: Launch>(gate_up: Tensor<B, 2>, dy: Tensor<B, 2>) -> Tensor<B, 2> {
    let dtype = gate_up.dtype();
    if !float(dtype) || dy.dtype() != dtype || !countable([gate_up.shape()]) {
        return plain::swiglu_backward(gate_up, dy);
    }
    tensor(launch_swiglu_gradient(held(gate_up), held(dy)))
}

/// See [`Kernels::rotate`](crate::Kernels::rotate); with `sign` -1 the way back. The default where the angles are not
/// f32.
pub(super) fn rotate<B: Launch>(x: Tensor<B, 3>, rotary: &Rotary<B>, sign: f32) -> Tensor<B, 3> {
    let (shape, dtype): (Shape, _) = (x.shape(), x.dtype());
    let [n, _, hd] = x.dims();
    let tables = [&rotary.cos, &rotary.sin].map(|t| t.dims() == [n, 1, hd] && t.dtype() == DType::F32);
    if !float(dtype) || tables != [true, true] || hd % 2 != 0 || !countable([shape]) {
        return if sign < 0.0 { plain::rotate_backward(x, rotary) } else { plain::rotate(x, rotary) };
    }
    let inputs = [held(x), held(rotary.cos.clone()), held(rotary.sin.clone())];
    tensor(launch_turn(inputs, sign))
}
