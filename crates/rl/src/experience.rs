//! From sampled groups to experience: rewards, old log-probs, and only the streams that an algorithm declares.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use data::Processor;
use model_qwen2vl::Kernels;
use reward::{Request, Reward, Score};

use crate::advantage::{AdvantageInputs, estimate};
use crate::config::{Config, OldLogProbs};
use crate::engine::{GroupRef, ResponseScores, ScoreRequest, score};
use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::loss::{KlConfig, LossConfig, kl};
use crate::perturb::{Perturbation, Perturber};
use crate::policy::Policy;
use crate::prompts::Item;
use crate::rollout::{FinishReason, Response};
use crate::shaping::{AdvantageShaping, Draw, Shaped, ShapingBatch, Stream, Streams, Training};
use crate::spans::perception_span;

/// A prompt with its sampled and graded responses: the unit of work.
#[derive(Debug, Clone)]
pub struct Group {
    /// The row.
    pub item: Item,
    /// Its responses.
    pub responses: Vec<Response>,
    /// Their text, special tokens left out.
    pub texts: Vec<String>,
    /// Their scores.
    pub scores: Vec<Score>,
    /// Score of the greedy response, for estimators that need it.
    pub greedy: Option<f64>,
    /// Whether dynamic sampling kept it from an earlier step: an older policy sampled it.
    pub carried: bool,
}

impl Group {
    /// Mean reward.
    pub fn reward(&self) -> f64 {
        self.mean("overall").unwrap_or(0.0)
    }

    /// Mean accuracy.
    pub fn accuracy(&self) -> f64 {
        self.mean("accuracy").unwrap_or(0.0)
    }

    /// Mean of `key` over the responses that have it: `overall`, `accuracy`, `format` or a further metric of the reward.
    pub fn mean(&self, key: &str) -> Option<f64> {
        let value = |s: &Score| match key {
            "overall" => Some(s.overall),
            "accuracy" => Some(s.accuracy),
            "format" => Some(s.format),
            other => s.extra.get(other).copied(),
        };
        let values: Vec<f64> = self.scores.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    }

    /// Whether all rewards are equal: such a group teaches nothing.
    pub fn is_flat(&self) -> bool {
        self.scores.windows(2).all(|w| w[0].overall == w[1].overall)
    }

    fn refs(&self) -> GroupRef<'_> {
        GroupRef { prompt: &self.item.prompt, responses: self.responses.iter().map(|r| &r.ids[..]).collect() }
    }
}

/// Decodes and grades the responses of some rows.
///
/// # Errors
/// What the reward says; tokens that do not decode.
pub fn grade(
    items: Vec<Item>,
    responses: Vec<Vec<Response>>,
    processor: &Processor,
    reward: &mut Reward,
) -> Result<Vec<Group>, TrainError> {
    let mut groups: Vec<Group> = Vec::with_capacity(items.len());
    for (item, responses) in items.into_iter().zip(responses) {
        let texts = responses.iter().map(|r| processor.decode(&r.ids, true)).collect::<Result<_, _>>()?;
        groups.push(Group { item, responses, texts, scores: vec![], greedy: None, carried: false });
    }
    let requests: Vec<Request> = groups
        .iter()
        .flat_map(|g| {
            g.texts.iter().zip(&g.responses).map(|(text, r)| Request {
                response: text,
                ground_truth: &g.item.answer,
                response_length: r.ids.len(),
                id: &g.item.id,
            })
        })
        .collect();
    let mut scores = reward.score(&requests)?.into_iter();
    for group in &mut groups {
        group.scores = scores.by_ref().take(group.responses.len()).collect();
    }
    Ok(groups)
}

/// Everything that an update reads. Lists have one entry a response, in the order of the groups.
#[derive(Debug, Clone)]
pub struct Experience {
    /// The groups.
    pub groups: Vec<Group>,
    /// Tokens of each response.
    pub lengths: Vec<usize>,
    /// Log-probs that the ratio is taken against.
    pub old_log_probs: Vec<Vec<f32>>,
    /// Log-probs that the sampler reported.
    pub rollout_log_probs: Vec<Vec<f32>>,
    /// Token advantages and mask.
    pub shaped: Shaped,
    /// Log-probs under the reference, for a KL in the loss.
    pub ref_log_probs: Option<Vec<Vec<f32>>>,
    /// Log-probs with a perturbed image, for PAPO.
    pub masked_log_probs: Option<Vec<Vec<f32>>>,
    /// Whether the prompt of each response has an image.
    pub has_image: Vec<bool>,
    /// What was measured.
    pub metrics: BTreeMap<String, f64>,
}

impl Experience {
    /// The responses of each group as the engine takes them.
    pub fn refs(&self) -> Vec<GroupRef<'_>> {
        self.groups.iter().map(Group::refs).collect()
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
}

/// The settings that experience is made with.
pub struct Recipe<'a, B: Backend> {
    /// The run's configuration.
    pub config: &'a Config,
    /// The loss, for the streams that it reads.
    pub loss: &'a LossConfig,
    /// The shaping in force.
    pub shaping: &'a dyn AdvantageShaping<B>,
    /// For decoding and image constants.
    pub processor: &'a Processor,
    /// KL coefficient now.
    pub kl_coef: f64,
    /// Names the random draws of this step.
    pub step: u64,
    /// Where the stage stands.
    pub training: Training,
}

fn ragged(groups: &[Group], f: impl Fn(&Response) -> Vec<f32>) -> Vec<Vec<f32>> {
    groups.iter().flat_map(|g| g.responses.iter().map(&f)).collect()
}

fn log_probs_of(scores: Vec<Vec<ResponseScores>>) -> Vec<Vec<f32>> {
    scores.into_iter().flatten().map(|s| s.log_probs).collect()
}

/// Computes what the algorithm declares and shapes the advantages. `images` holds what the policy's tower made of the prompts' pictures.
///
/// # Errors
/// Streams and settings that do not fit, from the estimator or the shaping; a device that cannot be read.
pub fn make<B: Kernels, P: Policy<B>>(
    policy: &P,
    reference: Option<&P>,
    groups: Vec<Group>,
    recipe: &Recipe<B>,
    images: &mut ImageCache<B>,
) -> Result<(Experience, ExperienceTimes), TrainError> {
    let config = recipe.config;
    let declared = recipe.shaping.streams();
    let wanted = |pick: fn(&Stream) -> bool| declared.iter().find(|s| pick(s)).copied();
    let focus = declared.iter().find_map(|s| match s {
        Stream::VisualFocus { prototype } => Some(*prototype),
        _ => None,
    });
    let entropy = wanted(|s| matches!(s, Stream::Entropy)).is_some();
    let dependency = wanted(|s| matches!(s, Stream::TokenVisualDependency)).is_some();
    let lengths: Vec<usize> = groups.iter().flat_map(|g| g.responses.iter().map(|r| r.ids.len())).collect();
    let rollout_log_probs = ragged(&groups, |r| r.log_probs.clone());
    let mut metrics = BTreeMap::new();
    let mut times = ExperienceTimes::default();
    let mut streams = Streams::default();
    let request = ScoreRequest {
        temperature: config.rollout.temperature,
        entropy,
        focus,
        dependency,
        token_budget: config.actor.micro_batch_tokens,
    };
    let plain = ScoreRequest { entropy: false, focus: None, dependency: false, ..request };
    let refs: Vec<GroupRef> = groups.iter().map(Group::refs).collect();

    let clock = std::time::Instant::now();
    let sampler_knows_all = !entropy
        && !dependency
        && (focus.is_none()
            || groups.iter().all(|g| {
                g.item.prompt.image_grid_thw.is_empty() || g.responses.iter().all(|r| r.visual_focus.is_some())
            }));
    // What this policy says where it is compared with itself under another picture or text. For groups that were carried over it is
    // not what they were drawn from: between the two the policy has moved.
    let compared = wanted(|s| matches!(s, Stream::OldLogProbs | Stream::UnperceivedLogProbs)).is_some();
    let mut current = None;
    let old_log_probs = if config.actor.old_log_probs == OldLogProbs::Rollout && sampler_knows_all {
        if focus.is_some() {
            streams.visual_focus = Some(ragged(&groups, |r| r.visual_focus.clone().unwrap_or_default()));
        }
        if compared && groups.iter().any(|g| g.carried) {
            current = Some(current_log_probs(policy, images, &groups, &plain)?);
        }
        rollout_log_probs.clone()
    } else {
        let scores: Vec<ResponseScores> = score(policy, images, &refs, &request)?.into_iter().flatten().collect();
        if focus.is_some() {
            streams.visual_focus = Some(scores.iter().map(|s| s.visual_focus.clone().unwrap_or_default()).collect());
        }
        if entropy {
            streams.entropy = Some(scores.iter().map(|s| s.entropy.clone().unwrap_or_default()).collect());
        }
        if dependency {
            // A picture with nothing beside it has no text-only prediction to compare with.
            let row = |s: &ResponseScores| match &s.token_visual_dependency {
                Some(row) => row.clone(),
                None => vec![f32::NAN; s.log_probs.len()],
            };
            streams.token_visual_dependency = Some(scores.iter().map(row).collect());
        }
        let mut recomputed: Vec<Vec<f32>> = scores.into_iter().map(|s| s.log_probs).collect();
        current = compared.then(|| recomputed.clone());
        let carried = groups.iter().flat_map(|g| std::iter::repeat_n(g.carried, g.responses.len()));
        for ((row, sampled), _) in recomputed.iter_mut().zip(&rollout_log_probs).zip(carried).filter(|(_, c)| *c) {
            // The ratio is taken against what they were drawn from.
            row.clone_from(sampled);
        }
        mismatch(&recomputed, &rollout_log_probs, &groups, &mut metrics);
        match config.actor.old_log_probs {
            OldLogProbs::Rollout => rollout_log_probs.clone(),
            OldLogProbs::Recompute => recomputed,
        }
    };
    let current = current.as_ref().unwrap_or(&old_log_probs);
    times.old_log_probs_s = clock.elapsed().as_secs_f64();

    let clock = std::time::Instant::now();
    let needs_reference = recipe.loss.kl.in_loss() || recipe.loss.kl.in_reward();
    let ref_log_probs = match (needs_reference, reference) {
        (true, Some(reference)) => Some(log_probs_of(score(reference, &mut ImageCache::default(), &refs, &plain)?)),
        (true, None) => {
            return Err(TrainError::Input("a KL term needs the reference policy, which was not loaded".into()));
        }
        (false, _) => None,
    };
    let perturbed = |draw: Draw, how: Perturbation| perturbed_log_probs(policy, &groups, &plain, recipe, draw, how);
    for stream in &declared {
        match *stream {
            Stream::PerturbedLogProbs { draw, perturbation } => {
                streams.perturbed_log_probs = Some(perturbed(draw, perturbation)?)
            }
            Stream::OldLogProbs => streams.old_log_probs = Some(current.clone()),
            Stream::RefLogProbs => streams.ref_log_probs.clone_from(&ref_log_probs),
            Stream::PerceptionSpans | Stream::UnperceivedLogProbs if streams.perception_spans.is_none() => {
                let spans: Vec<_> = groups
                    .iter()
                    .flat_map(|g| g.responses.iter().map(|r| perception_span(recipe.processor, &r.ids)))
                    .collect();
                streams.unperceived_log_probs =
                    Some(crate::spans::unperceived_log_probs(policy, images, &refs, &spans, current, &plain)?);
                streams.perception_spans = Some(spans);
            }
            _ => {}
        }
    }
    let masked = recipe.loss.streams().iter().find_map(|s| match *s {
        Stream::PerturbedLogProbs { draw, perturbation } => Some(perturbed(draw, perturbation)),
        _ => None,
    });
    let masked_log_probs = masked.transpose()?;
    times.streams_s = clock.elapsed().as_secs_f64();

    let clock = std::time::Instant::now();
    let ids: Vec<usize> =
        groups.iter().enumerate().flat_map(|(g, group)| std::iter::repeat_n(g, group.responses.len())).collect();
    let rewards: Vec<f32> = groups.iter().flat_map(|g| g.scores.iter().map(|s| s.overall as f32)).collect();
    let greedy: Option<Vec<f32>> = groups
        .iter()
        .map(|g| g.greedy.map(|v| vec![v as f32; g.responses.len()]))
        .collect::<Option<Vec<_>>>()
        .map(|v| v.concat());
    let penalties =
        kl_in_reward(&recipe.loss.kl, recipe.kl_coef, &old_log_probs, ref_log_probs.as_deref(), &mut metrics);
    let advantages = estimate(
        config.algorithm.build_estimator()?.as_ref(),
        &AdvantageInputs {
            rewards: &rewards,
            groups: &ids,
            lengths: &lengths,
            greedy_rewards: greedy.as_deref(),
            token_rewards: penalties.as_deref(),
        },
    )?;
    let has_image: Vec<bool> = groups
        .iter()
        .flat_map(|g| std::iter::repeat_n(!g.item.prompt.image_grid_thw.is_empty(), g.responses.len()))
        .collect();
    let batch = ShapingBatch {
        advantages: &advantages,
        lengths: &lengths,
        groups: &ids,
        has_image: &has_image,
        streams: &streams,
        training: recipe.training,
    };
    let shaped = recipe.shaping.shape(&batch, &policy.device())?;
    metrics.extend(shaped.metrics.iter().map(|(k, v)| (k.to_string(), *v)));
    times.advantages_s = clock.elapsed().as_secs_f64();
    summary(&groups, &mut metrics);
    let ref_log_probs = if recipe.loss.kl.in_loss() { ref_log_probs } else { None };
    Ok((
        Experience {
            groups,
            lengths,
            old_log_probs,
            rollout_log_probs,
            shaped,
            ref_log_probs,
            masked_log_probs,
            has_image,
            metrics,
        },
        times,
    ))
}

/// The sampler's log-probs where this policy was the sampler, recomputed ones in groups that were carried over.
fn current_log_probs<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &mut ImageCache<B>,
    groups: &[Group],
    request: &ScoreRequest,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let mut out = Vec::new();
    for group in groups {
        match group.carried {
            true => out.extend(log_probs_of(score(policy, images, &[group.refs()], request)?)),
            false => out.extend(group.responses.iter().map(|r| r.log_probs.clone())),
        }
    }
    Ok(out)
}

/// The gap between trainer and sampler, token by token, of what this policy sampled.
fn mismatch(recomputed: &[Vec<f32>], rollout: &[Vec<f32>], groups: &[Group], metrics: &mut BTreeMap<String, f64>) {
    let (mut count, mut sum, mut largest, mut kl) = (0usize, 0f64, 0f64, 0f64);
    let carried = groups.iter().flat_map(|g| std::iter::repeat_n(g.carried, g.responses.len()));
    let fresh = recomputed.iter().zip(rollout).zip(carried).filter(|(_, carried)| !carried);
    for (a, b) in fresh.flat_map(|((a, b), _)| a.iter().zip(b)) {
        let d = f64::from(a - b);
        count += 1;
        sum += d.abs();
        largest = largest.max(d.abs());
        kl += d.exp() - d - 1.0;
    }
    if count > 0 {
        metrics.insert("mismatch/log_prob_abs_mean".into(), sum / count as f64);
        metrics.insert("mismatch/log_prob_abs_max".into(), largest);
        metrics.insert("mismatch/kl".into(), kl / count as f64);
    }
}

/// Log-probs of all responses with perturbed images, one draw a response or a prompt; zeros for prompts without an image, where
/// there is nothing to compare.
fn perturbed_log_probs<B: Kernels, P: Policy<B>>(
    policy: &P,
    groups: &[Group],
    request: &ScoreRequest,
    recipe: &Recipe<B>,
    draw: Draw,
    perturbation: Perturbation,
) -> Result<Vec<Vec<f32>>, TrainError> {
    let seed = recipe.config.trainer.seed ^ 0x0070_6572_7475_7262 ^ recipe.step;
    let mut out = Vec::new();
    let none = &mut ImageCache::default();
    // Group by group: a draw a response needs a copy of the pixels for each.
    for group in groups {
        let item = &group.item;
        if item.prompt.image_grid_thw.is_empty() {
            out.extend(group.responses.iter().map(|r| vec![0.0; r.ids.len()]));
            continue;
        }
        let named = |e: TrainError| TrainError::Input(format!("row {} ({}): {e}", item.row, item.id));
        let draws = Perturber::new(&item.prompt, &item.images, recipe.processor, perturbation, seed, item.row as u64)
            .map_err(named)?;
        let scores = match draw {
            Draw::Prompt => {
                let prompt = draws.draw(0).map_err(named)?;
                score(policy, none, &[GroupRef { prompt: &prompt, responses: group.refs().responses }], request)?
            }
            Draw::Response => {
                let count = group.responses.len() as u64;
                let prompts = (1..=count).map(|r| draws.draw(r)).collect::<Result<Vec<_>, _>>().map_err(named)?;
                let refs: Vec<GroupRef> = prompts
                    .iter()
                    .zip(&group.responses)
                    .map(|(prompt, r)| GroupRef { prompt, responses: vec![&r.ids] })
                    .collect();
                score(policy, none, &refs, request)?
            }
        };
        out.extend(log_probs_of(scores));
    }
    Ok(out)
}

/// The KL penalty of each token, where it is taken in the reward.
fn kl_in_reward(
    config: &KlConfig,
    coef: f64,
    old: &[Vec<f32>],
    reference: Option<&[Vec<f32>]>,
    metrics: &mut BTreeMap<String, f64>,
) -> Option<Vec<Vec<f32>>> {
    let reference = reference.filter(|_| config.in_reward())?;
    let (rows, mean) = kl::reward_penalty(old, reference, config.kl_penalty, coef);
    metrics.insert("critic/kl".into(), mean);
    metrics.insert("critic/kl_coef".into(), coef);
    Some(rows)
}

/// Rewards, lengths and the share of groups that teach nothing.
fn summary(groups: &[Group], metrics: &mut BTreeMap<String, f64>) {
    let count = groups.iter().map(|g| g.responses.len()).sum::<usize>().max(1) as f64;
    let all = |f: &dyn Fn(&Score) -> f64| groups.iter().flat_map(|g| g.scores.iter()).map(f).sum::<f64>() / count;
    metrics.insert("reward".into(), all(&|s| s.overall));
    metrics.insert("accuracy".into(), all(&|s| s.accuracy));
    metrics.insert("format".into(), all(&|s| s.format));
    let names: std::collections::BTreeSet<&String> =
        groups.iter().flat_map(|g| g.scores.iter().flat_map(|s| s.extra.keys())).collect();
    for name in names {
        // A reward command may leave a metric out where it means nothing: the mean is over those that have it.
        let values: Vec<f64> =
            groups.iter().flat_map(|g| g.scores.iter()).filter_map(|s| s.extra.get(name).copied()).collect();
        metrics.insert(format!("reward/{name}"), values.iter().sum::<f64>() / values.len().max(1) as f64);
    }
    let lengths: Vec<usize> = groups.iter().flat_map(|g| g.responses.iter().map(|r| r.ids.len())).collect();
    metrics.insert("response_length/mean".into(), lengths.iter().sum::<usize>() as f64 / count);
    metrics.insert("response_length/max".into(), lengths.iter().copied().max().unwrap_or(0) as f64);
    metrics.insert("response_length/min".into(), lengths.iter().copied().min().unwrap_or(0) as f64);
    let cut = groups.iter().flat_map(|g| &g.responses).filter(|r| r.finish == FinishReason::Length).count();
    metrics.insert("response_length/clip_ratio".into(), cut as f64 / count);
    let flat = groups.iter().filter(|g| g.is_flat()).count();
    metrics.insert("group/zero_variance_share".into(), flat as f64 / groups.len().max(1) as f64);
    metrics.insert(
        "prompt_length/mean".into(),
        groups.iter().map(|g| g.item.prompt.len()).sum::<usize>() as f64 / groups.len().max(1) as f64,
    );
}
