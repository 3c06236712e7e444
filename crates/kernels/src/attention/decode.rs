//! The K/V cache of batched decoding.
//!
//! Groups admitted together form a *lane*: their prompts' keys and values are held once per group, each response
//! appends its own at the same column, so a lane needs no mask over its responses. Rows are ordered lane, group,
//! response.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::forward::{fold_queries, unfold_queries};
use crate::layers::Attend;
use crate::ops::Kernels;
use crate::params::{cast_to, to_f32};

/// Columns that a lane's cache starts with and grows by at least.
const COLUMNS: usize = 64;

/// Keys and values of one layer of one lane.
#[derive(Debug, Clone)]
struct LaneLayer<B: Backend> {
    /// Own keys and values `[b Hkv n, capacity, hd]`; taken out while they are written, so that the write is in place.
    own: Option<(Tensor<B, 3>, Tensor<B, 3>)>,
    /// The prompts' `[b Hkv, P, hd]`.
    prefix: (Tensor<B, 3>, Tensor<B, 3>),
}

#[derive(Debug, Clone)]
struct Lane<B: Backend> {
    b: usize,
    n: usize,
    layers: Vec<LaneLayer<B>>,
    /// `[b Hkv, 1, P]`, added to the scores against the prompt.
    prefix_mask: Option<Tensor<B, 3>>,
    /// Columns written.
    len: usize,
    capacity: usize,
}

/// The cache of all rows being decoded.
#[derive(Debug, Clone)]
pub struct DecodeCache<B: Backend> {
    lanes: Vec<Lane<B>>,
    kv_heads: usize,
    /// Columns a row may ever need.
    max_columns: usize,
}

/// Keys and values of packed prompts, one pair a layer, `[N, Hkv, hd]`: what prefill leaves behind.
pub type PromptKv<B> = Vec<(Tensor<B, 3>, Tensor<B, 3>)>;

impl<B: Kernels> DecodeCache<B> {
    /// An empty cache for responses of at most `max_columns` tokens.
    pub fn new(kv_heads: usize, max_columns: usize) -> Self {
        Self { lanes: Vec::new(), kv_heads, max_columns: max_columns.max(1) }
    }

    /// Rows in the cache.
    pub fn rows(&self) -> usize {
        self.lanes.iter().map(|l| l.b * l.n).sum()
    }

    /// Adds a lane: prompts at `prompts` rows of `kv`, each with `n` empty responses. Its rows come last.
    pub fn add_lane(&mut self, kv: &PromptKv<B>, prompts: &[Range<usize>], n: usize) {
        let (b, p) = (prompts.len(), prompts.iter().map(|r| r.len()).max().unwrap_or(0));
        let Some((k, _)) = kv.first() else { return };
        let (device, hd, dtype) = (k.device(), k.dims()[2], k.dtype());
        let capacity = COLUMNS.min(self.max_columns);
        let index: Vec<i32> =
            prompts.iter().flat_map(|r| (0..p).map(|i| (r.start + i.min(r.len() - 1)) as i32)).collect();
        let index: Tensor<B, 1, Int> = Tensor::from_data(TensorData::new(index, [b * p]), &device);
        let padded = prompts.iter().any(|r| r.len() != p);
        let prefix_mask = padded.then(|| {
            let m: Vec<f32> = prompts
                .iter()
                .flat_map(|r| std::iter::repeat_n(r, self.kv_heads))
                .flat_map(|r| (0..p).map(|i| if i < r.len() { 0.0 } else { -1e30 }))
                .collect();
            Tensor::from_data(TensorData::new(m, [b * self.kv_heads, 1, p]), &device)
        });
        let rows = b * self.kv_heads * n;
        let layers = kv
            .iter()
            .map(|(k, v)| {
                let prefix = |x: &Tensor<B, 3>| fold_queries(x.clone().select(0, index.clone()), b, 1, self.kv_heads);
                let empty = || Tensor::zeros([rows, capacity, hd], (&device, dtype));
                LaneLayer { own: Some((empty(), empty())), prefix: (prefix(k), prefix(v)) }
            })
            .collect();
        self.lanes.push(Lane { b, n, layers, prefix_mask, len: 0, capacity });
    }

    /// Keeps only the rows for which `keep` (one flag a row, in row order) is true, as far as whole groups and whole
    /// response slots allow; returns the old index of each row that is left.
    pub fn compact(&mut self, keep: &[bool]) -> Vec<usize> {
        let mut left = Vec::new();
        let mut start = 0;
        for lane in &mut self.lanes {
            let (b, n) = (lane.b, lane.n);
            let rows = &keep[start..start + b * n];
            let groups: Vec<usize> = (0..b).filter(|g| rows[g * n..(g + 1) * n].contains(&true)).collect();
            let kept = |g: usize| (0..n).filter(move |i| rows[g * n + i]);
            let new_n = groups.iter().map(|&g| kept(g).count()).max().unwrap_or(0);
            // Groups with fewer live responses than the fullest keep some finished ones as padding.
            let slots: Vec<Vec<usize>> = groups
                .iter()
                .map(|&g| kept(g).chain((0..n).filter(|i| !rows[g * n + i])).take(new_n).collect())
                .collect();
            // A lane that keeps its size is not touched: its rows stay in their order, finished ones among them.
            if groups.len() == b && new_n == n {
                left.extend(start..start + b * n);
                start += b * n;
                continue;
            }
            for (g, slots) in groups.iter().zip(&slots) {
                left.extend(slots.iter().map(|i| start + g * n + i));
            }
            start += b * n;
            lane.select(&groups, &slots, self.kv_heads);
        }
        self.lanes.retain(|l| l.b * l.n > 0);
        left
    }

    /// Call after a step through all layers: the column just written becomes part of the past.
    pub fn advance(&mut self) {
        for lane in &mut self.lanes {
            lane.len += 1;
        }
    }
}

impl<B: Kernels> Lane<B> {
    fn select(&mut self, groups: &[usize], slots: &[Vec<usize>], hkv: usize) {
        let n = self.n;
        self.b = groups.len();
        self.n = slots.first().map_or(0, Vec::len);
        if self.b == 0 || self.n == 0 {
            (self.b, self.n) = (0, 0);
            self.layers.clear();
            return;
        }
        let Some(device) = self.layers.first().map(|l| l.prefix.0.device()) else { return };
        let own: Vec<i32> = groups
            .iter()
            .zip(slots)
            .flat_map(|(g, slots)| {
                (0..hkv).flat_map(move |h| slots.iter().map(move |i| ((g * hkv + h) * n + i) as i32))
            })
            .collect();
        let prefix: Vec<i32> = groups.iter().flat_map(|g| (0..hkv).map(move |h| (g * hkv + h) as i32)).collect();
        let own: Tensor<B, 1, Int> = Tensor::from_data(TensorData::new(own.clone(), [own.len()]), &device);
        let prefix: Tensor<B, 1, Int> = Tensor::from_data(TensorData::new(prefix.clone(), [prefix.len()]), &device);
        let pick = |t: Tensor<B, 3>, i: &Tensor<B, 1, Int>| t.select(0, i.clone());
        for layer in &mut self.layers {
            if let Some((k, v)) = layer.own.take() {
                layer.own = Some((pick(k, &own), pick(v, &own)));
            }
            let (k, v) = layer.prefix.clone();
            layer.prefix = (pick(k, &prefix), pick(v, &prefix));
        }
        self.prefix_mask = self.prefix_mask.take().map(|m| pick(m, &prefix));
    }

    /// Writes one new column of keys and values; grows the cache when it is full.
    fn append(&mut self, index: usize, k: Tensor<B, 3>, v: Tensor<B, 3>, max_columns: usize) {
        if self.len == self.capacity {
            // Doubling keeps the copies linear in the final length.
            let more = self.capacity.max(COLUMNS).min(max_columns.saturating_sub(self.capacity)).max(1);
            for layer in &mut self.layers {
                if let Some((k, v)) = layer.own.take() {
                    let grow = |t: Tensor<B, 3>| {
                        let [rows, _, hd] = t.dims();
                        let extra = Tensor::zeros([rows, more, hd], (&t.device(), t.dtype()));
                        Tensor::cat(vec![t, extra], 1)
                    };
                    layer.own = Some((grow(k), grow(v)));
                }
            }
            self.capacity += more;
        }
        let layer = &mut self.layers[index];
        if let Some((ks, vs)) = layer.own.take() {
            layer.own = Some((B::write_column(ks, self.len, k), B::write_column(vs, self.len, v)));
        }
    }

    /// Attention of `q [b Hkv n, G, hd]` to the prompt and to the columns written so far.
    fn attend(&self, index: usize, q: Tensor<B, 3>) -> Tensor<B, 3> {
        let layer = &self.layers[index];
        let Some(own) = layer.own.clone() else { return q };
        B::decode_attention(
            q,
            DecodeKv {
                prefix: layer.prefix.clone(),
                prefix_mask: self.prefix_mask.clone(),
                own,
                n: self.n,
                len: self.len + 1,
            },
        )
    }
}

/// What the rows of one lane attend to in one layer.
#[derive(Debug, Clone)]
pub struct DecodeKv<B: Backend> {
    /// Keys and values of the prompts, `[b Hkv, P, hd]`.
    pub prefix: (Tensor<B, 3>, Tensor<B, 3>),
    /// Added to the scores against the prompt, `[b Hkv, 1, P]`.
    pub prefix_mask: Option<Tensor<B, 3>>,
    /// Keys and values of the responses, `[b Hkv n, capacity, hd]`.
    pub own: (Tensor<B, 3>, Tensor<B, 3>),
    /// Responses a group.
    pub n: usize,
    /// Columns of `own` that are written.
    pub len: usize,
}

/// See [`Kernels::decode_attention`](crate::Kernels::decode_attention).
pub fn decode_attention<B: Kernels>(q: Tensor<B, 3>, kv: DecodeKv<B>) -> Tensor<B, 3> {
    let [rows, g, hd] = q.dims();
    let scale = 1.0 / (hd as f64).sqrt();
    let dtype = q.dtype();
    let fold = |x: Tensor<B, 3>| {
        let [a, r, c] = x.dims();
        x.reshape([a / kv.n, kv.n * r, c])
    };
    let mut s_prefix = to_f32(B::matmul(fold(q.clone()), kv.prefix.0.transpose())).mul_scalar(scale);
    if let Some(mask) = kv.prefix_mask {
        s_prefix = s_prefix.add(mask);
    }
    let p = s_prefix.dims()[2];
    let s_prefix = s_prefix.reshape([rows, g, p]);
    let (k, v) = kv.own;
    let past = |t: Tensor<B, 3>| t.slice([0..rows, 0..kv.len, 0..hd]);
    let s_own = to_f32(B::matmul(q, past(k).transpose())).mul_scalar(scale);
    let max = s_prefix.clone().max_dim(2).max_pair(s_own.clone().max_dim(2));
    let (e_prefix, e_own) = (s_prefix.sub(max.clone()).exp(), s_own.sub(max).exp());
    let sum = e_prefix.clone().sum_dim(2).add(e_own.clone().sum_dim(2));
    let from_prefix = B::matmul(fold(cast_to(e_prefix, dtype)), kv.prefix.1).reshape([rows, g, hd]);
    let out = B::matmul(cast_to(e_own, dtype), past(v)).add(from_prefix);
    cast_to(to_f32(out).div(sum), dtype)
}

impl<B: Kernels> Attend<B> for DecodeCache<B> {
    /// One new token a row: `q [S, H, hd]`, `k, v [S, Hkv, hd]`.
    fn attend(&mut self, index: usize, q: Tensor<B, 3>, k: Tensor<B, 3>, v: Tensor<B, 3>) -> Tensor<B, 3> {
        let (hkv, max_columns) = (self.kv_heads, self.max_columns);
        let [rows, h, hd] = q.dims();
        let whole = self.lanes.len() == 1;
        let mut start = 0;
        let mut outputs = Vec::with_capacity(self.lanes.len());
        for lane in &mut self.lanes {
            let count = lane.b * lane.n;
            let fold = |x: &Tensor<B, 3>| {
                let heads = x.dims()[1];
                let x = if whole { x.clone() } else { x.clone().slice([start..start + count, 0..heads, 0..hd]) };
                fold_queries(x, lane.b, lane.n, hkv)
            };
            let (q, k, v) = (fold(&q), fold(&k), fold(&v));
            lane.append(index, k, v, max_columns);
            outputs.push(unfold_queries(lane.attend(index, q), lane.b, lane.n, hkv, h / hkv));
            start += count;
        }
        debug_assert_eq!(start, rows);
        super::forward::concat(outputs, 0)
    }
}

/// Packed attention that also keeps each layer's keys and values: prefill.
pub struct Prefill<'a, B: Backend> {
    /// Who attends to whom.
    pub plan: &'a super::AttentionPlan<B>,
    /// One pair a layer so far.
    pub kv: PromptKv<B>,
}

impl<B: Kernels> Attend<B> for Prefill<'_, B> {
    fn attend(&mut self, _: usize, q: Tensor<B, 3>, k: Tensor<B, 3>, v: Tensor<B, 3>) -> Tensor<B, 3> {
        self.kv.push((k.clone(), v.clone()));
        B::packed_attention(q, k, v, self.plan).0
    }
}
