//! What can go wrong between ranks.

/// A collective call that did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank}: `{name}` (call {number}): {reason}")]
pub struct CommError {
    /// The rank that says so.
    pub rank: usize,
    /// The name of the call.
    pub name: &'static str,
    /// Its number in this group of ranks, from 1.
    pub number: u64,
    /// Why.
    pub reason: String,
}
