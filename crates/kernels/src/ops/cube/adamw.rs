//! AdamW: everything of a parameter read once and written where it is, whatever the types, with rounding by chance on
//! the way. One launch a tensor.

use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;

use super::launch::{Launch, array_part, float, held, owned, tensor, vector};
use crate::ops::adamw::{APART, MIX1, MIX2, PART, low_of, plain_adamw};
use crate::ops::{AdamWParameter, AdamWStep};

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
    /// Low half of the seed of what is rounded by chance.
    seed_low: u32,
    /// High half.
    seed_high: u32,
    /// Place of the first element among those of this seed.
    first: u32,
}

impl StepFactors {
    /// `part` and `first`: which seed after the step's own, and where its elements begin here.
    fn arguments<R: CubeRuntime>(h: &AdamWStep, part: usize, first: usize) -> StepFactorsLaunch<R> {
        let (correction1, correction2) = (1.0 - h.beta1.powf(h.step as f64), 1.0 - h.beta2.powf(h.step as f64));
        let seed = h.rounding.seed.wrapping_add(part as u64);
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
            low_of(seed),
            (seed >> 32) as u32,
            first as u32,
        )
    }
}

/// As the function of this name in `ops/adamw.rs`.
#[cube]
fn mixed(x: u32) -> u32 {
    let a = (x ^ (x >> 16u32)) * u32::new(comptime!(MIX1 as i64));
    let b = (a ^ (a >> 15u32)) * u32::new(comptime!(MIX2 as i64));
    b ^ (b >> 16u32)
}

/// `x`, or if `by_chance` the number of bf16 below or above it: `noise` is added to the bits that bf16 has not, which
/// are then cut off. Infinity and NaN stay.
#[cube]
fn kept<F: Float>(x: f32, noise: u32, #[comptime] by_chance: bool) -> F {
    let mut y = x;
    if comptime!(by_chance) {
        let bits = u32::reinterpret(x);
        let finite = (bits & 0x7F80_0000u32) != 0x7F80_0000u32;
        y = f32::reinterpret(select(finite, (bits + noise) & 0xFFFF_0000u32, bits));
    }
    F::cast_from(y)
}

/// One step for `grad, param, m, v [len]`, in vectors of `N`; taken on `master` where there is one.
#[cube(launch_unchecked)]
fn update<P: Float, S: Float, G: Float, N: Size>(
    grad: &Array<Vector<G, N>>,
    param: &mut Array<Vector<P, N>>,
    m: &mut Array<Vector<S, N>>,
    v: &mut Array<Vector<S, N>>,
    master: &mut ComptimeOption<Array<Vector<f32, N>>>,
    len: usize,
    f: &StepFactors,
    #[comptime] param_by_chance: bool,
    #[comptime] moments_by_chance: bool,
    #[define(P, S, G)] _types: [StorageType; 3],
) {
    let at = ABSOLUTE_POS;
    if at >= len {
        terminate!();
    }
    let grads = grad[at];
    let mut params = param[at];
    let mut firsts = m[at];
    let mut seconds = v[at];
    let mut weights = Vector::<f32, N>::cast_from(params);
    #[comptime]
    match master {
        ComptimeOption::Some(master) => {
            weights = master[at];
        }
        ComptimeOption::None => {}
    }
    let size = N::value();
    #[unroll]
    for k in 0..size {
        let g = f32::cast_from(grads[k]) * f.scale;
        let m1 = f32::cast_from(firsts[k]) * f.beta1 + g * f.rest1;
        let v1 = f32::cast_from(seconds[k]) * f.beta2 + g * g * f.rest2;
        let step = m1 / (v1.sqrt() / f.root + f.eps) * f.rate;
        let weight = weights[k] * f.keep - step;
        let mut both = 0u32;
        if comptime!(param_by_chance || moments_by_chance) {
            let i = (at * size + k) as u32 + f.first;
            both = mixed(mixed(i ^ f.seed_low) ^ f.seed_high);
        }
        let mut other = 0u32;
        if comptime!(param_by_chance) {
            other = mixed(both ^ u32::new(comptime!(APART as i64))) >> 16u32;
        }
        weights[k] = weight;
        params[k] = kept::<P>(weight, other, param_by_chance);
        firsts[k] = kept::<S>(m1, both >> 16u32, moments_by_chance);
        seconds[k] = kept::<S>(v1, both & 0xFFFFu32, moments_by_chance);
    }
    param[at] = params;
    m[at] = firsts;
    v[at] = seconds;
    #[comptime]
    match master {
        ComptimeOption::Some(master) => {
            master[at] = weights;
        }
        ComptimeOption::None => {}
    }
}

fn launch_update<R: CubeRuntime>(
    [grad, param, m, v]: [CubeTensor<R>; 4],
    master: Option<CubeTensor<R>>,
    h: &AdamWStep,
    longest: usize,
) -> ([CubeTensor<R>; 3], Option<CubeTensor<R>>) {
    let grad = into_contiguous(grad);
    let (param, m, v, master) = (owned(param), owned(m), owned(v), master.map(owned));
    let (client, len) = (param.client.clone(), param.meta.num_elements());
    let types = [param.dtype.into(), m.dtype.into(), grad.dtype.into()];
    let all = [&grad, &param, &m, &v].into_iter().chain(&master);
    let width = all.map(|t| vector(t)).min().unwrap_or(1);
    // Where the elements of one seed end within a vector there are none.
    let ends_within = h.rounding.first % longest + len > longest && !h.rounding.first.is_multiple_of(width);
    let width = if ends_within { 1 } else { width };
    let mut start = 0;
    while start < len {
        let place = h.rounding.first + start;
        let (part, first) = (place / longest, place % longest);
        let count = (longest - first).min(len - start);
        let of = |t: &CubeTensor<R>| array_part(t, start, count);
        let vectors = count / width;
        let cube = CubeDim::new(&client, vectors);
        // SAFETY: all operands have `len` elements, and the kernel reads and writes none from `vectors` on.
        unsafe {
            update::launch_unchecked::<R>(
                &client,
                calculate_cube_count_elemwise(&client, vectors, cube),
                cube,
                width,
                of(&grad),
                of(&param),
                of(&m),
                of(&v),
                master.as_ref().map(of).into(),
                vectors,
                StepFactors::arguments(h, part, first),
                h.rounding.param && master.is_none(),
                h.rounding.moments,
                types,
            );
        }
        start += count;
    }
    ([param, m, v], master)
}

/// See [`Kernels::adamw`](crate::Kernels::adamw). The default where a type is not for kernels.
pub(super) fn adamw<B: Launch>(p: AdamWParameter<B>, grad: Tensor<B, 1>, h: &AdamWStep) -> AdamWParameter<B> {
    let moments = float(p.m.dtype()) && p.m.dtype() == p.v.dtype();
    let master = p.master.as_ref().is_none_or(|t| t.dtype() == DType::F32);
    if !moments || !master || !float(p.param.dtype()) || !float(grad.dtype()) {
        return plain_adamw(p, grad, h);
    }
    let len = grad.dims();
    let lengths = [&p.param, &p.m, &p.v].into_iter().chain(&p.master).map(|t| t.dims());
    assert!(lengths.into_iter().all(|dims| dims == len), "a parameter, its gradient and its state have one length");
    let operands = [held(grad), held(p.param), held(p.m), held(p.v)];
    let ([param, m, v], master) = launch_update(operands, p.master.map(held), h, PART);
    AdamWParameter { param: tensor(param), m: tensor(m), v: tensor(v), master: master.map(tensor) }
}
