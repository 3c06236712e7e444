//! Bytes of what sampling keeps: keys and values, image embeddings.

use kernels::bounds::{CACHE_COLUMNS, WHOLE_CACHE};
use rl::TrainError;
use rl::config::Config;
use rl::recipe::Recipe;
use rl::trainer::rows_that_fit;

use crate::parameters::CountedOn;
use crate::{ModelShapes, RankGrid};

/// Prompts of a step that fall to one rank at most.
pub(crate) fn prompts(run: &Config, grid: RankGrid) -> usize {
    run.data.rollout_batch_size.div_ceil(grid.data)
}

/// Image tokens of the largest picture that fits into a prompt.
pub(crate) fn picture(run: &Config, shapes: &ModelShapes) -> usize {
    let v = &shapes.architecture().vision;
    let side = v.patch_size * v.spatial_merge_size;
    match run.data.max_pixels {
        0 => run.data.max_prompt_length,
        pixels => pixels.div_ceil(side * side).min(run.data.max_prompt_length),
    }
}

/// Rows that one rank decodes at the same time; `free` bytes decide where the configuration leaves it to them.
pub(crate) fn rows(run: &Config, shapes: &ModelShapes, grid: RankGrid, free: usize) -> usize {
    let (n, kv) = (run.rollout.n, shapes.kv_bytes(grid));
    let most = match run.rollout.max_batch_rows {
        0 => {
            let tokens = run.data.max_response_length + run.data.max_prompt_length.div_ceil(n);
            rows_that_fit(free as u64, kv * tokens)
        }
        rows => rows,
    };
    let validation = match run.data.val_files.is_empty() {
        true => 0,
        false => run.data.val_batch_size.div_ceil(grid.data) * run.rollout.val_n,
    };
    most.min((prompts(run, grid) * n).max(validation)).max(n)
}

/// Bytes of the keys and values of `rows` responses and of their prompts, where all have their full length or half of
/// it. On a device a lane has room for its longest response from the start, unless that is too much.
pub(crate) fn keys_and_values(run: &Config, shapes: &ModelShapes, grid: RankGrid, rows: usize, half: bool) -> usize {
    let (n, token) = (run.rollout.n, shapes.kv_bytes(grid));
    let part = |length: usize| if half { length.div_ceil(2) } else { length };
    let (prompt, response) = (part(run.data.max_prompt_length), part(run.data.max_response_length));
    let groups = rows.div_ceil(n);
    let lane = (run.rollout.prefill_token_budget / prompt).clamp(1, groups) * n;
    let longest = run.data.max_response_length;
    let whole = lane * token * longest <= WHOLE_CACHE;
    let columns = match whole {
        true => longest,
        false => doubled(response).min(longest),
    };
    token * (groups * prompt + rows * columns)
}

/// Columns of a cache that has grown to hold `length`.
fn doubled(length: usize) -> usize {
    length.max(CACHE_COLUMNS).div_ceil(CACHE_COLUMNS).next_power_of_two() * CACHE_COLUMNS
}

/// Bytes of the image embeddings that are kept from sampling on.
///
/// # Errors
/// A name that no algorithm has.
pub(crate) fn images(run: &Config, shapes: &ModelShapes, grid: RankGrid) -> Result<usize, TrainError> {
    if !Recipe::<CountedOn>::new(run)?.reads_images(run, shapes.trains_vision()) {
        return Ok(0);
    }
    let limit = (run.rollout.image_cache_gib * (1u64 << 30) as f64) as usize;
    let architecture = shapes.architecture();
    let width = (1 + architecture.vision.deepstack.len()) * architecture.text.hidden_size * shapes.dtype.size();
    Ok(limit.min(prompts(run, grid) * picture(run, shapes) * width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::DType;
    use model_qwen2vl::QwenVlConfig;

    const EIGHT: RankGrid = RankGrid { data: 8, tensor: 1 };

    fn run() -> Config {
        let mut run = Config::default();
        run.data.max_prompt_length = 5650;
        run.data.max_response_length = 2048;
        run.rollout.n = 8;
        run
    }

    /// 56 KiB a token of 7b; 256 rows of 32 prompts.
    #[test]
    fn keys_and_values_of_7b() {
        let shapes = ModelShapes::new(&QwenVlConfig::preset("7b").unwrap(), DType::BF16);
        assert_eq!(shapes.kv_bytes(EIGHT), 57_344);
        let run = run();
        assert_eq!(rows(&run, &shapes, EIGHT, 0), 256);
        let worst = keys_and_values(&run, &shapes, EIGHT, 256, false);
        assert_eq!(worst, 57_344 * (32 * 5650 + 256 * 2048));
        // Two prompts a prefill, so lanes of 16 rows (five at half the length, 40 rows): 4.7 GB whole.
        let half = keys_and_values(&run, &shapes, EIGHT, 256, true);
        assert_eq!(half, 57_344 * (32 * 2825 + 256 * 2048));
        // Lanes of 80 rows would be more than 8 GiB: they grow to what is there.
        let mut long = run.clone();
        long.rollout.prefill_token_budget = 10 * 2825;
        assert_eq!(keys_and_values(&long, &shapes, EIGHT, 256, true), 57_344 * (32 * 2825 + 256 * 1024));
        // A rank of two has two of four heads, and of eight one.
        assert_eq!(shapes.kv_bytes(RankGrid { data: 4, tensor: 2 }), 57_344 / 2);
        assert_eq!(shapes.kv_bytes(RankGrid { data: 1, tensor: 8 }), 57_344 / 4);
    }

    #[test]
    fn rows_are_no_more_than_there_are_responses() {
        let shapes = ModelShapes::new(&QwenVlConfig::preset("7b").unwrap(), DType::BF16);
        let mut run = run();
        run.data.rollout_batch_size = 512;
        assert_eq!(rows(&run, &shapes, RankGrid { data: 32, tensor: 1 }, 0), 128);
        run.rollout.max_batch_rows = 0;
        // 30 GB free: 0.6 of them, at 2,048 + 5,650 / 8 tokens a row.
        let row = 57_344 * (2048 + 707);
        assert_eq!(rows(&run, &shapes, EIGHT, 30_000_000_000), 18_000_000_000 / row);
    }

    #[test]
    fn a_picture_is_as_large_as_the_prompt_lets_it() {
        let shapes = ModelShapes::new(&QwenVlConfig::preset("7b").unwrap(), DType::BF16);
        let mut run = run();
        assert_eq!(picture(&run, &shapes), 4_194_304usize.div_ceil(784));
        // 64 prompts a rank would be 2.4 GB; the limit is 2 GiB.
        assert_eq!(images(&run, &shapes, EIGHT).unwrap(), 2 << 30);
        run.data.max_prompt_length = 2048;
        assert_eq!(picture(&run, &shapes), 2048);
        assert_eq!(images(&run, &shapes, EIGHT).unwrap(), 64 * 2048 * 3584 * 2);
        run.actor.old_log_probs = rl::config::OldLogProbs::Rollout;
        assert_eq!(images(&run, &shapes, EIGHT).unwrap(), 0, "nothing reads them again");
    }
}
