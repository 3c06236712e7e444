//! The likeliest tokens beside the one that is drawn, for requests that ask for them.

use burn::tensor::{DType, Int, Tensor, TensorData};
use kernels::host::{self, DeviceError, int_tensor};
use kernels::{Kernels, LmHead};
use serde::{Deserialize, Serialize};

use crate::sampler::Sampling;
use crate::waiting::ResponsePlace;

/// Most tokens of a step that a request can ask for.
pub const MOST_TOP_LOG_PROBS: usize = 20;
/// What is added to the logits of tokens that were taken already; those that may not be drawn have 1e-30 of it.
const TAKEN: f32 = -3e38;
/// Scaled logits below this are those of no token that may be drawn.
const ALLOWED: f32 = -1e29;

/// A token and its log-prob.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TokenLogProb {
    /// The token.
    pub id: u32,
    /// Of the whole distribution at the request's temperature (at 1 when greedy).
    pub log_prob: f32,
}

/// The `k` likeliest tokens of each row of `hidden [S, d]` among those that may be drawn, likeliest first: ids and
/// log-probs in turn, `[S, 2k]`, on the device. `sampling` has one entry per row; `forbidden` is as for
/// [`sample`](crate::sampler::sample). Ids are exact below 2^24.
fn likeliest<B: Kernels>(
    hidden: Tensor<B, 2>,
    head: LmHead<B>,
    sampling: &[&Sampling],
    forbidden: Option<&Tensor<B, 2>>,
    k: usize,
) -> Tensor<B, 2> {
    let (rows, vocab, device) = (sampling.len(), head.vocab(), hidden.device());
    let at_temperature = |s: &&Sampling| if s.temperature > 0.0 { (1.0 / s.temperature) as f32 } else { 1.0 };
    let inverse: Vec<f32> = sampling.iter().map(at_temperature).collect();
    let logits = kernels::params::to_f32(head.logits(hidden));
    let z = logits.mul(Tensor::<B, 2>::from_data(TensorData::new(inverse, [rows, 1]), (&device, DType::F32)));
    let max = z.clone().max_dim(1);
    let log_sum = z.clone().sub(max.clone()).exp().sum_dim(1).log().add(max);
    let mut left = match forbidden {
        Some(mask) => z.add(mask.clone()),
        None => z,
    };
    let ids = Tensor::<B, 1, Int>::arange(0..vocab as i64, &device).reshape([1, vocab]);
    let mut out = Vec::with_capacity(2 * k);
    for _ in 0..k {
        let best = left.clone().argmax(1);
        let logit = left.clone().gather(1, best.clone());
        let taken = ids.clone().expand([rows, vocab]).equal(best.clone().expand([rows, vocab]));
        left = left.mask_fill(taken, TAKEN);
        out.push(kernels::params::to_f32(best.float()));
        out.push(logit.sub(log_sum.clone()));
    }
    Tensor::cat(out, 1)
}

/// Lists of the likeliest tokens that wait on the device, like [`WaitingNumbers`](crate::waiting::WaitingNumbers).
#[derive(Debug)]
pub(crate) struct WaitingTops<B: Kernels> {
    /// One a step, flat.
    parts: Vec<Tensor<B, 1>>,
    /// Whose each list is, how many tokens it has, and how many of them were asked for.
    owners: Vec<(ResponsePlace, usize, usize)>,
}

impl<B: Kernels> Default for WaitingTops<B> {
    fn default() -> Self {
        Self { parts: vec![], owners: vec![] }
    }
}

/// A row whose request asks for the likeliest tokens.
pub(crate) struct TopRow<'a> {
    /// Its place in the batch.
    pub row: usize,
    pub place: ResponsePlace,
    pub sampling: &'a Sampling,
    /// How many are asked for.
    pub wanted: usize,
}

impl<B: Kernels> WaitingTops<B> {
    /// Adds one list for each of `rows`, from all states `[S, d]` of the batch; `forbidden` are those of `rows`.
    pub(crate) fn push(
        &mut self,
        states: &Tensor<B, 2>,
        head: LmHead<B>,
        rows: &[TopRow],
        forbidden: Option<&Tensor<B, 2>>,
    ) {
        let k = rows.iter().map(|row| row.wanted).max().unwrap_or(0).min(head.vocab());
        if k == 0 {
            return;
        }
        let vocab = head.vocab();
        let step = (B::logits_at_once() / head.widest().max(1)).max(1);
        for (part, rows) in rows.chunks(step).enumerate() {
            let own = states.clone().select(0, int_tensor(rows.iter().map(|row| row.row), &states.device()));
            let sampling: Vec<&Sampling> = rows.iter().map(|row| row.sampling).collect();
            let first = part * step;
            let mask = forbidden.map(|mask| match mask.dims()[0] {
                1 => mask.clone(),
                _ => mask.clone().slice([first..first + rows.len(), 0..vocab]),
            });
            let found = likeliest(own, head, &sampling, mask.as_ref(), k);
            self.parts.push(found.reshape([rows.len() * 2 * k]));
            self.owners.extend(rows.iter().map(|row| (row.place, k, row.wanted)));
        }
    }

    /// Gives every list to its response, in the order of the tokens, in one transfer.
    ///
    /// # Errors
    /// A device that cannot be read; the lists are lost.
    pub(crate) fn read(&mut self, mut give: impl FnMut(ResponsePlace, Vec<TokenLogProb>)) -> Result<(), DeviceError> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let values = host::floats(Tensor::cat(std::mem::take(&mut self.parts), 0))?;
        let mut at = 0;
        for (place, tokens, wanted) in self.owners.drain(..) {
            let list = values.get(at..at + 2 * tokens).unwrap_or_default();
            at += 2 * tokens;
            let pairs = list.chunks_exact(2).take(wanted).filter(|pair| pair[1].is_nan() || pair[1] > ALLOWED);
            give(place, pairs.map(|pair| TokenLogProb { id: pair[0] as u32, log_prob: pair[1] }).collect());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestId;
    use crate::sampler::suppression;

    type B = burn_flex::Flex<f32, i32>;

    /// Rows with temperatures and lengths of their own, in whatever parts the device computes them: the likeliest that
    /// may be drawn, with the log-probs of the whole distribution.
    #[test]
    fn the_likeliest_tokens_are_those_of_a_sorted_distribution() {
        let device = Default::default();
        let logits = [0.5f32, 3.0, -1.0, 2.5, 9.0, 0.0];
        let weight = Tensor::<B, 2>::from_data(TensorData::new(logits.to_vec(), [6, 1]), &device);
        let states = Tensor::<B, 2>::from_data([[1.0f32], [7.0], [2.0]], &device);
        let of = |temperature| Sampling { temperature, top_p: 0.5, seed: 0 };
        let settings = [of(0.5), of(0.0)];
        let row = |row: usize, i: usize, wanted| TopRow {
            row,
            place: (RequestId(row as u64), 0),
            sampling: &settings[i],
            wanted,
        };
        let mask = suppression(&[4], 6, &device);
        let mut waiting = WaitingTops::<B>::default();
        waiting.push(&states, (&weight).into(), &[row(0, 0, 2), row(2, 1, 20)], mask.as_ref());
        let mut lists = vec![];
        waiting.read(|place, list| lists.push((place.0, list))).unwrap();
        let expected = |scale: f64, wanted: usize| {
            let log_sum = logits.iter().map(|l| (f64::from(*l) * scale).exp()).sum::<f64>().ln();
            let mut all: Vec<usize> = (0..6).filter(|id| *id != 4).collect();
            all.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
            all.into_iter()
                .take(wanted)
                .map(|id| (id as u32, f64::from(logits[id]) * scale - log_sum))
                .collect::<Vec<_>>()
        };
        // The state of row 2 is twice the logits, at temperature 1; row 0 is at temperature 1/2.
        for (i, (wanted, row)) in [(2, 0), (20, 2)].into_iter().enumerate() {
            let (place, list) = &lists[i];
            assert_eq!(*place, RequestId(row));
            let expected = expected(2.0, wanted);
            assert_eq!(list.len(), expected.len(), "{list:?}");
            for (found, (id, log_prob)) in list.iter().zip(expected) {
                assert!(found.id == id && (f64::from(found.log_prob) - log_prob).abs() < 1e-5, "{found:?} {log_prob}");
            }
        }
        waiting.read(|_, _| panic!("they were read")).unwrap();
    }
}
