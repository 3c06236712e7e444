//! `[rollout]`: how responses are sampled.

use super::section::section;

section! {
    /// Sampling of responses for training and for validation.
    pub struct Rollout {
        /// Responses sampled for one prompt: the size of a group.
        n: usize = 5 => 1..=65_536,
        /// Sampling temperature; the log-probabilities of the loss are taken at it, too.
        temperature: f64 = 1.0 => ..=1e3,
        /// Sample among the likeliest tokens that make up this probability. 1: among all.
        top_p: f64 = 1.0 => ..=1.0,
        /// Responses generated at the same time on one device; bounds the key/value cache. 0: as many as the device has
        /// free memory for (`cuda` only).
        max_batch_rows: usize = 256 => 0..=65_536,
        /// Prompt tokens computed in one forward pass; bounds the activations. A longer prompt goes alone.
        prefill_token_budget: usize = 16_384 => 1..=16_777_216,
        /// GiB of device memory for image embeddings that are kept from sampling to scoring, with a frozen vision tower
        /// to the update, in validation from greedy to sampled responses. What does not fit is computed again; 0 keeps
        /// none.
        image_cache_gib: f64 = 2.0 => ..=1e5,
        /// Temperature of validation. 0: greedy decoding.
        val_temperature: f64 = 0.0 => ..=1e3,
        /// `top_p` of validation; without effect in greedy decoding.
        val_top_p: f64 = 1.0 => ..=1.0,
        /// Responses for one validation prompt; the accuracy is their mean.
        val_n: usize = 1 => 1..=65_536,
    }
}
