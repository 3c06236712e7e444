//! Scoring and gradients over packed groups, in micro-batches whose size changes no result.

use ::vgpo::PrototypeMode;
use burn::tensor::{DType, IndexingUpdateOp, Tensor};
use model_qwen2vl::model::{Prompt, int_tensor};
use model_qwen2vl::params::{cast_to, to_f32};
use model_qwen2vl::{Gradients, Kernels, head};

use crate::focus;
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

/// Cuts groups into micro-batches of at most `budget` packed tokens. A group stays whole where it fits, so that its prompt is
/// computed once; one that does not fit is cut between responses, and a single response is never cut.
pub fn micro_batches(groups: &[GroupRef], budget: usize) -> Vec<MicroBatch> {
    let mut batches: Vec<MicroBatch> = Vec::new();
    let mut current: MicroBatch = Vec::new();
    let mut tokens = 0;
    for (g, group) in groups.iter().enumerate() {
        let whole = group.prompt.len() + group.responses.iter().map(|r| r.len()).sum::<usize>();
        if tokens + whole > budget && !current.is_empty() {
            batches.push(std::mem::take(&mut current));
            tokens = 0;
        }
        if tokens + whole <= budget {
            current.push((g, (0..group.responses.len()).collect()));
            tokens += whole;
            continue;
        }
        let mut part = Vec::new();
        let mut size = group.prompt.len();
        for (i, response) in group.responses.iter().enumerate() {
            if size + response.len() > budget && !part.is_empty() {
                batches.push(vec![(g, std::mem::take(&mut part))]);
                size = group.prompt.len();
            }
            part.push(i);
            size += response.len();
        }
        current.push((g, part));
        tokens = size;
    }
    if !current.is_empty() {
        batches.push(current);
    }
    batches
}

fn pack<'a>(groups: &[GroupRef<'a>], batch: &MicroBatch) -> Vec<PackGroup<'a>> {
    batch
        .iter()
        .map(|(g, responses)| (groups[*g].prompt, responses.iter().map(|&r| groups[*g].responses[r]).collect()))
        .collect()
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
}

/// Scores all responses of all groups: one entry a group, one a response.
pub fn score<B: Kernels, P: Policy<B>>(
    policy: &P,
    groups: &[GroupRef],
    request: &ScoreRequest,
) -> Vec<Vec<ResponseScores>> {
    let mut out: Vec<Vec<ResponseScores>> =
        groups.iter().map(|g| vec![ResponseScores::default(); g.responses.len()]).collect();
    for micro in micro_batches(groups, request.token_budget) {
        let packed = pack(groups, &micro);
        let batch = policy.pack(&packed);
        let prompts: Vec<&Prompt> = packed.iter().map(|(p, _)| *p).collect();
        let hidden = policy.hidden(&batch, policy.images(&prompts).map(|i| policy.encode_images(&i)));
        let device = policy.device();
        let rows = int_tensor(batch.predicting_rows(), &device);
        let targets = int_tensor(
            packed.iter().flat_map(|(_, rs)| rs.iter().flat_map(|r| r.iter().map(|&id| id as usize))),
            &device,
        );
        let scores = head::log_probs(
            hidden.clone().select(0, rows),
            policy.head().0,
            targets,
            request.temperature,
            request.entropy,
        );
        let log_probs = host(scores.log_probs);
        let entropy = scores.entropy.map(host);
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
                (Some(p), Some(a), Some(b)) => Some(host(focus::of_range(&hidden, a..b, &p))),
                _ => None,
            };
            let mut from = 0;
            for &r in responses {
                let len = groups[*g].responses[r].len();
                out[*g][r] = ResponseScores {
                    log_probs: log_probs[at..at + len].to_vec(),
                    entropy: entropy.as_ref().map(|e| e[at..at + len].to_vec()),
                    visual_focus: focus.as_ref().map(|f| f[from..from + len].to_vec()),
                };
                at += len;
                from += len;
                segment += 1;
            }
        }
    }
    out
}

fn host<B: Kernels>(t: Tensor<B, 1>) -> Vec<f32> {
    t.into_data().convert::<f32>().to_vec().unwrap_or_default()
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
    groups: &[GroupRef],
    options: &GradientOptions,
    grads: &mut Gradients<B>,
    mut loss: impl FnMut(MicroScores<B>) -> Result<MicroGradients<B>, E>,
) -> Result<(), E> {
    let device = policy.device();
    let (weight, head_name) = policy.head();
    for micro in micro_batches(groups, options.token_budget) {
        let packed = pack(groups, &micro);
        let batch = policy.pack(&packed);
        let prompts: Vec<&Prompt> = packed.iter().map(|(p, _)| *p).collect();
        let images = policy.images(&prompts);
        let (hidden, tape) = policy.forward_saving(&batch, images.as_ref(), options.train_vision, options.recompute);
        let dims = hidden.dims();
        let rows = int_tensor(batch.predicting_rows(), &device);
        let targets = int_tensor(
            packed.iter().flat_map(|(_, rs)| rs.iter().flat_map(|r| r.iter().map(|&id| id as usize))),
            &device,
        );
        let states = hidden.select(0, rows.clone());
        let scores = head::log_probs(states.clone(), weight, targets.clone(), options.temperature, options.entropy);
        let lengths = packed.iter().flat_map(|(_, rs)| rs.iter().map(|r| r.len())).collect();
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
        let d_hidden = cast_to(d_hidden.select_assign(0, rows, to_f32(dh), IndexingUpdateOp::Add), dtype);
        policy.backward(tape, &batch, images.as_ref(), d_hidden, grads);
    }
    Ok(())
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
            pixel_values: vec![],
            image_grid_thw: vec![],
        }
    }

    #[test]
    fn micro_batches_hold_every_response_once() {
        let (p, q) = (prompt(10), prompt(3));
        let ids = [1u32; 50];
        let group = |p, lens: &[usize]| GroupRef { prompt: p, responses: lens.iter().map(|&l| &ids[..l]).collect() };
        let groups = vec![group(&p, &[5, 6, 7]), group(&q, &[1]), group(&p, &[20, 20, 20]), group(&q, &[2, 2])];
        for budget in [1, 12, 35, 60, 1000] {
            let mut seen = Vec::new();
            for micro in micro_batches(&groups, budget) {
                let tokens: usize = micro
                    .iter()
                    .map(|(g, rs)| {
                        groups[*g].prompt.len() + rs.iter().map(|&r| groups[*g].responses[r].len()).sum::<usize>()
                    })
                    .sum();
                let responses: usize = micro.iter().map(|(_, rs)| rs.len()).sum();
                assert!(tokens <= budget || responses == 1, "{budget}: {micro:?}");
                seen.extend(micro.iter().flat_map(|(g, rs)| rs.iter().map(move |r| (*g, *r))));
            }
            assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1)]);
        }
        assert_eq!(micro_batches(&groups, 1000).len(), 1);
    }
}
