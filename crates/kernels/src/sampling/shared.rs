//! Tokens out of logits that ranks share out: no rank sees another one's, and what they tell each other of a row does
//! not grow with the vocabulary.
//!
//! | what | numbers a row |
//! |---|---|
//! | each rank's largest logit and sum of exponentials, with all its ids and with those that may be drawn | 4 |
//! | with a nucleus: the mass above 7 thresholds at a time, 8 times, and then that of what is left | 57 |
//! | the rank in whose ids the token lies and how far into their mass, as the first rank says | 2 |
//! | the token and its logit, by the rank that has it | 2 |
//!
//! It is the arithmetic of one rank but for the order of sums over the vocabulary, so the token is one rank's unless
//! the uniform number lies within the rounding of such a sum from the end of its share. All ranks get the same: what
//! decides is compared and never computed from anything but what all have been told, and the one quotient is the first
//! rank's.

use burn::tensor::{Bool, DType, Int, Tensor, TensorData, backend::Backend};

use super::{BISECTIONS, FLOOR, RowChoice, invert, pick};
use crate::collective;
use crate::head::VocabShards;
use crate::ops::Kernels;
use crate::params::{cast_to, to_f32, zeros};

/// The calls by which ranks sample together.
pub const SAMPLED: &str = "sampled tokens";

/// Bisections of the nucleus between two calls: the thresholds of all their outcomes are summed at once.
const TOGETHER: usize = 3;
const _: () = assert!(BISECTIONS.is_multiple_of(TOGETHER));

/// How the rows choose, on the device.
struct RowSettings<B: Backend> {
    /// `[S, 1]`
    uniform: Tensor<B, 2>,
    /// `[S, 1]`, 1 for greedy rows.
    inverse_temperature: Tensor<B, 2>,
    /// The nucleus of each row, and which rows have none, both `[S, 1]`; none if no row has one.
    nucleus: Option<(Tensor<B, 2>, Tensor<B, 2, Bool>)>,
    /// Which rows are greedy, `[S, 1]`; none if no row is.
    greedy: Option<Tensor<B, 2, Bool>>,
    /// Whether every row is.
    all_greedy: bool,
}

impl<B: Backend> RowSettings<B> {
    fn new(choices: &[RowChoice], device: &B::Device) -> Self {
        let greedy = |s: &RowChoice| s.temperature == 0.0;
        // A greedy row has no use for its nucleus.
        let whole = |s: &RowChoice| greedy(s) || s.top_p >= 1.0;
        let numbers = choices.iter().flat_map(|s| {
            let inverse = if greedy(s) { 1.0 } else { 1.0 / s.temperature };
            let flag = |yes: bool| f32::from(u8::from(yes));
            [s.uniform, inverse as f32, s.top_p as f32, flag(whole(s)), flag(greedy(s))]
        });
        let data = TensorData::new(numbers.collect::<Vec<f32>>(), [choices.len(), 5]);
        let all = Tensor::<B, 2>::from_data(data, (device, DType::F32));
        let column = |k: usize| all.clone().narrow(1, k, 1);
        let set = |k: usize| column(k).greater_elem(0.5);
        Self {
            uniform: column(0),
            inverse_temperature: column(1),
            nucleus: choices.iter().any(|s| !whole(s)).then(|| (column(2), set(3))),
            greedy: choices.iter().any(greedy).then(|| set(4)),
            all_greedy: choices.iter().all(greedy),
        }
    }
}

/// This rank's part of the rows, and how it asks the others.
struct PartOfRows<'a, B: Backend> {
    vocab: &'a VocabShards,
    /// Logits `[S, V']` at the temperature of each row.
    z: Tensor<B, 2>,
    /// The same of what may be drawn.
    allowed: Tensor<B, 2>,
}

/// What all ranks know of the rows.
struct KnownOfRows<B: Backend> {
    /// `log sum exp` of all logits, `[S, 1]`.
    log_sum: Tensor<B, 2>,
    /// The largest logit that may be drawn, `[S, 1]`.
    top: Tensor<B, 2>,
    /// Of each rank the sum of `exp(z - top)` over what may be drawn, `[S, T]`.
    masses: Tensor<B, 2>,
    /// The first rank that has the largest, `[S, 1]`.
    likeliest: Tensor<B, 2, Int>,
}

impl<B: Kernels> PartOfRows<'_, B> {
    fn rows(&self) -> usize {
        self.z.dims()[0]
    }

    /// Numbers of all ranks, of each `own [S, K]`: `[S, T, K]`.
    fn told(&self, own: Tensor<B, 2>) -> Tensor<B, 3> {
        let ([rows, k], ranks) = (own.dims(), &self.vocab.ranks);
        let all = collective::rows(own, &vec![rows; ranks.size()], ranks, SAMPLED);
        all.reshape([ranks.size(), rows, k]).swap_dims(0, 1)
    }

    /// The same of one number each: `[S, 1]` to `[S, T]`.
    fn told_one(&self, own: Tensor<B, 2>) -> Tensor<B, 2> {
        let shape = [self.rows(), self.vocab.ranks.size()];
        self.told(own).reshape(shape)
    }

    fn exchange(&self) -> KnownOfRows<B> {
        let statistics = |z: &Tensor<B, 2>| {
            let max = z.clone().max_dim(1);
            [max.clone(), z.clone().sub(max).exp().sum_dim(1)]
        };
        let own = [statistics(&self.z), statistics(&self.allowed)].concat();
        let (rows, ranks) = (self.rows(), self.vocab.ranks.size());
        let all = self.told(Tensor::cat(own, 1));
        let column = |k: usize| -> Tensor<B, 2> { all.clone().narrow(2, k, 1).reshape([rows, ranks]) };
        let joined = |k: usize| {
            let max = column(k).max_dim(1);
            let sums = column(k).sub(max.clone()).exp().mul(column(k + 1));
            (max, sums)
        };
        let (max, sums) = joined(0);
        let (top, masses) = joined(2);
        let has_top = column(2).greater_equal(top.clone().expand([rows, ranks]));
        let before = has_top.int().cumsum(1).equal_elem(0).int().sum_dim(1);
        let likeliest = before.clamp(0, ranks as i32 - 1);
        KnownOfRows { log_sum: sums.sum_dim(1).log().add(max), top, masses, likeliest }
    }

    /// The logarithm of the least probability, up to the factor that makes the largest 1, of the tokens of each row's
    /// nucleus, `[S, 1]`: where bisection ends that goes on while the tokens above it reach `target [S, 1]`. `e [S,
    /// V']` are such probabilities.
    fn nucleus(&self, e: &Tensor<B, 2>, target: Tensor<B, 2>) -> Tensor<B, 2> {
        let (rows, device) = (self.rows(), e.device());
        let mut low = Tensor::<B, 2>::full([rows, 1], FLOOR.ln(), (&device, DType::F32));
        let mut high = Tensor::<B, 2>::zeros([rows, 1], (&device, DType::F32));
        for _ in 0..BISECTIONS / TOGETHER {
            let mut marks = vec![low, high];
            for _ in 0..TOGETHER {
                marks = between(&marks);
            }
            let inside = &marks[1..marks.len() - 1];
            let above = inside.iter().map(|mark| cut(e, mark.clone().exp()).sum_dim(1));
            let above = collective::sum(Tensor::cat(above.collect(), 1), &self.vocab.ranks, SAMPLED);
            let reached = above.greater_equal(target.clone().expand([rows, inside.len()])).int().sum_dim(1);
            let marks = Tensor::cat(marks, 1);
            low = marks.clone().gather(1, reached.clone());
            high = marks.gather(1, reached.add_scalar(1));
        }
        low
    }

    /// Which rank has the token of each row, and how far into its mass it lies, both `[S, 1]`; and this rank's
    /// probabilities `[S, V']`, up to a factor.
    fn choose(
        &self,
        known: &KnownOfRows<B>,
        settings: &RowSettings<B>,
    ) -> (Tensor<B, 2, Int>, Tensor<B, 2>, Tensor<B, 2>) {
        let mut e = self.allowed.clone().sub(known.top.clone()).exp();
        let mut masses = known.masses.clone();
        if let Some((share, whole)) = &settings.nucleus {
            let target = masses.sum_dim(1).mul(share.clone());
            let least = self.nucleus(&e, target).exp().mask_fill(whole.clone(), 0.0);
            e = cut(&e, least);
            masses = self.told_one(e.clone().sum_dim(1));
        }
        let (owner, share) = pick(masses, settings.uniform.clone());
        let own = Tensor::cat(vec![cast_to(owner.float(), DType::F32), share], 1);
        let first: Tensor<B, 2> = self.told(own).narrow(1, 0, 1).reshape([self.rows(), 2]);
        (first.clone().narrow(1, 0, 1).int(), first.narrow(1, 1, 1), e)
    }

    /// See [`sample`].
    fn sample(&self, settings: &RowSettings<B>) -> (Tensor<B, 1, Int>, Tensor<B, 1>) {
        let (rows, own, ranks) = (self.rows(), self.vocab.own(), &self.vocab.ranks);
        let known = self.exchange();
        let best = || self.allowed.clone().argmax(1);
        let (owner, at) = match settings.all_greedy {
            true => (known.likeliest, best()),
            false => {
                let (owner, share, e) = self.choose(&known, settings);
                // Beyond its ids where it has no mass at all, and another rank has the token.
                let at = invert(e, share).clamp(0, own.len() as i32 - 1);
                match &settings.greedy {
                    Some(greedy) => {
                        (owner.mask_where(greedy.clone(), known.likeliest), at.mask_where(greedy.clone(), best()))
                    }
                    None => (owner, at),
                }
            }
        };
        let id = cast_to(at.clone().add_scalar(own.start as i32).float(), DType::F32);
        let found = Tensor::cat(vec![id, self.z.clone().gather(1, at)], 1);
        let others = owner.not_equal_elem(ranks.rank() as i32).expand([rows, 2]);
        // One rank's number and zeros: no sum rounds it.
        let found = collective::sum(found.mask_fill(others, 0.0), ranks, SAMPLED);
        let log_probs = found.clone().narrow(1, 1, 1).sub(known.log_sum);
        (found.narrow(1, 0, 1).int().reshape([rows]), log_probs.reshape([rows]))
    }
}

/// Numbers in ascending order with the middle of each two between them.
fn between<B: Backend>(marks: &[Tensor<B, 2>]) -> Vec<Tensor<B, 2>> {
    let mut all = vec![marks[0].clone()];
    for pair in marks.windows(2) {
        all.extend([pair[0].clone().add(pair[1].clone()).mul_scalar(0.5), pair[1].clone()]);
    }
    all
}

/// `e [S, V']` without what is below `threshold [S, 1]`.
fn cut<B: Backend>(e: &Tensor<B, 2>, threshold: Tensor<B, 2>) -> Tensor<B, 2> {
    let below = e.clone().lower(threshold.expand(e.dims()));
    e.clone().mask_fill(below, 0.0)
}

/// See [`sample_tokens`](super::sample_tokens), out of this rank's logits `[S, V']`; the same on all ranks. Fewer than
/// 2^24 ids, which f32 counts.
pub(super) fn sample<B: Kernels>(
    logits: Tensor<B, 2>,
    vocab: &VocabShards,
    choices: &[RowChoice],
    forbidden: Option<&Tensor<B, 2>>,
) -> (Tensor<B, 1, Int>, Tensor<B, 1>) {
    let (device, own) = (logits.device(), vocab.own());
    if choices.is_empty() {
        return (Tensor::empty([0], &device), zeros([0], &device, DType::F32));
    }
    let settings = RowSettings::new(choices, &device);
    let z = to_f32(logits).mul(settings.inverse_temperature.clone());
    let allowed = match forbidden {
        Some(mask) => z.clone().add(mask.clone().narrow(1, own.start, own.len())),
        None => z.clone(),
    };
    PartOfRows { vocab, z, allowed }.sample(&settings)
}

#[cfg(test)]
mod tests;
