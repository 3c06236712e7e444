//! Tokens that were decoded one by one from a cache, beside one pass over all of them.

use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use kernels::Kernels;
use rl::TrainError;
use rl::image_cache::ImageCache;
use rl::learn::{GroupRef, ScoreRequest, score};
use rl::rollout::{Job, RolloutConfig, generate};
use rl::sampler::Sampling;

use super::model::{self, Work};
use crate::fault;
use crate::finding::Comparisons;
use crate::sides::Sides;

/// Tokens of a response: one from the prefill, the others decoded.
const TOKENS: usize = 33;
/// Responses a prompt.
const RESPONSES: usize = 4;

pub(crate) fn decoding<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let work = Work::new(sides)?;
    let model = model::on_device(sides)?;
    let rollout = RolloutConfig {
        n: RESPONSES,
        sampling: Sampling { temperature: 1.0, top_p: 1.0, seed: 1 },
        max_new_tokens: TOKENS,
        min_new_tokens: TOKENS,
        eos: vec![],
        suppress: model.config.vision_token_ids(),
        focus: None,
        max_batch_rows: 64,
        prefill_token_budget: 1 << 20,
    };
    let jobs: Vec<Job> = work.prompts.iter().enumerate().map(|(key, prompt)| Job { prompt, key: key as u64 }).collect();
    let mut images = ImageCache::default();
    let (responses, _) = generate(&model, &jobs, &rollout, &mut images, &AtomicBool::new(false), |_, _, _| {})?;
    let groups: Vec<GroupRef> = std::iter::zip(&work.prompts, &responses)
        .map(|(prompt, responses)| GroupRef { prompt, responses: responses.iter().map(|r| &r.ids[..]).collect() })
        .collect();
    let request =
        ScoreRequest { temperature: 1.0, entropy: false, focus: None, dependency: false, token_budget: 1 << 20 };
    let scores = score(&model, &mut images, &groups, &request)?;
    let mut tally = Comparisons::new(format!(
        "log-probs of {} responses of {TOKENS} tokens, decoded in {:?} from a cache, beside one scoring pass",
        work.prompts.len() * RESPONSES,
        sides.dtype
    ));
    // In nats. Of 16 bits a logit of a few units keeps a hundredth.
    let bound = match sides.dtype {
        DType::F32 => 10.0 * sides.product_bound(DType::F32),
        _ => 0.1,
    };
    for (response, scores) in std::iter::zip(responses.iter().flatten(), scores.iter().flatten()) {
        let mut sampled = response.log_probs.clone();
        fault::touch(sides.check(), &mut sampled);
        if sampled.len() != TOKENS || scores.log_probs.len() != TOKENS {
            tally.add(f64::INFINITY, bound, || format!("a response of {} tokens", sampled.len()));
        }
        for (at, (a, b)) in std::iter::zip(&sampled, &scores.log_probs).enumerate() {
            tally.add((f64::from(*a) - f64::from(*b)).abs(), bound, || format!("token {at}"));
        }
    }
    Ok(tally)
}
