//! Log-probs and what comes with them, without gradients, in micro-batches whose size changes no result.

use ::policy::{PackedBatch, Prompt};
use ::vgpo::PrototypeMode;
use burn::tensor::Tensor;
use kernels::host::int_tensor;
use kernels::{Kernels, head, host};

use super::passes::{GroupRef, MicroBatch, Pass, pack, passes, targets};
use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::policy::Policy;
use crate::streams::{dependency, visual_focus};

/// What to compute of each response token, without gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRequest {
    /// Log-probs are taken at this temperature.
    pub temperature: f64,
    /// Entropy of the full vocabulary.
    pub entropy: bool,
    /// Visual focus (equation 4).
    pub focus: Option<PrototypeMode>,
    /// Divergence between the predictions with and without the pictures, which takes one more forward, without them.
    pub dependency: bool,
    /// Packed tokens in one pass.
    pub token_budget: usize,
}

/// The scores of one response, `[T]` each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResponseScores {
    /// Log-probs.
    pub log_probs: Vec<f32>,
    /// Entropies, if asked for.
    pub entropy: Option<Vec<f32>>,
    /// Focus, if asked for and the prompt has an image.
    pub visual_focus: Option<Vec<f32>>,
    /// `KL(pi(.|s_t, I) || pi(.|s_t))`, if asked for and the prompt has an image and something beside it; see
    /// `streams/dependency.rs`.
    pub token_visual_dependency: Option<Vec<f32>>,
}

/// Scores all responses of all groups: one entry per group, one a response.
///
/// # Errors
/// A device that cannot be read; image tokens that are not where the grids say.
pub fn score<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &[GroupRef],
    request: &ScoreRequest,
) -> Result<Vec<Vec<ResponseScores>>, TrainError> {
    let mut out: Vec<Vec<ResponseScores>> =
        groups.iter().map(|g| vec![ResponseScores::default(); g.responses.len()]).collect();
    for pass in passes(groups, request.token_budget) {
        match pass {
            Pass::Together(micro) => {
                let packed = pack(groups, &micro);
                let prompts: Vec<&Prompt> = packed.iter().map(|(p, _)| *p).collect();
                let batch = policy.pack(&packed);
                let hidden = policy.hidden(&batch, images.embed(policy, &prompts));
                read_scores(policy, groups, request, &micro, &batch, hidden.clone(), &mut out)?;
                if request.dependency {
                    dependency::together(policy, groups, request, &micro, (&batch, hidden), &mut out)?;
                }
            }
            Pass::Parts(g, parts) => {
                let prompt = groups[g].prompt;
                let shared = policy.share(prompt, images.embed(policy, &[prompt]));
                let text = request.dependency.then(|| dependency::share(policy, prompt)).flatten();
                for part in parts {
                    let batch = policy.pack_part(prompt, &groups[g].some(&part));
                    let hidden = policy.hidden_part(&shared, &batch);
                    let micro = vec![(g, part)];
                    read_scores(policy, groups, request, &micro, &batch, hidden.clone(), &mut out)?;
                    if let Some(text) = &text {
                        dependency::part(policy, groups, request, &micro, (&batch, hidden), text, &mut out)?;
                    }
                }
            }
        }
    }
    Ok(out)
}

/// From the hidden states of a packed batch to the scores of its responses.
fn read_scores<B: Kernels, P: Policy<B>>(
    policy: &P,
    groups: &[GroupRef],
    request: &ScoreRequest,
    micro: &MicroBatch,
    batch: &PackedBatch<B>,
    hidden: Tensor<B, 2>,
    out: &mut [Vec<ResponseScores>],
) -> Result<(), TrainError> {
    let device = policy.device();
    let rows = int_tensor(batch.predicting_rows(), &device);
    let scores = head::log_probs(
        hidden.clone().select(0, rows),
        policy.head().0,
        targets(groups, micro, &device),
        request.temperature,
        request.entropy,
    );
    let log_probs = host::floats(scores.log_probs)?;
    let entropy = scores.entropy.map(host::floats).transpose()?;
    let mut at = 0; // in the scores of this micro-batch
    let mut segment = 0; // in its responses
    for (k, (g, responses)) in micro.iter().enumerate() {
        let segments = segment..segment + responses.len();
        let focus = match request.focus {
            Some(mode) => visual_focus::of_group(&hidden, batch, k, segments, mode, &groups[*g].prompt.image_grid_thw)?,
            None => None,
        };
        let mut from = 0;
        for &r in responses {
            let len = groups[*g].responses[r].len();
            out[*g][r] = ResponseScores {
                log_probs: log_probs[at..at + len].to_vec(),
                entropy: entropy.as_ref().map(|e| e[at..at + len].to_vec()),
                visual_focus: focus.as_ref().map(|f| f[from..from + len].to_vec()),
                token_visual_dependency: None,
            };
            at += len;
            from += len;
            segment += 1;
        }
    }
    Ok(())
}
