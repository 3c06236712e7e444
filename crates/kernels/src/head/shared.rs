//! The log-prob head over ranks that share the vocabulary out: each computes the logits of its ids, and of each row the
//! ranks tell each other four numbers, from which all compute the same log-sum-exp, log-prob and entropy. Rows are
//! taken in chunks; a call has one such exchange, however many chunks it has.

use burn::tensor::{Bool, DType, IndexingUpdateOp, Int, Tensor};

use super::{CPU_LOGITS, HeadOutput, LmHead, VocabShards, chunks};
use crate::collective;
use crate::ops::Kernels;
use crate::params::{cast_to, to_f32, zeros};

/// What all ranks know of the rows of a call, `[M, 1]` in f32 each.
struct Statistics<B: Kernels> {
    /// Largest logit, of all ids.
    max: Tensor<B, 2>,
    /// `log sum exp(z - max)`
    log_sum: Tensor<B, 2>,
    /// `sum p (z - max)`
    mean: Tensor<B, 2>,
    /// The target's logit; 0 without targets.
    target: Tensor<B, 2>,
}

impl<B: Kernels> Statistics<B> {
    /// `-sum p log p`
    fn entropy(&self) -> Tensor<B, 2> {
        self.log_sum.clone().sub(self.mean.clone())
    }

    /// `log p` of scaled logits `z [c, V']` of the rows from `a` on.
    fn log_softmax(&self, z: Tensor<B, 2>, a: usize) -> Tensor<B, 2> {
        let rows = z.dims()[0];
        let of = |t: &Tensor<B, 2>| t.clone().narrow(0, a, rows);
        z.sub(of(&self.max)).sub(of(&self.log_sum))
    }
}

/// A head that is shared out, and how its logits are scaled.
pub(super) struct SharedHead<'a, B: Kernels> {
    weight: &'a Tensor<B, 2>,
    vocab: &'a VocabShards,
    temperature: f64,
}

impl<'a, B: Kernels> SharedHead<'a, B> {
    /// None where one rank has it all.
    pub(super) fn new(head: LmHead<'a, B>, temperature: f64) -> Option<Self> {
        head.shared.map(|vocab| Self { weight: head.weight, vocab, temperature })
    }

    /// Rows of each chunk of `m` rows.
    fn chunks(&self, m: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> {
        chunks(m, self.weight.dims()[0], CPU_LOGITS)
    }

    /// Scaled logits `[c, V']` in f32 of this rank's ids.
    fn scaled(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let z = to_f32(B::matmul(hidden, self.weight.clone().transpose()));
        if self.temperature == 1.0 { z } else { z.mul_scalar(1.0 / self.temperature) }
    }

    /// Columns of the targets among this rank's ids, `[M, 1]`, and which targets are another rank's.
    fn columns(&self, targets: Tensor<B, 1, Int>) -> (Tensor<B, 2, Int>, Tensor<B, 2, Bool>) {
        let own = self.vocab.own();
        let targets: Tensor<B, 2, Int> = targets.unsqueeze_dim(1);
        let below = targets.clone().lower_elem(own.start as i32);
        let others = below.bool_or(targets.clone().greater_equal_elem(own.end as i32));
        (targets.sub_scalar(own.start as i32).clamp(0, own.len() as i32 - 1), others)
    }

    /// What this rank can say of the rows: `[M, 4]` of the largest of its logits, the sum of their exponentials beside
    /// it, the sum of those times the logits beside it, and the target's logit if it is its own.
    fn own_statistics(&self, hidden: &Tensor<B, 2>, targets: Option<&Tensor<B, 1, Int>>) -> Tensor<B, 2> {
        let [m, d] = hidden.dims();
        let rows = self.chunks(m).map(|(a, b)| {
            let z = self.scaled(hidden.clone().slice([a..b, 0..d]));
            let max = z.clone().max_dim(1);
            let beside = z.clone().sub(max.clone());
            let e = beside.clone().exp();
            let target = match targets {
                Some(targets) => {
                    let (columns, others) = self.columns(targets.clone().slice(a..b));
                    z.gather(1, columns).mask_fill(others, 0.0)
                }
                None => Tensor::zeros([b - a, 1], (&hidden.device(), DType::F32)),
            };
            Tensor::cat(vec![max, e.clone().sum_dim(1), e.mul(beside).sum_dim(1), target], 1)
        });
        Tensor::cat(rows.collect(), 0)
    }

    /// What all ranks together can say of `m` rows, of which `own [m, 4]` is this rank's.
    fn exchange(&self, own: Tensor<B, 2>) -> Statistics<B> {
        let (m, ranks) = (own.dims()[0], &self.vocab.ranks);
        let all = collective::rows(own, &vec![m; ranks.size()], ranks, "statistics of the head");
        let all: Tensor<B, 3> = all.reshape([ranks.size(), m, 4]);
        let column = |k: usize| all.clone().narrow(2, k, 1); // [ranks, M, 1]
        let joined = |t: Tensor<B, 3>| -> Tensor<B, 2> { t.reshape([m, 1]) };
        let max = column(0).max_dim(0);
        let beside = column(0).sub(max.clone());
        let share = beside.clone().exp();
        let sum = share.clone().mul(column(1)).sum_dim(0);
        let mean = share.mul(column(2).add(beside.mul(column(1)))).sum_dim(0).div(sum.clone());
        Statistics {
            max: joined(max),
            log_sum: joined(sum).log(),
            mean: joined(mean),
            target: joined(column(3).sum_dim(0)),
        }
    }

    /// See [`log_probs`](super::log_probs).
    pub(super) fn log_probs(
        &self,
        hidden: &Tensor<B, 2>,
        targets: &Tensor<B, 1, Int>,
        with_entropy: bool,
    ) -> HeadOutput<B> {
        let [m, _] = hidden.dims();
        if m == 0 {
            let none = zeros([0], &hidden.device(), DType::F32);
            return HeadOutput { entropy: with_entropy.then(|| none.clone()), log_probs: none };
        }
        let all = self.exchange(self.own_statistics(hidden, Some(targets)));
        let entropy = with_entropy.then(|| all.entropy().reshape([m]));
        HeadOutput { log_probs: all.log_softmax(all.target.clone(), 0).reshape([m]), entropy }
    }

    /// The gradients of [`log_probs`](Self::log_probs): `dhidden [M, d]`, the same on all ranks, and `dweight [V', d]`
    /// of this rank's rows where the head `learns`.
    pub(super) fn backward(
        &self,
        hidden: Tensor<B, 2>,
        targets: &Tensor<B, 1, Int>,
        d_log_probs: &Tensor<B, 1>,
        d_entropy: Option<&Tensor<B, 1>>,
        learns: bool,
    ) -> (Tensor<B, 2>, Option<Tensor<B, 2>>) {
        let ([m, d], dtype) = (hidden.dims(), hidden.dtype());
        let mut dw = learns.then(|| zeros(self.weight.dims(), &self.weight.device(), DType::F32));
        if m == 0 {
            return (hidden, dw);
        }
        let all = self.exchange(self.own_statistics(&hidden, None));
        let neg_entropy = all.entropy().neg();
        let mut parts = Vec::new();
        for (a, b) in self.chunks(m) {
            let rows = |t: &Tensor<B, 1>| -> Tensor<B, 2> { t.clone().slice(a..b).unsqueeze_dim(1) };
            let h = hidden.clone().slice([a..b, 0..d]);
            let log_p = all.log_softmax(self.scaled(h.clone()), a);
            let p = log_p.clone().exp();
            let dl = rows(d_log_probs);
            // d logp_target / dz = onehot - p ; dH / dz = -p (log p + H)
            let mut dz = p.clone().mul(dl.clone().neg());
            if let Some(de) = d_entropy {
                let beside = log_p.sub(neg_entropy.clone().narrow(0, a, b - a));
                dz = dz.sub(p.mul(beside).mul(rows(de)));
            }
            let (columns, others) = self.columns(targets.clone().slice(a..b));
            dz = dz.scatter(1, columns, dl.mask_fill(others, 0.0), IndexingUpdateOp::Add);
            if self.temperature != 1.0 {
                dz = dz.mul_scalar(1.0 / self.temperature);
            }
            let dz = cast_to(dz, dtype);
            dw = dw.map(|dw| dw.add(B::weight_gradient(dz.clone(), h)));
            parts.push(B::matmul(dz, self.weight.clone()));
        }
        (collective::sum(Tensor::cat(parts, 0), &self.vocab.ranks, "gradient of the head"), dw)
    }

    /// See [`kl_divergence`](super::kl_divergence).
    pub(super) fn kl_divergence(&self, p: &Tensor<B, 2>, q: &Tensor<B, 2>) -> Tensor<B, 1> {
        let [m, d] = p.dims();
        if m == 0 {
            return zeros([0], &p.device(), DType::F32);
        }
        let own = [p, q].map(|states| self.own_statistics(states, None));
        let all = self.exchange(Tensor::cat(own.to_vec(), 0));
        let parts = self.chunks(m).map(|(a, b)| {
            let z = |states: &Tensor<B, 2>| self.scaled(states.clone().slice([a..b, 0..d]));
            let (log_p, log_q) = (all.log_softmax(z(p), a), all.log_softmax(z(q), m + a));
            let p = log_p.clone().exp();
            // As for one rank: the sum of -P + Q, over all ids, is 0, and no term is negative.
            p.clone().mul(log_p.sub(log_q.clone())).sub(p).add(log_q.exp()).sum_dim(1).reshape([b - a])
        });
        let sum = collective::sum(Tensor::cat(parts.collect(), 0), &self.vocab.ranks, "divergence");
        let below = sum.clone().lower_elem(0.0);
        sum.mask_fill(below, 0.0)
    }
}
