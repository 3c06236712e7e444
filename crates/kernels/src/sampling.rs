//! From logits to sampled tokens, on the device.
//!
//! One uniform number per row decides (inverse distribution function, in two levels of about `sqrt V` so that no
//! cumulative sum runs over the vocabulary). `top_p` cuts at a threshold found by bisection, since sorting a vocabulary
//! goes through the host on GPU backends. Log-probs are those of the untruncated distribution.

mod shared;

pub use shared::SAMPLED;

use burn::tensor::{Bool, DType, Int, Tensor, TensorData, backend::Backend};

use crate::head::LmHead;
use crate::ops::Kernels;
use crate::params::to_f32;
use crate::{collective, host};

/// How one row chooses its token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowChoice {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus; 1 samples among all tokens.
    pub top_p: f64,
    /// In `(0, 1)`: where in the cumulative distribution the token lies.
    pub uniform: f32,
}

/// Ids that ranks can share out and sample without gathering logits: those that f32 counts.
const COUNTED_IDS: usize = 1 << 24;

/// One token for each row of hidden states `[S, d]`: see [`Kernels::sample`]. Ranks that share the head out all get the
/// same, and tell each other a few numbers a row; of 2^24 ids or more, all logits.
pub fn sample_tokens<B: Kernels>(
    hidden: Tensor<B, 2>,
    head: LmHead<B>,
    choices: &[RowChoice],
    forbidden: Option<&Tensor<B, 2>>,
) -> (Tensor<B, 1, Int>, Tensor<B, 1>) {
    let device = hidden.device();
    let Some(vocab) = head.shared else { return B::sample(head.logits(hidden), choices, forbidden) };
    if head.vocab() < COUNTED_IDS {
        return shared::sample(B::affine(hidden, head.weight, None), vocab, choices, forbidden);
    }
    let logits = head.logits(hidden);
    // A token decides what is computed next: ranks must not differ in it by the last bit of a sum.
    let choose = || {
        let (ids, log_probs) = B::sample(logits, choices, forbidden);
        (collective::done(host::ints(ids)), collective::done(host::floats(log_probs)))
    };
    let (ids, log_probs): (Vec<i32>, Vec<f32>) = collective::done(vocab.ranks.from_first(SAMPLED, choose));
    let rows = [choices.len()];
    (
        Tensor::from_data(TensorData::new(ids, rows), &device),
        Tensor::from_data(TensorData::new(log_probs, rows), (&device, DType::F32)),
    )
}

/// See [`Kernels::sample`](crate::Kernels::sample).
pub fn sample<B: Backend>(
    logits: Tensor<B, 2>,
    choices: &[RowChoice],
    forbidden: Option<&Tensor<B, 2>>,
) -> (Tensor<B, 1, Int>, Tensor<B, 1>) {
    let rows = choices.len();
    let logits = to_f32(logits);
    let uniforms: Vec<f32> = choices.iter().map(|row| row.uniform).collect();
    let uniforms = Tensor::<B, 2>::from_data(TensorData::new(uniforms, [rows, 1]), &logits.device());
    let choice = Choices::new(choices, &logits.device());
    let z = choice.at_temperature(logits);
    let max = z.clone().max_dim(1);
    let lse = z.clone().sub(max.clone()).exp().sum_dim(1).log().add(max);
    let allowed = match forbidden {
        Some(mask) => z.clone().add(mask.clone()),
        None => z.clone(),
    };
    let ids = choice.draw(allowed, uniforms); // [S, 1]
    let log_probs = z.gather(1, ids.clone()).sub(lse);
    (ids.reshape([rows]), log_probs.reshape([rows]))
}

/// How the rows of a batch choose: alike, or each in its own way. Both do the same arithmetic to a row.
enum Choices<B: Backend> {
    /// With one temperature and one nucleus.
    Alike { temperature: f64, top_p: f64 },
    /// Each with its own.
    Each {
        /// `[S, 1]`, 1 for greedy rows.
        inverse_temperature: Tensor<B, 2>,
        /// Which rows are greedy, `[S, 1]`; none if no row is.
        greedy: Option<Tensor<B, 2, Bool>>,
        /// The nucleus of each row, and which rows have none (1), both `[S, 1]`; none if no row has one.
        nucleus: Option<(Tensor<B, 2>, Tensor<B, 2, Bool>)>,
    },
}

impl<B: Backend> Choices<B> {
    /// Of rows with these settings, whose seeds do not matter here.
    fn new(choices: &[RowChoice], device: &B::Device) -> Self {
        let alike = |pair: &[RowChoice]| (pair[0].temperature, pair[0].top_p) == (pair[1].temperature, pair[1].top_p);
        match choices.first() {
            Some(&RowChoice { temperature, top_p, .. }) if choices.windows(2).all(alike) => {
                return Self::Alike { temperature, top_p };
            }
            _ => {}
        }
        let rows = choices.len();
        let column = |of: &dyn Fn(&RowChoice) -> f64| -> Tensor<B, 2> {
            let values: Vec<f32> = choices.iter().map(|s| of(s) as f32).collect();
            Tensor::from_data(TensorData::new(values, [rows, 1]), (device, DType::F32))
        };
        let flags = |of: &dyn Fn(&RowChoice) -> bool| -> Tensor<B, 2, Bool> {
            let values: Vec<bool> = choices.iter().map(of).collect();
            Tensor::from_data(TensorData::new(values, [rows, 1]), device)
        };
        let greedy = |s: &RowChoice| s.temperature == 0.0;
        // A greedy row has no use for its nucleus.
        let whole = |s: &RowChoice| greedy(s) || s.top_p >= 1.0;
        Self::Each {
            inverse_temperature: column(&|s| if greedy(s) { 1.0 } else { 1.0 / s.temperature }),
            greedy: choices.iter().any(&greedy).then(|| flags(&greedy)),
            nucleus: choices.iter().any(|s| !whole(s)).then(|| (column(&|s| s.top_p), flags(&whole))),
        }
    }

    /// Logits `[S, V]` at the temperature of each row; at 1 where it is greedy.
    fn at_temperature(&self, logits: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Alike { temperature, .. } if *temperature > 0.0 && *temperature != 1.0 => {
                logits.mul_scalar(1.0 / temperature)
            }
            Self::Alike { .. } => logits,
            Self::Each { inverse_temperature, .. } => logits.mul(inverse_temperature.clone()),
        }
    }

    /// One id per row out of logits `[S, V]`: `[S, 1]`.
    fn draw(&self, logits: Tensor<B, 2>, uniforms: Tensor<B, 2>) -> Tensor<B, 2, Int> {
        match self {
            Self::Alike { temperature: 0.0, .. } => logits.argmax(1),
            Self::Alike { top_p, .. } => {
                let e = exponentials(logits);
                let e = if *top_p < 1.0 { nucleus(e, |total| total.mul_scalar(*top_p)) } else { e };
                invert(e, uniforms)
            }
            Self::Each { greedy, nucleus: cut, .. } => {
                let best = greedy.clone().map(|greedy| (greedy, logits.clone().argmax(1)));
                let e = exponentials(logits);
                let e = match cut {
                    Some((top_p, whole)) => {
                        let whole = whole.clone().expand(e.dims());
                        nucleus(e.clone(), |total| total.mul(top_p.clone())).mask_where(whole, e)
                    }
                    None => e,
                };
                let drawn = invert(e, uniforms);
                match best {
                    Some((greedy, best)) => drawn.mask_where(greedy, best),
                    None => drawn,
                }
            }
        }
    }
}

/// Probabilities up to a factor, the largest 1: `[S, V]`.
fn exponentials<B: Backend>(logits: Tensor<B, 2>) -> Tensor<B, 2> {
    let top = logits.clone().max_dim(1);
    logits.sub(top).exp()
}

/// Bisections of the nucleus threshold; 24 leave an interval of 1e-6 in the logarithm.
pub(crate) const BISECTIONS: usize = 24;
/// Tokens less likely than this share of the likeliest never are in a nucleus that a bisection can tell.
pub(crate) const FLOOR: f64 = 1e-10;

/// Keeps the fewest likeliest tokens whose probability reaches a share of all of it; `e [S, V]` are probabilities up to
/// a factor, largest 1, and `share` makes of their sums `[S, 1]` what must be reached.
fn nucleus<B: Backend>(e: Tensor<B, 2>, share: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>) -> Tensor<B, 2> {
    let rows = e.dims()[0];
    let device = e.device();
    let target = share(e.clone().sum_dim(1));
    // The largest threshold whose tokens still reach the target lies in [low, high].
    let mut low = Tensor::<B, 2>::full([rows, 1], FLOOR.ln(), &device);
    let mut high = Tensor::<B, 2>::zeros([rows, 1], &device);
    let cut = |threshold: Tensor<B, 2>| {
        let below = e.clone().lower(threshold.exp().expand(e.dims()));
        e.clone().mask_fill(below, 0.0)
    };
    for _ in 0..BISECTIONS {
        let middle = low.clone().add(high.clone()).mul_scalar(0.5);
        let reaches = cut(middle.clone()).sum_dim(1).greater_equal(target.clone());
        low = low.mask_where(reaches.clone(), middle.clone());
        high = middle.mask_where(reaches, high);
    }
    cut(low)
}

/// The token of each row at which the cumulative probability passes the row's share `u [S, 1]`: `e [S, V]` to `[S, 1]`.
fn invert<B: Backend>(e: Tensor<B, 2>, u: Tensor<B, 2>) -> Tensor<B, 2, Int> {
    let [rows, vocab] = e.dims();
    let device = e.device();
    let size = (vocab as f64).sqrt().ceil() as usize;
    let blocks = vocab.div_ceil(size);
    let padded = if blocks * size == vocab {
        e
    } else {
        Tensor::cat(vec![e, Tensor::zeros([rows, blocks * size - vocab], &device)], 1)
    };
    let by_block = padded.reshape([rows, blocks, size]);
    let sums: Tensor<B, 2> = by_block.clone().sum_dim(2).reshape([rows, blocks]);
    let (block, left) = pick(sums, u);
    let first: Vec<i32> = (0..rows as i32).map(|r| r * blocks as i32).collect();
    let first = Tensor::<B, 2, Int>::from_data(TensorData::new(first, [rows, 1]), &device);
    let row_of_block = first.add(block.clone()).reshape([rows]);
    let inside = by_block.reshape([rows * blocks, size]).select(0, row_of_block); // [S, size]
    let (at, _) = pick(inside, left);
    block.mul_scalar(size as i32).add(at)
}

/// The first entry of each row of `e [S, K]` whose cumulative sum exceeds the share `u [S, 1]` of the total, and how
/// far into that entry the share reaches, as a share again. An entry of zero is never picked: its cumulative sum is its
/// predecessor's.
fn pick<B: Backend>(e: Tensor<B, 2>, u: Tensor<B, 2>) -> (Tensor<B, 2, Int>, Tensor<B, 2>) {
    let [rows, k] = e.dims();
    let cumulative = e.clone().cumsum(1);
    let total = cumulative.clone().slice([0..rows, k - 1..k]);
    let target = total.mul(u.clamp(0.0, 1.0 - 1e-6));
    let passed = cumulative.clone().lower_equal(target.clone().expand([rows, k]));
    let at = passed.int().sum_dim(1).clamp(0, k as i32 - 1);
    let mass = e.gather(1, at.clone());
    let before = cumulative.gather(1, at.clone()).sub(mass.clone());
    let share = target.sub(before).div(mass.clamp_min(1e-30)).clamp(0.0, 1.0);
    (at, share)
}
