//! From sampled responses to experience: grading, selection, the streams that an algorithm declares, shaped advantages.
//!
//! The steps are functions that anyone can call: [`grade`], [`select`], [`make`]; [`crate::learn::update`] follows.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use comm::Ranks;
use data::Processor;
use kernels::Kernels;
use reward::{Request, Reward, Score};

use crate::advantage::{AdvantageInputs, estimate};
use crate::config::{Algorithm, Config};
use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::learn::GroupRef;
use crate::loss::{KlConfig, kl};
use crate::policy::Policy;
use crate::prompts::Item;
use crate::recipe::Recipe;
use crate::reward_rows::RewardRows;
use crate::rollout::{FinishReason, Response};
use crate::shaping::{Shaped, ShapingError, Training, stream::check};
use crate::streams::{self, Columns};
use crate::trajectory::{ScoredGroup, Trajectory};

/// What a step measured, by name.
pub type Metrics = BTreeMap<String, f64>;

/// Decodes and grades the responses of some rows: `responses` has one list per row.
///
/// # Errors
/// What the reward says; tokens that do not decode.
pub fn grade(
    items: Vec<Item>,
    responses: Vec<Vec<Response>>,
    processor: &Processor,
    reward: &mut Reward,
) -> Result<Vec<ScoredGroup>, TrainError> {
    let of_each = responses.iter().flatten().map(|r| processor.decode(&r.ids, true));
    let texts: Vec<String> = of_each.collect::<Result<_, _>>()?;
    let seen = RewardRows::of(&items, reward)?;
    let rows = std::iter::zip(&items, &responses).enumerate();
    let rows = rows.flat_map(|(index, (item, responses))| responses.iter().map(move |r| (index, item, r)));
    let requests: Vec<Request> = std::iter::zip(rows, &texts)
        .map(|((index, item, response), text)| Request {
            response: text,
            ground_truth: &item.answer,
            response_length: response.ids.len(),
            id: &item.id,
            row: seen.get(index),
        })
        .collect();
    let scores = reward.score(&requests)?;
    let counts = [requests.len(), scores.len()];
    if items.len() != responses.len() || counts != [texts.len(); 2] {
        return Err(TrainError::Input(format!(
            "{} responses to {} rows, {} of {} of them graded",
            texts.len(),
            items.len(),
            counts[1],
            counts[0]
        )));
    }
    let mut graded = std::iter::zip(texts, scores);
    let group = |(item, responses): (Item, Vec<Response>)| ScoredGroup {
        item,
        trajectories: std::iter::zip(responses, graded.by_ref())
            .map(|(response, (text, score))| Trajectory::new(response, text, score))
            .collect(),
        greedy: None,
        carried: false,
    };
    Ok(std::iter::zip(items, responses).map(group).collect())
}

/// The groups that dynamic sampling keeps; all of them where it is off.
///
/// # Errors
/// A filter by a metric that no response has.
pub fn select(mut groups: Vec<ScoredGroup>, algorithm: &Algorithm) -> Result<Vec<ScoredGroup>, TrainError> {
    if !algorithm.online_filtering {
        return Ok(groups);
    }
    let key = algorithm.filter_key.as_str();
    if groups.iter().all(|g| g.mean(key).is_none()) {
        return Err(TrainError::Input(format!(
            "algorithm.filter_key: the reward command gave no response a metric \"{key}\""
        )));
    }
    groups.retain(|g| g.mean(key).is_some_and(|m| m > algorithm.filter_low && m < algorithm.filter_high));
    groups.retain(|g| !(algorithm.filter_zero_variance && g.is_flat()));
    Ok(groups)
}

/// Everything that an update reads.
#[derive(Debug, Clone)]
pub struct Experience {
    /// The groups, with old log-probs and advantages in their records.
    pub groups: Vec<ScoredGroup>,
    /// What was measured.
    pub metrics: Metrics,
}

impl Experience {
    /// The responses of each group as the passes take them.
    pub fn refs(&self) -> Vec<GroupRef<'_>> {
        self.groups.iter().map(ScoredGroup::refs).collect()
    }

    /// All responses, in the order of the groups.
    pub fn trajectories(&self) -> impl Iterator<Item = &Trajectory> {
        self.groups.iter().flat_map(|g| &g.trajectories)
    }

    /// The same to change.
    pub fn trajectories_mut(&mut self) -> impl Iterator<Item = &mut Trajectory> {
        self.groups.iter_mut().flat_map(|g| &mut g.trajectories)
    }
}

/// Seconds that the parts of making experience took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ExperienceTimes {
    /// Recomputing log-probs, focus included where it is a by-product.
    pub old_log_probs_s: f64,
    /// Reference and perturbed-image passes.
    pub streams_s: f64,
    /// Estimating and shaping advantages.
    pub advantages_s: f64,
    /// Keeping the tokens of some groups.
    pub token_log_s: f64,
}

impl ExperienceTimes {
    /// As they are logged.
    pub fn metrics(&self) -> [(&'static str, f64); 4] {
        [
            ("time/old_log_probs_s", self.old_log_probs_s),
            ("time/streams_s", self.streams_s),
            ("time/advantages_s", self.advantages_s),
            ("time/token_log_s", self.token_log_s),
        ]
    }
}

/// What experience is made with, in one step.
pub struct StepContext<'a, B: Backend> {
    /// The run's configuration.
    pub config: &'a Config,
    /// Estimator, shaping and loss.
    pub recipe: &'a Recipe<B>,
    /// Tokenizer and image constants; perturbed pictures and perception spans need them.
    pub processor: Option<&'a Processor>,
    /// Names the random draws of this step.
    pub step: u64,
    /// Where the stage stands.
    pub training: Training,
    /// The ranks of the run; what the policy computes is dealt out to them.
    pub ranks: &'a Ranks,
}

impl<'a, B: Backend> StepContext<'a, B> {
    /// The processor.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn processor(&self) -> Result<&'a Processor, TrainError> {
        let missing = "perturbed pictures and perception spans need the model folder's tokenizer and image processor";
        self.processor.ok_or_else(|| TrainError::Input(missing.into()))
    }
}

/// Computes what the algorithm declares and shapes the advantages. `images` holds what the policy's tower made of the
/// prompts' pictures.
///
/// # Errors
/// Streams and settings that do not fit, from the estimator or the shaping; a device that cannot be read.
pub fn make<B: Kernels, P: Policy<B>>(
    policy: &P,
    reference: Option<&P>,
    mut groups: Vec<ScoredGroup>,
    context: &StepContext<B>,
    images: &mut ImageCache<B>,
) -> Result<(Experience, ExperienceTimes), TrainError> {
    let mut metrics = Metrics::new();
    let mut times = streams::compute(policy, reference, &mut groups, context, images, &mut metrics)?;
    let clock = std::time::Instant::now();
    shape(&mut groups, context, &policy.device(), &mut metrics)?;
    times.advantages_s = clock.elapsed().as_secs_f64();
    summary(&groups, &mut metrics);
    Ok((Experience { groups, metrics }, times))
}

/// Estimates the advantages of all responses and spreads them over their tokens.
fn shape<B: Backend>(
    groups: &mut [ScoredGroup],
    context: &StepContext<B>,
    device: &B::Device,
    metrics: &mut Metrics,
) -> Result<(), TrainError> {
    let recipe = context.recipe;
    let columns = Columns::of(groups, &recipe.shaping.streams());
    let penalties = kl_in_reward(&recipe.loss.kl, groups, metrics);
    let inputs = AdvantageInputs {
        rewards: &columns.rewards,
        groups: &columns.groups,
        lengths: &columns.lengths,
        greedy_rewards: columns.greedy_rewards.as_deref(),
        token_rewards: penalties.as_deref(),
    };
    let advantages = estimate(recipe.advantage.as_ref(), &inputs)?;
    let batch = columns.batch(&advantages, context.training);
    let shaped = recipe.shaping.shape(&batch, device)?;
    metrics.extend(shaped.metrics.iter().map(|(k, v)| (k.to_string(), *v)));
    for (trajectory, plain) in std::iter::zip(groups.iter_mut().flat_map(|g| &mut g.trajectories), batch.plain()) {
        trajectory.unshaped = plain;
    }
    Ok(store(groups, shaped, &columns.lengths)?)
}

/// Writes the shaped advantages into the records, and the policy mask where there is one.
fn store(groups: &mut [ScoredGroup], shaped: Shaped, lengths: &[usize]) -> Result<(), ShapingError> {
    check("the shaped advantages", &shaped.advantages, lengths)?;
    if let Some(values) = shaped.policy_mask_values() {
        check("the policy mask", &values, lengths)?;
    }
    let mut masks = shaped.policy_mask.map(Vec::into_iter);
    let trajectories = groups.iter_mut().flat_map(|g| &mut g.trajectories);
    for (trajectory, advantages) in std::iter::zip(trajectories, shaped.advantages) {
        trajectory.advantages = advantages;
        trajectory.policy_mask = masks.as_mut().and_then(Iterator::next);
    }
    Ok(())
}

/// The KL penalty of each token, where it is taken in the reward.
fn kl_in_reward(config: &KlConfig, groups: &[ScoredGroup], metrics: &mut Metrics) -> Option<Vec<Vec<f32>>> {
    if !config.in_reward() {
        return None;
    }
    let reference = streams::column(groups, |s| s.ref_log_probs.clone())?;
    let old: Vec<Vec<f32>> =
        groups.iter().flat_map(|g| g.trajectories.iter().map(|t| t.old_log_probs.clone())).collect();
    let (rows, mean) = kl::reward_penalty(&old, &reference, config.kl_penalty, config.kl_coef);
    metrics.insert("critic/kl".into(), mean);
    metrics.insert("critic/kl_coef".into(), config.kl_coef);
    Some(rows)
}

/// Rewards, lengths and the share of groups that teach nothing.
fn summary(groups: &[ScoredGroup], metrics: &mut Metrics) {
    let trajectories = || groups.iter().flat_map(|g| &g.trajectories);
    let scores = || trajectories().map(|t| &t.score);
    let count = trajectories().count().max(1) as f64;
    let all = |f: &dyn Fn(&Score) -> f64| scores().map(f).sum::<f64>() / count;
    metrics.insert("reward".into(), all(&|s| s.overall));
    metrics.insert("accuracy".into(), all(&|s| s.accuracy));
    metrics.insert("format".into(), all(&|s| s.format));
    let names: std::collections::BTreeSet<&String> = scores().flat_map(|s| s.extra.keys()).collect();
    for name in names {
        // A reward command may leave a metric out where it means nothing: the mean is over those that have it.
        let values: Vec<f64> = scores().filter_map(|s| s.extra.get(name).copied()).collect();
        metrics.insert(format!("reward/{name}"), values.iter().sum::<f64>() / values.len().max(1) as f64);
    }
    let lengths: Vec<usize> = trajectories().map(|t| t.ids.len()).collect();
    metrics.insert("response_length/mean".into(), lengths.iter().sum::<usize>() as f64 / count);
    metrics.insert("response_length/max".into(), lengths.iter().copied().max().unwrap_or(0) as f64);
    metrics.insert("response_length/min".into(), lengths.iter().copied().min().unwrap_or(0) as f64);
    let cut = trajectories().filter(|t| t.finish == FinishReason::Length).count();
    metrics.insert("response_length/clip_ratio".into(), cut as f64 / count);
    let of_groups = groups.len().max(1) as f64;
    let flat = groups.iter().filter(|g| g.is_flat()).count();
    metrics.insert("group/zero_variance_share".into(), flat as f64 / of_groups);
    let prompts = groups.iter().map(|g| g.item.prompt.len()).sum::<usize>();
    metrics.insert("prompt_length/mean".into(), prompts as f64 / of_groups);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Prompt;

    /// A group of two responses with these accuracies, which are their rewards, too.
    fn group(row: usize, accuracies: [f64; 2]) -> ScoredGroup {
        let prompt = Prompt {
            input_ids: vec![1],
            position_ids: [vec![0], vec![0], vec![0]],
            pixel_values: Default::default(),
            image_grid_thw: vec![],
        };
        let text = String::new;
        let item = Item {
            row,
            id: row.to_string(),
            problem: text(),
            answer: text(),
            solution: None,
            task: None,
            columns: Default::default(),
            prompt,
            images: vec![],
            holder: 0,
            known_content: None,
        };
        let graded = |accuracy: f64| {
            let score = Score { overall: accuracy, accuracy, ..Score::default() };
            let finish = FinishReason::Stop;
            let response =
                Response { ids: vec![], log_probs: vec![], finish, visual_focus: None, top_log_probs: vec![] };
            Trajectory::new(response, text(), score)
        };
        ScoredGroup { item, trajectories: accuracies.map(graded).into(), greedy: None, carried: false }
    }

    /// Both bounds are outside, and flat groups are dropped where that is asked for.
    #[test]
    fn dynamic_sampling_keeps_what_lies_between_its_bounds() {
        let groups = || {
            let means = [[0.0, 0.0], [0.0, 0.5], [0.0, 1.0], [0.5, 0.5], [0.5, 1.0], [1.0, 1.0]];
            means.into_iter().enumerate().map(|(row, pair)| group(row, pair)).collect::<Vec<_>>()
        };
        let kept = |algorithm: &Algorithm| -> Vec<usize> {
            select(groups(), algorithm).unwrap().iter().map(|group| group.item.row).collect()
        };
        let between = Algorithm {
            online_filtering: true,
            filter_key: "accuracy".into(),
            filter_low: 0.25,
            filter_high: 0.75,
            filter_zero_variance: false,
            ..Algorithm::default()
        };
        assert_eq!(kept(&between), [2, 3]);
        assert_eq!(kept(&Algorithm { filter_zero_variance: true, ..between.clone() }), [2]);
        assert_eq!(kept(&Algorithm { filter_low: 0.24, filter_high: 0.76, ..between.clone() }), [1, 2, 3, 4]);
        assert_eq!(kept(&Algorithm { online_filtering: false, ..between.clone() }), [0, 1, 2, 3, 4, 5]);
        let error = select(groups(), &Algorithm { filter_key: "speed".into(), ..between }).unwrap_err().to_string();
        assert!(error.contains("algorithm.filter_key") && error.contains("\"speed\""), "{error}");
    }
}
