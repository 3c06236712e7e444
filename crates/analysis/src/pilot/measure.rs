//! Answers the rows of a data set and measures every generated token.

use std::sync::atomic::AtomicBool;

use ::report::focus_map::Panel;
use model_qwen2vl::model::{Images, PackedBatch, Prompt};
use model_qwen2vl::{Kernels, QwenVl, host};
use reward::Reward;
use rl::TrainError;
use rl::experience::grade;
use rl::focus;
use rl::image_cache::ImageCache;
use rl::prompts::SetAside;
use rl::rollout::{Job, RolloutConfig, generate, never_sampled};
use rl::sampler::Sampling;
use rl::trajectory::ScoredGroup;
use serde::{Deserialize, Serialize};
use vgpo::PrototypeMode;

use super::session::Subject;
use crate::focus_map;

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
    /// Responses decoded at the same time.
    pub max_batch_rows: usize,
    /// Responses with pictures, from the first on, for which [`Panel`]s are computed.
    pub maps: usize,
}

/// One response and its tokens; a line of `responses.jsonl`. Lists have one number per generated token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PilotRecord {
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

/// A measured response with what a heat map needs.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Its numbers.
    pub record: PilotRecord,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The prompt, pictures included.
    pub source: Prompt,
    /// The tokens of highest focus; empty where no map was asked for.
    pub panels: Vec<Panel>,
}

/// Prompts whose responses are generated together.
const PROMPTS_AT_ONCE: usize = 32;

/// What becomes of each measured response; the function that it gets takes lines for a person.
pub(crate) type EachResponse<'a> = dyn FnMut(Measured, &mut dyn FnMut(String)) -> Result<(), TrainError> + 'a;

impl Pilot {
    /// Answers and measures the rows; `each` gets every response in order, and `note` lines for a person. Rows that
    /// cannot be used are set aside; their number is returned.
    ///
    /// # Errors
    /// Data or rewards that cannot be used, an interrupt, and whatever `each` says.
    pub fn run<B: Kernels>(
        &self,
        model: &QwenVl<B>,
        subject: &Subject,
        interrupt: &AtomicBool,
        note: &mut dyn FnMut(String),
        each: &mut EachResponse,
    ) -> Result<usize, TrainError> {
        let prompts = &subject.prompts;
        let mut reward = Reward::new(&subject.config.to_reward_config())?;
        let rows: Vec<usize> = match self.limit {
            0 => (0..prompts.len()).collect(),
            limit => (0..limit.min(prompts.len())).collect(),
        };
        let config = RolloutConfig {
            n: self.samples,
            sampling: self.sampling.clone(),
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: 0,
            eos: subject.eos.clone(),
            suppress: never_sampled(model.config.vision_token_ids(), prompts.processor(), model.config.text.vocab_size),
            focus: None,
            max_batch_rows: self.max_batch_rows,
            prefill_token_budget: 16_384,
        };
        let mut aside = SetAside::default();
        let mut maps = self.maps;
        for rows in rows.chunks(PROMPTS_AT_ONCE) {
            let items = prompts.load_many(rows, model, &mut aside, note)?;
            let jobs: Vec<Job> = items.iter().map(|i| Job { prompt: &i.prompt, key: i.row as u64 }).collect();
            let (responses, _) = generate(model, &jobs, &config, &mut ImageCache::default(), interrupt, |_, _, _| {})?;
            for group in grade(items, responses, prompts.processor(), &mut reward)? {
                for measured in measure(model, &group, &mut maps)? {
                    each(measured, note)?;
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
        focus::prototype(&hidden, &batch.image_rows, &batch.prompts[0], PrototypeMode::Mean, &prompt.image_grid_thw)?;
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
            panels = focus_map::panels(&hidden, rows.start, &batch.image_rows, &of_tokens)?;
        }
        measured.push(Measured {
            record: PilotRecord {
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
