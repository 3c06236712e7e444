//! How many responses are generated at the same time where the device's memory decides (`rollout.max_batch_rows = 0`).

use kernels::Kernels;

use crate::config::Config;
use crate::error::TrainError;
use crate::policy::Policy;

/// The part of the free memory that keys and values may take. The rest is for prefill, logits, and what the memory's
/// pools leave unused.
const KEYS_AND_VALUES: f64 = 0.6;

/// Rows above which more bring nothing: the weights are read once for all of them.
const MOST: usize = 4096;

/// Rows decoded at the same time for groups of `n` responses: `rollout.max_batch_rows`, or by what is free now. A row
/// has room for the longest response and for its share of the longest prompt, which its group has once.
///
/// # Errors
/// [`TrainError::Input`] where the key is 0 and the backend does not tell what is free.
pub(super) fn batch_rows<B: Kernels, P: Policy<B>>(config: &Config, policy: &P, n: usize) -> Result<usize, TrainError> {
    if config.rollout.max_batch_rows > 0 {
        return Ok(config.rollout.max_batch_rows);
    }
    let device = policy.device();
    let free = free_memory::<B>(&device)?;
    let tokens = config.data.max_response_length + config.data.max_prompt_length.div_ceil(n.max(1));
    Ok(rows_that_fit(free, policy.kv_bytes() * tokens).max(n))
}

/// Rows of `row_bytes` each that are decoded at the same time where `free` bytes are left for them and for all else
/// that sampling needs.
pub fn rows_that_fit(free: u64, row_bytes: usize) -> usize {
    ((free as f64 * KEYS_AND_VALUES / row_bytes.max(1) as f64) as usize).clamp(1, MOST)
}

/// # Errors
/// As [`batch_rows`], which needs it: to be known before a run is under way.
pub fn check_batch_rows<B: Kernels>(config: &Config, device: &B::Device) -> Result<(), TrainError> {
    match config.rollout.max_batch_rows {
        0 => free_memory::<B>(device).map(|_| ()),
        _ => Ok(()),
    }
}

fn free_memory<B: Kernels>(device: &B::Device) -> Result<u64, TrainError> {
    B::free_memory(device).ok_or_else(|| {
        TrainError::Input(
            "rollout.max_batch_rows: 0 asks for as many rows as the device has memory for, and this backend does not \
             tell how much that is; write a number"
                .into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_fill_their_part_of_the_memory() {
        // Preset 7b: 57,344 bytes a token; 30 GB free, 512 tokens and an eighth of a prompt of 2,048.
        assert_eq!(rows_that_fit(30_000_000_000, 57_344 * (512 + 256)), 408);
        assert_eq!(rows_that_fit(0, 1000), 1, "at least one");
        assert_eq!(rows_that_fit(u64::MAX, 1), MOST);
    }

    #[test]
    fn a_backend_without_figures_needs_a_number() {
        type B = burn_flex::Flex<f32, i32>;
        let mut config = Config::default();
        check_batch_rows::<B>(&config, &Default::default()).unwrap();
        config.rollout.max_batch_rows = 0;
        let error = check_batch_rows::<B>(&config, &Default::default()).unwrap_err().to_string();
        assert!(error.contains("rollout.max_batch_rows") && error.contains("write a number"), "{error}");
    }
}
