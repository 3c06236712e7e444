//! Which requests enter the decode batch, and when.
//!
//! Requests enter in waves, each a lane of its own in the cache, and each when a good part of the rows is free.
//! Requests that were submitted between the same two steps enter by length, the longest first, so that lanes are hardly
//! padded; those of earlier steps enter before those of later ones, so that none waits for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::request::{RequestId, RolloutRequest};

/// A request that waits for its turn.
#[derive(Debug, Clone)]
pub(crate) struct QueuedRequest {
    pub id: RequestId,
    pub request: Arc<RolloutRequest>,
}

/// All requests that wait.
#[derive(Debug, Default)]
pub(crate) struct RequestQueue {
    /// In the order in which they enter.
    sorted: VecDeque<QueuedRequest>,
    /// Submitted since the last wave was looked for.
    fresh: Vec<QueuedRequest>,
}

impl RequestQueue {
    pub(crate) fn push(&mut self, queued: QueuedRequest) {
        self.fresh.push(queued);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty() && self.fresh.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.sorted.len() + self.fresh.len()
    }

    pub(crate) fn clear(&mut self) {
        self.sorted.clear();
        self.fresh.clear();
    }

    /// Removes a request; whether it was there.
    pub(crate) fn remove(&mut self, id: RequestId) -> bool {
        let before = self.len();
        self.sorted.retain(|queued| queued.id != id);
        self.fresh.retain(|queued| queued.id != id);
        self.len() < before
    }

    /// The requests that enter now, where `busy` of `max_rows` rows are taken: none until the requests that fit fill a
    /// quarter of all rows; at least one where no row is busy, even if it has more rows than there are.
    pub(crate) fn next_wave(&mut self, busy: usize, max_rows: usize) -> Vec<QueuedRequest> {
        self.fresh.sort_by_key(|queued| std::cmp::Reverse((queued.request.prompt.len(), queued.id)));
        self.sorted.extend(self.fresh.drain(..));
        let Some(first) = self.sorted.front() else { return vec![] };
        let free = max_rows.saturating_sub(busy);
        let n = first.request.n.max(1);
        // A finished row takes its place in the cache until its lane is made smaller.
        if busy > 0 && (free / n * n).saturating_mul(4) < max_rows {
            return vec![];
        }
        let mut rows = 0;
        let mut count = 0;
        for queued in &self.sorted {
            rows += queued.request.n;
            if rows > free && !(busy == 0 && count == 0) {
                break;
            }
            count += 1;
        }
        let mut wave: Vec<QueuedRequest> = self.sorted.drain(..count).collect();
        // Neighbours with as many responses share a lane.
        wave.sort_by_key(|queued| queued.request.n);
        wave
    }
}

/// Splits a wave into prefills: neighbours with the same number of responses (a lane has one) and at most `budget`
/// prompt tokens together; a longer prompt goes alone.
pub(crate) fn prefill_parts(wave: &[QueuedRequest], budget: usize) -> Vec<&[QueuedRequest]> {
    let mut parts = Vec::new();
    let (mut start, mut tokens) = (0, 0);
    for (i, QueuedRequest { request, .. }) in wave.iter().enumerate() {
        let over = tokens + request.prompt.len() > budget;
        if i > start && (over || request.n != wave[start].request.n) {
            parts.push(&wave[start..i]);
            (start, tokens) = (i, 0);
        }
        tokens += request.prompt.len();
    }
    if start < wave.len() {
        parts.push(&wave[start..]);
    }
    parts
}
