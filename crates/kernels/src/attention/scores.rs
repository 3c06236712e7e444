//! What attention does to a chunk of scores between its matrix products: the softmax, and the gradient of the scores.

use burn::tensor::{Int, Tensor, backend::Backend};

use crate::params::{cast_to, to_f32};

/// Which keys the queries of a chunk see, and how much.
#[derive(Debug, Clone)]
pub(crate) struct Mask<B: Backend> {
    /// Added to the scores, `[a, 1, keys]` in f32.
    pub added: Option<Tensor<B, 3>>,
    /// Whether a query sees the keys up to its own position only.
    pub causal: Option<Causal>,
}

/// Row `r` of a chunk belongs to position `first + r / g` and sees the keys `0..=first + r / g`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Causal {
    pub first: usize,
    pub g: usize,
}

/// The products `q k^T` of a chunk with one set of keys as a matmul leaves them, `[a, rows, keys]`, and their mask.
pub(crate) struct Products<'a, B: Backend> {
    pub scores: Tensor<B, 3>,
    pub mask: &'a Mask<B>,
}

/// The weights of the values, in the type of the products and of their shapes.
pub(crate) struct Weights<B: Backend> {
    pub own: Tensor<B, 3>,
    pub prefix: Option<Tensor<B, 3>>,
    /// What the weighted values have still to be divided by, `[a, rows, 1]` in f32.
    pub sums: Tensor<B, 3>,
    /// Log-sum-exp of the scores, `[a, rows, 1]` in f32.
    pub lse: Tensor<B, 3>,
}

/// Scores held at one time, in elements: above it the queries of a block are taken in chunks.
pub(crate) const PLAIN_SCORES: usize = 1 << 22;

/// One softmax over own keys `[a, rows, keys]` and those of the prefix `[a / n, n rows, keys]`. Scores are products
/// times `scale` plus their mask, in f32.
pub(crate) fn softmax<B: Backend>(own: Products<B>, prefix: Option<Products<B>>, scale: f64) -> Weights<B> {
    let dtype = own.scores.dtype();
    let own = scores(own, scale);
    let [a, rows, _] = own.dims();
    let mut max = own.clone().max_dim(2);
    let prefix = prefix.map(|prefix| {
        let s = scores(prefix, scale);
        let ([ap, rows_p, keys], s) = (s.dims(), s);
        ([ap, rows_p, keys], s.reshape([a, rows, keys]))
    });
    if let Some((_, s)) = &prefix {
        max = max.max_pair(s.clone().max_dim(2));
    }
    let own = own.sub(max.clone()).exp();
    let mut sum = own.clone().sum_dim(2);
    let prefix = prefix.map(|(shape, s)| {
        let e = s.sub(max.clone()).exp();
        sum = sum.clone().add(e.clone().sum_dim(2));
        cast_to(e, dtype).reshape(shape)
    });
    Weights { own: cast_to(own, dtype), prefix, lse: max.add(sum.clone().log()), sums: sum }
}

/// The weights `p = exp(s - lse)` and the gradients of the products `p (dp - dot) scale`, both in the products' type,
/// from those of the weights `dp [a, rows, keys]`; `lse` and `dot` are `[a, rows, 1]` in f32.
pub(crate) fn gradient<B: Backend>(
    products: Products<B>,
    dp: Tensor<B, 3>,
    lse: Tensor<B, 3>,
    dot: Tensor<B, 3>,
    scale: f64,
) -> [Tensor<B, 3>; 2] {
    let dtype = dp.dtype();
    let p = scores(products, scale).sub(lse).exp();
    let ds = to_f32(dp).sub(dot).mul(p.clone()).mul_scalar(scale);
    [cast_to(p, dtype), cast_to(ds, dtype)]
}

fn scores<B: Backend>(Products { scores, mask }: Products<B>, scale: f64) -> Tensor<B, 3> {
    let [_, rows, keys] = scores.dims();
    let mut s = to_f32(scores).mul_scalar(scale);
    if let Some(Causal { first, g }) = mask.causal {
        let device = s.device();
        s = s.add(causal_mask(first, first + rows / g, g, keys, &device));
    }
    match &mask.added {
        Some(added) => s.add(added.clone()),
        None => s,
    }
}

/// -1e30 above the diagonal, for query positions `t0..t1` (each `g` rows) against keys `0..keys`. `[1, (t1 - t0) g,
/// keys]`
pub(crate) fn causal_mask<B: Backend>(t0: usize, t1: usize, g: usize, keys: usize, device: &B::Device) -> Tensor<B, 3> {
    let rows =
        Tensor::<B, 1, Int>::arange(t0 as i64..t1 as i64, device).reshape([t1 - t0, 1, 1]).expand([t1 - t0, g, 1]);
    let rows = rows.reshape([(t1 - t0) * g, 1]).expand([(t1 - t0) * g, keys]);
    let columns = Tensor::<B, 1, Int>::arange(0..keys as i64, device).reshape([1, keys]).expand([(t1 - t0) * g, keys]);
    Tensor::<B, 2>::zeros([(t1 - t0) * g, keys], device).mask_fill(columns.greater(rows), -1e30).unsqueeze()
}
