//! Scoring and gradients over packed groups, in micro-batches whose size changes no result.

use ::vgpo::PrototypeMode;
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};
use model_qwen2vl::model::{PackedBatch, Pictures, Prompt, int_tensor};
use model_qwen2vl::params::{cast_to, to_f32};
use model_qwen2vl::{DeviceError, Gradients, Kernels, head, host};

use crate::blind;
use crate::focus;
use crate::image_cache::ImageCache;
use crate::policy::{PackGroup, Policy};

/// A prompt and its responses' token ids: the unit of work.
#[derive(Debug, Clone)]
pub struct GroupRef<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// Responses, none empty.
    pub responses: Vec<&'a [u32]>,
}

/// Some responses of some groups: `(group, its responses)`, indices into the batch.
pub type MicroBatch = Vec<(usize, Vec<usize>)>;

/// What is computed together.
#[derive(Debug, Clone, PartialEq)]
pub enum Pass {
    /// Whole groups in one go.
    Together(MicroBatch),
    /// A group that does not fit: its prompt, and then its responses in parts.
    Parts(usize, Vec<Vec<usize>>),
}

/// Cuts groups into passes of at most `budget` packed tokens at a time, each prompt computed once. A group that does not fit is
/// cut between responses; a single response is never cut. A part counts with its prompt, which is kept while it is computed.
pub fn passes(groups: &[GroupRef], budget: usize) -> Vec<Pass> {
    let mut passes: Vec<Pass> = Vec::new();
    let mut current: MicroBatch = Vec::new();
    let mut tokens = 0;
    for (g, group) in groups.iter().enumerate() {
        let prompt = group.prompt.len();
        let whole = prompt + group.responses.iter().map(|r| r.len()).sum::<usize>();
        if tokens + whole > budget && !current.is_empty() {
            passes.push(Pass::Together(std::mem::take(&mut current)));
            tokens = 0;
        }
        if tokens + whole <= budget || group.responses.len() < 2 {
            current.push((g, (0..group.responses.len()).collect()));
            tokens += whole;
            continue;
        }
        let mut parts: Vec<Vec<usize>> = Vec::new();
        let mut size = budget;
        for (i, response) in group.responses.iter().enumerate() {
            match parts.last_mut() {
                Some(part) if size + response.len() <= budget => part.push(i),
                _ => {
                    parts.push(vec![i]);
                    size = prompt;
                }
            }
            size += response.len();
        }
        passes.push(Pass::Parts(g, parts));
    }
    if !current.is_empty() {
        passes.push(Pass::Together(current));
    }
    passes
}

impl<'a> GroupRef<'a> {
    pub(crate) fn some(&self, responses: &[usize]) -> Vec<&'a [u32]> {
        responses.iter().map(|&r| self.responses[r]).collect()
    }
}

fn pack<'a>(groups: &[GroupRef<'a>], batch: &MicroBatch) -> Vec<PackGroup<'a>> {
    batch.iter().map(|(g, responses)| (groups[*g].prompt, groups[*g].some(responses))).collect()
}

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
    /// `blind.rs`.
    pub token_visual_dependency: Option<Vec<f32>>,
}

/// Scores all responses of all groups: one entry a group, one a response.
///
/// # Errors
/// A device that cannot be read.
pub fn score<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &[GroupRef],
    request: &ScoreRequest,
) -> Result<Vec<Vec<ResponseScores>>, DeviceError> {
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
                    blind::together(policy, groups, request, &micro, (&batch, hidden), &mut out)?;
                }
            }
            Pass::Parts(g, parts) => {
                let prompt = groups[g].prompt;
                let shared = policy.share(prompt, images.embed(policy, &[prompt]));
                let text = request.dependency.then(|| blind::share(policy, prompt)).flatten();
                for part in parts {
                    let batch = policy.pack_part(prompt, &groups[g].some(&part));
                    let hidden = policy.hidden_part(&shared, &batch);
                    let micro = vec![(g, part)];
                    read_scores(policy, groups, request, &micro, &batch, hidden.clone(), &mut out)?;
                    if let Some(text) = &text {
                        blind::part(policy, groups, request, &micro, (&batch, hidden), text, &mut out)?;
                    }
                }
            }
        }
    }
    Ok(out)
}

/// Token ids of the responses of a micro-batch, one after the other.
fn targets<B: Kernels>(groups: &[GroupRef], micro: &MicroBatch, device: &B::Device) -> Tensor<B, 1, Int> {
    let responses = micro.iter().flat_map(|(g, rs)| rs.iter().map(|&r| groups[*g].responses[r]));
    int_tensor(responses.flatten().map(|&id| id as usize), device)
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
) -> Result<(), DeviceError> {
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
        let prototype = request.focus.and_then(|mode| {
            focus::prototype(&hidden, &batch.image_rows, &batch.prompts[k], mode, &groups[*g].prompt.image_grid_thw)
        });
        // The responses of a group are neighbours, so one call serves them all.
        let span = batch.responses[segment..segment + responses.len()].iter().map(|r| r.rows.clone());
        let (first, last) = (span.clone().map(|r| r.start).min(), span.map(|r| r.end).max());
        let focus = match (prototype, first, last) {
            (Some(p), Some(a), Some(b)) => Some(host::floats(focus::of_range(&hidden, a..b, &p))?),
            _ => None,
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

/// Adds the gradients of a loss over all groups to `grads`. `loss` gets each micro-batch's log-probs and returns their gradient.
///
/// # Errors
/// Whatever `loss` returns.
pub fn accumulate<B: Kernels, P: Policy<B>, E>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &[GroupRef],
    options: &GradientOptions,
    grads: &mut Gradients<B>,
    mut loss: impl FnMut(MicroScores<B>) -> Result<MicroGradients<B>, E>,
) -> Result<(), E> {
    for pass in passes(groups, options.token_budget) {
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
                let d_hidden = through_head(policy, groups, options, micro, &batch, hidden, grads, &mut loss)?;
                policy.backward(tape, &batch, d_hidden, grads);
            }
            Pass::Parts(g, parts) => {
                let mut prompt = policy.share_saving(groups[g].prompt, pictures, options.recompute);
                for part in parts {
                    let batch = policy.pack_part(groups[g].prompt, &groups[g].some(&part));
                    let (hidden, tape) = policy.forward_saving_part(&prompt, &batch, options.recompute);
                    let micro = vec![(g, part)];
                    let d_hidden = through_head(policy, groups, options, micro, &batch, hidden, grads, &mut loss)?;
                    policy.backward_part(tape, &mut prompt, &batch, d_hidden, grads);
                }
                policy.backward_shared(prompt, grads);
            }
        }
    }
    Ok(())
}

/// From hidden states `[N, d]` through head and loss and back: their gradient `[N, d]`; the head's goes to `grads`.
#[allow(clippy::too_many_arguments)] // the body of the loop above, which has two places for it
fn through_head<B: Kernels, P: Policy<B>, E>(
    policy: &P,
    groups: &[GroupRef],
    options: &GradientOptions,
    micro: MicroBatch,
    batch: &PackedBatch<B>,
    hidden: Tensor<B, 2>,
    grads: &mut Gradients<B>,
    loss: &mut impl FnMut(MicroScores<B>) -> Result<MicroGradients<B>, E>,
) -> Result<Tensor<B, 2>, E> {
    let device = policy.device();
    let (weight, head_name) = policy.head();
    let dims = hidden.dims();
    let rows = int_tensor(batch.predicting_rows(), &device);
    let targets = targets(groups, &micro, &device);
    let states = hidden.select(0, rows.clone());
    let scores = head::log_probs(states.clone(), weight, targets.clone(), options.temperature, options.entropy);
    let lengths = batch.responses.iter().map(|r| r.rows.len()).collect();
    let d = loss(MicroScores { micro, lengths, log_probs: scores.log_probs, entropy: scores.entropy })?;
    let dh = head::log_probs_backward(
        states,
        weight,
        targets,
        options.temperature,
        d.log_probs,
        d.entropy,
        head_name,
        grads,
    );
    // All responses of a group add to the last row of their prompt: in f32, and rounded once.
    let dtype = dh.dtype();
    let d_hidden = Tensor::zeros(dims, (&device, DType::F32));
    Ok(cast_to(d_hidden.select_assign(0, rows, to_f32(dh), IndexingUpdateOp::Add), dtype))
}

/// What `recompute = "auto"` means for a policy and a token budget: whether the activations of all layers exceed `gib` GiB.
pub fn recompute_for<B: Kernels, P: Policy<B>>(policy: &P, token_budget: usize, gib: f64) -> bool {
    policy.activation_bytes().saturating_mul(token_budget) as f64 > gib * (1u64 << 30) as f64
}

/// Ragged `[M]` to padded `[R, T]` and back, on the device.
pub struct Ragged {
    lengths: Vec<usize>,
    width: usize,
}

impl Ragged {
    /// For rows of these lengths.
    pub fn new(lengths: &[usize]) -> Self {
        Self { lengths: lengths.to_vec(), width: lengths.iter().copied().max().unwrap_or(0) }
    }

    /// `[M]` to `[R, T]`; padding repeats the first value.
    pub fn pad<B: Kernels>(&self, x: Tensor<B, 1>) -> Tensor<B, 2> {
        let mut index = Vec::with_capacity(self.lengths.len() * self.width);
        let mut start = 0;
        for &len in &self.lengths {
            index.extend((0..self.width).map(|t| if t < len { start + t } else { 0 }));
            start += len;
        }
        let device = x.device();
        x.select(0, int_tensor(index, &device)).reshape([self.lengths.len(), self.width])
    }

    /// `[R, T]` to `[M]`.
    pub fn flatten<B: Kernels>(&self, x: Tensor<B, 2>) -> Tensor<B, 1> {
        let width = self.width;
        let index: Vec<usize> =
            self.lengths.iter().enumerate().flat_map(|(r, &len)| (0..len).map(move |t| r * width + t)).collect();
        let device = x.device();
        x.reshape([self.lengths.len() * width]).select(0, int_tensor(index, &device))
    }

    /// Longest row.
    pub fn width(&self) -> usize {
        self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(len: usize) -> Prompt {
        Prompt {
            input_ids: vec![7; len],
            position_ids: Default::default(),
            pixel_values: Default::default(),
            image_grid_thw: vec![],
        }
    }

    #[test]
    fn passes_hold_every_response_and_every_prompt_once() {
        let (p, q) = (prompt(10), prompt(3));
        let ids = [1u32; 50];
        let group = |p, lens: &[usize]| GroupRef { prompt: p, responses: lens.iter().map(|&l| &ids[..l]).collect() };
        let groups = vec![group(&p, &[5, 6, 7]), group(&q, &[1]), group(&p, &[20, 20, 20]), group(&q, &[2, 2])];
        for budget in [1, 12, 35, 60, 1000] {
            let mut seen = Vec::new();
            let mut prompts = Vec::new();
            for pass in passes(&groups, budget) {
                let parts: Vec<MicroBatch> = match pass {
                    Pass::Together(micro) => {
                        prompts.extend(micro.iter().map(|(g, _)| *g));
                        vec![micro]
                    }
                    Pass::Parts(g, parts) => {
                        assert!(parts.len() > 1, "{budget}: {parts:?}");
                        prompts.push(g);
                        parts.into_iter().map(|part| vec![(g, part)]).collect()
                    }
                };
                for micro in parts {
                    let sizes = micro.iter().map(|(g, rs)| {
                        let responses: usize = rs.iter().map(|&r| groups[*g].responses[r].len()).sum();
                        groups[*g].prompt.len() + responses
                    });
                    let responses: usize = micro.iter().map(|(_, rs)| rs.len()).sum();
                    assert!(sizes.sum::<usize>() <= budget || responses == 1, "{budget}: {micro:?}");
                    seen.extend(micro.iter().flat_map(|(g, rs)| rs.iter().map(move |r| (*g, *r))));
                }
            }
            assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1)]);
            assert_eq!(prompts, [0, 1, 2, 3], "{budget}");
        }
        assert_eq!(passes(&groups, 1000).len(), 1);
    }
}
