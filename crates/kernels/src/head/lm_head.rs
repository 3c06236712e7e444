//! The matrix of the head, whole or shared out over ranks.

use std::ops::Range;

use burn::tensor::{DType, Tensor, backend::Backend};
use comm::Ranks;

use crate::collective;
use crate::ops::Kernels;

/// The matrix whose product with hidden states are the logits.
#[derive(Debug)]
pub struct LmHead<'a, B: Backend> {
    /// `[V, d]`, or this rank's rows of it.
    pub weight: &'a Tensor<B, 2>,
    /// Who has which rows, where they are shared out.
    pub shared: Option<&'a VocabShards>,
    /// Whether it does not learn: no gradient of it is computed.
    pub frozen: bool,
}

/// A vocabulary that ranks share out.
#[derive(Debug, Clone)]
pub struct VocabShards {
    /// The ranks.
    pub ranks: Ranks,
    /// The ids of each, ascending and without a gap; none is empty.
    pub ids: Vec<Range<usize>>,
}

impl<B: Backend> Clone for LmHead<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for LmHead<'_, B> {}

impl<'a, B: Backend> From<&'a Tensor<B, 2>> for LmHead<'a, B> {
    fn from(weight: &'a Tensor<B, 2>) -> Self {
        Self { weight, shared: None, frozen: false }
    }
}

impl<B: Kernels> LmHead<'_, B> {
    /// Entries of the whole vocabulary, `V`.
    pub fn vocab(&self) -> usize {
        self.shared.map_or(self.weight.dims()[0], VocabShards::vocab)
    }

    /// Most logits of a row that a rank holds, the same on all of them.
    pub fn widest(&self) -> usize {
        let of_ranks = self.shared.and_then(|shared| shared.ids.iter().map(Range::len).max());
        of_ranks.unwrap_or(self.weight.dims()[0])
    }

    /// The weight's number format.
    pub fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    /// Logits `[M, V]` of hidden states `[M, d]`, the same on all ranks. For a few rows only: training takes
    /// [`log_probs`](super::log_probs).
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        let own = B::affine(hidden, self.weight, None);
        let Some(shared) = self.shared else { return own };
        let [rows, _] = own.dims();
        // Ranks' columns lie side by side as the rows of what is transposed lie below each other.
        let parts: Vec<usize> = shared.ids.iter().map(Range::len).collect();
        collective::rows(own.transpose(), &parts, &shared.ranks, "logits").transpose().reshape([rows, self.vocab()])
    }
}

impl VocabShards {
    /// `vocab` ids in equal parts, as far as that is possible.
    pub fn new(vocab: usize, ranks: Ranks) -> Self {
        let parts = ranks.size();
        Self { ids: (0..parts).map(|rank| Self::nth(vocab, rank, parts)).collect(), ranks }
    }

    /// The ids of the `rank`-th of `parts` ranks.
    pub fn nth(vocab: usize, rank: usize, parts: usize) -> Range<usize> {
        vocab * rank / parts..vocab * (rank + 1) / parts
    }

    /// Entries of all ranks together, `V`.
    pub fn vocab(&self) -> usize {
        self.ids.last().map_or(0, |last| last.end)
    }

    /// The ids of this rank.
    pub fn own(&self) -> Range<usize> {
        self.ids[self.ranks.rank()].clone()
    }
}
