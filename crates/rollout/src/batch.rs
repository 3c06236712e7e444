//! The rows that are decoded together: each step samples one token for each and runs one forward pass.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Int, Tensor};
use kernels::Kernels;
use kernels::host::{self, DeviceError, int_tensor};
use policy::{Decoding, PackedBatch, Prompt};
use vgpo::{FOCUS_EPS, Prototype, RowPrototypes};

use crate::engine::RolloutStats;
use crate::focus;
use crate::image_cache::ImageCache;
use crate::masks::{MaskTable, RequestMasks, TokenMask};
use crate::request::{FinishReason, RequestId, RolloutError, RolloutRequest};
use crate::sampler::{Sampling, sample, uniform};
use crate::top::{TopRow, WaitingTops};
use crate::waiting::{ResponsePlace, WaitingNumbers};

/// A request whose prompt is computed next.
pub(crate) struct AdmittedRequest<B: Kernels> {
    pub id: RequestId,
    pub request: Arc<RolloutRequest>,
    pub masks: RequestMasks<B>,
}

/// A response that is being decoded.
struct DecodedRow<B: Kernels> {
    place: ResponsePlace,
    request: Arc<RolloutRequest>,
    masks: RequestMasks<B>,
    /// Position of its first token.
    first_position: i64,
    /// Tokens sampled so far.
    tokens: usize,
    /// Whether it has ended: it stays until its lane is made smaller.
    done: bool,
    /// Prototypes of its prompt, shared by its group; none without focus or without an image.
    prototype: Option<Prototype<B>>,
    /// Tokens whose focus was computed.
    focused: usize,
}

impl<B: Kernels> DecodedRow<B> {
    /// What it may not draw next.
    fn mask(&self) -> &Arc<TokenMask<B>> {
        match &self.masks.early {
            Some(early) if self.tokens < self.request.limits.min_new_tokens => early,
            _ => &self.masks.free,
        }
    }

    /// The uniform number that decides its next token.
    fn uniform(&self) -> f32 {
        uniform(self.request.sampling.seed, self.request.key, self.place.1 as u64, self.tokens as u64)
    }

    /// Takes its next token; why it ends with it, if it does.
    fn take(&mut self, id: u32) -> Option<FinishReason> {
        self.tokens += 1;
        let limits = &self.request.limits;
        let finish = match limits.eos.contains(&id) {
            true => Some(FinishReason::Stop),
            false => (self.tokens >= limits.max_new_tokens).then_some(FinishReason::Length),
        };
        self.done = finish.is_some();
        finish
    }

    /// Whose focus the state of its last token gives; none if it owes none.
    fn owed_focus(&mut self) -> Option<ResponsePlace> {
        let owes = self.prototype.is_some() && self.focused < self.tokens;
        self.focused += usize::from(owes);
        owes.then_some(self.place)
    }
}

/// A token that was sampled for a response, and why the response ends with it, if it does.
pub(crate) struct SampledToken {
    pub place: ResponsePlace,
    pub id: u32,
    pub finish: Option<FinishReason>,
}

/// All rows that are decoded, and what is on the device for them.
pub(crate) struct DecodeBatch<B: Kernels, P: Decoding<B>> {
    rows: Vec<DecodedRow<B>>,
    /// None while there are no rows.
    cache: Option<P::Cache>,
    /// `[rows, d]`, the state that predicts each row's next token; none while there are no rows.
    hidden: Option<Tensor<B, 2>>,
    /// Of the rows as they are now; none when they have changed, or none of them has a prototype.
    prototypes: Option<RowPrototypes<B>>,
    /// The masks of the rows.
    pub masks: MaskTable<B>,
    /// Log-probs of tokens that were sampled.
    pub log_probs: WaitingNumbers<B>,
    /// The likeliest tokens beside them.
    pub tops: WaitingTops<B>,
    /// Their visual focus.
    pub focus: WaitingNumbers<B>,
}

impl<B: Kernels, P: Decoding<B>> Default for DecodeBatch<B, P> {
    fn default() -> Self {
        Self {
            rows: vec![],
            cache: None,
            hidden: None,
            prototypes: None,
            masks: MaskTable::default(),
            log_probs: WaitingNumbers::default(),
            tops: WaitingTops::default(),
            focus: WaitingNumbers::default(),
        }
    }
}

impl<B: Kernels, P: Decoding<B>> DecodeBatch<B, P> {
    /// Rows, those included that have ended and are still in the cache.
    pub(crate) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Rows that have not ended.
    pub(crate) fn open_rows(&self) -> usize {
        self.rows.iter().filter(|row| !row.done).count()
    }

    /// Drops all rows.
    pub(crate) fn clear_rows(&mut self) {
        (self.rows, self.cache, self.hidden, self.prototypes) = (vec![], None, None, None);
    }

    /// Ends the rows of a request.
    pub(crate) fn cancel(&mut self, id: RequestId) {
        self.end_where(|place| place.0 == id);
    }

    /// Ends one row.
    pub(crate) fn end(&mut self, place: ResponsePlace) {
        self.end_where(|other| other == place);
    }

    fn end_where(&mut self, which: impl Fn(ResponsePlace) -> bool) {
        self.rows.iter_mut().filter(|row| which(row.place)).for_each(|row| row.done = true);
        if self.rows.iter().all(|row| row.done) {
            self.clear_rows();
        }
    }

    /// Computes the prompts of `part`, all of which have the same number of responses, and adds their rows. A new cache
    /// has room for `max_new_tokens` per row.
    ///
    /// # Errors
    /// A device that cannot be waited for; image tokens that are not where the grids say.
    pub(crate) fn admit(
        &mut self,
        policy: &P,
        part: Vec<AdmittedRequest<B>>,
        max_new_tokens: usize,
        images: &mut ImageCache<B>,
        stats: &mut RolloutStats,
    ) -> Result<(), RolloutError> {
        let prompts: Vec<&Prompt> = part.iter().map(|admitted| &admitted.request.prompt).collect();
        let Some(n) = part.first().map(|admitted| admitted.request.n) else { return Ok(()) };
        let clock = Instant::now();
        let embeds = images.embed(policy, &prompts);
        // What is queued belongs to the part that queued it.
        host::sync::<B>(&policy.device())?;
        stats.vision_s += clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        let groups: Vec<_> = prompts.iter().map(|p| (*p, vec![])).collect();
        let batch: PackedBatch<B> = policy.pack(&groups);
        let (hidden, kv) = policy.prefill(&batch, embeds);
        policy.admit(self.cache.get_or_insert_with(|| policy.cache(max_new_tokens)), &kv, &batch.prompts, n);
        for (admitted, range) in part.iter().zip(&batch.prompts) {
            let prompt = &admitted.request.prompt;
            let prototype = match admitted.request.focus {
                Some(mode) => focus::prototype(&hidden, &batch.image_rows, range, mode, &prompt.image_grid_thw)?,
                None => None,
            };
            self.rows.extend((0..n).map(|response| DecodedRow {
                place: (admitted.id, response),
                request: admitted.request.clone(),
                masks: admitted.masks.clone(),
                first_position: prompt.next_position(),
                tokens: 0,
                done: false,
                prototype: prototype.clone(),
                focused: 0,
            }));
        }
        self.prototypes = None;
        stats.prompt_tokens += batch.prompts.iter().map(std::ops::Range::len).sum::<usize>();
        let ends = batch.prompts.iter().flat_map(|r| std::iter::repeat_n(r.end - 1, n));
        let last = hidden.select(0, int_tensor(ends, &policy.device()));
        host::sync::<B>(&policy.device())?;
        stats.prefill_s += clock.elapsed().as_secs_f64();
        self.hidden = Some(match self.hidden.take() {
            Some(hidden) => Tensor::cat(vec![hidden, last], 0),
            None => last,
        });
        Ok(())
    }

    /// One token more for every row; nothing where there are no rows.
    ///
    /// # Errors
    /// A device that cannot be read, or that samples what is no token.
    pub(crate) fn step(&mut self, policy: &P, stats: &mut RolloutStats) -> Result<Vec<SampledToken>, DeviceError> {
        let Some(states) = self.hidden.take() else { return Ok(vec![]) };
        let (ids, sampled) = self.sample(policy, states)?;
        stats.response_tokens += sampled.len();
        let wants_focus = self.rows.iter().any(|row| row.request.focus.is_some());
        if self.rows.iter().all(|row| row.done) && !wants_focus {
            self.clear_rows();
            return Ok(sampled);
        }
        // With focus, a finished row takes part once more: its last token has a state of its own.
        let ids = if wants_focus { ids } else { self.without_done(policy, ids) };
        let positions: Vec<i64> = self.rows.iter().map(|r| r.first_position + r.tokens as i64 - 1).collect();
        let Some(cache) = &mut self.cache else { return Ok(sampled) };
        let mut states = policy.decode(ids, &positions, cache);
        stats.decode_steps += 1;
        if wants_focus {
            self.measure_focus(&states);
            if let Some(left) = self.compact(policy).filter(|left| !left.is_empty()) {
                states = states.select(0, int_tensor(left, &policy.device()));
            }
        }
        match self.rows.is_empty() {
            true => self.clear_rows(),
            false => self.hidden = Some(states),
        }
        Ok(sampled)
    }

    /// Samples the next token of every row from `states [rows, d]`: ids `[rows]` on the device, and those of the rows
    /// that had not ended.
    fn sample(
        &mut self,
        policy: &P,
        states: Tensor<B, 2>,
    ) -> Result<(Tensor<B, 1, Int>, Vec<SampledToken>), DeviceError> {
        let (head, _) = policy.head();
        let vocab = head.vocab();
        let uniforms: Vec<f32> = self.rows.iter().map(DecodedRow::uniform).collect();
        let masks: Vec<_> = self.rows.iter().map(DecodedRow::mask).collect();
        let mask = self.masks.of_rows(&masks, vocab, &policy.device());
        let settings: Vec<&Sampling> = self.rows.iter().map(|row| &row.request.sampling).collect();
        let (ids, log_probs) = sample(states.clone(), head, &settings, &uniforms, mask.as_ref());
        self.find_tops(policy, &states);
        // The one read per token: what is sampled decides what is computed next.
        let on_host = sampled_ids(ids.clone(), vocab)?;
        self.log_probs.push(log_probs, self.rows.iter().map(|row| (!row.done).then_some(row.place)));
        let open = self.rows.iter_mut().zip(on_host).filter(|(row, _)| !row.done);
        let sampled = open.map(|(row, id)| SampledToken { place: row.place, id, finish: row.take(id) }).collect();
        Ok((ids, sampled))
    }

    /// Leaves the likeliest next tokens of the rows that ask for them on the device.
    fn find_tops(&mut self, policy: &P, states: &Tensor<B, 2>) {
        let asks = |row: &DecodedRow<B>| row.request.top_log_probs > 0 && !row.done;
        if !self.rows.iter().any(asks) {
            return;
        }
        let (head, _) = policy.head();
        let asking = || self.rows.iter().enumerate().filter(|(_, row)| asks(row));
        let masks: Vec<_> = asking().map(|(_, row)| row.mask()).collect();
        let mask = self.masks.of_rows(&masks, head.vocab(), &policy.device());
        let rows: Vec<TopRow> = asking()
            .map(|(index, row)| TopRow {
                row: index,
                place: row.place,
                sampling: &row.request.sampling,
                wanted: row.request.top_log_probs,
            })
            .collect();
        self.tops.push(states, head, &rows, mask.as_ref());
    }

    /// Leaves the focus of the tokens with these states `[rows, d]` on the device.
    fn measure_focus(&mut self, states: &Tensor<B, 2>) {
        if self.prototypes.is_none() {
            let of_rows: Vec<Option<&Prototype<B>>> = self.rows.iter().map(|row| row.prototype.as_ref()).collect();
            self.prototypes = RowPrototypes::new(&of_rows);
        }
        if let Some(prototypes) = &self.prototypes {
            let focus = B::visual_focus_of_rows(states.clone(), prototypes, FOCUS_EPS);
            self.focus.push(focus, self.rows.iter_mut().map(DecodedRow::owed_focus));
        }
    }

    /// Removes rows that have ended when that frees at least a quarter of them (or all of them): the old index of each
    /// row that stays, if any was moved or removed.
    fn compact(&mut self, policy: &P) -> Option<Vec<usize>> {
        let keep: Vec<bool> = self.rows.iter().map(|row| !row.done).collect();
        let done = keep.iter().filter(|keep| !**keep).count();
        if done * 4 < self.rows.len().max(1) {
            return None;
        }
        let left = policy.compact(self.cache.as_mut()?, &keep);
        if left.iter().copied().eq(0..self.rows.len()) {
            return None;
        }
        let mut old: Vec<Option<DecodedRow<B>>> = std::mem::take(&mut self.rows).into_iter().map(Some).collect();
        self.rows = left.iter().filter_map(|&i| old.get_mut(i).and_then(Option::take)).collect();
        self.prototypes = None;
        Some(left)
    }

    /// [`compact`](Self::compact) before a forward pass: the ids of the rows that stay.
    fn without_done(&mut self, policy: &P, ids: Tensor<B, 1, Int>) -> Tensor<B, 1, Int> {
        match self.compact(policy) {
            None => ids,
            Some(left) => {
                let left = int_tensor(left, &ids.device());
                ids.select(0, left)
            }
        }
    }
}

/// Sampled ids `[S]` on the host.
fn sampled_ids<B: Kernels>(ids: Tensor<B, 1, Int>, vocab: usize) -> Result<Vec<u32>, DeviceError> {
    let id = |id: i32| u32::try_from(id).ok().filter(|&id| (id as usize) < vocab);
    let outside = |i: i32| DeviceError(format!("it sampled token {i} of a vocabulary of {vocab}"));
    host::ints(ids)?.into_iter().map(|i| id(i).ok_or_else(|| outside(i))).collect()
}
