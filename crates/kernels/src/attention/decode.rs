//! The K/V cache of batched decoding.
//!
//! Groups admitted together form a *lane*: their prompts' keys and values stay as prefill left them, packed, and are
//! held once per group; each response appends its own at the same column, so a lane needs no mask. Rows are ordered
//! lane, group, response. Keys and values lie as the projections make them, token by token and head by head, so that
//! nothing is transposed on the way in or out.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::packed::flat;
use crate::bounds::{CACHE_COLUMNS as COLUMNS, WHOLE_CACHE as WHOLE};
use crate::layers::{Attend, BlockShape, Dropout, Norm, TransformerBlock};
use crate::ops::Kernels;
use crate::rope::{Rope, Rotary};

/// Keys and values of packed prompts, one pair a layer, `[N, Hkv, hd]`: what prefill leaves behind.
pub type PromptKv<B> = Vec<(Tensor<B, 3>, Tensor<B, 3>)>;

/// Where the prompts of a lane lie among packed rows.
#[derive(Debug, Clone)]
pub struct PromptRows<B: Backend> {
    /// Rows of each group's prompt.
    pub ranges: Vec<Range<usize>>,
    /// Their first rows and lengths on the device, `[2 b]`.
    pub places: Tensor<B, 1, Int>,
}

impl<B: Backend> PromptRows<B> {
    /// Prompts at these rows.
    pub fn new(ranges: Vec<Range<usize>>, device: &B::Device) -> Self {
        let places: Vec<i32> = ranges.iter().flat_map(|r| [r.start as i32, r.len() as i32]).collect();
        let len = places.len();
        Self { ranges, places: Tensor::from_data(TensorData::new(places, [len]), device) }
    }

    /// Tokens of the longest.
    pub fn longest(&self) -> usize {
        self.ranges.iter().map(Range::len).max().unwrap_or(0)
    }
}

/// What the rows of one lane attend to in one layer.
#[derive(Debug, Clone)]
pub struct DecodeKv<B: Backend> {
    /// Keys and values of the prompts, packed, `[N, Hkv, hd]`.
    pub prefix: (Tensor<B, 3>, Tensor<B, 3>),
    /// Which rows of them are whose.
    pub prompts: PromptRows<B>,
    /// Responses a group, `n`.
    pub n: usize,
    /// Keys and values of the responses, `[b n, capacity, Hkv, hd]`.
    pub own: OwnKv<B>,
}

/// Keys and values of the responses of one lane in one layer.
#[derive(Debug, Clone)]
pub struct OwnKv<B: Backend> {
    /// `[rows, capacity, Hkv, hd]`
    pub k: Tensor<B, 4>,
    /// `[rows, capacity, Hkv, hd]`
    pub v: Tensor<B, 4>,
    /// Columns that are written.
    pub len: usize,
}

/// How the projections of new tokens become queries, keys and values.
#[derive(Debug)]
pub struct NewTokens<'a, B: Backend> {
    /// Heads.
    pub shape: BlockShape,
    /// Of the projections, `[(H + 2 Hkv) hd]`: added here and not by the product.
    pub bias: Option<&'a Tensor<B, 1>>,
    /// RMSNorms of each query and of each key: weight `[hd]` and what is added to the mean square.
    pub qk_norm: Option<[(&'a Tensor<B, 1>, f64); 2]>,
    /// Angles of the positions from 0 on, `[P, 1, hd]`.
    pub angles: &'a Rotary<B>,
    /// Position of each row's token, `[S]`.
    pub positions: &'a Tensor<B, 1, Int>,
}

impl<B: Backend> Clone for NewTokens<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for NewTokens<'_, B> {}

/// One layer of one lane; what is its own is taken out while it is written, so that the write is in place.
#[derive(Debug, Clone)]
struct LaneLayer<B: Backend> {
    own: Option<(Tensor<B, 4>, Tensor<B, 4>)>,
    prefix: (Tensor<B, 3>, Tensor<B, 3>),
}

#[derive(Debug, Clone)]
struct Lane<B: Backend> {
    n: usize,
    prompts: PromptRows<B>,
    layers: Vec<LaneLayer<B>>,
    /// Columns written.
    len: usize,
    capacity: usize,
}

/// The cache of all rows being decoded.
#[derive(Debug, Clone)]
pub struct DecodeCache<B: Backend> {
    lanes: Vec<Lane<B>>,
    rope: Rope,
    /// Columns a row may ever need.
    max_columns: usize,
    /// Angles of all positions that occur: made once, not for each token.
    angles: Option<Rotary<B>>,
}

/// The cache in one step through all layers: what its rows attend to, and where their tokens stand.
pub struct DecodeStep<'a, B: Backend> {
    lanes: &'a mut [Lane<B>],
    angles: &'a Rotary<B>,
    /// `[S]`
    positions: Tensor<B, 1, Int>,
    max_columns: usize,
}

impl<B: Kernels> DecodeCache<B> {
    /// An empty cache for responses of at most `max_columns` tokens.
    pub fn new(rope: Rope, max_columns: usize) -> Self {
        Self { lanes: Vec::new(), rope, max_columns: max_columns.max(1), angles: None }
    }

    /// Rows in the cache.
    pub fn rows(&self) -> usize {
        self.lanes.iter().map(Lane::rows).sum()
    }

    /// Adds a lane: prompts at `prompts` rows of `kv`, each with `n` empty responses. Its rows come last.
    pub fn add_lane(&mut self, kv: &PromptKv<B>, prompts: &[Range<usize>], n: usize) {
        let Some((k, _)) = kv.first() else { return };
        let device = k.device();
        let [_, kv_heads, hd] = k.dims();
        let rows = prompts.len() * n;
        let column = 2 * rows * kv_heads * hd * k.dtype().size() * kv.len();
        // A processor's memory is not pooled, and touching columns that are never written costs time there.
        let whole = B::device_memory(&device).is_some() && column.saturating_mul(self.max_columns) <= WHOLE;
        let capacity = if whole { self.max_columns } else { COLUMNS.min(self.max_columns) };
        let empty = |like: &Tensor<B, 3>| Tensor::empty([rows, capacity, kv_heads, hd], (&device, like.dtype()));
        let layers = kv
            .iter()
            .map(|(k, v)| LaneLayer { own: Some((empty(k), empty(v))), prefix: (k.clone(), v.clone()) })
            .collect();
        let prompts = PromptRows::new(prompts.to_vec(), &device);
        // M-RoPE's positions never run ahead of the tokens.
        self.angles(prompts.longest() + self.max_columns, &device);
        self.lanes.push(Lane { n, prompts, layers, len: 0, capacity });
    }

    /// The angles of positions from 0 to at least `count`.
    fn angles(&mut self, count: usize, device: &B::Device) -> &Rotary<B> {
        let table = match self.angles.take() {
            Some(angles) if angles.cos.dims()[0] >= count => angles,
            _ => {
                let all: Vec<i64> = (0..count.next_multiple_of(COLUMNS) as i64).collect();
                self.rope.table(&[all.clone(), all.clone(), all], device)
            }
        };
        self.angles.insert(table)
    }

    /// A step of the rows, whose tokens stand at `positions [S]` in all three axes of M-RoPE.
    pub fn step(&mut self, positions: &[i64], device: &B::Device) -> DecodeStep<'_, B> {
        let last = positions.iter().copied().max().unwrap_or(0);
        self.angles(last as usize + 1, device);
        let max_columns = self.max_columns;
        let positions: Vec<i32> = positions.iter().map(|p| *p as i32).collect();
        let rows = positions.len();
        let positions = Tensor::from_data(TensorData::new(positions, [rows]), device);
        let Self { lanes, rope, angles, .. } = self;
        let angles = angles.get_or_insert_with(|| rope.table(&[vec![0], vec![0], vec![0]], device));
        DecodeStep { lanes, angles, positions, max_columns }
    }

    /// Keeps only the rows for which `keep` (one flag a row, in row order) is true, as far as whole groups and whole
    /// response slots allow; returns the old index of each row that is left.
    pub fn compact(&mut self, keep: &[bool]) -> Vec<usize> {
        let mut left = Vec::new();
        let mut start = 0;
        for lane in &mut self.lanes {
            let (b, n) = (lane.prompts.ranges.len(), lane.n);
            let rows = &keep[start..start + b * n];
            let groups: Vec<usize> = (0..b).filter(|g| rows[g * n..(g + 1) * n].contains(&true)).collect();
            let kept = |g: usize| (0..n).filter(move |i| rows[g * n + i]);
            let new_n = groups.iter().map(|&g| kept(g).count()).max().unwrap_or(0);
            // Groups with fewer live responses than the fullest keep some finished ones as padding.
            let slots: Vec<usize> = groups
                .iter()
                .flat_map(|&g| {
                    let slots = kept(g).chain((0..n).filter(move |i| !rows[g * n + i])).take(new_n);
                    slots.map(move |i| g * n + i)
                })
                .collect();
            // A lane that keeps its size is not touched: its rows stay in their order, finished ones among them.
            if groups.len() == b && new_n == n {
                left.extend(start..start + b * n);
            } else {
                left.extend(slots.iter().map(|i| start + i));
                lane.select(&groups, &slots, new_n);
            }
            start += b * n;
        }
        self.lanes.retain(|l| l.rows() > 0);
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
    fn rows(&self) -> usize {
        self.prompts.ranges.len() * self.n
    }

    /// Keeps the prompts `groups` and the rows `slots`, `n` of each.
    fn select(&mut self, groups: &[usize], slots: &[usize], n: usize) {
        self.n = n;
        if slots.is_empty() {
            self.prompts.ranges.clear();
            self.layers.clear();
            return;
        }
        let Some(device) = self.layers.first().map(|l| l.prefix.0.device()) else { return };
        let whole = groups.len() == self.prompts.ranges.len();
        let tokens: Vec<i32> =
            groups.iter().flat_map(|&g| self.prompts.ranges[g].clone()).map(|row| row as i32).collect();
        let mut at = 0;
        let ranges = groups.iter().map(|&g| {
            at += self.prompts.ranges[g].len();
            at - self.prompts.ranges[g].len()..at
        });
        let ranges: Vec<Range<usize>> = if whole { self.prompts.ranges.clone() } else { ranges.collect() };
        self.prompts = PromptRows::new(ranges, &device);
        let index = |rows: Vec<i32>| -> Tensor<B, 1, Int> {
            let len = rows.len();
            Tensor::from_data(TensorData::new(rows, [len]), &device)
        };
        let (own, tokens) = (index(slots.iter().map(|i| *i as i32).collect()), index(tokens));
        for layer in &mut self.layers {
            if let Some((k, v)) = layer.own.take() {
                layer.own = Some((k.select(0, own.clone()), v.select(0, own.clone())));
            }
            if !whole {
                let (k, v) = layer.prefix.clone();
                layer.prefix = (k.select(0, tokens.clone()), v.select(0, tokens.clone()));
            }
        }
    }

    /// Makes room for one column more.
    fn grow(&mut self, max_columns: usize) {
        if self.len < self.capacity {
            return;
        }
        // Doubling keeps the copies linear in the final length.
        let more = self.capacity.max(COLUMNS).min(max_columns.saturating_sub(self.capacity)).max(1);
        for layer in &mut self.layers {
            if let Some((k, v)) = layer.own.take() {
                let grow = |t: Tensor<B, 4>| {
                    let [rows, _, heads, hd] = t.dims();
                    let extra = Tensor::zeros([rows, more, heads, hd], (&t.device(), t.dtype()));
                    Tensor::cat(vec![t, extra], 1)
                };
                layer.own = Some((grow(k), grow(v)));
            }
        }
        self.capacity += more;
    }
}

impl<B: Kernels> Attend<B> for DecodeStep<'_, B> {
    fn attend(&mut self, block: &TransformerBlock<B>, h: Tensor<B, 2>) -> Tensor<B, 2> {
        debug_assert_eq!(self.lanes.iter().map(Lane::rows).sum::<usize>(), h.dims()[0], "a row a token");
        let linear = &block.qkv.linear;
        let tokens = NewTokens {
            shape: block.shape,
            bias: linear.bias.as_ref(),
            qk_norm: block.qk_norm.as_ref().and_then(|norms| match norms {
                [Norm::Rms { weight: q, eps: q_eps }, Norm::Rms { weight: k, eps: k_eps }] => {
                    Some([(q, *q_eps), (k, *k_eps)])
                }
                _ => None,
            }),
            angles: self.angles,
            positions: &self.positions,
        };
        debug_assert_eq!(tokens.qk_norm.is_some(), block.qk_norm.is_some(), "queries and keys have RMSNorms");
        let mut own = Vec::with_capacity(self.lanes.len());
        for lane in self.lanes.iter_mut() {
            lane.grow(self.max_columns);
            let Some((k, v)) = lane.layers.get_mut(block.index).and_then(|layer| layer.own.take()) else { continue };
            own.push(OwnKv { k, v, len: lane.len });
        }
        let (q, own) = B::decode_heads(linear.partial(h, None), tokens, own);
        let past: Vec<DecodeKv<B>> = self
            .lanes
            .iter()
            .zip(own)
            .map(|(lane, own)| DecodeKv {
                prefix: lane.layers[block.index].prefix.clone(),
                prompts: lane.prompts.clone(),
                n: lane.n,
                own,
            })
            .collect();
        let o = B::decode_attention(q, &past);
        for (lane, kv) in self.lanes.iter_mut().zip(past) {
            lane.layers[block.index].own = Some((kv.own.k, kv.own.v));
        }
        flat(o)
    }
}

/// Packed attention that also keeps each layer's keys and values: prefill.
pub struct Prefill<'a, B: Backend> {
    /// Who attends to whom.
    pub plan: &'a super::AttentionPlan<B>,
    /// Where the tokens stand.
    pub rotary: &'a Rotary<B>,
    /// One pair a layer so far.
    pub kv: PromptKv<B>,
    /// Which inputs adapters drop; none but in training.
    pub dropout: Option<Dropout<'a>>,
}

impl<B: Kernels> Attend<B> for Prefill<'_, B> {
    fn attend(&mut self, block: &TransformerBlock<B>, h: Tensor<B, 2>) -> Tensor<B, 2> {
        let [q, k, v] = block.heads(h, self.rotary, self.dropout);
        self.kv.push((k.clone(), v.clone()));
        flat(B::packed_attention(q, k, v, self.plan).0)
    }

    fn dropout(&self) -> Option<Dropout<'_>> {
        self.dropout
    }
}
