//! What the operations of a GPU hold at one time, in numbers. They stand here and not beside the kernels, so that a
//! plan of a run's memory reads the same ones in a program that has no GPU compiled in.

/// Packed tokens of a GPU come in multiples of this; see [`Kernels::TOKENS`](crate::Kernels::TOKENS).
pub const TOKENS: usize = 256;

/// Most logits that the log-prob head holds, in elements: 3,530 rows of a vocabulary of 152,064. Each chunk reads the
/// whole head, and its backward adds to the head's whole gradient, so a chunk must be long enough for its products to
/// outweigh that.
pub const HEAD_LOGITS: usize = 1 << 29;

/// Most logits that the sampler holds, in elements.
pub const SAMPLER_LOGITS: usize = 1 << 27;

/// Scores that attention holds, in elements: 268 MB in 16 bits. Products of this size keep a large GPU busy for far
/// longer than their launches take. A segment that has more holds its own.
pub const SCORES: usize = 1 << 27;

/// Elements that a kernel counts: attention of a segment with more scores goes to the default, which holds few.
pub const COUNTABLE: usize = u32::MAX as usize / 2;

/// Columns that a lane's cache of keys and values starts with and grows by at least, where it is not made at its full
/// width.
pub const CACHE_COLUMNS: usize = 64;

/// Bytes that a lane's cache may take at its full width from the start. Doubling it later would hold the old one beside
/// the new, and the pool of a device keeps both sizes.
pub const WHOLE_CACHE: usize = 8 << 30;
