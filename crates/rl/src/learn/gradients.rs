//! Gradients over packed groups, in micro-batches whose size changes no result.

use ::policy::{PackedBatch, Pictures, Prompt};
use burn::tensor::{DType, IndexingUpdateOp, Tensor};
use kernels::host::int_tensor;
use kernels::params::{cast_to, to_f32};
use kernels::{Gradients, Kernels, head};

use super::passes::{GroupRef, MicroBatch, Pass, pack, passes, targets};
use crate::config::{Config, Recompute};
use crate::image_cache::ImageCache;
use crate::policy::Policy;

/// How gradients are computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientOptions {
    /// Log-probs are taken at this temperature.
    pub temperature: f64,
    /// Whether the loss reads the full-vocabulary entropy.
    pub entropy: bool,
    /// Packed tokens in one pass.
    pub token_budget: usize,
    /// Whether the vision tower gets gradients.
    pub train_vision: bool,
    /// Compute each layer again in its backward.
    pub recompute: bool,
}

impl GradientOptions {
    /// As a configuration says, for a policy.
    pub fn of<B: Kernels, P: Policy<B>>(config: &Config, policy: &P, temperature: f64, entropy: bool) -> Self {
        let actor = &config.actor;
        Self {
            temperature,
            entropy,
            token_budget: config.pass_tokens(),
            train_vision: !config.model.freeze_vision_tower && policy.trains_vision(),
            recompute: match actor.recompute {
                Recompute::Always => true,
                Recompute::Never => false,
                Recompute::Auto => recompute_for(policy, actor.micro_batch_tokens, actor.activation_memory_gib),
            },
        }
    }
}

/// Log-probs of one micro-batch on the device: `[M]` in the order of its responses, with where each response lies.
pub struct MicroScores<B: Kernels> {
    /// Which responses.
    pub micro: MicroBatch,
    /// Tokens of each response, in order.
    pub lengths: Vec<usize>,
    /// `[M]` in f32.
    pub log_probs: Tensor<B, 1>,
    /// `[M]` in f32, if asked for.
    pub entropy: Option<Tensor<B, 1>>,
}

/// The gradient of the loss with respect to what [`MicroScores`] holds.
pub struct MicroGradients<B: Kernels> {
    /// `[M]`
    pub log_probs: Tensor<B, 1>,
    /// `[M]`
    pub entropy: Option<Tensor<B, 1>>,
}

/// Adds the gradients of a loss over all groups to `grads`. `loss` gets each micro-batch's log-probs and returns their
/// gradient.
///
/// # Errors
/// Whatever `loss` returns.
pub fn accumulate<B: Kernels, P: Policy<B>, E>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &[GroupRef],
    options: &GradientOptions,
    grads: &mut Gradients<B>,
    loss: impl FnMut(MicroScores<B>) -> Result<MicroGradients<B>, E>,
) -> Result<(), E> {
    let mut head = Head { policy, groups, options, loss };
    let passes = passes(groups, options.token_budget);
    grads.begin(passes.iter().map(Pass::backwards).sum());
    for pass in passes {
        // The tower's pictures if it learns, else what it made of them.
        let prompts: Vec<&Prompt> = match &pass {
            Pass::Together(micro) => micro.iter().map(|(g, _)| groups[*g].prompt).collect(),
            Pass::Parts(g, _) => vec![groups[*g].prompt],
        };
        let pictures = match options.train_vision {
            true => Pictures::Trained(&prompts),
            false => Pictures::Embedded(images.embed(policy, &prompts)),
        };
        match pass {
            Pass::Together(micro) => {
                let batch = policy.pack(&pack(groups, &micro));
                let (hidden, tape) = policy.forward_saving(&batch, pictures, options.recompute);
                let d_hidden = head.there_and_back(micro, &batch, hidden, grads)?;
                policy.backward(tape, &batch, d_hidden, grads);
                grads.end_pass();
            }
            Pass::Parts(g, parts) => {
                let mut prompt = policy.share_saving(groups[g].prompt, pictures, options.recompute);
                for part in parts {
                    let batch = policy.pack_part(groups[g].prompt, &groups[g].some(&part));
                    let (hidden, tape) = policy.forward_saving_part(&prompt, &batch, options.recompute);
                    let d_hidden = head.there_and_back(vec![(g, part)], &batch, hidden, grads)?;
                    policy.backward_part(tape, &mut prompt, &batch, d_hidden, grads);
                    grads.end_pass();
                }
                policy.backward_shared(prompt, grads);
                grads.end_pass();
            }
        }
    }
    grads.finish();
    Ok(())
}

/// The head and the loss behind it, which are the same for whole groups and for parts.
struct Head<'a, P, F> {
    policy: &'a P,
    groups: &'a [GroupRef<'a>],
    options: &'a GradientOptions,
    loss: F,
}

impl<P, F> Head<'_, P, F> {
    /// From hidden states `[N, d]` through head and loss and back: their gradient `[N, d]`; the head's goes to `grads`.
    fn there_and_back<B: Kernels, E>(
        &mut self,
        micro: MicroBatch,
        batch: &PackedBatch<B>,
        hidden: Tensor<B, 2>,
        grads: &mut Gradients<B>,
    ) -> Result<Tensor<B, 2>, E>
    where
        P: Policy<B>,
        F: FnMut(MicroScores<B>) -> Result<MicroGradients<B>, E>,
    {
        let device = self.policy.device();
        let (weight, head_name) = self.policy.head();
        let (temperature, entropy) = (self.options.temperature, self.options.entropy);
        let dims = hidden.dims();
        let rows = int_tensor(batch.predicting_rows(), &device);
        let targets = targets(self.groups, &micro, &device);
        let states = hidden.select(0, rows.clone());
        let scores = head::log_probs(states.clone(), weight, targets.clone(), temperature, entropy);
        let lengths = batch.responses.iter().map(|r| r.rows.len()).collect();
        let d = (self.loss)(MicroScores { micro, lengths, log_probs: scores.log_probs, entropy: scores.entropy })?;
        let dh =
            head::log_probs_backward(states, weight, targets, temperature, d.log_probs, d.entropy, head_name, grads);
        grads.done_first(head_name);
        // All responses of a group add to the last row of their prompt: in f32, and rounded once.
        let dtype = dh.dtype();
        let d_hidden = Tensor::zeros(dims, (&device, DType::F32));
        Ok(cast_to(d_hidden.select_assign(0, rows, to_f32(dh), IndexingUpdateOp::Add), dtype))
    }
}

/// What `recompute = "auto"` means for a policy and a token budget: whether the activations of all layers exceed `gib`
/// GiB.
pub fn recompute_for<B: Kernels, P: Policy<B>>(policy: &P, token_budget: usize, gib: f64) -> bool {
    policy.activation_bytes().saturating_mul(token_budget) as f64 > gib * (1u64 << 30) as f64
}
