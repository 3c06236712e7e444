//! What packed attention does between its matrix products: one cube a row of scores, which are read and written in
//! place. The products themselves stay with Burn's matmul, which knows the tensor cores.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{Tensor as Strided, *};

use super::launch::{Launch, countable, empty, float, grid, held, owned_rows, tensor, units};
use super::reduce::{LOWEST, max, sum};
use crate::attention::scores::{Between, Causal, Mask, Plain, Products, Weights};

/// The softmax and its gradient as kernels, the default where they do not reach.
pub(super) struct Kernel;

/// How many keys row `row` of `rows_each` a matrix sees: all, or those up to its position.
#[cube]
fn seen(row: usize, keys: usize, first: usize, g: usize, rows_each: usize, #[comptime] causal: bool) -> usize {
    let mut seen = keys;
    if comptime!(causal) {
        seen = first + row % rows_each / g + 1;
    }
    seen
}

/// Where row `row` begins in `z [a, rows_each, keys]`.
#[cube]
fn begin<F: Float>(z: &Strided<F>, row: usize, rows_each: usize) -> usize {
    row / rows_each * z.stride(0) + row % rows_each * z.stride(1)
}

/// One score in f32.
#[cube]
fn score<F: Float>(
    z: &Strided<F>,
    first: usize,
    mask: &Array<f32>,
    masks: usize,
    i: usize,
    scale: f32,
    #[comptime] masked: bool,
) -> f32 {
    let mut s = f32::cast_from(z[first + i]) * scale;
    if comptime!(masked) {
        s += mask[masks + i];
    }
    s
}

/// The largest score and the sum of `exp(score - largest)`, of those before and of this unit's share of `columns` more.
#[cube]
fn join<F: Float>(
    z: &Strided<F>,
    first: usize,
    mask: &Array<f32>,
    masks: usize,
    columns: usize,
    scale: f32,
    before: (f32, f32),
    #[comptime] masked: bool,
    #[comptime] units: usize,
) -> (f32, f32) {
    let mut top = before.0;
    let mut exps = before.1;
    let mut i = UNIT_POS as usize;
    while i < columns {
        let s = score::<F>(z, first, mask, masks, i, scale, masked);
        if s > top {
            exps = exps * (top - s).exp() + 1.0f32;
            top = s;
        } else {
            exps += (s - top).exp();
        }
        i += units;
    }
    (top, exps)
}

/// Writes `exp(score - lse)` over the scores of a row, 0 over those of keys that are not seen.
#[cube]
fn weigh<F: Float>(
    z: &mut Strided<F>,
    first: usize,
    mask: &Array<f32>,
    masks: usize,
    seen: usize,
    keys: usize,
    scale: f32,
    lse: f32,
    #[comptime] masked: bool,
    #[comptime] units: usize,
) {
    let mut i = UNIT_POS as usize;
    while i < keys {
        let mut p = 0.0f32;
        if i < seen {
            p = (score::<F>(z, first, mask, masks, i, scale, masked) - lse).exp();
        }
        z[first + i] = F::cast_from(p);
        i += units;
    }
}

/// Products `own [a, rows_each, keys]` and `prefix [a / n, n rows_each, prefix_keys]` to the weights of one softmax
/// over both, in place; masks `[a, keys]`, `[a / n, prefix_keys]`; `lse [a rows_each]`.
#[cube(launch)]
fn softmax<F: Float>(
    own_mask: &Array<f32>,
    prefix_mask: &Array<f32>,
    own: &mut Strided<F>,
    prefix: &mut Strided<F>,
    lse: &mut Array<f32>,
    rows: usize,
    rows_each: usize,
    keys: usize,
    prefix_rows_each: usize,
    prefix_keys: usize,
    first: usize,
    g: usize,
    scale: f32,
    #[comptime] causal: bool,
    #[comptime] own_masked: bool,
    #[comptime] with_prefix: bool,
    #[comptime] prefix_masked: bool,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(units);
    let own_first = begin::<F>(own, row, rows_each);
    let own_masks = row / rows_each * keys;
    let prefix_first = begin::<F>(prefix, row, prefix_rows_each);
    let prefix_masks = row / prefix_rows_each * prefix_keys;
    let seen = seen(row, keys, first, g, rows_each, causal);
    let none = (f32::new(LOWEST), 0.0f32);
    let mut part = join::<F>(own, own_first, own_mask, own_masks, seen, scale, none, own_masked, units);
    if comptime!(with_prefix) {
        part =
            join::<F>(prefix, prefix_first, prefix_mask, prefix_masks, prefix_keys, scale, part, prefix_masked, units);
    }
    let highest = max(part.0, &mut shared, units);
    let all = highest + sum(part.1 * (part.0 - highest).exp(), &mut shared, units).ln();
    if UNIT_POS == 0 {
        lse[row] = all;
    }
    weigh::<F>(own, own_first, own_mask, own_masks, seen, keys, scale, all, own_masked, units);
    if comptime!(with_prefix) {
        weigh::<F>(
            prefix,
            prefix_first,
            prefix_mask,
            prefix_masks,
            prefix_keys,
            prefix_keys,
            scale,
            all,
            prefix_masked,
            units,
        );
    }
}

/// Products `s [a, rows_each, keys]` to the weights `p = exp(score - lse)`, and the weights' gradients `dp` to those of
/// the products `p (dp - dot) scale`, both in place; `lse, dot [a rows_each]`, mask `[a, keys]`.
#[cube(launch)]
fn slopes<F: Float>(
    lse: &Array<f32>,
    dot: &Array<f32>,
    mask: &Array<f32>,
    s: &mut Strided<F>,
    dp: &mut Strided<F>,
    rows: usize,
    rows_each: usize,
    keys: usize,
    first: usize,
    g: usize,
    scale: f32,
    #[comptime] causal: bool,
    #[comptime] masked: bool,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let s_first = begin::<F>(s, row, rows_each);
    let dp_first = begin::<F>(dp, row, rows_each);
    let masks = row / rows_each * keys;
    let seen = seen(row, keys, first, g, rows_each, causal);
    let mut i = UNIT_POS as usize;
    while i < keys {
        let mut p = 0.0f32;
        if i < seen {
            p = (score::<F>(s, s_first, mask, masks, i, scale, masked) - lse[row]).exp();
        }
        let ds = p * (f32::cast_from(dp[dp_first + i]) - dot[row]) * scale;
        s[s_first + i] = F::cast_from(p);
        dp[dp_first + i] = F::cast_from(ds);
        i += units;
    }
}

/// What a launch has to know besides its tensors.
#[derive(Clone, Copy)]
struct ScoreSettings {
    causal: Option<Causal>,
    masked: bool,
    prefix: bool,
    prefix_masked: bool,
    scale: f32,
}

fn launch_softmax<R: CubeRuntime>(
    [own, prefix, own_mask, prefix_mask]: [CubeTensor<R>; 4],
    settings: ScoreSettings,
) -> [CubeTensor<R>; 3] {
    let [own, prefix] = [own, prefix].map(owned_rows);
    let [own_mask, prefix_mask] = [own_mask, prefix_mask].map(into_contiguous);
    let (client, dtype) = (own.client.clone(), own.dtype);
    let (a, rows_each, keys) = dims(&own);
    let (_, prefix_rows_each, prefix_keys) = dims(&prefix);
    let lse = empty(&own, Shape::new([a, rows_each, 1]), DType::F32);
    let Causal { first, g } = settings.causal.unwrap_or(Causal { first: 0, g: 1 });
    let units = units(&client, keys.max(prefix_keys));
    softmax::launch::<R>(
        &client,
        grid(&client, a * rows_each),
        CubeDim::new_1d(units as u32),
        own_mask.into_array_arg(),
        prefix_mask.into_array_arg(),
        own.clone().into_tensor_arg(),
        prefix.clone().into_tensor_arg(),
        lse.clone().into_array_arg(),
        a * rows_each,
        rows_each,
        keys,
        prefix_rows_each,
        prefix_keys,
        first,
        g,
        settings.scale,
        settings.causal.is_some(),
        settings.masked,
        settings.prefix,
        settings.prefix_masked,
        units,
        dtype.into(),
    );
    [own, prefix, lse]
}

fn launch_slopes<R: CubeRuntime>(
    [s, dp, lse, dot, mask]: [CubeTensor<R>; 5],
    settings: ScoreSettings,
) -> [CubeTensor<R>; 2] {
    let [s, dp] = [s, dp].map(owned_rows);
    let [lse, dot, mask] = [lse, dot, mask].map(into_contiguous);
    let (client, dtype) = (s.client.clone(), s.dtype);
    let (a, rows_each, keys) = dims(&s);
    let Causal { first, g } = settings.causal.unwrap_or(Causal { first: 0, g: 1 });
    let units = units(&client, keys);
    slopes::launch::<R>(
        &client,
        grid(&client, a * rows_each),
        CubeDim::new_1d(units as u32),
        lse.into_array_arg(),
        dot.into_array_arg(),
        mask.into_array_arg(),
        s.clone().into_tensor_arg(),
        dp.clone().into_tensor_arg(),
        a * rows_each,
        rows_each,
        keys,
        first,
        g,
        settings.scale,
        settings.causal.is_some(),
        settings.masked,
        units,
        dtype.into(),
    );
    [s, dp]
}

fn dims<R: CubeRuntime>(z: &CubeTensor<R>) -> (usize, usize, usize) {
    let shape = z.meta.shape();
    (shape[0], shape[1], shape[2])
}

/// Whether the kernels take these products: types that they know, an f32 mask, and something to do.
fn covered<B: Launch>(products: &Products<B>) -> bool {
    let (scores, shape) = (&products.scores, products.scores.shape());
    let typed = float(scores.dtype()) && products.mask.added.as_ref().is_none_or(|m| m.dtype() == DType::F32);
    typed && shape.num_elements() > 0 && countable([shape])
}

/// A kernel has a fixed number of operands: this stands in, unread, for one that there is not.
fn nothing<B: Launch>(like: &Tensor<B, 3>, dtype: DType) -> Tensor<B, 3> {
    Tensor::zeros([1, 1, 1], (&like.device(), dtype))
}

fn added<B: Launch>(mask: &Mask<B>, like: &Tensor<B, 3>) -> Tensor<B, 3> {
    mask.added.clone().unwrap_or_else(|| nothing(like, DType::F32))
}

impl<B: Launch> Between<B> for Kernel {
    // Products of this size keep a large GPU busy for longer than their launches take.
    const SCORES: usize = 1 << 24;

    fn softmax(own: Products<B>, prefix: Option<Products<B>>, scale: f64) -> Weights<B> {
        let alike = prefix.as_ref().is_none_or(|p| p.scores.dtype() == own.scores.dtype() && covered(p));
        if !covered(&own) || !alike {
            return Plain::softmax(own, prefix, scale);
        }
        let settings = ScoreSettings {
            causal: own.mask.causal,
            masked: own.mask.added.is_some(),
            prefix: prefix.is_some(),
            prefix_masked: prefix.as_ref().is_some_and(|p| p.mask.added.is_some()),
            scale: scale as f32,
        };
        let dtype = own.scores.dtype();
        let own_mask = added(own.mask, &own.scores);
        let (prefix, prefix_mask) = match prefix {
            Some(Products { scores, mask }) => {
                let mask = added(mask, &scores);
                (scores, mask)
            }
            None => (nothing(&own.scores, dtype), own_mask.clone()),
        };
        let inputs = [held(own.scores), held(prefix), held(own_mask), held(prefix_mask)];
        let [own, prefix, lse] = launch_softmax(inputs, settings);
        Weights { own: tensor(own), prefix: settings.prefix.then(|| tensor(prefix)), sums: None, lse: tensor(lse) }
    }

    fn gradient(
        products: Products<B>,
        dp: Tensor<B, 3>,
        lse: Tensor<B, 3>,
        dot: Tensor<B, 3>,
        scale: f64,
    ) -> [Tensor<B, 3>; 2] {
        let f32s = [&lse, &dot].iter().all(|t| t.dtype() == DType::F32);
        let dtype = products.scores.dtype();
        if !covered(&products) || !f32s || dp.dtype() != dtype {
            return Plain::gradient(products, dp, lse, dot, scale);
        }
        let settings = ScoreSettings {
            causal: products.mask.causal,
            masked: products.mask.added.is_some(),
            prefix: false,
            prefix_masked: false,
            scale: scale as f32,
        };
        let mask = added(products.mask, &dp);
        let inputs = [held(products.scores), held(dp), held(lse), held(dot), held(mask)];
        launch_slopes(inputs, settings).map(tensor)
    }
}
