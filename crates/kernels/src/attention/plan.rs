//! Which tokens attend to which, and how they are batched.
//!
//! Packed rows form *segments*: a prompt, a response, an image window. A segment attends to itself (causally or not)
//! and, if it has one, to all of its prefix segment. Segments of similar size are padded together into *blocks* `[b
//! groups, n responses, t tokens]` whose responses share one prefix of `p` rows; the linear layers never see padding.

use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::bounds::SCORES;

/// A response in a packed batch: its rows and the index of its prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseRows {
    /// Rows of the packed tensor.
    pub rows: Range<usize>,
    /// Index into the prompts.
    pub prompt: usize,
}

/// Rows of the packed tensor that a padded block reads.
#[derive(Debug, Clone)]
pub(crate) enum Gather<B: Backend> {
    /// Consecutive rows, no padding.
    Range(Range<usize>),
    /// Any rows; padding repeats row 0.
    Index(Tensor<B, 1, Int>),
}

impl<B: Backend> Gather<B> {
    fn new(rows: &[Option<usize>], device: &B::Device) -> Self {
        let first = rows.first().copied().flatten().unwrap_or(0);
        if rows.iter().enumerate().all(|(i, r)| *r == Some(first + i)) {
            return Self::Range(first..first + rows.len());
        }
        let index: Vec<i32> = rows.iter().map(|r| r.unwrap_or(0) as i32).collect();
        Self::Index(Tensor::from_data(TensorData::new(index, [rows.len()]), device))
    }

    pub(crate) fn take<const D: usize>(&self, x: &Tensor<B, D>) -> Tensor<B, D> {
        match self {
            Self::Range(r) if *r == (0..x.dims()[0]) => x.clone(),
            Self::Range(r) => x.clone().slice([r.clone()]),
            Self::Index(i) => x.clone().select(0, i.clone()),
        }
    }
}

/// Segments padded together.
#[derive(Debug, Clone)]
pub(crate) struct Block<B: Backend> {
    /// Groups.
    pub b: usize,
    /// Responses a group.
    pub n: usize,
    /// Padded length of a segment.
    pub t: usize,
    /// Padded length of the prefix, 0 without one.
    pub p: usize,
    pub rows: Gather<B>,
    pub prefix: Option<Gather<B>>,
    /// 1 on real rows, 0 on padding, `[b n t, 1, 1]`; none if nothing is padded.
    pub valid: Option<Tensor<B, 3>>,
    /// Added to scores against the segment itself, `[b, n t_q = 1, t]` broadcast over queries: -1e30 on padded keys.
    /// Only for attention that is not causal (a causal query never sees the padding to its right).
    pub own_mask: Option<Tensor<B, 3>>,
    /// Added to scores against the prefix, `[b, 1, p]`.
    pub prefix_mask: Option<Tensor<B, 3>>,
    /// No two units share their prefix.
    #[cfg(feature = "cube")]
    pub own_prefixes: bool,
}

/// The plan of one packed batch; shared by all layers.
///
/// ```
/// use kernels::{AttentionPlan, ResponseRows};
///
/// // A prompt of three tokens and two responses to it: six rows, and no padding.
/// let responses = [ResponseRows { rows: 3..5, prompt: 0 }, ResponseRows { rows: 5..6, prompt: 0 }];
/// let plan = AttentionPlan::<burn_flex::Flex>::causal(&[0..3], &responses, &Default::default());
/// assert_eq!(plan.tokens, 6);
/// assert_eq!(plan.segments, [(0..3, None), (3..5, Some(0..3)), (5..6, Some(0..3))]);
/// ```
#[derive(Debug, Clone)]
pub struct AttentionPlan<B: Backend> {
    pub(crate) blocks: Vec<Block<B>>,
    /// Row of the concatenated block outputs that holds row `i` of those that ask; none if they are in order already.
    pub(crate) inverse: Option<Tensor<B, 1, Int>>,
    pub(crate) causal: bool,
    /// The segments themselves, `(rows, prefix rows)`, for specialisations that need no padding.
    pub segments: Vec<(Range<usize>, Option<Range<usize>>)>,
    /// Packed rows.
    pub tokens: usize,
    /// Rows at the front that are only looked at: keys and values without queries.
    pub(crate) looked_at: usize,
    /// Rows at the end that neither look nor are looked at.
    pub(crate) idle: usize,
    /// On GPUs, how many scores are held at one time, in elements, unless one segment has more.
    pub scores: usize,
}

/// A padded block may cost this much more than its real score area before another one is opened.
const WASTE: f64 = 1.3;
/// Score area below which padding is cheaper than another launch.
const SMALL: f64 = 16384.0;

/// One prefix (or none) with the segments that share it.
#[derive(Clone)]
struct SharingUnit {
    prefix: Option<Range<usize>>,
    members: Vec<(usize, Range<usize>)>,
}

impl SharingUnit {
    fn t(&self) -> usize {
        self.members.iter().map(|(_, r)| r.len()).max().unwrap_or(0)
    }
    fn p(&self) -> usize {
        self.prefix.as_ref().map_or(0, |r| r.len())
    }
    /// Real score area.
    fn area(&self) -> f64 {
        self.members.iter().map(|(_, r)| (r.len() * (r.len() + self.p())) as f64).sum()
    }
}

impl<B: Backend> AttentionPlan<B> {
    /// Causal attention over prompts and their responses: each prompt to itself, each response to its whole prompt and
    /// itself.
    pub fn causal(prompts: &[Range<usize>], responses: &[ResponseRows], device: &B::Device) -> Self {
        let mut segments: Vec<_> = prompts.iter().map(|r| (r.clone(), None)).collect();
        segments.extend(responses.iter().map(|r| (r.rows.clone(), Some(prompts[r.prompt].clone()))));
        Self::new(segments, 0, true, device)
    }

    /// Causal attention of responses to themselves and to a prompt of which only keys and values are there: its
    /// `prompt` rows come first and ask nothing.
    pub fn continuing(prompt: usize, responses: &[ResponseRows], device: &B::Device) -> Self {
        let segments = responses.iter().map(|r| (r.rows.clone(), Some(0..prompt))).collect();
        Self::new(segments, prompt, true, device)
    }

    /// Attention inside each of consecutive runs of the given lengths, in both directions (the vision tower).
    pub fn bidirectional(lens: &[usize], device: &B::Device) -> Self {
        let mut start = 0;
        let segments = lens
            .iter()
            .map(|len| {
                start += len;
                (start - len..start, None)
            })
            .collect();
        Self::new(segments, 0, false, device)
    }

    fn new(
        segments: Vec<(Range<usize>, Option<Range<usize>>)>,
        looked_at: usize,
        causal: bool,
        device: &B::Device,
    ) -> Self {
        let tokens = looked_at + segments.iter().map(|(r, _)| r.len()).sum::<usize>();
        let mut blocks = Vec::new();
        let mut place = vec![0i32; tokens];
        let mut placed = 0;
        for units in bucket(units(&segments)) {
            let b = units.len();
            let n = units.iter().map(|u| u.members.len()).max().unwrap_or(0);
            let t = units.iter().map(SharingUnit::t).max().unwrap_or(0);
            let p = units.iter().map(SharingUnit::p).max().unwrap_or(0);
            let mut rows = Vec::with_capacity(b * n * t);
            for unit in &units {
                for slot in 0..n {
                    let range = unit.members.get(slot).map_or(0..0, |(_, r)| r.clone());
                    for i in 0..t {
                        let row = (i < range.len()).then(|| range.start + i);
                        if let Some(row) = row {
                            place[row] = (placed + rows.len()) as i32;
                        }
                        rows.push(row);
                    }
                }
            }
            placed += rows.len();
            let mask = |valid: Vec<bool>, shape: [usize; 3]| {
                let values: Vec<f32> = valid.iter().map(|&v| if v { 0.0 } else { -1e30 }).collect();
                Tensor::<B, 3>::from_data(TensorData::new(values, shape), device)
            };
            let padded = rows.iter().any(Option::is_none);
            let prefix_rows: Vec<Option<usize>> = units
                .iter()
                .flat_map(|u| {
                    let r = u.prefix.clone().unwrap_or(0..0);
                    (0..p).map(move |i| (i < r.len()).then(|| r.start + i))
                })
                .collect();
            let prefix_padded = prefix_rows.iter().any(Option::is_none);
            blocks.push(Block {
                b,
                n,
                t,
                p,
                valid: padded.then(|| {
                    let v: Vec<f32> = rows.iter().map(|r| r.is_some() as u8 as f32).collect();
                    Tensor::from_data(TensorData::new(v, [rows.len(), 1, 1]), device)
                }),
                own_mask: (padded && !causal).then(|| mask(rows.iter().map(Option::is_some).collect(), [b * n, 1, t])),
                prefix_mask: prefix_padded.then(|| mask(prefix_rows.iter().map(Option::is_some).collect(), [b, 1, p])),
                rows: Gather::new(&rows, device),
                prefix: (p > 0).then(|| Gather::new(&prefix_rows, device)),
                #[cfg(feature = "cube")]
                own_prefixes: (1..b).all(|i| units[..i].iter().all(|u| u.prefix != units[i].prefix)),
            });
        }
        let place = place.split_off(looked_at);
        let in_order = placed == place.len() && place.iter().enumerate().all(|(i, &p)| i as i32 == p);
        Self {
            blocks,
            inverse: (!in_order).then(|| {
                let len = place.len();
                Tensor::from_data(TensorData::new(place, [len]), device)
            }),
            causal,
            segments,
            tokens,
            looked_at,
            idle: 0,
            scores: SCORES,
        }
    }

    /// The same plan with `rows` more rows at the end that take no part: zeros in outputs and gradients.
    pub fn with_idle(mut self, rows: usize) -> Self {
        self.tokens += rows;
        self.idle += rows;
        self
    }
}

/// Segments with the same prefix become one unit, longest first; a unit whose lengths differ much is split.
fn units(segments: &[(Range<usize>, Option<Range<usize>>)]) -> Vec<SharingUnit> {
    let mut whole: Vec<SharingUnit> = Vec::new();
    for (i, (rows, prefix)) in segments.iter().enumerate() {
        if rows.is_empty() {
            continue;
        }
        match (prefix, whole.last_mut()) {
            (Some(_), Some(unit)) if unit.prefix == *prefix => unit.members.push((i, rows.clone())),
            _ => whole.push(SharingUnit { prefix: prefix.clone(), members: vec![(i, rows.clone())] }),
        }
    }
    let mut out = Vec::new();
    for mut unit in whole {
        let lens_differ = unit.members.iter().any(|(_, r)| r.len() != unit.members[0].1.len());
        if lens_differ {
            let padded = (unit.members.len() * unit.t() * (unit.t() + unit.p())) as f64;
            if padded > unit.area() * WASTE + SMALL {
                unit.members.sort_by_key(|(i, r)| (std::cmp::Reverse(r.len()), *i));
                let mut part = SharingUnit { prefix: unit.prefix.clone(), members: vec![] };
                for member in unit.members {
                    part.members.push(member.clone());
                    let padded = (part.members.len() * part.t() * (part.t() + part.p())) as f64;
                    if padded > part.area() * WASTE + SMALL && part.members.len() > 1 {
                        part.members.pop();
                        let next = SharingUnit { prefix: part.prefix.clone(), members: vec![member] };
                        out.push(std::mem::replace(&mut part, next));
                    }
                }
                out.push(part);
                continue;
            }
        }
        out.push(unit);
    }
    out
}

/// Units of similar size share a block. A unit with and one without a prefix never do.
fn bucket(mut units: Vec<SharingUnit>) -> Vec<Vec<SharingUnit>> {
    let uniform =
        units.windows(2).all(|w| (w[0].t(), w[0].p(), w[0].members.len()) == (w[1].t(), w[1].p(), w[1].members.len()));
    if !uniform {
        // A stable sort keeps equal units in packed order, which keeps their rows contiguous.
        units.sort_by_key(|u| (u.p() > 0, u.members.len(), u.t(), u.p()));
    }
    let mut blocks: Vec<Vec<SharingUnit>> = Vec::new();
    for unit in units {
        if let Some(block) = blocks.last_mut()
            && (block[0].p() > 0) == (unit.p() > 0)
        {
            let all = || block.iter().chain(std::iter::once(&unit));
            let n = all().map(|u| u.members.len()).max().unwrap_or(0);
            let t = all().map(SharingUnit::t).max().unwrap_or(0);
            let p = all().map(SharingUnit::p).max().unwrap_or(0);
            let padded = ((block.len() + 1) * n * t * (t + p)) as f64;
            let real: f64 = all().map(SharingUnit::area).sum();
            if padded <= real * WASTE + SMALL {
                block.push(unit);
                continue;
            }
        }
        blocks.push(vec![unit]);
    }
    blocks
}
