//! What packed attention does with scores between its matrix products: kernels over their rows, which are read and
//! written in place.
//!
//! A piece of a block is `b` units of `n` segments of `t` tokens. Its scores are `own [b, H, n, t, width]` and `prefix
//! [b, H, n, t, prefix_width]`: rows of `t` and `p` keys, wider by some zeros so that they begin where wide loads may.

use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{empty, grid, units};
use super::reduce::{LOWEST, max, sum};

/// Rows of scores are as wide as a multiple of this: loads of 16 bytes fit every row, and buffers are of few sizes.
const KEYS: usize = 64;

/// Sizes of a piece of a block.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    /// Units.
    pub b: usize,
    /// Segments of a unit.
    pub n: usize,
    /// Tokens of a segment, which are its keys too.
    pub t: usize,
    /// Keys of the prefix; 0 without one.
    pub p: usize,
    /// Query heads.
    pub heads: usize,
    /// The first unit, among those of the block.
    pub unit: usize,
    /// The first segment, among those of the block.
    pub segment: usize,
}

impl Piece {
    /// Rows of scores.
    pub fn rows(&self) -> usize {
        self.b * self.heads * self.n * self.t
    }

    /// Elements of a row of scores against `keys`.
    pub fn width(keys: usize) -> usize {
        keys.next_multiple_of(KEYS)
    }
}

/// Sizes as a kernel takes them, and what scores are multiplied by.
#[derive(CubeType, CubeLaunch)]
struct ScoreSizes {
    rows: usize,
    heads: usize,
    n: usize,
    t: usize,
    width: usize,
    p: usize,
    prefix_width: usize,
    unit: usize,
    segment: usize,
    scale: f32,
}

fn sizes<R: CubeRuntime>(piece: &Piece, scale: f32) -> ScoreSizesLaunch<R> {
    ScoreSizesLaunch::new(
        piece.rows(),
        piece.heads,
        piece.n,
        piece.t,
        Piece::width(piece.t),
        piece.p,
        Piece::width(piece.p),
        piece.unit,
        piece.segment,
        scale,
    )
}

/// Which keys a row sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// Own keys up to the row's own only.
    pub causal: bool,
    /// There is a mask `[b n, t]` of own keys.
    pub own_masked: bool,
    /// There is a prefix.
    pub prefix: bool,
    /// There is a mask `[b, p]` of its keys.
    pub prefix_masked: bool,
    /// Only some tokens are real: `valid [b n t]`.
    pub padded: bool,
}

/// One score in f32.
#[cube]
fn score<F: Float>(
    z: &Array<F>,
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
    z: &Array<F>,
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
    z: &mut Array<F>,
    first: usize,
    mask: &Array<f32>,
    masks: usize,
    seen: usize,
    width: usize,
    scale: f32,
    lse: f32,
    #[comptime] masked: bool,
    #[comptime] units: usize,
) {
    let mut i = UNIT_POS as usize;
    while i < width {
        let mut p = 0.0f32;
        if i < seen {
            p = (score::<F>(z, first, mask, masks, i, scale, masked) - lse).exp();
        }
        z[first + i] = F::cast_from(p);
        i += units;
    }
}

/// Where the masks of a row begin, own and prefix, and how many own keys it sees.
#[cube]
fn place(s: &ScoreSizes, row: usize, #[comptime] causal: bool) -> (usize, usize, usize) {
    let segment = row / s.t % s.n;
    let unit = row / (s.t * s.n * s.heads);
    let mut seen = s.t;
    if comptime!(causal) {
        seen = row % s.t + 1;
    }
    ((s.segment + unit * s.n + segment) * s.t, (s.unit + unit) * s.p, seen)
}

/// Products of queries and keys to the weights of one softmax over own keys and prefix, in place; `lse [rows]`.
#[cube(launch)]
fn softmax<F: Float>(
    own_mask: &Array<f32>,
    prefix_mask: &Array<f32>,
    own: &mut Array<F>,
    prefix: &mut Array<F>,
    lse: &mut Array<f32>,
    s: &ScoreSizes,
    #[comptime] which: Seen,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= s.rows {
        terminate!();
    }
    let mut shared = SharedMemory::<f32>::new(units);
    let (masks, prefix_masks, seen) = place(s, row, which.causal);
    let first = row * s.width;
    let prefix_first = row * s.prefix_width;
    let none = (f32::new(LOWEST), 0.0f32);
    let mut part = join::<F>(own, first, own_mask, masks, seen, s.scale, none, which.own_masked, units);
    if comptime!(which.prefix) {
        part =
            join::<F>(prefix, prefix_first, prefix_mask, prefix_masks, s.p, s.scale, part, which.prefix_masked, units);
    }
    let highest = max(part.0, &mut shared, units);
    let all = highest + sum(part.1 * (part.0 - highest).exp(), &mut shared, units).ln();
    if UNIT_POS == 0 {
        lse[row] = all;
    }
    weigh::<F>(own, first, own_mask, masks, seen, s.width, s.scale, all, which.own_masked, units);
    if comptime!(which.prefix) {
        weigh::<F>(
            prefix,
            prefix_first,
            prefix_mask,
            prefix_masks,
            s.p,
            s.prefix_width,
            s.scale,
            all,
            which.prefix_masked,
            units,
        );
    }
}

/// Writes `p = exp(score - lse)` over the scores of a row and `p (dp - dot) scale` over the gradients of its weights.
#[cube]
fn slope<F: Float>(
    z: &mut Array<F>,
    dp: &mut Array<F>,
    first: usize,
    mask: &Array<f32>,
    masks: usize,
    seen: usize,
    width: usize,
    scale: f32,
    lse: f32,
    dot: f32,
    #[comptime] masked: bool,
    #[comptime] units: usize,
) {
    let mut i = UNIT_POS as usize;
    while i < width {
        let mut p = 0.0f32;
        let mut ds = 0.0f32;
        if i < seen {
            p = (score::<F>(z, first, mask, masks, i, scale, masked) - lse).exp();
            ds = p * (f32::cast_from(dp[first + i]) - dot) * scale;
        }
        z[first + i] = F::cast_from(p);
        dp[first + i] = F::cast_from(ds);
        i += units;
    }
}

/// Products to the weights, and the weights' gradients to those of the products, all in place; `lse [rows]`, `dot [b n
/// t, H]`. Tokens that are only padding get neither.
#[cube(launch)]
fn slopes<F: Float>(
    lse: &Array<f32>,
    dot: &Array<f32>,
    own_mask: &Array<f32>,
    prefix_mask: &Array<f32>,
    valid: &Array<f32>,
    own: &mut Array<F>,
    d_own: &mut Array<F>,
    prefix: &mut Array<F>,
    d_prefix: &mut Array<F>,
    s: &ScoreSizes,
    #[comptime] which: Seen,
    #[comptime] units: usize,
    #[define(F)] _dtype: StorageType,
) {
    let row = CUBE_POS;
    if row >= s.rows {
        terminate!();
    }
    let (masks, prefix_masks, seen) = place(s, row, which.causal);
    let (token, head) = (row % s.t, row / (s.t * s.n) % s.heads);
    let of_piece = (row / (s.t * s.n * s.heads) * s.n + row / s.t % s.n) * s.t + token;
    let mut seen = seen;
    let mut prefix_seen = s.p;
    if comptime!(which.padded) {
        let real = valid[masks + token] > 0.5f32;
        seen = select(real, seen, 0usize);
        prefix_seen = select(real, prefix_seen, 0usize);
    }
    let lse = lse[row];
    let dot = dot[of_piece * s.heads + head];
    slope::<F>(own, d_own, row * s.width, own_mask, masks, seen, s.width, s.scale, lse, dot, which.own_masked, units);
    if comptime!(which.prefix) {
        slope::<F>(
            prefix,
            d_prefix,
            row * s.prefix_width,
            prefix_mask,
            prefix_masks,
            prefix_seen,
            s.prefix_width,
            s.scale,
            lse,
            dot,
            which.prefix_masked,
            units,
        );
    }
}

/// Masks of a piece's block, [`nothing`] where there is none.
pub(super) struct Masks<R: CubeRuntime> {
    /// Added to scores against own keys, `[b n, t]`.
    pub own: CubeTensor<R>,
    /// Added to scores against the prefix, `[b, p]`.
    pub prefix: CubeTensor<R>,
    /// 1 where a token is real, `[b n t]`.
    pub valid: CubeTensor<R>,
}

/// Scores to weights in place; the log-sum-exp of each row.
pub(super) fn launch_softmax<R: CubeRuntime>(
    [own, prefix]: [&CubeTensor<R>; 2],
    masks: &Masks<R>,
    piece: &Piece,
    scale: f32,
    which: Seen,
) -> CubeTensor<R> {
    let (client, dtype) = (own.client.clone(), own.dtype);
    let lse = empty(own, Shape::new([piece.rows()]), DType::F32);
    let units = units(&client, piece.t.max(piece.p));
    softmax::launch::<R>(
        &client,
        grid(&client, piece.rows()),
        CubeDim::new_1d(units as u32),
        masks.own.clone().into_array_arg(),
        masks.prefix.clone().into_array_arg(),
        own.clone().into_array_arg(),
        prefix.clone().into_array_arg(),
        lse.clone().into_array_arg(),
        sizes(piece, scale),
        which,
        units,
        dtype.into(),
    );
    lse
}

/// Scores to weights and gradients of weights to those of scores: `[own, d_own, prefix, d_prefix]` in place.
pub(super) fn launch_slopes<R: CubeRuntime>(
    [own, d_own, prefix, d_prefix]: [&CubeTensor<R>; 4],
    [lse, dot]: [&CubeTensor<R>; 2],
    masks: &Masks<R>,
    piece: &Piece,
    scale: f32,
    which: Seen,
) {
    let (client, dtype) = (own.client.clone(), own.dtype);
    let units = units(&client, piece.t.max(piece.p));
    slopes::launch::<R>(
        &client,
        grid(&client, piece.rows()),
        CubeDim::new_1d(units as u32),
        lse.clone().into_array_arg(),
        dot.clone().into_array_arg(),
        masks.own.clone().into_array_arg(),
        masks.prefix.clone().into_array_arg(),
        masks.valid.clone().into_array_arg(),
        own.clone().into_array_arg(),
        d_own.clone().into_array_arg(),
        prefix.clone().into_array_arg(),
        d_prefix.clone().into_array_arg(),
        sizes(piece, scale),
        which,
        units,
        dtype.into(),
    );
}
