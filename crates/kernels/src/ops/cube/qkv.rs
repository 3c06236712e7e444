//! What the projections of a layer made, `[N, (q | k | v)]`, as queries, keys and values in order, queries and keys
//! turned; and its gradient the other way. One unit a pair of elements that turn together.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::launch::{Launch, countable, empty, float, held, tensor};
use crate::layers::BlockShape;
use crate::ops::{Kernels, plain};
use crate::params::zeros;
use crate::rope::Rotary;

/// `x [n, h + 2 hkv, 2 half]` to `q [n, h, 2 half]` and `k [n, hkv, 2 half]`, turned by the angles of `cos, sin [n, 2
/// half]`, and `v [n, hkv, 2 half]`; `pairs` in all.
#[cube(launch)]
fn split<F: Float>(
    x: &Array<F>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    q: &mut Array<F>,
    k: &mut Array<F>,
    v: &mut Array<F>,
    pairs: usize,
    h: usize,
    hkv: usize,
    half: usize,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= pairs {
        terminate!();
    }
    let (j, vector, heads) = (i % half, i / half, h + 2 * hkv);
    let (token, head) = (vector / heads, vector % heads);
    let from = vector * half * 2 + j;
    if head >= h + hkv {
        let to = (token * hkv + head - h - hkv) * half * 2 + j;
        v[to] = x[from];
        v[to + half] = x[from + half];
    } else {
        let (x1, x2) = (f32::cast_from(x[from]), f32::cast_from(x[from + half]));
        let angle = token * half * 2 + j;
        let y1 = F::cast_from(x1 * cos[angle] - x2 * sin[angle]);
        let y2 = F::cast_from(x2 * cos[angle + half] + x1 * sin[angle + half]);
        if head < h {
            let to = (token * h + head) * half * 2 + j;
            q[to] = y1;
            q[to + half] = y2;
        } else {
            let to = (token * hkv + head - h) * half * 2 + j;
            k[to] = y1;
            k[to + half] = y2;
        }
    }
}

/// The gradient of [`split`]: `dq, dk, dv` to `dx`, turned back.
#[cube(launch)]
fn join<F: Float>(
    dq: &Array<F>,
    dk: &Array<F>,
    dv: &Array<F>,
    cos: &Array<f32>,
    sin: &Array<f32>,
    dx: &mut Array<F>,
    pairs: usize,
    h: usize,
    hkv: usize,
    half: usize,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= pairs {
        terminate!();
    }
    let (j, vector, heads) = (i % half, i / half, h + 2 * hkv);
    let (token, head) = (vector / heads, vector % heads);
    let to = vector * half * 2 + j;
    if head >= h + hkv {
        let from = (token * hkv + head - h - hkv) * half * 2 + j;
        dx[to] = dv[from];
        dx[to + half] = dv[from + half];
    } else {
        let angle = token * half * 2 + j;
        if head < h {
            turn_back::<F>(dq, (token * h + head) * half * 2 + j, cos, sin, angle, dx, to, half);
        } else {
            turn_back::<F>(dk, (token * hkv + head - h) * half * 2 + j, cos, sin, angle, dx, to, half);
        }
    }
}

/// The pair of `dy` at `from`, turned back by the angle of the table at `angle`, to `dx` at `to`.
#[cube]
fn turn_back<F: Float>(
    dy: &Array<F>,
    from: usize,
    cos: &Array<f32>,
    sin: &Array<f32>,
    angle: usize,
    dx: &mut Array<F>,
    to: usize,
    half: usize,
) {
    let (y1, y2) = (f32::cast_from(dy[from]), f32::cast_from(dy[from + half]));
    dx[to] = F::cast_from(y1 * cos[angle] + y2 * sin[angle]);
    dx[to + half] = F::cast_from(y2 * cos[angle + half] - y1 * sin[angle + half]);
}

fn launch_split<R: CubeRuntime>([x, cos, sin]: [CubeTensor<R>; 3], shape: BlockShape) -> [CubeTensor<R>; 3] {
    let (x, cos, sin) = (into_contiguous(x), into_contiguous(cos), into_contiguous(sin));
    let (client, dtype, n) = (x.client.clone(), x.dtype, x.meta.shape()[0]);
    let BlockShape { heads, kv_heads, head_dim: hd } = shape;
    let [q, k, v] = [heads, kv_heads, kv_heads].map(|heads| empty(&x, Shape::new([n, heads, hd]), dtype));
    let pairs = n * (heads + 2 * kv_heads) * hd / 2;
    let cube = CubeDim::new(&client, pairs);
    split::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, pairs, cube),
        cube,
        x.into_array_arg(),
        cos.into_array_arg(),
        sin.into_array_arg(),
        q.clone().into_array_arg(),
        k.clone().into_array_arg(),
        v.clone().into_array_arg(),
        pairs,
        heads,
        kv_heads,
        hd / 2,
        dtype.into(),
    );
    [q, k, v]
}

fn launch_join<R: CubeRuntime>(d_qkv: [CubeTensor<R>; 3], table: [CubeTensor<R>; 2]) -> CubeTensor<R> {
    let ([dq, dk, dv], [cos, sin]) = (d_qkv.map(into_contiguous), table.map(into_contiguous));
    let (client, dtype) = (dq.client.clone(), dq.dtype);
    let (n, heads, hd, kv_heads) = (dq.meta.shape()[0], dq.meta.shape()[1], dq.meta.shape()[2], dk.meta.shape()[1]);
    let dx = empty(&dq, Shape::new([n, (heads + 2 * kv_heads) * hd]), dtype);
    let pairs = n * (heads + 2 * kv_heads) * hd / 2;
    let cube = CubeDim::new(&client, pairs);
    join::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, pairs, cube),
        cube,
        dq.into_array_arg(),
        dk.into_array_arg(),
        dv.into_array_arg(),
        cos.into_array_arg(),
        sin.into_array_arg(),
        dx.clone().into_array_arg(),
        pairs,
        heads,
        kv_heads,
        hd / 2,
        dtype.into(),
    );
    dx
}

/// Whether the table is what kernels read for `n` tokens.
fn table<B: Launch>(rotary: &Rotary<B>, n: usize, hd: usize) -> bool {
    let fits = |t: &Tensor<B, 3>| t.dims() == [n, 1, hd] && t.dtype() == DType::F32;
    hd % 2 == 0 && fits(&rotary.cos) && fits(&rotary.sin)
}

/// See [`Kernels::rotate_qkv`]. The default where the angles are not f32, or there is nothing.
pub(super) fn rotate_qkv<B: Launch + Kernels>(
    qkv: Tensor<B, 2>,
    shape: BlockShape,
    rotary: &Rotary<B>,
) -> [Tensor<B, 3>; 3] {
    let [n, width] = qkv.dims();
    let fits = table(rotary, n, shape.head_dim) && n * width > 0 && countable([qkv.shape()]);
    if !float(qkv.dtype()) || !fits {
        return plain::rotate_qkv(qkv, shape, rotary);
    }
    launch_split([held(qkv), held(rotary.cos.clone()), held(rotary.sin.clone())], shape).map(tensor)
}

/// See [`Kernels::rotate_qkv_backward`]. The default where types differ, or there is nothing.
pub(super) fn rotate_qkv_backward<B: Launch + Kernels>(d_qkv: [Tensor<B, 3>; 3], rotary: &Rotary<B>) -> Tensor<B, 2> {
    let ([n, heads, hd], dtype) = (d_qkv[0].dims(), d_qkv[0].dtype());
    let typed = float(dtype) && d_qkv.iter().all(|t| t.dtype() == dtype);
    let fits = table(rotary, n, hd) && n * heads * hd > 0 && countable([d_qkv[0].shape(), d_qkv[1].shape()]);
    if n == 0 {
        let width = d_qkv.iter().map(|t| t.dims()[1] * hd).sum();
        return zeros([0, width], &d_qkv[0].device(), dtype);
    }
    if !typed || !fits {
        return plain::rotate_qkv_backward(d_qkv, rotary);
    }
    let cubes = [held(rotary.cos.clone()), held(rotary.sin.clone())];
    tensor(launch_join(d_qkv.map(held), cubes))
}
