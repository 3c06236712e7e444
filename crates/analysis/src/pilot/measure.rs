//! Answers the rows of a data set and measures every generated token.

use std::sync::atomic::AtomicBool;

use ::report::focus_map::Panel;
use comm::Ranks;
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

/// A measured response.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Its numbers.
    pub record: PilotRecord,
    /// What its heat map is drawn from; none where no map was asked for, or where another rank draws it.
    pub map: Option<MapSource>,
}

/// What a heat map is drawn from.
#[derive(Debug, Clone)]
pub struct MapSource {
    /// The tokens of the response.
    pub ids: Vec<u32>,
    /// The prompt, pictures included.
    pub source: Prompt,
    /// The tokens of highest focus.
    pub panels: Vec<Panel>,
}

/// Prompts whose responses a rank generates together.
const PROMPTS_AT_ONCE: usize = 32;

/// What becomes of each measured response; the function that it gets takes lines for a person.
pub(crate) type EachResponse<'a> = dyn FnMut(Measured, &mut dyn FnMut(String)) -> Result<(), TrainError> + 'a;

impl Pilot {
    /// Answers and measures the rows, dealt out to `ranks`; `each` gets every response in order on all of them, and
    /// `note` lines for a person. Rows that cannot be used are set aside; their number is returned.
    ///
    /// # Errors
    /// Data or rewards that cannot be used, an interrupt, and whatever `each` says.
    pub fn run<B: Kernels>(
        &self,
        ranks: &Ranks,
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
        for round in rows.chunks(PROMPTS_AT_ONCE * ranks.size()) {
            let mut own: Vec<Measured> = Vec::new();
            if let Some(rows) = round.chunks(PROMPTS_AT_ONCE).nth(ranks.rank()) {
                let items = prompts.load_many(rows, model, &mut aside, note)?;
                let jobs: Vec<Job> = items.iter().map(|i| Job { prompt: &i.prompt, key: i.row as u64 }).collect();
                let images = &mut ImageCache::default();
                let (responses, _) = generate(model, &jobs, &config, images, interrupt, |_, _, _| {})?;
                let mut left = maps;
                for group in grade(items, responses, prompts.processor(), &mut reward)? {
                    own.extend(measure(model, &group, &mut left)?);
                }
            }
            for measured in together(ranks, own, &mut maps)? {
                each(measured, note)?;
            }
        }
        let counts = ranks.gather("rows set aside", &aside.count())?;
        Ok(counts.into_iter().sum())
    }
}

/// The responses of all ranks, in order, of which the first `maps` that can have a map keep what it is drawn from: each
/// on its own rank.
fn together(ranks: &Ranks, own: Vec<Measured>, maps: &mut usize) -> Result<Vec<Measured>, TrainError> {
    let records: Vec<PilotRecord> = own.iter().map(|measured| measured.record.clone()).collect();
    let mut own = Some(own);
    let mut all = Vec::new();
    for (rank, records) in ranks.gather("responses", &records)?.into_iter().enumerate() {
        let of_rank = match rank == ranks.rank() {
            true => own.take().unwrap_or_default(),
            false => records.into_iter().map(|record| Measured { record, map: None }).collect(),
        };
        for mut measured in of_rank {
            if !measured.record.focus.is_empty() {
                measured.map = measured.map.filter(|_| *maps > 0);
                *maps = maps.saturating_sub(1);
            }
            all.push(measured);
        }
    }
    Ok(all)
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
        let mut map = None;
        if !of_tokens.is_empty() && *maps > 0 {
            *maps -= 1;
            let panels = focus_map::panels(&hidden, rows.start, &batch.image_rows, &of_tokens)?;
            map = Some(MapSource { ids: trajectory.ids.clone(), source: prompt.clone(), panels });
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
            map,
        });
    }
    Ok(measured)
}
