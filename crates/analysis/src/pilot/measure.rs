//! Answers the rows of a data set and measures every generated token.

use std::sync::atomic::AtomicBool;

use burn::tensor::Tensor;
use model_qwen2vl::model::{Images, PackedBatch, Prompt, int_tensor};
use model_qwen2vl::params::to_f32;
use model_qwen2vl::{Kernels, QwenVl, host};
use reward::Reward;
use rl::TrainError;
use rl::experience::grade;
use rl::focus;
use rl::image_cache::ImageCache;
use rl::prompts::{Prompts, SetAside};
use rl::rollout::{Job, RolloutConfig, generate, never_sampled};
use rl::sampler::Sampling;
use rl::trajectory::ScoredGroup;
use serde::{Deserialize, Serialize};
use vgpo::PrototypeMode;

/// What is asked of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Pilot {
    /// Responses a prompt.
    pub samples: usize,
    /// Rows from the start of the data; 0: all.
    pub limit: usize,
    /// Temperature and seed; 0 is greedy.
    pub sampling: Sampling,
    /// Length limit of a response.
    pub max_new_tokens: usize,
    /// Ids that end a response.
    pub eos: Vec<u32>,
    /// Responses decoded at the same time.
    pub max_batch_rows: usize,
    /// Responses with pictures, from the first on, for which [`Panel`]s are computed.
    pub maps: usize,
}

/// One response and its tokens; a line of `responses.jsonl`. Lists have one number a generated token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The row's name.
    pub id: String,
    /// Row index in the data.
    pub row: usize,
    /// Number among the responses to its prompt, from 0.
    pub sample: usize,
    /// The problem.
    pub problem: String,
    /// The reference answer.
    pub answer: String,
    /// The response, special tokens left out.
    pub response: String,
    /// Accuracy, 0 to 1.
    pub accuracy: f64,
    /// Image tokens of the prompt.
    pub image_tokens: usize,
    /// Attention on image tokens.
    pub image: Vec<f32>,
    /// Attention on the rest of the prompt.
    pub prompt: Vec<f32>,
    /// Attention on generated tokens, the token itself included.
    pub generated: Vec<f32>,
    /// Visual focus (equation 4); empty without an image.
    pub focus: Vec<f32>,
}

/// Cosines of one token to every image token.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Index among the generated tokens, from 0.
    pub token: usize,
    /// `[M]`, all pictures in order.
    pub cosines: Vec<f32>,
}

/// A measured response with what a heat map needs.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Its numbers.
    pub record: Record,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The prompt, pictures included.
    pub source: Prompt,
    /// The tokens of highest focus; empty where no map was asked for.
    pub panels: Vec<Panel>,
}

/// Prompts whose responses are generated together.
const PROMPTS_AT_ONCE: usize = 32;
/// Tokens of a response that are drawn.
const PANELS: usize = 4;

impl Pilot {
    /// Answers and measures the rows; `each` gets every response in order, `note` lines for a person. Rows that cannot be used are
    /// set aside; their number is returned.
    ///
    /// # Errors
    /// Data or rewards that cannot be used, an interrupt, and whatever `each` says.
    pub fn run<B: Kernels, E: From<TrainError>>(
        &self,
        model: &QwenVl<B>,
        prompts: &Prompts,
        reward: &mut Reward,
        interrupt: &AtomicBool,
        note: &mut dyn FnMut(String),
        each: &mut dyn FnMut(Measured) -> Result<(), E>,
    ) -> Result<usize, E> {
        let rows: Vec<usize> = match self.limit {
            0 => (0..prompts.len()).collect(),
            limit => (0..limit.min(prompts.len())).collect(),
        };
        let config = RolloutConfig {
            n: self.samples,
            sampling: self.sampling.clone(),
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: 0,
            eos: self.eos.clone(),
            suppress: never_sampled(model.config.vision_token_ids(), prompts.processor(), model.config.text.vocab_size),
            focus: None,
            max_batch_rows: self.max_batch_rows,
            prefill_token_budget: 16_384,
        };
        let mut aside = SetAside::default();
        let mut maps = self.maps;
        for rows in rows.chunks(PROMPTS_AT_ONCE) {
            let items = prompts.load_many(rows, model, &mut aside, note).map_err(E::from)?;
            let jobs: Vec<Job> = items.iter().map(|i| Job { prompt: &i.prompt, key: i.row as u64 }).collect();
            let (responses, _) = generate(model, &jobs, &config, &mut ImageCache::default(), interrupt, |_, _, _| {})
                .map_err(|e| E::from(e.into()))?;
            for group in grade(items, responses, prompts.processor(), reward).map_err(E::from)? {
                for measured in measure(model, &group, &mut maps).map_err(E::from)? {
                    each(measured)?;
                }
            }
        }
        Ok(aside.count())
    }
}

/// One forward over a group.
fn measure<B: Kernels>(model: &QwenVl<B>, group: &ScoredGroup, maps: &mut usize) -> Result<Vec<Measured>, TrainError> {
    let device = model.device();
    let prompt = &group.item.prompt;
    let ids: Vec<&[u32]> = group.trajectories.iter().map(|t| &t.ids[..]).collect();
    let batch = PackedBatch::new(&model.config, &[(prompt, ids)], &device);
    let images = Images::new(&model.config, [prompt], &device);
    let embeds = images.map(|i| model.encode_images(&i));
    let (hidden, masses) = model.hidden_with_attention(&batch, embeds)?;
    let prototype =
        focus::prototype(&hidden, &batch.image_rows, &batch.prompts[0], PrototypeMode::Mean, &prompt.image_grid_thw);
    let mut measured = Vec::with_capacity(masses.len());
    for (k, (mass, trajectory)) in masses.into_iter().zip(&group.trajectories).enumerate() {
        let rows = batch.responses[k].rows.clone();
        let of_tokens = match &prototype {
            Some(p) => host::floats(focus::of_range(&hidden, rows.clone(), p))?,
            None => vec![],
        };
        let mut panels = vec![];
        if !of_tokens.is_empty() && *maps > 0 {
            *maps -= 1;
            panels = cosines(&hidden, rows.start, &batch.image_rows, &of_tokens)?;
        }
        measured.push(Measured {
            record: Record {
                id: group.item.id.clone(),
                row: group.item.row,
                sample: k,
                problem: group.item.problem.clone(),
                answer: group.item.answer.clone(),
                response: trajectory.text.clone(),
                accuracy: trajectory.score.accuracy,
                image_tokens: batch.image_rows.len(),
                image: mass.image,
                prompt: mass.prompt,
                generated: mass.generated,
                focus: of_tokens,
            },
            ids: trajectory.ids.clone(),
            source: prompt.clone(),
            panels,
        });
    }
    Ok(measured)
}

/// Cosines of the tokens of highest focus to all image tokens.
fn cosines<B: Kernels>(
    hidden: &Tensor<B, 2>,
    first: usize,
    images: &[usize],
    focus: &[f32],
) -> Result<Vec<Panel>, TrainError> {
    let mut order: Vec<usize> = (0..focus.len()).collect();
    order.sort_by(|&a, &b| focus[b].total_cmp(&focus[a]));
    order.truncate(PANELS);
    let device = hidden.device();
    let unit = |rows: Vec<usize>| {
        let x = to_f32(hidden.clone().select(0, int_tensor(rows, &device)));
        let norm = x.clone().powi_scalar(2).sum_dim(1).sqrt().add_scalar(rl::focus::EPS);
        x.div(norm)
    };
    let tokens = unit(order.iter().map(|t| first + t).collect());
    let all = host::floats(tokens.matmul(unit(images.to_vec()).transpose()))?; // [chosen, M]
    Ok(order
        .into_iter()
        .zip(all.chunks(images.len().max(1)))
        .map(|(token, cosines)| Panel { token, cosines: cosines.to_vec() })
        .collect())
}
