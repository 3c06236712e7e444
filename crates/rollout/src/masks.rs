//! Tokens that may not be drawn: one mask on the device per list of ids, shared by the rows that have the same list.

use std::collections::HashSet;
use std::sync::Arc;

use burn::tensor::{Tensor, backend::Backend};
use kernels::host::int_tensor;

use crate::request::{RequestError, ResponseLimits};
use crate::sampler::suppression;

/// Masks that are kept though no row has them: those of the next wave are often the same.
const SPARE: usize = 16;

/// The ids that a row may not draw, on the device.
#[derive(Debug)]
pub(crate) struct TokenMask<B: Backend> {
    forbidden: Vec<u32>,
    /// `[1, V]`, added to the logits; none where every token may be drawn.
    mask: Option<Tensor<B, 2>>,
}

/// The masks of one request.
#[derive(Debug, Clone)]
pub(crate) struct RequestMasks<B: Backend> {
    /// Before `min_new_tokens`, if there is such a time: end tokens are forbidden, too.
    pub early: Option<Arc<TokenMask<B>>>,
    /// From then on.
    pub free: Arc<TokenMask<B>>,
}

/// All masks of a decode batch.
#[derive(Debug)]
pub(crate) struct MaskTable<B: Backend> {
    known: Vec<Arc<TokenMask<B>>>,
    /// All of `known`, `[masks, V]`, as soon as one batch needs several.
    stacked: Option<Tensor<B, 2>>,
}

impl<B: Backend> Default for MaskTable<B> {
    fn default() -> Self {
        Self { known: vec![], stacked: None }
    }
}

impl<B: Backend> MaskTable<B> {
    /// The masks of a request over a vocabulary of `vocab` ids.
    ///
    /// # Errors
    /// [`RequestError::NothingToDraw`] where they leave nothing.
    pub(crate) fn of(
        &mut self,
        limits: &ResponseLimits,
        vocab: usize,
        device: &B::Device,
    ) -> Result<RequestMasks<B>, RequestError> {
        let early = match limits.min_new_tokens {
            0 => None,
            _ => Some(self.mask(limits.suppress.iter().chain(&*limits.eos), vocab, device)?),
        };
        Ok(RequestMasks { early, free: self.mask(limits.suppress.iter(), vocab, device)? })
    }

    fn mask<'a>(
        &mut self,
        ids: impl Iterator<Item = &'a u32>,
        vocab: usize,
        device: &B::Device,
    ) -> Result<Arc<TokenMask<B>>, RequestError> {
        let forbidden: Vec<u32> = ids.copied().collect();
        if let Some(known) = self.known.iter().find(|mask| mask.forbidden == forbidden) {
            return Ok(known.clone());
        }
        let inside: HashSet<u32> = forbidden.iter().copied().filter(|&id| (id as usize) < vocab).collect();
        if inside.len() >= vocab {
            return Err(RequestError::NothingToDraw { vocab });
        }
        if self.known.len() >= SPARE {
            self.known.retain(|mask| Arc::strong_count(mask) > 1);
        }
        self.stacked = None;
        let mask = Arc::new(TokenMask { mask: suppression(&forbidden, vocab, device), forbidden });
        self.known.push(mask.clone());
        Ok(mask)
    }

    /// What to add to the logits of rows with these masks: `[1, V]` if they share one, else `[S, V]`; none if every
    /// token may be drawn in every row.
    pub(crate) fn of_rows(
        &mut self,
        rows: &[&Arc<TokenMask<B>>],
        vocab: usize,
        device: &B::Device,
    ) -> Option<Tensor<B, 2>> {
        let first = rows.first()?;
        if rows.iter().all(|mask| Arc::ptr_eq(mask, first)) {
            return first.mask.clone();
        }
        let known = &self.known;
        let stacked = self.stacked.get_or_insert_with(|| {
            let all = known.iter().map(|m| m.mask.clone().unwrap_or_else(|| Tensor::zeros([1, vocab], device)));
            Tensor::cat(all.collect(), 0)
        });
        // A row's mask is in the table for as long as the row is there.
        let place = |mask: &Arc<TokenMask<B>>| known.iter().position(|other| Arc::ptr_eq(mask, other)).unwrap_or(0);
        Some(stacked.clone().select(0, int_tensor(rows.iter().map(|mask| place(mask)), device)))
    }
}
